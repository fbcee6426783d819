// What a person can do with a voice, for the list and for the page of one voice. Each gives back the voice as it is then.
import { ApiError, call } from "./api.js";
import { ask } from "./dialog.js";
import { config, profileAddress } from "./page-config.js";
import { announce } from "./page-notice.js";
import { say } from "./ui-strings.js";

const element = (id) => document.getElementById(id);

export async function choose(profile) {
  await call("POST", profileAddress(profile.id, "/default"));
  announce(say("nowUses", { name: profile.name }));
}

export async function chooseAutomatic() {
  await call("DELETE", config.defaultUrl);
  announce(say("nowAutomatic"));
}

/** The changed voice, or null if the person thought better of it. */
export async function rename(profile) {
  let changed = null;
  await ask(element("rename-dialog"), {
    fill: (form) => {
      form.elements.name.value = profile.name;
      form.elements.language.value = profile.language;
    },
    act: async (form) => {
      const name = form.elements.name.value.trim();
      if (name === "") throw new ApiError({ code: "name_required", detail: say("nameMissing") });
      changed = await call("PATCH", profileAddress(profile.id), { name, language: form.elements.language.value });
    },
  });
  if (changed) announce(say("renamed"));
  return changed;
}

/** Whether it is gone now. */
export async function remove(profile) {
  const dialog = element("delete-dialog");
  const answer = await ask(dialog, {
    fill: () => {
      dialog.querySelector(".dialog-name").textContent = profile.name;
    },
    act: () => call("DELETE", profileAddress(profile.id)),
  });
  if (answer) announce(say("deleted", { name: profile.name }));
  return answer !== null;
}

export async function removeRecording(profile, recordingId) {
  const answer = await ask(element("delete-recording-dialog"), {
    act: () => call("DELETE", profileAddress(profile.id, `/recordings/${recordingId}`)),
  });
  if (answer) announce(say("recordingDeleted"));
  return answer !== null;
}

/** Share a voice or take that back. The changed voice, or null if the person thought better of it. */
export async function share(profile) {
  const isShared = !profile.is_shared;
  const change = () => call("PATCH", profileAddress(profile.id), { is_shared: isShared });
  let changed = null;
  if (isShared) {
    const dialog = element("share-dialog");
    await ask(dialog, {
      fill: () => {
        dialog.querySelector(".dialog-name").textContent = profile.name;
      },
      act: async () => {
        changed = await change();
      },
    });
  } else changed = await change();
  if (changed) announce(say(isShared ? "nowShared" : "nowPrivate", { name: profile.name }));
  return changed;
}

export async function startFitting(profile) {
  await call("POST", profileAddress(profile.id, "/fit"));
  announce(say("fitQueued"));
}

export async function cancelFitting(profile) {
  await call("DELETE", profileAddress(profile.id, "/fit"));
  announce(say("fitCancelled"));
}

export async function retry(profile) {
  await call("POST", profileAddress(profile.id, "/retry"));
}
