// The panes beside the timeline. All text goes in as text nodes: nothing of the user's is markup.
"use strict";

const ROW_HEIGHT = 20, MOST = 12; // MOST: rows of a ranking, links of a list

// An element: make("td", {class: "x", "data-line": 3}, "text", child, ...).
function make(tag, attributes = {}, ...children) {
  const out = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "style") out.style.cssText = value;
    else if (value !== undefined && value !== null) out.setAttribute(key, value);
  }
  out.append(...children.filter((c) => c !== null && c !== undefined));
  return out;
}

const cells = (tag, values) => values.map((v) => (v instanceof Node ? v : make(tag, {}, v)));
const row = (...values) => make("tr", {}, ...cells("td", values));
const heads = (...names) => make("tr", {}, ...names.map(([name, title, left, colspan]) =>
  make("th", { scope: "col", title: title || null, class: left ? "left" : null, colspan }, name)));
const swatch = (colour) => make("i", { class: "swatch", style: `background: var(--${colour})` });
const left = (...children) => make("td", { class: "left" }, ...children);

// Causes as one bar; `values` in the causes' order.
function bar(values, names, total = sum(values)) {
  const label = names.map((n, i) => (values[i] ? `${n} ${number(values[i])}` : "")).filter(Boolean).join(", ");
  return make("span", { class: "bar", role: "img", "aria-label": label || "no cycles", title: label },
    ...values.map((v, i) => (v > 0 ? make("i", { style: `width: ${100 * v / total}%; background: var(--c${i})` }) : null)));
}

// Rows which can be chosen by click, Enter or space, and walked with the arrow keys.
function choosable(table, choose) {
  const chosen = (event) => event.target.closest("tr[tabindex]");
  table.addEventListener("click", (e) => { if (!e.target.closest("a") && chosen(e)) choose(chosen(e)); });
  table.addEventListener("keydown", (e) => {
    const tr = chosen(e);
    if (!tr) return;
    const all = [...table.querySelectorAll("tr[tabindex]")], step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (step) all[all.indexOf(tr) + step]?.focus();
    else if (e.key === "Enter" || e.key === " ") choose(tr);
    else return;
    e.preventDefault();
  });
}

// The whole array's cycles as the five causes: useful, padding and short passes are all issuing.
const fiveOf = (a) => [a.useful + a.padding + a.issuing, a.semaphore, a.port, a.memory, a.empty];

function showSource(table, run, names) {
  table.replaceChildren(make("thead", {}, heads(["", "line"], ["cycles", "cycles of the kernels that begin at this line"],
    ["lost", "of these, cycles in which the array did no useful work"], ["", "the array's cycles by cause"], ["", "", true])));
  const body = make("tbody");
  if (!run.files.length) body.append(row(left(run.reasons[0] || "no line is known")));
  run.files.forEach((file, number_) => {
    const index = new Map(run.lines.map(([f, n], i) => [f === number_ ? n : -1, i]));
    body.append(make("tr", { class: "gap" }, make("td", { colspan: 5 }, file.label + (file.missing ? `: ${file.missing}` : ""))));
    let last = null;
    for (const [n, text] of file.text) {
      if (last !== null && n !== last + 1) body.append(make("tr", { class: "gap" }, make("td", { colspan: 5 }, "…")));
      last = n;
      const line = index.get(n), own = line === undefined ? null : run.lineCycles(line);
      const fused = own && !own.kernels ? make("td", { colspan: 3, class: "note", title:
        "its equations run in the kernels of other lines, whose cycles are shown there" },
      run.kernelsOf[line].length ? `in ${run.kernelsOf[line].map((k) => run.kernels[k].name).join(", ")}` : "") : null;
      const causes = own?.kernels ? fiveOf(Object.fromEntries(Object.keys(run.array).map((key) =>
        [key, sum(run.kernels.filter((k) => k.home === line).map((k) => k.array[key]))]))) : null;
      const figures = fused ? [fused] : own
        ? [number(own.cycles), number(own.lost), make("td", {}, bar(causes, names))] : ["", "", ""];
      body.append(make("tr", own ? { tabindex: 0, "data-line": line, "aria-selected": "false" } : {},
        make("td", { class: "number" }, String(n)), ...cells("td", figures), make("td", { class: "code" }, text)));
    }
  });
  table.append(body);
}

