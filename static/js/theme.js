// The theme, applied before the first paint: a plain script in <head>, so that a dark page never flashes white.
(() => {
  const KEY = "avatar.theme";
  const CHOICES = ["system", "light", "dark"];
  const root = document.documentElement;

  function read() {
    try {
      const choice = localStorage.getItem(KEY) ?? "";
      return CHOICES.includes(choice) ? choice : "system";
    } catch {
      return "system"; // storage may be switched off
    }
  }

  /** @returns {NodeListOf<HTMLElement>} */
  const findSwitches = () => document.querySelectorAll("[data-theme-switch]");
  /** @returns {NodeListOf<HTMLDetailsElement>} */
  const findOpenMenus = () => document.querySelectorAll("details.menu[open]");

  /** @param {string} choice */
  function apply(choice) {
    if (choice === "system") delete root.dataset.theme;
    else root.dataset.theme = choice;
    for (const button of findSwitches()) {
      button.dataset.choice = choice;
      const text = button.dataset[`label${choice[0].toUpperCase()}${choice.slice(1)}`] ?? "";
      button.setAttribute("aria-label", text);
      button.title = text;
      const label = button.querySelector(".theme-label");
      if (label) label.textContent = text;
    }
    root.dispatchEvent(new CustomEvent("themechange"));
  }

  apply(read());
  document.addEventListener("DOMContentLoaded", () => {
    apply(read());
    for (const button of findSwitches()) {
      button.hidden = false;
      button.addEventListener("click", () => {
        const choice = CHOICES[(CHOICES.indexOf(button.dataset.choice ?? "") + 1) % CHOICES.length];
        try {
          localStorage.setItem(KEY, choice);
        } catch {
          // Without storage the choice lasts for this page.
        }
        apply(choice);
      });
    }
    document.addEventListener("click", (event) => {
      for (const menu of findOpenMenus()) {
        if (event.target instanceof Node && !menu.contains(event.target)) menu.open = false;
      }
    });
    document.addEventListener("keydown", (event) => {
      const [menu] = event.key === "Escape" ? findOpenMenus() : [];
      if (menu) {
        menu.open = false;
        menu.querySelector("summary")?.focus();
      }
    });
  });
})();
