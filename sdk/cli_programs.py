"""Commands on programs: run, asm, disasm, check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from tilewright.cli import (
    chip_option,
    engine_option,
    json_option,
    print_json,
    program_argument,
    read_program,
)

if TYPE_CHECKING:
    from tilewright.isa.program import Port, Program
    from tilewright.sim import Memory, RunResult

inputs_option = click.option(
    "--input", "inputs", multiple=True, metavar="NAME=FILE.npy",
    help="An input's value; inputs which are not given are zero.",
)  # fmt: skip


def _dtype(name: str) -> np.dtype:
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def _size(port: Port) -> int:
    return int(np.prod(port.shape)) * _dtype(port.dtype).itemsize


def fill_inputs(program: Program, inputs: Sequence[str]) -> Memory:
    """DRAM with the program's data, and over them the inputs ``name=file.npy``.

    **Raises** click.ClickException: a wrong name, file, shape or dtype.
    """
    from tilewright import sim

    memory = sim.load_memory(program)
    ports = {p.name: p for p in program.inputs}
    for text in inputs:
        name, eq, path = text.partition("=")
        if not eq or name not in ports:
            known = ", ".join(ports) or "no inputs"
            raise click.ClickException(
                f"--input must be NAME=FILE.npy with a name of the program ({known}), not {text!r}"
            )
        port = ports[name]
        try:
            value = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise click.ClickException(f"{path}: is no .npy file ({error})") from None
        dtype = _dtype(port.dtype)
        if value.dtype.kind == "V" and value.dtype.itemsize == dtype.itemsize:
            value = value.view(dtype)  # .npy has no name for bfloat16
        if value.shape != port.shape or value.dtype != dtype:
            raise click.ClickException(
                f"{path}: input {name} must be {port.dtype}{list(port.shape)}, "
                f"not {value.dtype}{list(value.shape)}"
            )
        memory.write(port.addr, np.ascontiguousarray(value).tobytes())
    return memory


def _outputs(program: Program, memory: Memory) -> dict[str, np.ndarray]:
    return {
        p.name: memory.read(p.addr, _size(p)).view(_dtype(p.dtype)).reshape(p.shape)
        for p in program.outputs
    }


def _hex_dump(text: str, memory: Memory) -> str:
    """Bytes at ``address:count`` as hexadecimal lines."""
    try:
        low, count = (int(part, 0) for part in text.split(":"))
        if low < 0 or count < 1 or low + count > 1 << 32:
            raise ValueError(text)
    except ValueError:
        raise click.BadParameter(f"--dump must be ADDRESS:BYTES, not {text!r}") from None
    raw = memory.read(low, count).tobytes()
    return "\n".join(f"{low + i:#010x}  {raw[i : i + 16].hex(' ')}" for i in range(0, count, 16))


def _result_dict(result: RunResult, outputs: dict[str, np.ndarray]) -> dict[str, Any]:
    fault = result.fault
    return {
        "engine": result.engine,
        "cycles": result.cycles,
        "instructions": len(result.trace),
        "counters": {k: int(v) for k, v in result.counters.items()},
        "fault": None if fault is None else
            {"code": fault.code.name, "pc": fault.pc, "text": fault.text},
        "outputs": {k: (v.astype(np.float32) if v.dtype.kind == "V" else v).tolist()
                    for k, v in outputs.items()},
    }  # fmt: skip


def _print_result(program: Program, result: RunResult, outputs: dict[str, np.ndarray]) -> None:
    counters = result.counters
    clock = "no clock" if result.cycles is None else f"{result.cycles:,} cycles"
    click.echo(f"{result.engine} engine: {len(result.trace):,} instructions, {clock}")
    macs = counters["macs_useful"]
    line = f"{macs:,} MACs"
    if result.cycles:
        line += f" ({100 * macs / (program.config.dim**2 * result.cycles):.1f} % of the array)"
    click.echo(
        f"{line}, {counters['beats_read']:,} beats read, {counters['beats_written']:,} written"
    )
    for name, value in outputs.items():
        click.echo(f"{name} {value.dtype}{list(value.shape)}:")
        click.echo(np.array2string(value, threshold=64))


#: How a file of a trace is looked at.
_OPEN_WITH = {
    "timeline": "   (https://ui.perfetto.dev)",
    "GTKWave": "   (gtkwave FILE)",
    "Surfer": "   (surfer WAVES --command-file FILE)",
}


def _traced(
    program: Program, memory: Memory, folder: Path, engine: str, name: str,
    first: int, last: int | None,
) -> tuple[RunResult, dict[str, Path]]:  # fmt: skip
    """Run with a trace.

    **Raises** click.ClickException: the engine has no clock, wrong cycles, a package is missing.
    """
    from tilewright import waveforms

    try:
        return waveforms.record(program, memory, folder, engine, name, first, last)
    except waveforms.WaveError as error:
        raise click.ClickException(str(error)) from error


@click.command()
@program_argument
@engine_option()
@chip_option(default=None, help="The chip of assembly that has no .config line.")
@inputs_option
@click.option("--dump", multiple=True, metavar="ADDRESS:BYTES", help="Print DRAM after the run.")
@click.option("--save", type=click.Path(path_type=Path), metavar="DIR",
              help="Write each output as DIR/NAME.npy.")  # fmt: skip
@click.option("--trace", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Write the timeline for Perfetto there; with --engine rtl also the waves (FST) "
                   "and layouts for GTKWave and Surfer.")  # fmt: skip
@click.option("--trace-from", type=click.IntRange(min=0), metavar="CYCLE",
              help="First cycle of the waves.")  # fmt: skip
@click.option("--trace-to", type=click.IntRange(min=0), metavar="CYCLE",
              help="Last cycle of the waves.")  # fmt: skip
@click.option("--no-check", is_flag=True, help="Run even if the program is illegal or racy.")
@json_option
def run(file: Path, engine: str, config: Any, inputs: tuple[str, ...], dump: tuple[str, ...],
        save: Path | None, trace: Path | None, trace_from: int | None, trace_to: int | None,
        no_check: bool, as_json: bool) -> None:  # fmt: skip
    """Run a program file, or assembly (.s).

    \b
    Examples:
        tilewright run program.tw
        tilewright run add.s --engine rtl --dump 0x100:64
        tilewright run mlp.tw --input x=x.npy --save out --json
        tilewright run add.s --engine rtl --trace waves --trace-to 2000
    """
    from tilewright import sim
    from tilewright.runs import fault_error
    from tilewright.sim import checker

    if (trace_from, trace_to) != (None, None) and (trace is None or engine != "rtl"):
        raise click.UsageError("--trace-from and --trace-to need --trace and --engine rtl")
    program = read_program(file, config)
    memory = fill_inputs(program, inputs)
    if not no_check:
        checker.check(program, memory).require()
    loaded = replace(program, data=())  # it is in memory, under the inputs
    files: dict[str, Path] = {}
    if trace is None:
        result = sim.run(loaded, memory, engine=engine, check=False)
    else:
        first, last = trace_from or 0, trace_to
        result, files = _traced(loaded, memory, trace, engine, file.stem, first, last)
    outputs = _outputs(program, memory)
    if as_json:
        paths = {name: str(path) for name, path in files.items()}
        print_json(_result_dict(result, outputs) | ({"trace": paths} if files else {}))
    else:
        _print_result(program, result, outputs)
        for text in dump:
            click.echo(_hex_dump(text, memory))
        for name, path in files.items():
            click.echo(f"{name + ':':<10} {path}{_OPEN_WITH.get(name, '')}")
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        for name, value in outputs.items():
            np.save(save / f"{Path(name).name}.npy", value)
    if result.fault is not None:
        raise fault_error(program, result.fault, str(file))


@click.command()
@program_argument
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE",
              help="The program file; default: the source's name with .tw.")  # fmt: skip
@chip_option(default=None, help="The chip of assembly that has no .config line (default tw16).")
def asm(file: Path, out: Path | None, config: Any) -> None:
    """Assemble a text to a program file.

    \b
    Examples:
        tilewright asm add.s
        tilewright asm add.s -o add.tw --config tw4
    """
    from tilewright.isa.assembler import assemble_file

    program = assemble_file(file, config)
    out = out or file.with_suffix(".tw")
    if out.resolve() == file.resolve():
        raise click.UsageError(f"--out must not be the source file {file}")
    program.save(out)
    click.echo(f"{out}: {len(program)} instructions for {program.config.name}")


@click.command()
@program_argument
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the text there instead of printing it.")  # fmt: skip
def disasm(file: Path, out: Path | None) -> None:
    """Print a program file as assembly, which assembles back to the same program.

    \b
    Examples:
        tilewright disasm program.tw
        tilewright disasm program.tw -o program.s
    """
    from tilewright.isa.disassembler import disassemble_program

    text = disassemble_program(read_program(file))
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")


@click.command()
@program_argument
@chip_option(default=None, help="The chip of assembly that has no .config line.")
@inputs_option
@json_option
@click.pass_context
def check(
    ctx: click.Context, file: Path, config: Any, inputs: tuple[str, ...], as_json: bool
) -> None:
    """Prove a program legal and free of races, deadlocks and faults; exit code 1 if it is not.

    \b
    Examples:
        tilewright check program.tw
        tilewright check add.s --json
    """
    from tilewright.sim import checker

    program = read_program(file, config)
    report = checker.check(program, fill_inputs(program, inputs))
    fault = report.fault
    ok = report.ok and fault is None
    if as_json:
        print_json({
            "ok": ok,
            "instructions": report.instructions,
            "errors": [{"kind": f.kind, "text": f.text, "pcs": list(f.pcs)} for f in report.errors],
            "warnings": report.warnings,
            "fault": None if fault is None else
                {"code": fault.code.name, "pc": fault.pc, "text": fault.text},
        })  # fmt: skip
    else:
        if fault is not None and report.ok:
            click.echo(f"error: the program ends in {fault}")
        else:
            click.echo(str(report))
    if not ok:
        ctx.exit(1)
