// The JSON messages of the voice socket. Generated from docs/protocol.schema.json by `make message-types`.

/** A piece of the user's audio. Prefer binary messages for PCM; WAV and WebM are decoded at `audio_end`. */
export type AudioChunkMessage = {
  type: "audio_chunk";
  data: string;
  format?: AudioFormat | null;
};

export type AudioFormat = "pcm_s16le" | "wav" | "webm";

/** The utterance is over now. Without `voice_profile_id` the voice stays; null means the default voice. */
export type AudioEndMessage = {
  type: "audio_end";
  voice_profile_id?: string | null;
};

/** Change how the call behaves; what is not sent stays as it is. */
export type ConfigureMessage = {
  type: "configure";
  mode?: Mode;
  language?: "auto" | "en" | "zh";
  pause_ms?: number;
  sensitivity?: number;
  voice_profile_id?: string | null;
  quality?: "fast" | "high_quality";
  speed?: number;
  page_language?: "en" | "zh-hant";
};

export type Mode = "hands_free" | "hold_to_talk";

/** Typed input: a turn as if it had been spoken. */
export type TextMessage = {
  type: "text";
  text: string;
};

/** Replace the text of an earlier turn of the user, forget every later turn, and answer again. */
export type CorrectMessage = {
  type: "correct";
  turn_id: string;
  text: string;
};

/** Stop the reply. */
export type InterruptMessage = {
  type: "interrupt";
};

/** How much of a reply's audio has been played: about every 250 ms, and once at the end. */
export type PlaybackMessage = {
  type: "playback";
  turn_id: string;
  played_ms: number;
  is_finished?: boolean;
};

/** Answered by `pong` with the same nonce. */
export type PingMessage = {
  type: "ping";
  nonce?: string | null;
};

/** Sent once, after connecting or waiting: what this call is. Without `conversation_id` nothing of it is kept. `answer_within_s` is null unless the call has waited: it ends if nothing but `ping` is sent for so many seconds. */
export type ReadyStatus = {
  type: "status";
  conversation_id: string | null;
  voice_profile_id: string | null;
  is_resumed: boolean;
  limits: Limits;
  sample_rate: number;
  answer_within_s: number | null;
  stage: "ready";
  session_id: string;
};

/** The limits of one utterance. */
export type Limits = {
  max_utterance_bytes: number;
  max_utterance_chunks: number;
  max_utterance_s: number;
  max_frame_bytes: number;
  max_chunk_bytes: number;
  max_text_characters: number;
};

/** All places are taken: this call waits for one, as number `place` (1 is the next) of `count`. Sent on a change. */
export type Waiting = {
  type: "waiting";
  place: number;
  count: number;
  session_id: string;
};

/** What the call is doing. `is_speaking` says whether the user's speech has begun (stage `listening`). */
export type Status = {
  type: "status";
  stage: Stage;
  turn_id?: string;
  is_speaking?: boolean;
  session_id: string;
};

export type Stage = "listening" | "llm" | "stt" | "tts";

/** The transcript of the user's turn. Each replaces the one before; a final empty one means: heard nothing. */
export type Transcription = {
  type: "transcription";
  turn_id: string;
  text: string;
  is_final: boolean;
  language: string;
  session_id: string;
};

/** The user's turn has this text now, and every later turn is no longer part of the conversation. */
export type Corrected = {
  type: "corrected";
  turn_id: string;
  text: string;
  language: string;
  session_id: string;
};

/** The reply's text: pieces to append, then the whole with `is_final` (after a barge-in: what was heard). */
export type LlmResponse = {
  type: "llm_response";
  turn_id: string;
  user_turn_id: string;
  text: string;
  is_final: boolean;
  was_interrupted: boolean;
  session_id: string;
};

/** The reply's audio follows in binary messages; later it is kept at `audio_url` (null: it is not kept). `quality` is that of the first clause: fast where high quality was requested and memory was short. */
export type TtsReady = {
  type: "tts_ready";
  turn_id: string;
  user_turn_id: string;
  audio_url: string | null;
  format: "pcm_s16le";
  sample_rate: number;
  quality: "fast" | "high_quality";
  session_id: string;
};

/** Everything of this reply has been sent. `quality` is the lowest of its clauses; null without audio. */
export type TurnEnd = {
  type: "turn_end";
  turn_id: string;
  user_turn_id: string;
  was_interrupted: boolean;
  audio_ms: number;
  latency_ms: LatencyMs;
  quality: "fast" | "high_quality" | null;
  session_id: string;
};

/** Milliseconds since the end of speech (since the message, for typed input). Null where there was no such step. */
export type LatencyMs = {
  stt: number | null;
  ttft: number | null;
  ttfa: number | null;
  total: number | null;
};

/** The reply was stopped: stop playing at once. No more audio of this turn follows. */
export type Interrupted = {
  type: "interrupted";
  turn_id: string;
  heard_ms: number;
  session_id: string;
};

/** Something went wrong. `error` is a sentence for the user, `detail` is for the programmer of a client. `voice_profile_id` says which voice is gone. */
export type ErrorMessage = {
  type: "error";
  code: ErrorCode;
  error: string;
  is_fatal: boolean;
  turn_id?: string;
  voice_profile_id?: string;
  detail?: string;
  session_id: string;
};

export type ErrorCode = "ALREADY_PROCESSING" | "BUFFER_LIMIT_EXCEEDED" | "CONVERSATION_GONE" | "FATAL_ERROR" | "FELL_BEHIND" | "INFERENCE_UNAVAILABLE" | "JSON_DECODE_ERROR" | "KEPT_AGAIN" | "NOT_KEPT" | "NO_AUDIO_DATA" | "OVERLOADED" | "PROCESSING_ERROR" | "SERVER_FULL" | "TOO_MANY_CALLS" | "UNKNOWN_MESSAGE_TYPE" | "UNSUPPORTED_FORMAT" | "VALIDATION_ERROR" | "VOICE_GONE";

/** The call is idle and ends in `ends_in_s` seconds. `notice` is a sentence for the user. */
export type IdleWarning = {
  type: "idle_warning";
  ends_in_s: number;
  notice: string;
  session_id: string;
};

/** Answers `ping`. */
export type Pong = {
  type: "pong";
  nonce: string | null;
  session_id: string;
};

export type ClientMessage = AudioChunkMessage | AudioEndMessage | ConfigureMessage | TextMessage | CorrectMessage | InterruptMessage | PlaybackMessage | PingMessage;

export type ServerMessage = ReadyStatus | Waiting | Status | Transcription | Corrected | LlmResponse | TtsReady | TurnEnd | Interrupted | ErrorMessage | IdleWarning | Pong;
