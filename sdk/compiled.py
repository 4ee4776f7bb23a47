"""From a jaxpr to a checked program, and its runs on devices.

`lower_jaxpr` keeps what was traced, `Lowered.compile` makes the program and proves it legal and
race-free, `Compiled.execute` puts it and its arrays into a device's DRAM and queues the run.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
from tilewright import artifact_tree, profiler, sim
from tilewright.array import Array, put_leaf
from tilewright.compiler import emit, tree
from tilewright.compiler.copies import without_copies
from tilewright.compiler.core import Jaxpr, ShapedArray
from tilewright.compiler.donate import donate
from tilewright.compiler.effects import Extracted, extract, has_effects
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.fuse import fuse
from tilewright.compiler.kernels import Buffer
from tilewright.compiler.order import ordered
from tilewright.compiler.simplify import simplify
from tilewright.compiler.source import UNKNOWN, Source, user_source
from tilewright.compiler.trace import aval_of
from tilewright.compiler.unroll import unroll
from tilewright.config import nans_are_errors, settings
from tilewright.device import Device, current_device
from tilewright.isa.config import ChipConfig
from tilewright.isa.program import Place, Program
from tilewright.listing import listing
from tilewright.nans import check_nans
from tilewright.runs import execute_program

STAGES = ("jaxpr", "kernels", "tiles", "asm")
_LINKS = 8  # placements of one program whose code is kept


@dataclass(frozen=True, eq=False)
class MemoryAnalysis:
    """Bytes of DRAM that one call needs, under JAX's names."""

    argument_size_in_bytes: int
    output_size_in_bytes: int
    temp_size_in_bytes: int
    constant_size_in_bytes: int
    generated_code_size_in_bytes: int
    alias_size_in_bytes: int = 0


@dataclass(frozen=True, eq=False)
class Lowered:
    """A traced function for one chip, not compiled yet."""

    jaxpr: Jaxpr
    name: str
    config: ChipConfig
    in_tree: tree.PyTreeDef
    out_tree: tree.PyTreeDef
    source: Source = UNKNOWN
    donated: frozenset[int] = frozenset()

    def as_text(self, stage: str = "jaxpr") -> str:
        """Return one level of the compilation as text: jaxpr, kernels, tiles or asm."""
        return str(self.jaxpr) if stage == "jaxpr" else self.compile().as_text(stage)

    def compile(self) -> Compiled:
        """Return the program.

        **Raises** UnsupportedError, sim.checker.CheckError (a fault of the compiler).
        """
        return self._compiled

    @cached_property
    def _compiled(self) -> Compiled:
        effects = extract(self.jaxpr) if has_effects(self.jaxpr) else None
        simple = simplify(unroll(effects.jaxpr if effects else self.jaxpr))
        kernels = without_copies(ordered(fuse(simple, self.config)), self.donated)
        kernels = donate(kernels, self.donated)
        back = emit.compile_kernels(self.config, kernels)
        meta = {**back.program.meta, "equations": _equations(simple)}
        back = dataclasses.replace(back, program=dataclasses.replace(back.program, meta=meta))
        if settings.check_programs:
            from tilewright.sim import checker

            straight = back.straight
            checker.check(straight, sim.load_memory(straight)).require()
        return Compiled(self, simple, back, effects)


def _equations(jaxpr: Jaxpr) -> list[list[str]]:
    """[text, user's line] of each equation, for reports: `Origin.equation` numbers them."""
    avals = lambda xs: ", ".join(str(x.aval) for x in xs)  # noqa: E731
    return [
        [f"{avals(e.outputs)} = {e.primitive.name}({avals(e.inputs)})", str(e.source)]
        for e in jaxpr.eqns
    ]


def lower_jaxpr(
    jaxpr: Jaxpr,
    name: str,
    config: ChipConfig,
    in_tree: tree.PyTreeDef | None = None,
    out_tree: tree.PyTreeDef | None = None,
    source: Source = UNKNOWN,
    donated: Iterable[int] = (),
) -> Lowered:
    """Return a jaxpr as a lowered function; by default its arguments and results are flat.

    `donated` are the numbers of the leaves of the arguments that results may overwrite.
    """
    if in_tree is None:
        in_tree = tree.structure(((0,) * len(jaxpr.invars), {}))
    if out_tree is None:
        out_tree = tree.structure((0,) * len(jaxpr.outvars))
    return Lowered(jaxpr, name, config, in_tree, out_tree, source, frozenset(donated))


