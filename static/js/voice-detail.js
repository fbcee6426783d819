// The page of one voice: how it sounds, how close it is, what it is made from.
import { ApiError, call } from "./api.js";
import { ConsentChoice } from "./consent-choice.js";
import { VoicePreview } from "./voice-preview.js";
import { BuildProgress } from "./build-progress.js";
import { formatBytes, formatPercent, formatSeconds } from "./format.js";
import { config, profileAddress } from "./page-config.js";
import { announce, notice, showError } from "./page-notice.js";
import { RecordingInput } from "./recording-input.js";
import { uploadWithProgress } from "./upload-progress.js";
import * as actions from "./voice-actions.js";
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
import { say } from "./ui-strings.js";

const element = (id) => document.getElementById(id);

class VoicePage {
  preview = new VoicePreview();
  profile = null;
  input = null;
  #consent = null;
  #buildProgress = new BuildProgress();
  #statusPoller = new VoiceStatusPoller();
  #isSending = false;
  #similarityBefore = null; // when fitting was seen to begin

  constructor() {
    this.#statusPoller.onstatus = (_, status) => this.#show({ ...this.profile, ...status });
    this.#statusPoller.onsettled = () => this.open();
    this.#statusPoller.onerror = (_, error) => {
      if (error.code === "gone" || error.code === "expired") showError(error);
    };
    element("main").addEventListener("click", ({ target }) => {
      const button = target.closest("[data-do]");
      if (!button || button.closest(".recording-input") || button.dataset.do === "export") return;
      const menu = button.closest("details.menu");
      if (menu) {
        menu.open = false;
        menu.querySelector("summary").focus(); // a dialog gives the focus back to it
      }
      this.#try(() => this.#act(button.dataset.do, button));
    });
    element("hear").addEventListener("click", ({ currentTarget }) => {
      const quality = document.querySelector('[name="quality"]:checked').value;
      this.#try(() => this.preview.toggle(this.profile, currentTarget, quality));
    });
    element("use").addEventListener("click", () => this.#try(() => this.#use()));
    element("retry").addEventListener("click", () => this.#try(() => this.#retry()));
    if (element("adding")) this.#joinAdding();
    this.open();
  }

  async open() {
    try {
      this.#show(await call("GET", profileAddress(config.voiceId)));
    } catch (error) {
      showError(error, () => this.open());
    }
  }

  async #try(run) {
    try {
      notice.hide();
      await run();
    } catch (error) {
      showError(error, () => this.#try(run));
    }
  }

  async #act(name, button) {
    const { profile } = this;
    const { recording } = button.closest("[data-recording]")?.dataset ?? {};
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

  // --- another recording ---

  #joinAdding() {
    this.input = new RecordingInput(document.querySelector(".recording-input"));
    this.input.onchange = () => this.#renderAdding();
    this.#consent = new ConsentChoice(element("attestations"));
    this.#consent.onchange = () => this.#renderAdding();
    element("adding").addEventListener("toggle", () => {
      if (element("adding").open) this.#fetchConsent();
    });
    this.input.ontrouble = (reason) => {
      if (reason === null) notice.hide();
      else notice.show(reason, { actions: [{ label: "dismiss", run: () => notice.hide() }] });
    };
    element("send").addEventListener("click", () => this.#send());
    element("record-again").href = "#adding";
    window.addEventListener("hashchange", () => this.#openAdding());
    this.#openAdding();
    window.addEventListener("beforeunload", (event) => {
      if (this.#isSending || this.input.isRecording) event.preventDefault();
    });
  }

  async #fetchConsent() {
    try {
      await this.#consent.fetch();
    } catch (error) {
      showError(error, () => this.#fetchConsent());
    }
  }

  #openAdding() {
    if (window.location.hash !== "#adding") return;
    element("adding").open = true;
    element("adding").scrollIntoView();
    window.history.replaceState(null, "", window.location.pathname); // a second press opens it again
  }

  #renderAdding() {
    const isReady = this.#consent.declared !== null && this.input.file !== null;
    element("send").disabled = !isReady || this.input.isRecording || this.#isSending;
    element("send").hidden = this.#isSending;
  }

  async #send() {
    notice.hide();
    const form = new FormData();
    this.#consent.addTo(form);
    form.append("audio", this.input.file, this.input.file.name);
    this.#setSending(true);
    try {
      await uploadWithProgress(profileAddress(this.profile.id, "/recordings"), form);
      this.#setSending(false);
      this.input.discard();
      this.#consent.clear();
      element("adding").open = false;
      announce(say("recordingAdded"));
      await this.open();
      element("main").focus();
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

  #setSending(isSending) {
    this.#isSending = isSending;
    this.input.setBusy(isSending);
    this.#consent.setBusy(isSending);
    this.#renderAdding();
  }

  // --- what is shown ---

  #merge(changes) {
    if (changes) this.#show({ ...this.profile, ...changes });
  }

