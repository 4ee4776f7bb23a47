"""The C driver: firmware runs artifacts on the RTL through the chip's pins, as the engines do."""

import re
import shutil
import struct
import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import tilewright as tw
from click.testing import CliRunner
from tilewright import c_source, cli, demo, sim
from tilewright.isa.config import PRESETS, parse_config
from tilewright.isa.encoding import Instr, encode
from tilewright.isa.program import Port, Program
from tilewright.isa.registers import COUNTERS, REGISTERS, UNIT_COUNTERS, geometry_word
from tilewright.isa.table import Conv, Fault, Unit
from tilewright.sim import cycle, rtl_build
from tilewright.sim.result import QUEUED

HERE = Path(__file__).parent
CONFIG = parse_config("dim=2,spad_kib=4,acc_kib=2")  # as other tests: its model is built once
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-O1"]
OK, FAULTED, STOPPED, TIMEOUT, IDLE, BUSY = range(6)
NO_CHIP, WRONG_CHIP, FIXED, MISALIGNED, OVERLAP, NO_PORT = range(6, 12)
WINDOW = (0, 0xFFF)
I = Instr.make  # noqa: E741
LOAD = I("load", c0=8, c1=4, s1=16, l1=4, conv=Conv.COPY8)
FAULTS = {
    "opcode": (I("fence"), b"\x3f" + bytes(63)),
    "window": (I("li", rd=1, b=0x2000), I("load", c0=8, dram=0x2000, conv=Conv.COPY8), I("halt")),
    "range": (LOAD, I("store", c0=8, c1=9, l1=1 << 15, s1=16, dst=0x800), I("halt")),
    "pc": (I("fence"),),
    "semaphore": (I("post", sem=3, n=200), I("post", sem=3, n=200), I("halt")),
    "deadlock": (LOAD, I("store", c0=8, dst=0x800, wait0=9, wait0_n=1), I("halt")),
}


def command(*args):
    done = CliRunner().invoke(cli.main, list(map(str, args)))
    assert done.exit_code == 0, done.output
    return done.output


def compiler():
    try:
        rtl_build.require_tools()
        rtl_build.verilator_root()
    except rtl_build.RtlUnavailableError as error:
        pytest.skip(str(error))
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc (Debian: apt-get install gcc)")


