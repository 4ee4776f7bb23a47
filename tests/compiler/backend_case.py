"""Compile a traced function, check the program, run it, and compare bits with eval_jaxpr."""

import ml_dtypes
import numpy as np
from tilewright import sim
from tilewright.compiler.core import ShapedArray, eval_jaxpr
from tilewright.compiler.emit import compile_kernels
from tilewright.compiler.fuse import fuse
from tilewright.compiler.simplify import simplify
from tilewright.compiler.trace import trace_to_jaxpr
from tilewright.isa.config import parse_config
from tilewright.sim import checker

BF16 = np.dtype(ml_dtypes.bfloat16)
F32, I8, U8, I32, U32, BOOL = map(np.dtype, ("f4", "i1", "u1", "i4", "u4", "?"))
SMALL = "dim=2,spad_kib=4,acc_kib=2"
LEAST = "dim=2,spad_kib=1,acc_kib=1"
CONFIGS = ("tw4", SMALL, "tw8", "tw16", "dim=32,spad_kib=64,acc_kib=32", LEAST)
# NaNs with payload, infinities, zeros, subnormals, halves, limits of int32, int8, uint8
CORNERS = np.uint32(
    [
        *(0x7FC12345, 0xFF800001, 0x7F800000, 0xFF800000, 0, 0x80000000, 1, 0x80400000),
        *(0x00800000, 0x3F000000, 0xBFC00000, 0x40200000, 0x7F7FFFFF, 0x4F000000, 0xC3008000),
        *(0x43000000, 0x437F8000, 0xC3008001, 0x3F800000, 0xBF800000),
    ]
)


def array(rng, shape, dtype, special=False):
    """Random values of a dtype; `special` mixes in every kind of special value."""
    dtype, n = np.dtype(dtype), int(np.prod(shape))
    if dtype == BOOL:
        return rng.random(shape) < 0.5
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        x = rng.integers(info.min, info.max, shape, endpoint=True, dtype=dtype)
        edges = np.array([info.min, info.max, 0, 1], dtype)
        return np.where(rng.random(shape) < 0.2, rng.choice(edges, shape), x) if special else x
    x = (rng.standard_normal(shape) * 3).astype(np.float32)
    if special:
        odd = rng.choice(CORNERS, n).view(np.float32).reshape(shape)
        x = np.where(rng.random(shape) < 0.3, odd, x)
    if dtype == F32:
        return x
    return (x.view(np.uint32) >> 16).astype(np.uint16).view(BF16)


def jaxpr_of(function, *args):
    """The traced jaxpr."""
    return trace_to_jaxpr(function, [ShapedArray(np.shape(a), a.dtype) for a in args])[0]


def kernels_of(function, *args, config="tw4"):
    """The fused kernels."""
    return fuse(simplify(jaxpr_of(function, *args)), parse_config(config))


def compiled(function, *args, config="tw4", schedules=None):
    """The compiled program."""
    chip = parse_config(config)
    return compile_kernels(chip, fuse(simplify(jaxpr_of(function, *args)), chip), schedules)


def execute(back, *args, program=None):
    """Run a compiled program with the functional engine; the results."""
    program = program or back.program
    memory = sim.Memory(program.dram_size)
    for a, port in zip(args, program.inputs, strict=True):
        memory.write(port.addr, np.ascontiguousarray(a).tobytes())
    result = sim.run(program, memory, engine="functional")
    assert result.fault is None, result.fault
    out = []
    for port, buffer in zip(program.outputs, back.kernels.outputs, strict=True):
        raw = np.frombuffer(bytes(memory.read(port.addr, buffer.nbytes)), np.uint8)
        out.append(raw.view(buffer.dtype).reshape(port.shape))
    return out


def assert_same_bits(function, *args, config="tw4", schedules=None):
    """Compile, prove the program legal and race-free, run it, compare; return what was compiled."""
    jaxpr = jaxpr_of(function, *args)
    chip = parse_config(config)
    back = compile_kernels(chip, fuse(simplify(jaxpr), chip), schedules)
    checker.check(back.program, sim.load_memory(back.program)).require()
    want = eval_jaxpr(jaxpr, args, dim=back.config.dim)
    got = execute(back, *args)
    assert len(want) == len(got)
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        assert g.shape == w.shape and g.dtype == w.dtype, (i, g.shape, w.shape, g.dtype, w.dtype)
        if g.tobytes() != np.ascontiguousarray(w).tobytes():
            bad = np.argwhere(np.asarray(g != w) | (g != g))
            where = tuple(bad[0]) if len(bad) else "signs of zero or bits of NaN"
            what = f"result {i} differs at {where} on {config}"
            raise AssertionError(f"{what}:\n{jaxpr}\n{back.kernels}")
    return back
