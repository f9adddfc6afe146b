"use strict";
/* One table: sorted, filtered, its columns chosen. TanStack Table keeps that state; this file draws it. Blocks are never mixed:
   whatever a reader sorts by, rows stand with their block, and ranks count within it. */

/** An element with attributes and children; a null child is left out. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((c) => c != null));
  return element;
}

/** A name that may break after its underscores, hyphens and slashes, and before its settings. */
function breakable(name) {
  const parts = name.split(/(?<=[_/-])|(?=@)/);
  return parts.flatMap((part, k) => (k ? [make("wbr"), part] : [part]));
}

const shape = (family) => (family ? make("i", { class: `family ${family}`, "aria-hidden": "true" }) : make("i", { hidden: true }));

/** A number in a column's digits. */
const written = (value, column) => (column.digits ? value.toFixed(column.digits) : Math.round(value).toLocaleString("en")).replace("-", "−");

function bounds(cell, column) {
  return cell && cell.lo != null ? `${written(cell.lo, column)} to ${written(cell.hi, column)}` : "";
}

/** What a cell says beyond its number: the interval, samples and failures. */
function about(cell, column) {
  const lines = [];
  if (cell.lo != null) lines.push(`${cell.between ?? "95% interval"}: ${bounds(cell, column)}`);
  if (cell.n != null) lines.push(`${cell.n} samples${cell.failures ? `, ${cell.failures} failed (${column.failed})` : ""}`);
  if (cell.best) lines.push("best of its block, or not told apart from it");
  return lines.join("\n");
}

class ResultTable {
  /** section: where it goes. table: as `table.py` writes it. named: makes the element that shows a row's name. */
  constructor(section, table, named) {
    Object.assign(this, { section, table, named, intervals: false });
    this.blocks = Object.keys(table.blocks);
    const first = Object.fromEntries(table.columns.map((c, k) => [`c${k}`, c.shown]));
    const wanted = table.columns.flatMap((c, k) => (c.wanted ? [{ id: `c${k}`, value: c.wanted }] : []));
    this.first = { ...first, block: false };
    this.state = { sorting: [], columnFilters: wanted, globalFilter: "", columnVisibility: { ...this.first } };
    this.core = this.#core();
    this.#controls();
    this.body = make("table");
    this.scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": table.title }, this.body);
    this.section.append(this.scroll, ...this.#under());
    this.#drawHead();
    this.#drawRows();
    this.#edge();
  }

  /** Says by a class whether there are columns beyond the right edge. */
  #edge() {
    const s = this.scroll, look = () => s.classList.toggle("more", s.scrollLeft + s.clientWidth < s.scrollWidth - 1);
    s.addEventListener("scroll", look, { passive: true });
    const sizes = new ResizeObserver(look);
    for (const sized of [s, this.body]) sizes.observe(sized);
  }

