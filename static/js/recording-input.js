// The input of a recording: by microphone or as a file, with playback before it is sent.
import { closest, find } from "./dom.js";
import { formatBytes, formatSeconds } from "./format.js";
import { MicrophoneError } from "./microphone.js";
import { config } from "./page-config.js";
import { Recorder } from "./recorder.js";
import { Replay } from "./replay.js";
import { say } from "./ui-strings.js";

/** @import { MicrophoneReason } from "./call-types.js" */

/** @type {Readonly<Record<string, string>>} */
const EXTENSIONS = { "audio/webm": "webm", "audio/mp4": "m4a", "audio/ogg": "ogg" };

export class RecordingInput {
  /** The file to send, or null. @type {File | null} */
  file = null;
  /** Whether it is an exported voice rather than a recording. */
  isArchive = false;

  /** The file to send has changed. */
  onchange = () => {};
  /** There is no microphone, or (null) that is over. */
  ontrouble = (/** @type {MicrophoneReason | null} */ _reason) => {};

  #replay = new Replay();
  #recorder;
  #url = "";
  #isStarting = false;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
    this.#recorder = new Recorder({ longestS: config.longestS });
    this.#recorder.onlevel = (level, seconds) => this.#showLevel(level, seconds);
    this.#recorder.onend = (recorded) => this.#handleRecording(recorded);
    this.#recorder.onlost = () => this.ontrouble("lost");
    element.addEventListener("click", (event) => this.#press(closest(event, "[data-do]")?.dataset.do));
    element.addEventListener("change", ({ target }) => {
      if (!(target instanceof HTMLInputElement)) return;
      if (target.type === "file") {
        this.#handleFiles(target.files ?? [], target.name === "archive");
        target.value = ""; // the same file may be chosen again
      } else if (target.name === "way") this.way = target.value;
    });
    this.#joinDropping();
    this.setLanguage("zh");
    this.#showLevel(0, 0);
    this.#showRecording(false);
  }

  get way() {
    return this.element.dataset.way ?? "";
  }

  set way(way) {
    this.element.dataset.way = way;
    this.#find(`[name="way"][value="${way}"]`, HTMLInputElement).checked = true;
    this.#recorder.stop();
    this.#explain(null);
    this.ontrouble(null);
    if ((way === "import") !== this.isArchive) this.discard();
  }

  get isRecording() {
    return this.#recorder.isRecording;
  }

  /** Choose the text that is offered for reading aloud. @param {string} language */
  setLanguage(language) {
    const text = this.#find(".read-aloud-text");
    text.textContent = config.readAloud[language];
    text.lang = language === "zh" ? "zh-Hant" : "en";
  }

  /** While it is being sent nothing may change. @param {boolean} isBusy */
  setBusy(isBusy) {
    this.element.inert = isBusy;
    if (isBusy) this.#replay.stop();
  }

  discard() {
    this.#replay.stop();
    this.file = null;
    this.isArchive = this.way === "import";
    this.#find(".taken").hidden = true;
    this.element.dataset.phase = "empty";
    this.#showLevel(0, 0);
    this.onchange();
  }

