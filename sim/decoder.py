"""Words to checked instructions, each combination of operands once, with all that follows from it.

A `Prepared` instruction holds what every execution of it shares: the functional engine's work and
data movement, the timing model's lowered form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tilewright.isa.config import ChipConfig
from tilewright.isa.encoding import Instr, check_rules, decode, resolve, rules
from tilewright.isa.extent import check_range, dram_extent
from tilewright.isa.table import Rule, Spec, Unit
from tilewright.sim import exec_load, exec_matmul, exec_store, exec_vector

if TYPE_CHECKING:
    from tilewright.sim.functional import Machine

KEPT = 1 << 16  # prepared instructions that are remembered
_PREPARE: dict[Unit, Callable[[ChipConfig, Mapping[str, int]], Callable[[Machine], None]]] = {
    Unit.LOAD: exec_load.prepare,
    Unit.MATMUL: exec_matmul.prepare,
    Unit.STORE: exec_store.prepare,
    Unit.VECTOR: exec_vector.prepare,
}


def work_of(config: ChipConfig, unit: Unit, v: Mapping[str, int]) -> tuple[int, int, int]:
    """Beats, useful MACs, padding MACs of an instruction."""
    if unit is Unit.LOAD:
        return exec_load.beats(v, config.bus_bytes), 0, 0
    if unit is Unit.STORE:
        return exec_store.beats(v, config.bus_bytes), 0, 0
    if unit is Unit.MATMUL:
        return 0, *exec_matmul.macs(v, config.dim)
    return 0, 0, 0


def counted(config: ChipConfig, unit: Unit, v: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """What an instruction of a unit adds to the untimed counters."""
    beats, useful, padding = work_of(config, unit, v)
    out = [(f"{unit.name.lower()}_instructions", 1)]
    if unit is Unit.MATMUL:
        out += [("macs_useful", useful), ("macs_padding", padding)]
    elif unit is not Unit.VECTOR:
        out += [("beats_read" if unit is Unit.LOAD else "beats_written", beats)]
    return tuple(out)


class Prepared:
    """What one word with given register operands does, whenever it is executed.

    Members: `instr`; its mnemonic `name` and `unit`; `values`, resolved; `dram`, (access, first,
    last byte) or None; of a unit's instruction the `waits` and `signals` in order and what it adds
    to the counters, `counts`; `run`, what it does to a machine's data, made when it is first
    wanted; `lowered`, where `timing_ops` keeps its own.
    """

    __slots__ = (
        "_run",
        "config",
        "counts",
        "dram",
        "instr",
        "lowered",
        "name",
        "signals",
        "unit",
        "values",
        "waits",
    )

    def __init__(self, config: ChipConfig, instr: Instr, values: Mapping[str, int]):
        v = values
        self.config, self.instr, self.values = config, instr, v
        self.name, self.unit = instr.spec.name, instr.spec.unit
        self.dram = dram_extent(instr.spec, v)
        self.lowered: Any = None
        self.waits: tuple[tuple[int, int], ...] = ()
        self.signals: tuple[int, ...] = ()
        self.counts: tuple[tuple[str, int], ...] = ()
        self._run: Callable[[Machine], None] | None = None
        if self.unit is not Unit.SEQ:
            self.waits = tuple((v[f"wait{i}"], v[f"wait{i}_n"]) for i in "01" if v[f"wait{i}_n"])
            self.signals = tuple(v[f"{s}_sem"] for s in ("rd", "done") if v[f"{s}_en"])
            self.counts = counted(config, self.unit, v)

    def run(self, machine: Machine) -> None:
        """Move and compute the data of a unit's instruction."""
        if self._run is None:
            self._run = _PREPARE[self.unit](self.config, self.values)
        self._run(machine)


class Decoder:
    """Decodes and checks words for one geometry, each combination of operands once."""

    def __init__(self, config: ChipConfig):
        self.config = config
        self._known: dict[object, Prepared] = {}
        self._rules: dict[int, tuple[Rule, ...]] = {}

    def __call__(self, word: bytes, regs: list[int]) -> Prepared:
        """The checked instruction.

        Raises
        ------
        IllegalInstruction
            With the fault that the chip reports.
        """
        known = self._known.get(word)
        if known is not None:
            return known
        instr = decode(word)
        key: object = word
        if instr.regs:
            named = (name for name in instr.spec.reg_bit if name in instr.regs)
            key = (word, *[regs[instr.values[name]] for name in named])
            known = self._known.get(key)
            if known is not None:
                return known
        values = resolve(instr, regs)
        self._keep_rules(instr.spec, values)
        check_range(self.config, instr.spec, values)
        prepared = Prepared(self.config, instr, values)
        if len(self._known) > KEPT:
            self._known.clear()
        self._known[key] = prepared
        return prepared

    def _keep_rules(self, spec: Spec, values: Mapping[str, int]) -> None:
        """`check_rules`, with the rules found once for each opcode."""
        known = self._rules.get(spec.opcode) or self._rules.setdefault(
            spec.opcode, rules(spec, self.config.array)
        )
        full = {"opcode": spec.opcode, **values}
        if not all(rule.holds(full) for rule in known):
            check_rules(spec, values, self.config.array)
