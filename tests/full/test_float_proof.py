"""The float units equal SoftFloat on every case; and the proof notices each of these mistakes."""

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


proof = _load("float_proof")
mutate = _load("mutate")

#: The lines after `bf16_product`'s check of the exponent: two other units have the same check.
OVERFLOW = """
        m.d.comb += word.eq(INF | sign << 31)
    return stage"""

#: Unit, its text, and what a hurried designer might have written.
MISTAKES = {
    "add rounds ties up": (
        "fp32_add", "mant[3] & (mant[0:3].any() | mant[4])", "mant[3]"),
    "add loses the sticky bit": (
        "fp32_add", "term = wire(m, moved | lost,", "term = wire(m, moved,"),
    "add keeps one guard bit too few": (
        "fp32_add", "mant[0:3].any() | mant[4])", "mant[1:3].any() | mant[4])"),
    "x - x keeps a sign": (
        "fp32_add", "(sign & ~(empty & minus)) << 31", "sign << 31"),
    "inf - inf is inf": (
        "fp32_add", "Mux(nan | (minus & empty), NAN", "Mux(nan, NAN"),
    "mul flushes after rounding": (
        "fp32_mul", "m.Elif(~mant[47] | (exponent <= 0))",
        "m.Elif(~mant[47] | ((exponent + mant[23:47].all()) <= 0))"),
    "mul truncates": (
        "fp32_mul", "mant[23] & (mant[0:23].any() | mant[24])", "0"),
    "0 x inf is inf": (
        "fp32_mul", "nan = (xs & (xf | ~ym[23]))", "nan = (xs & xf)"),
    "product is off at the border": (
        "bf16_product", "(am[7] & wm[7] == 0) | (exponent <= 0)",
        "(am[7] & wm[7] == 0) | (exponent < 0)"),
    "product does not overflow": (
        "bf16_product", f"with m.Elif(exponent >= 255):{OVERFLOW}",
        f"with m.Elif(exponent >= 256):{OVERFLOW}"),
}  # fmt: skip


@pytest.mark.parametrize("unit", proof.UNITS)
def test_unit_equals_softfloat(unit, capsys):
    outcome = proof.prove(unit)
    with capsys.disabled():
        print(f"\n{outcome}")
    assert not outcome.wrong, str(outcome)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_proof_catches(mistake):
    unit, old, new = MISTAKES[mistake]
    mutant = mutate.mutant("tilewright.hw.float", (old, new))
    outcome = proof.prove(unit, fp=mutant, chunk=1 << 22)
    assert outcome.wrong, f"no case of {outcome.cases:,} shows that {mistake}"
