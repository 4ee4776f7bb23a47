"""docs/functions.md is what is measured, and keeps the limits of issue 5."""

import re
from pathlib import Path

import pytest
from tilewright.compiler.vector_lower import LOWER

from tests.compiler import functions_table

PAGE = Path(__file__).parents[2] / "docs" / "functions.md"
LIMITS = {"div": 0.5, "sqrt": 0.5, "add": 0.5, "mul": 0.5, "rem": 0.5, "rsqrt": 1, "pow": 16} | (
    dict.fromkeys(["exp", "log", "tanh", "logistic", "erf", "sin", "cos"], 4)
)


@pytest.fixture(scope="module")
def table():
    return functions_table.table()


def test_functions_page_is_current(table):
    command = "python -m tests.compiler.functions_table > docs/functions.md"
    assert PAGE.read_text() == table, f"docs/functions.md is old: {command}"


def test_functions_keep_their_limits(table):
    errors = dict(re.findall(r"^\| `(\w+)` .*\| ([\d.]+)[^|]*\|$", table, re.M))
    for name, limit in LIMITS.items():
        assert float(errors[name]) <= limit, name


def test_every_primitive_of_the_lanes_is_listed(table):
    assert all(f"| `{name}` |" in table for name in LOWER)
