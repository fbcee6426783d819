// The avatar on a canvas, animated by the state of the call and by the level of the speaker.

const TWO_PI = 2 * Math.PI;
const LAYERS = 4;
const POINTS = 72;

/**
 * `energy` is the height of the waves, `turn` their pace, `size` the radius, `glow` the light around.
 *
 * @typedef {{ energy: number, turn: number, size: number, glow: number, orbit: number, ripple: number }} Mood
 * @type {Readonly<Record<string, Mood>>}
 */
const MOODS = {
  resting: { energy: 0.02, turn: 0.1, size: 0.6, glow: 0.35, orbit: 0, ripple: 0 },
  listening: { energy: 0.025, turn: 0.16, size: 0.62, glow: 0.5, orbit: 0, ripple: 1 },
  hearing: { energy: 0.045, turn: 0.3, size: 0.6, glow: 0.65, orbit: 0, ripple: 1 },
  thinking: { energy: 0.035, turn: 0.75, size: 0.5, glow: 0.45, orbit: 1, ripple: 0 },
  speaking: { energy: 0.06, turn: 0.45, size: 0.64, glow: 0.9, orbit: 0, ripple: 0 },
  troubled: { energy: 0.012, turn: 0.05, size: 0.52, glow: 0.12, orbit: 0, ripple: 0 },
};

const approach = (/** @type {number} */ from, /** @type {number} */ to, /** @type {number} */ share) =>
  from + (to - from) * share;

export class AvatarVisualizer {
  #mood = { ...MOODS.resting };
  #target = MOODS.resting;
  #level = 0;
  #wantedLevel = 0;
  #time = 0;
  #lastFrameAt = 0;
  /** @type {{ age: number, strength: number }[]} */
  #ripples = [];
  #sinceRipple = 0;
  #request = 0;
  #reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")); // null only where another context was requested before
    this.glow = "";
    this.isDark = false;
    this.#readColours();
    new ResizeObserver(() => this.#resize()).observe(canvas);
    document.documentElement.addEventListener("themechange", () => this.#readColours());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#readColours());
    this.#reducedMotion.addEventListener("change", () => this.#schedule());
    document.addEventListener("visibilitychange", () => this.#schedule());
    this.#resize();
    this.#schedule();
  }

  /** @param {string} mood */
  show(mood) {
    this.#target = MOODS[mood] ?? MOODS.resting;
    this.#schedule();
  }

  /** @param {number} level 0 to 1, of the person or of the reply */
  setLevel(level) {
    this.#wantedLevel = level;
  }

  #readColours() {
    const style = getComputedStyle(this.canvas);
    this.glow = style.getPropertyValue("--glow").trim().split(/\s+/).join(",");
    this.isDark = style.colorScheme.includes("dark");
    this.#schedule();
  }

  #resize() {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const side = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
    if (this.canvas.width !== side) {
      this.canvas.width = side;
      this.canvas.height = side;
    }
    this.#schedule();
  }

