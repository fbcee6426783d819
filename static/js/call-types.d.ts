// The types of call-machine.js: its state, the events that it receives and the effects that it asks for.

import type { ClientMessage, ServerMessage } from "./messages.js";

export type Phase = "idle" | "asking" | "connecting" | "waiting" | "live";
export type Stage = "listening" | "stt" | "llm" | "tts";
export type Trouble = "reconnecting" | "offline" | "full" | "overloaded" | "warming" | "unavailable";
export type Quality = "fast" | "high_quality";
export type MicrophoneReason = "denied" | "missing" | "taken" | "insecure" | "unsupported" | "lost";

/** The person's choices, as settings.js keeps them; names are those of the `configure` message. */
export interface SettingsValues {
  mode: "hands_free" | "hold_to_talk";
  language: "auto" | "zh" | "en";
  pause_ms: number;
  sensitivity: number;
  /** "" chooses by language. */
  voice_profile_id: string;
  quality: Quality;
  speed: number;
  shows_latency: boolean;
  is_muted: boolean;
}

export type NoticeAction =
  | { do: "dismiss" }
  | { do: "start"; withMicrophone: boolean; label: "tryAgain" | "typeInstead" }
  | { do: "retryNow" }
  | { do: "reload" }
  | { do: "logIn" }
  | { do: "newConversation" };

/** The card that says what is wrong: the UI strings `<key>_title` and `<key>_text`, unless `text` or `textKey` differs. */
export interface CallNotice {
  key: string;
  text: string | null;
  textKey: string | null;
  isSerious: boolean;
  actions: readonly NoticeAction[];
}

export interface CallState {
  phase: Phase;
  trouble: Trouble | null;
  stage: Stage;
  /** Generation of the latest start or end: the result of an await of an earlier one is stale. */
  attempt: number;
  /** The start that waits for the loudspeaker or the microphone. */
  starting: { withMicrophone: boolean; keepsNothing: boolean; wasIdle: boolean } | null;

  /** The place in the list of those who wait for the server: 1 is the next. */
  waitingPlace: number | null;
  /** The microphone was closed when the call began to wait, and is opened again when its turn has come. */
  wantsMicrophone: boolean;
  /** The server holds a place in a call, which begins once the microphone is open. */
  held: { conversationId: string | null } | null;

  isMicrophoneOpen: boolean;
  /** Whether replies can be heard: AudioWorklet is missing on insecure addresses. */
  canPlay: boolean;
  isUserSpeaking: boolean;
  /** A key or the button is held (hold to talk). */
  isHolding: boolean;
  /** It was let go, and the last syllable is still being recorded. */
  isReleasing: boolean;
  heardNothing: boolean;

  /** The reply that the server is producing. */
  replyTurnId: string | null;
  /** The reply that binary messages belong to; null: they are dropped. */
  audioTurnId: string | null;
  /** The reply that the speaker has, to its end or until it is flushed. */
  playingTurnId: string | null;
  isAudible: boolean;
  lastPlaybackAt: number;

  settings: Readonly<SettingsValues>;
  isComposerShown: boolean;
  notice: CallNotice | null;

  conversationId: string | null;
  /** The conversation to name when reconnecting: it exists from its first turn on. */
  resumableId: string | null;
  /** The call said when it began that nothing of it is kept. */
  isUnkept: boolean;
  /** A turn to answer again as soon as the call is live, corrected in the history. */
  answerTurnId: string | null;
  /** The text that was sent last was typed, and its turn has no id yet. */
  wasTyped: boolean;
  /** Turns without a recording. */
  typedTurnIds: readonly string[];
  /** Replies whose recording is offered when they are over. */
  pendingAudio: readonly { turnId: string; url: string }[];
}

export interface InferenceStatus {
  is_ready: boolean;
  roles: readonly { state: string }[];
}

