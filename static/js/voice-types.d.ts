// Voices as the API describes them, see /api/docs.

export type VoiceState = "pending" | "extracting" | "ready" | "failed" | "disabled" | "deleting";

export interface Fitting {
  state: "none" | "queued" | "running" | "done" | "failed" | "cancelled";
  progress: number | null;
  similarity: number | null;
}

export interface VoiceRecording {
  id: string;
  speech_s: number;
  snr_db: number | null;
  size_bytes: number;
  transcript: string;
  created_at: string;
  warnings?: string[];
}

/** What the status of a voice says of its build and its fitting. */
export interface VoiceStatus {
  state: VoiceState;
  step: string;
  progress: number | null;
  error: { code: string; detail?: string } | null;
  fitting: Fitting | null;
}

export interface VoiceProfile extends VoiceStatus {
  id: string;
  name: string;
  language: string;
  gender: string;
  kind: "stock" | "matched" | "cloned" | "fitted";
  similarity: number | null;
  version: number;
  is_own: boolean;
  is_shared: boolean;
  is_default: boolean;
  is_stock: boolean;
  qualities?: string[];
  recordings?: VoiceRecording[];
}

/** One page of a list. */
export interface VoicePage {
  results: VoiceProfile[];
  next: string | null;
}
