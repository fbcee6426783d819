// The pages of the history: connects players, corrections, exports and deletions to the API.
import { ApiError, call, open } from "./api.js";
import { byId, byIdOrNull, cloneTemplate, closest, find, findAll } from "./dom.js";
import { ExportDownload } from "./export-download.js";
import { Notice } from "./notice.js";
import { TurnPlayer } from "./turn-player.js";
import { say } from "./ui-strings.js";

const conversation = byIdOrNull("conversation"); // missing on the list
const notice = new Notice({
  element: byId("notice"),
  title: byId("notice-title"),
  text: byId("notice-text"),
  actions: byId("notice-actions"),
});

/** @param {string} text */
function showProblem(text) {
  notice.show("problem", { text, actions: [{ label: "dismiss", run: () => notice.hide() }] });
}

/**
 * Run something that calls the API, and show what went wrong: in `into`, or else in the notice.
 *
 * @param {() => Promise<unknown>} work
 * @param {{ into?: HTMLElement | null }} [options]
 */
async function attempt(work, { into = null } = {}) {
  try {
    await work();
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const sentence = error.message || say(`${error.code}_text`);
    if (into) {
      into.textContent = sentence;
      into.hidden = false;
    } else showProblem(sentence);
    return false;
  }
}

class Players {
  /** @type {TurnPlayer[]} */
  #players = [];
  /** The one that "play all" plays. @type {TurnPlayer | null} */
  #current = null;
  #visible = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      this.#visible.unobserve(target);
      this.#players.find((player) => player.element === target)?.load();
    }
  });

  /** @param {HTMLElement} root */
  constructor(root) {
    const pace = byIdOrNull("pace", HTMLSelectElement);
    this.playAll = byIdOrNull("play-all");
    this.pace = pace;
    this.add(root);
    this.playAll?.addEventListener("click", () => this.#toggleAll());
    pace?.addEventListener("change", () => {
      for (const player of this.#players) player.pace = Number(pace.value);
    });
  }

  /** Add the players in `root`, a part of the conversation. @param {HTMLElement} root */
  add(root) {
    for (const place of findAll(root, ".player")) {
      const player = new TurnPlayer(place);
      player.pace = Number(this.pace?.value ?? 1);
      player.onstarted = () => this.#begin(player);
      player.onended = (wasWhole) => this.#end(player, wasWhole);
      player.onerror = () => showProblem(say("replay_text"));
      this.#players.push(player);
      this.#visible.observe(place);
    }
    const isBefore = (/** @type {Node} */ one, /** @type {Node} */ other) =>
      one.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_FOLLOWING;
    this.#players.sort((one, other) => (isBefore(one.element, other.element) ? -1 : 1));
  }

  /** @param {TurnPlayer} player */
  #begin(player) {
    for (const other of this.#players) if (other !== player) other.stop();
    const turn = player.element.closest(".said");
    turn?.classList.add("is-playing");
    if (this.#current) turn?.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  /** @param {TurnPlayer} player @param {boolean} wasWhole */
  #end(player, wasWhole) {
    player.element.closest(".said")?.classList.remove("is-playing");
    if (this.#current !== player) return;
    this.#current = wasWhole ? this.#findNext(player) : null;
    if (this.#current) this.#current.play();
    else this.#markAll(false);
  }

  /** Return the next loaded player whose turn is part of the conversation; the first one after null. @param {TurnPlayer | null} player */
  #findNext(player) {
    const following = player ? this.#players.slice(this.#players.indexOf(player) + 1) : this.#players;
    return following.find(({ element }) => !element.closest(".is-superseded")) ?? null;
  }

  #toggleAll() {
    if (this.#current) {
      this.#current.stop();
      return;
    }
    this.#current = this.#findNext(null);
    if (!this.#current) return;
    for (const player of this.#players) player.rewind();
    this.#markAll(true);
    this.#current.play();
  }

  /** @param {boolean} isPlaying */
  #markAll(isPlaying) {
    if (!this.playAll) return;
    this.playAll.setAttribute("aria-pressed", String(isPlaying));
    find(this.playAll, "span").textContent = say(isPlaying ? "stopPlaying" : "playAll");
  }
}

/** Let a link to more turns add them to this page, at its end of the list. @param {HTMLAnchorElement} link @param {Players} players */
function joinMore(link, players) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    attempt(async () => {
      const answer = await open("GET", link.href);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const turns = findAll(page, "#said > .said");
      if (turns.length === 0) {
        // The page of logging in came instead.
        window.location.href = link.href;
        return;
      }
      const list = byId("said");
      const isEarlier = link.id === "earlier";
      const edge = isEarlier ? list.firstElementChild : list.lastElementChild;
      const added = document.createDocumentFragment();
      added.append(...turns.filter(({ id }) => !byIdOrNull(id)).map((turn) => document.adoptNode(turn)));
      if (isEarlier) list.prepend(added);
      else list.append(added);
      for (const turn of turns) players.add(turn);
      edge?.scrollIntoView({ block: "center" });
      byId("history-status").textContent = say("turnsAdded", { count: turns.length });
      const next = page.getElementById(link.id);
      if (next instanceof HTMLAnchorElement) link.href = next.href;
      else link.parentElement?.remove();
    });
  });
}

