"""Estimate a mapped netlist's paths before it is placed: delays of ECP5's cells, one delay per net.

nextpnr knows where cells lie, this does not: a net costs `NET_NS`, but nothing inside of a slice
(carry to carry, LUT to its multiplexer). It takes seconds, and names the paths that pipelining has
to cut; only place-and-route says what clock is reached.
"""

import json
import re
from dataclasses import dataclass

#: A net between slices. Placed designs have 0.5 to 1.5; full devices are at the upper end.
NET_NS = 0.8
#: Clock to output of what begins a path, speed grade 6.
LAUNCH = {"TRELLIS_FF": 0.52, "DP16KD": 5.7}
#: Primitives whose inputs end a path; reading LUT RAM does not end one.
ENDS = {"TRELLIS_FF", "DP16KD", "TRELLIS_DPR16X4"}
NO_END = {"CLK", "CLKA", "CLKB", "WCK", "RAD"}
#: (Cell, input) pairs whose net lies inside of a slice.
INSIDE = {("CCU2C", "CIN"), ("PFUMX", "ALUT"), ("PFUMX", "BLUT"), ("L6MUX21", "D0"),
          ("L6MUX21", "D1")}  # fmt: skip
_SUFFIX = re.compile(
    r"_(?:TRELLIS_FF|LUT4|CCU2C|PFUMX|L6MUX21|DP16KD|MULT18X18D|TRELLIS_DPR16X4)_.*"
)


def signal_name(cell: str) -> str:
    """The signal that Yosys named a cell after."""
    return _SUFFIX.sub("", cell).removeprefix("chip.")


def arc(kind: str, into: str, out: str) -> float | None:
    """Nanoseconds from an input to an output of a cell; None if there is no such path."""
    if kind == "CCU2C":
        if into == "CIN":
            return 0.07 if out == "COUT" else 0.4
        return None if out == "S0" and into.endswith("1") else 0.45
    if (kind, into) in INSIDE:
        return 0.0
    if kind == "TRELLIS_DPR16X4":
        return 0.24 if into == "RAD" else None
    return {"LUT4": 0.24, "PFUMX": 0.24, "L6MUX21": 0.24, "MULT18X18D": 3.9}.get(kind)


@dataclass(frozen=True)
class TimingPath:
    """The longest path from one register to the registers of one unit or signal."""

    nanoseconds: float
    source: str
    target: str
    cells: int
    via: tuple[str, ...]


class Netlist:
    """Arrival times of a flat netlist (Yosys' JSON)."""

    def __init__(self, text: str):
        self.cells = json.loads(text)["modules"]["top"]["cells"]
        self.drivers, self.arrival, self.before = {}, {}, {}
        for name, cell in self.cells.items():
            for port, bits in cell["connections"].items():
                if cell["port_directions"].get(port) == "output":
                    self.drivers |= {bit: (name, port) for bit in bits}

    def inputs(self, bit):
        """(Bit, its port, nanoseconds from it to `bit`) of all that `bit` is computed from."""
        name, out = self.drivers[bit]
        cell = self.cells[name]
        for port, bits in cell["connections"].items():
            if cell["port_directions"].get(port) != "input":
                continue
            through = arc(cell["type"], port, out)
            if through is not None:
                net = 0.0 if (cell["type"], port) in INSIDE else NET_NS
                yield from ((b, net + through) for b in bits if not isinstance(b, str))

    def settle(self, goal) -> float:
        """When `goal` has its value, after the clock's edge; there are no loops (`check`)."""
        todo = [goal]
        while todo:
            bit = todo[-1]
            kind = self.cells[self.drivers[bit][0]]["type"] if bit in self.drivers else ""
            if bit in self.arrival:
                todo.pop()
            elif kind in LAUNCH or not kind:
                self.arrival[bit], self.before[bit] = LAUNCH.get(kind, 0.0), None
            else:
                sources = list(self.inputs(bit))
                missing = [b for b, _ in sources if b not in self.arrival]
                todo += missing
                if not missing:
                    at = [(self.arrival[b] + delay, b) for b, delay in sources]
                    latest = max(at, default=(0.0, None), key=lambda x: x[0])
                    self.arrival[bit], self.before[bit] = latest
        return self.arrival[goal]

    def trace(self, bit) -> list[str]:
        """Cells of the longest path to `bit`, first to last."""
        names = []
        while bit in self.drivers:
            names.append(self.drivers[bit][0])
            bit = self.before[bit]
        return names[::-1]

    def paths(self, count: int) -> list[TimingPath]:
        """The longest path of each pair of register and group of registers, longest first."""
        ends = []
        for name, cell in self.cells.items():
            for port, bits in cell["connections"].items() if cell["type"] in ENDS else ():
                if cell["port_directions"].get(port) == "input" and port not in NO_END:
                    known = {b for b in bits if not isinstance(b, str)}
                    ends += [(self.settle(b) + NET_NS, name, b) for b in known]
        ends.sort(key=lambda end: (-end[0], end[1]))
        found: dict[tuple[str, str], TimingPath] = {}
        for time, name, bit in ends:
            cells = self.trace(bit)
            source = signal_name(cells[0]) if cells else "a pin"
            target = signal_name(name)
            pair = source, ".".join(target.split(".")[:2])
            if pair not in found:
                via = tuple(dict.fromkeys(map(signal_name, cells)))
                found[pair] = TimingPath(time, source, target, len(cells), via)
            if len(found) == count:
                break
        return list(found.values())
