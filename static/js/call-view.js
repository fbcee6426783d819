// Renders the state of a call: its name and hint, the controls, the composer and the notice. Decides nothing.
import { describeCall } from "./call-state.js";
import { HANDS_FREE, hasReply } from "./call-step.js";
import { byId, byIdOrNull, setText } from "./dom.js";
import { Notice } from "./notice.js";
import { say } from "./ui-strings.js";

/**
 * @import { AvatarVisualizer } from "./avatar-visualizer.js"
 * @import { CallState, NoticeAction } from "./call-types.js"
 */

export class CallView {
  main = byId("main");
  talk = byId("talk", HTMLButtonElement);
  message = byId("message", HTMLTextAreaElement);
  /** Missing on the page of a conversation that is stored already. */
  keepsNothing = byIdOrNull("keeps-nothing", HTMLInputElement);
  notice = new Notice({
    element: byId("notice"),
    title: byId("notice-title"),
    text: byId("notice-text"),
    actions: byId("notice-actions"),
  });
  /** @type {CallState["notice"]} */
  #shownNotice = null;

  /**
   * @param {AvatarVisualizer} visualizer
   * @param {(action: NoticeAction) => import("./notice.js").Action} makeAction
   */
  constructor(visualizer, makeAction) {
    this.visualizer = visualizer;
    this.makeAction = makeAction;
  }

  /** @param {CallState} state */
  render(state) {
    const { key, mood, hint, before } = describeCall({
      phase: state.phase,
      waitingPlace: state.waitingPlace,
      trouble: state.trouble,
      stage: state.stage,
      mode: state.settings.mode,
      isMuted: state.settings.is_muted,
      isHolding: state.isHolding,
      isHearing: state.isMicrophoneOpen,
      isPlaying: state.isAudible,
      isUserSpeaking: state.isUserSpeaking,
      isReplying: state.replyTurnId !== null || state.stage === "llm" || state.stage === "tts",
      heardNothing: state.heardNothing,
    });
    this.main.dataset.state = key;
    this.main.dataset.phase = state.phase;
    this.main.classList.toggle("shows-latency", state.settings.shows_latency);
    setText(byId("state"), before === 0 ? say(`state_${key}Next`) : say(`state_${key}`, { before: before ?? 0 }));
    setText(byId("hint"), hint ? say(`hint_${hint}`) : "");
    this.visualizer.show(mood);
    byId("controls").hidden = state.phase === "idle" || state.phase === "waiting";
    byId("waiting").hidden = state.phase !== "waiting";
    byId("stop", HTMLButtonElement).disabled = !hasReply(state);
    byId("unkept").hidden = !state.isUnkept;
    byId("composer").hidden = !state.isComposerShown || state.phase === "waiting";
    byId("keyboard").setAttribute("aria-pressed", String(state.isComposerShown));
    if (this.keepsNothing)
      byId("keeps-nothing-hint").hidden = !this.keepsNothing.checked || state.conversationId === null;
    this.#renderTalk(state);
    this.#renderNotice(state.notice);
  }

  /** @param {CallState} state */
  #renderTalk({ settings, isHolding, isMicrophoneOpen }) {
    const { talk } = this;
    const isMuted = settings.is_muted;
    const isHold = settings.mode !== HANDS_FREE && isMicrophoneOpen;
    talk.classList.toggle("is-off", !isMicrophoneOpen || (!isHold && isMuted));
    talk.classList.toggle("is-held", isHolding);
    talk.setAttribute("aria-pressed", String(isHold ? isHolding : isMicrophoneOpen && isMuted));
    const label = !isMicrophoneOpen ? "addMicrophone" : isHold ? "hold" : "mute";
    setText(byId("talk-label"), say(label));
    talk.title = say(label === "mute" && isMuted ? "unmute" : label);
    if (!isMicrophoneOpen) talk.style.setProperty("--level", "0");
  }

  /** @param {CallState["notice"]} notice */
  #renderNotice(notice) {
    if (notice === this.#shownNotice) return;
    this.#shownNotice = notice;
    if (!notice) {
      this.notice.hide();
      return;
    }
    const { key, text, textKey, isSerious } = notice;
    const actions = notice.actions.map((action) => this.makeAction(action));
    this.notice.show(key, { text: textKey ? say(textKey) : text, isSerious, actions });
  }

  /** Show how loud the microphone is. @param {number} level 0 to 1; 0 while nothing is sent @param {number} heard 0 to 1 */
  showMicrophoneLevel(level, heard) {
    this.talk.style.setProperty("--level", level ? level.toFixed(3) : "0");
    if (byId("settings", HTMLDialogElement).open) byId("meter", HTMLMeterElement).value = heard;
  }

  /** The conversation on the page is over, and another will begin. */
  clearConversation() {
    this.main.classList.remove("has-turns");
    byId("new-conversation").hidden = true;
  }

  /** The conversation has turns: it can be left for a new one. */
  showConversation() {
    this.main.classList.add("has-turns");
    byId("new-conversation").hidden = false;
  }
}
