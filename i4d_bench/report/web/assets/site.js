"use strict";
/* Puts the site's first page together: a table of reports for every tier, whose names lead to them. */

const content = JSON.parse(document.getElementById("content").textContent);
for (const section of document.querySelectorAll("[data-table]"))
  new ResultTable(section, content.tables[section.dataset.table], (name) => make("a", { href: `${name}/index.html` }, ...breakable(name)));
