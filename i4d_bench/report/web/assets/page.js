"use strict";
/* Puts a report's page together. */

const content = JSON.parse(document.getElementById("content").textContent);
const provenance = new Provenance(document.getElementById("provenance"), content.runs);
for (const section of document.querySelectorAll("[data-table]")) {
  new ResultTable(section, content.tables[section.dataset.table], (name, mark) => provenance.named(name, mark));
}
if (content.pictures) new Pictures(document.getElementById("pictures"), content.pictures);
if (content.avatars?.length) new Avatars(document.getElementById("avatars"), content.avatars);
const clips = [...document.querySelectorAll("#clips video")];
document.querySelector("#clips .controls button")?.addEventListener("click", (e) => {
  const still = clips.every((c) => c.paused);
  e.target.textContent = still ? "Stop all" : "Play all in step";
  for (const clip of clips) {
    if (still) clip.currentTime = 0;
    still ? clip.play() : clip.pause();
  }
});
tips(document.getElementById("tip"));
