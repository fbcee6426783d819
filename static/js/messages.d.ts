// The JSON messages of the voice socket. Generated from docs/protocol.schema.json by `make message-types`.

/** A piece of the user's audio. Prefer binary messages for PCM; WAV and WebM are decoded at `audio_end`. */
export type AudioChunkMessage = {
  type: "audio_chunk";
  data: string;
  format?: "pcm_s16le" | "wav" | "webm" | null;
};

/** The utterance is over now. Without `voice_profile_id` the voice stays; null means the default voice. */
export type AudioEndMessage = {
  type: "audio_end";
  voice_profile_id?: string | null;
};

/** Change how the call behaves; what is not sent stays as it is. */
export type ConfigureMessage = {
  type: "configure";
  mode?: "hands_free" | "hold_to_talk";
  language?: "auto" | "zh" | "en";
  pause_ms?: number;
  sensitivity?: number;
  voice_profile_id?: string | null;
  quality?: "fast" | "high_quality";
  speed?: number;
  page_language?: "zh-hant" | "en";
};

/** Typed input: a turn as if it had been spoken. */
export type TextMessage = {
  type: "text";
  text: string;
};

/** What the user really said in an earlier turn of this conversation: answer it anew, and forget what came after. */
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

/** Once, after connecting: what this call is. Without `conversation_id` nothing of it is kept. */
export type ReadyStatus = {
  type: "status";
  session_id: string;
  conversation_id: string | null;
  voice_profile_id: string | null;
  is_resumed: boolean;
  limits: {
    max_utterance_bytes: number;
    max_utterance_chunks: number;
    max_utterance_s: number;
    max_frame_bytes: number;
    max_chunk_bytes: number;
    max_text_characters: number;
  };
  sample_rate: number;
  stage: "ready";
};

/** What the call is doing. `is_speaking` says whether the user's speech has begun (stage `listening`). */
export type Status = {
  type: "status";
  session_id: string;
  stage: "listening" | "stt" | "llm" | "tts";
  turn_id?: string;
  is_speaking?: boolean;
  reason?: string;
};

/** What was understood of the user's turn. Each replaces the one before; a final empty one means: heard nothing. */
export type Transcription = {
  type: "transcription";
  session_id: string;
  turn_id: string;
  text: string;
  is_final: boolean;
  language: string;
};

/** The user's turn reads like this now, and every turn after it is no longer a part of the conversation. */
export type Corrected = {
  type: "corrected";
  session_id: string;
  turn_id: string;
  text: string;
  language: string;
};

/** The reply's text: pieces to append, then the whole with `is_final` (after a barge-in: what was heard). */
export type LlmResponse = {
  type: "llm_response";
  session_id: string;
  turn_id: string;
  user_turn_id: string;
  text: string;
  is_final: boolean;
  was_interrupted: boolean;
};

/** The reply's audio follows in binary messages; later it is kept at `audio_url` (null: it is not kept). `quality` is what it begins with: fast where high quality was wished for and memory was short. */
export type TtsReady = {
  type: "tts_ready";
  session_id: string;
  turn_id: string;
  user_turn_id: string;
  audio_url: string | null;
  format: "pcm_s16le";
  sample_rate: number;
  quality: "fast" | "high_quality";
};

/** Everything of this reply has been sent. `quality` is the least that a part was made with; null without sound. */
export type TurnEnd = {
  type: "turn_end";
  session_id: string;
  turn_id: string;
  user_turn_id: string;
  was_interrupted: boolean;
  audio_ms: number;
  latency_ms: {
    stt: number | null;
    ttft: number | null;
    ttfa: number | null;
    total: number | null;
  };
  quality: "fast" | "high_quality" | null;
};

/** The reply was stopped: be silent at once. No more audio of this turn follows. */
export type Interrupted = {
  type: "interrupted";
  session_id: string;
  turn_id: string;
  heard_ms: number;
};

/** Something went wrong. `error` is a sentence for the user, `detail` is for whoever writes a client. `voice_profile_id` says which voice is gone. */
export type ErrorMessage = {
  type: "error";
  session_id: string;
  code: "SERVER_FULL" | "TOO_MANY_CALLS" | "ALREADY_PROCESSING" | "NO_AUDIO_DATA" | "BUFFER_LIMIT_EXCEEDED" | "UNSUPPORTED_FORMAT" | "VOICE_GONE" | "FELL_BEHIND" | "NOT_KEPT" | "KEPT_AGAIN" | "CONVERSATION_GONE" | "VALIDATION_ERROR" | "JSON_DECODE_ERROR" | "UNKNOWN_MESSAGE_TYPE" | "PROCESSING_ERROR" | "INFERENCE_UNAVAILABLE" | "FATAL_ERROR";
  error: string;
  is_fatal: boolean;
  turn_id?: string;
  voice_profile_id?: string;
  detail?: string;
};

/** The call is idle and ends in `ends_in_s` seconds. `notice` is a sentence for the user. */
export type IdleWarning = {
  type: "idle_warning";
  session_id: string;
  ends_in_s: number;
  notice: string;
};

/** Pong(nonce: 'str | None' = None) */
export type Pong = {
  type: "pong";
  session_id: string;
  nonce: string | null;
};

export type ClientMessage = AudioChunkMessage | AudioEndMessage | ConfigureMessage | TextMessage | CorrectMessage | InterruptMessage | PlaybackMessage | PingMessage;

export type ServerMessage = ReadyStatus | Status | Transcription | Corrected | LlmResponse | TtsReady | TurnEnd | Interrupted | ErrorMessage | IdleWarning | Pong;
