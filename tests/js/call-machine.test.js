// The call's machine. TRANSITIONS has a row for each transition; a test walks it, and others see that it is complete.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";

import { createState, HANDLERS, receive } from "../../static/js/call-machine.js";
import { MESSAGE_HANDLERS } from "../../static/js/call-messages.js";

const SETTINGS = {
  mode: "hands_free",
  language: "auto",
  pause_ms: 600,
  sensitivity: 0.5,
  voice_profile_id: "",
  quality: "fast",
  speed: 1,
  shows_latency: false,
  is_muted: false,
};
const HOLD = { ...SETTINGS, mode: "hold_to_talk" };
const MUTED = { ...SETTINGS, is_muted: true };
const HIGH = { ...SETTINGS, quality: "high_quality" };
const CONFIGURE = {
  type: "configure",
  mode: "hands_free",
  language: "auto",
  pause_ms: 600,
  sensitivity: 0.5,
  quality: "fast",
  speed: 1,
  voice_profile_id: null,
};
const SPOKEN = { withMicrophone: true, keepsNothing: false };
const TYPED = { withMicrophone: false, keepsNothing: false };
const LATENCY = { stt: 1, ttft: 2, ttfa: 3, total: 4 };

const NO_REPLY = { replyTurnId: null, audioTurnId: null, isAudible: false };
const SILENT = { ...NO_REPLY, playingTurnId: null };
const LIVE = { phase: "live", attempt: 1, isMicrophoneOpen: true, canPlay: true, conversationId: "c" };
const REPLYING = { ...LIVE, stage: "tts", replyTurnId: "a", audioTurnId: "a", playingTurnId: "a", isAudible: true };
const HOLDING = { ...LIVE, settings: HOLD, isHolding: true };
const ENDED = {
  ...SILENT,
  phase: "idle",
  attempt: 2,
  starting: null,
  trouble: null,
  isMicrophoneOpen: false,
  isUserSpeaking: false,
  isHolding: false,
  isReleasing: false,
  isComposerShown: false,
  notice: null,
};

const note = (key, changes = {}) => ({ key, text: null, textKey: null, isSerious: true, actions: [], ...changes });
const DISMISS = { actions: [{ do: "dismiss" }] };
const again = (withMicrophone) => ({ do: "start", withMicrophone, label: "tryAgain" });
const TYPE_INSTEAD = { do: "start", withMicrophone: false, label: "typeInstead" };
const RECONNECTING = note("reconnecting", { isSerious: false, actions: [{ do: "retryNow" }] });
const OFFLINE = note("offline", { isSerious: false });
const FULL = note("full", { isSerious: false, actions: [{ do: "retryNow" }] });
const UNAVAILABLE = note("unavailable");
const WARMING = note("warming", { isSerious: false });
const IDLE = note("idle", { text: "soon", isSerious: false });

const got = (message) => ({ type: "messageReceived", message });
const send = (message) => ({ type: "send", message });
const fail = (code, changes = {}) => got({ type: "error", code, error: "sentence", is_fatal: false, ...changes });
const effect = (type, values = {}) => ({ type, ...values });
const startTimer = (timer, afterMs) => effect("startTimer", { timer, afterMs });
const stopTimer = (timer) => effect("stopTimer", { timer });
const focus = (target) => effect("focus", { target });
const OPEN_SOUND = (attempt) => [effect("stopReplay"), effect("openSound", { attempt })];
const OPEN_SOCKET = (conversationId, isKept, target) => [
  effect("openSocket", { conversationId, isKept }),
  effect("keepAwake"),
  focus(target),
];
const INTERRUPT = [effect("showSilence"), effect("flushReply"), send({ type: "interrupt" })];
const MARK = effect("markInterrupted", { turnId: "a", wasInterrupted: true });
const END = [
  effect("showSilence"),
  stopTimer("release"),
  stopTimer("status"),
  effect("closeSocket"),
  effect("flushReply"),
  effect("closeMicrophone"),
  effect("settleCaptions"),
  effect("allowSleep"),
  effect("showEnd"),
  focus("start"),
];
const SETTLE = effect("settleCaptions");
const WAITING = { phase: "waiting", attempt: 1, waitingPlace: 2, canPlay: true };
const SPOKEN_WAITING = { ...WAITING, wantsMicrophone: true };
/** The server holds a place, and the browser asks for the microphone again. */
const HELD = {
  ...SPOKEN_WAITING,
  phase: "asking",
  attempt: 2,
  waitingPlace: null,
  held: { conversationId: "c" },
  starting: { ...SPOKEN, wasIdle: false },
};
const NO_WAIT = { waitingPlace: null, wantsMicrophone: false, held: null };
const READY = got({ type: "status", stage: "ready", conversation_id: "c" });

