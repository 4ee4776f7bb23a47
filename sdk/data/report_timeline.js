// The timeline: a lane for each unit, its instructions in two rows, below them the cause of each cycle.
"use strict";

const GUTTER = 72, TOP = 24, ROW = 11, STRIP = 6, GAP = 9, AXIS = 30, LEAST = 8;

class Timeline {
  constructor(canvas, tip, app) {
    Object.assign(this, { canvas, tip, app, low: 0, high: 1, width: 50 });
    this.pen = canvas.getContext("2d");
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("wheel", (e) => this.wheel(e), { passive: false });
    canvas.addEventListener("pointerdown", (e) => this.press(e));
    canvas.addEventListener("pointermove", (e) => this.move(e));
    canvas.addEventListener("pointerup", (e) => this.release(e));
    canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    canvas.addEventListener("dblclick", (e) => this.enlarge(this.at(e)));
    canvas.addEventListener("keydown", (e) => this.key(e));
  }

  show(run) {
    this.run = run;
    this.laneTop = run.lanes.map((_, i) => TOP + (i ? ROW + GAP + (i - 1) * (2 * ROW + STRIP + GAP + 3) : 0));
    this.height = TOP + ROW + GAP + (run.lanes.length - 1) * (2 * ROW + STRIP + GAP + 3) + AXIS;
    this.canvas.style.height = `${this.height}px`;
    this.fit();
  }

  measure() { this.width = Math.max(this.canvas.clientWidth - GUTTER - 12, 50); }
  x(cycle) { return GUTTER + (cycle - this.low) * this.width / (this.high - this.low); }
  cycle(x) { return this.low + (x - GUTTER) * (this.high - this.low) / this.width; }
  fit() { this.window(0, this.run.cycles); }

  window(low, high) {
    const total = this.run.cycles, size = Math.min(Math.max(high - low, LEAST), Math.max(total, LEAST));
    this.low = Math.min(Math.max(low, 0), Math.max(total - size, 0));
    this.high = this.low + size;
    this.draw();
  }

  zoom(factor, about = (this.low + this.high) / 2) {
    this.window(about - (about - this.low) * factor, about + (this.high - about) * factor);
  }

  pan(cycles) { this.window(this.low + cycles, this.high + cycles); }

  // Bring the linked spans into view: pan, or zoom where a span would be too small to see.
  reveal() {
    const { selection, links } = this.app, run = this.run;
    if (!links.count) { this.draw(); return; }
    const i = selection.kind === "instr" ? selection.value : links.marks.indexOf(1);
    const length = run.end[i] - run.start[i] + 1, size = this.high - this.low;
    const seen = run.start[i] < this.high && run.end[i] >= this.low;
    if (selection.kind === "instr" && this.width * length / size < 5) this.enlarge(i, 16);
    else if (!seen) this.window(run.start[i] - size / 4, run.start[i] + size * 3 / 4);
    else this.draw();
  }

  enlarge(i, times = 6) {
    if (i < 0) return;
    const length = this.run.end[i] - this.run.start[i] + 1, middle = (this.run.start[i] + this.run.end[i]) / 2;
    this.window(middle - length * times / 2, middle + length * times / 2);
  }

  // Where a span's middle is in the canvas; tests and the keyboard use it.
  place(i) {
    const lane = this.run.unit[i], turn = lane ? lower(this.run.ids[lane], i) % 2 : 0;
    const low = Math.max(this.run.start[i], this.low), high = Math.min(this.run.end[i] + 1, this.high);
    return { x: this.x((low + high) / 2), y: this.laneTop[lane] + turn * ROW + ROW / 2 };
  }

  laneAt(y) {
    return this.laneTop.findIndex((top, i) => y >= top && y < top + (i ? 2 * ROW + STRIP + 2 : ROW));
  }