/** @param {HTMLElement} turn */
function correct(turn) {
  if (turn.querySelector(".correction")) return;
  const form = cloneTemplate(byId("correction", HTMLTemplateElement));
  const text = find(turn, ".said-text");
  const edit = find(turn, ".said-edit");
  const field = find(form, "textarea", HTMLTextAreaElement);
  const close = () => {
    form.remove();
    text.hidden = edit.hidden = false;
    edit.focus();
  };
  field.value = text.textContent ?? "";
  text.hidden = edit.hidden = true;
  find(turn, ".said-body").before(form);
  field.focus();
  find(form, "[data-cancel]").addEventListener("click", close);
  form.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") close();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const isAgain = event.submitter?.getAttribute("name") === "again";
    await attempt(
      async () => {
        const kept = await call("PATCH", turn.dataset.url ?? "", { text: field.value });
        text.textContent = kept.text;
        const heard = find(turn, ".said-heard");
        heard.hidden = !kept.heard_text;
        find(heard, "span").textContent = kept.heard_text;
        byId("history-status").textContent = say("saved");
        close();
        if (isAgain) window.location.href = `${conversation?.dataset.callUrl}?answer=${turn.dataset.turnId}`;
      },
      { into: find(form, ".form-error") },
    );
  });
}

/** @param {HTMLElement} conversation */
function joinConversation(conversation) {
  const url = conversation.dataset.url ?? "";
  const field = byId("title", HTMLInputElement);
  const form = byId("title-form");
  const title = byId("conversation-title");
  const closeForm = () => {
    form.hidden = true;
    title.hidden = false;
  };
  byId("rename").addEventListener("click", (event) => {
    closeMenu(event);
    form.hidden = false;
    title.hidden = true;
    field.select();
  });
  find(form, "[data-cancel]").addEventListener("click", closeForm);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(async () => {
      const kept = await call("PATCH", url, { title: field.value.trim() });
      title.textContent = kept.title || say("untitled");
      field.value = kept.title; // emptied, it is the first words again
      closeForm();
      byId("history-status").textContent = say("saved");
    });
  });
  const pin = byId("pin");
  pin.addEventListener("click", (event) =>
    attempt(async () => {
      const isPinned = pin.getAttribute("aria-pressed") !== "true";
      const kept = await call("PATCH", url, { is_pinned: isPinned });
      pin.setAttribute("aria-pressed", String(kept.is_pinned));
      find(pin, "span").textContent = say(kept.is_pinned ? "unpin" : "pin");
      byId("history-status").textContent = say(kept.is_pinned ? "pinned" : "unpinned");
      closeMenu(event);
    }),
  );
  conversation.addEventListener("click", (event) => {
    const turn = closest(event, ".said");
    if (turn && closest(event, ".said-edit")) correct(turn);
  });
  joinDeletion(byId("delete-dialog", HTMLDialogElement), () => call("DELETE", url));
}

/** Close the menu that holds what was pressed. @param {Event} event */
function closeMenu(event) {
  const menu = closest(event, "details", HTMLDetailsElement);
  if (menu) menu.open = false;
}

/** @param {HTMLDialogElement} dialog @param {() => Promise<unknown>} remove */
function joinDeletion(dialog, remove) {
  dialog.addEventListener("close", () => {
    if (dialog.returnValue !== "yes") return;
    dialog.returnValue = "";
    attempt(async () => {
      await remove();
      window.location.href = byId("main").dataset.listUrl ?? "/";
    });
  });
}

const RETENTION = ["audio_days", "text_days"];