class Compiled:
    """A program for one chip and one set of argument types; call it with the dynamic arguments."""

    def __init__(
        self, lowered: Lowered, jaxpr: Jaxpr, back: emit.Compiled, effects: Extracted | None = None
    ):
        self.lowered, self.jaxpr, self.back, self.effects = lowered, jaxpr, back, effects
        self._lock = threading.Lock()
        self._linked: dict[tuple[int, ...], Program] = {}
        self._buffers = back.buffers
        known = set(back.kernels.inputs) | set(back.kernels.consts)
        self._fresh = [b for b in self._buffers if b not in known]
        self._outputs = set(back.kernels.outputs)
        written = back.kernels.written
        #: Numbers of the leaves that a call overwrites.
        self.overwritten = [i for i, b in enumerate(back.kernels.inputs) if b in written]

    @property
    def name(self) -> str:
        """The function's name."""
        return self.lowered.name

    @property
    def config(self) -> ChipConfig:
        """The chip that it is for."""
        return self.lowered.config

    @property
    def program(self) -> Program:
        """The program, its arrays laid out from address 0."""
        return self.back.program

    def as_text(self, stage: str = "jaxpr") -> str:
        """Return one level of the compilation as text: jaxpr, kernels, tiles or asm."""
        if stage not in STAGES:
            raise ValueError(f"stage must be one of {', '.join(STAGES)}, not {stage!r}")
        if stage == "asm":
            return listing(self.program)
        levels = {"jaxpr": self.jaxpr, "kernels": self.back.kernels, "tiles": self.back.tiles}
        return str(levels[stage])

    @cached_property
    def _execution(self) -> Any:
        from tilewright.sim.functional import Machine

        machine = Machine(self.config, sim.Memory(), data=False)
        return machine, machine.run(self.program.code)

    def cost_analysis(self) -> dict[str, float]:
        """Return what a run costs; where data decide its course, as if all words read were 0.

        Keys: macs (useful), padding macs, flops, bytes read, bytes written (on the data bus,
        whole beats), bytes accessed, instructions, cycles (exact for this layout), utilisation.
        """
        from tilewright.sim.cycle import time_program

        machine, execution = self._execution
        counters, beat = machine.counters, self.config.bus_bytes
        cycles = time_program(self.config, self.program.code).cycles
        macs = counters["macs_useful"]
        read, written = counters["beats_read"] * beat, counters["beats_written"] * beat
        return {
            "macs": macs,
            "padding macs": counters["macs_padding"],
            "flops": 2 * macs,
            "bytes read": read,
            "bytes written": written,
            "bytes accessed": read + written,
            "instructions": len(execution.executed),
            "cycles": cycles,
            "utilisation": macs / (self.config.dim**2 * cycles),
        }

    def memory_analysis(self) -> MemoryAnalysis:
        """Return the bytes of DRAM that one call needs."""
        kernels = self.back.kernels
        outputs = [b for b in dict.fromkeys(kernels.outputs) if b in set(self._fresh)]
        temps = [b for b in self._fresh if b not in self._outputs]
        size = lambda buffers: sum(b.nbytes for b in buffers)  # noqa: E731
        return MemoryAnalysis(
            size(kernels.inputs), size(outputs), size(temps), size(kernels.consts),
            len(self.program.code), size(kernels.inputs[i] for i in self.overwritten),
        )  # fmt: skip

    def save(self, path: str | PathLike[str]) -> None:
        """Write the program file; `tw.load` reads it, also where there is no compiler.

        Raises
        ------
        ProgramTreeError
            The arguments or results hold a class that only Python knows.
        UnsupportedError
            The program calls back (`tw.debug`).
        """
        if self.effects:
            raise UnsupportedError(f"{self.name} calls back (tw.debug), so it cannot be a file")
        trees = [artifact_tree.describe(t) for t in (self.lowered.in_tree, self.lowered.out_tree)]
        meta = {**self.program.meta, "name": self.name, "trees": trees}
        addresses = self.back.addresses
        places = tuple(Place(b.name, at, b.nbytes) for b, at in addresses.items())
        numbers = {b: i for i, b in enumerate(addresses)}
        table = [(r.number, r.at, numbers[r.buffer]) for r in self.back.relocs]
        relocs = np.array(table, "<u4").tobytes()
        dataclasses.replace(self.program, meta=meta, places=places, relocs=relocs).save(path)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run with arguments of exactly the types that it was compiled for."""
        leaves, in_tree = tree.flatten((args, kwargs))
        if in_tree != self.lowered.in_tree:
            raise OperandError(
                f"{self.name} was compiled for arguments {self.lowered.in_tree}, not {in_tree} "
                f"(at {user_source()})"
            )
        for i, (leaf, aval) in enumerate(zip(leaves, self.jaxpr.in_avals, strict=True)):
            found = aval_of(leaf)
            if (found.shape, found.dtype) != (aval.shape, aval.dtype):
                raise OperandError(
                    f"{self.name} was compiled for {aval} as leaf {i} of its arguments, "
                    f"not {found} (at {user_source()})"
                )
        device = common_device(self.name, leaves)
        if device.config != self.config:
            raise ValueError(
                f"{self.name} was compiled for {self.config.name}, not for {device}; compile it "
                "within tw.default_device(...) of a device with that chip"
            )
        source = user_source()
        label = str(source)
        arrays = [put_leaf(leaf, device, label=label) for leaf in leaves]
        return tree.unflatten(self.lowered.out_tree, self.execute(arrays, device, source))

    def _constants(self, device: Device) -> list[Array]:
        held = device.constants.get(self)
        if held is None:
            label = f"constants of {self.name} ({self.lowered.source})"
            held = [put_leaf(b.value, device, label=label) for b in self.back.kernels.consts]
            device.constants[self] = held
        return held

    def _link(self, addresses: dict[Buffer, int]) -> Program:
        key = tuple(addresses[b] for b in self._buffers)
        program = self._linked.pop(key, None)
        if program is None:
            move = lambda ports, buffers: tuple(  # noqa: E731
                dataclasses.replace(p, addr=addresses[b])
                for p, b in zip(ports, buffers, strict=True)
            )
            kernels, old = self.back.kernels, self.program
            program = dataclasses.replace(
                old, code=self.back.link(addresses), data=(),
                inputs=move(old.inputs, kernels.inputs), outputs=move(old.outputs, kernels.outputs),
            )  # fmt: skip
            if len(self._linked) >= _LINKS:
                self._linked.pop(next(iter(self._linked)))
        self._linked[key] = program
        return program

    def execute(self, leaves: Sequence[Array], device: Device, source: Source) -> list[Array]:
        """Queue one run on arrays of the device; return its results, which may not be there yet.

        Leaves that are overwritten are deleted. Waits if the program calls back, or if
        NaNs are errors.
        """
        kernels, label = self.back.kernels, str(source)
        given = list(map(np.asarray, leaves)) if nans_are_errors() else None
        with self._lock:
            arrays = dict(zip(kernels.consts, self._constants(device), strict=True))
        arrays |= dict(zip(kernels.inputs, self._own(leaves, device, label), strict=True))
        blocks = {b: a.block for b, a in arrays.items()}
        for buffer in self._fresh:
            who = label if buffer in self._outputs else f"temporaries of {label}"
            blocks[buffer] = device.pool.alloc(buffer.nbytes, who)
        future: Future[Any] = Future()
        if kernels.kernels:
            with self._lock:
                program = self._link({b: block.address for b, block in blocks.items()})
            program = dataclasses.replace(program, dram_size=device.pool.peak)
            pending = [a._future for a in arrays.values()]
            future = device.submit(
                execute_program, device, program, self.name, label, pending, profiler.active()
            )
            for profile in profiler.active():
                profile.expect(future)
        else:
            future.set_result(None)
        results, returned = [], set[Buffer]()
        for buffer, aval in zip(kernels.outputs, self.jaxpr.out_avals, strict=True):
            computed = buffer not in arrays or buffer in kernels.written
            blocks[buffer].shared |= not computed or buffer in returned
            returned.add(buffer)
            done = future if computed else arrays[buffer]._future
            results.append(Array(device, _held_as(buffer, aval), blocks[buffer], done))
        for i in self.overwritten:
            leaves[i].delete()
        if self.effects:
            count = len(results) - len(self.effects.shown)
            self.effects.run(list(map(np.asarray, results[count:])))
            del results[count:]
        if given is not None:
            check_nans(self.lowered, given, results, label)
        return results

    def _own(self, leaves: Sequence[Array], device: Device, label: str) -> list[Array]:
        """The leaves; those that are overwritten in memory of their own.

        **Raises** ValueError: one of them is given twice.
        """
        out, used = list(leaves), Counter(id(a.block) for a in leaves)
        for i in self.overwritten:
            if used[id(out[i].block)] > 1:
                raise ValueError(
                    f"{self.name} was given {out[i].aval} twice, but one of them is donated: its "
                    f"memory is overwritten (at {label}); pass a copy"
                )
            if out[i].block.shared:
                out[i] = put_leaf(np.asarray(out[i]), device, label=label)
        return out


def _held_as(buffer: Buffer, aval: ShapedArray) -> ShapedArray:
    assert buffer.dtype == aval.dtype, (buffer, aval)
    assert buffer.nbytes == aval.nbytes, (buffer, aval)
    return aval


def common_device(name: str, leaves: Sequence[Any]) -> Device:
    """Return the device of a call: its arrays', which must be one, else the default one.

    **Raises** ValueError: arrays of several devices.
    """
    found = {id(a.device): a.device for a in leaves if isinstance(a, Array)}
    if len(found) > 1:
        listed = " and ".join(map(str, found.values()))
        raise ValueError(
            f"the arguments of {name} must be on one device, not on {listed} (at {user_source()}); "
            "move them with tw.device_put(x, device)"
        )
    return next(iter(found.values())) if found else current_device()
