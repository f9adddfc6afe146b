"use strict";
/* Puts a report's page together. */

const content = JSON.parse(document.getElementById("content").textContent);
const provenance = new Provenance(document.getElementById("provenance"), content.runs);
for (const section of document.querySelectorAll("[data-table]")) {
  new ResultTable(section, content.tables[section.dataset.table], (name, mark) => provenance.named(name, mark));
}
if (content.pictures) new Pictures(document.getElementById("pictures"), content.pictures);
if (content.avatars?.length) new Avatars(document.getElementById("avatars"), content.avatars);
tips(document.getElementById("tip"));