function showKernels(table, run) {
  table.replaceChildren(make("thead", {}, heads(["kernel", "", true], ["line", "where it begins", true],
    ["cycles", "from the previous kernel's last MATMUL row to its own; they sum to the run's cycles"],
    ["lost", "cycles in which the array did no useful work"], ["use", "useful MACs / (dim² × cycles)"],
    ["bound", "roofline: least cycles that array, reads or writes need"], ["limit", "what gives the bound", true],
    ["instr.", "instructions"])));
  const body = make("tbody");
  run.kernels.forEach((k, i) => body.append(make("tr", { tabindex: 0, "data-kernel": i, "aria-selected": "false" },
    left(swatch(`k${i % 8}`), k.name), left(run.lineName(k.home)), ...cells("td", [number(k.cycles),
      number(k.cycles - k.array.useful), percent(k.array.useful, k.cycles), number(k.bound)]), left(k.limit),
    make("td", {}, number(run.sizes[i])))));
  body.append(make("tr", { class: "total" }, left("total"), left(""), ...cells("td", [number(run.cycles),
    number(run.cycles - run.array.useful), percent(run.array.useful, run.cycles), number(run.bound)]), left(run.limit),
  make("td", {}, number(run.size))));
  table.append(body);
}

// Causes x units; each column sums to its last row. Cells of the whole run are links.
function causeTable(app, byUnit, whole) {
  const { run, shared } = app, units = run.units.map((_, u) => u).filter((u) => whole || sum(byUnit[u]));
  const table = make("table", { class: whole ? "whole" : "part" },
    heads(["cause", "", true], ...units.map((u) => [run.units[u], "cycles of this unit"])));
  shared.causes.forEach((cause, c) => table.append(make("tr", {},
    make("td", { class: "left", title: shared.meaning[cause] }, swatch(`c${c}`), cause),
    ...units.map((u) => make("td", { "data-cause": whole ? `${run.units[u]}:${cause}` : null },
      whole && byUnit[u][c] ? make("a", { href: app.address("cause", [u, c]) }, number(byUnit[u][c])) : number(byUnit[u][c]))))));
  table.append(make("tr", { class: "total" }, left("sum"), ...units.map((u) =>
    make("td", { "data-sum": run.units[u] }, number(sum(byUnit[u]))))));
  return units.length ? table : make("p", { class: "note" }, "none");
}

function showCauses(box, app) {
  const { run, shared } = app;
  box.replaceChildren(make("div", { class: "stack" }, ...run.total.flatMap((values, unit) =>
    [make("span", {}, run.units[unit]), bar(values, shared.causes, run.cycles)])),
  causeTable(app, run.total, true), make("p", { class: "note" }, `Each column sums to the run's ${number(run.cycles)} cycles.`));
}

// The instructions: only rows in sight exist.
class Listing {
  constructor(box, app) {
    Object.assign(this, { box, app, view: [], active: 0 });
    box.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(box);
    box.addEventListener("click", (e) => {
      const found = e.target.closest("[data-instr]");
      if (found) app.select("instr", Number(found.dataset.instr));
    });
    box.addEventListener("keydown", (e) => this.key(e));
  }

  show() {
    const columns = [["#", "in program order"], ["start", "first cycle"], ["end", "last cycle"], ["cycles", "from start to end"],
      ["lost before", "cycles its unit was lost before it issued, and the largest cause"], ["kernel", ""], ["line", ""], ["assembly", ""]];
    this.head = make("div", { class: "head", role: "row" }, ...columns.map(([name, title]) =>
      make("span", { role: "columnheader", title }, name)));
    this.body = make("div", { role: "rowgroup" });
    this.box.style.setProperty("--digits", `${number(this.app.run.cycles).length}ch`);
    this.box.replaceChildren(this.head, this.body);
    this.filter();
  }