/** Returns a function that opens the dialog. @param {HTMLDialogElement} dialog */
function joinRetention(dialog) {
  const form = find(dialog, "form", HTMLFormElement);
  const error = find(form, ".form-error");
  const url = dialog.dataset.url ?? "";
  const findSelect = (/** @type {string} */ name) => find(form, `[name="${name}"]`, HTMLSelectElement);
  find(dialog, "[data-close]").addEventListener("click", () => dialog.close());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    error.hidden = true;
    const body = Object.fromEntries(RETENTION.map((name) => [name, Number(findSelect(name).value) || null]));
    attempt(
      async () => {
        await call("PUT", url, body);
        dialog.close();
      },
      { into: error },
    );
  });
  return () =>
    attempt(async () => {
      error.hidden = true;
      const { site, ...chosen } = await call("GET", url);
      for (const name of RETENTION) showDays(findSelect(name), chosen[name], site[name]);
      dialog.showModal();
    });
}

/**
 * Show the person's choice, and what the site does without one. What is longer than the site's own cannot be chosen.
 *
 * @param {HTMLSelectElement} select
 * @param {number | null} days
 * @param {number | null} siteDays
 */
function showDays(select, days, siteDays) {
  const [first, ...others] = select.options;
  first.textContent = siteDays ? say("asSite", { days: siteDays }) : say("forGood");
  for (const option of others) option.disabled = siteDays !== null && siteDays > 0 && Number(option.value) > siteDays;
  if (days && !others.some((option) => option.value === String(days))) {
    select.add(new Option(say("days", { days }), String(days)));
  }
  select.value = String(days ?? "");
}

function joinChoice() {
  const { exportUrl = "", deleteUrl = "" } = byId("main").dataset;
  const boxes = findAll(document, ".entry-choice input", HTMLInputElement);
  const dialog = byId("delete-chosen-dialog", HTMLDialogElement);
  const exportButton = byId("chosen-export", HTMLButtonElement);
  const deleteButton = byId("chosen-delete", HTMLButtonElement);
  const readChosen = () => boxes.filter((box) => box.checked).map((box) => box.value);
  const show = (/** @type {boolean} */ isChoosing) => {
    byId("main").classList.toggle("is-choosing", isChoosing);
    byId("chosen").hidden = !isChoosing;
    if (!isChoosing) for (const box of boxes) box.checked = false;
    count();
  };
  const count = () => {
    const chosen = readChosen().length;
    byId("chosen-count").textContent = say("chosen", { count: chosen });
    exportButton.disabled = deleteButton.disabled = chosen === 0;
  };
  byId("choose").addEventListener("click", (event) => {
    closeMenu(event);
    show(true);
    boxes[0].focus();
  });
  byId("chosen-cancel").addEventListener("click", () => show(false));
  for (const box of boxes) box.addEventListener("change", count);
  exportButton.addEventListener("click", () =>
    attempt(() => exportDownload.fetch(exportUrl, "avatar.zip", { ids: readChosen() })),
  );
  deleteButton.addEventListener("click", () => dialog.showModal());
  joinDeletion(dialog, () => call("POST", deleteUrl, { ids: readChosen() }));
}

const exportDownload = new ExportDownload({
  element: byId("transfer"),
  text: byId("transfer-text"),
  progress: byId("transfer-progress", HTMLProgressElement),
  cancel: byId("transfer-cancel"),
});
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", ({ target }) => {
    if (target === dialog) dialog.close(); // the backdrop
  });
}
const openRetention = joinRetention(byId("retention-dialog", HTMLDialogElement));

document.addEventListener("click", (event) => {
  const exporting = closest(event, "[data-export]");
  if (exporting) {
    const { export: url = "", name = "" } = exporting.dataset;
    closeMenu(event);
    attempt(() => exportDownload.fetch(url, name));
  }
  const opening = closest(event, "[data-dialog]");
  if (opening) {
    const { dialog = "" } = opening.dataset;
    closeMenu(event);
    if (dialog === "retention-dialog") openRetention();
    else byId(dialog, HTMLDialogElement).showModal();
  }
  for (const menu of findAll(document, "details.menu[open]", HTMLDetailsElement)) {
    if (event.target instanceof Node && !menu.contains(event.target)) menu.open = false;
  }
});
joinDeletion(byId("delete-all-dialog", HTMLDialogElement), () =>
  call("POST", byId("main").dataset.deleteUrl ?? "", { all: true }),
);
if (byIdOrNull("chosen")) joinChoice();
if (conversation) {
  joinConversation(conversation);
  const players = new Players(conversation);
  for (const id of ["earlier", "later"]) {
    const link = byIdOrNull(id, HTMLAnchorElement);
    if (link) joinMore(link, players);
  }
}