  /** Show what is wrong with the recording. @param {string | null} sentence */
  #explain(sentence) {
    const problem = this.#find(".input-problem");
    problem.hidden = sentence === null;
    problem.textContent = sentence ?? "";
  }

  /** @param {string | undefined} what */
  #press(what) {
    if (what === "record") this.#toggleRecording();
    else if (what === "play") this.#replay.toggle(this.#url, this.#find('[data-do="play"]'));
    else if (what === "discard") {
      this.discard();
      this.#find(this.way === "record" ? ".record" : `.way-${this.way} input`).focus();
    }
  }

  async #toggleRecording() {
    if (this.#recorder.isRecording) {
      this.#recorder.stop();
      return;
    }
    if (this.#isStarting) return;
    this.#isStarting = true;
    this.#explain(null);
    this.ontrouble(null);
    this.discard();
    try {
      await this.#recorder.start();
      this.#showRecording(true);
      this.#status(say("recordingStarted"));
    } catch (error) {
      if (!(error instanceof MicrophoneError)) throw error;
      this.ontrouble(error.reason);
    } finally {
      this.#isStarting = false;
    }
  }

  /** @param {{ blob: Blob, seconds: number, isAtEnd: boolean }} recorded */
  #handleRecording({ blob, seconds, isAtEnd }) {
    this.#showRecording(false);
    if (seconds < config.shortestS) {
      this.discard();
      this.#explain(say("recordingTooShort", { seconds: formatSeconds(seconds), shortest: config.shortestS }));
      return;
    }
    const file = new File([blob], `recording.${EXTENSIONS[blob.type] ?? "webm"}`, { type: blob.type });
    this.#accept(file, say("recordingFile", { seconds: formatSeconds(seconds) }));
    if (isAtEnd) this.#status(say("recordingAtEnd"));
    else this.#status(say("recordingDone", { seconds: formatSeconds(seconds) }));
  }

  /** @param {FileList | File[]} files @param {boolean} isArchive */
  #handleFiles(files, isArchive) {
    if (files.length === 0) return;
    const [file] = files;
    const most = formatBytes(config.mostBytes);
    if (files.length > 1) this.#explain(say("tooManyFiles"));
    else if (file.size === 0) this.#explain(say("fileEmpty", { name: file.name }));
    else if (!isArchive && file.size > config.mostBytes) {
      this.#explain(say("fileTooLarge", { name: file.name, size: formatBytes(file.size), most }));
    } else {
      this.#explain(null);
      this.isArchive = isArchive;
      this.#accept(file, file.name);
      this.#status(file.name);
    }
  }

  /** @param {File} file @param {string} name */
  #accept(file, name) {
    this.#replay.stop();
    URL.revokeObjectURL(this.#url);
    this.#url = URL.createObjectURL(file);
    this.file = file;
    this.element.dataset.phase = "taken";
    this.#find(".taken").hidden = false;
    this.#find(".taken-name").textContent = name;
    this.#find(".taken-facts").textContent = formatBytes(file.size);
    this.#find('.taken [data-do="play"]').hidden = this.isArchive;
    this.#find(".discard-label").textContent = say(this.way === "record" ? "recordAgain" : "anotherOne");
    this.onchange();
  }

  #joinDropping() {
    // A file that misses the field would make the browser leave the page.
    for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
    for (const name of /** @type {const} */ (["dragenter", "dragover"])) {
      document.addEventListener(name, (event) => {
        if (!event.dataTransfer?.types.includes("Files") || this.element.inert) return;
        if (this.element.checkVisibility?.() === false) return;
        if (this.way === "record" && !this.isRecording) this.way = "file";
        this.element.classList.add("is-target");
      });
    }
    document.addEventListener("dragleave", ({ relatedTarget }) => {
      if (relatedTarget === null) this.element.classList.remove("is-target");
    });
    document.addEventListener("drop", ({ dataTransfer }) => {
      this.element.classList.remove("is-target");
      if (!dataTransfer || this.isRecording || this.element.inert) return;
      if (this.element.checkVisibility?.() === false) return;
      this.#handleFiles(dataTransfer.files, this.way === "import");
    });
  }

  /** @param {boolean} isRecording */
  #showRecording(isRecording) {
    this.element.dataset.phase = isRecording ? "recording" : this.file ? "taken" : "empty";
    const button = this.#find(".record");
    button.setAttribute("aria-pressed", String(isRecording));
    const label = say(isRecording ? "stopRecording" : "record");
    this.#find(".record-label").textContent = label;
    button.title = label;
    if (!isRecording) button.style.setProperty("--level", "0");
    this.onchange();
  }

  /** @param {number} level 0 to 1 @param {number} seconds */
  #showLevel(level, seconds) {
    this.#find(".record").style.setProperty("--level", level.toFixed(3));
    const whole = Math.floor(seconds);
    this.#find(".timer").textContent = `0:${String(whole).padStart(2, "0")}`.replace("0:60", "1:00");
    this.#find(".timeline i").style.width = `${(seconds / config.longestS) * 100}%`;
  }

  /** @param {string} text */
  #status(text) {
    this.#find(".input-status").textContent = text;
  }

  /**
   * @template {HTMLElement} [T=HTMLElement]
   * @param {string} selector
   * @param {new () => T} [kind]
   */
  #find(selector, kind) {
    return find(this.element, selector, kind);
  }
}