export type CallEvent =
  // From the person.
  | { type: "start"; withMicrophone: boolean; keepsNothing: boolean }
  | { type: "end" }
  | { type: "stop" }
  | { type: "talkPressed"; keepsNothing: boolean }
  | { type: "hold" }
  | { type: "release" }
  | { type: "keyboardPressed" }
  | { type: "textSubmitted"; text: string; isOpen: boolean }
  | { type: "turnCorrected"; turnId: string; text: string; isOpen: boolean }
  | { type: "settingsChanged"; values: Readonly<SettingsValues> }
  | { type: "languageSwitched"; pageLanguage: "zh-hant" | "en" }
  | { type: "noticeDismissed" }
  | { type: "pageShown" }
  // Results of effects. `attempt` is that of the effect.
  | { type: "soundOpened"; attempt: number; canPlay: boolean }
  | { type: "microphoneOpened"; attempt: number; isOpen: boolean }
  | { type: "microphoneRefused"; attempt: number; reason: MicrophoneReason }
  | { type: "startFailed"; attempt: number }
  | { type: "keptTurnsFetched"; conversationId: string; turns: readonly Element[] }
  | { type: "statusFetched"; inference: InferenceStatus }
  | { type: "timerElapsed"; timer: TimerName }
  // From the parts.
  | { type: "microphoneLost" }
  | { type: "playing"; turnId: string; playedMs: number; now: number }
  | { type: "played"; turnId: string; playedMs: number; isFinished: boolean }
  | { type: "messageReceived"; message: ServerMessage }
  | { type: "dropped"; code: number; isOnline: boolean }
  | { type: "refused"; code: number }
  | { type: "wentOffline" }
  | { type: "problemFound"; text: string };

export type TimerName = "release" | "status";

export type CallEffect =
  // Microphone, loudspeaker, recordings.
  | { type: "openSound"; attempt: number }
  | { type: "openMicrophone"; attempt: number }
  | { type: "closeMicrophone" }
  | { type: "muteMicrophone"; isMuted: boolean }
  | { type: "sendPreroll" }
  | { type: "resumeSound" }
  | { type: "beginReply"; turnId: string; sampleRate: number }
  | { type: "endReply"; turnId: string }
  | { type: "flushReply" }
  | { type: "stopReplay" }
  | { type: "showSilence" }
  // The line to the server.
  | { type: "openSocket"; conversationId: string | null; isKept: boolean }
  | { type: "closeSocket" }
  | { type: "resumeAs"; conversationId: string | null }
  | { type: "send"; message: ClientMessage }
  | { type: "fetchStatus" }
  | { type: "fetchKeptTurns"; conversationId: string }
  | { type: "startTimer"; timer: TimerName; afterMs: number }
  | { type: "stopTimer"; timer: TimerName }
  // The page.
  | { type: "keepAwake" }
  | { type: "allowSleep" }
  | { type: "focus"; target: "start" | "talk" | "message" | "leave" }
  | { type: "clearComposer" }
  | { type: "setMuted"; isMuted: boolean }
  | { type: "forgetVoice"; voiceId: string }
  | { type: "showAddress"; conversationId: string }
  | { type: "answerAgain"; turnId: string }
  | { type: "clearConversation" }
  | { type: "showConversation" }
  | { type: "showEnd" }
  // Captions.
  | { type: "showTranscript"; turnId: string; text: string; isFinal: boolean; language: string }
  | { type: "showCorrection"; turnId: string; text: string; language: string }
  | { type: "showReplyDelta"; turnId: string; text: string }
  | { type: "showReply"; turnId: string; text: string; wasInterrupted: boolean }
  | { type: "markInterrupted"; turnId: string; wasInterrupted: boolean }
  | { type: "showLatency"; turnId: string; latency: Readonly<Record<string, number | null>> }
  | { type: "showFallback"; turnId: string }
  | { type: "showUserAudio"; turnId: string; conversationId: string }
  | { type: "showReplyAudio"; turnId: string; url: string }
  | { type: "replaceTurns"; turns: readonly Element[] }
  | { type: "settleCaptions" }
  | { type: "scrollToEnd" };
