// One step of the call's machine: the draft of the next state, the effects so far, and the changes that several events
// share. Pure, like call-machine.js.

/**
 * @import {
 *   CallEffect, CallNotice, CallState, MicrophoneReason, NoticeAction, SettingsValues, Trouble,
 * } from "./call-types.js"
 * @import { ClientMessage } from "./messages.js"
 */

export const HANDS_FREE = "hands_free";

/** Troubles with the line, which a new connection ends. @type {readonly (Trouble | null)[]} */
export const CONNECTION_TROUBLES = ["reconnecting", "offline", "full", "overloaded"];

/** Whether what the microphone hears goes to the server. @param {CallState} state */
export function isHearing({ settings, isHolding }) {
  return settings.mode === HANDS_FREE ? !settings.is_muted : isHolding;
}

/** Whether the person talks while a key is held. @param {CallState} state */
export function isHoldToTalk({ settings, isMicrophoneOpen }) {
  return settings.mode !== HANDS_FREE && isMicrophoneOpen;
}

/** Whether there is a reply that can be stopped. @param {CallState} state */
export function hasReply({ replyTurnId, playingTurnId }) {
  return replyTurnId !== null || playingTurnId !== null;
}

/** Holds a copy of the state, changed in place, and the effects in the order in which they are to run. */
export class Step {
  /** @type {CallEffect[]} */
  effects = [];

  /** @param {CallState} state */
  constructor(state) {
    this.state = state;
  }

  /** @param {CallEffect[]} effects */
  emit(...effects) {
    this.effects.push(...effects);
  }

  /** @param {ClientMessage} message */
  send(message) {
    this.emit({ type: "send", message });
  }

  /**
   * Show a notice. One of the same key without a text of its own stays as it is.
   *
   * @param {string} key
   * @param {Partial<Omit<CallNotice, "key">>} [options]
   */
  notify(key, { text = null, textKey = null, isSerious = true, actions = [] } = {}) {
    if (this.state.notice?.key === key && text === null && textKey === null) return;
    this.state.notice = { key, text, textKey, isSerious, actions };
  }

  /** Hide the notice: any, or only one of `keys`. @param {string[]} keys */
  hideNotice(...keys) {
    if (keys.length === 0 || keys.includes(this.state.notice?.key ?? "")) this.state.notice = null;
  }

  /** @param {string} text */
  showProblem(text) {
    this.notify("problem", { text, actions: [{ do: "dismiss" }] });
  }

  /** @param {Trouble} trouble */
  setTrouble(trouble) {
    this.state.trouble = trouble;
    const canRetry = trouble === "reconnecting" || trouble === "full" || trouble === "overloaded";
    this.notify(trouble, { isSerious: trouble === "unavailable", actions: canRetry ? [{ do: "retryNow" }] : [] });
  }

  /** @param {MicrophoneReason} reason */
  explainMicrophone(reason) {
    /** @type {NoticeAction[]} */
    const actions = [{ do: "start", withMicrophone: false, label: "typeInstead" }];
    if (reason !== "insecure" && reason !== "unsupported") {
      actions.unshift({ do: "start", withMicrophone: true, label: "tryAgain" });
    }
    this.notify(reason, { actions });
  }

  /** @param {{ withMicrophone: boolean, keepsNothing: boolean }} options */
  start({ withMicrophone, keepsNothing }) {
    const { state } = this;
    if (state.starting) return;
    const wasIdle = state.phase === "idle";
    state.starting = { withMicrophone, keepsNothing, wasIdle };
    state.attempt += 1;
    if (wasIdle) state.phase = withMicrophone && !state.isMicrophoneOpen ? "asking" : "connecting";
    this.hideNotice();
    this.emit({ type: "stopReplay" }, { type: "openSound", attempt: state.attempt });
  }

  /** Go on with a start whose loudspeaker and microphone are open. */
  finishStart() {
    const { state } = this;
    if (!state.starting) return;
    const { withMicrophone, keepsNothing, wasIdle } = state.starting;
    state.starting = null;
    if (!withMicrophone) state.isComposerShown = true;
    if (!wasIdle) return;
    state.phase = "connecting";
    // A stored conversation cannot go on unstored, and of an unstored one the server has nothing to go on with.
    if (keepsNothing || state.conversationId === null) this.#beginConversation();
    this.emit({ type: "openSocket", conversationId: state.resumableId, isKept: !keepsNothing }, { type: "keepAwake" });
    this.emit({ type: "focus", target: withMicrophone ? "talk" : "message" });
  }

