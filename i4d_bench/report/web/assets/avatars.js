"use strict";
/* Stored avatars in three dimensions, by gsplat.js (WebGL 2). Nothing runs before a reader asks for it. */

class Avatars {
  /** section: where it goes. avatars: as `avatars.py` writes them. */
  constructor(section, avatars) {
    const names = avatars.map((a, k) => make("option", { value: k }, a.name));
    this.choice = make("select", { "aria-label": "Avatar", onchange: () => this.#show(avatars[this.choice.value]) }, ...names);
    const turn = make("input", { type: "range", min: -180, max: 180, value: 0, oninput: (e) => this.#look(Number(e.target.value)) });
    this.canvas = make("canvas", { width: 640, height: 640, role: "img", hidden: true });
    this.start = make("button", { type: "button", onclick: () => this.#begin(avatars[this.choice.value]) }, "Show in 3D");
    section.append(make("div", { class: "controls" }, this.choice, this.start, make("label", {}, "turn", turn)),
      make("div", { class: "turntable" }, this.canvas), make("p", { class: "hint" }, "Drag to turn, wheel or pinch to come nearer. One expression: the one that was stored."));
  }

  #begin(avatar) {
    this.canvas.hidden = false;
    this.start.hidden = true;
    this.renderer = new SPLAT.WebGLRenderer(this.canvas);
    this.canvas.style.background = "#808080"; // as the pictures'
    this.scene = new SPLAT.Scene();
    this.camera = new SPLAT.Camera();
    this.#look(0);
    this.#show(avatar);
    const frame = () => {
      this.controls.update();
      this.renderer.render(this.scene, this.camera);
      requestAnimationFrame(frame);
    };
    frame();
  }

  #show(avatar) {
    if (!this.renderer) return;
    const rows = Uint8Array.from(atob(avatar.splats), (c) => c.charCodeAt(0));
    this.scene.reset();
    this.scene.addObject(new SPLAT.Splat(SPLAT.SplatData.Deserialize(rows)));
    this.canvas.setAttribute("aria-label", `${avatar.name}, ${(rows.length / 32).toLocaleString("en")} Gaussians`);
  }

  /** From the front, turned by so many degrees. */
  #look(degrees) {
    if (!this.renderer) return;
    this.controls?.dispose();
    this.controls = new SPLAT.OrbitControls(this.camera, this.canvas, (degrees * Math.PI) / 180, 0, 2.5, false, new SPLAT.Vector3());
  }
}
