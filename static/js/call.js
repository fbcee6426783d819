// The call: feeds the machine with what the person, the socket, the microphone and the speaker do, and runs its effects.
import { AvatarVisualizer } from "./avatar-visualizer.js";
import { connectControls } from "./call-controls.js";
import { CallEffects } from "./call-effects.js";
import { createState, receive } from "./call-machine.js";
import { isHearing } from "./call-step.js";
import { CallView } from "./call-view.js";
import { Captions } from "./captions.js";
import { byId, readJson } from "./dom.js";
import { joinLanguageSwitch } from "./language-switch.js";
import { Microphone } from "./microphone.js";
import { MicrophoneGate } from "./microphone-gate.js";
import { Replay } from "./replay.js";
import { Settings } from "./settings.js";
import { Socket } from "./socket.js";
import { Speaker } from "./speaker.js";
import { say } from "./ui-strings.js";
import { VoiceSheet } from "./voice-sheet.js";

/**
 * @import { CallConfig } from "./call-requests.js"
 * @import { CallEvent } from "./call-types.js"
 */

const TRANSLATED = [
  ".header",
  ".stage",
  "#log",
  "#welcome",
  "#waiting",
  "#turn-template",
  "#correction-template",
  "#composer",
  "#controls",
  "#settings",
];

export class Call {
  /** @type {CallConfig} */
  config = readJson("call");
  socket = new Socket(this.config.socketUrl);
  speaker = new Speaker();
  microphone = new Microphone();
  gate = new MicrophoneGate();
  replay = new Replay();
  visualizer = new AvatarVisualizer(byId("visualizer", HTMLCanvasElement));
  view = new CallView(this.visualizer, (action) => this.effects.makeNoticeAction(action));
  captions = new Captions({
    scroller: byId("log"),
    list: byId("turns"),
    template: byId("turn-template", HTMLTemplateElement),
    announcer: byId("announcer"),
  });
  settings = new Settings(byId("settings", HTMLDialogElement), {
    mode: "hands_free",
    language: "auto",
    pause_ms: this.config.pauseMs,
    sensitivity: this.config.sensitivity,
    voice_profile_id: this.config.voiceProfileId ?? "",
    quality: this.config.quality ?? "fast",
    speed: 1,
    shows_latency: false,
    is_muted: false,
  });
  voices = new VoiceSheet({
    dialog: byId("settings", HTMLDialogElement),
    list: byId("voices"),
    template: byId("voice-template", HTMLTemplateElement),
  });

  effects = new CallEffects(this);

  #answerTurnId = new URL(window.location.href).searchParams.get("answer");
  #state = createState({
    settings: { ...this.settings.values },
    conversationId: this.config.conversationId,
    answerTurnId: this.#answerTurnId,
  });
  /** @type {CallEvent[]} */
  #inbox = [];
  #isReceiving = false;

  constructor() {
    this.socket.conversationId = this.conversationId;
    this.#joinParts();
    connectControls(this.view, {
      getState: () => this.#state,
      dispatch: (event) => this.dispatch(event),
      isOpen: () => this.socket.isOpen,
      openSettings: (section) => {
        this.settings.open(section);
        this.voices.refresh();
      },
    });
    this.dispatch({ type: "settingsChanged", values: { ...this.settings.values } });
    this.effects.run({ type: "fetchStatus" });
    // A press before this script has come would be lost.
    for (const id of ["start", "start-typing", "open-settings"]) byId(id, HTMLButtonElement).disabled = false;
    // From the history, to be answered again: that needs no microphone and no further press.
    if (this.#answerTurnId) this.dispatch({ type: "start", withMicrophone: false, keepsNothing: false });
  }

  get conversationId() {
    return this.#state.conversationId;
  }

  /** Take an event. One that an effect causes waits until the effects before it have run. @param {CallEvent} event */
  dispatch(event) {
    this.#inbox.push(event);
    if (this.#isReceiving) return;
    this.#isReceiving = true;
    try {
      for (let next = this.#inbox.shift(); next; next = this.#inbox.shift()) {
        const { state, effects } = receive(this.#state, next);
        const isChanged = state !== this.#state;
        this.#state = state;
        if (isChanged) this.view.render(state);
        for (const effect of effects) this.effects.run(effect);
      }
    } finally {
      this.#isReceiving = false;
    }
  }

  #joinParts() {
    const { microphone, speaker, socket, captions, replay, settings, voices } = this;
    microphone.onframe = (frame, level) => this.#handleFrame(frame, level);
    microphone.onlost = () => this.dispatch({ type: "microphoneLost" });
    speaker.onplaying = ({ turnId, playedMs, level }) => {
      if (turnId === null) return;
      this.visualizer.setLevel(level);
      this.dispatch({ type: "playing", turnId, playedMs, now: performance.now() });
    };
    speaker.onfinished = ({ turnId, playedMs }) =>
      this.dispatch({ type: "played", turnId, playedMs, isFinished: true });
    speaker.onflushed = ({ turnId, playedMs }) => {
      if (turnId) this.dispatch({ type: "played", turnId, playedMs, isFinished: false });
    };
    socket.onmessage = (message) => this.dispatch({ type: "messageReceived", message });
    socket.onaudio = (pcm) => {
      if (this.#state.audioTurnId) speaker.push(pcm);
    };
    socket.ondropped = ({ code }) => this.dispatch({ type: "dropped", code, isOnline: navigator.onLine });
    socket.onrefused = (code) => this.dispatch({ type: "refused", code });
    captions.oncorrect = (turnId, text) => this.correct(turnId, text);
    captions.onreplay = (url, button) => replay.toggle(url, button);
    replay.onerror = () => this.dispatch({ type: "problemFound", text: say("replay_text") });
    settings.onchange = (name) => {
      this.dispatch({ type: "settingsChanged", values: { ...settings.values } });
      if (name === "voice_profile_id" || name === "quality") voices.remember(name, settings.values[name]);
    };
    voices.onchange = () => settings.refill();
    voices.onerror = (text) => this.dispatch({ type: "problemFound", text });
    window.addEventListener("offline", () => this.dispatch({ type: "wentOffline" }));
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.dispatch({ type: "pageShown" });
    });
    joinLanguageSwitch({
      selectors: TRANSLATED,
      mustStay: () => this.#state.phase !== "idle",
      onswitched: () => this.#relabel(),
    });
  }

  /** @param {ArrayBuffer} frame @param {number} level */
  #handleFrame(frame, level) {
    const shown = isHearing(this.#state) ? level : 0;
    if (!this.#state.isAudible) this.visualizer.setLevel(shown);
    this.view.showMicrophoneLevel(shown, level);
    if (this.#state.phase !== "live" || this.replay.isPlaying) return;
    if (this.gate.accept(frame, this.#state)) this.socket.sendAudio(frame);
  }

  /** @param {string} turnId @param {string} text */
  correct(turnId, text) {
    this.dispatch({ type: "turnCorrected", turnId, text, isOpen: this.socket.isOpen });
  }

  #relabel() {
    const isChinese = document.documentElement.lang.startsWith("zh");
    this.dispatch({ type: "languageSwitched", pageLanguage: isChinese ? "zh-hant" : "en" });
    this.captions.relabel();
    this.settings.refill();
    this.voices.refresh();
    this.view.render(this.#state);
  }
}

window.avatar = new Call();
