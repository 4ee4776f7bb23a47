"""The world around one exported unit: clocks, local memories at their ports, instructions.

Ports have Amaranth's flat names: member `en` of port `spad` is `spad__en`. Reading a pin that is X
raises, so whatever a bench reads has been checked for X.
"""

import json
import os
import warnings
from random import Random

import cocotb
import numpy as np
from chip_bench import AxiBus, pauses  # noqa: F401  (silences cocotbext-axi's warnings)
from cocotb.triggers import RisingEdge, Timer
from simulators import SETTINGS
from tilewright.hw.payload import payload
from tilewright.isa.config import INSTR_BYTES, parse_config
from tilewright.isa.encoding import Instr, encode
from tilewright.isa.extent import derived
from tilewright.isa.instructions import INSTRUCTIONS
from tilewright.sim.functional import Machine
from tilewright.sim.generate import generate
from tilewright.sim.memory import Memory

CONFIG = parse_config(json.loads(os.environ[SETTINGS])["config"])
LONG = json.loads(os.environ[SETTINGS])["long"]
GAPS = (0, 4)
SEEDS = range(12) if LONG else range(3)
HALF_PERIOD = 5  # ns


def pack(layout, values) -> int:
    """A struct as an int."""
    word = 0
    for name, place in layout:
        word |= (int(values.get(name, 0)) & ((1 << place.width) - 1)) << place.offset
    return word


class Unit:
    """A unit with its clocks; inputs are 0 unless someone drives them.

    Members
    -------
    spad, acc : what its ports read and write, bytes and (rows, dim) int32.
    """

    def __init__(self, dut, seed: int = 0):
        warnings.simplefilter("ignore", DeprecationWarning)
        self.dut, self.rng = dut, Random(seed)
        self.pins = {p._name: p for p in dut if "$" not in p._name}
        rng = np.random.default_rng(seed)
        self.spad = rng.integers(0, 256, CONFIG.spad_granules * CONFIG.dim, np.uint8)
        self.acc = rng.integers(-(1 << 31), 1 << 31, (CONFIG.acc_rows, CONFIG.dim)).astype(np.int32)
        self.pulses = dict.fromkeys(("unit__done", "unit__read_release"), 0)
        self.started = 0

    async def reset(self, inputs: dict[str, int]):
        """Start the clocks, drive `inputs` (and reset) until all is in order."""
        clocks = [p for n, p in self.pins.items() if n.split("_")[-1] == "clk"]
        resets = [p for n, p in self.pins.items() if n.split("_")[-1] == "rst"]
        for name, value in inputs.items():
            self.pins[name].value = value
        for pin in resets:
            pin.value = 1

        async def clock():
            while True:
                for level in (1, 0):
                    for pin in clocks:
                        pin.value = level
                    await Timer(HALF_PERIOD, "ns")

        cocotb.start_soon(clock())
        await self.ticks(4)
        for pin in resets:
            pin.value = 0
        await self.ticks(2)

    async def ticks(self, count: int = 1):
        """Wait for rising edges; pins then still show the cycle that has ended."""
        for _ in range(count):
            await RisingEdge(self.dut.clk)

    def get(self, name: str) -> int:
        """A pin, which must not be X."""
        return int(self.pins[name].value)

    def serve(self, *ports: str):
        """Local memories behind read and write ports: `spad_r`, `acc`, ... by prefix."""
        for port in ports:
            reads = f"{port}__data" in self.pins and f"{port}__mask" not in self.pins
            reads &= port not in ("acc", "acc_w")
            cocotb.start_soon(self._reads(port) if reads else self._writes(port))

    async def _reads(self, port: str):
        """Data of a request at t are there at t + 2 and stay."""
        dim, following = CONFIG.dim, None
        while True:
            await self.ticks()
            if following is not None:
                for name, value in following.items():
                    self.pins[f"{port}__{name}"].value = value
            following = None
            if self.get(f"{port}__en"):
                at = self.get(f"{port}__addr")
                if port.startswith("acc"):
                    word = {"data": self.acc[at].tobytes()}
                else:
                    pair = self.spad[(at & ~1) * dim :][: 2 * dim].tobytes()
                    word = {"data": self.spad[at * dim :][:dim].tobytes(), "pair": pair}
                following = {n: int.from_bytes(b, "little") for n, b in word.items()}
                following = {n: v for n, v in following.items() if f"{port}__{n}" in self.pins}

    async def _writes(self, port: str):
        dim = CONFIG.dim
        while True:
            await self.ticks()
            if not self.get(f"{port}__en"):
                continue
            at = self.get(f"{port}__addr")
            bits = str(self.pins[f"{port}__data"].value)
            if port.startswith("acc"):
                self.acc[at] = np.frombuffer(int(bits, 2).to_bytes(4 * dim, "little"), np.int32)
                continue
            mask = self.get(f"{port}__mask")
            for half in range(2):
                if mask >> half & 1:  # the other half may be X
                    part = bits[(1 - half) * 8 * dim :][: 8 * dim]
                    word = np.frombuffer(int(part, 2).to_bytes(dim, "little"), np.uint8)
                    self.spad[((at & ~1) + half) * dim :][:dim] = word

    def count(self):
        """Count the unit's release pulses from now on."""

        async def forever():
            while True:
                await self.ticks()
                for name in self.pulses:
                    self.pulses[name] += self.get(name)
                    assert self.pulses[name] <= self.started, f"{name}: more than were started"

        cocotb.start_soon(forever())

    async def start(self, name: str, values: dict[str, int], **inputs: int):
        """Grant an item as soon as the unit is ready, after a random pause."""
        await self.ticks(1 + self.rng.choice((0, 0, 0, 1, 7)))
        while not self.get("unit__ready"):
            await self.ticks()
        self.pins["unit__instr"].value = pack(payload(name), values)
        for pin, value in inputs.items():
            self.pins[pin].value = value
        self.pins["unit__start"].value = 1
        self.started += 1
        await self.ticks()
        self.pins["unit__start"].value = 0

    async def drain(self, limit: int = 20000):
        """Wait until all that was started is done."""
        for _ in range(limit):
            if all(count == self.started for count in self.pulses.values()):
                return
            await self.ticks()
        raise AssertionError(f"started {self.started} items, but only {self.pulses} ended")


