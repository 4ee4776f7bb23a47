// What is known of the selection: where it comes from, its cycles by cause, what it waits for.
"use strict";

const heading = (text) => make("h3", {}, text);
const paragraph = (...children) => make("p", {}, ...children);

function anchors(app) {
  const { run } = app;
  return {
    line: (l) => make("a", { href: app.address("line", l) }, run.lineName(l, true)),
    kernel: (k) => make("a", { href: app.address("kernel", k) }, swatch(`k${k % 8}`), run.kernels[k].name),
    instr: (i) => make("a", { href: app.address("instr", i) }, `#${i} ${run.text(i).split(" ", 1)[0]}`),
  };
}

// Join nodes with a text between them.
const joined = (nodes, between = ", ") => nodes.flatMap((n, i) => (i ? [between, n] : [n]));

// The array's cycles by name, largest loss first.
function arrayTable(app, array, cycles) {
  const names = Object.keys(array).filter((n) => array[n] >= 0.5).sort((a, b) => (b === "useful") - (a === "useful") || array[b] - array[a]);
  return make("table", {}, heads(["the array's cycles", "", true, 2], ["cycles"], [""]),
    ...names.map((n) => row(left(n === "issuing" ? "short passes" : n), make("td", { class: "why" }, app.shared.array[n]),
      number(array[n]), percent(array[n], cycles))),
    make("tr", { class: "total" }, left("sum"), left(""), ...cells("td", [number(cycles), "100 %"])));
}

// The instructions that cost their unit most cycles, with the causes `from` those given on.
function ranking(app, cost) {
  const { run } = app, a = anchors(app), found = [];
  for (let i = 0; i < run.size; i++) if (run.unit[i] && cost(i) > 0) found.push(i);
  const total = sum(found.map(cost));
  found.sort((x, y) => cost(y) - cost(x) || x - y);
  if (!found.length) return [];
  return [heading("Most cycles lost before"), make("table", { class: "ranking" },
    ...found.slice(0, MOST).map((i) => row(left(a.instr(i)), left(...(run.kernelOf(i) < 0 ? [] : [a.kernel(run.kernelOf(i))])),
      left(...(run.homeOf(i) < 0 ? [] : [a.line(run.homeOf(i))])), number(cost(i)))),
    ...(found.length > MOST ? [row(left(`${number(found.length - MOST)} more`), left(""), left(""),
      number(total - sum(found.slice(0, MOST).map(cost))))] : []))];
}

function instrDetails(app, i) {
  const { run, shared } = app, a = anchors(app), k = run.kernelOf(i), lost = run.lost(i), out = [];
  const way = k < 0 ? [...run.linesOf(i).flatMap((l) => [a.line(l), " › "]), `#${i}`] : [...joined(run.kernels[k].lines.map(a.line)), " › ", a.kernel(k), ` › #${i}`];
  out.push(make("p", { class: "crumbs" }, ...way), make("code", {}, run.text(i)));
  if (run.reasonOf(i)) out.push(paragraph(`No line: ${run.reasonOf(i)}.`));
  out.push(paragraph(`${run.lanes[run.unit[i]]}, cycles ${number(run.start[i])} to ${number(run.end[i])}: ${several(run.length[i], "cycle")}.`
    + (run.unit[i] ? ` Before it issued, its unit lost ${lost ? several(lost, "cycle") : "no cycle"}.` : "")));
  if (run.unit[i]) {
    const values = run.causesOf(i), total = sum(values);
    out.push(bar(values, shared.causes), make("table", { class: "part" }, heads(["cycles of its unit that are its own", "", true, 2], ["cycles"]),
      ...shared.causes.map((c, n) => [c, n]).filter(([, n]) => values[n]).map(([c, n]) => row(left(swatch(`c${n}`),
        make("a", { href: app.address("cause", [run.unit[i] - 1, n]) }, c)),
      make("td", { class: "why" }, shared.meaning[c]), number(values[n]))),
      make("tr", { class: "total" }, left("sum"), left(""), make("td", { class: "sum" }, number(total)))));
  }
  const waits = run.waitsOf.get(i) ?? [], wakes = run.wakes.get(i) ?? [];
  if (waits.length) {
    out.push(heading("Waits for"), make("table", { class: "waits" }, ...waits.map((w) => row(left(w.signaller < 0 ? "nobody" : a.instr(w.signaller)),
      left(w.signaller < 0 ? "" : `${run.lanes[run.unit[w.signaller]]} ${w.kind}`), left(`s${w.semaphore} ≥ ${w.count}`),
      w.signaller < 0 ? "" : `ends ${number(run.end[w.signaller])}`))));
  }
  if (wakes.length) {
    out.push(heading("Lets start"), make("table", { class: "wakes" }, ...wakes.slice(0, MOST).map((w) => row(left(a.instr(w.waiter)),
      left(`${run.lanes[run.unit[w.waiter]]} after ${w.kind}`), left(`s${w.semaphore}`), `starts ${number(run.start[w.waiter])}`))));
  }
  return out;
}

