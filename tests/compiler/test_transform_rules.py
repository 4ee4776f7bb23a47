"""Every primitive has its rules, or is named here."""

import importlib
import pkgutil

import pytest
import tilewright.compiler
from tilewright.compiler import rules
from tilewright.compiler.core import Primitive
from tilewright.compiler.forward import Zero
from tilewright.compiler.trace import aval_of

rules.load()


def _primitives():
    found = {}
    for module in pkgutil.iter_modules(tilewright.compiler.__path__):
        if module.name.startswith(("primitives", "custom", "control")):
            names = vars(importlib.import_module(f"tilewright.compiler.{module.name}"))
            found |= {v.name: v for v in names.values() if isinstance(v, Primitive)}
    return found


PRIMITIVES = _primitives()
#: Linear in some operand, so that reverse mode meets them.
LINEAR = {
    "add", "sub", "neg", "mul", "div", "select_n", "convert_element_type", "broadcast_in_dim",
    "reshape", "transpose", "slice", "pad", "rev", "dot_general", "conv_general_dilated",
    "reduce_sum", "cumsum", "concatenate", "custom_backward", "dynamic_slice",
    "dynamic_update_slice", "optimization_barrier", "take_rows", "put_rows",
    "cond", "jit", "scan", "while",
}  # fmt: skip
NO_OPERANDS = {"iota"}


@pytest.mark.parametrize("name", sorted(PRIMITIVES.keys() - NO_OPERANDS))
def test_every_primitive_has_its_rules(name):
    kinds = {"impl", "abstract", "jvp", "batch"} | ({"transpose"} if name in LINEAR else set())
    assert kinds <= set(PRIMITIVES[name].rules)


def test_only_linear_primitives_are_transposed():
    assert {n for n, p in PRIMITIVES.items() if "transpose" in p.rules} == LINEAR


def test_zero_knows_its_type():
    assert Zero(aval_of(1.0)) == Zero(aval_of(2.0))
