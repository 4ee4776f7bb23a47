"""Repeated parts as Verilog modules of their own, converted once however often they are instanced.

Amaranth emits one module per instance. Under the elaboration platform `BlackBoxes` a part gives
itself as an instance of a named module instead, and the platform keeps what that module is. Under
any other platform it is an ordinary submodule.
"""

from collections.abc import Callable

from amaranth.back import verilog
from amaranth.hdl import ClockSignal, Const, Instance, Module, Value
from amaranth.lib.wiring import In
from tilewright.hw.lazy import lazy
from tilewright.hw.onestep import one_step


class BlackBoxes:
    """Elaboration platform that collects the modules which the design instances."""

    def __init__(self):
        self._texts: dict[str, Callable[[], str]] = {}

    def instance(self, part, name: str, text: Callable[[], str], **ports) -> Module:
        """A module that holds an instance of `name` with the ports of the component `part`.

        Parameters
        ----------
        text : gives the Verilog of `name`; called once, after elaboration.
        ports : further ports of the instance.
        """
        self._texts.setdefault(name, text)
        for path, member, value in part.signature.flatten(part):
            prefix = "i" if member.flow == In else "o"
            ports[f"{prefix}_{'__'.join(path)}"] = Value.cast(value)
        m = Module()
        m.submodules.box = Instance(name, **ports)
        return m

    def lane(self, part, name: str, domain: str, body=None, enable: str = "") -> Module:
        """As `instance`, for feed-forward logic without reset in one clock domain.

        Parameters
        ----------
        body : makes the part's module, if that is not what it elaborates to.
        enable : a port of the part; while it is 0 the registers of `body` stay.
        """

        def text():
            ports = [Value.cast(value) for _, _, value in part.signature.flatten(part)]
            logic = body() if body else part
            plain = verilog.convert(logic, name=name, ports=ports, emit_src=False)
            return keep_module(one_step(plain, f"{domain}_clk", enable), name)

        clock = {f"i_{domain}_clk": ClockSignal(domain), f"i_{domain}_rst": Const(0)}
        return self.instance(part, name, text, **clock)

    def module(self, part, name: str) -> Module:
        """As `instance`, for a part in domain "sync" as it elaborates, with submodules and ROMs."""

        def text():
            ports = [Value.cast(value) for _, _, value in part.signature.flatten(part)]
            plain = verilog.convert(part, name=name, ports=ports, emit_src=False)
            return keep_module(lazy(plain), name)

        return self.instance(part, name, text, i_clk=ClockSignal(), i_rst=Const(0))

    def sources(self) -> dict[str, str]:
        """File name -> Verilog of every module that was instanced."""
        return {f"{name}.v": text() for name, text in self._texts.items()}


def keep_module(text: str, name: str) -> str:
    """Have Verilator make one C++ class for all instances of module `name`.

    That is a fraction of the build time, and the code stays in the caches.
    """
    at = text.index(";", text.index(f"module {name}(")) + 1
    return f"{text[:at]} /*verilator no_inline_module*/{text[at:]}"
