"""VECTOR's micro-operations equal their oracles on every case, and err by no more than stated."""

import importlib
import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("_softfloat", reason="softfloat must be installed: pip install -e .[full]")
pytestmark = pytest.mark.full


def _load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


proof = _load("special_proof")
mutate = _load("mutate")


CASES = 1 << 25  # corners and random, or spread evenly over all; the command runs all 2^32


@pytest.mark.parametrize("unit", proof.UNITS)
def test_unit_equals_its_oracle(unit, capsys):
    outcome = proof.prove(unit, cases=CASES)
    with capsys.disabled():
        print(f"\n{outcome}")
    assert not outcome.wrong, str(outcome)
    limit = proof.SEQUENCES[unit][1] if unit in proof.SEQUENCES else None
    assert limit is None or outcome.ulp <= limit, str(outcome)


#: Module -> (who uses it, the class that is replaced).
USERS = {
    "vector_mul": ("vector_alu", "Multiply"),
    "vector_form": ("vector_mul", "Form"),
    "vector_basic": ("vector_alu", "BasicPart"),
    "special": ("vector_alu", "Special"),
}
#: What a hurried designer might have written: unit that shows it, module, its text, the mistake.
MISTAKES = {
    "a root is moved too early": (
        "sqrt", "vector_mul", "(value > self.k3)", "(value >= self.k3)"),
    "a quotient's rest is not doubled": (
        "div", "vector_mul", "Mux(ctl.root3, rest, rest << 1)", "rest"),
    "a sum loses the sticky bit": (
        "fma_f32", "vector_mul", "term = wire(m, moved | lost,", "term = wire(m, moved,"),
    "a sum's flush comes after rounding": (
        "mul_f32", "vector_mul", "with m.If(empty | (exponent <= 0)):",
        "with m.If(empty | ((exponent + mant[26:51].all()) <= 0)):"),
    "a conversion forgets what it lost": (
        "mul_fx", "vector_mul", "(self.lost3 | self.fx3[1])", "self.fx3[1]"),
    "signed high words are unsigned": (
        "mulh_i32", "vector_mul", "Mux(ctl.root3, self.k2, 0)", "0"),
    "infinity minus infinity is infinity": (
        "fma_f32", "vector_form", "bad | z_nan | infinite & z_inf & (product ^ self.o_sz)",
        "bad | z_nan"),
    "a reciprocal below 2^-126 is kept": (
        "accurate_recip", "vector_form", "a.infinite | tiny)", "a.infinite)"),
    "log2 halves from 1.75 on": (
        "log2", "vector_form", "a.fraction[22]", "a.fraction[21:23].all()"),
    "the quadratic term is missing": (
        "exp2", "special", "c1 + (c2 * u2 >> STEP_BITS)", "c1"),
    "ties are rounded up": (
        "round_f32", "vector_basic", "(cut & half).any() & beyond", "(cut & half).any()"),
    "-0 is below +0": (
        "lt_f32", "vector_basic", "Basic.LESS: less & ~zeros", "Basic.LESS: less"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_proof_catches(mistake, monkeypatch):
    unit, module, old, new = MISTAKES[mistake]
    mutant = mutate.mutant(f"tilewright.hw.{module}", (old, new))
    user, name = USERS[module]
    user = importlib.import_module(f"tilewright.hw.{user}")
    monkeypatch.setattr(user, name, getattr(mutant, name))
    outcome = proof.prove(unit, cases=1 << 24, chunk=1 << 22)
    assert outcome.wrong, f"no case of {outcome.cases:,} shows that {mistake}"
