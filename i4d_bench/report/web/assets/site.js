"use strict";
/* Puts the site's first page together: the table of all reports, whose names lead to them. */

const content = JSON.parse(document.getElementById("content").textContent);
const section = document.querySelector("[data-table]");
new ResultTable(section, content.tables[0], (name) => make("a", { href: `${name}/index.html` }, ...breakable(name)));
