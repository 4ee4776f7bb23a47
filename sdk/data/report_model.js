// The data of the page: one Run for each program, and what a selection links in it.
"use strict";

const NAMES = { line: "line", kernel: "kernel", instr: "instruction", cause: "cause" };
const number = (x) => Math.round(x).toLocaleString("en-US");
const percent = (x, total) => (total ? `${(100 * x / total).toFixed(1)} %` : "");
const several = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;
const sum = (xs) => xs.reduce((a, b) => a + b, 0);

// Base64 of gzip of JSON, as the page carries it.
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function undo(steps) {
  const out = new Float64Array(steps.length);
  let at = 0;
  for (let i = 0; i < steps.length; i++) out[i] = at += steps[i];
  return out;
}

// First index of ascending `xs` whose value is at least `x`.
function lower(xs, x) {
  let low = 0, high = xs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1; else high = middle;
  }
  return low;
}

class Run {
  constructor(raw, number_) {
    Object.assign(this, raw);
    this.number = number_;
    this.size = raw.pc.length;
    this.pc = undo(raw.pc);
    this.start = undo(raw.start);
    this.end = this.start.map((s, i) => s + raw.length[i] - 1);
    this.units = raw.lanes.slice(1);
    this.ids = raw.lanes.map(() => []);
    raw.unit.forEach((lane, i) => this.ids[lane].push(i));
    this.lane = this.ids.map((ids) => ({
      ids, start: Float64Array.from(ids, (i) => this.start[i]), end: Float64Array.from(ids, (i) => this.end[i]),
      until: Float64Array.from(ids, (i) => this.start[i] + raw.issued[i]), kernel: Int32Array.from(ids, (i) => this.kernelOf(i)),
    }));
    this.lane.forEach((lane) => lane.end.forEach((e, j) => { // ends ascend, so that they can be searched
      if (j && e < lane.end[j - 1]) lane.end[j] = lane.end[j - 1];
    }));
    this.span = raw.spans.map(([starts, causes]) => ({ start: undo(starts), cause: causes }));
    this.waitsOf = new Map();
    this.wakes = new Map();
    const put = (map, key, value) => (map.get(key) ?? map.set(key, []).get(key)).push(value);
    for (const [waiter, semaphore, count, signaller, kind] of raw.waits) {
      const wait = { waiter, semaphore, count, signaller, kind };
      put(this.waitsOf, waiter, wait);
      if (signaller >= 0) put(this.wakes, signaller, wait);
    }
    this.kernelsOf = raw.lines.map(() => []); // by line
    raw.kernels.forEach((k, i) => k.lines.forEach((l) => this.kernelsOf[l].push(i)));
    this.sizes = raw.kernels.map(() => 0);
    for (let i = 0; i < this.size; i++) if (this.kernelOf(i) >= 0) this.sizes[this.kernelOf(i)]++;
  }

  kernelOf(i) { return this.kernel[this.pc[i]]; }
  reasonOf(i) { return this.reasons[this.reason[this.pc[i]]]; }
  text(i) { return this.code[this.pc[i]]; }
  homeOf(i) { return this.home[this.pc[i]]; }

  // All lines of its kernel; its own line if it has no kernel (assembly).
  linesOf(i) {
    if (this.kernelOf(i) >= 0) return this.kernels[this.kernelOf(i)].lines;
    return this.homeOf(i) < 0 ? [] : [this.homeOf(i)];
  }

  causesOf(i) { return this.causes.map((c) => c[i]); }
  lost(i) { return this.unit[i] ? sum(this.causesOf(i).slice(1)) : 0; }

  // The cause that the unit lost most cycles to before instruction `i`; 0 if it lost none.
  worst(i) {
    let best = 0;
    for (let c = 1; c < this.causes.length; c++) {
      if (this.causes[c][i] > (best ? this.causes[best][i] : 0)) best = c;
    }
    return best;
  }

  // Cycles of a line: the windows of the kernels that begin at it, with the array's share of use.
  lineCycles(line) {
    const mine = this.kernels.filter((k) => k.home === line);
    const cycles = sum(mine.map((k) => k.cycles));
    return { kernels: mine.length, cycles, lost: cycles - sum(mine.map((k) => k.array.useful)) };
  }

  // How a line is written in the address and on the page: its number, with its file if there are several.
  lineName(line, always = false) {
    if (line < 0) return "";
    const [file, at] = this.lines[line];
    return always || this.files.length > 1 ? `${this.files[file].label}:${at}` : `${at}`;
  }

  // By unit the cycles by cause of the instructions that `wanted` holds for.
  causesWhere(wanted) {
    const out = this.units.map(() => this.causes.map(() => 0));
    for (let i = 0; i < this.size; i++) {
      if (this.unit[i] && wanted(i)) this.causes.forEach((c, n) => { out[this.unit[i] - 1][n] += c[i]; });
    }
    return out;
  }
}

// A selection is {kind, value}: a line's, kernel's or instruction's number, or [unit, cause].
function format(run, selection) {
  const parts = run.number ? [`run=${run.number + 1}`] : [];
  const { kind, value } = selection;
  if (kind === "line") parts.push(`line=${encodeURIComponent(run.lineName(value))}`);
  if (kind === "kernel") parts.push(`kernel=${encodeURIComponent(run.kernels[value].name)}`);
  if (kind === "instr") parts.push(`instr=${value}`);
  if (kind === "cause") parts.push(`cause=${run.units[value[0]]}:${run.shared.causes[value[1]]}`);
  return `#${parts.join("&")}`;
}

function parse(runs, hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const run = runs[Number(fields.get("run") ?? 1) - 1] ?? runs[0];
  const found = (kind, value) => (value === undefined || value < 0 ? null : { kind, value });
  let selection = null;
  if (fields.has("line")) {
    const text = fields.get("line");
    selection = found("line", run.lines.findIndex((_, i) => run.lineName(i, text.includes(":")) === text
      || (!text.includes(":") && String(run.lines[i][1]) === text)));
  } else if (fields.has("kernel")) {
    selection = found("kernel", run.kernels.findIndex((k) => k.name === fields.get("kernel")));
  } else if (/^\d+$/.test(fields.get("instr") ?? "")) {
    const i = Number(fields.get("instr"));
    if (i < run.size) selection = found("instr", i);
  } else if (fields.has("cause")) {
    const [unit, cause] = fields.get("cause").split(":");
    const value = [run.units.indexOf(unit), run.shared.causes.indexOf(cause)];
    if (value[0] >= 0 && value[1] >= 0) selection = { kind: "cause", value };
  }
  return { run, selection: selection ?? { kind: "none", value: null } };
}

// What a selection links: a mark for each instruction, sets of kernels and lines.
function link(run, { kind, value }) {
  const marks = new Uint8Array(run.size), kernels = new Set(), lines = new Set();
  const add = (i) => {
    marks[i] = 1;
    if (run.kernelOf(i) >= 0) kernels.add(run.kernelOf(i));
    run.linesOf(i).forEach((l) => lines.add(l));
  };
  if (kind === "instr") add(value);
  else if (kind !== "none") {
    const wanted = {
      kernel: (i) => run.kernelOf(i) === value,
      line: (i) => run.linesOf(i).includes(value),
      cause: (i) => run.unit[i] === value[0] + 1 && run.causes[value[1]][i] > 0,
    }[kind];
    for (let i = 0; i < run.size; i++) if (wanted(i)) add(i);
    if (kind === "line") { lines.clear(); lines.add(value); }
  }
  return { marks, kernels, lines, count: sum(marks), any: kind !== "none" };
}
