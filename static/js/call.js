// The call: joins microphone, socket, speaker, captions and presence, and the controls to them.
import { describeCall } from "./call-state.js";
import { Captions } from "./captions.js";
import { joinLanguageSwitch } from "./language-switch.js";
import { Microphone, MicrophoneError } from "./microphone.js";
import { Notice } from "./notice.js";
import { AvatarVisualizer } from "./avatar-visualizer.js";
import { Replay } from "./replay.js";
import { Settings } from "./settings.js";
import { CloseCode, Socket } from "./socket.js";
import { Speaker } from "./speaker.js";
import { VoiceSheet } from "./voice-sheet.js";
import { say } from "./ui-strings.js";

const PLAYBACK_EVERY_MS = 250;
const PREROLL_FRAMES = 15; // 300 ms: people start to speak while they press
const RELEASE_TAIL_MS = 240; // and let go while they end
const SILENCE_AFTER_MUTE_FRAMES = 175; // 3.5 s: the server counts a pause in audio received, at most 3 s
const STATUS_EVERY_MS = 3_000;
const HANDS_FREE = "hands_free";
const TRANSLATED = [".header", ".stage", "#log", "#welcome", "#turn-template", "#correction-template", "#composer", "#controls", "#settings"];

/** Why a call is over that the person may begin again, and the words for it. */
const REFUSALS_TO_RETRY = {
  [CloseCode.REPLACED]: "replaced",
  [CloseCode.IDLE]: "idleEnd",
  [CloseCode.TOO_MANY_CALLS]: "tooMany",
};

const element = (id) => document.getElementById(id);

/** Messages about keeping and keeping up: they take each other's place on the card. */
const KEEPING = {
  NOT_KEPT: { key: "notKept", isSerious: true },
  KEPT_AGAIN: { key: "keptAgain", isSerious: false },
  FELL_BEHIND: { key: "fellBehind", isSerious: false },
  CONVERSATION_GONE: { key: "conversationGone", isSerious: true },
};

class Call {
  socket;
  speaker = new Speaker();
  microphone = new Microphone();
  replay = new Replay();
  /** The name of the state a person sees. */
  state = "idle";
  conversationId;

  #facts = JSON.parse(element("call").textContent);
  #context = null;
  #opened = null; // the promise of the speaker
  #attempt = 0; // the latest start or end: what an earlier start still waits for is not to go on
  #isStarting = false;
  #phase = "idle"; // idle → asking → connecting → live
  #trouble = null; // reconnecting, offline, full, warming, unavailable
  #stage = "listening";
  #isUserSpeaking = false;
  #isHolding = false;
  #heardNothing = false;
  #replyTurnId = null; // being made by the server
  #audioTurnId = null; // whose audio the binary messages are; null: throw them away
  #isAudible = false;
  #preroll = [];
  #mutedFrames = 0;
  #releaseTimer = 0;
  #statusTimer = 0;
  #lastPlaybackAt = 0;
  #wasTyped = false;
  #typedTurns = new Set();
  #audioUrls = new Map();
  #wakeLock = null;

