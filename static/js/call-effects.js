// Runs the effects that the call's machine asks for, on the parts of the page. What an effect awaits comes back as an event.
import { fetchKeptTurns, fetchStatus, makeAudioAddress, makeConversationAddress } from "./call-requests.js";
import { byId } from "./dom.js";
import { MicrophoneError } from "./microphone.js";

/**
 * @import { Call } from "./call.js"
 * @import { CallEffect, NoticeAction, TimerName } from "./call-types.js"
 * @import { Action } from "./notice.js"
 */

export class CallEffects {
  #call;
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {Promise<void> | null} */
  #speakerOpened = null;
  /** @type {Map<TimerName, ReturnType<typeof setTimeout>>} */
  #timers = new Map();
  /** @type {WakeLockSentinel | null | undefined} */
  #wakeLock = null;

  /** @param {Call} call */
  constructor(call) {
    this.#call = call;
  }

  /** @param {CallEffect} effect */
  run(effect) {
    const run = /** @type {(effect: CallEffect) => unknown} */ (this.#runners[effect.type]);
    run(effect);
  }

  /** Return what an action of a notice is called and does. @param {NoticeAction} action @returns {Action} */
  makeNoticeAction(action) {
    const call = this.#call;
    const { loginUrl, newUrl } = call.config;
    switch (action.do) {
      case "dismiss":
        return { label: "dismiss", run: () => call.dispatch({ type: "noticeDismissed" }) };
      case "start": {
        const { withMicrophone, label } = action;
        const start = () =>
          call.dispatch({ type: "start", withMicrophone, keepsNothing: call.view.keepsNothing?.checked ?? false });
        return { label, run: start };
      }
      case "retryNow":
        return { label: "tryAgain", run: () => call.socket.retryNow() };
      case "reload":
        return { label: "tryAgain", run: () => window.location.reload() };
      case "logIn":
        return { label: "logIn", href: `${loginUrl}?next=${encodeURIComponent(window.location.pathname)}` };
      case "newConversation":
        return { label: "newConversation", href: newUrl };
    }
  }

  /** @type {{ [T in CallEffect["type"]]: (effect: Extract<CallEffect, { type: T }>) => unknown }} */
  #runners = {
    openSound: ({ attempt }) => this.#openSound(attempt),
    openMicrophone: ({ attempt }) => this.#openMicrophone(attempt),
    closeMicrophone: () => this.#call.microphone.close(),
    muteMicrophone: ({ isMuted }) => this.#call.microphone.setMuted(isMuted),
    sendPreroll: () => {
      for (const frame of this.#call.gate.takePreroll()) this.#call.socket.sendAudio(frame);
    },
    resumeSound: () => this.#context?.resume(),
    beginReply: ({ turnId, sampleRate }) => this.#call.speaker.begin(turnId, sampleRate),
    endReply: ({ turnId }) => this.#call.speaker.end(turnId),
    flushReply: () => this.#call.speaker.flush(),
    stopReplay: () => this.#call.replay.stop(),
    showSilence: () => this.#call.visualizer.setLevel(0),

    openSocket: ({ conversationId, isKept }) => this.#call.socket.open({ conversationId, isKept }),
    closeSocket: () => this.#call.socket.close(),
    resumeAs: ({ conversationId }) => (this.#call.socket.conversationId = conversationId),
    send: ({ message }) => this.#call.socket.send(message),
    fetchStatus: async () => {
      const inference = await fetchStatus(this.#call.config.statusUrl);
      if (inference) this.#call.dispatch({ type: "statusFetched", inference });
    },
    fetchKeptTurns: async ({ conversationId }) => {
      const turns = await fetchKeptTurns(makeConversationAddress(this.#call.config, conversationId));
      this.#call.dispatch({ type: "keptTurnsFetched", conversationId, turns });
    },
    startTimer: ({ timer, afterMs }) => {
      clearTimeout(this.#timers.get(timer));
      this.#timers.set(
        timer,
        setTimeout(() => this.#call.dispatch({ type: "timerElapsed", timer }), afterMs),
      );
    },
    stopTimer: ({ timer }) => clearTimeout(this.#timers.get(timer)),

    keepAwake: () => this.#keepAwake(),
    allowSleep: () => this.#wakeLock?.release(),
    focus: ({ target }) => focus(byId(target), { preventScroll: target === "talk" }),
    clearComposer: () => (this.#call.view.message.value = ""),
    setMuted: ({ isMuted }) => this.#call.settings.set("is_muted", isMuted),
    forgetVoice: ({ voiceId }) => {
      // The person may have chosen another one by now.
      if (this.#call.settings.values.voice_profile_id === voiceId) this.#call.settings.set("voice_profile_id", "");
      this.#call.voices.drop(voiceId);
    },
    showAddress: ({ conversationId }) => showAddress(makeConversationAddress(this.#call.config, conversationId)),
    answerAgain: ({ turnId }) => {
      window.history.replaceState(null, "", window.location.pathname); // without the query: a reload does not answer again
      this.#call.correct(turnId, this.#call.captions.readText(turnId));
    },
    clearConversation: () => {
      this.#call.captions.clear();
      this.#call.view.clearConversation();
      window.history.replaceState(null, "", this.#call.config.newUrl);
    },
    showConversation: () => this.#call.view.showConversation(),
    showEnd: () => {
      this.#call.view.main.classList.toggle("has-turns", !this.#call.captions.isEmpty);
      this.#call.captions.scrollToEnd();
    },

    showTranscript: (effect) => this.#call.captions.showTranscript(effect),
    showCorrection: (effect) => this.#call.captions.showCorrection(effect),
    showReplyDelta: (effect) => this.#call.captions.showReplyDelta(effect),
    showReply: (effect) => this.#call.captions.showReply(effect),
    markInterrupted: ({ turnId, wasInterrupted }) => this.#call.captions.markInterrupted(turnId, wasInterrupted),
    showLatency: ({ turnId, latency }) => this.#call.captions.showLatency(turnId, latency),
    showFallback: ({ turnId }) => this.#call.captions.showFallback(turnId),
    showUserAudio: ({ turnId, conversationId }) =>
      this.#call.captions.showAudio(turnId, makeAudioAddress(this.#call.config, conversationId, turnId)),
    showReplyAudio: ({ turnId, url }) => this.#call.captions.showAudio(turnId, url),
    replaceTurns: ({ turns }) => this.#call.captions.replaceAll(turns),
    settleCaptions: () => this.#call.captions.settle(),
    scrollToEnd: () => this.#call.captions.scrollToEnd(),
  };

  /** @param {number} attempt */
  async #openSound(attempt) {
    try {
      if (this.#context) await this.#context.resume();
      else this.#speakerOpened = this.#openSpeaker();
      await this.#speakerOpened;
    } catch (error) {
      this.#call.dispatch({ type: "startFailed", attempt });
      throw error;
    }
    this.#call.dispatch({ type: "soundOpened", attempt, canPlay: this.#call.speaker.isOpen });
  }

  /** Without AudioWorklet (an address that is not secure) replies are read, not heard. */
  async #openSpeaker() {
    this.#context = new AudioContext({ latencyHint: "interactive" });
    this.#context.resume(); // not awaited: it waits until the browser lets the page play
    if (this.#context.audioWorklet) await this.#call.speaker.open(this.#context);
  }

  /** @param {number} attempt */
  async #openMicrophone(attempt) {
    const { microphone } = this.#call;
    if (!this.#context) throw new Error("the microphone is opened after the loudspeaker");
    try {
      const isOpen = await microphone.open(this.#context);
      this.#call.dispatch({ type: "microphoneOpened", attempt, isOpen });
    } catch (error) {
      if (error instanceof MicrophoneError)
        this.#call.dispatch({ type: "microphoneRefused", attempt, reason: error.reason });
      else {
        this.#call.dispatch({ type: "startFailed", attempt });
        throw error;
      }
    }
  }

  async #keepAwake() {
    try {
      this.#wakeLock = await navigator.wakeLock?.request("screen");
    } catch {
      // Low battery, or the page is in the background: the screen may sleep.
    }
  }
}

/**
 * Focus a control; where it is hidden (a notice takes the place of #start) nothing keeps the focus.
 *
 * @param {HTMLElement} control
 * @param {FocusOptions} options
 */
function focus(control, options) {
  control.focus(options);
  const { activeElement } = document;
  if (activeElement !== control && activeElement instanceof HTMLElement) activeElement.blur();
}

/** @param {string} address */
function showAddress(address) {
  if (window.location.pathname !== address) window.history.replaceState(null, "", address);
}
