"""What the search of a schedule tries: first shapes, changes of one field, and samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

from tilewright.compiler.schedule import Problem, Schedule, ceil_div
from tilewright.compiler.share import spad_banks
from tilewright.isa.config import BANKS, ChipConfig

#: Whether to begin with a head; to end with a tail: not, of few rows, of column groups only;
#: column blocks that are stored first.
SHAPES = ((1, 1, 0), (1, 2, 0), (1, 0, 0), (0, 0, 0), (1, 1, 1))


def shaped(config: ChipConfig, s: Schedule, shape: tuple[int, int, int]) -> Schedule:
    """A candidate with or without head, tail and lead."""
    head, tail, lead = shape
    d = min(s.mt, config.dim)
    return replace(s, head=d * head, tail=(0, few(config, s), s.mt)[tail], lead=lead)


def few(config: ChipConfig, s: Schedule) -> int:
    """Rows of a tail that is not the whole of a tile of `dim` rows, even if it is not cut."""
    return min(s.mt - 1, config.dim - 1)


def moves(config: ChipConfig, p: Problem, s: Schedule) -> Iterator[Schedule]:
    """Schedules that differ in one respect."""
    d, p = config.dim, p.oriented(s)
    k = p.segment or p.k
    for ka in (0, p.k, 2 * s.kt, 4 * s.kt, ceil_div(ceil_div(p.k, s.kt), 2) * s.kt):
        if s.kt < ka < p.k + s.kt or not ka:
            yield fitted(p, replace(s, ka=min(ka, p.k)))
    yield replace(s, head=0 if s.head else min(d, s.mt), across=False)
    yield replace(s, head=s.mt, across=False)
    if p.local == 1 and s.nt > d:
        yield replace(s, head=0, across=not s.across)
    for tail in (0, few(config, s), s.mt):
        yield replace(s, tail=tail)
    for lead in (0, 1, 2, 4):
        if lead < ceil_div(s.nt, d):
            yield replace(s, lead=lead)
    rest = p.n % d
    for last_n in (0, rest or d, d + rest, 2 * d + rest, 4 * d + rest):
        if last_n <= s.nt and last_n < p.n:
            yield replace(s, last_n=last_n)
    for value in (2, 4, 8):
        if value != s.parts:
            yield replace(s, parts=value)
    for value in (1, 2, 5, 7) if spad_banks(config) == BANKS else (2, 3, 4, 5):
        yield replace(s, a_banks=value)
    for mt in (s.mt - d, s.mt + d, ceil_div(s.mt, 2), 2 * s.mt, d, s.mt // d * d):
        if 0 < mt < p.m + d:
            mt = min(mt, p.m)
            yield fitted(p, replace(s, mt=mt))
    for kt in (ceil_div(ceil_div(s.kt, d), 2) * d, 2 * s.kt, k, d):
        if kt < k + d:
            yield fitted(p, replace(s, kt=min(kt, k)))
    for nt in (ceil_div(ceil_div(s.nt, d), 2) * d, 2 * s.nt, s.nt - d, s.nt + d, p.n):
        if 0 < nt < p.n + d:
            yield fitted(p, replace(s, nt=min(nt, p.n)))
    if s.ka:
        for value in (0, s.kt, 2 * s.kt):
            if value < s.ka:
                yield replace(s, first_k=value)
    for value in (d, 2 * d, 4 * d, 0):
        if value < s.kt:
            yield replace(s, last_k=value)
            if not s.ka:
                yield replace(s, first_k=value)
    for value in (d // 4, d // 2, d, 2 * d, 0):
        if value < s.mt < p.m:
            yield replace(s, last_m=value)
            yield replace(s, first_m=value, head=min(s.head, value or s.mt))


def sample(config: ChipConfig, p: Problem, swap: bool, rng: Random) -> Schedule:
    """A schedule of which each field is drawn from what is usual."""
    d = config.dim

    def blocks(length: int, *parts: int) -> list[int]:
        return [min(length, ceil_div(ceil_div(length, d), x) * d) for x in parts]

    mt = rng.choice([p.m, p.m, *(min(p.m, d * x) for x in (1, 2, 4, 8)),
                     *(ceil_div(p.m, x) for x in (2, 3, 4, 5, 6, 8))])  # fmt: skip
    nt = rng.choice([p.n, p.n, *(min(p.n, d * x) for x in (1, 2, 4, 8, 16)),
                     *blocks(p.n, 2, 3, 4, 5, 6)])  # fmt: skip
    k = p.segment or p.k
    kt = rng.choice([k, *(min(k, d * x) for x in (1, 1, 2, 4, 8)), *blocks(k, 2)])
    rest = p.n % d or d
    first_m = rng.choice([0, 0, d // 4, d // 2])
    last_m = rng.choice([0, 0, d // 4, d // 2, d])
    some: dict[str, Any] = {
        "first_m": first_m, "last_m": last_m, "last_n": rng.choice([0, 0, rest, rest + d]),
        "head": rng.choice([0, d // 2, d, mt]), "tail": rng.choice([0, min(d, mt) - 1, mt]),
        "first_k": rng.choice([0, 0, d]), "last_k": rng.choice([0, 0, d, 2 * d]),
    }  # fmt: skip
    s = Schedule(mt, nt, kt, rng.choice(["mn", "nm"]), lead=rng.choice([0, 0, 1, 2]), swap=swap,
                 ka=rng.choice([0, p.k, 4 * kt]), a_banks=rng.choice([1, 2, 5, 7]),
                 parts=rng.choice([2, 4, 8]),
                 across=p.local == 1 and nt > d and rng.random() < 0.3)  # fmt: skip
    return fitted(p, replace(s, **some))


def fitted(p: Problem, s: Schedule) -> Schedule:
    """The schedule with what its first and last tiles are cut into made to fit its sizes."""
    ka = s.ka * (not p.segment) * (s.kt < s.ka <= p.k and (s.ka == p.k or s.ka % s.kt == 0))
    first_k = s.first_k * (s.first_k < (ka or s.kt) and not (ka and s.first_k % s.kt))
    s = replace(
        s, first_m=min(s.first_m, s.mt) * (s.mt < p.m), last_m=min(s.last_m, s.mt) * (s.mt < p.m),
        last_n=min(s.last_n, s.nt) * (s.nt < p.n), tail=min(s.tail, s.mt),
        first_k=first_k, last_k=s.last_k * (s.last_k < s.kt), ka=ka,
    )  # fmt: skip
    return replace(s, head=min(s.head, s.first_m or s.mt) * (not s.across))
