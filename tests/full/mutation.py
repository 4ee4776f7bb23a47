"""Mutation test of the RTL: how many one-line mistakes do the tests catch?

    python tests/full/mutation.py --config tw4 --count 200 --seed 1 --jobs 2 [--resume FILE]

Mutants are drawn from `hw/` uniformly over all places where an operator, a constant, a condition,
an assignment ... can be changed (`mutation_places.py`), in a seeded order. One whose Verilog equals
the original's, or which does not elaborate, does not count. Each other one goes through the stages
of `mutation_stages.py` until one fails. Survivors are explained in `mutation_survivors.json`; those
which compute the same in every run ("equivalent: ...") are printed, but do not count either. FILE
keeps one line of JSON for each mutant; the command goes on where it was stopped. With `--report` it
only prints what FILE says.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the folder's modules name each other plainly

from mutation_places import Mutant, draw, sources
from mutation_stages import STAGES, Verdict, Workspace, git, rtl_digest, snapshot, timed
from rich.progress import Progress

ROOT = Path(__file__).parents[2]
REASONS = Path(__file__).with_name("mutation_survivors.json")
RESULTS = Path(__file__).with_name("mutation_results.jsonl")
COUNTED = ("caught", "alive")
EQUIVALENT = "equivalent: "  # how the reason of a survivor begins which is the same circuit

_space: Workspace  # a worker's own copy


def _start_worker(tree: Path, folder: Path, shared: Path, config: str) -> None:
    global _space
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what it has started, too
    _space = Workspace.copy(tree, folder / f"copy{os.getpid()}", shared, config)


def _work(module: str, text: str, stages: tuple[str, ...]) -> tuple[Verdict, float]:
    return timed(_space, module, text, stages)


class Results:
    """The lines of a results file: a header, then one record for each mutant."""

    def __init__(self, path: Path, header: dict, reasons: dict[str, str]):
        self.path, self.records, self.reasons = path, {}, reasons
        if path.exists() and path.stat().st_size:
            first, *rest = map(json.loads, path.read_text().splitlines())
            for key in ("config", "seed", "rtl"):
                if key in header and first[key] != header[key]:
                    raise SystemExit(f"{path} is for {key} {first[key]}, not {header[key]}")
            self.header = first
            self.records = {r["key"]: r for r in rest}
        else:
            self.header = header
            self._append(header)

    def _append(self, line: dict) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def add(self, mutant: Mutant, verdict: Verdict, seconds: float) -> dict:
        """Keep a mutant's verdict."""
        record = {
            "key": mutant.key, "where": mutant.where, "kind": mutant.kind,
            "old": mutant.old_line, "new": mutant.new_line, "verdict": verdict.name,
            "stage": verdict.stage, "why": verdict.why, "seconds": round(seconds, 1),
        }  # fmt: skip
        self.records[mutant.key] = record
        self._append(record)
        return record

    def note(self, key: str) -> None:
        """Keep what need not be done again."""
        if key not in self.records:
            self.records[key] = {"key": key, "verdict": "passed"}
            self._append(self.records[key])

    def forget_survivors(self) -> None:
        """Have them judged again, unless they are equivalent."""
        kept = {k: r for k, r in self.records.items() if r["verdict"] != "alive"}
        equivalent = {k: r for k, r in self.records.items() if not self.counts(r)}
        self.records = equivalent | kept

    def counts(self, record: dict) -> bool:
        """Whether it is a mutant: another circuit than the original, as far as is known."""
        equivalent = self.reasons.get(record["key"], "").startswith(EQUIVALENT)
        alive = record["verdict"] == "alive"
        return record["verdict"] == "caught" or (alive and not equivalent)

    def judged(self, mutants: list[Mutant], count: int) -> tuple[list[dict], bool]:
        """Records in the drawn order up to the first that is missing or `count` that count."""
        out, counted = [], 0
        for mutant in mutants:
            if counted == count:
                break
            if mutant.key not in self.records:
                return out, False
            out.append(self.records[mutant.key])
            counted += self.counts(out[-1])
        return out, True


def summary(results: Results, records: list[dict]) -> dict:
    """The figures."""
    verdicts = Counter(r["verdict"] for r in records)
    counted = sum(map(results.counts, records))
    kept = [r | {"reason": results.reasons.get(r["key"], "")} for r in records]
    alive = [r for r in kept if r["verdict"] == "alive"]
    return results.header | {
        "mutants": counted,
        "caught": verdicts["caught"],
        "score": round(verdicts["caught"] / counted, 4) if counted else None,
        "stages": dict(Counter(r["stage"] for r in records if r["verdict"] == "caught")),
        "kinds": {
            kind: [sum(r["verdict"] == "caught" for r in mine), len(mine)]
            for kind in sorted({r["kind"] for r in records})
            if (mine := [r for r in records if r["kind"] == kind and r["verdict"] in COUNTED])
        },
        "same_netlist": verdicts["same netlist"],
        "does_not_elaborate": verdicts["does not elaborate"],
        "unfiltered": round(verdicts["caught"] / max(sum(verdicts[v] for v in COUNTED), 1), 4),
        "minutes": round(sum(r["seconds"] for r in records) / 60, 1),
        "equivalent": [r for r in alive if not results.counts(r)],
        "survivors": [r for r in alive if results.counts(r)],
    }