  constructor() {
    this.main = element("main");
    this.visualizer = new AvatarVisualizer(element("presence"));
    this.notice = new Notice({
      element: element("notice"),
      title: element("notice-title"),
      text: element("notice-text"),
      actions: element("notice-actions"),
    });
    this.captions = new Captions({
      scroller: element("log"),
      list: element("turns"),
      template: element("turn-template"),
      announcer: element("announcer"),
    });
    this.settings = new Settings(element("settings"), {
      mode: HANDS_FREE,
      language: "auto",
      pause_ms: this.#facts.pauseMs,
      sensitivity: this.#facts.sensitivity,
      voice_profile_id: this.#facts.voiceProfileId ?? "",
      quality: this.#facts.quality ?? "fast",
      speed: 1,
      shows_latency: false,
      is_muted: false,
    });
    this.voices = new VoiceSheet({
      dialog: element("settings"),
      list: element("voices"),
      template: element("voice-template"),
    });
    this.conversationId = this.#facts.conversationId;
    this.socket = new Socket(this.#facts.socketUrl);
    this.socket.conversationId = this.conversationId;
    this.#joinParts();
    this.#joinControls();
    this.#applySettings();
    this.#render();
    this.#checkStatus();
    // A press before this script has come would be lost.
    for (const id of ["start", "start-typing", "open-settings"]) element(id).disabled = false;
    // From the history, to be answered anew: that needs no microphone and no further press.
    if (new URL(window.location.href).searchParams.has("answer")) this.start({ withMicrophone: false });
  }

  // --- begin and end ---

  async start({ withMicrophone }) {
    if (this.#isStarting) return;
    this.#isStarting = true;
    this.#attempt += 1;
    const attempt = this.#attempt;
    const wasIdle = this.#phase === "idle";
    if (wasIdle) this.#phase = withMicrophone && !this.microphone.isOpen ? "asking" : "connecting";
    this.notice.hide();
    this.replay.stop();
    this.#render();
    try {
      await this.#openSound();
      if (attempt === this.#attempt && withMicrophone && !this.microphone.isOpen) await this.microphone.open(this.#context);
    } catch (error) {
      if (attempt !== this.#attempt) return;
      this.#isStarting = false;
      if (wasIdle) this.#phase = "idle";
      this.#render();
      if (!(error instanceof MicrophoneError)) throw error;
      this.#explainMicrophone(error.reason);
      return;
    }
    if (attempt !== this.#attempt) return; // ended while the permission was asked for
    this.#isStarting = false;
    if (!withMicrophone) this.#showComposer(true);
    if (wasIdle) {
      this.#phase = "connecting";
      const isKept = !element("keeps-nothing")?.checked;
      // What is kept cannot go on unkept; and of what was not kept, the server remembers nothing to go on with.
      if (!isKept || this.conversationId === null) this.#beginAnother();
      this.socket.isKept = isKept;
      this.socket.open();
      this.#keepAwake();
      element("talk").focus({ preventScroll: true });
      if (!withMicrophone) element("message").focus();
    }
    this.#render();
  }

  /** From here on it is a new conversation. The one before stays in the history, if it is kept. */
  #beginAnother() {
    this.conversationId = null;
    this.socket.conversationId = null;
    this.#audioUrls.clear();
    this.#typedTurns.clear();
    this.captions.clear();
    this.main.classList.remove("has-turns");
    element("new-conversation").hidden = true;
    window.history.replaceState(null, "", this.#facts.newUrl);
    this.#explainKeeping();
  }

  /** Say what the switch means for what was said before. */
  #explainKeeping() {
    const keepsNothing = element("keeps-nothing");
    if (keepsNothing) element("keeps-nothing-hint").hidden = !keepsNothing.checked || this.conversationId === null;
  }

  end() {
    this.#attempt += 1;
    this.#isStarting = false;
    clearTimeout(this.#releaseTimer);
    clearTimeout(this.#statusTimer);
    this.socket.close();
    this.#forgetReply();
    this.speaker.flush();
    this.microphone.close();
    this.captions.settle();
    this.notice.hide();
    this.#phase = "idle";
    this.#trouble = null;
    this.#isHolding = false;
    this.#isUserSpeaking = false;
    this.#wakeLock?.release();
    this.#wakeLock = null;
    this.#showComposer(false);
    this.main.classList.toggle("has-turns", !this.captions.isEmpty);
    this.#explainKeeping();
    this.#render();
    this.captions.scrollToEnd();
    element("start").focus();
  }

  async #openSound() {
    if (this.#context) await this.#context.resume();
    else {
      this.#context = new AudioContext({ latencyHint: "interactive" });
      this.#context.resume();
      // Without AudioWorklet (an address that is not secure) replies are read, not heard.
      this.#opened = this.#context.audioWorklet ? this.speaker.open(this.#context) : Promise.resolve();
    }
    await this.#opened;
  }

  async #keepAwake() {
    try {
      this.#wakeLock = await navigator.wakeLock?.request("screen");
    } catch {
      // Low battery, or the page is in the background: the screen may sleep.
    }
  }

  // --- what the parts tell ---

  #joinParts() {
    this.microphone.onframe = (frame, level) => this.#takeFrame(frame, level);
    this.microphone.onlost = () => {
      this.#explainMicrophone("lost");
      this.#render();
    };
    this.speaker.onplaying = (progress) => this.#takePlaying(progress);
    this.speaker.onfinished = ({ turnId, playedMs }) => this.#takePlayed(turnId, playedMs, true);
    this.speaker.onflushed = ({ turnId, playedMs }) => {
      if (turnId) this.#takePlayed(turnId, playedMs, false);
    };
    this.socket.onmessage = (message) => this.#takeMessage(message);
    this.socket.onaudio = (pcm) => {
      if (this.#audioTurnId) this.speaker.push(pcm);
    };
    this.socket.ondropped = ({ code }) => this.#takeDrop(code);
    this.socket.onrefused = (code) => this.#takeRefusal(code);
    this.captions.oncorrect = (turnId, text) => this.#correct(turnId, text);
    this.captions.onreplay = (url, button) => this.replay.toggle(url, button);
    this.replay.onerror = () => this.#showProblem(say("replay_text"));
    window.addEventListener("offline", () => {
      if (this.#trouble === "reconnecting") this.#setTrouble("offline");
    });
    document.addEventListener("visibilitychange", () => {
      if (document.hidden || this.#phase === "idle") return;
      this.#context?.resume();
      this.#keepAwake();
    });
  }

  #takeFrame(frame, level) {
    const isHandsFree = this.settings.values.mode === HANDS_FREE;
    const isMuted = this.settings.values.is_muted;
    const isOpen = isHandsFree ? !isMuted : this.#isHolding;
    if (!this.#isAudible) this.visualizer.setLevel(isOpen ? level : 0);
    element("talk").style.setProperty("--level", isOpen ? level.toFixed(3) : "0");
    if (element("settings").open) element("meter").value = level;
    if (this.#phase !== "live" || this.replay.isPlaying) return;
    if (!isHandsFree) {
      if (this.#isHolding) this.socket.sendAudio(frame);
      else {
        this.#preroll.push(frame);
        if (this.#preroll.length > PREROLL_FRAMES) this.#preroll.shift();
      }
      return;
    }
    this.#mutedFrames = isMuted ? this.#mutedFrames + 1 : 0;
    if (this.#mutedFrames <= SILENCE_AFTER_MUTE_FRAMES) this.socket.sendAudio(frame);
  }

  #takePlaying({ turnId, playedMs, level }) {
    if (turnId === null) return;
    if (!this.#isAudible) {
      this.#isAudible = true;
      this.#render();
    }
    this.visualizer.setLevel(level);
    const now = performance.now();
    if (now - this.#lastPlaybackAt < PLAYBACK_EVERY_MS) return;
    this.#lastPlaybackAt = now;
    this.socket.send({ type: "playback", turn_id: turnId, played_ms: playedMs });
  }

  #takePlayed(turnId, playedMs, isFinished) {
    this.socket.send({ type: "playback", turn_id: turnId, played_ms: playedMs, is_finished: isFinished });
    if (this.speaker.turnId === null) this.#isAudible = false;
    this.visualizer.setLevel(0);
    this.#render();
  }

  #takeMessage(message) {
    switch (message.type) {
      case "status":
        this.#takeStatus(message);
        break;
      case "transcription":
        this.#takeTranscription(message);
        break;
      case "llm_response":
        this.#takeResponse(message);
        break;
      case "tts_ready":
        this.#audioTurnId = message.turn_id;
        if (message.audio_url) this.#audioUrls.set(message.turn_id, message.audio_url);
        this.speaker.begin(message.turn_id, message.sample_rate);
        this.#tellQuality(message);
        break;
      case "corrected":
        this.captions.showCorrection({ turnId: message.turn_id, text: message.text, language: message.language });
        break;
      case "turn_end":
        this.#takeTurnEnd(message);
        break;
      case "interrupted":
        this.#forgetReply();
        this.speaker.flush();
        this.captions.markInterrupted(message.turn_id, true);
        break;
      case "error":
        this.#takeError(message);
        break;
      case "idle_warning":
        this.notice.show("idle", { text: message.notice, isSerious: false });
        break;
      default: // pong, and what a later server may add
    }
    this.#render();
  }

  #takeStatus({ stage, conversation_id: conversationId, is_speaking: isSpeaking, turn_id: turnId }) {
    if (stage === "ready") {
      const isReturn = conversationId !== null && this.conversationId === conversationId;
      this.conversationId = conversationId;
      this.#phase = "live";
      if (["reconnecting", "offline", "full"].includes(this.#trouble)) this.#trouble = null;
      this.notice.hide("reconnecting", "offline", "full");
      this.#stage = "listening";
      this.socket.send({ type: "configure", ...this.settings.configuration });
      element("unkept").hidden = conversationId !== null;
      this.#answerAgain();
      if (isReturn) this.#fetchKeptTurns();
      return;
    }
    this.#stage = stage;
    if (stage === "listening") {
      this.#offerReplays();
      this.#isUserSpeaking = isSpeaking === true;
      if (isSpeaking) {
        this.#heardNothing = false;
        this.notice.hide("idle");
      }
    } else this.#isUserSpeaking = false;
    if (stage === "llm" || stage === "tts") this.#replyTurnId = turnId ?? this.#replyTurnId;
  }

  /** Somebody came from the history, having corrected a turn, to be answered anew. */
  #answerAgain() {
    const address = new URL(window.location.href);
    const turnId = address.searchParams.get("answer");
    if (!turnId) return;
    address.searchParams.delete("answer");
    window.history.replaceState(null, "", address);
    this.#correct(turnId, this.captions.readText(turnId));
  }

  #correct(turnId, text) {
    if (text === "" || !this.socket.isOpen) return;
    if (this.#hasReply) this.stopReply();
    this.replay.stop();
    this.socket.send({ type: "correct", turn_id: turnId, text });
    this.#stage = "llm";
    this.#render();
  }

  #takeTranscription({ turn_id: turnId, text, is_final: isFinal, language }) {
    if (text !== "") this.notice.hide("idle");
    this.captions.showTranscript({ turnId, text, isFinal, language });
    if (!isFinal) return;
    this.#isUserSpeaking = false;
    if (text === "") {
      this.#heardNothing = true;
      return;
    }
    this.#heardNothing = false;
    this.socket.conversationId = this.conversationId; // it exists from its first turn on
    if (this.#wasTyped) this.#typedTurns.add(turnId);
    this.#wasTyped = false;
    this.#showAddress();
  }

  #takeResponse({ turn_id: turnId, text, is_final: isFinal, was_interrupted: wasInterrupted }) {
    if (isFinal) this.captions.showReply({ turnId, text, wasInterrupted });
    else {
      this.#replyTurnId = turnId;
      this.captions.showReplyDelta({ turnId, text });
    }
  }

  #takeTurnEnd(message) {
    const { turn_id: turnId, user_turn_id: userTurnId, was_interrupted: wasInterrupted } = message;
    if (this.#audioTurnId === turnId) {
      this.speaker.end(turnId);
      this.#audioTurnId = null;
    }
    if (this.#replyTurnId === turnId) this.#replyTurnId = null;
    this.captions.markInterrupted(turnId, wasInterrupted);
    this.captions.showLatency(turnId, message.latency_ms);
    this.#tellQuality(message);
    if (this.conversationId !== null && !this.#typedTurns.has(userTurnId)) this.captions.showAudio(userTurnId, this.#audioAddress(userTurnId));
    if (message.audio_ms === 0) this.#audioUrls.delete(turnId);
    this.main.classList.add("has-turns");
    element("new-conversation").hidden = false;
  }

  #tellQuality({ turn_id: turnId, quality }) {
    if (this.settings.values.quality === "high_quality" && quality === "fast") this.captions.showFallback(turnId);
  }

  /** A reply is kept when it is over: to its end, or as far as it was heard. */
  #offerReplays() {
    for (const [turnId, url] of this.#audioUrls) this.captions.showAudio(turnId, url);
    this.#audioUrls.clear();
  }

  #takeError({ code, error, is_fatal: isFatal, voice_profile_id: voiceId }) {
    if (code === "SERVER_FULL" || isFatal) return; // the close code that follows says so
    if (code in KEEPING) {
      this.#tellKeeping(code, error);
      return;
    }
    this.#isUserSpeaking = false;
    if (code === "NO_AUDIO_DATA") this.#heardNothing = true;
    else if (code === "INFERENCE_UNAVAILABLE") {
      this.#replyTurnId = null;
      this.#setTrouble("unavailable");
      // Not at once: the answer may be two seconds old, and say that all is well.
      clearTimeout(this.#statusTimer);
      this.#statusTimer = setTimeout(() => this.#checkStatus(), STATUS_EVERY_MS);
    } else {
      if (code === "PROCESSING_ERROR") this.#replyTurnId = null;
      if (code === "VOICE_GONE") this.#forgetVoice(voiceId);
      this.#showProblem(error);
    }
    this.captions.settle();
  }

  /** What is kept of the call. The call itself goes on: nothing that is being said is settled. */
  #tellKeeping(code, text) {
    const { key, isSerious } = KEEPING[code];
    this.notice.show(key, { text, isSerious, actions: [{ label: "dismiss", run: () => this.notice.hide() }] });
  }

  #forgetVoice(id) {
    // Another may have been chosen meanwhile.
    if (this.settings.values.voice_profile_id === id) this.settings.set("voice_profile_id", "");
    this.voices.drop(id);
  }

  #takeDrop(code) {
    if (this.#audioTurnId) this.speaker.end(this.#audioTurnId); // what has arrived may be heard to its end
    this.#forgetReply();
    this.#isUserSpeaking = false;
    this.#isHolding = false;
    this.captions.settle();
    if (code === CloseCode.SERVER_FULL) this.#setTrouble("full");
    else this.#setTrouble(navigator.onLine ? "reconnecting" : "offline");
    this.#render();
  }

  #takeRefusal(code) {
    const withMicrophone = this.microphone.isOpen;
    const wasKept = this.conversationId !== null;
    this.end();
    const { loginUrl, newUrl } = this.#facts;
    const next = encodeURIComponent(window.location.pathname);
    if (code === CloseCode.NOT_LOGGED_IN) {
      this.notice.show("expired", { actions: [{ label: "logIn", href: `${loginUrl}?next=${next}` }] });
    } else if (code === CloseCode.UNKNOWN_CONVERSATION) {
      this.notice.show("unknown", { actions: [{ label: "newConversation", href: newUrl }] });
    } else if (code in REFUSALS_TO_RETRY) {
      this.notice.show(REFUSALS_TO_RETRY[code], {
        text: code === CloseCode.IDLE && !wasKept ? say("idleEndUnkept_text") : null,
        actions: [{ label: "tryAgain", run: () => this.start({ withMicrophone }) }],
        isSerious: false,
      });
    } else this.notice.show("refused", { actions: [{ label: "tryAgain", run: () => window.location.reload() }] });
  }

  // --- what the person does ---

  #joinControls() {
    const talk = element("talk");
    element("keeps-nothing")?.addEventListener("change", () => this.#explainKeeping());
    joinLanguageSwitch({
      selectors: TRANSLATED,
      mustStay: () => this.#phase !== "idle",
      onswitched: () => {
        const pageLanguage = document.documentElement.lang.startsWith("zh") ? "zh-hant" : "en";
        this.socket.send({ type: "configure", page_language: pageLanguage });
        this.captions.relabel();
        this.settings.refill();
        this.voices.refresh();
        this.#render();
      },
    });
    element("start").addEventListener("click", () => this.start({ withMicrophone: true }));
    element("start-typing").addEventListener("click", () => this.start({ withMicrophone: false }));
    element("end").addEventListener("click", () => this.end());
    element("stop").addEventListener("click", () => this.stopReply());
    element("voice").addEventListener("click", () => this.#openSettings("voice"));
    element("open-settings").addEventListener("click", () => this.#openSettings());
    element("keyboard").addEventListener("click", () => this.#showComposer(element("composer").hidden, true));
    talk.addEventListener("click", () => this.#toggleMicrophone());
    talk.addEventListener("contextmenu", (event) => event.preventDefault());
    talk.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.#isHoldToTalk) return;
      talk.setPointerCapture(event.pointerId);
      this.#hold();
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      talk.addEventListener(name, () => this.#release());
    }
    document.addEventListener("keydown", (event) => this.#takeKey(event));
    document.addEventListener("keyup", (event) => {
      if (event.code === "Space" || event.code === "Enter") this.#release();
    });
    window.addEventListener("blur", () => this.#release());
    element("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#sendText();
    });
    element("message").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#sendText();
    });
    this.settings.onchange = (name) => {
      this.#applySettings();
      if (name === "voice_profile_id" || name === "quality") this.voices.remember(name, this.settings.values[name]);
    };
    this.voices.onchange = () => this.settings.refill();
    this.voices.onerror = (text) => this.#showProblem(text);
  }

  #openSettings(section) {
    this.settings.open(section);
    this.voices.refresh();
  }

  get #isHoldToTalk() {
    return this.settings.values.mode !== HANDS_FREE && this.microphone.isOpen;
  }

  #takeKey(event) {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || element("settings").open) return;
    if (event.key === "Escape" && !event.isComposing && this.#hasReply) this.stopReply();
    const isTalk = event.target === element("talk");
    const isElsewhere = event.target.closest("button, a, input, textarea, select, summary") !== null;
    const isHoldKey = (event.code === "Space" && (isTalk || !isElsewhere)) || (event.code === "Enter" && isTalk);
    if (!isHoldKey || !this.#isHoldToTalk || this.#phase !== "live") return;
    event.preventDefault();
    if (!event.repeat) this.#hold();
  }

  #hold() {
    if (this.#phase !== "live" || this.#trouble) return;
    clearTimeout(this.#releaseTimer);
    this.#releaseTimer = 0;
    if (this.#isHolding) return;
    if (this.#hasReply) this.stopReply();
    this.replay.stop();
    this.#isHolding = true;
    this.#heardNothing = false;
    for (const frame of this.#preroll) this.socket.sendAudio(frame);
    this.#preroll = [];
    this.#render();
  }

  #release() {
    if (!this.#isHolding || this.#releaseTimer) return;
    this.#releaseTimer = setTimeout(() => {
      this.#releaseTimer = 0;
      this.#isHolding = false;
      this.#stage = "stt";
      this.socket.send({ type: "audio_end" });
      this.#render();
    }, RELEASE_TAIL_MS);
  }

  #toggleMicrophone() {
    if (!this.microphone.isOpen) this.start({ withMicrophone: true });
    else if (!this.#isHoldToTalk) this.settings.set("is_muted", !this.settings.values.is_muted);
  }

  get #hasReply() {
    return this.#replyTurnId !== null || this.speaker.turnId !== null;
  }

  /** Fall silent now; tell the server what was heard, and to stop. */
  stopReply() {
    const turnId = this.#replyTurnId ?? this.speaker.turnId;
    this.#forgetReply();
    this.speaker.flush();
    this.socket.send({ type: "interrupt" });
    if (turnId) this.captions.markInterrupted(turnId, true);
    this.#render();
  }

  #forgetReply() {
    this.#replyTurnId = null;
    this.#audioTurnId = null;
    this.#isAudible = false;
    this.visualizer.setLevel(0);
  }

  #sendText() {
    const message = element("message");
    const text = message.value.trim();
    if (text === "" || this.#phase !== "live" || !this.socket.isOpen) return;
    if (this.#hasReply) this.stopReply();
    this.replay.stop();
    this.#wasTyped = this.socket.send({ type: "text", text });
    message.value = "";
    this.#stage = "llm";
    this.captions.scrollToEnd();
    this.#render();
  }

  #applySettings() {
    const { values } = this.settings;
    this.microphone.setMuted(values.mode === HANDS_FREE && values.is_muted);
    this.main.classList.toggle("shows-latency", values.shows_latency);
    if (this.#phase === "live") this.socket.send({ type: "configure", ...this.settings.configuration });
    this.#render();
  }

  // --- what the person sees ---

  #render() {
    const { values } = this.settings;
    const isHearing = this.microphone.isOpen;
    const { key, mood, hint } = describeCall({
      phase: this.#phase,
      trouble: this.#trouble,
      stage: this.#stage,
      mode: values.mode,
      isMuted: values.is_muted,
      isHolding: this.#isHolding,
      isHearing,
      isPlaying: this.#isAudible,
      isUserSpeaking: this.#isUserSpeaking,
      isReplying: this.#replyTurnId !== null || this.#stage === "llm" || this.#stage === "tts",
      heardNothing: this.#heardNothing,
    });
    this.state = key;
    this.main.dataset.state = key;
    this.main.dataset.phase = this.#phase;
    setText(element("state"), say(`state_${key}`));
    setText(element("hint"), hint ? say(`hint_${hint}`) : "");
    this.visualizer.show(mood);
    element("controls").hidden = this.#phase === "idle";
    element("stop").disabled = !this.#hasReply;
    this.#renderTalk(isHearing, values);
  }

  #renderTalk(isHearing, values) {
    const talk = element("talk");
    const isHold = values.mode !== HANDS_FREE && isHearing;
    const isOff = !isHearing || (!isHold && values.is_muted);
    talk.classList.toggle("is-off", isOff);
    talk.classList.toggle("is-held", this.#isHolding);
    talk.setAttribute("aria-pressed", String(isHold ? this.#isHolding : isHearing && values.is_muted));
    const label = !isHearing ? "addMicrophone" : isHold ? "hold" : "mute";
    setText(element("talk-label"), say(label));
    talk.title = say(label === "mute" && values.is_muted ? "unmute" : label);
    if (!isHearing) talk.style.setProperty("--level", "0");
  }

  #showComposer(isShown, isFocused = false) {
    element("composer").hidden = !isShown;
    element("keyboard").setAttribute("aria-pressed", String(isShown));
    if (isShown && isFocused) element("message").focus();
  }

  #explainMicrophone(reason) {
    const actions = [];
    if (reason !== "insecure" && reason !== "unsupported") {
      actions.push({ label: "tryAgain", run: () => this.start({ withMicrophone: true }) });
    }
    const type = () => {
      this.notice.hide();
      this.start({ withMicrophone: false });
    };
    actions.push({ label: "typeInstead", run: type });
    this.notice.show(reason, { actions });
  }

  #showProblem(text) {
    this.notice.show("problem", { text, actions: [{ label: "dismiss", run: () => this.notice.hide() }] });
  }

  #setTrouble(trouble) {
    this.#trouble = trouble;
    const isPassing = trouble !== "unavailable";
    const canRetry = trouble === "reconnecting" || trouble === "full";
    const actions = canRetry ? [{ label: "tryAgain", run: () => this.socket.retryNow() }] : [];
    this.notice.show(trouble, { actions, isSerious: !isPassing });
    this.#render();
  }

  /** Ask how the engines are; while they are not ready, say so and ask again. */
  async #checkStatus() {
    clearTimeout(this.#statusTimer);
    let inference;
    try {
      const response = await fetch(this.#facts.statusUrl, { headers: { Accept: "application/json" } });
      if (!response.ok) return;
      ({ inference } = await response.json());
    } catch {
      return; // the socket notices and says when the server is away
    }
    if (inference.is_ready) {
      this.notice.hide("warming", "unavailable");
      if (["warming", "unavailable"].includes(this.#trouble)) this.#trouble = null;
      this.#render();
      return;
    }
    const isWarming = inference.roles.some(({ state }) => state === "loading" || state === "warming");
    const isConnected = this.#phase === "idle" || !["reconnecting", "offline", "full"].includes(this.#trouble);
    if (isConnected) this.#setTrouble(isWarming ? "warming" : "unavailable");
    this.#statusTimer = setTimeout(() => this.#checkStatus(), STATUS_EVERY_MS);
  }

  // --- what is kept ---

  #conversationAddress() {
    return this.#facts.conversationUrl.replace(this.#facts.anyId, this.conversationId);
  }

  #audioAddress(turnId) {
    const { audioUrl, anyId, anyTurnId } = this.#facts;
    return audioUrl.replace(anyId, this.conversationId).replace(anyTurnId, turnId);
  }

  /** From now on a reload goes on with this conversation. */
  #showAddress() {
    if (this.conversationId === null) return;
    const address = this.#conversationAddress();
    if (window.location.pathname !== address) window.history.replaceState(null, "", address);
  }

  /** After a return: what the server has kept is the truth, also of a turn that was cut off. */
  async #fetchKeptTurns() {
    try {
      const response = await fetch(this.#conversationAddress());
      if (!response.ok || this.#replyTurnId !== null) return;
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const turns = [...page.querySelectorAll("#turns > .turn")];
      if (this.#replyTurnId === null && turns.length > 0) {
        this.captions.replaceAll(turns.map((turn) => document.adoptNode(turn)));
      }
    } catch {
      // The line dropped again; the next return asks again.
    }
  }
}

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

window.avatar = new Call();
