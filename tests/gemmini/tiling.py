"""A tiled matrix product as a program: double buffers in scratchpad and accumulator.

Semaphores: 0 operands loaded, 1 their buffer is free again, 2 a result is complete, 3 its place is
free again, 4 the scales are loaded.
"""

from tests.gemmini.bench import blocks


def move(b, loc, address, rows, columns, pitch, step, transposed=False, clauses=""):
    """LOAD int8 rows to scratchpad rows, unit j at ``loc + j*step``; gives the number of LOADs.

    `transposed`: DRAM holds (columns, rows). `clauses` go to the first LOAD; all signal s0.
    """
    if not transposed:
        b += f"load spad[{loc}], dram[{address}], copy8, c0={columns} c1={rows} s1={pitch} \
l0={step} l1=1 {clauses} ; done s0"
        return 1
    for first in range(0, rows, b.dim):
        b += f"load spad[{loc + first}], dram[{address + first}], copy8, xpose \
c0={min(b.dim, rows - first)} c1={columns} s1={pitch} l0=1 l1={step} {clauses} ; done s0"
        clauses = ""
    return blocks(rows, b.dim)


def tiled(b, a, w, out, tile, *, a_transposed=False, w_transposed=False, d=None, repeat=False,
          scales=None, flags="", kind="i8", path=""):  # fmt: skip
    """Add the program of out = epilogue(a @ w + d).

    Parameters
    ----------
    a, w, out : rooms; `tile` is (rows, contraction, columns) of one tile.
    d : room of int32 or int8, for all rows, or one row that repeats; None is zero.
    scales : room of (1, N) float32.
    flags, kind, path : of the STORE.
    """
    (m, n), k = out.shape, a.shape[0 if a_transposed else 1]
    tm, tk, tn = tile
    spad, acc = b.config.spad_bank, b.config.acc_bank
    wide, steps, results = out.dtype.itemsize, 0, 0
    b += "post s1, 2"
    b += "post s3, 2"
    if scales is not None:
        b += f"load acc[{7 * acc}], dram[{scales.address}], copy32, c0={n} l0=1 ; done s4"
    for i in range(0, m, tm):
        for j in range(0, n, tn):
            rows, columns = min(tm, m - i), min(tn, n - j)
            c = results % 2 * 3 * acc
            ready = 0
            if d is not None:
                size = d.dtype.itemsize
                at = d.address + (0 if repeat else i * d.pitch) + j * size
                conv = "copy32" if size == 4 else "i8_i32"
                b += f"load acc[{c}], dram[{at}], {conv}, c0={columns} c1={rows} \
s1={0 if repeat else d.pitch} l0={rows} l1=1 ; wait s3>=1 ; done s0"
                ready = 1
            for x in range(0, k, tk):
                depth, p = min(tk, k - x), steps % 2
                deep = blocks(depth, b.dim) * b.dim
                at = a.address + (x * a.pitch + i if a_transposed else i * a.pitch + x)
                ready += move(b, 2 * p * spad, at, rows, depth, a.pitch, rows, a_transposed,
                              "; wait s1>=1")  # fmt: skip
                at = w.address + (j * w.pitch + x if w_transposed else x * w.pitch + j)
                ready += move(b, (4 + 2 * p) * spad, at, depth, columns, w.pitch, deep,
                              w_transposed)  # fmt: skip
                first = "; wait s3>=1" if d is None and x == 0 else ""
                last = "; done s2" if x + tk >= k else ""
                b += f"matmul acc[{c}], spad[{2 * p * spad}], spad[{(4 + 2 * p) * spad}], i8*i8, \
{'acc' if x or d is not None else ''} r0={rows} as0=1 ak={rows} ws=1 wk={b.dim} wn={deep} \
k={depth} n={columns} cn={rows} ; wait s0>={ready} {first} ; read s1 {last}"
                steps, ready = steps + 1, 0
            scaled = "" if scales is None else f"scale vec={7 * acc + j // b.dim}"
            first = "; wait s4>=1" if scales is not None and results == 0 else ""
            b += f"store dram[{out.address + i * out.pitch + j * wide}], acc[{c}], i32->{kind}, \
{path} {flags} {scaled} c0={columns} c1={rows} l0={rows} l1=1 s1={out.pitch} ; wait s2>=1 {first} \
; read s3"
            results += 1