def text_of(figures: dict) -> str:
    """The figures as text."""
    stages = ", ".join(f"{n} by {stage}" for stage, n in figures["stages"].items())
    kinds = ", ".join(f"{kind} {a}/{b}" for kind, (a, b) in figures["kinds"].items())
    lines = [
        f"{figures['config']}, seed {figures['seed']}, RTL {figures['rtl']}: "
        f"{figures['caught']} of {figures['mutants']} mutants caught"
        + (f" ({100 * figures['score']:.1f} %)" if figures["mutants"] else ""),
        f"caught: {stages}",
        f"kinds: {kinds}",
        f"besides: {figures['same_netlist']} with the same netlist, "
        f"{figures['does_not_elaborate']} that do not elaborate, "
        f"{len(figures['equivalent'])} equivalent "
        f"(if these count: {100 * figures['unfiltered']:.1f} %)",
        f"{figures['minutes']} minutes of one worker",
    ]
    for r in figures["survivors"] + figures["equivalent"]:
        lines += ["", f"survivor {r['key']}, {r['where']} ({r['kind']})", f"  - {r['old']}",
                  f"  + {r['new']}", f"  {r['reason'] or 'not explained'}"]  # fmt: skip
    return "\n".join(lines)


@contextmanager
def progress(total: int, done: int):
    """A function to call with each record: a bar on a terminal, else one line for each."""
    if not sys.stderr.isatty():
        say = lambda r: f"{r['key']} {r['where']}: {r['verdict']} {r['stage']} {r['seconds']} s"  # noqa: E731
        yield lambda r, number: print(f"{number} {say(r)}", file=sys.stderr, flush=True)
        return
    with Progress() as bar:
        task = bar.add_task("mutants", total=total, completed=done)
        yield lambda r, number: bar.update(task, completed=number)


def run(arguments: argparse.Namespace, results: Results, mutants: list[Mutant], tree: Path) -> None:
    """Judge mutants in their order until enough of them count."""
    folder = tree.parent
    shared = folder / "shared"
    shared.mkdir()
    first = Workspace.copy(tree, folder / "original", shared, arguments.config)
    stages = tuple(arguments.stages.split(","))
    passed = f"original, tests {arguments.tests}, {arguments.stages}"
    tests = () if passed in results.records else stages
    first.prepare(lambda text: print(text, file=sys.stderr, flush=True), tests)
    results.note(passed)
    start = (tree, folder, shared, arguments.config)
    with ProcessPoolExecutor(arguments.jobs, initializer=_start_worker, initargs=start) as pool:
        pending = {}
        left = (m for m in mutants if m.key not in results.records)
        number = sum(map(results.counts, results.records.values()))
        with progress(arguments.count, number) as show:
            while not results.judged(mutants, arguments.count)[1]:
                while len(pending) < arguments.jobs and (mutant := next(left, None)):
                    pending[pool.submit(_work, mutant.module, mutant.text, stages)] = mutant
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    mutant = pending.pop(future)
                    record = results.add(mutant, *future.result())
                    number += results.counts(record)
                    show(record, number)
            for future in pending:
                future.cancel()


def main(argv: list[str] | None = None) -> int:
    """Command line; the status is 0 if at least 95 % are caught."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="tw4", help="chip (default: tw4)")
    parser.add_argument("--count", type=int, default=200, help="mutants that count (default: 200)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--resume", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--commit", help="of the RTL (default: FILE's, else HEAD)")
    parser.add_argument("--tests", default="HEAD", help="commit of the tests (default: HEAD)")
    parser.add_argument("--stages", default=",".join(STAGES), help="(default: %(default)s)")
    parser.add_argument("--retry", action="store_true", help="judge FILE's survivors again")
    parser.add_argument("--report", action="store_true", help="only print what FILE says")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    arguments = parser.parse_args(argv)
    commit = arguments.commit
    if commit is None and arguments.resume.exists():
        with arguments.resume.open() as file:
            commit = json.loads(next(file))["commit"]
    commit = git(ROOT, "rev-parse", "--short", commit or "HEAD").decode().strip()
    arguments.tests = git(ROOT, "rev-parse", "--short", arguments.tests).decode().strip()
    folder = Path(tempfile.mkdtemp(prefix="tilewright-mutation-"))
    try:
        tree = folder / "tree"
        tree.mkdir()
        snapshot(ROOT, commit, arguments.tests, tree)
        header = {"config": arguments.config, "seed": arguments.seed, "commit": commit,
                  "rtl": rtl_digest(tree)}  # fmt: skip
        reasons = json.loads(REASONS.read_text()) if REASONS.exists() else {}
        results = Results(arguments.resume, header, reasons)
        mutants = draw(sources(tree / "tilewright" / "hw"), arguments.seed)
        if arguments.retry:
            results.forget_survivors()
        if not arguments.report:
            run(arguments, results, mutants, tree)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    records, _ = results.judged(mutants, arguments.count)
    figures = summary(results, records)
    print(json.dumps(figures, indent=1) if arguments.json else text_of(figures))
    return not (figures["mutants"] and figures["score"] >= 0.95)


if __name__ == "__main__":
    sys.exit(main())