  // The instruction at a pointer event (the last of those that overlap), -1 if there is none. In the strip: whose cycle it is.
  at(event) {
    const lane = this.laneAt(event.offsetY);
    if (lane < 0 || event.offsetX < GUTTER) return -1;
    const { ids, start, end, until } = this.run.lane[lane], c = this.cycle(event.offsetX);
    const y = event.offsetY - this.laneTop[lane], near = 3 * (this.high - this.low) / this.width;
    if (y >= 2 * ROW) return ids[lower(until, Math.floor(c))] ?? -1;
    let best = -1, distance = near;
    for (let j = lower(end, c - near); j < ids.length && start[j] <= c + near; j++) {
      if (lane && j % 2 !== (y >= ROW ? 1 : 0)) continue;
      const away = Math.max(start[j] - c, c - end[j] - 1, 0);
      if (away <= distance) { best = ids[j]; distance = away; }
    }
    return best;
  }

  spanAt(event) {
    const lane = this.laneAt(event.offsetY);
    if (lane < 1 || event.offsetY - this.laneTop[lane] < 2 * ROW || event.offsetX < GUTTER) return null;
    const { start, cause } = this.run.span[lane - 1];
    const j = lower(start, Math.floor(this.cycle(event.offsetX)) + 1) - 1;
    return j < 0 ? null : { unit: lane - 1, cause: cause[j], low: start[j], high: start[j + 1] ?? this.run.cycles };
  }

  // Pointer, wheel, keys.

