// Which of the states of a call a person sees. Pure: values in, names of words and of a mood out.

/** Returns {key, mood, hint}: `state_<key>` and `hint_<hint>` are words, `mood` is the presence's. */
export function describeCall(call) {
  if (call.phase === "idle") return { key: "idle", mood: "resting" };
  if (call.phase === "asking") return { key: "asking", mood: "resting" };
  if (call.trouble) return { key: call.trouble, mood: "troubled" };
  if (call.phase === "connecting") return { key: "connecting", mood: "resting" };
  if (call.isHolding) return { key: "holding", mood: "hearing" };
  const isHandsFree = call.mode === "hands_free";
  if (call.isPlaying && !call.isUserSpeaking) {
    return { key: "speaking", mood: "speaking", hint: isHandsFree && call.isHearing && !call.isMuted ? "speaking" : null };
  }
  if (call.isUserSpeaking) return { key: "hearing", mood: "hearing" };
  if (call.stage === "stt") return { key: "recognising", mood: "thinking" };
  if (call.isReplying) return { key: "thinking", mood: "thinking" };
  if (!call.isHearing) return { key: "typing", mood: "resting" };
  if (!isHandsFree) return { key: "hold", mood: "listening", hint: call.heardNothing ? "heardNothing" : "hold" };
  if (call.isMuted) return { key: "muted", mood: "resting", hint: "muted" };
  return { key: "listening", mood: "listening", hint: call.heardNothing ? "heardNothing" : "listening" };
}
