// The messages between speaker.js and player-worklet.js.

export type ToPlayer =
  | { type: "begin"; turnId: string; sampleRate: number }
  | { type: "push"; pcm: ArrayBuffer }
  | { type: "end"; turnId: string }
  | { type: "flush" }
  | { type: "tap"; isOn: boolean }
  | { type: "close" };

export type FromPlayer =
  | { type: "progress"; turnId: string | null; playedMs: number; queuedMs: number; rms: number }
  | { type: "finished"; turnId: string; playedMs: number }
  | { type: "flushed"; turnId: string | null; playedMs: number }
  | { type: "tap"; turnId: string | null; samples: Float32Array };
