"""AXI channels and the register slices between them.

A signature is written from the master's side: `Out(AXIRead(...))` is a master's port, `In(...)` a
slave's. The members have the standard lower-case names, so that the exported Verilog has them too.
"""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

ID_BITS = 1  # everything uses id 0


def _check(data: int, legal: range | tuple[int, ...]) -> None:
    if data not in legal:
        raise ValueError(f"data width must be one of {tuple(legal)} bits, not {data!r}")


_WIDTHS = tuple(8 << i for i in range(8))


def _address(prefix: str, addr: int) -> dict[str, wiring.Member]:
    return {
        f"{prefix}id": Out(ID_BITS),
        f"{prefix}addr": Out(addr),
        f"{prefix}len": Out(8),
        f"{prefix}size": Out(3),
        f"{prefix}burst": Out(2),
        f"{prefix}valid": Out(1),
        f"{prefix}ready": In(1),
    }


class AXIRead(wiring.Signature):
    """AR and R of a master, `addr` and `data` bits wide."""

    def __init__(self, addr: int = 32, data: int = 128):
        _check(data, _WIDTHS)
        self.addr, self.data = addr, data
        super().__init__(
            _address("ar", addr)
            | {
                "rid": In(ID_BITS),
                "rdata": In(data),
                "rresp": In(2),
                "rlast": In(1),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class AXIWrite(wiring.Signature):
    """AW, W and B of a master, `addr` and `data` bits wide."""

    def __init__(self, addr: int = 32, data: int = 128):
        _check(data, _WIDTHS)
        self.addr, self.data = addr, data
        super().__init__(
            _address("aw", addr)
            | {
                "wdata": Out(data),
                "wstrb": Out(data // 8),
                "wlast": Out(1),
                "wvalid": Out(1),
                "wready": In(1),
                "bid": In(ID_BITS),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
            }
        )


class AXILite(wiring.Signature):
    """All five AXI4-Lite channels of a master, 32 data bits."""

    def __init__(self, addr: int = 12):
        self.addr = addr
        super().__init__(
            {
                "awaddr": Out(addr),
                "awprot": Out(3),
                "awvalid": Out(1),
                "awready": In(1),
                "wdata": Out(32),
                "wstrb": Out(4),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
                "araddr": Out(addr),
                "arprot": Out(3),
                "arvalid": Out(1),
                "arready": In(1),
                "rdata": In(32),
                "rresp": In(2),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class Slice(wiring.Component):
    """Full register slice: payload, valid and ready all come from registers; one entry of skid.

    The output register holds the head; what arrives in the cycle in which the output is first
    refused is parked in the skid register, and `i_ready` falls.

    Parameters
    ----------
    width : bits of the payload.

    **Members** : i_data, i_valid, i_ready (a sink); o_data, o_valid, o_ready (a source).

    **Timing** : latency 1 cycle (i at t is o at t + 1), throughput 1.
    """

    def __init__(self, width: int):
        self.width = width
        super().__init__(
            {
                "i_data": In(width),
                "i_valid": In(1),
                "i_ready": Out(1),
                "o_data": Out(width),
                "o_valid": Out(1),
                "o_ready": In(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        head = Signal(self.width, reset_less=True)
        skid = Signal(self.width, reset_less=True)
        valid = Signal()
        free = Signal(init=1)  # the skid register is empty
        m.d.comb += [self.o_data.eq(head), self.o_valid.eq(valid), self.i_ready.eq(free)]
        with m.If(~valid | self.o_ready):
            m.d.sync += [free.eq(1), valid.eq(self.i_valid | ~free)]
            with m.If(~free):
                m.d.sync += head.eq(skid)
            with m.Elif(self.i_valid):
                m.d.sync += head.eq(self.i_data)
        with m.Elif(self.i_valid & free):
            m.d.sync += [skid.eq(self.i_data), free.eq(0)]
        return m


def channels(signature: wiring.Signature) -> dict[str, list[str]]:
    """Payload members of each channel, by prefix (`ar`, `r`, `aw`, `w`, `b`), in declared order.

    >>> channels(AXILite())["w"]
    ['wdata', 'wstrb']
    """
    names = list(signature.members)
    prefixes = [n.removesuffix("valid") for n in names if n.endswith("valid")]
    longest = sorted(prefixes, key=len, reverse=True)
    out: dict[str, list[str]] = {p: [] for p in prefixes}
    for name in names:
        prefix = next(p for p in longest if name.startswith(p))
        if name not in (f"{prefix}valid", f"{prefix}ready"):
            out[prefix].append(name)
    return out


class BusSlice(wiring.Component):
    """A `Slice` in each channel of an AXI port.

    Parameters
    ----------
    signature : `AXIRead`, `AXIWrite` or `AXILite`.

    **Members** : s (towards the master), m (towards the slave).

    **Timing** : one cycle in each channel, throughput 1.
    """

    def __init__(self, signature: wiring.Signature):
        super().__init__({"s": In(signature), "m": Out(signature)})

    def elaborate(self, platform) -> Module:
        m = Module()
        for prefix, names in channels(self.m.signature).items():
            down = self.m.signature.members[f"{prefix}valid"].flow == Out
            src, dst = (self.s, self.m) if down else (self.m, self.s)
            payload = [(getattr(src, n), getattr(dst, n)) for n in names]
            m.submodules[prefix] = part = Slice(sum(len(a) for a, _ in payload))
            m.d.comb += [
                part.i_data.eq(Cat(a for a, _ in payload)),
                part.i_valid.eq(getattr(src, f"{prefix}valid")),
                getattr(src, f"{prefix}ready").eq(part.i_ready),
                Cat(b for _, b in payload).eq(part.o_data),
                getattr(dst, f"{prefix}valid").eq(part.o_valid),
                part.o_ready.eq(getattr(dst, f"{prefix}ready")),
            ]
        return m
