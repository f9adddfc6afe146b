"use strict";
/* Where a row comes from, and the command that trains it again: a dialog of its own for every design. */

class Provenance {
  /** dialog: the element. runs: by design, as `runs.py` writes them. */
  constructor(dialog, runs) {
    Object.assign(this, { dialog, runs });
    dialog.addEventListener("click", (e) => { if (e.target === dialog) dialog.close(); }); // beside it
  }

  /** A row's name, which opens the dialog where its runs are known. */
  named(name, mark) {
    const text = [...breakable(name), mark];
    if (!(name in this.runs)) return make("span", {}, ...text);
    return make("button", { type: "button", "aria-haspopup": "dialog", onclick: () => this.open(name) }, ...text);
  }

  open(name) {
    const about = this.runs[name];
    const close = make("button", { class: "close", type: "button", "aria-label": "Close", onclick: () => this.dialog.close() }, "✕");
    this.dialog.replaceChildren(
      close,
      make("h2", { id: "title-provenance" }, shape(about.family), " ", ...breakable(name)),
      make("p", {}, `${about.family} design.`, about.sees.length ? ` Sees ${about.sees.join(" and ")}.` : ""),
      ...about.why.map((line) => make("p", {}, line)),
      make("h3", {}, "Reproduce this row"),
      this.#command(about.command),
      ...about.runs.flatMap((run) => [make("h3", {}, `Seed ${run.seed}`), this.#list(run)]),
      make("details", {}, make("summary", {}, "Whole configuration"), make("pre", { tabindex: "0" }, JSON.stringify({ overrides: about.overrides, ...about.config }, null, 1))),
    );
    this.dialog.showModal();
    this.dialog.scrollTop = 0;
  }

  #command(text) {
    const said = make("button", { type: "button" }, "Copy");
    said.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text);
      said.textContent = "Copied";
    });
    return make("div", { class: "command" }, make("code", {}, text), navigator.clipboard ? said : null);
  }

  #list(run) {
    const { seed, ...rest } = run;
    return make("dl", {}, ...Object.entries(rest).filter(([, v]) => v).flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, v)]));
  }
}
