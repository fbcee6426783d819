// Derives what a person sees of a call from its state. Pure.

/**
 * Return `state_<key>` and `hint_<hint>` as names of UI strings, and the mood of the visualizer.
 *
 * @param {{
 *   phase: string, trouble: string | null, stage: string, mode: string, isMuted: boolean, isHolding: boolean,
 *   isHearing: boolean, isPlaying: boolean, isUserSpeaking: boolean, isReplying: boolean, heardNothing: boolean,
 * }} call
 * @returns {{ key: string, mood: string, hint?: string | null }}
 */
export function describeCall(call) {
  if (call.phase === "idle") return { key: "idle", mood: "resting" };
  if (call.phase === "asking") return { key: "asking", mood: "resting" };
  if (call.trouble) return { key: call.trouble, mood: "troubled" };
  if (call.phase === "connecting") return { key: "connecting", mood: "resting" };
  if (call.isHolding) return { key: "holding", mood: "hearing" };
  const isHandsFree = call.mode === "hands_free";
  if (call.isPlaying && !call.isUserSpeaking) {
    return {
      key: "speaking",
      mood: "speaking",
      hint: isHandsFree && call.isHearing && !call.isMuted ? "speaking" : null,
    };
  }
  if (call.isUserSpeaking) return { key: "hearing", mood: "hearing" };
  if (call.stage === "stt") return { key: "recognising", mood: "thinking" };
  if (call.isReplying) return { key: "thinking", mood: "thinking" };
  if (!call.isHearing) return { key: "typing", mood: "resting" };
  if (!isHandsFree) return { key: "hold", mood: "listening", hint: call.heardNothing ? "heardNothing" : "hold" };
  if (call.isMuted) return { key: "muted", mood: "resting", hint: "muted" };
  return { key: "listening", mood: "listening", hint: call.heardNothing ? "heardNothing" : "listening" };
}
