// Derives what a person sees of a call from its state. Pure.
import { CONNECTION_TROUBLES } from "./call-step.js";

/** @import { Trouble } from "./call-types.js" */

/**
 * Return `state_<key>` and `hint_<hint>` as names of UI strings, and the mood of the visualizer.
 *
 * `before` is how many wait before the person; where it is 0, the string is `state_<key>Next`.
 *
 * @param {{
 *   phase: string, waitingPlace: number | null, trouble: Trouble | null, stage: string, mode: string, isMuted: boolean, isHolding: boolean,
 *   isHearing: boolean, isPlaying: boolean, isUserSpeaking: boolean, isReplying: boolean, heardNothing: boolean,
 * }} call
 * @returns {{ key: string, mood: string, hint?: string | null, before?: number }}
 */
export function describeCall(call) {
  if (call.phase === "idle") return { key: "idle", mood: "resting" };
  if (call.phase === "asking") return { key: "asking", mood: "resting" };
  // What the engines lack is mended by then, or will be said then.
  if (call.phase === "waiting" && call.waitingPlace !== null && !CONNECTION_TROUBLES.includes(call.trouble)) {
    return { key: "waiting", mood: "resting", hint: "waiting", before: call.waitingPlace - 1 };
  }
  if (call.trouble) return { key: call.trouble, mood: "troubled" };
  if (call.phase === "connecting" || call.phase === "waiting") return { key: "connecting", mood: "resting" };
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