def instructions(name: str, seed: int) -> tuple[list[dict[str, int]], bytes]:
    """A unit's instructions out of a random program that has some, with what EXTENT computes; DRAM.

    The program is the first of the seeds `seed`, `seed` + 1000, ...
    """
    spec, out = INSTRUCTIONS[name], []
    while not out:
        program = generate(seed, CONFIG, faults=False).program
        memory = Memory(program.dram_size)
        for address, content in program.data:
            memory.write(address, content)
        start = memory.read(0, program.dram_size).tobytes()
        for e in Machine(CONFIG, memory).run(program.code).executed:
            if e.instr.spec.name == name:
                values = {f.name: e.values[f.name] for f in spec.fields}
                if name in ("load", "store"):
                    values["span"] = (values["c1"] * values["s1"]) % (1 << 32)  # if joined
                found = derived(CONFIG, spec, e.values) | values
                if name == "load":
                    back = values["skip1"] * values["s1"]
                    begin = values["dram"] + back + values["skip2"] * values["s2"]
                    found |= {"back": back % (1 << 32), "begin": begin % (1 << 32)}
                    if values["xpose"]:
                        found["row_elems"] = found["sequence"]
                out.append(found)
        seed += 1000
    return out, start


def expect(unit: Unit, name: str, items: list[dict[str, int]], dram: bytes):
    """What the functional engine leaves in (scratchpad, accumulator, DRAM)."""
    fields = [f.name for f in INSTRUCTIONS[name].fields]
    code = [encode(Instr.make(name, **{f: v[f] for f in fields})) for v in items]
    memory = Memory(len(dram))
    memory.write(0, dram)
    machine = Machine(CONFIG, memory)
    machine.spad[:], machine.acc[:] = unit.spad, unit.acc
    end = machine.run(b"".join([*code, encode(Instr.make("halt"))]))
    assert end.fault is None
    assert len(code[0]) == INSTR_BYTES
    return machine.spad, machine.acc, memory.read(0, len(dram)).tobytes()


def pause(channels, gap: int, seed: int):
    """Random back-pressure on AXI channels."""
    for i, channel in enumerate(channels if gap else ()):
        channel.set_pause_generator(pauses(Random(f"{seed} {i}"), gap))


async def move(unit: Unit, name: str, items: list[dict[str, int]], alone):
    """Run instructions back to back, but drain before those that `alone` says."""
    unit.count()
    for values in items:
        if alone(values):
            await unit.drain()
        await unit.start(name, values)
    await unit.drain()
    await unit.ticks(4)


def quiet(port: str, *names: str) -> dict[str, int]:
    """An AXI port's handshakes at rest, until a model drives them."""
    return {f"{port}__{name}": 0 for name in names}