  #core() {
    const { createTable, getCoreRowModel, getSortedRowModel, getFilteredRowModel } = TableCore;
    const columns = this.table.columns.map((c, k) => ({
      id: `c${k}`,
      accessorFn: (row) => row.cells[k]?.v ?? undefined,
      sortUndefined: "last",
      sortingFn: c.words ? "alphanumeric" : "basic",
      filterFn: "equals",
      enableGlobalFilter: false,
    }));
    const block = { id: "block", accessorFn: (row) => this.blocks.indexOf(row.block), enableGlobalFilter: false };
    const name = { id: "name", accessorFn: (row) => row.name, filterFn: "includesString", sortingFn: "alphanumeric" };
    const core = createTable({
      data: this.table.rows,
      columns: [block, name, ...columns],
      state: {},
      globalFilterFn: "includesString",
      onStateChange: () => {},
      renderFallbackValue: null,
      getCoreRowModel: getCoreRowModel(),
      getSortedRowModel: getSortedRowModel(),
      getFilteredRowModel: getFilteredRowModel(),
    });
    this.initial = core.initialState;
    return core;
  }

  /** Rows as a reader wants them. */
  rows() {
    const sorting = this.state.sorting.length ? [{ id: "block", desc: false }, ...this.state.sorting] : [];
    this.core.setOptions((o) => ({ ...o, state: { ...this.initial, ...this.state, sorting } }));
    return this.core.getSortedRowModel().rows.map((r) => r.original);
  }

  visible() {
    return this.table.columns.map((c, k) => ({ ...c, k })).filter((c) => this.state.columnVisibility[`c${c.k}`]);
  }

  #controls() {
    const search = make("input", { type: "search", placeholder: "part of a name", oninput: (e) => this.#set({ globalFilter: e.target.value }) });
    this.count = make("span", { class: "count", role: "status" });
    const intervals = make("input", { type: "checkbox", onchange: (e) => { this.intervals = e.target.checked; this.#drawRows(); } });
    const known = this.table.rows.some((r) => r.cells.some((c) => c && c.lo != null));
    this.section.append(
      make("div", { class: "controls" }, make("label", {}, "Find", search), ...this.#filters(), this.#chooser(),
        known ? make("label", {}, intervals, "intervals in cells") : null,
        make("button", { type: "button", title: "the rows and columns that are shown, all digits, with their intervals", onclick: () => this.#save() }, "CSV"), this.count));
  }

  #save() {
    const link = make("a", { href: URL.createObjectURL(new Blob([this.csv()], { type: "text/csv" })), download: `${document.title.split(" ")[0]} ${this.table.title}.csv` });
    link.click();
    URL.revokeObjectURL(link.href);
  }

  /** What is shown, as a reader has sorted and filtered it. */
  csv() {
    const columns = this.visible().map((c) => ({ ...c, bounds: this.table.rows.some((r) => r.cells[c.k]?.lo != null) }));
    const quoted = (v) => (/[",\n]/.test(v ?? "") ? `"${v.replaceAll('"', '""')}"` : v ?? "");
    const name = (c) => `${c.group} ${c.head}`.trim().replace(/ [↑↓]$/, "");
    const head = columns.flatMap((c) => [name(c), ...(c.bounds ? [`${name(c)}_low`, `${name(c)}_high`] : [])]);
    const line = (r) => columns.flatMap((c) => [r.cells[c.k]?.v, ...(c.bounds ? [r.cells[c.k]?.lo, r.cells[c.k]?.hi] : [])]);
    const lines = [["name", "block", ...head], ...this.rows().map((r) => [r.name, r.block, ...line(r)])];
    return lines.map((cells) => cells.map(quoted).join(",")).join("\n") + "\n";
  }

  /** A choice for every column of words that has several. */
  #filters() {
    return this.table.columns.flatMap((c, k) => {
      const words = [...new Set(this.table.rows.map((r) => r.cells[k]?.v).filter((v) => v != null))];
      if (!c.filtered || words.length < 2) return [];
      if (words.every((w) => !isNaN(w))) words.sort((a, b) => a - b);
      const options = [make("option", { value: "" }, `any ${c.head}`), ...words.map((w) => make("option", { value: w, selected: w === c.wanted }, w))];
      const choose = (e) => {
        const others = this.state.columnFilters.filter((f) => f.id !== `c${k}`);
        this.#set({ columnFilters: e.target.value ? [...others, { id: `c${k}`, value: e.target.value }] : others });
      };
      return [make("select", { "aria-label": c.head, onchange: choose }, ...options)];
    });
  }

  #chooser() {
    const groups = Map.groupBy ? Map.groupBy(this.table.columns.keys(), (k) => this.table.columns[k].group) : this.#grouped();
    const boxes = new Map();
    const sets = [...groups].map(([group, members]) => make("fieldset", {}, make("legend", {}, group || "of the row"), ...[...members].map((k) => {
      const change = (e) => this.#show({ [`c${k}`]: e.target.checked });
      const box = make("input", { type: "checkbox", checked: this.first[`c${k}`], onchange: change });
      boxes.set(`c${k}`, box);
      return make("label", { title: this.table.columns[k].about }, box, this.table.columns[k].head);
    })));
    const all = (wanted) => {
      const visible = Object.fromEntries([...boxes.keys()].map((id) => [id, wanted(id)]));
      for (const [id, box] of boxes) box.checked = visible[id];
      this.#show(visible);
    };
    const buttons = make("div", { class: "all" }, make("button", { type: "button", onclick: () => all(() => true) }, "all"),
      make("button", { type: "button", onclick: () => all((id) => this.first[id]) }, "as at first"));
    const menu = make("details", { class: "columns" }, make("summary", { class: "button" }, "Columns"), make("div", { class: "panel" }, buttons, ...sets));
    document.addEventListener("click", (e) => { if (!menu.contains(e.target)) menu.open = false; });
    menu.addEventListener("keydown", (e) => {
      if (e.key === "Escape") { menu.open = false; menu.querySelector("summary").focus(); }
    });
    return menu;
  }

  #grouped() {
    const out = new Map();
    this.table.columns.forEach((c, k) => out.set(c.group, [...(out.get(c.group) ?? []), k]));
    return out;
  }

  #under() {
    const families = [...new Set(this.table.rows.map((r) => r.family))].filter(Boolean);
    const legend = families.length > 1 ? make("p", { class: "legend" }, ...families.map((f) => make("span", {}, shape(f), f))) : null;
    const told = new Map(this.table.columns.filter((c) => c.about).map((c) => [c.head, c.about]));
    const meanings = told.size ? make("details", { class: "about" }, make("summary", {}, "What the columns mean"),
      make("dl", {}, ...[...told].flatMap(([head, text]) => [make("dt", {}, head), make("dd", {}, text)]))) : null;
    return [legend, meanings].filter(Boolean);
  }

  #set(change) {
    Object.assign(this.state, change);
    this.#drawRows();
  }

  #show(columns) {
    Object.assign(this.state.columnVisibility, columns);
    this.#drawHead();
    this.#drawRows();
  }

  /** The better end first, then the other, then the order of the report. */
  sort(id, better) {
    const [now] = this.state.sorting, first = better === "high";
    const next = now?.id !== id ? [{ id, desc: first }] : now.desc === first ? [{ id, desc: !first }] : [];
    this.#set({ sorting: next });
    this.#drawSort();
  }

  #drawSort() {
    const [now] = this.state.sorting;
    for (const th of this.head.querySelectorAll("th[data-id]")) {
      th.setAttribute("aria-sort", now?.id === th.dataset.id ? (now.desc ? "descending" : "ascending") : "none");
    }
    this.body.classList.toggle("ranked", Boolean(now));
  }

  #drawHead() {
    const columns = this.visible(), groups = columns.some((c) => c.group);
    const sorter = (id, better, text, title) => make("button", { type: "button", title, onclick: () => this.sort(id, better) }, text.replace(/ (?=[↑↓])/, "\u00a0"));
    const name = make("th", { class: "name", scope: "col", "data-id": "name", rowspan: groups ? 2 : 1 }, sorter("name", "low", this.table.noun === "designs" ? "design" : "name"));
    const spans = columns.reduce((out, c) => {
      if (out.length && out.at(-1)[0] === c.group) out.at(-1)[1] += 1; else out.push([c.group, 1]);
      return out;
    }, []);
    const tops = spans.map(([group, span]) => make("th", { class: "group", scope: "colgroup", colspan: span }, group));
    const heads = columns.map((c, k) => make("th",
      { scope: "col", "data-id": `c${c.k}`, class: [c.words ? "text" : "", k && columns[k - 1].group !== c.group ? "starts" : ""].join(" ") },
      sorter(`c${c.k}`, c.better, c.head, c.about)));
    this.head = groups ? make("thead", {}, make("tr", {}, name, ...tops), make("tr", {}, ...heads)) : make("thead", {}, make("tr", {}, name, ...heads));
    this.body.replaceChildren(this.head);
    this.#drawSort();
  }

  #drawRows() {
    const rows = this.rows(), columns = this.visible();
    const bodies = this.blocks.map((block) => [block, rows.filter((r) => r.block === block)]).filter(([, own]) => own.length);
    const drawn = bodies.map(([block, own]) => {
      const title = this.table.blocks[block];
      const line = title ? make("tr", { class: "block" }, make("th", { colspan: columns.length + 1, scope: "rowgroup" }, make("span", {}, title))) : null;
      return make("tbody", { "data-block": block }, line, ...own.map((r) => this.#row(r, columns)));
    });
    const known = this.table.references ?? [];
    if (known.length) {
      const title = make("tr", { class: "block" }, make("th", { colspan: columns.length + 1, scope: "rowgroup" }, make("span", {}, "what is known without any avatar")));
      drawn.push(make("tbody", { class: "references" }, title, ...known.map((r) => this.#row(r, columns))));
    }
    for (const old of this.body.querySelectorAll("tbody")) old.remove();
    this.body.append(...drawn);
    this.scroll.classList.toggle("tall", rows.length > 12);
    this.count.textContent = `${rows.length} of ${this.table.rows.length} ${this.table.noun}`;
  }

  #row(row, columns) {
    const name = make("th", { class: "name", scope: "row" }, make("span", { class: "line" }, shape(row.family), this.named(row.name, row.mark)));
    return make("tr", {}, name, ...columns.map((c, k) => this.#cell(row.cells[c.k], c, k && columns[k - 1].group !== c.group)));
  }

  #cell(cell, column, starts) {
    const kind = [column.words ? "text" : "", cell?.best ? "best" : "", starts ? "starts" : ""].join(" ").trim();
    if (!cell) return make("td", { class: kind });
    if (column.words) return make("td", { class: kind }, cell.v);
    const told = about(cell, column), between = bounds(cell, column);
    const inside = this.intervals && between ? make("small", {}, between) : told ? make("span", { class: "sr" }, `, ${told}`) : null;
    return make("td", { class: kind, "data-tip": told || null }, cell.as ?? written(cell.v, column), inside);
  }
}

/** One tooltip for all cells: under a pointer, or where a finger touched. */
function tips(tip) {
  const show = (e) => {
    const cell = e.target.closest?.("td[data-tip]");
    tip.hidden = !cell;
    if (!cell) return;
    tip.innerText = cell.dataset.tip;
    const at = cell.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = Math.max(8, Math.min(at.right - own.width, document.documentElement.clientWidth - own.width - 8));
    tip.style.left = `${left}px`;
    tip.style.top = `${at.top - own.height - 6 > 0 ? at.top - own.height - 6 : at.bottom + 6}px`;
  };
  document.addEventListener("pointerover", show);
  document.addEventListener("click", show);
  document.addEventListener("scroll", () => { tip.hidden = true; }, true);
  document.addEventListener("keydown", (e) => { if (e.key === "Escape") tip.hidden = true; });
}
