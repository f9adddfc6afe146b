"use strict";
/* The viewer: one sample, seen as source, driver, truth and by every design; flipped, enlarged, or as the error to the truth. */

const INFERNO = ["#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4"];
const LUT = Array.from({ length: 256 }, (_, v) => {
  const at = (v / 255) * (INFERNO.length - 1), k = Math.min(Math.floor(at), INFERNO.length - 2);
  const channel = (hex, c) => parseInt(hex.slice(1 + 2 * c, 3 + 2 * c), 16);
  return [0, 1, 2].map((c) => Math.round(channel(INFERNO[k], c) * (k + 1 - at) + channel(INFERNO[k + 1], c) * (at - k)));
});
const SHARED = ["source", "driver", "truth"];

class Pictures {
  /** section: where it goes. pictures: as `pictures.py` writes them. */
  constructor(section, pictures) {
    Object.assign(this, { section, p: pictures, sample: 0, chosen: pictures.designs[0].name, errors: false, scale: 0.25, zoom: 1 });
    this.seeds = [...new Set(pictures.designs.map((d) => d.seed))];
    this.seed = this.seeds[0];
    this.sheets = new Map(); // by data URL: decoded once
    this.#build();
    this.draw();
  }

  /** What the strip shows: the shared pictures, then every design of this seed. */
  views() {
    const own = this.p.designs.filter((d) => d.seed === this.seed), shared = this.p.shared[own[0].data];
    const first = SHARED.filter((name) => name in shared).map((name) => ({ name, family: "", sheet: shared[name] }));
    return [...first, ...own.map((d) => ({ ...d, truth: this.p.shared[d.data].truth }))];
  }

  #build() {
    const range = (max, step, value, label, set) => make("label", {}, label, make("input", { type: "range", min: 1, max, step, value, oninput: (e) => set(Number(e.target.value)) }));
    const press = (text, title, set) => make("button", { type: "button", "aria-pressed": "false", title, onclick: set }, text);
    const step = (by) => () => { this.sample = (this.sample + by + this.p.count) % this.p.count; this.draw(); };
    this.which = make("span", {});
    const controls = make("div", { class: "controls" },
      make("button", { type: "button", "aria-label": "Previous sample", onclick: step(-1) }, "‹"), this.which,
      make("button", { type: "button", "aria-label": "Next sample", onclick: step(1) }, "›"));
    if (this.seeds.length > 1) {
      const choose = (e) => { this.seed = Number(e.target.value); this.draw(); };
      controls.append(make("select", { "aria-label": "Seed", onchange: choose }, ...this.seeds.map((s) => make("option", { value: s }, `seed ${s}`))));
    }
    this.errorButton = press("Error map", "mean absolute difference to the truth over red, green and blue", () => { this.errors = !this.errors; this.draw(); });
    this.flipButton = press("Hold to see the truth", "or hold T", null);
    const flip = (on) => () => { this.flipped = on; this.draw(); };
    this.flipButton.addEventListener("pointerdown", flip(true));
    for (const end of ["pointerup", "pointerleave", "pointercancel"]) this.flipButton.addEventListener(end, flip(false));
    const pressed = (on) => (e) => { if (e.key === " " || e.key === "Enter") flip(on)(); };
    this.flipButton.addEventListener("keydown", pressed(true));
    this.flipButton.addEventListener("keyup", pressed(false));
    this.flipButton.addEventListener("blur", flip(false));
    controls.append(this.errorButton, this.flipButton, range(8, 0.5, 1, "zoom", (z) => this.#enlarge(z)));
    this.canvas = make("canvas", { width: this.p.width, height: this.p.height, role: "img", "aria-label": this.chosen });
    this.stage = make("div", { class: "stage", tabindex: "0", "aria-label": "Picture; left and right arrows flip, up and down change the sample" }, this.canvas);
    this.stage.style.aspectRatio = `${this.p.width} / ${this.p.height}`;
    this.caption = make("p", { class: "caption", role: "status" });
    this.bar = make("div", { class: "scale" }, "0", make("i", { style: `background: linear-gradient(90deg, ${INFERNO.join(",")})`, "aria-hidden": "true" }), String(this.scale));
    this.strip = make("div", { class: "strip" });
    const hint = make("p", { class: "hint" }, "In the picture: ", make("kbd", {}, "←"), " ", make("kbd", {}, "→"), " flip, ", make("kbd", {}, "↑"), " ", make("kbd", {}, "↓"), " sample, ",
      make("kbd", {}, "T"), " truth, ", make("kbd", {}, "E"), " error map. Cross-reenactment; the source wears the driver's expression.");
    this.section.append(controls, make("div", { class: "viewer" }, make("div", {}, this.stage, this.caption, this.bar, hint), this.strip));
    this.stage.addEventListener("keydown", (e) => this.#key(e));
    this.stage.addEventListener("keyup", (e) => { if (e.key.toLowerCase() === "t") flip(false)(); });
  }

  #key(e) {
    const names = this.views().map((v) => v.name), at = names.indexOf(this.chosen), key = e.key.toLowerCase();
    const turn = { arrowleft: -1, arrowright: 1 }[key], step = { arrowup: -1, arrowdown: 1 }[key];
    if (this.zoom > 1 && (turn || step) && !e.shiftKey && step) return; // arrows scroll what is enlarged
    if (turn) this.chosen = names[(at + turn + names.length) % names.length];
    else if (step) this.sample = (this.sample + step + this.p.count) % this.p.count;
    else if (key === "e") this.errors = !this.errors;
    else if (key === "t") this.flipped = true;
    else return;
    e.preventDefault();
    this.draw();
  }

  /** The middle of what is seen stays in the middle. */
  #enlarge(zoom) {
    const s = this.stage, x = (s.scrollLeft + s.clientWidth / 2) / this.zoom, y = (s.scrollTop + s.clientHeight / 2) / this.zoom;
    this.zoom = zoom;
    this.canvas.style.width = `${100 * zoom}%`;
    s.scrollTo({ left: x * zoom - s.clientWidth / 2, top: y * zoom - s.clientHeight / 2, behavior: "instant" });
  }

