// The page of one voice: previews, similarity, fitting, recordings.
import { ApiError, call } from "./api.js";
import { BuildProgress } from "./build-progress.js";
import { ConsentChoice } from "./consent-choice.js";
import { byId, byIdOrNull, cloneTemplate, closest, find, findAll, setText } from "./dom.js";
import { formatBytes, formatPercent, formatSeconds } from "./format.js";
import { config, profileAddress } from "./page-config.js";
import { announce, notice, showError } from "./page-notice.js";
import { RecordingInput } from "./recording-input.js";
import { say } from "./ui-strings.js";
import { uploadWithProgress } from "./upload-progress.js";
import * as actions from "./voice-actions.js";
import { VoicePreview } from "./voice-preview.js";
import {
  canSpeak,
  isBeingFitted,
  isBeingMade,
  makeItems,
  mayChangeSharing,
  sayFacts,
  sayNoise,
  sayWarnings,
  showSimilarity,
} from "./voice-profile.js";
import { VoiceStatusPoller } from "./voice-status-poller.js";

/** @import { VoiceProfile } from "./voice-types.js" */

class VoicePage {
  preview = new VoicePreview();
  /** @type {VoiceProfile | null} */
  #profile = null;
  /** Another recording of an own voice. @type {{ input: RecordingInput, consent: ConsentChoice } | null} */
  #adding = null;
  #buildProgress = new BuildProgress();
  #statusPoller = new VoiceStatusPoller();
  #isSending = false;
  /** When fitting was seen to begin. @type {number | null} */
  #similarityBefore = null;

  constructor() {
    this.#statusPoller.onstatus = (_, status) => this.#show({ ...this.profile, ...status });
    this.#statusPoller.onsettled = () => this.open();
    this.#statusPoller.onerror = (_, error) => {
      if (error.code === "gone" || error.code === "expired") showError(error);
    };
    byId("main").addEventListener("click", (event) => {
      const button = closest(event, "[data-do]");
      if (!button?.dataset.do || button.closest(".recording-input") || button.dataset.do === "export") return;
      const name = button.dataset.do;
      const menu = closest(event, "details.menu", HTMLDetailsElement);
      if (menu) {
        menu.open = false;
        find(menu, "summary").focus(); // a dialog gives the focus back to it
      }
      this.#try(() => this.#act(name, button));
    });
    byId("hear").addEventListener("click", () => {
      const quality = find(document, '[name="quality"]:checked', HTMLInputElement).value;
      this.#try(() => this.preview.toggle(this.profile, byId("hear"), quality));
    });
    byId("use").addEventListener("click", () => this.#try(() => this.#use()));
    byId("retry").addEventListener("click", () => this.#try(() => this.#retry()));
    if (byIdOrNull("adding")) this.#joinAdding();
    this.open();
  }

  /** Return the voice. Throws before it was fetched: its controls are disabled then. */
  get profile() {
    if (!this.#profile) throw new Error("the voice was not fetched yet");
    return this.#profile;
  }

  async open() {
    try {
      this.#show(await call("GET", profileAddress(config.voiceId)));
    } catch (error) {
      showError(error, () => this.open());
    }
  }

  /** Run an action, and show what went wrong. @param {() => unknown} run */
  async #try(run) {
    try {
      notice.hide();
      await run();
    } catch (error) {
      showError(error, () => this.#try(run));
    }
  }

  /** @param {string} name @param {HTMLElement} button */
  async #act(name, button) {
    const { profile } = this;
    const recording = button.closest("[data-recording]")?.getAttribute("data-recording") ?? "";
    switch (name) {
      case "rename":
        this.#merge(await actions.rename(profile));
        break;
      case "share":
        this.#merge(await actions.share(profile));
        break;
      case "delete":
        if (await actions.remove(profile)) window.location.assign(config.listUrl);
        break;
      case "fit":
        this.#similarityBefore = profile.similarity; // it may be over before it is seen to begin
        await actions.startFitting(profile);
        await this.open();
        break;
      case "cancel-fit":
        await actions.cancelFitting(profile);
        await this.open();
        break;
      case "play-recording":
        this.preview.toggleRecording(profileAddress(profile.id, `/recordings/${recording}/audio`), button);
        break;
      case "delete-recording":
        this.preview.stop();
        if (await actions.removeRecording(profile, recording)) await this.open();
        break;
      default:
        throw new Error(`nothing does ${name}`);
    }
  }

  async #use() {
    if (this.profile.is_default) await actions.chooseAutomatic();
    else await actions.choose(this.profile);
    this.#merge({ is_default: !this.profile.is_default });
  }

