// The pages of what was said: joins players, corrections, exports and deletions to the API.
import { ApiError, call, open } from "./api.js";
import { Notice } from "./notice.js";
import { ExportDownload } from "./export-download.js";
import { TurnPlayer } from "./turn-player.js";
import { say } from "./ui-strings.js";

const element = (id) => document.getElementById(id);
const conversation = element("conversation");
const notice = new Notice({
  element: element("notice"),
  title: element("notice-title"),
  text: element("notice-text"),
  actions: element("notice-actions"),
});

function showProblem(text) {
  notice.show("problem", { text, actions: [{ label: "dismiss", run: () => notice.hide() }] });
}

/** Do something that asks the server, and say what went wrong where a person sees it. */
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

// --- playing ---

class Players {
  #players = [];
  #current = null; // of "play all"
  #visible = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      this.#visible.unobserve(target);
      this.#players.find((player) => player.element === target)?.load();
    }
  });

  constructor(root) {
    this.playAll = element("play-all");
    this.pace = element("pace");
    this.add(root);
    this.playAll?.addEventListener("click", () => this.#toggleAll());
    this.pace?.addEventListener("change", ({ target }) => {
      for (const player of this.#players) player.pace = Number(target.value);
    });
  }

  /** Make players of the places for them in `root`, wherever in the conversation it is. */
  add(root) {
    for (const place of root.querySelectorAll(".player")) {
      const player = new TurnPlayer(place);
      player.pace = Number(this.pace?.value ?? 1);
      player.onstarted = () => this.#begin(player);
      player.onended = (wasWhole) => this.#end(player, wasWhole);
      player.onerror = () => showProblem(say("replay_text"));
      this.#players.push(player);
      this.#visible.observe(place);
    }
    const isBefore = (one, other) => one.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_FOLLOWING;
    this.#players.sort((one, other) => (isBefore(one.element, other.element) ? -1 : 1));
  }

  #begin(player) {
    for (const other of this.#players) if (other !== player) other.stop();
    const turn = player.element.closest(".said");
    turn.classList.add("is-playing");
    if (this.#current) turn.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  #end(player, wasWhole) {
    player.element.closest(".said").classList.remove("is-playing");
    if (this.#current !== player) return;
    this.#current = wasWhole ? this.#findNext(player) : null;
    if (this.#current) this.#current.play();
    else this.#markAll(false);
  }

  /** The next that is still a part of the conversation, of those that are there by now. */
  #findNext(player) {
    const following = this.#players.slice(this.#players.indexOf(player) + 1);
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

  #markAll(isPlaying) {
    this.playAll.setAttribute("aria-pressed", String(isPlaying));
    this.playAll.querySelector("span").textContent = say(isPlaying ? "stopPlaying" : "playAll");
  }
}

// --- turns that are not there yet ---

/** Have a link to more turns put them into this page, at its end of the list. Without scripts it is a link. */
function joinMore(link, players) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    attempt(async () => {
      const answer = await open("GET", link.href);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const turns = [...page.querySelectorAll("#said > .said")];
      if (turns.length === 0) {
        // Another page than was asked for: that of logging in.
        window.location.href = link.href;
        return;
      }
      const list = element("said");
      const isEarlier = link.id === "earlier";
      const edge = isEarlier ? list.firstElementChild : list.lastElementChild;
      const added = document.createDocumentFragment();
      added.append(...turns.filter(({ id }) => !element(id)).map((turn) => document.adoptNode(turn)));
      if (isEarlier) list.prepend(added);
      else list.append(added);
      for (const turn of turns) players.add(turn);
      edge?.scrollIntoView({ block: "center" });
      element("history-status").textContent = say("turnsAdded", { count: turns.length });
      const next = page.getElementById(link.id);
      if (next) link.href = next.href;
      else link.parentElement.remove();
    });
  });
}

// --- correcting ---

function correct(turn) {
  if (turn.querySelector(".correction")) return;
  const form = element("correction").content.firstElementChild.cloneNode(true);
  const text = turn.querySelector(".said-text");
  const edit = turn.querySelector(".said-edit");
  const field = form.elements.namedItem("text");
  const close = () => {
    form.remove();
    text.hidden = edit.hidden = false;
    edit.focus();
  };
  field.value = text.textContent;
  text.hidden = edit.hidden = true;
  turn.querySelector(".said-body").before(form);
  field.focus();
  form.querySelector("[data-cancel]").addEventListener("click", close);
  form.addEventListener("keydown", ({ key }) => key === "Escape" && close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const isAgain = event.submitter?.name === "again";
    await attempt(
      async () => {
        const kept = await call("PATCH", turn.dataset.url, { text: field.value });
        text.textContent = kept.text;
        const heard = turn.querySelector(".said-heard");
        heard.hidden = !kept.heard_text;
        heard.querySelector("span").textContent = kept.heard_text;
        element("history-status").textContent = say("saved");
        close();
        if (isAgain) window.location.href = `${conversation.dataset.callUrl}?answer=${turn.dataset.turnId}`;
      },
      { into: form.querySelector(".form-error") },
    );
  });
}

// --- the conversation as a whole ---

