// What each message of the server does to the call. Pure, like call-machine.js.
/**
 * @import { Step } from "./call-step.js"
 * @import { ServerMessage } from "./messages.js"
 */

const STATUS_AFTER_MS = 3_000; // the server caches its status for two seconds

/**
 * Notices about what is stored and about lateness. They do not end the utterance: captions are not settled.
 *
 * @type {Readonly<Record<string, { key: string, isSerious: boolean }>>}
 */
const RECORDING_NOTICES = {
  NOT_KEPT: { key: "notKept", isSerious: true },
  KEPT_AGAIN: { key: "keptAgain", isSerious: false },
  FELL_BEHIND: { key: "fellBehind", isSerious: false },
  CONVERSATION_GONE: { key: "conversationGone", isSerious: true },
};

/** @type {{ [T in ServerMessage["type"]]: (step: Step, message: Extract<ServerMessage, { type: T }>) => void }} */
export const MESSAGE_HANDLERS = {
  status(step, message) {
    if (message.stage === "ready") {
      step.receiveReady(message.conversation_id);
      return;
    }
    const { state } = step;
    state.stage = message.stage;
    state.isUserSpeaking = message.stage === "listening" && message.is_speaking === true;
    if (message.stage === "listening") step.offerReplays();
    if (message.stage === "llm" || message.stage === "tts") state.replyTurnId = message.turn_id ?? state.replyTurnId;
    if (state.isUserSpeaking) {
      state.heardNothing = false;
      step.hideNotice("idle");
    }
  },

  waiting: (step, { place }) => step.wait(place),

  transcription(step, { turn_id: turnId, text, is_final: isFinal, language }) {
    const { state } = step;
    if (text !== "") step.hideNotice("idle");
    step.emit({ type: "showTranscript", turnId, text, isFinal, language });
    if (!isFinal) return;
    state.isUserSpeaking = false;
    state.heardNothing = text === "";
    if (text === "") return;
    state.resumableId = state.conversationId;
    step.emit({ type: "resumeAs", conversationId: state.resumableId });
    if (state.conversationId !== null) step.emit({ type: "showAddress", conversationId: state.conversationId });
    if (state.wasTyped) state.typedTurnIds = [...state.typedTurnIds, turnId];
    state.wasTyped = false;
  },

  corrected: (step, { turn_id: turnId, text, language }) =>
    step.emit({ type: "showCorrection", turnId, text, language }),

  llm_response(step, { turn_id: turnId, text, is_final: isFinal, was_interrupted: wasInterrupted }) {
    if (isFinal) step.emit({ type: "showReply", turnId, text, wasInterrupted });
    else {
      step.state.replyTurnId = turnId;
      step.emit({ type: "showReplyDelta", turnId, text });
    }
  },

  tts_ready(step, message) {
    const { state } = step;
    const { turn_id: turnId, audio_url: url, sample_rate: sampleRate } = message;
    state.audioTurnId = turnId;
    if (state.canPlay) state.playingTurnId = turnId;
    if (url) state.pendingAudio = [...state.pendingAudio.filter((audio) => audio.turnId !== turnId), { turnId, url }];
    step.emit({ type: "beginReply", turnId, sampleRate });
    step.showFallback(message);
  },

  turn_end(step, message) {
    const { state } = step;
    const { turn_id: turnId, user_turn_id: userTurnId, was_interrupted: wasInterrupted } = message;
    if (state.audioTurnId === turnId) {
      step.emit({ type: "endReply", turnId });
      state.audioTurnId = null;
    }
    if (state.replyTurnId === turnId) state.replyTurnId = null;
    step.emit(
      { type: "markInterrupted", turnId, wasInterrupted },
      { type: "showLatency", turnId, latency: message.latency_ms },
    );
    step.showFallback(message);
    if (state.conversationId !== null && !state.typedTurnIds.includes(userTurnId)) {
      step.emit({ type: "showUserAudio", turnId: userTurnId, conversationId: state.conversationId });
    }
    if (message.audio_ms === 0) state.pendingAudio = state.pendingAudio.filter((audio) => audio.turnId !== turnId);
    step.emit({ type: "showConversation" });
  },

  interrupted(step, { turn_id: turnId }) {
    step.flushReply();
    step.emit({ type: "markInterrupted", turnId, wasInterrupted: true });
  },

  error(step, message) {
    const { state } = step;
    const { code, error: text } = message;
    if (code === "SERVER_FULL" || message.is_fatal) return; // the close code that follows says so
    if (code in RECORDING_NOTICES) {
      const { key, isSerious } = RECORDING_NOTICES[code];
      step.notify(key, { text, isSerious, actions: [{ do: "dismiss" }] });
      return;
    }
    state.isUserSpeaking = false;
    if (code === "NO_AUDIO_DATA") state.heardNothing = true;
    else if (code === "INFERENCE_UNAVAILABLE") {
      state.replyTurnId = null;
      step.setTrouble("unavailable");
      step.emit({ type: "startTimer", timer: "status", afterMs: STATUS_AFTER_MS });
    } else {
      if (code === "PROCESSING_ERROR") state.replyTurnId = null;
      if (code === "VOICE_GONE" && message.voice_profile_id)
        step.emit({ type: "forgetVoice", voiceId: message.voice_profile_id });
      step.showProblem(text);
    }
    step.emit({ type: "settleCaptions" });
  },

  idle_warning: (step, { notice }) => step.notify("idle", { text: notice, isSerious: false }),
  pong() {},
};
