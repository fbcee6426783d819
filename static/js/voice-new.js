// The page that makes a voice in three steps: consent, recording, result. A reload returns to the third.
import { ApiError, call } from "./api.js";
import { BuildProgress } from "./build-progress.js";
import { ConsentChoice } from "./consent-choice.js";
import { byId, find, findAll } from "./dom.js";
import { formatSeconds } from "./format.js";
import { config, detailAddress, profileAddress } from "./page-config.js";
import { notice, sayError, showError } from "./page-notice.js";
import { RecordingInput } from "./recording-input.js";
import { say } from "./ui-strings.js";
import { uploadWithProgress } from "./upload-progress.js";
import * as actions from "./voice-actions.js";
import { VoicePreview } from "./voice-preview.js";
import { makeItems, sayNoise, sayWarnings, showSimilarity } from "./voice-profile.js";
import { VoiceStatusPoller } from "./voice-status-poller.js";

const STEPS = ["consent", "recording", "result"];

/**
 * @import { MicrophoneReason } from "./call-types.js"
 * @import { VoiceProfile } from "./voice-types.js"
 */

class NewVoicePage {
  preview = new VoicePreview();
  input = new RecordingInput(find(document, ".recording-input"));
  /** The voice that was made. @type {VoiceProfile | null} */
  #profile = null;
  #consent = new ConsentChoice(byId("attestations", HTMLFieldSetElement));
  #buildProgress = new BuildProgress();
  #statusPoller = new VoiceStatusPoller();
  #isSending = false;

  constructor() {
    this.#joinConsent();
    this.#joinRecording();
    this.#joinResult();
    const id = new URLSearchParams(window.location.search).get("voice");
    if (id) this.#openResult(id);
    else this.#fetchConsent();
  }

  /** Return the voice that was made. Throws before there is one: its controls are hidden then. */
  get profile() {
    if (!this.#profile) throw new Error("no voice was made yet");
    return this.#profile;
  }

  /** @param {string} step @param {{ focuses?: boolean }} [options] */
  #show(step, { focuses = true } = {}) {
    byId("main").dataset.step = step;
    for (const item of findAll(document, ".stepper li")) {
      const isCurrent = item.dataset.step === step;
      item.classList.toggle("is-done", STEPS.indexOf(item.dataset.step ?? "") < STEPS.indexOf(step));
      if (isCurrent) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    }
    for (const name of STEPS) byId(`step-${name}`).hidden = name !== step;
    window.scrollTo(0, 0);
    if (focuses) byId(`step-${step}`).focus({ preventScroll: true });
  }

