"""LOAD against `load_model`: local writes, bursts, and every cycle number of the contract."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from tilewright.isa import timing


def _sibling(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench = _sibling("load_bench")
model, Load, LATENCY = bench.model, bench.Load, bench.LATENCY
CONFIGS, Pins, PySim, Memory = bench.CONFIGS, bench.Pins, bench.PySim, bench.Memory
Expected, check, loads_of = bench.Expected, bench.check, bench.loads_of
pack_fields = bench.pack_fields


@pytest.mark.parametrize("gap", [0.0, 0.9])
@pytest.mark.parametrize("name", CONFIGS)
def test_random_loads_keep_every_cycle_of_the_contract(name, gap):
    config = CONFIGS[name]
    check(
        PySim(Pins(config)), config, loads_of(config, 2 + int(gap > 0), 1500, big=True), 3, gap=gap
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_random_loads_are_right_under_back_pressure(name):
    config = CONFIGS[name]
    check(PySim(Pins(config)), config, loads_of(config, 4, 800), 5, ideal=False)


def transposes(config, conv):
    """Transposing LOADs of runs of all kinds of lengths, with plain ones and fills between them."""
    dim, rng = config.dim, np.random.default_rng(21)
    lengths = (1, dim - 1, dim, dim + 1, 3 * dim, 7 * dim + 1, 8 * dim - 1, 8 * dim)
    wide = 1 if conv == "COPY8" else 2
    for n, c0 in enumerate(lengths):
        c1, c2, c3 = (dim, 1, dim + 1, 2 * dim - 1)[n % 4], 1 + n % 2, 1 + n % 3 // 2
        l0, blocks = (wide, -wide)[n % 2], -(-c1 // dim)
        room = config.spad_granules // wide - c0 - 8 * (blocks - 1) - 3 * (c2 - 1) - 5 * (c3 - 1)
        loc = wide * int(rng.integers(room + 1)) + wide * (c0 - 1) * (n % 2)
        s = tuple(int(x) for x in rng.integers(0, 700, 3))
        yield Load(conv, xpose=1, dram=int(rng.integers(2000)), c=(c0, c1, c2, c3), s=s, loc=loc,
                   l=(l0, 8 * wide, 3 * wide, 5 * wide))  # fmt: skip
        if n % 3 == 1:
            yield Load(conv, dram=77, c=(dim + 1, 1, 1, 1), l=(wide, 0, 0, 0))
        if n % 3 == 2:
            yield Load(conv, fill=1, c=(dim + 1, 2, 1, 1), l=(wide, 4 * wide, 0, 0), value=0x1234)


@pytest.mark.parametrize("ideal", [True, False])
@pytest.mark.parametrize(
    ("name", "conv"),
    [
        ("dim2", "COPY8"), ("dim2", "COPY16"), ("dim4", "COPY8"), ("dim4", "F32_BF16"),
        ("dim4", "F32_MID"), ("dim4", "F32_LO"), ("narrow", "COPY8"), ("narrow", "COPY16"),
        ("dim16", "COPY8"), ("dim16", "COPY16"), ("dim16", "F32_HI"),
    ],
)  # fmt: skip
def test_runs_of_up_to_eight_units_are_transposed_without_a_gap(name, conv, ideal):
    config = CONFIGS[name]
    loads = list(transposes(config, conv))
    loads += [x for x in reversed(loads) if x.xpose]  # short runs behind long ones wait
    check(PySim(Pins(config)), config, loads, 22, ideal, gap=0.0)


def sequences(config, conv):
    """Transposing LOADs of several dimensions as one, ragged in each; plain ones between them.

    Blocks end inside an i2, with it, and hold several; l2 and l3 of a sequence mean nothing.
    """
    dim, rng, wide = config.dim, np.random.default_rng(31), 1 if conv == "COPY8" else 2
    counts = (
        (dim + 1, 2, 1), (dim - 1, 3, 2), (1, dim + 1, 1), (1, 1, 2 * dim), (dim, 2, 2),
        (3, 2, dim), (2 * dim + 1, 2, 1), (1, 1, 1), (dim // 2, 2, 3), (dim + 1, dim - 1, 1),
    )  # fmt: skip
    lengths = (1, dim, dim - 1, 2 * dim, 1, dim + 1, 2, 8 * dim, 3, dim)
    for n, (outer, c0) in enumerate(zip(counts, lengths, strict=True)):
        for pack in (2, 3):
            runs = outer[0] * outer[1] * (outer[2] if pack == 3 else 1)
            blocks = -(-runs // dim)
            l0, l1 = (wide, -wide)[n % 2], wide * (1 + n % 3)
            l3 = 77 * wide if pack == 3 else 2 * wide
            reach = c0 - 1 + l1 // wide * (blocks - 1) + (2 * (outer[2] - 1) if pack == 2 else 0)
            loc = wide * (int(rng.integers(config.spad_granules // wide - reach)))
            loc += wide * (c0 - 1) * (n % 2)
            s = tuple(int(x) for x in rng.integers(0, 500, 3))
            yield Load(conv, xpose=1, pack=pack, dram=int(rng.integers(2000)), c=(c0, *outer), s=s,
                       loc=loc, l=(l0, l1, 66 * wide, l3))  # fmt: skip
        if n % 4 == 1:
            yield Load(conv, dram=77, c=(dim + 1, 1, 1, 1), l=(wide, 0, 0, 0))


def cut(config, conv):
    """Sequences that begin and end inside of rows, by nothing, one run and most, at each end."""
    dim, rng, wide = config.dim, np.random.default_rng(41), 1 if conv == "COPY8" else 2
    for n in range(60):
        pack = 2 + n % 2
        outer = tuple(int(x) for x in rng.integers(1, (2 * dim, 5, 4)))
        load = Load(conv, xpose=1, pack=pack, c=(int(rng.choice([1, dim - 1, dim + 1])), *outer))
        lacks = model.random_lacks(load, rng)
        blocks = -(-model.replace(load, lacks=lacks).sequence // dim)
        strides = tuple(int(x) for x in rng.integers(-90, 500, 3))
        low = -sum(min(0, s) * (c - 1) for s, c in zip(strides, outer, strict=True))
        l1, l3 = load.c[0] * wide, load.c[0] * wide * blocks
        reach = l1 * (blocks - 1) + (l3 * (outer[2] - 1) if pack == 2 else 0) + l1
        if reach > config.spad_granules or low > 5000:
            continue
        yield model.replace(load, lacks=lacks, s=strides, dram=low + n, l=(wide, l1, 66 * wide, l3))
        if n % 7 == 1:
            yield Load(conv, dram=77, c=(dim + 1, 1, 1, 1), l=(wide, 0, 0, 0))


@pytest.mark.parametrize("ideal", [True, False])
@pytest.mark.parametrize(
    ("name", "conv"),
    [("dim2", "COPY8"), ("dim4", "F32_MID"), ("narrow", "COPY16"), ("dim16", "COPY8")],
)
def test_sequences_begin_and_end_inside_of_rows(name, conv, ideal):
    config = CONFIGS[name]
    loads = list(cut(config, conv))
    starts = [load.lacks for load in loads if load.pack == 3]
    assert all(any(x[i] for x in starts) for i in range(4))
    check(PySim(Pins(config)), config, loads, 42, ideal, gap=0.0 if ideal else 0.2)


@pytest.mark.parametrize("ideal", [True, False])
@pytest.mark.parametrize(
    ("name", "conv"),
    [
        ("dim2", "COPY8"), ("dim2", "F32_LO"), ("dim4", "COPY8"), ("dim4", "COPY16"),
        ("narrow", "COPY8"), ("narrow", "F32_HI"), ("dim16", "COPY8"), ("dim16", "F32_BF16"),
    ],
)  # fmt: skip
def test_runs_of_several_dimensions_are_transposed_as_one_sequence(name, conv, ideal):
    config = CONFIGS[name]
    loads = list(sequences(config, conv))
    check(PySim(Pins(config)), config, loads, 32, ideal, gap=0.0 if ideal else 0.2)


def test_patches_of_an_image_pay_for_one_ragged_block_only():
    config = CONFIGS["dim4"]  # 4 bytes a beat
    rows = dict(xpose=1, dram=4, c=(8, 6, 5, 1), s=(8, 64, 0), l=(1, 8, 16, 0))
    apart, together = Load("COPY8", **rows), Load("COPY8", pack=2, **rows)
    beats = 6 * 5 * 2
    ended = check(PySim(Pins(config)), config, [apart, together], 33, gap=0.0)
    assert apart.slots(4, 4) == beats + 5 * 2 * 2 and together.slots(4, 4) == beats + 2 * 2
    assert ended[1] - ended[0] == beats + 2 * 2 + (together.drain() - together.hidden(4))


@pytest.mark.parametrize("after", ["plain", "fill", "short", "long"])
def test_the_drain_of_a_transpose_is_hidden_by_the_slots_of_another(after):
    config = CONFIGS["dim4"]
    load = Load("COPY8", xpose=1, c=(30, 4, 1, 1), s=(32, 0, 0), l=(1, 0, 0, 0))  # drains in 32
    following, gap = {
        "plain": (Load("COPY8", c=(4, 1, 1, 1)), 32),
        "fill": (Load("COPY8", fill=1, c=(4, 1, 1, 1)), 32),
        "short": (Load("COPY8", xpose=1, c=(5, 4, 1, 1), s=(32, 0, 0), l=(1, 0, 0, 0)), 32 - 8),
        "long": (Load("COPY8", xpose=1, c=(29, 4, 1, 1), s=(32, 0, 0), l=(1, 0, 0, 0)), 0),
    }[after]
    ended = check(PySim(Pins(config)), config, [load, following], 24, gap=0.0)
    slots = gap + following.slots(4, 4) + following.drain() - load.drain()
    assert ended[1] - ended[0] == slots


def test_a_transpose_of_long_runs_takes_their_beats_the_rows_of_zeros_and_a_drain():
    config = CONFIGS["dim4"]  # 4 bytes a beat
    load = Load("COPY8", xpose=1, dram=2, c=(32, 6, 2, 1), s=(40, 400, 0), l=(1, 32, 64, 0))
    expected = Expected(config)
    expected.start(0, load)
    assert expected.last_slot == 2 * (6 * 9 + 2 * 8)
    check(PySim(Pins(config)), config, [load, load], 23, gap=0.0)


@pytest.mark.parametrize("fill", [0, 1])
def test_eight_instructions_of_one_slot_fly_and_the_ninth_waits(fill):
    config = CONFIGS["dim4"]
    loads = [Load("COPY8", dram=4 * i, c=(4, 1, 1, 1), loc=i, fill=fill) for i in range(20)]
    ended = check(PySim(Pins(config)), config, loads, 6, gap=0.0)
    if fill:  # done comes before eight are started
        assert np.diff(ended).tolist() == [1] * 19
    else:
        alone = 1 + timing.LOAD_AR + LATENCY + timing.LOAD_WRITE  # from grant to done
        assert ended[7] == ended[0] + 7 and ended[8] == ended[0] + 1 + alone


def test_fills_between_loads_keep_order_in_fast_and_slow_memory():
    config = CONFIGS["dim4"]
    loads = []
    for i in range(12):
        loads.append(
            Load("COPY8", dram=97 * i, c=(1 + 5 * (i % 3), 1, 1, 1), loc=i, l=(9, 0, 0, 0))
        )
        loads.append(
            Load("COPY8", fill=1, c=(30 * (i % 4) + 3, 1, 1, 1), loc=i, l=(1, 0, 0, 0), value=i)
        )
    check(PySim(Pins(config)), config, loads, 7, gap=0.0)
    check(PySim(Pins(config)), config, loads, 7, ideal=False, gap=0.0)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_beats_of_a_word_may_come_late_and_apart(name):
    config = CONFIGS[name]
    io, data = PySim(Pins(config)), model.dram(np.random.default_rng(11))
    memory = Memory(data, config.bus_bytes, np.random.default_rng(12))
    words = []

    async def bench(io):
        for address in range(0, 80, 4):
            for t in range(200):
                memory.drive(io)
                io.set("ldw_valid", t == 0)
                io.set("ldw_addr", address if t == 0 else 0)
                if io.get("ldw_done"):
                    words.append(io.get("ldw_data"))
                    break
                memory.sample(io)
                await io.tick()
            memory.sample(io)
            await io.tick()

    io.run(bench)
    assert words == data[:80].view(np.uint32).tolist()


def test_single_beat_bursts_never_meet_the_limit_of_reads_in_flight():
    config = CONFIGS["dim16"]
    load = Load("COPY8", dram=100, c=(5, 200, 1, 1), s=(50, 0, 0), l=(0, 1, 0, 0))
    check(PySim(Pins(config)), config, [load, load], 8, gap=0.0)


def test_a_run_across_4_kib_is_cut_there():
    config = CONFIGS["dim16"]
    load = Load("COPY8", dram=4096 - 40, c=(400, 1, 1, 1), l=(1, 0, 0, 0))
    pages = [(a, n) for a, n in load.bursts(16)]
    assert pages == [(4048, 3), (4096, 16), (4352, 7)]
    check(PySim(Pins(config)), config, [load], 9)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_word_comes_after_the_stated_latency(name):
    config = CONFIGS[name]
    io, data = PySim(Pins(config)), model.dram(np.random.default_rng(10))
    memory = Memory(data, config.bus_bytes)

    async def bench(io):
        for address in (0, 4, 8, 4092, 4096, 60, 124):
            for t in range(100):
                memory.drive(io)
                io.set("ldw_valid", t == 0)
                io.set("ldw_addr", address if t == 0 else 0)
                done = t == timing.ldw_latency(config.bus_bytes, LATENCY)
                assert io.get("ldw_done") == done, t
                if done:
                    assert io.get("ldw_data") == data[address : address + 4].view(np.uint32)[0]
                memory.sample(io)
                await io.tick()
        assert len(memory.bursts) == 7 and io.get("unit__ready")

    io.run(bench)


def test_beats_and_error_responses_give_pulses():
    config, beats = CONFIGS["dim4"], []
    memory = Memory(model.dram(np.random.default_rng(11)), config.bus_bytes)

    async def bench(io):
        io.set("unit__instr", pack_fields(Load("COPY8", c=(40, 1, 1, 1)).fields(config)))
        for t in range(120):
            memory.drive(io)
            io.set("unit__start", t == 1)
            io.set("axi__rresp", 2 if len(memory.arrived) == 3 else 0)
            if io.get("o_beat"):
                beats.append(io.get("o_error"))
            assert io.get("o_beat") or not io.get("o_error")
            memory.sample(io)
            await io.tick()

    PySim(Pins(config)).run(bench)
    assert beats == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
