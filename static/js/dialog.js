// A question in a dialog.
import { closest, find, findAll } from "./dom.js";
import { sayError } from "./page-notice.js";

/**
 * Ask, and resolve with the form once `act` has succeeded, or with null when the person closed the dialog.
 *
 * @param {HTMLDialogElement} dialog
 * @param {{ fill?: (form: HTMLFormElement) => void, act: (form: HTMLFormElement) => Promise<unknown> }} options
 * @returns {Promise<HTMLFormElement | null>}
 */
export function ask(dialog, { fill = () => {}, act }) {
  return new Promise((resolve) => {
    const form = find(dialog, "form", HTMLFormElement);
    const problem = find(dialog, ".form-error");
    const buttons = findAll(form, "button", HTMLButtonElement);
    /** @type {HTMLFormElement | null} */
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
        if (event.target === dialog || closest(event, "[data-close]")) dialog.close();
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