  #beginConversation() {
    Object.assign(this.state, { conversationId: null, resumableId: null, pendingAudio: [], typedTurnIds: [] });
    this.emit({ type: "clearConversation" });
  }

  /** Wait for a place. The microphone is closed meanwhile. @param {number} place 1 is the next */
  wait(place) {
    const { state } = this;
    this.#endConnectionTrouble();
    state.waitingPlace = place;
    if (state.phase === "waiting" && !state.isMicrophoneOpen) return;
    if (state.isMicrophoneOpen) {
      Object.assign(state, { isMicrophoneOpen: false, wantsMicrophone: true });
      this.emit({ type: "closeMicrophone" });
    }
    state.phase = "waiting";
    this.emit({ type: "focus", target: "leave" });
  }

  /** Go live; after a wait that closed the microphone, once it is open again. @param {string | null} conversationId */
  receiveReady(conversationId) {
    const { state } = this;
    const hasWaited = state.phase === "waiting";
    if (!hasWaited || !state.wantsMicrophone || state.isMicrophoneOpen) {
      this.#becomeLive(conversationId);
      if (hasWaited) this.#focusInput();
      return;
    }
    this.#endConnectionTrouble();
    Object.assign(state, { phase: "asking", waitingPlace: null, held: { conversationId } });
    if (state.starting) return; // the connection was lost while the browser asked, and it asks still
    state.attempt += 1;
    state.starting = { withMicrophone: true, keepsNothing: false, wasIdle: false };
    this.emit({ type: "openMicrophone", attempt: state.attempt });
  }

  /** Go live if the server holds a place: whether the microphone is open is known now. */
  takeHeldPlace() {
    const { state } = this;
    if (!state.held) return;
    if (!state.isMicrophoneOpen) state.isComposerShown = true;
    this.#becomeLive(state.held.conversationId);
    this.#focusInput();
  }

  #focusInput() {
    this.emit({ type: "focus", target: this.state.isMicrophoneOpen ? "talk" : "message" });
  }

  /** @param {string | null} conversationId */
  #becomeLive(conversationId) {
    const { state } = this;
    const isReturn = conversationId !== null && state.conversationId === conversationId;
    Object.assign(state, { phase: "live", stage: "listening", conversationId, isUnkept: conversationId === null });
    Object.assign(state, { waitingPlace: null, wantsMicrophone: false, held: null });
    this.#endConnectionTrouble();
    this.send(makeConfigure(state.settings));
    if (state.answerTurnId) this.emit({ type: "answerAgain", turnId: state.answerTurnId });
    state.answerTurnId = null;
    if (isReturn) this.emit({ type: "fetchKeptTurns", conversationId });
  }

  #endConnectionTrouble() {
    if (CONNECTION_TROUBLES.includes(this.state.trouble)) this.state.trouble = null;
    this.hideNotice(...CONNECTION_TROUBLES.map(String));
  }

  /** Abandon a start that failed. Returns whether it was the latest one. @param {number} attempt */
  abandonStart(attempt) {
    const { state } = this;
    if (attempt !== state.attempt || !state.starting) return false;
    if (state.starting.wasIdle) state.phase = "idle";
    state.starting = null;
    return true;
  }

  end() {
    const { state } = this;
    this.forgetReply();
    this.emit(
      { type: "stopTimer", timer: "release" },
      { type: "stopTimer", timer: "status" },
      { type: "closeSocket" },
      { type: "flushReply" },
      { type: "closeMicrophone" },
      { type: "settleCaptions" },
      { type: "allowSleep" },
      { type: "showEnd" },
      { type: "focus", target: "start" },
    );
    this.hideNotice();
    Object.assign(state, {
      attempt: state.attempt + 1,
      starting: null,
      waitingPlace: null,
      wantsMicrophone: false,
      held: null,
      phase: "idle",
      trouble: null,
      playingTurnId: null,
      isMicrophoneOpen: false,
      isUserSpeaking: false,
      isHolding: false,
      isReleasing: false,
      isComposerShown: false,
    });
  }

  forgetReply() {
    Object.assign(this.state, { replyTurnId: null, audioTurnId: null, isAudible: false });
    this.emit({ type: "showSilence" });
  }

  /** Be silent now: drop the reply and what of it has not been played. */
  flushReply() {
    this.forgetReply();
    this.state.playingTurnId = null;
    this.emit({ type: "flushReply" });
  }

  /** Stop the reply on the person's behalf, and tell the server. */
  interrupt() {
    const turnId = this.state.replyTurnId ?? this.state.playingTurnId;
    this.flushReply();
    this.send({ type: "interrupt" });
    if (turnId) this.emit({ type: "markInterrupted", turnId, wasInterrupted: true });
  }

  /** Stop whatever sounds: the person has something to say. */
  interruptForTurn() {
    if (hasReply(this.state)) this.interrupt();
    this.emit({ type: "stopReplay" });
  }

  offerReplays() {
    for (const { turnId, url } of this.state.pendingAudio) this.emit({ type: "showReplyAudio", turnId, url });
    if (this.state.pendingAudio.length > 0) this.state.pendingAudio = [];
  }

  /** @param {{ turn_id: string, quality: string | null }} message */
  showFallback({ turn_id: turnId, quality }) {
    if (this.state.settings.quality === "high_quality" && quality === "fast")
      this.emit({ type: "showFallback", turnId });
  }
}

/** The body of a `configure` message. @param {Readonly<SettingsValues>} values @returns {ClientMessage} */
export function makeConfigure({ mode, language, pause_ms, sensitivity, voice_profile_id, quality, speed }) {
  const voice = { voice_profile_id: voice_profile_id || null };
  return { type: "configure", mode, language, pause_ms, sensitivity, quality, speed, ...voice };
}
