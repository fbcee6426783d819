// The operators' first page: reads single values out of its charts, and refreshes it while it is looked at.

/** @typedef {{ names: [string, string][], points: string[][] }} Tooltip */

/** What a pointer or the arrow keys have chosen in a plot: the number of a slot. @type {WeakMap<Element, number>} */
const chosen = new WeakMap();

/** @param {Element} plot @returns {Tooltip} */
function readTooltip(plot) {
  return JSON.parse(plot.querySelector("script")?.textContent ?? '{"names":[],"points":[]}');
}

/** @param {Element} plot @returns {HTMLElement[]} */
function findMarks(plot) {
  return [...plot.querySelectorAll(/** @type {"div"} */ (".dash-tip, .dash-cursor"))];
}

/** @param {Element} plot @param {number} number */
function show(plot, number) {
  const { names, points } = readTooltip(plot);
  const slot = Math.min(Math.max(number, 0), points.length - 1);
  const tip = /** @type {HTMLElement | null} */ (plot.querySelector(".dash-tip"));
  const cursor = /** @type {HTMLElement | null} */ (plot.querySelector(".dash-cursor"));
  if (!tip || !cursor || slot < 0) return;
  const isSame = chosen.get(plot) === slot && !tip.hidden;
  if (isSame) return;
  chosen.set(plot, slot);
  const [time, ...labels] = points[slot];
  const title = document.createElement("strong");
  title.textContent = time;
  const rows = labels.flatMap((label, index) => {
    if (label === "—" && labels.some((other) => other !== "—")) return [];
    const row = document.createElement("div");
    const value = document.createElement("b");
    value.textContent = label;
    row.append(names[index][0], value);
    return [row];
  });
  tip.replaceChildren(title, ...rows);
  const percent = (100 * (slot + 0.5)) / points.length;
  cursor.style.left = `${percent}%`;
  // On the side with more room.
  tip.style.left = percent < 50 ? `calc(${percent}% + 10px)` : "";
  tip.style.right = percent < 50 ? "" : `calc(${100 - percent}% + 10px)`;
  for (const mark of [tip, cursor]) mark.hidden = false;
}

/** @param {Element} plot */
function hide(plot) {
  for (const mark of findMarks(plot)) mark.hidden = true;
}

/** @param {Event} event */
function findPlot(event) {
  return event.target instanceof Element ? event.target.closest(".dash-plot") : null;
}

/** @param {PointerEvent} event */
function followPointer(event) {
  const plot = findPlot(event);
  for (const other of document.querySelectorAll(".dash-plot")) if (other !== plot) hide(other);
  if (!plot) return;
  const box = plot.getBoundingClientRect();
  const share = (event.clientX - box.left) / box.width;
  if (share < 0 || share > 1) hide(plot);
  else show(plot, Math.floor(share * readTooltip(plot).points.length));
}

document.addEventListener("pointermove", followPointer);
document.addEventListener("pointerdown", followPointer);
document.documentElement.addEventListener("pointerleave", () => {
  for (const plot of document.querySelectorAll(".dash-plot")) hide(plot);
});
document.addEventListener("focusout", (event) => {
  const plot = findPlot(event);
  if (plot) hide(plot);
});
document.addEventListener("keydown", (event) => {
  const plot = findPlot(event);
  if (!plot) return;
  const last = readTooltip(plot).points.length - 1;
  const now = chosen.get(plot) ?? last + 1;
  /** @type {Record<string, number>} */
  const keys = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last };
  if (event.key === "Escape") hide(plot);
  if (!(event.key in keys)) return;
  event.preventDefault();
  show(plot, keys[event.key]);
});

/** Whether something on the page is being read: a refresh would take it away. @param {Element} dashboard */
function isBeingRead(dashboard) {
  return dashboard.contains(document.activeElement) || dashboard.querySelector(".dash-tip:not([hidden])") !== null;
}

async function refresh() {
  const dashboard = document.getElementById("dashboard");
  if (!dashboard) return;
  if (document.visibilityState === "visible" && !isBeingRead(dashboard)) {
    const fresh = await fetchDashboard();
    if (fresh) dashboard.replaceWith(fresh);
    else document.getElementById("dash-stale")?.removeAttribute("hidden");
  }
  wait();
}

/** Fetch this page again; null if the server is away or the login is over. */
async function fetchDashboard() {
  try {
    const answer = await fetch(location.href, { redirect: "error" });
    if (!answer.ok) return null;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    return page.getElementById("dashboard");
  } catch {
    return null;
  }
}

function wait() {
  const pace = Number(document.getElementById("dashboard")?.dataset.refreshS ?? 60);
  setTimeout(refresh, pace * 1000);
}

wait();
