"""A Verilog module around the chip that watches its pins in every cycle: top `bench`.

It has the chip's ports and three more: `violation` (a sticky bit for each rule of RULES), `flying`
(bursts outstanding on the instruction, read and write ports) and `counts` (how often each event of
`events` happened). Rules: AXI's, the chip's own (docs/microarchitecture.md §7 and DESIGN §4), and,
in a 4-state simulator, that no output is X after reset: valid, ready and the other single signals
ever, a payload while its valid is high. Data bytes that are not strobed may be X; here they are 0.
"""

from dataclasses import dataclass

from amaranth.hdl import Shape
from amaranth.lib.wiring import Out
from amaranth.utils import exact_log2
from tilewright.hw.axi import channels
from tilewright.hw.chip import Chip, boundary, port_prefix
from tilewright.isa.config import IBUS_BYTES, MAX_BURST, ChipConfig

TOP, CHIP = "bench", "tilewright"
OUTSTANDING = 64  # bursts in flight on a port, DESIGN §4
PORTS = ("instr", "read", "write")  # fields of `flying`, 8 bits each
LENGTHS = ("single", "short", "longest")
WIDTH = 24  # bits of a counter


@dataclass(frozen=True)
class Channel:
    """One AXI channel: `name` is its ports' prefix, as in `data_ar`."""

    name: str
    payload: tuple[str, ...]
    driven: bool  # the chip drives valid
    bytes: int  # of a beat of its port


def all_channels(config: ChipConfig) -> list[Channel]:
    """The twelve channels of the chip."""
    out = []
    for bus, (signature, master) in boundary(config).items():
        prefix = port_prefix(bus)
        size = {"host": 4, "instr": IBUS_BYTES}.get(prefix, config.bus_bytes)
        for name, payload in channels(signature).items():
            down = signature.members[f"{name}valid"].flow == Out
            members = tuple(f"{prefix}_{p}" for p in payload)
            out.append(Channel(f"{prefix}_{name}", members, down == master, size))
    return out


def _addresses(config: ChipConfig) -> list[Channel]:
    return [c for c in all_channels(config) if c.name in ("instr_ar", "data_ar", "data_aw")]


def events(config: ChipConfig) -> dict[str, str]:
    """Name of each counted event -> Verilog condition."""
    out = {}
    for c in all_channels(config):
        valid, ready = f"{c.name}valid", f"{c.name}ready"
        out[f"axi/{c.name}/taken_at_once"] = f"{valid} && {ready} && !held_{c.name}"
        out[f"axi/{c.name}/stalled"] = f"{valid} && !{ready}"
    for name in ("instr_r", "data_r", "data_w"):
        out[f"axi/{name}/gap_in_burst"] = f"!{name}valid && inside_{name}"
        out[f"axi/{name}/back_to_back"] = f"{name}valid && {name}ready && passed_{name}"
    for c in _addresses(config):
        sent, length = f"{c.name}valid && {c.name}ready", f"{c.name}len"
        tests = (f"{length} == 0", f"{length} > 0 && {length} < {MAX_BURST - 1}",
                 f"{length} == {MAX_BURST - 1}")  # fmt: skip
        for kind, test in zip(LENGTHS, tests, strict=True):
            out[f"axi/{c.name}/length/{kind}"] = f"{sent} && {test}"
        out[f"axi/{c.name}/ends_at_4kib"] = f"{sent} && end_{c.name} == 4096"
    out["axi/data_w/strobe/whole"] = "data_wvalid && data_wready && &data_wstrb"
    out["axi/data_w/strobe/partial"] = "data_wvalid && data_wready && !(&data_wstrb) && |data_wstrb"
    out["axi/data_w/strobe/none"] = "data_wvalid && data_wready && !(|data_wstrb)"
    out["axi/data_r/many_outstanding"] = "flying_read > 8"
    out["axi/data_w/many_outstanding"] = "flying_write > 8"
    for name in ("host_r", "host_b", "instr_r", "data_r", "data_b"):
        for kind, code in (("okay", 0), ("slverr", 2), ("decerr", 3)):
            sent = f"{name}valid && {name}ready && {name}resp == {code}"
            out[f"response/{name}/{kind}"] = sent
    return out