  #schedule() {
    if (this.#request || document.hidden) return;
    this.#request = requestAnimationFrame((now) => {
      this.#request = 0;
      this.#step(Math.min(0.05, (now - this.#lastFrameAt) / 1000));
      this.#lastFrameAt = now;
      this.#draw();
      if (!this.#reducedMotion.matches) this.#schedule();
    });
  }

  /** @param {number} elapsed seconds since the last frame */
  #step(elapsed) {
    const still = this.#reducedMotion.matches;
    const share = still ? 1 : 1 - Math.exp(-elapsed * 5);
    for (const key of /** @type {(keyof Mood)[]} */ (Object.keys(this.#mood)))
      this.#mood[key] = approach(this.#mood[key], this.#target[key], share);
    if (still) return;
    // Fast to rise and slow to fall, as a VU meter.
    const pace = this.#wantedLevel > this.#level ? 22 : 7;
    this.#level = approach(this.#level, this.#wantedLevel, 1 - Math.exp(-elapsed * pace));
    this.#time += elapsed * (this.#mood.turn + this.#level * 0.5);
    this.#sinceRipple += elapsed;
    if (this.#mood.ripple > 0.5 && this.#level > 0.3 && this.#sinceRipple > 0.34) {
      this.#ripples.push({ age: 0, strength: this.#level });
      this.#sinceRipple = 0;
    }
    for (const ripple of this.#ripples) ripple.age += elapsed / 1.5;
    this.#ripples = this.#ripples.filter((ripple) => ripple.age < 1);
  }

  #draw() {
    const { context } = this;
    const side = this.canvas.width;
    const centre = side / 2;
    const mood = this.#mood;
    const breath = Math.sin(this.#time * 6) * 0.014;
    const radius = centre * (mood.size + breath + this.#level * 0.1);
    context.clearRect(0, 0, side, side);

    const halo = context.createRadialGradient(centre, centre, radius * 0.5, centre, centre, centre);
    halo.addColorStop(0, `rgba(${this.glow},${(this.isDark ? 0.3 : 0.22) * mood.glow * (1 + this.#level)})`);
    halo.addColorStop(1, `rgba(${this.glow},0)`);
    context.fillStyle = halo;
    context.fillRect(0, 0, side, side);

    for (const ripple of this.#ripples) {
      context.beginPath();
      context.arc(centre, centre, approach(radius, centre * 0.99, ripple.age), 0, TWO_PI);
      context.strokeStyle = `rgba(${this.glow},${(1 - ripple.age) * 0.5 * ripple.strength})`;
      context.lineWidth = side * 0.005;
      context.stroke();
    }

    for (let layer = 0; layer < LAYERS; layer += 1) this.#drawLayer(layer, centre, radius);
    this.#drawCore(centre, radius);
    if (mood.orbit > 0.02) this.#drawOrbit(centre, radius, mood.orbit);
  }

  /** @param {number} layer @param {number} centre @param {number} radius */
  #drawLayer(layer, centre, radius) {
    const { context } = this;
    const height = radius * (this.#mood.energy + this.#level * 0.13) * (1 - layer * 0.12);
    const base = radius * (1 - layer * 0.085);
    const direction = layer % 2 === 0 ? 1 : -1;
    const spin = this.#time * (1 + layer * 0.27) * direction;
    context.beginPath();
    for (let point = 0; point <= POINTS; point += 1) {
      const angle = (point / POINTS) * TWO_PI;
      const wave =
        Math.sin(angle * 2 + spin * 3 + layer) * 0.5 +
        Math.sin(angle * 3 - spin * 4.1 + layer * 2.1) * 0.32 +
        Math.sin(angle * 5 + spin * 2.3 + layer * 0.7) * 0.18;
      const distance = base + wave * height;
      context.lineTo(centre + Math.cos(angle) * distance, centre + Math.sin(angle) * distance);
    }
    context.closePath();
    context.fillStyle = `rgba(${this.glow},${(this.isDark ? 0.13 : 0.12) + layer * 0.035})`;
    context.fill();
  }

  /** @param {number} centre @param {number} radius */
  #drawCore(centre, radius) {
    const { context } = this;
    const core = radius * 0.66;
    const light = context.createRadialGradient(
      centre - core * 0.35,
      centre - core * 0.45,
      core * 0.05,
      centre,
      centre,
      core * 1.12,
    );
    const strength = 0.55 + 0.45 * Math.min(1, this.#mood.glow + this.#level * 0.4);
    if (this.isDark) {
      light.addColorStop(0, `rgba(226,255,247,${0.95 * strength})`);
      light.addColorStop(0.45, `rgba(${this.glow},${0.85 * strength})`);
    } else {
      light.addColorStop(0, `rgba(176,236,221,${0.98 * strength})`);
      light.addColorStop(0.5, `rgba(38,158,136,${0.9 * strength})`);
    }
    light.addColorStop(1, `rgba(${this.glow},0)`);
    context.fillStyle = light;
    context.beginPath();
    context.arc(centre, centre, core * 1.12, 0, TWO_PI);
    context.fill();
  }

  /** @param {number} centre @param {number} radius @param {number} strength */
  #drawOrbit(centre, radius, strength) {
    const { context } = this;
    context.lineCap = "round";
    context.lineWidth = this.canvas.width * 0.009;
    for (let arc = 0; arc < 3; arc += 1) {
      const start = this.#time * 2.4 + (arc * TWO_PI) / 3;
      context.beginPath();
      context.arc(centre, centre, radius * 1.34, start, start + 0.5 + 0.35 * Math.sin(this.#time * 3 + arc));
      context.strokeStyle = `rgba(${this.glow},${strength * 0.8})`;
      context.stroke();
    }
  }
}
