// One question in a dialog. Resolves with the form when it was answered and `act` has succeeded, with null when not.
import { sayError } from "./page-notice.js";

export function ask(dialog, { fill = () => {}, act }) {
  return new Promise((resolve) => {
    const form = dialog.querySelector("form");
    const problem = dialog.querySelector(".form-error");
    const buttons = [...form.querySelectorAll("button")];
    let answer = null;
    const listeners = new AbortController();
    const { signal } = listeners;
    problem.hidden = true;
    fill(form);

    form.addEventListener(
      "submit",
      async (event) => {
        event.preventDefault();
        for (const button of buttons) button.disabled = true;
        problem.hidden = true;
        try {
          await act(form);
          answer = form;
          dialog.close();
        } catch (error) {
          problem.textContent = sayError(error);
          problem.hidden = false;
        } finally {
          for (const button of buttons) button.disabled = false;
        }
      },
      { signal },
    );
    dialog.addEventListener(
      "click",
      (event) => {
        if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
      },
      { signal },
    );
    dialog.addEventListener(
      "close",
      () => {
        listeners.abort();
        resolve(answer);
      },
      { signal },
    );
    dialog.showModal();
  });
}
