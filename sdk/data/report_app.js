// What is selected is in the address: every click changes it, and every change of it redraws.
"use strict";

const byId = (id) => document.getElementById(id);

const app = {
  shared: null, runs: [], run: null, selection: { kind: "none", value: null }, links: null,
  only: byId("only"), filter: byId("filter"),

  address(kind, value) { return format(this.run, { kind, value }); },
  select(kind, value) { location.hash = this.address(kind, value); },

  colours() {
    const probe = byId("legend"), old = probe.style.color;
    const of = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
    const out = { cause: this.shared.causes.map((_, i) => of(`c${i}`)), kernel: [0, 1, 2, 3, 4, 5, 6, 7].map((i) => of(`k${i}`)) };
    for (const name of ["text", "muted", "grid", "accent", "veil", "onspan", "none", "pane"]) out[name] = of(name);
    probe.style.color = old;
    return out;
  },

  start(data) {
    this.shared = data;
    this.runs = data.runs.map((raw, i) => Object.assign(new Run(raw, i), { shared: data }));
    if (!this.runs.length) { byId("figures").append("no program ran within the profile"); return; }
    byId("run").append(...this.runs.map((r, i) => make("option", { value: i },
      `${r.name} (${r.call}), ${number(r.cycles)} cycles${r.count > 1 ? `, ${r.count} runs` : ""}`)));
    byId("legend").append(...data.causes.map((c, i) => make("span", { title: data.meaning[c] }, swatch(`c${i}`), c)));
    this.timeline = new Timeline(byId("timeline"), byId("tip"), this);
    this.listing = new Listing(byId("instructions"), this);
    choosable(byId("source"), (tr) => this.select("line", Number(tr.dataset.line)));
    choosable(byId("kernels"), (tr) => this.select("kernel", Number(tr.dataset.kernel)));
    byId("run").addEventListener("change", (e) => { location.hash = format(this.runs[e.target.value], { kind: "none" }); });
    byId("fit").addEventListener("click", () => this.timeline.fit());
    byId("zoom-in").addEventListener("click", () => this.timeline.zoom(0.6));
    byId("zoom-out").addEventListener("click", () => this.timeline.zoom(1 / 0.6));
    byId("clear").addEventListener("click", (e) => { e.preventDefault(); this.select("none"); });
    this.only.addEventListener("change", () => { this.listing.filter(); this.listing.reveal(); });
    this.filter.addEventListener("input", () => this.listing.filter());
    byId("theme").addEventListener("click", () => {
      const dark = getComputedStyle(document.documentElement).colorScheme === "dark"
        || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
      document.documentElement.dataset.theme = dark ? "light" : "dark";
      this.timeline.draw();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.timeline.draw());
    document.addEventListener("keydown", (e) => { if (e.key === "Escape") this.select("none"); });
    addEventListener("hashchange", () => this.apply());
    this.apply();
  },

  apply() {
    const { run, selection } = parse(this.runs, location.hash), fresh = run !== this.run;
    Object.assign(this, { run, selection, links: link(run, selection) });
    if (fresh) this.show();
    this.mark();
    if (this.only.checked) this.listing.filter();
    this.listing.reveal();
    this.timeline.reveal();
    showDetails(byId("details"), this);
  },

  show() {
    const { run } = this, use = percent(run.array.useful, run.cycles);
    byId("run").value = run.number;
    byId("figures").replaceChildren(...[["chip", run.chip], ["engine", run.engine], ["cycles", number(run.cycles)],
      ["MACs", number(run.macs)], ["utilisation", use], ["of roofline", percent(run.bound, run.cycles)],
      ["instructions", number(run.size)]].map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
    showSource(byId("source"), run, this.shared.causes);
    showKernels(byId("kernels"), run);
    showCauses(byId("causes"), this);
    this.listing.show();
    this.timeline.show(run);
  },

  // Mark what is linked in the tables, and scroll to the first of it.
  mark() {
    const { kind, value } = this.selection, { lines, kernels, any } = this.links;
    const home = kind === "instr" ? this.run.homeOf(value) : kind === "kernel" ? this.run.kernels[value].home : -1;
    for (const [key, linked] of [["line", lines], ["kernel", kernels]]) {
      let first = null;
      for (const tr of document.querySelectorAll(`tr[data-${key}]`)) {
        const i = Number(tr.dataset[key]), chosen = kind === key && value === i;
        tr.classList.toggle("linked", any && linked.has(i));
        tr.setAttribute("aria-selected", String(chosen));
        if (chosen || (key === "line" && i === home) || (!first && linked.has(i))) first = tr;
      }
      if (any) first?.scrollIntoView({ block: "nearest" });
    }
    const cause = kind === "cause" ? `${this.run.units[value[0]]}:${this.shared.causes[value[1]]}` : "";
    for (const td of document.querySelectorAll("td[data-cause]")) td.classList.toggle("on", td.dataset.cause === cause);
    byId("linked-count").textContent = any ? `${number(this.links.count)} of ${number(this.run.size)} linked` : number(this.run.size);
    byId("clear").hidden = !any;
  },
};

function fail(error) {
  byId("fault").hidden = false;
  byId("fault").textContent = `This page could not be shown: ${error.message ?? error}. It needs a browser from 2024 or later.`;
  throw error;
}

unpack(byId("data").textContent).then((data) => app.start(data)).catch(fail);