  // Which instructions are shown: those that hold the filter's text, and if asked only linked ones.
  filter() {
    const { run, links } = this.app, text = this.app.filter.value.trim().toLowerCase();
    const only = this.app.only.checked && links.any, { selection } = this.app;
    const near = new Set(selection.kind === "instr" ? [...(run.waitsOf.get(selection.value) ?? []).map((w) => w.signaller),
      ...(run.wakes.get(selection.value) ?? []).map((w) => w.waiter)] : []);
    this.view = [];
    for (let i = 0; i < run.size; i++) {
      if (only && !links.marks[i] && !near.has(i)) continue;
      if (text && !`#${i} ${run.lanes[run.unit[i]]} ${run.kernels[run.kernelOf(i)]?.name ?? ""} ${run.text(i)}`.toLowerCase().includes(text)) continue;
      this.view.push(i);
    }
    this.body.style.height = `${this.view.length * ROW_HEIGHT}px`;
    this.box.setAttribute("aria-rowcount", this.view.length);
    this.draw();
  }

  reveal() {
    const { selection, links } = this.app;
    if (!links.count) { this.draw(); return; }
    const at = lower(this.view, selection.kind === "instr" ? selection.value : links.marks.indexOf(1));
    this.active = Math.min(at, this.view.length - 1);
    this.scrollTo(this.active);
  }

  scrollTo(at) {
    const top = at * ROW_HEIGHT, seen = this.box.clientHeight - 2 * ROW_HEIGHT;
    if (top < this.box.scrollTop || top > this.box.scrollTop + seen) this.box.scrollTop = Math.max(0, top - seen / 3);
    this.draw();
  }

  key(event) {
    const page = Math.floor(this.box.clientHeight / ROW_HEIGHT) - 2, last = this.view.length - 1;
    const target = { ArrowDown: this.active + 1, ArrowUp: this.active - 1, PageDown: this.active + page,
      PageUp: this.active - page, Home: 0, End: last }[event.key];
    if (target !== undefined) {
      this.active = Math.min(Math.max(target, 0), last);
      this.scrollTo(this.active);
    } else if ((event.key === "Enter" || event.key === " ") && this.view.length) this.app.select("instr", this.view[this.active]);
    else return;
    event.preventDefault();
  }

  // Rows that stay in sight stay the same elements, until what they show changes.
  draw() {
    if (!this.body) return;
    const { links } = this.app, key = this.view;
    if (this.shown?.links !== links || this.shown.key !== key) this.shown = { links, key, rows: new Map() };
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW_HEIGHT) - 4), old = this.shown.rows;
    const last = Math.min(key.length, first + Math.ceil(this.box.clientHeight / ROW_HEIGHT) + 10), rows = new Map();
    for (let at = first; at < last; at++) {
      rows.set(at, old.get(at) ?? this.row(at));
      rows.get(at).classList.toggle("active", at === this.active);
    }
    this.shown.rows = rows;
    if (rows.size !== this.body.children.length || !old.has(first) || !old.has(last - 1)) this.body.replaceChildren(...rows.values());
    this.box.setAttribute("aria-activedescendant", `row${key[this.active]}`);
  }

  row(at) {
    const { run, links, selection, shared } = this.app, i = this.view[at], k = run.kernelOf(i), lost = run.lost(i), worst = run.worst(i);
    return make("div", { class: `row${links.any && links.marks[i] ? " linked" : ""}`, role: "row",
      id: `row${i}`, "data-instr": i, "aria-rowindex": at + 1, "aria-selected": String(selection.kind === "instr" && selection.value === i),
      style: `top: ${(at + 1) * ROW_HEIGHT}px`, title: run.reasonOf(i) || null },
    ...[String(i), number(run.start[i]), number(run.end[i]), number(run.length[i])].map((t) => make("span", { role: "gridcell" }, t)),
    make("span", { role: "gridcell", class: "lost" }, ...(lost ? [swatch(`c${worst}`), `${number(lost)} ${shared.causes[worst]}`] : [""])),
    make("span", { role: "gridcell" }, k < 0 ? "" : run.kernels[k].name),
    make("span", { role: "gridcell" }, run.lineName(run.homeOf(i)).split(":").pop() || "–"),
    make("span", { role: "gridcell" }, run.text(i)));
  }
}
