"""Slots that LOAD and STORE take for a row in DRAM, on average over rows `pitch` bytes apart.

A row is sent in the beats that it touches; rows that follow each other without a gap share beats
(docs/microarchitecture.md §3, §4). The formulas are exact for each offset in a beat; the average is
over the offsets that occur, all equally often.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import numpy as np
from tilewright.isa.config import ChipConfig

Numbers = np.ndarray  # of one value for each candidate
Number = TypeVar("Number", int, np.ndarray)


def beats(config: ChipConfig, size: Numbers, pitch: int, first: int = 0) -> Numbers:
    """Beats of a row of `size` bytes that shares none."""
    return _offsets(config, size, pitch, first)[1].mean(-1)


def load_slots(
    config: ChipConfig, size: Numbers, pitch: int, first: int, units: Numbers, paired: bool = False
) -> Numbers:
    """Slots of LOAD for a row of `size` bytes that becomes `units` local units.

    `paired`: of joined rows that are shorter than a beat, two are written in a slot.
    """
    o, ends = _offsets(config, size, pitch, first)
    new = np.maximum(ends - (o > 0), units[..., None])
    if paired and pitch < config.bus_bytes:
        o, two = _offsets(config, 2 * size, 2 * pitch, first)
        new = np.maximum(two - (o > 0), 1) / 2
    return np.where(size == pitch, new.mean(-1), ends.mean(-1))


def words(config: ChipConfig, units: Number, even: bool = False) -> Number:
    """Slots that a row of bytes needs at least, if its `units` follow each other.

    `even`: there is room for an even number of them.
    """
    halved = config.bus_bytes == config.dim
    return (units + even * halved) >> ((units % 2 == 0) | even) * halved


def store_slots(config: ChipConfig, size: Numbers, pitch: int, unit: int) -> Numbers:
    """Slots of STORE for a row of `size` bytes in units of `unit` bytes."""
    bus = config.bus_bytes
    o, ends = _offsets(config, size, pitch, 0)
    read = (o + ((size - 1) // unit * unit)[..., None]) // bus + 1
    whole = (o + size[..., None]) // bus
    return np.where(size == pitch, np.maximum(whole, read).mean(-1), ends.mean(-1))


@cache
def row_beats(config: ChipConfig, size: int, pitch: int, first: int = 0) -> float:
    """`beats` of one kind of row."""
    return float(beats(config, np.array(size), pitch, first))


@cache
def load_row(
    config: ChipConfig, size: int, pitch: int, first: int, units: int, paired: bool = False
) -> float:
    """`load_slots` of one kind of row."""
    return float(load_slots(config, np.array(size), pitch, first, np.array(units), paired))


@cache
def store_row(config: ChipConfig, size: int, pitch: int, unit: int) -> float:
    """`store_slots` of one kind of row."""
    return float(store_slots(config, np.array(size), pitch, unit))


def _offsets(config: ChipConfig, size: Numbers, pitch: int, first: int) -> tuple[Numbers, Numbers]:
    """Offsets of rows in their first beat; the beats that a row touches at each."""
    bus = config.bus_bytes
    step = np.gcd(pitch, bus)
    o = np.arange(first % step, bus, step)
    return o, -(-(size[..., None] + o) // bus)