/** Rows of: what happens, the state before (what differs from a fresh one), the event, what it changes, its effects. */
// biome-ignore format: a row a line
const TRANSITIONS = [
  // Start.
  ["start asks for the microphone", {}, { type: "start", ...SPOKEN }, { phase: "asking", attempt: 1, starting: { ...SPOKEN, wasIdle: true } }, OPEN_SOUND(1)],
  ["start by typing connects", {}, { type: "start", ...TYPED }, { phase: "connecting", attempt: 1, starting: { ...TYPED, wasIdle: true } }, OPEN_SOUND(1)],
  ["start hides the notice", { notice: WARMING }, { type: "start", ...TYPED }, { phase: "connecting", attempt: 1, notice: null, starting: { ...TYPED, wasIdle: true } }, OPEN_SOUND(1)],
  ["a second press while one starts is ignored", { phase: "asking", attempt: 1, starting: { ...SPOKEN, wasIdle: true } }, { type: "start", ...SPOKEN }, {}, []],
  ["sound opens, then the microphone is asked for", { phase: "asking", attempt: 1, starting: { ...SPOKEN, wasIdle: true } }, { type: "soundOpened", attempt: 1, canPlay: true }, { canPlay: true }, [effect("openMicrophone", { attempt: 1 })]],
  ["sound opens, and a typed call connects", { phase: "connecting", attempt: 1, starting: { ...TYPED, wasIdle: true } }, { type: "soundOpened", attempt: 1, canPlay: false }, { starting: null, isComposerShown: true }, [effect("clearConversation"), ...OPEN_SOCKET(null, true, "message")]],
  ["sound of an ended start opens", { attempt: 2 }, { type: "soundOpened", attempt: 1, canPlay: true }, { canPlay: true }, []],
  ["sound of an ended start opens while another starts", { phase: "asking", attempt: 3, starting: { ...SPOKEN, wasIdle: true } }, { type: "soundOpened", attempt: 1, canPlay: true }, { canPlay: true }, []],
  ["the microphone opens, and a new conversation connects", { phase: "asking", attempt: 1, starting: { ...SPOKEN, wasIdle: true } }, { type: "microphoneOpened", attempt: 1, isOpen: true }, { phase: "connecting", starting: null, isMicrophoneOpen: true }, [effect("clearConversation"), ...OPEN_SOCKET(null, true, "talk")]],
  ["the microphone opens, and a kept conversation goes on", { phase: "asking", attempt: 1, conversationId: "c", resumableId: "c", starting: { ...SPOKEN, wasIdle: true } }, { type: "microphoneOpened", attempt: 1, isOpen: true }, { phase: "connecting", starting: null, isMicrophoneOpen: true }, OPEN_SOCKET("c", true, "talk")],
  ["a kept conversation does not go on unkept", { phase: "asking", attempt: 1, conversationId: "c", resumableId: "c", typedTurnIds: ["u"], pendingAudio: [{ turnId: "a", url: "/a" }], starting: { ...SPOKEN, keepsNothing: true, wasIdle: true } }, { type: "microphoneOpened", attempt: 1, isOpen: true }, { phase: "connecting", starting: null, isMicrophoneOpen: true, conversationId: null, resumableId: null, typedTurnIds: [], pendingAudio: [] }, [effect("clearConversation"), ...OPEN_SOCKET(null, false, "talk")]],
  ["the microphone is allowed after the end", { attempt: 2 }, { type: "microphoneOpened", attempt: 1, isOpen: false }, {}, []],
  ["the microphone of an ended start opens while another asks", { phase: "asking", attempt: 3, starting: { ...SPOKEN, wasIdle: true } }, { type: "microphoneOpened", attempt: 1, isOpen: false }, {}, []],
  ["the microphone joins a typed call", { ...LIVE, isMicrophoneOpen: false, starting: { ...SPOKEN, wasIdle: false } }, { type: "microphoneOpened", attempt: 1, isOpen: true }, { starting: null, isMicrophoneOpen: true }, []],
  ["the microphone is refused", { phase: "asking", attempt: 1, starting: { ...SPOKEN, wasIdle: true } }, { type: "microphoneRefused", attempt: 1, reason: "denied" }, { phase: "idle", starting: null, notice: note("denied", { actions: [again(true), TYPE_INSTEAD] }) }, []],
  ["there can be no microphone", { phase: "asking", attempt: 1, starting: { ...SPOKEN, wasIdle: true } }, { type: "microphoneRefused", attempt: 1, reason: "insecure" }, { phase: "idle", starting: null, notice: note("insecure", { actions: [TYPE_INSTEAD] }) }, []],
  ["the microphone is refused during a typed call", { ...LIVE, isMicrophoneOpen: false, starting: { ...SPOKEN, wasIdle: false } }, { type: "microphoneRefused", attempt: 1, reason: "taken" }, { starting: null, notice: note("taken", { actions: [again(true), TYPE_INSTEAD] }) }, []],
  ["the microphone is refused after the end", { attempt: 2 }, { type: "microphoneRefused", attempt: 1, reason: "denied" }, {}, []],
  ["the loudspeaker fails", { phase: "asking", attempt: 1, starting: { ...SPOKEN, wasIdle: true } }, { type: "startFailed", attempt: 1 }, { phase: "idle", starting: null }, []],
  ["the loudspeaker of an ended start fails", { phase: "asking", attempt: 3, starting: { ...SPOKEN, wasIdle: true } }, { type: "startFailed", attempt: 1 }, {}, []],
  ["the microphone is lost", LIVE, { type: "microphoneLost" }, { isMicrophoneOpen: false, notice: note("lost", { actions: [again(true), TYPE_INSTEAD] }) }, []],

  // Waiting for a place.
  ["all places are taken: the microphone is closed while the call waits", { phase: "connecting", attempt: 1, isMicrophoneOpen: true }, got({ type: "waiting", place: 2, count: 3 }), { phase: "waiting", waitingPlace: 2, isMicrophoneOpen: false, wantsMicrophone: true }, [effect("closeMicrophone"), focus("leave")]],
  ["a typed call waits", { phase: "connecting", attempt: 1, isComposerShown: true }, got({ type: "waiting", place: 1, count: 1 }), { phase: "waiting", waitingPlace: 1 }, [focus("leave")]],
  ["a call that was cut off waits for a place again", { ...LIVE, trouble: "reconnecting", notice: RECONNECTING }, got({ type: "waiting", place: 4, count: 4 }), { phase: "waiting", waitingPlace: 4, isMicrophoneOpen: false, wantsMicrophone: true, trouble: null, notice: null }, [effect("closeMicrophone"), focus("leave")]],
  ["the list moves up", { ...SPOKEN_WAITING, trouble: "warming", notice: WARMING }, got({ type: "waiting", place: 1, count: 1 }), { waitingPlace: 1 }, []],
  ["the connection drops while the call waits", SPOKEN_WAITING, { type: "dropped", code: 1006, isOnline: true }, { waitingPlace: null, trouble: "reconnecting", notice: RECONNECTING }, [effect("showSilence"), SETTLE]],
  ["the list has the call again", { ...SPOKEN_WAITING, waitingPlace: null, trouble: "reconnecting", notice: RECONNECTING }, got({ type: "waiting", place: 3, count: 3 }), { waitingPlace: 3, trouble: null, notice: null }, []],
  ["the turn of a typed call has come", { ...WAITING, isComposerShown: true }, READY, { phase: "live", waitingPlace: null, conversationId: "c" }, [send(CONFIGURE), focus("message")]],
  ["the turn has come: the microphone is asked for", { ...SPOKEN_WAITING, trouble: "reconnecting", notice: RECONNECTING }, READY, { ...HELD, trouble: null, notice: null }, [effect("openMicrophone", { attempt: 2 })]],
  ["the place is taken once the microphone is open", HELD, { type: "microphoneOpened", attempt: 2, isOpen: true }, { ...NO_WAIT, phase: "live", starting: null, isMicrophoneOpen: true, conversationId: "c" }, [send(CONFIGURE), focus("talk")]],
  ["the place is taken by typing where there is no microphone", HELD, { type: "microphoneRefused", attempt: 2, reason: "denied" }, { ...NO_WAIT, phase: "live", starting: null, isComposerShown: true, conversationId: "c", notice: note("denied", { actions: [again(true), TYPE_INSTEAD] }) }, [send(CONFIGURE), focus("message")]],
  ["the place is taken by typing where the microphone fails", HELD, { type: "startFailed", attempt: 2 }, { ...NO_WAIT, phase: "live", starting: null, isComposerShown: true, conversationId: "c" }, [send(CONFIGURE), focus("message")]],
  ["the connection drops while the microphone is asked for", HELD, { type: "dropped", code: 1006, isOnline: true }, { phase: "waiting", held: null, trouble: "reconnecting", notice: RECONNECTING }, [effect("showSilence"), SETTLE]],
  ["the turn comes again while the microphone is asked for", { ...HELD, phase: "waiting", held: null }, READY, { phase: "asking", held: { conversationId: "c" } }, []],
  ["the microphone opens without a place", { ...HELD, phase: "waiting", held: null }, { type: "microphoneOpened", attempt: 2, isOpen: true }, { starting: null, isMicrophoneOpen: true }, []],
  ["the turn comes when the microphone is open", { ...SPOKEN_WAITING, isMicrophoneOpen: true }, READY, { ...NO_WAIT, phase: "live", conversationId: "c" }, [send(CONFIGURE), focus("talk")]],
  ["the call waits again when the microphone is open", { ...SPOKEN_WAITING, isMicrophoneOpen: true }, got({ type: "waiting", place: 2, count: 2 }), { isMicrophoneOpen: false }, [effect("closeMicrophone"), focus("leave")]],
  ["the person leaves the list", SPOKEN_WAITING, { type: "end" }, { ...ENDED, ...NO_WAIT }, END],
  ["nobody answers when the turn has come", HELD, { type: "refused", code: 4412 }, { ...ENDED, ...NO_WAIT, attempt: 3, notice: note("noAnswer", { isSerious: false, actions: [again(true)] }) }, END],
  ["an operator ends a call that waits", WAITING, { type: "refused", code: 4411 }, { ...ENDED, ...NO_WAIT, notice: note("endedByOperator", { isSerious: false, actions: [again(false)] }) }, END],
  ["a turn is corrected while the call waits", WAITING, { type: "turnCorrected", turnId: "u", text: "明天", isOpen: true }, {}, []],

  // Live.
  ["ready begins a call", { phase: "connecting", attempt: 1 }, got({ type: "status", stage: "ready", conversation_id: "c" }), { phase: "live", conversationId: "c" }, [send(CONFIGURE)]],
  ["ready of a call that is not kept", { phase: "connecting", attempt: 1 }, got({ type: "status", stage: "ready", conversation_id: null }), { phase: "live", isUnkept: true }, [send(CONFIGURE)]],
  ["ready after a return fetches what was kept", { ...LIVE, trouble: "reconnecting", notice: RECONNECTING, stage: "tts" }, got({ type: "status", stage: "ready", conversation_id: "c" }), { trouble: null, notice: null, stage: "listening" }, [send(CONFIGURE), effect("fetchKeptTurns", { conversationId: "c" })]],
  ["ready leaves a trouble with the engines", { ...LIVE, conversationId: null, trouble: "warming", notice: WARMING }, got({ type: "status", stage: "ready", conversation_id: "c" }), { conversationId: "c" }, [send(CONFIGURE)]],
  ["ready answers a corrected turn", { phase: "connecting", attempt: 1, conversationId: "c", resumableId: "c", answerTurnId: "u" }, got({ type: "status", stage: "ready", conversation_id: "c" }), { phase: "live", answerTurnId: null }, [send(CONFIGURE), effect("answerAgain", { turnId: "u" }), effect("fetchKeptTurns", { conversationId: "c" })]],
  ["kept turns replace the captions", LIVE, { type: "keptTurnsFetched", conversationId: "c", turns: ["turn"] }, {}, [effect("replaceTurns", { turns: ["turn"] })]],
  ["no kept turns", LIVE, { type: "keptTurnsFetched", conversationId: "c", turns: [] }, {}, []],
  ["kept turns come during a reply", REPLYING, { type: "keptTurnsFetched", conversationId: "c", turns: ["turn"] }, {}, []],
  ["kept turns come after the end", { conversationId: "c" }, { type: "keptTurnsFetched", conversationId: "c", turns: ["turn"] }, {}, []],
  ["kept turns of another conversation come", LIVE, { type: "keptTurnsFetched", conversationId: "d", turns: ["turn"] }, {}, []],
  ["the person begins to speak", { ...LIVE, heardNothing: true, notice: IDLE }, got({ type: "status", stage: "listening", is_speaking: true }), { isUserSpeaking: true, heardNothing: false, notice: null }, []],
  ["listening offers the replies that are over", { ...LIVE, stage: "tts", pendingAudio: [{ turnId: "a", url: "/a" }] }, got({ type: "status", stage: "listening", is_speaking: false }), { stage: "listening", pendingAudio: [] }, [effect("showReplyAudio", { turnId: "a", url: "/a" })]],
  ["recognition begins", { ...LIVE, isUserSpeaking: true }, got({ type: "status", stage: "stt" }), { stage: "stt", isUserSpeaking: false }, []],
  ["thinking begins", { ...LIVE, isUserSpeaking: true }, got({ type: "status", stage: "llm", turn_id: "a" }), { stage: "llm", isUserSpeaking: false, replyTurnId: "a" }, []],
  ["speaking begins", { ...LIVE, stage: "llm", replyTurnId: "a" }, got({ type: "status", stage: "tts" }), { stage: "tts" }, []],
  ["a partial transcript", { ...LIVE, isUserSpeaking: true, notice: IDLE }, got({ type: "transcription", turn_id: "u", text: "你", is_final: false, language: "zh" }), { notice: null }, [effect("showTranscript", { turnId: "u", text: "你", isFinal: false, language: "zh" })]],
  ["a final transcript", { ...LIVE, isUserSpeaking: true }, got({ type: "transcription", turn_id: "u", text: "你好", is_final: true, language: "zh" }), { isUserSpeaking: false, resumableId: "c" }, [effect("showTranscript", { turnId: "u", text: "你好", isFinal: true, language: "zh" }), effect("resumeAs", { conversationId: "c" }), effect("showAddress", { conversationId: "c" })]],
  ["a final transcript of what was typed", { ...LIVE, wasTyped: true }, got({ type: "transcription", turn_id: "u", text: "你好", is_final: true, language: "zh" }), { wasTyped: false, typedTurnIds: ["u"], resumableId: "c" }, [effect("showTranscript", { turnId: "u", text: "你好", isFinal: true, language: "zh" }), effect("resumeAs", { conversationId: "c" }), effect("showAddress", { conversationId: "c" })]],
  ["a final transcript of a call that is not kept", { ...LIVE, conversationId: null, isUnkept: true }, got({ type: "transcription", turn_id: "u", text: "你好", is_final: true, language: "zh" }), {}, [effect("showTranscript", { turnId: "u", text: "你好", isFinal: true, language: "zh" }), effect("resumeAs", { conversationId: null })]],
  ["nothing was heard", { ...LIVE, isUserSpeaking: true }, got({ type: "transcription", turn_id: "u", text: "", is_final: true, language: "zh" }), { isUserSpeaking: false, heardNothing: true }, [effect("showTranscript", { turnId: "u", text: "", isFinal: true, language: "zh" })]],
  ["a turn is corrected", LIVE, got({ type: "corrected", turn_id: "u", text: "明天", language: "zh" }), {}, [effect("showCorrection", { turnId: "u", text: "明天", language: "zh" })]],
  ["a piece of a reply", LIVE, got({ type: "llm_response", turn_id: "a", text: "好", is_final: false, was_interrupted: false }), { replyTurnId: "a" }, [effect("showReplyDelta", { turnId: "a", text: "好" })]],
  ["a whole reply", REPLYING, got({ type: "llm_response", turn_id: "a", text: "好。", is_final: true, was_interrupted: false }), {}, [effect("showReply", { turnId: "a", text: "好。", wasInterrupted: false })]],
  ["audio of a reply follows", { ...LIVE, replyTurnId: "a" }, got({ type: "tts_ready", turn_id: "a", audio_url: "/a", sample_rate: 24000, quality: "fast" }), { audioTurnId: "a", playingTurnId: "a", pendingAudio: [{ turnId: "a", url: "/a" }] }, [effect("beginReply", { turnId: "a", sampleRate: 24000 })]],
  ["audio that cannot be played, nor is kept", { ...LIVE, canPlay: false, replyTurnId: "a" }, got({ type: "tts_ready", turn_id: "a", audio_url: null, sample_rate: 24000, quality: "fast" }), { audioTurnId: "a" }, [effect("beginReply", { turnId: "a", sampleRate: 24000 })]],
  ["audio of less quality than was chosen", { ...LIVE, settings: HIGH, replyTurnId: "a" }, got({ type: "tts_ready", turn_id: "a", audio_url: null, sample_rate: 24000, quality: "fast" }), { audioTurnId: "a", playingTurnId: "a" }, [effect("beginReply", { turnId: "a", sampleRate: 24000 }), effect("showFallback", { turnId: "a" })]],
  ["a reply was sent", { ...REPLYING, typedTurnIds: ["u"] }, got({ type: "turn_end", turn_id: "a", user_turn_id: "u", was_interrupted: false, audio_ms: 900, latency_ms: LATENCY, quality: "fast" }), { audioTurnId: null, replyTurnId: null }, [effect("endReply", { turnId: "a" }), effect("markInterrupted", { turnId: "a", wasInterrupted: false }), effect("showLatency", { turnId: "a", latency: LATENCY }), effect("showConversation")]],
  ["a reply without sound to spoken words was sent", { ...LIVE, settings: HIGH, replyTurnId: "b", pendingAudio: [{ turnId: "a", url: "/a" }] }, got({ type: "turn_end", turn_id: "a", user_turn_id: "u", was_interrupted: true, audio_ms: 0, latency_ms: LATENCY, quality: "fast" }), { pendingAudio: [] }, [effect("markInterrupted", { turnId: "a", wasInterrupted: true }), effect("showLatency", { turnId: "a", latency: LATENCY }), effect("showFallback", { turnId: "a" }), effect("showUserAudio", { turnId: "u", conversationId: "c" }), effect("showConversation")]],
  ["the person barges in", REPLYING, got({ type: "interrupted", turn_id: "a" }), SILENT, [effect("showSilence"), effect("flushReply"), MARK]],
  ["the call is idle", LIVE, got({ type: "idle_warning", notice: "soon" }), { notice: IDLE }, []],
  ["a ping is answered", LIVE, got({ type: "pong", nonce: "1" }), {}, []],
  ["a later server says something new", LIVE, got({ type: "weather" }), {}, []],
  ["a message comes after the end", { conversationId: "c" }, got({ type: "status", stage: "ready", conversation_id: "c" }), {}, []],

  // Playing.
  ["a reply is heard", { ...REPLYING, isAudible: false }, { type: "playing", turnId: "a", playedMs: 20, now: 1000 }, { isAudible: true, lastPlaybackAt: 1000 }, [send({ type: "playback", turn_id: "a", played_ms: 20 })]],
  ["playback is reported every 250 ms", { ...REPLYING, lastPlaybackAt: 1000 }, { type: "playing", turnId: "a", playedMs: 260, now: 1249 }, {}, []],
  ["playback is reported again", { ...REPLYING, lastPlaybackAt: 1000 }, { type: "playing", turnId: "a", playedMs: 270, now: 1250 }, { lastPlaybackAt: 1250 }, [send({ type: "playback", turn_id: "a", played_ms: 270 })]],
  ["a reply was played to its end", { ...LIVE, playingTurnId: "a", isAudible: true }, { type: "played", turnId: "a", playedMs: 900, isFinished: true }, { playingTurnId: null, isAudible: false }, [send({ type: "playback", turn_id: "a", played_ms: 900, is_finished: true }), effect("showSilence")]],
  ["a reply was cut off while the next one plays", { ...LIVE, playingTurnId: "b", isAudible: true }, { type: "played", turnId: "a", playedMs: 300, isFinished: false }, {}, [send({ type: "playback", turn_id: "a", played_ms: 300, is_finished: false }), effect("showSilence")]],

  // What the person does in a call.
  ["stop silences the reply", REPLYING, { type: "stop" }, SILENT, [...INTERRUPT, MARK]],
  ["stop silences what still plays", { ...LIVE, playingTurnId: "a", isAudible: true }, { type: "stop" }, SILENT, [...INTERRUPT, MARK]],
  ["stop without a reply", LIVE, { type: "stop" }, {}, INTERRUPT],
  ["a press turns the microphone off", LIVE, { type: "talkPressed", keepsNothing: false }, {}, [effect("setMuted", { isMuted: true })]],
  ["a press turns the microphone on", { ...LIVE, settings: MUTED }, { type: "talkPressed", keepsNothing: false }, {}, [effect("setMuted", { isMuted: false })]],
  ["a press opens the microphone", { ...LIVE, isMicrophoneOpen: false }, { type: "talkPressed", keepsNothing: false }, { attempt: 2, starting: { ...SPOKEN, wasIdle: false } }, OPEN_SOUND(2)],
  ["a click that held to talk", { ...LIVE, settings: HOLD }, { type: "talkPressed", keepsNothing: false }, {}, []],
  ["hold begins a turn", { ...LIVE, settings: HOLD, heardNothing: true }, { type: "hold" }, { isHolding: true, heardNothing: false }, [effect("stopReplay"), effect("sendPreroll")]],
  ["hold stops the reply", { ...REPLYING, settings: HOLD }, { type: "hold" }, { ...SILENT, isHolding: true }, [...INTERRUPT, MARK, effect("stopReplay"), effect("sendPreroll")]],
  ["hold again before the release ended the turn", { ...HOLDING, isReleasing: true }, { type: "hold" }, { isReleasing: false }, [stopTimer("release")]],
  ["hold while held", HOLDING, { type: "hold" }, {}, []],
  ["hold without a connection", { ...LIVE, settings: HOLD, trouble: "reconnecting" }, { type: "hold" }, {}, []],
  ["hold before the call is live", { ...LIVE, phase: "connecting", settings: HOLD }, { type: "hold" }, {}, []],
  ["hold hands-free", LIVE, { type: "hold" }, {}, []],
  ["release waits for the last syllable", HOLDING, { type: "release" }, { isReleasing: true }, [startTimer("release", 240)]],
  ["release twice", { ...HOLDING, isReleasing: true }, { type: "release" }, {}, []],
  ["release of nothing", LIVE, { type: "release" }, {}, []],
  ["release ends the turn", { ...HOLDING, isReleasing: true }, { type: "timerElapsed", timer: "release" }, { isHolding: false, isReleasing: false, stage: "stt" }, [send({ type: "audio_end" })]],
  ["a release that was cancelled", HOLDING, { type: "timerElapsed", timer: "release" }, {}, []],
  ["the composer opens", LIVE, { type: "keyboardPressed" }, { isComposerShown: true }, [focus("message")]],
  ["the composer closes", { ...LIVE, isComposerShown: true }, { type: "keyboardPressed" }, { isComposerShown: false }, []],
  ["text is sent", LIVE, { type: "textSubmitted", text: "嗨", isOpen: true }, { wasTyped: true, stage: "llm" }, [effect("stopReplay"), send({ type: "text", text: "嗨" }), effect("clearComposer"), effect("scrollToEnd")]],
  ["text stops the reply", REPLYING, { type: "textSubmitted", text: "嗨", isOpen: true }, { ...SILENT, wasTyped: true, stage: "llm" }, [...INTERRUPT, MARK, effect("stopReplay"), send({ type: "text", text: "嗨" }), effect("clearComposer"), effect("scrollToEnd")]],
  ["empty text", LIVE, { type: "textSubmitted", text: "", isOpen: true }, {}, []],
  ["text without a connection stays in the composer", LIVE, { type: "textSubmitted", text: "嗨", isOpen: false }, {}, []],
  ["text before the call is live", { ...LIVE, phase: "connecting" }, { type: "textSubmitted", text: "嗨", isOpen: true }, {}, []],
  ["a turn is corrected by the person", REPLYING, { type: "turnCorrected", turnId: "u", text: "明天", isOpen: true }, { ...SILENT, stage: "llm" }, [...INTERRUPT, MARK, effect("stopReplay"), send({ type: "correct", turn_id: "u", text: "明天" })]],
  ["a correction without text", LIVE, { type: "turnCorrected", turnId: "u", text: "", isOpen: true }, {}, []],
  ["a correction without a connection", LIVE, { type: "turnCorrected", turnId: "u", text: "明天", isOpen: false }, {}, []],
  ["settings change before a call", {}, { type: "settingsChanged", values: HOLD }, { settings: HOLD }, [effect("muteMicrophone", { isMuted: false })]],
  ["settings change during a call", LIVE, { type: "settingsChanged", values: MUTED }, { settings: MUTED }, [effect("muteMicrophone", { isMuted: true }), send(CONFIGURE)]],
  ["the page changes its language", LIVE, { type: "languageSwitched", pageLanguage: "en" }, {}, [send({ type: "configure", page_language: "en" })]],
  ["the notice is dismissed", { ...LIVE, notice: IDLE }, { type: "noticeDismissed" }, { notice: null }, []],
  ["the page is shown again during a call", LIVE, { type: "pageShown" }, {}, [effect("resumeSound"), effect("keepAwake")]],
  ["the page is shown again without a call", {}, { type: "pageShown" }, {}, []],
  ["something cannot be done", LIVE, { type: "problemFound", text: "sentence" }, { notice: note("problem", { text: "sentence", ...DISMISS }) }, []],

  // The end.
  ["the person hangs up", { ...REPLYING, trouble: "warming", notice: WARMING, isComposerShown: true, isUserSpeaking: true }, { type: "end" }, ENDED, END],
  ["the person hangs up while a key is held", { ...HOLDING, isReleasing: true }, { type: "end" }, ENDED, END],
  ["the person hangs up while the microphone is asked for", { phase: "asking", attempt: 1, starting: { ...SPOKEN, wasIdle: true } }, { type: "end" }, ENDED, END],
  ["the login has expired", LIVE, { type: "refused", code: 4401 }, { ...ENDED, notice: note("expired", { actions: [{ do: "logIn" }] }) }, END],
  ["there is no such conversation", LIVE, { type: "refused", code: 4404 }, { ...ENDED, notice: note("unknown", { actions: [{ do: "newConversation" }] }) }, END],
  ["the conversation goes on elsewhere", LIVE, { type: "refused", code: 4409 }, { ...ENDED, notice: note("replaced", { isSerious: false, actions: [again(true)] }) }, END],
  ["the call was idle too long", { ...LIVE, isMicrophoneOpen: false }, { type: "refused", code: 4410 }, { ...ENDED, notice: note("idleEnd", { isSerious: false, actions: [again(false)] }) }, END],
  ["an unkept call was idle too long", { ...LIVE, conversationId: null }, { type: "refused", code: 4410 }, { ...ENDED, notice: note("idleEnd", { textKey: "idleEndUnkept_text", isSerious: false, actions: [again(true)] }) }, END],
  ["an operator ends the call", LIVE, { type: "refused", code: 4411 }, { ...ENDED, notice: note("endedByOperator", { isSerious: false, actions: [again(true)] }) }, END],
  ["the person is in too many calls", LIVE, { type: "refused", code: 4430 }, { ...ENDED, notice: note("tooMany", { isSerious: false, actions: [again(true)] }) }, END],
  ["the page is of another origin", LIVE, { type: "refused", code: 4403 }, { ...ENDED, notice: note("refused", { actions: [{ do: "reload" }] }) }, END],

  // The connection.
  ["the connection drops", { ...LIVE, isUserSpeaking: true }, { type: "dropped", code: 1006, isOnline: true }, { isUserSpeaking: false, trouble: "reconnecting", notice: RECONNECTING }, [effect("showSilence"), SETTLE]],
  ["the connection drops during a reply", REPLYING, { type: "dropped", code: 1006, isOnline: true }, { ...NO_REPLY, trouble: "reconnecting", notice: RECONNECTING }, [effect("endReply", { turnId: "a" }), effect("showSilence"), SETTLE]],
  ["the connection drops while a key is let go", { ...HOLDING, isReleasing: true }, { type: "dropped", code: 1006, isOnline: true }, { isHolding: false, isReleasing: false, trouble: "reconnecting", notice: RECONNECTING }, [stopTimer("release"), effect("showSilence"), SETTLE]],
  ["the browser is offline", LIVE, { type: "dropped", code: 1006, isOnline: false }, { trouble: "offline", notice: OFFLINE }, [effect("showSilence"), SETTLE]],
  ["all places are taken", { ...LIVE, phase: "connecting" }, { type: "dropped", code: 4429, isOnline: true }, { trouble: "full", notice: FULL }, [effect("showSilence"), SETTLE]],
  ["the server has too much to do", { ...LIVE, phase: "connecting" }, { type: "dropped", code: 4431, isOnline: true }, { trouble: "overloaded", notice: note("overloaded", { isSerious: false, actions: [{ do: "retryNow" }] }) }, [effect("showSilence"), SETTLE]],
  ["a second attempt fails", { ...LIVE, trouble: "reconnecting", notice: RECONNECTING }, { type: "dropped", code: 1006, isOnline: true }, {}, [effect("showSilence"), SETTLE]],
  ["the browser goes offline while it reconnects", { ...LIVE, trouble: "reconnecting", notice: RECONNECTING }, { type: "wentOffline" }, { trouble: "offline", notice: OFFLINE }, []],
  ["the browser goes offline during a call", LIVE, { type: "wentOffline" }, {}, []],

  // The engines.
  ["the engines are ready", { ...LIVE, trouble: "unavailable", notice: UNAVAILABLE }, { type: "statusFetched", inference: { is_ready: true, roles: [] } }, { trouble: null, notice: null }, []],
  ["the engines are ready while the connection is lost", { ...LIVE, trouble: "reconnecting", notice: RECONNECTING }, { type: "statusFetched", inference: { is_ready: true, roles: [] } }, {}, []],
  ["the engines warm up", {}, { type: "statusFetched", inference: { is_ready: false, roles: [{ state: "ready" }, { state: "warming" }] } }, { trouble: "warming", notice: WARMING }, [startTimer("status", 3000)]],
  ["the engines load", {}, { type: "statusFetched", inference: { is_ready: false, roles: [{ state: "loading" }] } }, { trouble: "warming", notice: WARMING }, [startTimer("status", 3000)]],
  ["the engines are away", LIVE, { type: "statusFetched", inference: { is_ready: false, roles: [{ state: "failed" }] } }, { trouble: "unavailable", notice: UNAVAILABLE }, [startTimer("status", 3000)]],
  ["the engines are away and so is the connection", { ...LIVE, trouble: "reconnecting", notice: RECONNECTING }, { type: "statusFetched", inference: { is_ready: false, roles: [] } }, {}, [startTimer("status", 3000)]],
  ["the status is asked for again", LIVE, { type: "timerElapsed", timer: "status" }, {}, [effect("fetchStatus")]],
  ["an engine cannot be reached", { ...LIVE, replyTurnId: "a", isUserSpeaking: true }, fail("INFERENCE_UNAVAILABLE"), { replyTurnId: null, isUserSpeaking: false, trouble: "unavailable", notice: UNAVAILABLE }, [startTimer("status", 3000), SETTLE]],

  // Other errors.
  ["the place is gone: the close code says so", LIVE, fail("SERVER_FULL"), {}, []],
  ["a fatal error: the close code says so", LIVE, fail("FATAL_ERROR", { is_fatal: true }), {}, []],
  ["nothing is kept for now", { ...LIVE, isUserSpeaking: true }, fail("NOT_KEPT"), { notice: note("notKept", { text: "sentence", ...DISMISS }) }, []],
  ["what waited was kept", { ...LIVE, notice: note("notKept", { text: "wait" }) }, fail("KEPT_AGAIN"), { notice: note("keptAgain", { text: "sentence", isSerious: false, ...DISMISS }) }, []],
  ["the machine fell behind", LIVE, fail("FELL_BEHIND"), { notice: note("fellBehind", { text: "sentence", isSerious: false, ...DISMISS }) }, []],
  ["the conversation was deleted", LIVE, fail("CONVERSATION_GONE"), { notice: note("conversationGone", { text: "sentence", ...DISMISS }) }, []],
  ["no audio came", { ...LIVE, isUserSpeaking: true }, fail("NO_AUDIO_DATA"), { isUserSpeaking: false, heardNothing: true }, [SETTLE]],
  ["a reply failed", { ...LIVE, replyTurnId: "a" }, fail("PROCESSING_ERROR"), { replyTurnId: null, notice: note("problem", { text: "sentence", ...DISMISS }) }, [SETTLE]],
  ["the voice is gone", LIVE, fail("VOICE_GONE", { voice_profile_id: "v" }), { notice: note("problem", { text: "sentence", ...DISMISS }) }, [effect("forgetVoice", { voiceId: "v" }), SETTLE]],
  ["a reply is being made already", { ...LIVE, replyTurnId: "a" }, fail("ALREADY_PROCESSING"), { notice: note("problem", { text: "sentence", ...DISMISS }) }, [SETTLE]],
];