#: The chip answers its host OKAY always, fetches whole lines of two longest bursts, and has room
#: for each instruction and write response that it asked for.
IMPOSSIBLE = frozenset(
    ["response/host_r/slverr", "response/host_r/decerr"]
    + ["response/host_b/slverr", "response/host_b/decerr"]
    + ["axi/instr_r/stalled", "axi/data_b/stalled"]
    + [f"axi/instr_ar/length/{kind}" for kind in ("single", "short")]
)


def _rules(config: ChipConfig, outputs: dict[str, int]) -> dict[str, str]:
    """What is violated -> Verilog condition, sampled at rising edges after reset."""
    out = {}
    driven = [c for c in all_channels(config) if c.driven]
    payloads = {p for c in driven for p in c.payload}
    tagged = {f"trace_id_{unit}" for unit in ("load", "matmul", "vector", "store")}
    for name in sorted(outputs.keys() - payloads - tagged - {"trace_seq_pc"}):
        out[f"{name} is X"] = f"^{name} === 1'bx"
    for c in driven:
        for p in c.payload:
            out[f"{p} is X while valid"] = f"{c.name}valid && ^{p} === 1'bx"
            out[f"{p} changes while it is refused"] = f"held_{c.name} && old_{p} !== {p}"
        out[f"{c.name}valid falls while it is refused"] = f"held_{c.name} && !{c.name}valid"
    for i, unit in enumerate(("load", "matmul", "vector", "store")):
        out[f"trace_id_{unit} is X"] = f"trace_start[{i}] && ^trace_id_{unit} === 1'bx"
    out["trace_seq_pc is X"] = "trace_seq_begin && ^trace_seq_pc === 1'bx"
    for c in _addresses(config):
        on, size = f"{c.name}valid", exact_log2(c.bytes)
        out[f"{c.name}burst is not INCR"] = f"{on} && {c.name}burst != 1"
        out[f"{c.name}size is not the bus"] = f"{on} && {c.name}size != {size}"
        out[f"{c.name}len is too long"] = f"{on} && {c.name}len >= {MAX_BURST}"
        out[f"{c.name}id is not 0"] = f"{on} && {c.name}id != 0"
        out[f"{c.name}addr is not aligned"] = f"{on} && {c.name}addr[{size - 1}:0] != 0"
        out[f"{c.name} crosses 4 KiB"] = f"{on} && end_{c.name} > 4096"
    for port in PORTS:
        out[f"too many bursts in flight: {port}"] = f"flying_{port} > {OUTSTANDING}"
    out["wlast is not where AW said"] = "aw_seen != both && w_seen != both && " + (
        "aw_len[both[6:0]] != w_len[both[6:0]]"
    )
    return out


def _ports(config: ChipConfig) -> tuple[dict[str, int], dict[str, int]]:
    """Widths of the chip's inputs and outputs."""
    inputs, outputs = {}, {}
    chip = Chip(config)
    chip._MustUse__silence = True  # only its signature is wanted
    for name, member in chip.signature.members.items():
        into = outputs if member.flow == Out else inputs
        into[name] = Shape.cast(member.shape).width
    return inputs, outputs


def rules(config: ChipConfig) -> list[str]:
    """What each bit of `violation` means."""
    return list(_rules(config, _ports(config)[1]))


