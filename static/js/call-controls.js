// Connects the controls of the call page to the call: each press, key and submitted text becomes an event of the machine.
import { hasReply, isHoldToTalk } from "./call-step.js";
import { byId, closest } from "./dom.js";

/**
 * @import { CallEvent, CallState } from "./call-types.js"
 * @import { CallView } from "./call-view.js"
 */

const FOCUSABLE = "button, a, input, textarea, select, summary";

/**
 * @param {CallView} view
 * @param {{
 *   getState: () => CallState,
 *   dispatch: (event: CallEvent) => void,
 *   isOpen: () => boolean,
 *   openSettings: (section?: string) => void,
 * }} call `isOpen`: whether the socket takes messages now
 */
export function connectControls(view, { getState, dispatch, isOpen, openSettings }) {
  const { talk, message } = view;
  const readKeepsNothing = () => view.keepsNothing?.checked ?? false;
  const hold = () => dispatch({ type: "hold" });
  const release = () => dispatch({ type: "release" });
  const submitText = () => dispatch({ type: "textSubmitted", text: message.value.trim(), isOpen: isOpen() });

  /** @type {Record<string, () => void>} */
  const presses = {
    start: () => dispatch({ type: "start", withMicrophone: true, keepsNothing: readKeepsNothing() }),
    "start-typing": () => dispatch({ type: "start", withMicrophone: false, keepsNothing: readKeepsNothing() }),
    end: () => dispatch({ type: "end" }),
    leave: () => dispatch({ type: "end" }),
    stop: () => dispatch({ type: "stop" }),
    voice: () => openSettings("voice"),
    "open-settings": () => openSettings(),
    keyboard: () => dispatch({ type: "keyboardPressed" }),
    talk: () => dispatch({ type: "talkPressed", keepsNothing: readKeepsNothing() }),
  };
  for (const [id, press] of Object.entries(presses)) byId(id).addEventListener("click", press);
  view.keepsNothing?.addEventListener("change", () => view.render(getState()));

  talk.addEventListener("contextmenu", (event) => event.preventDefault());
  talk.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !isHoldToTalk(getState())) return;
    talk.setPointerCapture(event.pointerId);
    hold();
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) talk.addEventListener(name, release);
  window.addEventListener("blur", release);

  document.addEventListener("keydown", (event) => {
    const settings = byId("settings", HTMLDialogElement);
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || settings.open) return;
    const state = getState();
    if (event.key === "Escape" && !event.isComposing && hasReply(state)) dispatch({ type: "stop" });
    if (!isHoldKey(event, talk) || !isHoldToTalk(state) || state.phase !== "live") return;
    event.preventDefault();
    if (!event.repeat) hold();
  });
  document.addEventListener("keyup", ({ code }) => {
    if (code === "Space" || code === "Enter") release();
  });

  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submitText();
  });
  message.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submitText();
  });
}

/** Whether the key holds to talk: Enter and the space bar on the button, and the space bar where nothing else takes it. */
/** @param {KeyboardEvent} event @param {HTMLElement} talk */
function isHoldKey(event, talk) {
  const isTalk = event.target === talk;
  const isElsewhere = closest(event, FOCUSABLE) !== null;
  return (event.code === "Space" && (isTalk || !isElsewhere)) || (event.code === "Enter" && isTalk);
}
