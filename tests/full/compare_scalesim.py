"""SCALE-Sim 3 beside tilewright: cycles, utilisation and wall time of six layers.

    python tests/full/compare_scalesim.py                    # SCALE-Sim weight-stationary, as tw16
    python tests/full/compare_scalesim.py --dataflow os      # its output-stationary array
    python tests/full/compare_scalesim.py --venv DIR --json  # keep its environment; print JSON

SCALE-Sim needs NumPy 1, so it gets an environment of its own (about 45 s to make), and runs there
with an array, memories and bandwidth like the chip's. It replays addresses: no program and no
result. Ours is one call of a jitted function on the cycle engine: trace, schedule, program, timing,
bytes; NumPy checks the result. docs/comparison.md says what the figures mean.
"""

import argparse
import csv
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tilewright as tw
import tilewright.numpy as tnp
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from tilewright import bench, lax
from tilewright.isa.config import ChipConfig, parse_config
from tilewright.sim import cycle

__tilewright_user_code__ = True
REQUIREMENTS = ("scalesim==3.0.0", "numpy<2")
DATAFLOWS = ("ws", "os")
COLUMNS = (
    "cycles T", "cycles S", "S stalled", "% T", "% S", "no stall", "s T", "CPU T", "s S", "CPU S"
)  # fmt: skip
KERNEL = 3  #: Of the convolutions: padded by 1, so that the picture keeps its size.

#: Run in SCALE-Sim's environment: config, topology, layout, result folder, names of the layers.
RUNNER = """
import json, sys, time
from importlib.metadata import version
from scalesim import simulator
from scalesim.scale_sim import scalesim

config, topology, layout, folder, *names = sys.argv[1:]
run, spent = simulator.layer_sim.run, []

def timed(layer):
    wall, cpu = time.perf_counter(), time.process_time()
    run(layer)
    spent.append([time.perf_counter() - wall, time.process_time() - cpu])
    print(f"SCALE-Sim: {names[len(spent) - 1]} took {spent[-1][0]:.1f} s", file=sys.stderr)

simulator.layer_sim.run = timed
tool = scalesim(save_disk_space=True, verbose=False, config=config, topology=topology,
                layout=layout)
tool.run_scale(top_path=folder)
versions = {name: version(name) for name in ("scalesim", "numpy")}
with open(folder + "/spent.json", "w") as out:
    json.dump({"spent": spent, "versions": versions}, out)
"""


class ScalesimError(RuntimeError):
    """SCALE-Sim cannot be installed or run, or its report is not understood."""


@dataclass(frozen=True)
class Gemm:
    """int8 (M, K) times int8 (K, N), requantised."""

    m: int
    n: int
    k: int

    @property
    def name(self) -> str:
        return f"{self.m} x {self.n} x {self.k}"

    @property
    def macs(self) -> int:
        return self.m * self.n * self.k

    @property
    def topology(self) -> tuple[int, ...]:
        """As SCALE-Sim's own reader writes M, N, K: one window of 1 x K slides over M rows."""
        return self.m, self.k, 1, self.k, 1, self.n, 1

    def arguments(self) -> list[np.ndarray]:
        return bench.gemm_arguments(self.m, self.n, self.k)

    def expected(self, x, w, scale) -> np.ndarray:
        return bench.expected_gemm(x, w, scale)

    def __call__(self, *arguments):
        return bench.int8_gemm(*arguments)


@tw.jit
def int8_conv(x, w, scale):
    """int8 NHWC with int8 HWIO, stride 1, requantised with one scale per channel."""
    y = lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=tnp.int32,
    )  # fmt: skip
    return tnp.clip(tnp.round(y.astype(tnp.float32) * scale), -128, 127).astype(tnp.int8)


@dataclass(frozen=True)
class Conv:
    """int8 3 x 3 convolution of one square picture, stride 1, requantised. SCALE-Sim's batch is 1.

    Its pictures are padded before it sees them: it computes no padding of its own.
    """

    size: int
    channels: int
    filters: int

    @property
    def name(self) -> str:
        return f"conv {self.size} x {self.size}, {self.channels} -> {self.filters}"

    @property
    def macs(self) -> int:
        return self.size**2 * KERNEL**2 * self.channels * self.filters

    @property
    def topology(self) -> tuple[int, ...]:
        padded = self.size + KERNEL - 1
        return padded, padded, KERNEL, KERNEL, self.channels, self.filters, 1

    def arguments(self) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        x = rng.integers(-128, 128, (1, self.size, self.size, self.channels), np.int8)
        w = rng.integers(-128, 128, (KERNEL, KERNEL, self.channels, self.filters), np.int8)
        return [x, w, rng.uniform(1e-4, 1e-3, self.filters).astype(np.float32)]

    def expected(self, x, w, scale) -> np.ndarray:
        """Tap by tap, by NumPy; sums are exact in float64."""
        padded = np.pad(x[0].astype(np.float64), ((1, 1), (1, 1), (0, 0)))
        y = sum(
            padded[i : i + self.size, j : j + self.size] @ w[i, j].astype(np.float64)
            for i in range(KERNEL)
            for j in range(KERNEL)
        )
        return np.clip(np.rint(y.astype(np.float32) * scale), -128, 127).astype(np.int8)[None]

    def __call__(self, *arguments):
        return int8_conv(*arguments)


