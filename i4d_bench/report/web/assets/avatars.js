"use strict";
/* Stored avatars in three dimensions, by gsplat.js (WebGL 2), with a slider for every expression that was stored. Nothing runs
   before a reader asks for it. */

const inflated = async (text) => {
  const deflated = new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]);
  return new Response(deflated.stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
};

/** As splats.py has them: how many numbers of each Gaussian, their type at rest, their array in gsplat.js. */
const PARTS = { means: [3, Int16Array, "positions"], scales: [3, Int16Array, "scales"], colors: [4, Uint8Array, "colors"], quats: [4, Int8Array, "rotations"] };

class Avatars {
  /** section: where it goes. avatars: as `avatars.py` writes them. */
  constructor(section, avatars) {
    Object.assign(this, { avatars, weights: [] });
    const names = avatars.map((a, k) => make("option", { value: k }, a.name));
    this.choice = make("select", { "aria-label": "Avatar", onchange: () => this.#show() }, ...names);
    const turn = make("input", { type: "range", min: -180, max: 180, value: 0, oninput: (e) => this.#look(Number(e.target.value)) });
    this.canvas = make("canvas", { width: 640, height: 640, role: "img", hidden: true });
    this.start = make("button", { type: "button", onclick: () => this.#begin() }, "Show in 3D");
    this.sliders = make("div", { class: "controls faces" });
    section.append(make("div", { class: "controls" }, this.choice, this.start, make("label", {}, "turn", turn)), this.sliders,
      make("div", { class: "turntable" }, this.canvas), make("p", { class: "hint" }, "Drag to turn, wheel or pinch to come nearer. A slider at its end shows what the design makes of that expression; between, and with several at once, Gaussians are mixed linearly, which is what blendshape designs do themselves."));
  }

  async #begin() {
    this.canvas.hidden = false;
    this.start.hidden = true;
    this.renderer = new SPLAT.WebGLRenderer(this.canvas);
    this.canvas.style.background = "#808080"; // as the pictures'
    this.scene = new SPLAT.Scene();
    this.camera = new SPLAT.Camera();
    this.#look(0);
    await this.#show();
    const frame = () => {
      this.controls.update();
      if (this.moved && !this.splat.data.detached) this.#mix();
      this.renderer.render(this.scene, this.camera);
      requestAnimationFrame(frame);
    };
    frame();
  }

  async #show() {
    if (!this.renderer) return;
    const showing = (this.showing = Symbol("the newest wins"));
    const avatar = this.avatars[this.choice.value];
    const rest = await Promise.all(Object.entries(PARTS).map(async ([part, [, Type]], p) => Float32Array.from(new Type(await inflated(avatar.rest[part])), (v) => v * avatar.unit[p])));
    const faces = await Promise.all(avatar.faces.map(async (f) => ({ step: f.step, change: new Int8Array(await inflated(f.change)) })));
    if (showing !== this.showing) return;
    Object.assign(this, { rest, faces, weights: faces.map(() => 0) });
    this.sliders.replaceChildren(...avatar.faces.map((f, k) => make("label", {}, f.name,
      make("input", { type: "range", min: 0, max: 1, step: 0.05, value: 0, oninput: (e) => { this.weights[k] = Number(e.target.value); this.moved = true; } }))));
    const n = avatar.count;
    this.splat = new SPLAT.Splat(new SPLAT.SplatData(n, new Float32Array(3 * n), new Float32Array(4 * n), new Float32Array(3 * n), new Uint8Array(4 * n)));
    this.#mix();
    this.scene.reset();
    this.scene.addObject(this.splat);
    this.canvas.setAttribute("aria-label", `${avatar.name}, ${avatar.count.toLocaleString("en")} Gaussians`);
  }

  /** The expression that the sliders say. A worker of gsplat.js has the arrays for a while (`detached`). */
  #mix() {
    this.moved = false;
    const on = this.faces.map((f, k) => ({ ...f, weight: this.weights[k] })).filter((f) => f.weight);
    const count = this.rest[0].length / 3, wide = this.avatars[this.choice.value].width;
    let first = 0;
    Object.values(PARTS).forEach(([width, , array], p) => {
      const out = this.splat.data[array], unit = array === "colors" ? 255 : 1;
      const [low, high] = { scales: [1e-6, 10], colors: [0, 255] }[array] ?? [-Infinity, Infinity];
      for (let c = 0; c < width; c++) {
        for (let i = 0; i < count; i++) {
          let value = this.rest[p][c * count + i];
          for (const f of on) value += f.weight * f.step[p] * f.change[(first + c) * count + i];
          if (array === "scales") value = Math.hypot(value, wide); // as in training's pictures
          out[i * width + c] = Math.min(Math.max(unit * value, low), high);
        }
      }
      first += width;
    });
    this.splat.data.changed = true;
    this.splat.dispatchEvent({ type: "objectChanged", object: this.splat });
  }

  /** From the front, turned by so many degrees. */
  #look(degrees) {
    if (!this.renderer) return;
    this.controls?.dispose();
    this.controls = new SPLAT.OrbitControls(this.camera, this.canvas, (degrees * Math.PI) / 180, 0, 2.5, false, new SPLAT.Vector3());
  }
}
