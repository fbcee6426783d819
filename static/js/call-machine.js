// The call as a state machine. Pure: takes a state and an event, returns the next state and the effects to run.
// Imports no DOM, timer, socket or audio; call.js feeds it and runs its effects.
// A call goes idle → asking (for the microphone) → connecting → live → idle; where all places are taken, from connecting
// to waiting, and once a place is free to asking again, as the microphone is closed while it waits, and to live.
import { MESSAGE_HANDLERS } from "./call-messages.js";
import { CONNECTION_TROUBLES, HANDS_FREE, isHoldToTalk, makeConfigure, Step } from "./call-step.js";
import { CloseCode } from "./close-codes.js";

/**
 * @import { CallEffect, CallEvent, CallState, InferenceStatus, SettingsValues, Trouble } from "./call-types.js"
 * @import { ServerMessage } from "./messages.js"
 */

const PLAYBACK_EVERY_MS = 250;
const RELEASE_TAIL_MS = 240; // people let go while they end their last syllable
const STATUS_EVERY_MS = 3_000;

/** Troubles with the engines, which a status of ready ends. @type {readonly (Trouble | null)[]} */
const ENGINE_TROUBLES = ["warming", "unavailable"];

/** The notice after an end of the call that the person may undo by starting again. @type {Readonly<Record<number, string>>} */
const RETRYABLE_REFUSALS = {
  [CloseCode.REPLACED]: "replaced",
  [CloseCode.IDLE]: "idleEnd",
  [CloseCode.ENDED_BY_OPERATOR]: "endedByOperator",
  [CloseCode.NO_ANSWER]: "noAnswer",
  [CloseCode.TOO_MANY_CALLS]: "tooMany",
};

/**
 * Return the state of a page on which no call has begun.
 *
 * @param {{ settings: Readonly<SettingsValues>, conversationId?: string | null, answerTurnId?: string | null }} options
 * @returns {CallState}
 */
export function createState({ settings, conversationId = null, answerTurnId = null }) {
  return {
    phase: "idle",
    trouble: null,
    stage: "listening",
    attempt: 0,
    starting: null,
    waitingPlace: null,
    wantsMicrophone: false,
    held: null,
    isMicrophoneOpen: false,
    canPlay: false,
    isUserSpeaking: false,
    isHolding: false,
    isReleasing: false,
    heardNothing: false,
    replyTurnId: null,
    audioTurnId: null,
    playingTurnId: null,
    isAudible: false,
    lastPlaybackAt: -Infinity,
    settings,
    isComposerShown: false,
    notice: null,
    conversationId,
    resumableId: conversationId,
    isUnkept: false,
    answerTurnId,
    wasTyped: false,
    typedTurnIds: [],
    pendingAudio: [],
  };
}

/**
 * Return the state after `event`, and the effects in the order in which they are to run, after the state is rendered.
 * The same state object comes back when nothing in it has changed.
 *
 * @param {CallState} state
 * @param {CallEvent} event
 * @returns {{ state: CallState, effects: CallEffect[] }}
 */
export function receive(state, event) {
  const step = new Step({ ...state });
  const handle = /** @type {(step: Step, event: CallEvent) => void} */ (HANDLERS[event.type]);
  handle(step, event);
  const keys = /** @type {(keyof CallState)[]} */ (Object.keys(state));
  const isChanged = keys.some((key) => step.state[key] !== state[key]);
  return { state: isChanged ? step.state : state, effects: step.effects };
}

