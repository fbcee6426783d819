// BuildProgress a voice in three steps: consent, recording, verdict. The third is found again after a reload.
import { ApiError, call } from "./api.js";
import { ConsentChoice } from "./consent-choice.js";
import { VoicePreview } from "./voice-preview.js";
import { BuildProgress } from "./build-progress.js";
import { formatSeconds } from "./format.js";
import { config, detailAddress, profileAddress } from "./page-config.js";
import { notice, sayError, showError } from "./page-notice.js";
import { RecordingInput } from "./recording-input.js";
import { uploadWithProgress } from "./upload-progress.js";
import * as actions from "./voice-actions.js";
import { makeItems, sayNoise, sayWarnings, showSimilarity } from "./voice-profile.js";
import { VoiceStatusPoller } from "./voice-status-poller.js";
import { say } from "./ui-strings.js";

const STEPS = ["consent", "recording", "verdict"];

const element = (id) => document.getElementById(id);

class NewVoicePage {
  preview = new VoicePreview();
  input = new RecordingInput(document.querySelector(".recording-input"));
  profile = null;
  #consent = new ConsentChoice(element("attestations"));
  #buildProgress = new BuildProgress();
  #statusPoller = new VoiceStatusPoller();
  #isSending = false;

  constructor() {
    this.#joinConsent();
    this.#joinRecording();
    this.#joinVerdict();
    const id = new URLSearchParams(window.location.search).get("voice");
    if (id) this.#openVerdict(id);
    else this.#fetchConsent();
  }