def run(*args, **more):
    done = subprocess.run(list(map(str, args)), capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def program_of(*instrs):
    code = b"".join(i if isinstance(i, bytes) else encode(i) for i in instrs)
    return Program(CONFIG, code, dram_size=0)


def c_bytes(name, array):
    values = ", ".join(map(str, np.ascontiguousarray(array).view(np.uint8).ravel().tolist()))
    return f"static const uint8_t {name}[] = {{{values}}};\n"


class Firmware:
    """What the firmware is made of: artifacts, inputs, and the program itself."""

    def __init__(self, folder):
        self.folder = folder
        (network,) = (n for n in demo.networks()[0] if n.name == "int8")
        self.layers, self.images = network.layers, network.images[:16]
        rng = np.random.default_rng(5)
        self.x = rng.standard_normal((5, 6), np.float32)
        self.w = rng.standard_normal((6, 7), np.float32)
        with tw.default_device(tw.Device(CONFIG, "functional")):
            digits = network.function.lower(self.layers, self.images)
            dense = tw.jit(lambda x: x @ self.w).lower(self.x)  # its weights are the program's data
            digits.compile().save(folder / "digits.tw")
            dense.compile().save(folder / "dense.tw")
        (folder / "tilewright.h").write_text(command("header", "--config", CONFIG.geometry))
        for name in ("digits", "dense"):
            file = folder / f"{name}.h"
            command("export-c", folder / f"{name}.tw", "--name", name, "--out", file)
        program_of(I("jmp", target=0)).save(folder / "endless.tw")
        command("export-c", folder / "endless.tw", "--out", folder / "endless.h")
        text = []
        for name, instrs in FAULTS.items():
            source = c_source.program_source(program_of(*instrs), f"fault_{name}")
            (folder / f"fault_{name}.h").write_text(source)
            text.append(f'#include "fault_{name}.h"\n')
        pointers = ", ".join(f"&fault_{name}" for name in FAULTS)
        text.append(f"static const tw_program *const faults[] = {{{pointers}}};\n")
        (folder / "faults.h").write_text("".join(text))
        (folder / "inputs.h").write_text(self.inputs())
        for name in ("firmware", "bench"):
            flags = ["-ffreestanding"] if name == "firmware" else []
            run("gcc", *STRICT, *flags, f"-I{folder}", "-c", HERE / f"{name}.c",
                "-o", folder / f"{name}.o")  # fmt: skip
        model = rtl_build.library(CONFIG)
        run("gcc", folder / "bench.o", folder / "firmware.o", model, "-o", folder / "bench")

    def inputs(self):
        """C arrays of what the firmware writes, and the name of the digits' last input."""
        arrays = [a for layer in self.layers for a in layer] + [self.images]
        text = [c_bytes(f"digits_in{i}", array) for i, array in enumerate(arrays)]
        names = ", ".join(f"digits_in{i}" for i in range(len(arrays)))
        text.append(f"static const uint8_t *const digits_in[] = {{{names}}};\n")
        port = tw.load(self.folder / "digits.tw").inputs[-1]
        text.append(f'#define IMAGES "{port.name}"\n')
        return "".join(text) + c_bytes("dense_x", self.x)

    def reports(self, stall=0):
        """name -> bytes of each report with that name."""
        found = defaultdict(list)
        for line in run(self.folder / "bench", stall, timeout=100).splitlines():
            name, _, content = line.partition(" ")
            found[name].append(bytes.fromhex(content))
        return found


@pytest.fixture(scope="module")
def firmware(tmp_path_factory):
    compiler()
    return Firmware(tmp_path_factory.mktemp("firmware"))


@pytest.fixture(scope="module")
def reports(firmware):
    return firmware.reports()


def numbers(reports, prefix):
    """Reports with one number, without their prefix."""
    return {
        name.removeprefix(prefix): [struct.unpack("<I", x)[0] for x in values]
        for name, values in reports.items()
        if name.startswith(prefix) and all(len(x) == 4 for x in values)
    }


def test_firmware_needs_nothing_of_the_host(firmware):
    symbols = run("nm", "-u", firmware.folder / "firmware.o").split()[1::2]
    allowed = {"memcpy", "memset", "memmove", "memcmp"}  # what GCC may call in freestanding code
    assert {s for s in symbols if not s.startswith("bench_")} <= allowed


def test_digits_equal_every_engine_bit_for_bit(firmware, reports):
    loaded = tw.load(firmware.folder / "digits.tw")
    for engine in ("functional", "cycle"):
        want = loaded(firmware.layers, firmware.images, engine=engine)
        assert want.shape == (16, 10)
        for name in ("digits.output", "scattered.output", "again.output"):
            assert reports[name] == [want.tobytes()]
    found = {k: v for k, v in numbers(reports, "digits.").items() if k != "output"}
    assert found == {
        "load": [OK, OK], "input": [OK] * 20, "images": [9, 9], "start": [OK, OK],
        "wait": [OK, OK], "no_fault": [Fault.NONE] * 2,
    }  # fmt: skip


def test_counters_equal_the_cycle_engine_s(firmware, reports):
    loaded = tw.load(firmware.folder / "digits.tw")
    want = loaded.run(firmware.layers, firmware.images, engine="cycle").counters
    form = "<" + "".join("IQ"[c.words - 1] for c in COUNTERS.values())
    form = form.replace("<I", "<I4x", 1)  # C aligns the first 64 bits
    size = struct.calcsize(form)
    for name in ("digits.counters", "again.counters"):
        (raw,) = reports[name]
        found = dict(zip(COUNTERS, struct.unpack_from(form, raw), strict=True))
        units = iter(struct.unpack_from(f"<{4 * len(UNIT_COUNTERS)}I", raw, size))
        for unit in QUEUED:
            found |= {f"{unit.name.lower()}_{c}": next(units) for c in UNIT_COUNTERS}
        assert found == want


def test_waiting_by_interrupt(reports):
    found = numbers(reports, "irq.")
    assert found["running"] == [0] and found["ended"] == [1]
    assert found["status"] == [2] and found["after"] == [IDLE]
    assert found["acknowledged"] == [0]
    assert numbers(reports, "scattered.")["looks"] == [OK]


def test_faults_are_the_engine_s(reports):
    want = []
    for instrs in FAULTS.values():
        code = program_of(*instrs).code
        want.append(cycle.run(CONFIG, code, sim.Memory(), window=WINDOW).fault)
    assert [f.code.name.lower() for f in want] == list(FAULTS)
    assert reports["fault.name"] == [f.code.name.encode() for f in want]
    found = numbers(reports, "fault.")
    assert found["pc"] == [f.pc for f in want]
    assert found["load"] == [OK] * len(want) and found["wait"] == [FAULTED] * len(want)
    units = [Unit.SEQ, Unit.LOAD, Unit.STORE, Unit.SEQ, Unit.SEQ, Unit.STORE]
    assert reports["fault.unit"] == [u.name.encode() for u in units]


def test_abort_and_watchdog_and_the_next_program(firmware, reports):
    found = numbers(reports, "endless.")
    assert found == {
        "timeout": [TIMEOUT], "busy_load": [BUSY], "busy_start": [BUSY],
        "aborted": [FAULTED], "abort_code": [Fault.ABORT],
        "watched": [FAULTED], "watchdog_code": [Fault.WATCHDOG],
    }  # fmt: skip
    want = tw.load(firmware.folder / "dense.tw")(firmware.x, engine="functional")
    assert reports["dense.output"] == reports["last.output"] == [want.tobytes()]
    assert numbers(reports, "dense.")["wait"] == [OK, OK]


def test_refusals(reports):
    assert numbers(reports, "refused.") == {
        "misaligned": [MISALIGNED], "code_in_data": [OVERLAP], "data_in_code": [OVERLAP],
        "chip": [WRONG_CHIP], "fixed": [FIXED], "input": [NO_PORT], "output": [NO_PORT],
        "name": [10],
    }  # fmt: skip
    assert numbers(reports, "")["idle"] == [IDLE]
    assert numbers(reports, "")["probe"] == [OK] and numbers(reports, "")["geometry"] == [1]


def test_breakpoint(reports):
    found = numbers(reports, "break.")
    assert found == {"wait": [STOPPED], "pc": [5], "end": [OK]}
    assert numbers(reports, "")["semaphore"] == [0]


def test_stalling_channels_change_no_bit(firmware, reports):
    found = firmware.reports(stall=30)
    for name in ("digits.output", "scattered.output", "dense.output", "again.output", "fault.name"):
        assert found[name] == reports[name]


@pytest.mark.parametrize("config", ["tw4", "tw16", "dim=4,spad_kib=8,acc_kib=4,array=int8"])
@pytest.mark.parametrize("tool", [["gcc", "-x", "c"], ["g++", "-std=c++17", "-x", "c++"]])
def test_header_compiles_with_its_default_hooks(tmp_path, config, tool):
    if shutil.which(tool[0]) is None:
        pytest.skip(f"needs {tool[0]} (Debian: apt-get install {tool[0]})")
    text = c_source.header(parse_config(config))
    assert f"#define TW_GEOMETRY {geometry_word(parse_config(config)):#x}u" in text
    path = tmp_path / "tilewright.h"
    path.write_text(text)
    strict = [flag for flag in STRICT if "std" not in flag or tool[0] == "gcc"]
    run(*tool[:1], *strict, "-ffreestanding", *tool[1:], "-fsyntax-only", path)


def test_programs_with_odd_names_are_c(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc (Debian: apt-get install gcc)")
    ports = (Port('x["a"]??/\n\\é', (), "int8", 64), Port("*/", (0, 3), "bool", 128))
    program = Program(PRESETS["tw4"], encode(I("halt")), ((0, b""),), ports, meta={"name": "λ*/"})
    (tmp_path / "tilewright.h").write_text(c_source.header(PRESETS["tw4"]))
    (tmp_path / "p.h").write_text(c_source.program_source(program, c_source.c_name("1st λ-net")))
    (tmp_path / "p.c").write_text(
        '#include "p.h"\n#include <stdio.h>\n'
        "int main(void) { printf(\"%s\", _1st_net.inputs[0].name); return 0; }\n"
    )  # fmt: skip
    run("gcc", *STRICT, tmp_path / "p.c", "-o", tmp_path / "p")
    assert run(tmp_path / "p") == ports[0].name


def test_export_c_refuses_a_name_that_is_none(tmp_path):
    program_of(I("halt")).save(tmp_path / "p.tw")
    done = CliRunner().invoke(cli.main, ["export-c", str(tmp_path / "p.tw"), "--name", "a-b"])
    assert done.exit_code == 2 and re.search("must be a C name such as a_b, not 'a-b'", done.output)


def test_default_hooks_link_as_the_sdk_does(tmp_path):
    """Registers and DRAM that are arrays: the code is what `Compiled.link` makes."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc (Debian: apt-get install gcc)")
    w = np.arange(42, dtype=np.float32).reshape(6, 7)
    network = tw.jit(lambda x: x @ w @ w.T @ w)
    compiled = network.lower(np.zeros((5, 6), np.float32)).compile()
    compiled.save(tmp_path / "dense.tw")
    (tmp_path / "tilewright.h").write_text(c_source.header(compiled.config))
    command("export-c", tmp_path / "dense.tw", "--name", "dense", "--out", tmp_path / "dense.h")
    run("gcc", *STRICT, f"-I{tmp_path}", HERE / "memory.c", "-o", tmp_path / "memory")
    lines = (line.split(" ") for line in run(tmp_path / "memory").splitlines())
    found = {name: bytes.fromhex(content) for name, content in lines}
    addresses = struct.unpack(f"<{len(found['addresses']) // 4}I", found["addresses"])
    assert len(set(addresses)) == len(compiled.back.buffers) > 2
    want = compiled.back.link(dict(zip(compiled.back.buffers, addresses, strict=True)))
    assert found["code"] == want != compiled.program.code
    assert found["data"] == compiled.program.data[0][1]
    assert found["input"][:12] == np.float32([1, 2, 3]).tobytes()
    words = np.frombuffer(found["registers"], "<u4")
    want = {"CTRL": 1, "STATUS": 2, "CODE_BASE": 0x5000, "CODE_COUNT": len(compiled.program)}
    assert {name: words[REGISTERS[name].offset // 4] for name in want} == want


def test_the_document_s_example_compiles(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc (Debian: apt-get install gcc)")
    text = (HERE.parent.parent / "docs" / "driver.md").read_text()
    (code,) = re.findall(r"```c\n(.*?)```", text, re.DOTALL)
    (tmp_path / "tilewright.h").write_text(c_source.header(PRESETS["tw16"]))
    source = c_source.program_source(program_of(I("halt")), "digits")
    (tmp_path / "digits.h").write_text(source)
    prototypes = (
        "#include <stdint.h>\nint report(const char *fault, const char *unit, uint32_t pc);\n"
        "int classify(const void *images, void *logits);\n"
    )
    (tmp_path / "main.c").write_text(prototypes + code)
    run("gcc", *STRICT, "-ffreestanding", "-c", tmp_path / "main.c",
        "-o", tmp_path / "main.o")  # fmt: skip