  #show(profile) {
    const wasMade = this.profile && isBeingMade(this.profile);
    const wasFitted = this.profile && isBeingFitted(this.profile);
    this.profile = profile;
    const isReady = profile.state === "ready";
    // A press before there is a voice to act on would be lost.
    for (const button of document.querySelectorAll("[data-waits]")) button.disabled = false;
    if (isBeingFitted(profile)) this.#similarityBefore ??= profile.similarity;
    element("main").dataset.state = profile.state;
    element("name").textContent = profile.name;
    element("about").textContent = sayFacts(profile);
    element("making-panel").hidden = !isBeingMade(profile) && profile.state !== "failed";
    element("making-title").hidden = !isBeingMade(profile);
    this.#buildProgress.show(profile);
    element("hearing").hidden = !canSpeak(profile);
    element("qualities").hidden = (profile.qualities ?? []).length < 2;
    element("use").setAttribute("aria-pressed", String(profile.is_default));
    element("use").querySelector(".use-label").textContent = say(profile.is_default ? "inUse" : "use");
    if (profile.is_own) this.#showOwn(profile, { wasFitted });
    if (wasMade && isReady) announce(say("isReady", { name: profile.name }));
    if (profile.state === "disabled" || profile.state === "deleting") {
      notice.show("problem", { text: say(`state_${profile.state}`), actions: [{ label: "allVoices", href: config.listUrl }] });
    }
    this.#statusPoller.follow(profile);
  }

  #showOwn(profile, { wasFitted }) {
    const isReady = profile.state === "ready";
    const menu = element("more");
    menu.querySelector('[data-do="share"]').hidden = !mayChangeSharing(profile);
    menu.querySelector(".share-label").textContent = say(profile.is_shared ? "unshare" : "share");
    menu.querySelector('[data-do="export"]').href = profileAddress(profile.id, "/export");
    menu.querySelector('[data-do="export"]').hidden = isBeingMade(profile);
    const likeness = element("likeness");
    likeness.hidden = !isReady;
    showSimilarity(likeness.querySelector(".similarity"), profile);
    likeness.querySelector(".similarity-help").hidden = likeness.querySelector(".similarity").hidden;
    this.input.setLanguage(profile.language);
    this.#showFitting(profile, { wasFitted });
    this.#showRecordings(profile);
  }

  #showFitting({ kind, fitting }, { wasFitted }) {
    element("fitting").hidden = kind === "cloned";
    const isBusy = isBeingFitted({ fitting });
    const isDone = fitting?.state === "done";
    element("fit").hidden = isBusy;
    element("cancel-fit").hidden = !isBusy;
    element("fit").querySelector(".fit-label").textContent = say(isDone ? "fitAgain" : "fit");
    element("fitting-help").hidden = isDone;
    const bar = element("fitting-bar");
    bar.hidden = !isBusy;
    if (fitting?.state === "running") bar.value = fitting.progress ?? 0;
    else bar.removeAttribute("value");
    const text = element("fitting-text");
    let sentence = "";
    if (fitting?.state === "queued") sentence = say("fitQueued");
    else if (fitting?.state === "running") sentence = `${say("fitRunning")} · ${formatPercent(fitting.progress ?? 0)}`;
    else if (fitting?.state === "failed") sentence = say("fitFailed");
    else if (isDone && (fitting.similarity === null || fitting.similarity <= (this.#similarityBefore ?? -1))) sentence = say("fitNothing");
    else if (isDone && this.#similarityBefore !== null) {
      sentence = say("fitDone", { number: fitting.similarity.toFixed(2), before: this.#similarityBefore.toFixed(2) });
    } else if (wasFitted && fitting?.state === "cancelled") sentence = say("fitCancelled");
    if (text.textContent !== sentence) text.textContent = sentence;
    text.hidden = sentence === "";
  }

  #showRecordings({ recordings }) {
    if (!recordings || this.preview.replay.button?.closest(".recording")) return; // do not pull it from under a press
    const dates = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium" });
    const items = recordings.map((recording) => {
      const item = element("recording-template").content.firstElementChild.cloneNode(true);
      item.dataset.recording = recording.id;
      const title = say("recordedOn", { date: dates.format(new Date(recording.created_at)) });
      item.querySelector(".recording-title").textContent = title;
      const listen = item.querySelector(".listen");
      listen.setAttribute("aria-label", say("listenTo", { name: title }));
      listen.title = say("play");
      const facts = [say("secondsOfSpeech", { seconds: formatSeconds(recording.speech_s) })];
      if (recording.snr_db !== null) facts.push(sayNoise(recording.snr_db));
      facts.push(formatBytes(recording.size_bytes));
      item.querySelector(".recording-facts").textContent = facts.join(" · ");
      const transcript = item.querySelector(".recording-transcript");
      transcript.textContent = recording.transcript;
      transcript.hidden = !recording.transcript;
      item.querySelector(".warnings").append(...makeItems(sayWarnings(recording.warnings ?? [])));
      item.querySelector('[data-do="delete-recording"]').hidden = recordings.length < 2;
      return item;
    });
    element("recordings").replaceChildren(...items);
  }
}

window.voices = new VoicePage();