function kernelDetails(app, number_) {
  const { run } = app, a = anchors(app), k = run.kernels[number_], wanted = (i) => run.kernelOf(i) === number_;
  const byLine = Map.groupBy(k.equations, ([, line]) => line);
  return [make("p", { class: "crumbs" }, ...joined(k.lines.map(a.line)), " › ", k.name),
    paragraph(`${number(k.cycles)} cycles, ${number(k.macs)} MACs, ${percent(k.array.useful, k.cycles)} of the array; `
      + `the roofline's bound is ${number(k.bound)} (${k.limit}); ${several(run.sizes[number_], "instruction")}.`),
    ...[...byLine].flatMap(([line, equations]) => [...(line < 0 ? [] : [a.line(line)]), make("code", {}, equations.map((e) => e[0]).join("\n"))]),
    arrayTable(app, k.array, k.cycles), heading("Its instructions' cycles, by unit"), causeTable(app, run.causesWhere(wanted), false),
    ...ranking(app, (i) => (wanted(i) ? run.lost(i) : 0))];
}

function lineDetails(app, line) {
  const { run } = app, a = anchors(app), kernels = run.kernelsOf[line], own = run.lineCycles(line);
  const [file, at, where] = run.lines[line], text = run.files[file].text.find(([n]) => n === at)?.[1] ?? "";
  const wanted = (i) => app.links.marks[i], mine = run.kernels.filter((k) => k.home === line);
  const array = Object.fromEntries(Object.keys(run.array).map((key) => [key, sum(mine.map((k) => k.array[key]))]));
  return [make("p", { class: "crumbs" }, `${run.lineName(line, true)}${where ? ` in ${where}` : ""}${kernels.length ? " › " : ""}`, ...joined(kernels.map(a.kernel))),
    make("code", {}, text.trim()),
    paragraph(own.kernels ? `${number(own.cycles)} cycles, of which the array lost ${number(own.lost)}; ${several(app.links.count, "instruction")}.`
      : !kernels.length ? `${several(app.links.count, "instruction")}.` : `Its equations are fused into kernels that begin at other lines; ${several(app.links.count, "instruction")}.`),
    ...(own.kernels ? [arrayTable(app, array, own.cycles)] : []),
    heading("Its instructions' cycles, by unit"), causeTable(app, run.causesWhere(wanted), false),
    ...ranking(app, (i) => (wanted(i) ? run.lost(i) : 0))];
}

function causeDetails(app, [unit, cause]) {
  const { run, shared } = app, a = anchors(app), total = run.total[unit][cause], after = run.after[unit][cause];
  const mine = (i) => run.unit[i] === unit + 1, byKernel = run.kernels.map(() => 0);
  let other = 0;
  for (let i = 0; i < run.size; i++) {
    if (!mine(i)) continue;
    if (run.kernelOf(i) < 0) other += run.causes[cause][i]; else byKernel[run.kernelOf(i)] += run.causes[cause][i];
  }
  const rows = byKernel.map((v, k) => (v ? row(left(a.kernel(k)), left(...(run.kernels[k].home < 0 ? [] : [a.line(run.kernels[k].home)])), number(v), percent(v, total)) : null));
  if (other) rows.push(row(left("no kernel"), left(""), number(other), percent(other, total)));
  if (after) rows.push(row(left("after the unit's last instruction"), left(""), number(after), percent(after, total)));
  rows.push(make("tr", { class: "total" }, left("sum"), left(""), make("td", { class: "sum" }, number(total)), make("td", {}, "100 %")));
  return [make("p", { class: "crumbs" }, swatch(`c${cause}`), `${run.units[unit]}: ${shared.causes[cause]}`),
    paragraph(`${number(total)} of ${number(run.cycles)} cycles (${percent(total, run.cycles)}): ${shared.meaning[shared.causes[cause]]}.`),
    make("table", { class: "by-kernel" }, heads(["kernel", "", true], ["line", "", true], ["cycles", ""], ["", ""]), ...rows.filter(Boolean)),
    ...(cause ? ranking(app, (i) => (mine(i) ? run.causes[cause][i] : 0)) : [])];
}

function showDetails(box, app) {
  const { kind, value } = app.selection, { run } = app;
  const details = { instr: instrDetails, kernel: kernelDetails, line: lineDetails, cause: causeDetails }[kind];
  box.replaceChildren(...(details ? details(app, value) : [
    make("p", { class: "note" }, "Select a line, a kernel, an instruction, a span of the timeline or a number above: what belongs to it is marked everywhere. Escape clears."),
    arrayTable(app, run.array, run.cycles), ...ranking(app, (i) => run.lost(i))]));
}