LAYERS = (
    Gemm(512, 512, 512), Gemm(3136, 512, 128), Gemm(784, 1024, 256),
    Conv(56, 64, 64), Conv(28, 128, 128), Conv(14, 256, 256),
)  # fmt: skip


@dataclass(frozen=True)
class Ours:
    """A jitted call on the cycle engine; a second one (`again`) has its program at hand."""

    cycles: int
    utilisation: float
    seconds: float
    cpu_seconds: float
    again_cpu_seconds: float


@dataclass(frozen=True)
class Theirs:
    """SCALE-Sim's figures of a layer.

    `cycles` run from the first word read from DRAM to the last one written, as ours do;
    `compute_cycles` (its "Total Cycles") leave out first fill and last drain, and its own
    utilisation is of these; `stall_free_utilisation` leaves out its stalls, too.
    """

    cycles: int
    compute_cycles: int
    stall_cycles: int
    own_utilisation: float
    utilisation: float = 0.0
    stall_free_utilisation: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def config_text(config: ChipConfig, dataflow: str) -> str:
    """SCALE-Sim's configuration for a chip: scratchpad halved between its two operands' memories.

    In its mode USER the operands' bandwidths are those of section `layout`, `Bandwidth` is that of
    the output; all are words of one byte per cycle.
    """
    half, bus = config.spad_kib // 2, config.bus_bytes
    layout = "".join(
        f"{name}CustomLayout = False\n{name}SRAMBankBandwidth = {bus}\n"
        f"{name}SRAMBankNum = 1\n{name}SRAMBankPort = 1\n"
        for name in ("Ifmap", "Filter")
    )
    return f"""[general]
run_name = {dataflow}
[run_presets]
InterfaceBandwidth = USER
UseRamulatorTrace = False
[architecture_presets]
ArrayHeight = {config.dim}
ArrayWidth = {config.dim}
IfmapSramSzkB = {half}
FilterSramSzkB = {half}
OfmapSramSzkB = {config.acc_kib}
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = {dataflow}
Bandwidth = {bus}
ReadRequestBuffer = 64
WriteRequestBuffer = 64
[layout]
{layout}[sparsity]
SparsitySupport = False
"""


def topology_text(layers) -> str:
    """SCALE-Sim's list of layers; each line ends with a comma."""
    head = "layer, IFMAP height, width, filter height, width, channels, filters, stride"
    rows = [(layer.name.replace(",", ""), *layer.topology) for layer in layers]
    return "".join(f"{line},\n" for line in (head, *(", ".join(map(str, row)) for row in rows)))


def parse_report(text: str) -> list[Theirs]:
    """COMPUTE_REPORT.csv, one entry for each layer, in order.

    Raises
    ------
    ScalesimError
        A column is missing, or the layers are not numbered 0, 1, 2, ...
    """
    head, *rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text))]
    entries = [dict(zip(head, row, strict=True)) for row in rows]
    try:
        if [int(entry["LayerID"]) for entry in entries] != list(range(len(rows))):
            raise ScalesimError(f"layers must be numbered 0, 1, 2, ..., in the report:\n{text}")
        return [
            Theirs(
                int(entry["Total Cycles (incl. prefetch)"]), int(entry["Total Cycles"]),
                int(entry["Stall Cycles"]), float(entry["Overall Util %"]) / 100,
            )
            for entry in entries
        ]  # fmt: skip
    except KeyError as missing:
        raise ScalesimError(f"SCALE-Sim's report must have a column {missing}:\n{text}") from None


def call(command: list[str], doing: str, **options) -> None:
    """Run a command; what it printed is in the error's text."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, **options)
    if done.returncode:
        log = f"{done.stdout}{done.stderr or ''}"[-2000:]
        raise ScalesimError(f"{doing} must end with 0, not {done.returncode}:\n{log}")


def environment(folder: Path) -> Path:
    """Its Python: an environment with SCALE-Sim and NumPy 1, made if it is not there.

    Raises
    ------
    ScalesimError
        pip cannot install it.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    call([*pip, *REQUIREMENTS], "pip install of SCALE-Sim", stderr=subprocess.STDOUT)
    return python


