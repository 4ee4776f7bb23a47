"""The RTL's decoder, resolver and rules refuse exactly what Python refuses."""

import random

import pytest
from amaranth.sim import Simulator
from tilewright.hw.decode import FLAGS, IR_BITS, Decoder, Resolver, Rules
from tilewright.isa.config import ARRAYS
from tilewright.isa.encoding import IllegalInstruction, check_rules, decode, resolve
from tilewright.isa.table import INSTRUCTIONS, OPCODE_BITS, Fault


def nearly_legal(rng, spec=None):
    """A word whose fields are mostly small and whose flags are sometimes set."""
    spec = spec or rng.choice(list(INSTRUCTIONS.values()))
    word = spec.opcode
    use_regs = rng.random() < 0.5
    for at in spec.reg_bit.values():
        word |= (use_regs and rng.random() < 0.4) << at
    for name, (at, field) in spec.layout.items():
        top = (1 << field.bits) - 1
        value = rng.choice((1, 1, 2, rng.randrange(16), rng.randrange(top + 1)))
        if name in spec.reg_bit and word >> spec.reg_bit[name] & 1:
            value = rng.randrange(17 if rng.random() < 0.1 else 16)
        elif field.enum is not None and rng.random() < 0.9:
            value = int(rng.choice(list(field.enum)))
        word |= min(value, top) << at
    if rng.random() < 0.05:
        word |= 1 << rng.randrange(spec.bits, 512)
    return word


def words(seed, count):
    rng = random.Random(seed)
    for i in range(count):
        kind = i % 4
        if kind == 0:
            yield rng.getrandbits(512)
        elif kind == 1:
            yield rng.getrandbits(rng.randrange(6, 512))
        else:
            yield nearly_legal(rng)


def verdict(word, regs):
    """(fault, resolved values) as Python has them."""
    try:
        instr = decode(word.to_bytes(64, "little"))
        values = resolve(instr, regs)
        check_rules(instr.spec, values)
    except IllegalInstruction as error:
        return error.fault
    return Fault.NONE


def run(dut, body):
    sim = Simulator(dut)
    sim.add_testbench(body)
    sim.run()


def test_decoder_refuses_what_python_refuses():
    refused = 0

    async def body(ctx):
        nonlocal refused
        for word in words(1, 4000):
            try:
                instr = decode(word.to_bytes(64, "little"))
            except IllegalInstruction as error:
                assert error.fault == Fault.OPCODE
                instr = None
            ctx.set(dut.word, word)
            await ctx.delay(1e-9)
            assert ctx.get(dut.illegal) == (instr is None), hex(word)
            if instr is None:
                refused += 1
            else:
                want = sum(
                    1 << i for i, name in enumerate(instr.spec.reg_bit) if name in instr.regs
                )
                assert ctx.get(dut.flags) == want

    dut = Decoder()
    run(dut, body)
    assert 1000 < refused < 3800


@pytest.mark.parametrize("number", range(16, 20))
def test_decoder_refuses_a_register_above_15(number):
    spec = INSTRUCTIONS["load"]
    word = spec.opcode | 1 << spec.reg_bit["dram"] | number << spec.layout["dram"][0]

    async def body(ctx):
        ctx.set(dut.word, word)
        await ctx.delay(1e-9)
        assert ctx.get(dut.illegal) == 1

    dut = Decoder()
    run(dut, body)


def test_resolver_gives_python_s_values():
    rng = random.Random(2)

    async def body(ctx):
        seen = set()
        for _ in range(1200):
            word = nearly_legal(rng)
            try:
                instr = decode(word.to_bytes(64, "little"))
            except IllegalInstruction:
                continue
            regs = [
                rng.choice((0, 1, 7, -1, -8, 1 << 16, 1 << 17, -(1 << 17), 1 << 31))
                for _ in range(16)
            ]
            regs = [r & 0xFFFFFFFF for r in regs]
            pending = sum(1 << i for i, name in enumerate(instr.spec.reg_bit) if name in instr.regs)
            ir, misfit = word & ((1 << IR_BITS) - 1), 0
            steps = 0
            while pending:
                ctx.set(dut.ir, ir)
                ctx.set(dut.pending, pending)
                await ctx.delay(1e-9)
                ctx.set(dut.value, regs[ctx.get(dut.register)])
                await ctx.delay(1e-9)
                ir, pending = ctx.get(dut.resolved), ctx.get(dut.left)
                misfit |= ctx.get(dut.misfit)
                steps += 1
            assert steps == len(instr.regs) <= FLAGS
            try:
                values = resolve(instr, regs)
            except IllegalInstruction as error:
                assert error.fault == Fault.FIELD
                assert misfit
                seen.add("misfit")
                continue
            assert not misfit
            seen.add("fits")
            for name, (at, field) in instr.spec.layout.items():
                assert ir >> at & ((1 << field.bits) - 1) == values[name] % (1 << field.bits)
        assert seen == {"misfit", "fits"}

    dut = Resolver()
    run(dut, body)


def legal_fields(rng, spec):
    """Fields such that each rule is kept or broken about equally often."""
    values = {}
    for name, (_, field) in spec.layout.items():
        small = rng.choice((0, 1, 2, 2, 4, 4, 6))
        values[name] = min(small, field.high)
        if field.enum is not None and rng.random() < 0.95:
            values[name] = int(rng.choice(list(field.enum)))
        if name in ("xpose", "gather"):
            values[name] = rng.random() < 0.05
    return values


@pytest.mark.parametrize("array", ARRAYS)
def test_rules_give_python_s_fault(array):
    rng = random.Random(3)
    seen = set()

    async def body(ctx):
        for _ in range(6000):
            spec = rng.choice([s for s in INSTRUCTIONS.values() if s.opcode >= 32])
            values = legal_fields(rng, spec)
            ir = spec.opcode
            for name, (at, _) in spec.layout.items():
                ir |= int(values[name]) << at
            fault = Fault.NONE
            try:
                check_rules(spec, values, array)
            except IllegalInstruction as error:
                fault = error.fault
            ctx.set(dut.ir, ir)
            await ctx.delay(1e-9)
            got = Fault.NONE
            if ctx.get(dut.unimplemented):
                got = Fault.UNIMPLEMENTED
            if ctx.get(dut.field):
                got = Fault.FIELD
            assert got == fault, (spec.name, values)
            seen.add((spec.name, fault))

    dut = Rules(array)
    run(dut, body)
    for name in ("load", "matmul", "vector", "store"):
        assert (name, Fault.NONE) in seen and (name, Fault.FIELD) in seen
    assert (("matmul", Fault.UNIMPLEMENTED) in seen) == (array == "int8")


def test_opcode_bits_hold_every_opcode():
    assert all(s.opcode < 1 << OPCODE_BITS for s in INSTRUCTIONS.values())