  async #pixels(sheet) {
    if (!this.sheets.has(sheet)) {
      const image = new Image();
      image.src = sheet;
      this.sheets.set(sheet, image.decode().then(() => image));
    }
    const { width, height } = this.p, canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(await this.sheets.get(sheet), -this.sample * width, 0);
    return context.getImageData(0, 0, width, height);
  }

  /** Of what a view shows: its pixels, or their error to the truth; and the mean of that. */
  async picture(view) {
    const own = await this.#pixels(view.sheet);
    if (!view.truth) return { data: own };
    const true_ = await this.#pixels(view.truth), a = own.data, b = true_.data;
    let sum = 0;
    const map = new ImageData(own.width, own.height);
    for (let i = 0; i < a.length; i += 4) {
      const error = (Math.abs(a[i] - b[i]) + Math.abs(a[i + 1] - b[i + 1]) + Math.abs(a[i + 2] - b[i + 2])) / 765;
      sum += error;
      map.data.set([...LUT[Math.min(255, Math.round((255 * error) / this.scale))], 255], i);
    }
    return { data: this.errors ? map : own, error: (4 * sum) / a.length };
  }

  async draw() {
    const drawing = (this.drawing = Symbol("the newest wins"));
    const views = this.views(), truth = views.find((v) => v.name === "truth");
    if (!views.some((v) => v.name === this.chosen)) this.chosen = views.find((v) => !SHARED.includes(v.name)).name; // this seed has it not
    const drawn = await Promise.all(views.map((v) => this.picture(v)));
    if (drawing !== this.drawing) return;
    const shown = this.flipped && truth ? truth : views.find((v) => v.name === this.chosen);
    const picture = drawn[views.indexOf(shown)];
    this.canvas.getContext("2d").putImageData(picture.data, 0, 0);
    this.which.textContent = `sample ${this.sample + 1} of ${this.p.count}`;
    this.canvas.setAttribute("aria-label", `${shown.name}, sample ${this.sample + 1}`);
    const error = picture.error == null ? "" : `mean |error| ${picture.error.toFixed(4)}`;
    this.caption.replaceChildren(make("span", {}, shape(shown.family), " ", shown.name), make("span", {}, error));
    this.bar.style.visibility = this.errors ? "visible" : "hidden";
    this.errorButton.setAttribute("aria-pressed", String(this.errors));
    this.errorButton.disabled = this.flipButton.disabled = !truth;
    this.flipButton.setAttribute("aria-pressed", String(Boolean(this.flipped)));
    this.#drawStrip(views, drawn);
  }

  #drawStrip(views, drawn) {
    const names = views.map((v) => v.name).join(" ");
    if (this.strip.dataset.names !== names) { // seeds may have different designs
      this.strip.dataset.names = names;
      this.strip.replaceChildren(...views.map((v) => make("button", { type: "button", onclick: () => { this.chosen = v.name; this.draw(); } },
        make("canvas", { width: this.p.width, height: this.p.height, "aria-hidden": "true" }), make("span", {}, shape(v.family), make("b", { style: "font-weight: 500" }, ...breakable(v.name))))));
    }
    views.forEach((v, k) => {
      const button = this.strip.children[k];
      button.setAttribute("aria-pressed", String(v.name === this.chosen));
      button.querySelector("canvas").getContext("2d").putImageData(drawn[k].data, 0, 0);
    });
  }
}