function joinConversation() {
  const { url } = conversation.dataset;
  const form = element("title-form");
  const title = element("conversation-title");
  const closeForm = () => {
    form.hidden = true;
    title.hidden = false;
  };
  element("rename").addEventListener("click", ({ target }) => {
    target.closest("details").open = false;
    form.hidden = false;
    title.hidden = true;
    element("title").select();
  });
  form.querySelector("[data-cancel]").addEventListener("click", closeForm);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(async () => {
      const kept = await call("PATCH", url, { title: element("title").value.trim() });
      title.textContent = kept.title || say("untitled");
      element("title").value = kept.title; // emptied, it is the first words again
      closeForm();
      element("history-status").textContent = say("saved");
    });
  });
  const pin = element("pin");
  pin.addEventListener("click", () =>
    attempt(async () => {
      const isPinned = pin.getAttribute("aria-pressed") !== "true";
      const kept = await call("PATCH", url, { is_pinned: isPinned });
      pin.setAttribute("aria-pressed", String(kept.is_pinned));
      pin.querySelector("span").textContent = say(kept.is_pinned ? "unpin" : "pin");
      element("history-status").textContent = say(kept.is_pinned ? "pinned" : "unpinned");
      pin.closest("details").open = false;
    }),
  );
  conversation.addEventListener("click", ({ target }) => {
    const edit = target.closest(".said-edit");
    if (edit) correct(edit.closest(".said"));
  });
  joinDeletion(element("delete-dialog"), () => call("DELETE", url));
}

function joinDeletion(dialog, remove) {
  dialog.addEventListener("close", () => {
    if (dialog.returnValue !== "yes") return;
    dialog.returnValue = "";
    attempt(async () => {
      await remove();
      window.location.href = element("main").dataset.listUrl;
    });
  });
}

// --- how long it is kept ---

const RETENTION = ["audio_days", "text_days"];

function joinRetention(dialog) {
  const form = dialog.querySelector("form");
  const error = form.querySelector(".form-error");
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    error.hidden = true;
    const body = Object.fromEntries(RETENTION.map((name) => [name, Number(form.elements.namedItem(name).value) || null]));
    attempt(
      async () => {
        await call("PUT", dialog.dataset.url, body);
        dialog.close();
      },
      { into: error },
    );
  });
  return () =>
    attempt(async () => {
      error.hidden = true;
      const { site, ...chosen } = await call("GET", dialog.dataset.url);
      for (const name of RETENTION) showDays(form.elements.namedItem(name), chosen[name], site[name]);
      dialog.showModal();
    });
}

/** Show the person's choice, and what the site does without one. What is longer than the site keeps cannot be chosen. */
function showDays(select, days, siteDays) {
  const [first, ...others] = select.options;
  first.textContent = siteDays ? say("asSite", { days: siteDays }) : say("forGood");
  for (const option of others) option.disabled = Boolean(siteDays) && Number(option.value) > siteDays;
  if (days && !others.some((option) => option.value === String(days))) {
    select.add(new Option(say("days", { days }), String(days)));
  }
  select.value = String(days ?? "");
}

// --- several at once ---

function joinChoice() {
  const { exportUrl, deleteUrl } = element("main").dataset;
  const boxes = [...document.querySelectorAll(".entry-choice input")];
  const actions = [element("chosen-export"), element("chosen-delete")];
  const readChosen = () => boxes.filter((box) => box.checked).map((box) => box.value);
  const show = (isChoosing) => {
    element("main").classList.toggle("is-choosing", isChoosing);
    element("chosen").hidden = !isChoosing;
    if (!isChoosing) for (const box of boxes) box.checked = false;
    count();
  };
  const count = () => {
    const chosen = readChosen().length;
    element("chosen-count").textContent = say("chosen", { count: chosen });
    for (const action of actions) action.disabled = chosen === 0;
  };
  element("choose").addEventListener("click", ({ target }) => {
    target.closest("details").open = false;
    show(true);
    boxes[0].focus();
  });
  element("chosen-cancel").addEventListener("click", () => show(false));
  for (const box of boxes) box.addEventListener("change", count);
  actions[0].addEventListener("click", () =>
    attempt(() => exportDownload.fetch(exportUrl, "avatar.zip", { ids: readChosen() })),
  );
  actions[1].addEventListener("click", () => element("delete-chosen-dialog").showModal());
  joinDeletion(element("delete-chosen-dialog"), () =>
    call("POST", deleteUrl, { ids: readChosen() }),
  );
}

const exportDownload = new ExportDownload({
  element: element("transfer"),
  text: element("transfer-text"),
  progress: element("transfer-progress"),
  cancel: element("transfer-cancel"),
});
for (const dialog of document.querySelectorAll("dialog")) {
  // On the shade around it.
  dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
}
const openRetention = joinRetention(element("retention-dialog"));

document.addEventListener("click", ({ target }) => {
  const exporting = target.closest("[data-export]");
  if (exporting) {
    exporting.closest("details").open = false;
    attempt(() => exportDownload.fetch(exporting.dataset.export, exporting.dataset.name));
  }
  const opening = target.closest("[data-dialog]");
  if (opening) {
    opening.closest("details").open = false;
    if (opening.dataset.dialog === "retention-dialog") openRetention();
    else element(opening.dataset.dialog).showModal();
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(target)) menu.open = false;
});
joinDeletion(element("delete-all-dialog"), () =>
  call("POST", element("main").dataset.deleteUrl, { all: true }),
);
if (element("chosen")) joinChoice();
if (conversation) {
  joinConversation();
  const players = new Players(conversation);
  for (const link of [element("earlier"), element("later")]) if (link) joinMore(link, players);
}