def run_scalesim(python: Path, layers, config: ChipConfig, dataflow: str):
    """Figures of each layer, and versions of SCALE-Sim and its NumPy."""
    with tempfile.TemporaryDirectory(prefix="tilewright-scalesim-") as name:
        work = Path(name)
        (work / "chip.cfg").write_text(config_text(config, dataflow))
        (work / "layers.csv").write_text(topology_text(layers))
        (work / "layout.csv").write_text("Layer,\n")  # it wants the file, and reads no more of it
        command = [str(python), "-c", RUNNER, "chip.cfg", "layers.csv", "layout.csv", "out"]
        variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        names = [layer.name for layer in layers]
        call([*command, *names], "SCALE-Sim", cwd=work, env=variables)
        found = parse_report((work / "out" / dataflow / "COMPUTE_REPORT.csv").read_text())
        extra = json.loads((work / "out" / "spent.json").read_text())
    out = []
    for layer, one, (wall, cpu) in zip(layers, found, extra["spent"], strict=True):
        at_best = layer.macs / config.dim**2
        more = {
            "utilisation": at_best / one.cycles,
            "stall_free_utilisation": at_best / (one.compute_cycles - one.stall_cycles),
            "seconds": wall,
            "cpu_seconds": cpu,
        }
        out.append(Theirs(**asdict(one) | more))
    return out, extra["versions"]


def run_ours(layer, config: ChipConfig) -> Ours:
    """The layer from `jit` on the cycle engine, with an empty cache; NumPy checks the result."""
    arguments, device = layer.arguments(), tw.Device(config, "cycle")

    def timed():
        cycle.forget()
        wall, cpu = time.perf_counter(), time.process_time()
        with tw.profile() as profile:
            got = np.asarray(layer(*tw.device_put(arguments, device)))
        return time.perf_counter() - wall, time.process_time() - cpu, profile, got

    with bench.fresh_cache():
        (first, cpu, profile, got), (_, again, *_) = timed(), timed()
    if not np.array_equal(got, layer.expected(*arguments)):
        raise AssertionError(f"the result of {layer.name} is wrong")
    return Ours(profile.cycles, profile.utilisation, first, cpu, again)


def comparison_table(config: ChipConfig, dataflow: str, rows) -> Table:
    """One row for each layer."""
    title = f"{config.name} (T) and SCALE-Sim 3, {dataflow} (S): cycles, utilisation, seconds"
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("layer", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for layer, ours, theirs in rows:
        table.add_row(
            layer.name, f"{ours.cycles:,}", f"{theirs.cycles:,}", f"{theirs.stall_cycles:,}",
            f"{100 * ours.utilisation:.1f}", f"{100 * theirs.utilisation:.1f}",
            f"{100 * theirs.stall_free_utilisation:.1f}", f"{ours.seconds:.2f}",
            f"{ours.cpu_seconds:.2f}", f"{theirs.seconds:.1f}", f"{theirs.cpu_seconds:.1f}",
        )  # fmt: skip
    return table


def main(arguments: list[str], layers=LAYERS) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=parse_config, default="tw16", help="preset or geometry")
    parser.add_argument("--dataflow", choices=DATAFLOWS, default="ws", help="of SCALE-Sim's array")
    parser.add_argument("--venv", type=Path, help="folder of SCALE-Sim's environment, kept")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    config, dataflow = options.config, options.dataflow
    print("installing SCALE-Sim ...", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="tilewright-venv-") as temporary:
        python = environment((options.venv or Path(temporary)).absolute())
        ours = [run_ours(layer, config) for layer in layers]
        theirs, versions = run_scalesim(python, layers, config, dataflow)
    rows = list(zip(layers, ours, theirs, strict=True))
    versions |= {"tilewright": tw.__version__, "python": platform.python_version()}
    if options.json:
        listed = [
            {"layer": a.name, "macs": a.macs, "tilewright": asdict(b), "scalesim": asdict(c)}
            for a, b, c in rows
        ]
        out = {"config": config.name, "dataflow": dataflow, "versions": versions, "layers": listed}
        print(json.dumps(out, indent=2))
        return 0
    Console(width=120).print(comparison_table(config, dataflow, rows))
    for name, figures in (("tilewright", ours), ("SCALE-Sim", theirs)):
        wall, cpu = sum(f.seconds for f in figures), sum(f.cpu_seconds for f in figures)
        print(f"{name}: {wall:.1f} s in all, {cpu:.1f} s of CPU")
    again = sum(b.again_cpu_seconds for b in ours)
    print(f"tilewright, each called again: {again:.2f} s of CPU in all")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
