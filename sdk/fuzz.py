"""The fuzzer: random programs on several engines, which must agree about everything.

`sim.generate` makes legal, race-free programs and knows what they cover; each runs on every engine
and all results are compared with the first one's. With `with_racy` a needed wait or signal is taken
away, and the checker must find the race. A failing program is shrunk by dropping instructions.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random

from tilewright import sim
from tilewright.isa.config import INSTR_BYTES, ChipConfig
from tilewright.isa.encoding import IllegalInstruction, Instr, decode, encode
from tilewright.isa.program import Program
from tilewright.isa.table import Fault
from tilewright.sim import checker
from tilewright.sim.functional import EndlessProgram
from tilewright.sim.generate import Generated, all_bins, bins, generate, racy
from tilewright.sim.rtl_build import RtlUnavailableError

SHRINK_SECONDS = 30
CANDIDATES, SEARCH = 8, 64  # programs that are drawn for each one that runs
PROGRAMS, MAX_LENGTH = 200, 12  # fewer programs than this are up to so many times as long


@dataclass(frozen=True)
class Failure:
    """One program on which something went wrong; `program` is the shrunk one."""

    seed: int
    what: tuple[str, ...]
    program: Program
    instructions: int  # before it was shrunk


@dataclass
class Outcome:
    """What a run of the fuzzer found."""

    config: ChipConfig
    seed: int
    engines: tuple[str, ...]
    programs: int = 0
    faults: int = 0
    failures: list[Failure] = field(default_factory=list)
    hit: set[str] = field(default_factory=set)
    racy_programs: int = 0
    racy_missed: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong."""
        return not self.failures and not self.racy_missed

    @property
    def missed(self) -> list[str]:
        """Bins that no program hit."""
        return [b for b in all_bins(self.config) if b not in self.hit]


def commit_seed(folder: Path | None = None) -> int:
    """A seed from the hash of the repository's HEAD.

    **Raises** ValueError: there is no repository.
    """
    folder = folder or Path(__file__).parent
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise ValueError(
            "--seed commit needs git and a checkout of Tilewright's repository; give a number"
        ) from None
    return int(done.stdout.strip()[:8], 16)


def compare(program: Program, engines: Sequence[str]) -> list[str]:
    """What the engines disagree about, or what one of them refuses; empty if all is well."""
    found: list[str] = []
    report = checker.check(program, sim.load_memory(program))
    expected = report.fault is not None and report.fault.code == Fault.WINDOW
    found += [
        f"checker: {finding}"
        for finding in report.errors
        if not (expected and finding.kind == "window")
    ]
    results: list[sim.RunResult] = []
    for engine in engines:
        try:
            results.append(sim.run(program, engine=engine, check=False))
        except RtlUnavailableError:
            raise
        except Exception as error:
            found.append(f"{engine}: {type(error).__name__}: {error}")
    if not results:
        return found
    first, *others = results
    for other in others:
        found += sim.differences(first, other)
    timed = [r for r in others if r.cycles is not None]
    for other in timed[1:]:  # the first has no clock: compare the clocks among the others
        found += [d for d in sim.differences(timed[0], other) if d not in found]
    return found


def _without(words: list[bytes], low: int, high: int) -> list[bytes] | None:
    """The words without [low, high), branches retargeted; None if one goes into the gap."""
    out = []
    for at, word in enumerate(words):
        if low <= at < high:
            continue
        try:
            instr = decode(word)
        except IllegalInstruction:
            out.append(word)
            continue
        target = instr.values.get("target")
        if target is not None and "target" not in instr.regs and target > low:
            if target < high:
                return None
            moved = {**instr.values, "target": target - (high - low)}
            word = encode(Instr(instr.spec, moved, instr.regs))
        out.append(word)
    return out


def shrink(
    program: Program, fails: Callable[[Program], bool], seconds: float = SHRINK_SECONDS
) -> Program:
    """Drop instructions, in ever smaller pieces, as long as the program fails."""
    words = [program.code[i : i + INSTR_BYTES] for i in range(0, len(program.code), INSTR_BYTES)]
    end = time.monotonic() + seconds
    size = max(len(words) // 2, 1)
    while True:
        low, dropped = 0, False
        while low < len(words):
            if time.monotonic() > end:
                return program
            less = _without(words, low, min(low + size, len(words)))
            if less:
                smaller = replace(program, code=b"".join(less), source_map=())
                if fails(smaller):
                    program, words, dropped = smaller, less, True
                    continue
            low += size
        if size == 1 and not dropped:
            return program
        size = max(size // 2, 1)


def _still_fails(program: Program, engines: Sequence[str], races: bool) -> bool:
    """Whether a smaller program is one of the same kind that fails."""
    try:
        legal = checker.check(program, sim.load_memory(program)).ok
    except EndlessProgram:
        return False
    return (legal or races) and bool(compare(program, engines))


def fuzz(
    config: ChipConfig,
    count: int,
    seed: int,
    engines: Sequence[str],
    *,
    with_racy: bool = False,
    progress: Callable[[], None] = lambda: None,
    stop_after: int = 5,
) -> Outcome:
    """Run `count` random programs.

    Parameters
    ----------
    seed : of the first candidate; of some candidates the one that hits most new bins is taken, and
        the fewer programs there are, the longer they get.
    with_racy : also make each program racy, and ask the checker.
    progress : called after each program.
    stop_after : end early after so many failures.
    """
    outcome = Outcome(config, seed, tuple(engines))
    length = min(max(PROGRAMS // max(count, 1), 1), MAX_LENGTH)
    for turn in range(count):
        made = _candidate(outcome, seed + turn * SEARCH, length, count - turn)
        number = made.seed
        outcome.programs += 1
        outcome.faults += made.fault is not None
        what = compare(made.program, engines)
        if what:
            races = any(w.startswith("checker:") for w in what)
            small = shrink(made.program, partial(_still_fails, engines=engines, races=races))
            outcome.failures.append(Failure(number, tuple(what), small, len(made.program)))
        if with_racy:
            _race(outcome, made, number)
        progress()
        if len(outcome.failures) >= stop_after:
            break
    return outcome


def _candidate(outcome: Outcome, seed: int, length: int, left: int) -> Generated:
    """The next program: of CANDIDATES the one that hits most bins that none has hit yet.

    If none hits a new one, the search goes on through SEARCH seeds. The last of the `left` programs
    end in the faults that none has ended in.
    """
    best, most = None, -1
    ends = [b.removeprefix("fault/").upper() for b in outcome.missed if b.startswith("fault/")]
    ending = Fault[ends[0]] if ends and left <= len(ends) else None
    for number in range(seed, seed + SEARCH):
        made = generate(number, outcome.config, length=length, ending=ending)
        hit = bins(made.program)
        new = len(hit - outcome.hit)
        if new > most:
            best, best_hit, most = made, hit, new
        if not outcome.missed or (most and number >= seed + CANDIDATES - 1):
            break
    assert best is not None
    outcome.hit |= best_hit
    return best


def _race(outcome: Outcome, made, number: int) -> None:
    """Make the program racy; the checker must find it."""
    broken = racy(made, Random(number))
    if broken is None:
        return
    outcome.racy_programs += 1
    if checker.check(broken.program, sim.load_memory(broken.program)).ok:
        outcome.racy_missed.append(f"seed {number}: {broken.change}")