  #show(step, { focuses = true } = {}) {
    element("main").dataset.step = step;
    for (const item of document.querySelectorAll(".stepper li")) {
      const isCurrent = item.dataset.step === step;
      item.classList.toggle("is-done", STEPS.indexOf(item.dataset.step) < STEPS.indexOf(step));
      if (isCurrent) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    }
    for (const name of STEPS) element(`step-${name}`).hidden = name !== step;
    window.scrollTo(0, 0);
    if (focuses) element(`step-${step}`).focus({ preventScroll: true });
  }

  // --- whose voice it is ---

  #joinConsent() {
    this.#consent.onchange = () => {
      element("give-consent").disabled = this.#consent.declared === null;
    };
    element("give-consent").addEventListener("click", () => {
      notice.hide();
      this.#show("recording");
    });
    element("back-to-consent").addEventListener("click", () => {
      notice.hide();
      this.#show("consent");
    });
  }

  async #fetchConsent() {
    try {
      await this.#consent.fetch();
    } catch (error) {
      showError(error, () => this.#fetchConsent());
    }
  }

  // --- what it is made from ---

  #joinRecording() {
    const languages = document.querySelectorAll('#language-field [name="language"]');
    for (const radio of languages) {
      radio.addEventListener("change", () => this.input.setLanguage(radio.value));
      if (radio.checked) this.input.setLanguage(radio.value);
    }
    this.input.onchange = () => this.#renderRecording();
    this.input.ontrouble = (reason) => this.#explainMicrophone(reason);
    element("send").addEventListener("click", () => this.#send());
    window.addEventListener("beforeunload", (event) => {
      if (this.#isSending || this.input.isRecording) event.preventDefault();
    });
    this.#renderRecording();
  }

  #renderRecording() {
    const isImport = this.input.way === "import";
    element("send").disabled = this.input.file === null || this.input.isRecording || this.#isSending;
    element("recording-actions").hidden = this.#isSending;
    element("language-field").hidden = isImport;
    element("name-field").hidden = isImport || this.input.file === null;
    for (const field of [element("language-field"), element("name-field")]) field.disabled = this.#isSending;
  }

  #explainMicrophone(reason) {
    if (reason === null) {
      notice.hide();
      return;
    }
    const chooseFile = () => {
      this.input.way = "file";
      notice.hide();
    };
    notice.show(reason, { actions: [{ label: "chooseFile", run: chooseFile }] });
  }

  async #send() {
    notice.hide();
    const isArchive = this.input.isArchive;
    const form = new FormData();
    this.#consent.addTo(form);
    if (isArchive) form.append("file", this.input.file, this.input.file.name);
    else {
      form.append("name", element("name").value.trim() || say("untitled"));
      form.append("language", document.querySelector('#language-field [name="language"]:checked').value);
      form.append("audio", this.input.file, this.input.file.name);
    }
    this.#setSending(true);
    try {
      const profile = await uploadWithProgress(isArchive ? `${config.apiUrl}/import` : config.apiUrl, form);
      this.#setSending(false);
      window.history.replaceState(null, "", `${config.newUrl}?voice=${profile.id}`);
      this.#showVerdict(profile);
      this.#show("verdict");
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#setSending(false);
      this.#explainRefusal(error);
    }
  }

  #setSending(isSending) {
    this.#isSending = isSending;
    this.input.setBusy(isSending);
    this.#renderRecording();
  }

  #explainRefusal(error) {
    if (["offline", "unreachable", "expired"].includes(error.code)) showError(error, () => this.#send());
    else {
      const isCancelled = error.code === "cancelled";
      const key = isCancelled ? "cancelled" : error.code.startsWith("audio_") ? "refused" : "problem";
      const actions = [{ label: "dismiss", run: () => notice.hide() }];
      notice.show(key, { text: sayError(error), actions, isSerious: !isCancelled });
      notice.element.scrollIntoView({ block: "nearest" });
    }
    if (error.code.startsWith("consent_")) this.#show("consent");
  }

  // --- what became of it ---

  #joinVerdict() {
    this.#statusPoller.onstatus = (_, status) => this.#showVerdict({ ...this.profile, ...status });
    this.#statusPoller.onsettled = (id) => this.#openVerdict(id);
    this.#statusPoller.onerror = (_, error) => {
      if (error.code === "gone" || error.code === "expired") showError(error);
    };
    element("hear").addEventListener("click", ({ currentTarget }) => this.preview.toggle(this.profile, currentTarget));
    element("use").addEventListener("click", () => this.#use());
    element("retry").addEventListener("click", () => this.#retry());
  }

  async #openVerdict(id) {
    this.#show("verdict", { focuses: false });
    try {
      this.#showVerdict(await call("GET", profileAddress(id)));
    } catch (error) {
      showError(error, () => this.#openVerdict(id));
    }
  }

  #showVerdict(profile) {
    this.profile = profile;
    const isReady = profile.state === "ready";
    element("verdict-title").textContent = isReady ? say("isReady", { name: profile.name }) : profile.name;
    this.#buildProgress.show(profile);
    element("verdict").hidden = !isReady;
    element("to-detail").href = detailAddress(profile.id);
    element("record-again").href = `${detailAddress(profile.id)}#adding`;
    if (isReady) this.#showFacts(profile);
    this.#statusPoller.follow(profile);
  }

  #showFacts(profile) {
    const verdict = element("verdict");
    showSimilarity(verdict.querySelector(".similarity"), profile);
    verdict.querySelector(".similarity-help").hidden = verdict.querySelector(".similarity").hidden;
    const recording = profile.recordings?.at(-1);
    element("facts").replaceChildren();
    element("warnings").replaceChildren();
    if (!recording) return;
    const noise = recording.snr_db === null ? null : sayNoise(recording.snr_db);
    const heard = [say("secondsOfSpeech", { seconds: formatSeconds(recording.speech_s) }), noise].filter(Boolean).join(" · ");
    const term = document.createElement("dt");
    term.textContent = heard;
    const words = document.createElement("dd");
    words.textContent = recording.transcript || say("nothingUnderstood");
    element("facts").append(term, words);
    element("warnings").append(...makeItems(sayWarnings(recording.warnings ?? [])));
    this.#renderUse();
  }

  #renderUse() {
    element("use").setAttribute("aria-pressed", String(this.profile.is_default));
    element("use").querySelector(".use-label").textContent = say(this.profile.is_default ? "inUse" : "use");
  }

  async #use() {
    try {
      notice.hide();
      await actions.choose(this.profile);
      this.profile = { ...this.profile, is_default: true };
      this.#renderUse();
    } catch (error) {
      showError(error, () => this.#use());
    }
  }

  async #retry() {
    try {
      notice.hide();
      await actions.retry(this.profile);
      await this.#openVerdict(this.profile.id);
    } catch (error) {
      showError(error, () => this.#retry());
    }
  }
}

window.voices = new NewVoicePage();