  #joinConsent() {
    this.#consent.onchange = () => {
      byId("give-consent", HTMLButtonElement).disabled = this.#consent.declared === null;
    };
    byId("give-consent").addEventListener("click", () => {
      notice.hide();
      this.#show("recording");
    });
    byId("back-to-consent").addEventListener("click", () => {
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

  #joinRecording() {
    const languages = findAll(document, '#language-field [name="language"]', HTMLInputElement);
    for (const radio of languages) {
      radio.addEventListener("change", () => this.input.setLanguage(radio.value));
      if (radio.checked) this.input.setLanguage(radio.value);
    }
    this.input.onchange = () => this.#renderRecording();
    this.input.ontrouble = (reason) => this.#explainMicrophone(reason);
    byId("send").addEventListener("click", () => this.#send());
    window.addEventListener("beforeunload", (event) => {
      if (this.#isSending || this.input.isRecording) event.preventDefault();
    });
    this.#renderRecording();
  }

  #renderRecording() {
    const isImport = this.input.way === "import";
    byId("send", HTMLButtonElement).disabled = this.input.file === null || this.input.isRecording || this.#isSending;
    byId("recording-actions").hidden = this.#isSending;
    byId("language-field").hidden = isImport;
    byId("name-field").hidden = isImport || this.input.file === null;
    byId("language-field", HTMLFieldSetElement).disabled = this.#isSending;
    byId("name", HTMLInputElement).disabled = this.#isSending;
  }

  /** @param {MicrophoneReason | null} reason */
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
    const { file, isArchive } = this.input;
    if (!file) return;
    const form = new FormData();
    this.#consent.addTo(form);
    if (isArchive) form.append("file", file, file.name);
    else {
      form.append("name", byId("name", HTMLInputElement).value.trim() || say("untitled"));
      form.append("language", find(document, '#language-field [name="language"]:checked', HTMLInputElement).value);
      form.append("audio", file, file.name);
    }
    this.#setSending(true);
    try {
      const profile = await uploadWithProgress(isArchive ? `${config.apiUrl}/import` : config.apiUrl, form);
      this.#setSending(false);
      window.history.replaceState(null, "", `${config.newUrl}?voice=${profile.id}`);
      this.#showResult(profile);
      this.#show("result");
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#setSending(false);
      this.#explainRefusal(error);
    }
  }

  /** @param {boolean} isSending */
  #setSending(isSending) {
    this.#isSending = isSending;
    this.input.setBusy(isSending);
    this.#renderRecording();
  }

  /** @param {ApiError} error */
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

  #joinResult() {
    this.#statusPoller.onstatus = (_, status) => this.#showResult({ ...this.profile, ...status });
    this.#statusPoller.onsettled = (id) => this.#openResult(id);
    this.#statusPoller.onerror = (_, error) => {
      if (error.code === "gone" || error.code === "expired") showError(error);
    };
    byId("hear").addEventListener("click", () => this.preview.toggle(this.profile, byId("hear")));
    byId("use").addEventListener("click", () => this.#use());
    byId("retry").addEventListener("click", () => this.#retry());
  }

  /** @param {string} id */
  async #openResult(id) {
    this.#show("result", { focuses: false });
    try {
      this.#showResult(await call("GET", profileAddress(id)));
    } catch (error) {
      showError(error, () => this.#openResult(id));
    }
  }

  /** @param {VoiceProfile} profile */
  #showResult(profile) {
    this.#profile = profile;
    const isReady = profile.state === "ready";
    byId("result-title").textContent = isReady ? say("isReady", { name: profile.name }) : profile.name;
    this.#buildProgress.show(profile);
    byId("result").hidden = !isReady;
    byId("to-detail", HTMLAnchorElement).href = detailAddress(profile.id);
    byId("record-again", HTMLAnchorElement).href = `${detailAddress(profile.id)}#adding`;
    if (isReady) this.#showFacts(profile);
    this.#statusPoller.follow(profile);
  }

  /** @param {VoiceProfile} profile */
  #showFacts(profile) {
    const result = byId("result");
    const similarity = find(result, ".similarity");
    showSimilarity(similarity, profile);
    find(result, ".similarity-help").hidden = similarity.hidden;
    const recording = profile.recordings?.at(-1);
    byId("facts").replaceChildren();
    byId("warnings").replaceChildren();
    if (!recording) return;
    const noise = recording.snr_db === null ? null : sayNoise(recording.snr_db);
    const heard = [say("secondsOfSpeech", { seconds: formatSeconds(recording.speech_s) }), noise]
      .filter(Boolean)
      .join(" · ");
    const term = document.createElement("dt");
    term.textContent = heard;
    const words = document.createElement("dd");
    words.textContent = recording.transcript || say("nothingUnderstood");
    byId("facts").append(term, words);
    byId("warnings").append(...makeItems(sayWarnings(recording.warnings ?? [])));
    this.#renderUse();
  }

  #renderUse() {
    byId("use").setAttribute("aria-pressed", String(this.profile.is_default));
    find(byId("use"), ".use-label").textContent = say(this.profile.is_default ? "inUse" : "use");
  }

  async #use() {
    try {
      notice.hide();
      await actions.choose(this.profile);
      this.#profile = { ...this.profile, is_default: true };
      this.#renderUse();
    } catch (error) {
      showError(error, () => this.#use());
    }
  }

  async #retry() {
    try {
      notice.hide();
      await actions.retry(this.profile);
      await this.#openResult(this.profile.id);
    } catch (error) {
      showError(error, () => this.#retry());
    }
  }
}

window.voices = new NewVoicePage();