  async #retry() {
    await actions.retry(this.profile);
    await this.open();
  }

  #joinAdding() {
    const input = new RecordingInput(find(document, ".recording-input"));
    const consent = new ConsentChoice(byId("attestations", HTMLFieldSetElement));
    this.#adding = { input, consent };
    input.onchange = () => this.#renderAdding();
    consent.onchange = () => this.#renderAdding();
    const details = byId("adding", HTMLDetailsElement);
    details.addEventListener("toggle", () => {
      if (details.open) this.#fetchConsent(consent);
    });
    input.ontrouble = (reason) => {
      if (reason === null) notice.hide();
      else notice.show(reason, { actions: [{ label: "dismiss", run: () => notice.hide() }] });
    };
    byId("send").addEventListener("click", () => this.#send());
    byId("record-again", HTMLAnchorElement).href = "#adding";
    window.addEventListener("hashchange", () => this.#openAdding());
    this.#openAdding();
    window.addEventListener("beforeunload", (event) => {
      if (this.#isSending || input.isRecording) event.preventDefault();
    });
  }

  /** @param {ConsentChoice} consent */
  async #fetchConsent(consent) {
    try {
      await consent.fetch();
    } catch (error) {
      showError(error, () => this.#fetchConsent(consent));
    }
  }

  #openAdding() {
    if (window.location.hash !== "#adding") return;
    byId("adding", HTMLDetailsElement).open = true;
    byId("adding").scrollIntoView();
    window.history.replaceState(null, "", window.location.pathname); // a second press opens it again
  }

  #renderAdding() {
    if (!this.#adding) return;
    const { input, consent } = this.#adding;
    const isReady = consent.declared !== null && input.file !== null;
    byId("send", HTMLButtonElement).disabled = !isReady || input.isRecording || this.#isSending;
    byId("send").hidden = this.#isSending;
  }

  async #send() {
    if (!this.#adding) return;
    const { input, consent } = this.#adding;
    const { file } = input;
    if (!file) return;
    notice.hide();
    const form = new FormData();
    consent.addTo(form);
    form.append("audio", file, file.name);
    this.#setSending(true);
    try {
      await uploadWithProgress(profileAddress(this.profile.id, "/recordings"), form);
      this.#setSending(false);
      input.discard();
      consent.clear();
      byId("adding", HTMLDetailsElement).open = false;
      announce(say("recordingAdded"));
      await this.open();
      byId("main").focus();
      window.scrollTo(0, 0);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#setSending(false);
      if (error.code.startsWith("audio_")) {
        const run = () => notice.hide();
        notice.show("refused", { text: error.message, actions: [{ label: "dismiss", run }] });
        notice.element.scrollIntoView({ block: "nearest" });
      } else if (error.code === "cancelled") {
        const run = () => notice.hide();
        notice.show("cancelled", { actions: [{ label: "dismiss", run }], isSerious: false });
      } else showError(error, () => this.#send());
    }
  }

  /** @param {boolean} isSending */
  #setSending(isSending) {
    this.#isSending = isSending;
    this.#adding?.input.setBusy(isSending);
    this.#adding?.consent.setBusy(isSending);
    this.#renderAdding();
  }

  /** @param {Partial<VoiceProfile> | null} changes */
  #merge(changes) {
    if (changes) this.#show({ ...this.profile, ...changes });
  }

  /** @param {VoiceProfile} profile */
  #show(profile) {
    const wasMade = this.#profile !== null && isBeingMade(this.#profile);
    const wasFitted = this.#profile !== null && isBeingFitted(this.#profile);
    this.#profile = profile;
    const isReady = profile.state === "ready";
    // A press before there is a voice to act on would be lost.
    for (const button of findAll(document, "[data-waits]", HTMLButtonElement)) button.disabled = false;
    if (isBeingFitted(profile)) this.#similarityBefore ??= profile.similarity;
    byId("main").dataset.state = profile.state;
    byId("name").textContent = profile.name;
    byId("about").textContent = sayFacts(profile);
    byId("build-panel").hidden = !isBeingMade(profile) && profile.state !== "failed";
    byId("build-title").hidden = !isBeingMade(profile);
    this.#buildProgress.show(profile);
    byId("preview").hidden = !canSpeak(profile);
    byId("qualities").hidden = (profile.qualities ?? []).length < 2;
    byId("use").setAttribute("aria-pressed", String(profile.is_default));
    find(byId("use"), ".use-label").textContent = say(profile.is_default ? "inUse" : "use");
    if (profile.is_own) this.#showOwn(profile, { wasFitted });
    if (wasMade && isReady) announce(say("isReady", { name: profile.name }));
    if (profile.state === "disabled" || profile.state === "deleting") {
      notice.show("problem", {
        text: say(`state_${profile.state}`),
        actions: [{ label: "allVoices", href: config.listUrl }],
      });
    }
    this.#statusPoller.follow(profile);
  }

  /** @param {VoiceProfile} profile @param {{ wasFitted: boolean }} before */
  #showOwn(profile, { wasFitted }) {
    const isReady = profile.state === "ready";
    const menu = byId("more");
    find(menu, '[data-do="share"]').hidden = !mayChangeSharing(profile);
    find(menu, ".share-label").textContent = say(profile.is_shared ? "unshare" : "share");
    const link = find(menu, '[data-do="export"]', HTMLAnchorElement);
    link.href = profileAddress(profile.id, "/export");
    link.hidden = isBeingMade(profile);
    const panel = byId("similarity");
    panel.hidden = !isReady;
    const similarity = find(panel, ".similarity");
    showSimilarity(similarity, profile);
    find(panel, ".similarity-help").hidden = similarity.hidden;
    this.#adding?.input.setLanguage(profile.language);
    this.#showFitting(profile, { wasFitted });
    this.#showRecordings(profile);
  }

  /** @param {VoiceProfile} profile @param {{ wasFitted: boolean }} before */
  #showFitting({ kind, fitting }, { wasFitted }) {
    byId("fitting").hidden = kind === "cloned";
    const isBusy = isBeingFitted({ fitting });
    const isDone = fitting?.state === "done";
    byId("fit").hidden = isBusy;
    byId("cancel-fit").hidden = !isBusy;
    find(byId("fit"), ".fit-label").textContent = say(isDone ? "fitAgain" : "fit");
    byId("fitting-help").hidden = isDone;
    const bar = byId("fitting-bar", HTMLProgressElement);
    bar.hidden = !isBusy;
    if (fitting?.state === "running") bar.value = fitting.progress ?? 0;
    else bar.removeAttribute("value");
    const text = byId("fitting-text");
    let sentence = "";
    if (fitting?.state === "queued") sentence = say("fitQueued");
    else if (fitting?.state === "running") sentence = `${say("fitRunning")} · ${formatPercent(fitting.progress ?? 0)}`;
    else if (fitting?.state === "failed") sentence = say("fitFailed");
    else if (isDone) sentence = this.#sayOutcome(fitting.similarity);
    else if (wasFitted && fitting?.state === "cancelled") sentence = say("fitCancelled");
    setText(text, sentence);
    text.hidden = sentence === "";
  }

  /** Return what a fitting has found. @param {number | null} similarity */
  #sayOutcome(similarity) {
    const before = this.#similarityBefore;
    if (similarity === null || similarity <= (before ?? -1)) return say("fitNothing");
    return before === null ? "" : say("fitDone", { number: similarity.toFixed(2), before: before.toFixed(2) });
  }

  /** @param {VoiceProfile} profile */
  #showRecordings({ recordings }) {
    if (!recordings || this.preview.replay.button?.closest(".recording")) return; // do not pull it from under a press
    const dates = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium" });
    const items = recordings.map((recording) => {
      const item = cloneTemplate(byId("recording-template", HTMLTemplateElement));
      item.dataset.recording = recording.id;
      const title = say("recordedOn", { date: dates.format(new Date(recording.created_at)) });
      find(item, ".recording-title").textContent = title;
      const listen = find(item, ".listen");
      listen.setAttribute("aria-label", say("listenTo", { name: title }));
      listen.title = say("play");
      const facts = [say("secondsOfSpeech", { seconds: formatSeconds(recording.speech_s) })];
      if (recording.snr_db !== null) facts.push(sayNoise(recording.snr_db));
      facts.push(formatBytes(recording.size_bytes));
      find(item, ".recording-facts").textContent = facts.join(" · ");
      const transcript = find(item, ".recording-transcript");
      transcript.textContent = recording.transcript;
      transcript.hidden = !recording.transcript;
      find(item, ".warnings").append(...makeItems(sayWarnings(recording.warnings ?? [])));
      find(item, '[data-do="delete-recording"]').hidden = recordings.length < 2;
      return item;
    });
    byId("recordings").replaceChildren(...items);
  }
}

window.voices = new VoicePage();
