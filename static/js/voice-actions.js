// The actions on a voice, for the list and for the page of one voice: each asks where it must, and calls the API.
import { ApiError, call } from "./api.js";
import { ask } from "./dialog.js";
import { byId, find } from "./dom.js";
import { config, profileAddress } from "./page-config.js";
import { announce } from "./page-notice.js";
import { say } from "./ui-strings.js";

/** @import { VoiceProfile } from "./voice-types.js" */

/** @param {VoiceProfile} profile */
export async function choose(profile) {
  await call("POST", profileAddress(profile.id, "/default"));
  announce(say("nowUses", { name: profile.name }));
}

export async function chooseAutomatic() {
  await call("DELETE", config.defaultUrl);
  announce(say("nowAutomatic"));
}

/** Return the changed voice, or null if the person cancelled. @param {VoiceProfile} profile */
export async function rename(profile) {
  /** @type {VoiceProfile | null} */
  let changed = null;
  await ask(byId("rename-dialog", HTMLDialogElement), {
    fill: (form) => {
      field(form, "name").value = profile.name;
      field(form, "language").value = profile.language;
    },
    act: async (form) => {
      const name = field(form, "name").value.trim();
      if (name === "") throw new ApiError({ code: "name_required", detail: say("nameMissing") });
      changed = await call("PATCH", profileAddress(profile.id), { name, language: field(form, "language").value });
    },
  });
  if (changed) announce(say("renamed"));
  return changed;
}

/** Return whether it was deleted. @param {VoiceProfile} profile */
export async function remove(profile) {
  const dialog = byId("delete-dialog", HTMLDialogElement);
  const answer = await ask(dialog, {
    fill: () => {
      find(dialog, ".dialog-name").textContent = profile.name;
    },
    act: () => call("DELETE", profileAddress(profile.id)),
  });
  if (answer) announce(say("deleted", { name: profile.name }));
  return answer !== null;
}

/** Return whether it was deleted. @param {VoiceProfile} profile @param {string} recordingId */
export async function removeRecording(profile, recordingId) {
  const answer = await ask(byId("delete-recording-dialog", HTMLDialogElement), {
    act: () => call("DELETE", profileAddress(profile.id, `/recordings/${recordingId}`)),
  });
  if (answer) announce(say("recordingDeleted"));
  return answer !== null;
}

/** Share a voice or stop sharing it. Returns the changed voice, or null if the person cancelled. @param {VoiceProfile} profile */
export async function share(profile) {
  const isShared = !profile.is_shared;
  /** @returns {Promise<VoiceProfile>} */
  const change = () => call("PATCH", profileAddress(profile.id), { is_shared: isShared });
  /** @type {VoiceProfile | null} */
  let changed = null;
  if (isShared) {
    const dialog = byId("share-dialog", HTMLDialogElement);
    await ask(dialog, {
      fill: () => {
        find(dialog, ".dialog-name").textContent = profile.name;
      },
      act: async () => {
        changed = await change();
      },
    });
  } else changed = await change();
  if (changed) announce(say(isShared ? "nowShared" : "nowPrivate", { name: profile.name }));
  return changed;
}

/** @param {VoiceProfile} profile */
export async function startFitting(profile) {
  await call("POST", profileAddress(profile.id, "/fit"));
  announce(say("fitQueued"));
}

/** @param {VoiceProfile} profile */
export async function cancelFitting(profile) {
  await call("DELETE", profileAddress(profile.id, "/fit"));
  announce(say("fitCancelled"));
}

/** @param {VoiceProfile} profile */
export async function retry(profile) {
  await call("POST", profileAddress(profile.id, "/retry"));
}

/** Return a field, or a group of radio buttons. @param {HTMLFormElement} form @param {string} name */
function field(form, name) {
  return /** @type {HTMLInputElement | RadioNodeList} */ (form.elements.namedItem(name));
}