/** @type {{ [T in CallEvent["type"]]: (step: Step, event: Extract<CallEvent, { type: T }>) => void }} */
export const HANDLERS = {
  start: (step, event) => step.start(event),
  end: (step) => step.end(),
  stop: (step) => step.interrupt(),

  talkPressed(step, { keepsNothing }) {
    const { state } = step;
    if (!state.isMicrophoneOpen) step.start({ withMicrophone: true, keepsNothing });
    else if (!isHoldToTalk(state)) step.emit({ type: "setMuted", isMuted: !state.settings.is_muted });
  },

  hold(step) {
    const { state } = step;
    if (state.phase !== "live" || state.trouble || !isHoldToTalk(state)) return;
    if (state.isReleasing) step.emit({ type: "stopTimer", timer: "release" });
    state.isReleasing = false;
    if (state.isHolding) return;
    step.interruptForTurn();
    state.isHolding = true;
    state.heardNothing = false;
    step.emit({ type: "sendPreroll" });
  },

  release(step) {
    const { state } = step;
    if (!state.isHolding || state.isReleasing) return;
    state.isReleasing = true;
    step.emit({ type: "startTimer", timer: "release", afterMs: RELEASE_TAIL_MS });
  },

  keyboardPressed(step) {
    step.state.isComposerShown = !step.state.isComposerShown;
    if (step.state.isComposerShown) step.emit({ type: "focus", target: "message" });
  },

  textSubmitted(step, { text, isOpen }) {
    const { state } = step;
    if (text === "" || state.phase !== "live" || !isOpen) return;
    step.interruptForTurn();
    step.send({ type: "text", text });
    step.emit({ type: "clearComposer" }, { type: "scrollToEnd" });
    state.wasTyped = true;
    state.stage = "llm";
  },

  turnCorrected(step, { turnId, text, isOpen }) {
    if (text === "" || step.state.phase !== "live" || !isOpen) return;
    step.interruptForTurn();
    step.send({ type: "correct", turn_id: turnId, text });
    step.state.stage = "llm";
  },

  settingsChanged(step, { values }) {
    const { state } = step;
    state.settings = values;
    step.emit({ type: "muteMicrophone", isMuted: values.mode === HANDS_FREE && values.is_muted });
    if (state.phase === "live") step.send(makeConfigure(values));
  },

  languageSwitched: (step, { pageLanguage }) => step.send({ type: "configure", page_language: pageLanguage }),
  noticeDismissed: (step) => step.hideNotice(),

  pageShown(step) {
    if (step.state.phase !== "idle") step.emit({ type: "resumeSound" }, { type: "keepAwake" });
  },

  soundOpened(step, { attempt, canPlay }) {
    const { state } = step;
    state.canPlay = canPlay;
    if (attempt !== state.attempt || !state.starting) return;
    if (state.starting.withMicrophone && !state.isMicrophoneOpen) step.emit({ type: "openMicrophone", attempt });
    else step.finishStart();
  },

  microphoneOpened(step, { attempt, isOpen }) {
    if (attempt !== step.state.attempt) return; // ended while the permission was asked for; it has been closed again
    step.state.isMicrophoneOpen = isOpen;
    step.finishStart();
    step.takeHeldPlace();
  },

  microphoneRefused(step, { attempt, reason }) {
    if (!step.abandonStart(attempt)) return;
    step.takeHeldPlace(); // who has waited goes on by typing
    step.explainMicrophone(reason);
  },

  startFailed(step, { attempt }) {
    if (step.abandonStart(attempt)) step.takeHeldPlace();
  },

  microphoneLost(step) {
    step.state.isMicrophoneOpen = false;
    step.explainMicrophone("lost");
  },

  keptTurnsFetched(step, { conversationId, turns }) {
    const { state } = step;
    const isStale = state.phase === "idle" || conversationId !== state.conversationId || state.replyTurnId !== null;
    if (isStale || turns.length === 0) return;
    step.emit({ type: "replaceTurns", turns });
  },

  statusFetched(step, { inference }) {
    const { state } = step;
    if (inference.is_ready) {
      step.hideNotice(...ENGINE_TROUBLES.map(String));
      if (ENGINE_TROUBLES.includes(state.trouble)) state.trouble = null;
      return;
    }
    const isConnected = state.phase === "idle" || !CONNECTION_TROUBLES.includes(state.trouble);
    if (isConnected) step.setTrouble(isWarming(inference) ? "warming" : "unavailable");
    step.emit({ type: "startTimer", timer: "status", afterMs: STATUS_EVERY_MS });
  },

  timerElapsed(step, { timer }) {
    const { state } = step;
    if (timer === "status") step.emit({ type: "fetchStatus" });
    else if (state.isReleasing) {
      Object.assign(state, { isReleasing: false, isHolding: false, stage: "stt" });
      step.send({ type: "audio_end" });
    }
  },

  playing(step, { turnId, playedMs, now }) {
    const { state } = step;
    state.isAudible = true;
    if (now - state.lastPlaybackAt < PLAYBACK_EVERY_MS) return;
    state.lastPlaybackAt = now;
    step.send({ type: "playback", turn_id: turnId, played_ms: playedMs });
  },

  played(step, { turnId, playedMs, isFinished }) {
    const { state } = step;
    step.send({ type: "playback", turn_id: turnId, played_ms: playedMs, is_finished: isFinished });
    if (isFinished && state.playingTurnId === turnId) state.playingTurnId = null;
    if (state.playingTurnId === null) state.isAudible = false;
    step.emit({ type: "showSilence" });
  },

  messageReceived(step, { message }) {
    if (step.state.phase === "idle") return; // it was on its way when the person hung up
    const handle = /** @type {((step: Step, message: ServerMessage) => void) | undefined} */ (
      MESSAGE_HANDLERS[message.type]
    );
    handle?.(step, message); // a later server may send types that this page does not know
  },

  dropped(step, { code, isOnline }) {
    const { state } = step;
    if (state.isReleasing) step.emit({ type: "stopTimer", timer: "release" });
    if (state.audioTurnId) step.emit({ type: "endReply", turnId: state.audioTurnId }); // what has arrived is played to its end
    step.forgetReply();
    Object.assign(state, { isUserSpeaking: false, isHolding: false, isReleasing: false });
    if (state.phase === "waiting" || state.held)
      Object.assign(state, { phase: "waiting", waitingPlace: null, held: null });
    step.emit({ type: "settleCaptions" });
    if (code === CloseCode.SERVER_FULL) step.setTrouble("full");
    else if (code === CloseCode.OVERLOADED) step.setTrouble("overloaded");
    else step.setTrouble(isOnline ? "reconnecting" : "offline");
  },

  refused(step, { code }) {
    const { isMicrophoneOpen, wantsMicrophone, conversationId } = step.state;
    const withMicrophone = isMicrophoneOpen || wantsMicrophone;
    step.end();
    const again = /** @type {const} */ ({ do: "start", withMicrophone, label: "tryAgain" });
    if (code === CloseCode.NOT_LOGGED_IN) step.notify("expired", { actions: [{ do: "logIn" }] });
    else if (code === CloseCode.UNKNOWN_CONVERSATION) step.notify("unknown", { actions: [{ do: "newConversation" }] });
    else if (code in RETRYABLE_REFUSALS) {
      const textKey = code === CloseCode.IDLE && conversationId === null ? "idleEndUnkept_text" : null;
      step.notify(RETRYABLE_REFUSALS[code], { textKey, actions: [again], isSerious: false });
    } else step.notify("refused", { actions: [{ do: "reload" }] });
  },

  wentOffline(step) {
    if (step.state.trouble === "reconnecting") step.setTrouble("offline");
  },

  problemFound: (step, { text }) => step.showProblem(text),
};

/** @param {InferenceStatus} inference */
function isWarming({ roles }) {
  return roles.some(({ state }) => state === "loading" || state === "warming");
}