/** Effects that no transition asks for alone would not be found otherwise. */
const EFFECT_TYPES = readEffectTypes();

function readEffectTypes() {
  const types = readFileSync(new URL("../../static/js/call-types.d.ts", import.meta.url), "utf8");
  const union = types.slice(types.indexOf("export type CallEffect"));
  return [...union.matchAll(/\| \{ type: "(\w+)"/g)].map(([, type]) => type);
}

const fresh = () => createState({ settings: SETTINGS });

describe("the call's machine", () => {
  for (const [name, before, event, changes, effects] of TRANSITIONS) {
    test(name, () => {
      const state = Object.freeze({ ...fresh(), ...before });

      const next = receive(state, event);

      assert.deepEqual(next.state, { ...state, ...changes });
      assert.deepEqual(next.effects, effects);
      if (Object.keys(changes).length === 0) assert.equal(next.state, state);
    });
  }

  test("has a row for every event", () => {
    const seen = new Set(TRANSITIONS.map(([, , event]) => event.type));
    assert.deepEqual(
      Object.keys(HANDLERS).filter((type) => !seen.has(type)),
      [],
    );
  });

  test("has a row for every message", () => {
    const seen = new Set(TRANSITIONS.map(([, , event]) => event.message?.type));
    assert.deepEqual(
      Object.keys(MESSAGE_HANDLERS).filter((type) => !seen.has(type)),
      [],
    );
  });

  test("has a row for every effect", () => {
    const seen = new Set(TRANSITIONS.flatMap(([, , , , effects]) => effects.map(({ type }) => type)));
    assert.ok(EFFECT_TYPES.length > 30);
    assert.deepEqual(
      EFFECT_TYPES.filter((type) => !seen.has(type)),
      [],
    );
  });
});

describe("a start", () => {
  /** Run events through the machine, and return the last state and all effects. */
  function run(events, state = fresh()) {
    const effects = [];
    for (const event of events) {
      const next = receive(state, event);
      state = next.state;
      effects.push(...next.effects);
    }
    return {
      state,
      opened: effects.filter(({ type }) => type === "openSocket" || type === "openMicrophone").map(({ type }) => type),
    };
  }

  const START = { type: "start", ...SPOKEN };
  const sound = (attempt) => ({ type: "soundOpened", attempt, canPlay: true });
  const microphone = (attempt, isOpen = true) => ({ type: "microphoneOpened", attempt, isOpen });

  test("connects once for two presses", () => {
    const { state, opened } = run([START, START, sound(1), microphone(1), START]);

    assert.equal(state.phase, "connecting");
    assert.deepEqual(opened, ["openMicrophone", "openSocket"]);
  });

  test("opens nothing once it has ended, whenever its awaits come back", () => {
    for (const events of [
      [START, { type: "end" }, sound(1)],
      [START, sound(1), { type: "end" }, microphone(1, false)],
    ]) {
      const { state, opened } = run(events);

      assert.equal(state.phase, "idle");
      assert.ok(!opened.includes("openSocket"));
    }
  });

  test("goes on with the latest of two, whichever comes back first", () => {
    const { state, opened } = run([
      START,
      sound(1),
      { type: "end" },
      START,
      sound(3),
      microphone(1, false),
      microphone(3),
    ]);

    assert.equal(state.phase, "connecting");
    assert.ok(state.isMicrophoneOpen);
    assert.deepEqual(opened, ["openMicrophone", "openMicrophone", "openSocket"]);
  });
});