  wheel(event) {
    event.preventDefault();
    const size = this.high - this.low;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      this.pan((event.deltaX || event.deltaY) * size / this.width);
    } else this.zoom(Math.exp(event.deltaY * 0.0015), this.cycle(event.offsetX));
  }

  press(event) {
    this.drag = { x: event.offsetX, low: this.low, far: false, map: event.offsetY < TOP - 6 };
    if (this.drag.map) this.centre(event);
    this.canvas.setPointerCapture(event.pointerId);
  }

  centre(event) {
    const size = this.high - this.low, at = (event.offsetX - GUTTER) / this.width * this.run.cycles;
    this.window(at - size / 2, at + size / 2);
  }

  move(event) {
    if (this.drag?.map) { this.centre(event); return; }
    if (this.drag) {
      this.drag.far ||= Math.abs(event.offsetX - this.drag.x) > 3;
      if (this.drag.far) {
        const low = this.drag.low - (event.offsetX - this.drag.x) * (this.high - this.low) / this.width;
        this.window(low, low + this.high - this.low);
      }
      return;
    }
    this.hint(event);
  }

  release(event) {
    const drag = this.drag;
    this.drag = null;
    if (!drag || drag.far || drag.map) return;
    const i = this.at(event), span = this.spanAt(event);
    if (i >= 0) this.app.select("instr", i);
    else if (span) this.app.select("cause", [span.unit, span.cause]);
  }

  key(event) {
    const size = this.high - this.low;
    const actions = {
      ArrowLeft: () => this.pan(-size / 8), ArrowRight: () => this.pan(size / 8), "+": () => this.zoom(0.6),
      "=": () => this.zoom(0.6), "-": () => this.zoom(1 / 0.6), 0: () => this.fit(), Home: () => this.fit(),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  hint(event) {
    const i = this.at(event), span = this.spanAt(event), run = this.run, { causes } = this.app.shared;
    this.tip.hidden = i < 0 && !span;
    this.canvas.style.cursor = this.tip.hidden ? "grab" : "pointer";
    if (this.tip.hidden) return;
    const lines = [];
    if (span) {
      lines.push(`${run.units[span.unit]} ${causes[span.cause]}: ${number(span.high - span.low)} cycles, `
        + `${number(span.low)} to ${number(span.high - 1)}`);
      if (i < 0) lines.push("after its last instruction");
      else if (span.cause) lines.push(`before #${i} issues`);
    }
    if (i >= 0) {
      const place = run.homeOf(i) < 0 ? "" : `  ${run.lineName(run.homeOf(i), true)}`;
      lines.push(`#${i} ${run.kernelOf(i) < 0 ? "" : run.kernels[run.kernelOf(i)].name}${place}`, run.text(i),
        `${number(run.start[i])} to ${number(run.end[i])}: ${number(run.length[i])} cycles`);
    }
    this.tip.textContent = lines.join("\n");
    const box = this.tip.parentElement.getBoundingClientRect();
    const x = Math.min(event.clientX - box.left + 14, box.width - this.tip.offsetWidth - 8);
    this.tip.style.transform = `translate(${Math.max(x, 4)}px, ${event.clientY - box.top + 16}px)`;
  }

  // Drawing: only what is visible, at most one rectangle for each pixel of a row.

  draw() {
    if (!this.run || !this.canvas.clientWidth) return;
    this.measure();
    const ratio = window.devicePixelRatio || 1, { canvas, pen } = this;
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(this.height * ratio);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    this.colour = this.app.colours();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, canvas.clientWidth, this.height);
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    this.drawAxis();
    this.run.lanes.forEach((_, lane) => this.drawLane(lane));
    this.drawMap();
    this.drawSelected();
  }

  drawAxis() {
    const { pen, colour } = this, size = this.high - this.low, bottom = this.height - AXIS + 4;
    const raw = size / Math.max(this.width / 110, 1), power = 10 ** Math.floor(Math.log10(raw));
    const step = Math.max(1, power * [1, 2, 5, 10].find((m) => m * power >= raw));
    pen.fillStyle = colour.muted;
    pen.textAlign = "center";
    for (let c = Math.ceil(this.low / step) * step; c <= this.high; c += step) {
      const x = Math.round(this.x(c)) + 0.5;
      pen.fillStyle = colour.grid;
      pen.fillRect(x - 0.5, TOP, 1, bottom - TOP);
      pen.fillStyle = colour.muted;
      pen.fillText(number(c), Math.min(x, GUTTER + this.width - 10), bottom + 8);
    }
    pen.textAlign = "left";
    pen.fillText("cycle", 8, bottom + 8);
  }

  drawLane(lane) {
    const { pen, colour, run } = this, { marks, any } = this.app.links, top = this.laneTop[lane];
    pen.fillStyle = colour.text;
    pen.textAlign = "left";
    pen.fillText(run.lanes[lane], 8, top + (lane ? ROW : ROW / 2));
    const { ids, start, end, kernel } = run.lane[lane], scale = this.width / (this.high - this.low);
    const until = [-1, -1], left = [0, 0], kind = [0, 0]; // of each row: the rectangle that is growing
    const flush = (turn) => {
      if (until[turn] < 0) return;
      const number_ = (kind[turn] >> 1) - 1;
      pen.globalAlpha = any && !(kind[turn] & 1) ? 0.28 : 1;
      pen.fillStyle = number_ < 0 ? colour.none : colour.kernel[number_ % colour.kernel.length];
      pen.fillRect(left[turn], top + turn * ROW, until[turn] - left[turn], ROW - 1);
      pen.globalAlpha = 1;
      pen.fillStyle = colour.pane; // what overlaps can still be told apart
      if (until[turn] - left[turn] > 4) pen.fillRect(left[turn] - 0.5, top + turn * ROW, 1, ROW - 1);
      until[turn] = -1;
    };
    for (let j = lower(end, this.low); j < ids.length && start[j] < this.high; j++) {
      const turn = lane ? j % 2 : 0, key = (kernel[j] + 1) * 2 + marks[ids[j]];
      const a = GUTTER + Math.max(start[j] - this.low, 0) * scale;
      const b = Math.max(GUTTER + (Math.min(run.end[ids[j]] + 1, this.high) - this.low) * scale - 0.5, a + 0.7);
      if (until[turn] >= a - 0.5 && b - a < 1.5 && kind[turn] === key) until[turn] = Math.max(until[turn], b);
      else { flush(turn); left[turn] = a; until[turn] = b; kind[turn] = key; }
      if (b - a > 56) this.label(ids[j], a, b, top + turn * ROW, () => flush(turn));
    }
    flush(0); flush(1);
    pen.globalAlpha = 1;
    if (lane) this.drawStrip(run.span[lane - 1], lane - 1, top + 2 * ROW + 1, this.low, this.high, (c) => this.x(c), STRIP);
  }

  label(i, a, b, y, flush) {
    flush();
    const { pen, colour } = this;
    pen.globalAlpha = 1;
    pen.fillStyle = this.app.links.any && !this.app.links.marks[i] ? colour.muted : colour.onspan;
    pen.font = "9px system-ui, sans-serif";
    const text = `#${i} ${this.run.text(i).split(" ", 1)[0]}`;
    if (pen.measureText(text).width < b - a - 6) pen.fillText(text, a + 3, y + ROW / 2);
    pen.font = "11px system-ui, sans-serif";
  }

  drawStrip({ start, cause }, unit, y, low, high, place, height) {
    const { pen, colour } = this, { kind, value } = this.app.selection;
    let until = -1;
    for (let j = Math.max(lower(start, low + 1) - 1, 0); j < start.length && start[j] < high; j++) {
      const a = Math.max(place(start[j]), place(low)), b = Math.min(place(start[j + 1] ?? this.run.cycles), place(high));
      if (b < until + 0.25 && b - a < 0.25) continue;
      pen.globalAlpha = kind === "cause" && (value[0] !== unit || value[1] !== cause[j]) ? 0.25 : 1;
      pen.fillStyle = colour.cause[cause[j]];
      pen.fillRect(a, y, Math.max(b - a, 0.6), height);
      until = b;
    }
    pen.globalAlpha = 1;
  }

  // The whole run above the lanes: the array's causes, and the window that is shown below.
  drawMap() {
    const { pen, colour, run } = this, unit = Math.max(run.units.indexOf("MATMUL"), 0);
    const place = (c) => GUTTER + c * this.width / run.cycles;
    pen.fillStyle = colour.muted;
    pen.fillText("whole run", 8, 9);
    this.drawStrip(run.span[unit], unit, 4, 0, run.cycles, place, 10);
    if (this.high - this.low >= run.cycles) return;
    pen.fillStyle = colour.veil;
    pen.fillRect(GUTTER, 2, place(this.low) - GUTTER, 14);
    pen.fillRect(place(this.high), 2, GUTTER + this.width - place(this.high), 14);
    pen.strokeStyle = colour.accent;
    pen.strokeRect(place(this.low) - 0.5, 2.5, Math.max(place(this.high) - place(this.low), 2) + 1, 13);
  }

  drawSelected() {
    const { kind, value } = this.app.selection, { pen, colour, run } = this;
    if (kind !== "instr") return;
    const half = (ROW - 1) / 2, edge = GUTTER + this.width;
    pen.save();
    pen.beginPath();
    pen.rect(GUTTER - 1, 0, this.width + 2, this.height);
    pen.clip();
    pen.strokeStyle = colour.accent;
    pen.lineWidth = 2;
    const a = Math.max(this.x(run.start[value]), GUTTER), b = Math.min(this.x(run.end[value] + 1), edge);
    if (b > a) pen.strokeRect(a - 1, this.place(value).y - half - 1.5, Math.max(b - a, 2) + 1, ROW + 1);
    pen.lineWidth = 1.2;
    const edges = [...(run.waitsOf.get(value) ?? []), ...(run.wakes.get(value) ?? [])];
    for (const { signaller, waiter } of edges.slice(0, 40)) {
      if (signaller < 0) continue;
      const from = { x: this.x(run.end[signaller] + 1), y: this.place(signaller).y };
      const to = { x: this.x(run.start[waiter]), y: this.place(waiter).y };
      const bend = Math.max(Math.abs(to.x - from.x) / 2, 14);
      pen.beginPath();
      pen.moveTo(from.x, from.y);
      pen.bezierCurveTo(from.x + bend, from.y, to.x - bend, to.y, to.x, to.y);
      pen.stroke();
      pen.fillStyle = colour.accent;
      pen.beginPath();
      pen.arc(to.x, to.y, 2.5, 0, 7);
      pen.fill();
    }
    pen.restore();
  }
}