def _history(config: ChipConfig) -> list[str]:
    """Registers that remember the cycle before, bursts and what is outstanding."""
    lines, steps = [], []
    widths = _ports(config)[1]
    for c in all_channels(config):
        lines.append(f"reg held_{c.name} = 0, passed_{c.name} = 0;")
        steps.append(f"held_{c.name} <= live && {c.name}valid && !{c.name}ready;")
        steps.append(f"passed_{c.name} <= live && {c.name}valid && {c.name}ready;")
        for p in c.payload if c.driven else ():
            lines.append(f"reg [{widths[p] - 1}:0] old_{p};")
            steps.append(f"old_{p} <= {p};")
    for name in ("instr_r", "data_r", "data_w"):
        lines.append(f"reg inside_{name} = 0;")
        sent = f"{name}valid && {name}ready"
        steps.append(f"if (!live) inside_{name} <= 0;")
        steps.append(f"else if ({sent}) inside_{name} <= !{name}last;")
    for c in _addresses(config):
        end = f"{c.name}addr[11:0] + ({c.name}len + 1) * {c.bytes}"
        lines.append(f"wire [15:0] end_{c.name} = {end};")
    for port, ask, answer in (
        ("instr", "instr_ar", "instr_rvalid && instr_rready && instr_rlast"),
        ("read", "data_ar", "data_rvalid && data_rready && data_rlast"),
        ("write", "data_aw", "data_bvalid && data_bready"),
    ):
        lines.append(f"reg [7:0] flying_{port} = 0;")
        change = f"({ask}valid && {ask}ready) - ({answer})"
        steps.append(f"flying_{port} <= live ? flying_{port} + {change} : 0;")
    return [*lines, "always @(posedge clk) begin", *(f"  {s}" for s in steps), "end", _LENGTHS]


_LENGTHS = """\
reg [7:0] aw_len [0:127], w_len [0:127], aw_seen = 0, w_seen = 0, both = 0, w_beats = 0;
always @(posedge clk) if (!live) begin
  aw_seen <= 0; w_seen <= 0; both <= 0; w_beats <= 0;
end else begin
  if (data_awvalid && data_awready) begin
    aw_len[aw_seen[6:0]] <= data_awlen; aw_seen <= aw_seen + 1;
  end
  if (data_wvalid && data_wready) begin
    w_beats <= data_wlast ? 0 : w_beats + 1;
    if (data_wlast) begin w_len[w_seen[6:0]] <= w_beats; w_seen <= w_seen + 1; end
  end
  if (aw_seen != both && w_seen != both) both <= both + 1;
end"""


def verilog(config: ChipConfig) -> str:
    """Text of the module `bench`, which instances the chip."""
    inputs, outputs = _ports(config)
    counted, checked = events(config), _rules(config, outputs)
    extra = {
        "violation": len(checked),
        "flying": 8 * len(PORTS),
        "counts": WIDTH * len(counted),
    }
    sides = (("input", inputs), ("output", {**outputs, **extra}))
    ports = [f"{side} [{w - 1}:0] {n}" if w > 1 else f"{side} {n}" for side, s in sides
             for n, w in s.items()]  # fmt: skip
    names = [*inputs, *outputs]
    lines = [f"module {TOP}({', '.join(ports)});"]
    wired = {n: n for n in names} | {"data_wdata": "wdata"}
    lines.append(f"wire [{outputs['data_wdata'] - 1}:0] wdata;")
    lines.append(f"{CHIP} chip({', '.join(f'.{n}({w})' for n, w in wired.items())});")
    lanes = ", ".join(f"{{8{{data_wstrb[{i}]}}}}" for i in reversed(range(config.bus_bytes)))
    lines.append(f"assign data_wdata = wdata & {{{lanes}}};  // the others may be anything")
    lines.append("wire live = rst === 1'b0;")
    lines += _history(config)
    lines.append(f"reg [{len(checked) - 1}:0] broken = 0; assign violation = broken;")
    lines.append("always @(posedge clk) if (live) begin")
    lines += [f"  if ({test}) broken[{i}] <= 1;" for i, test in enumerate(checked.values())]
    lines.append("end")
    flying = ", ".join(f"flying_{port}" for port in reversed(PORTS))
    lines.append(f"assign flying = {{{flying}}};")
    for i, test in enumerate(counted.values()):
        lines.append(f"reg [{WIDTH - 1}:0] n{i} = 0;")
        lines.append(f"always @(posedge clk) if (live && ({test})) n{i} <= n{i} + 1;")
        lines.append(f"assign counts[{WIDTH * i} +: {WIDTH}] = n{i};")
    return "\n".join([*lines, "endmodule", ""])
