"""What an operation outside of `jit` does: it runs on the chip.

`install` puts the SDK's hooks into the tracer; the SDK behind them is imported at the first such
operation.
"""

from __future__ import annotations

from typing import Any

from tilewright.compiler import trace


def on_the_chip(primitive: Any, args: Any, params: Any) -> Any:
    """Run one operation on concrete arrays."""
    from tilewright.eager import apply

    return apply(primitive, args, params)


def _asarray(value: Any, weak_type: bool) -> Any:
    from tilewright.array import put_leaf

    return put_leaf(value, weak=weak_type)


def install() -> None:
    """Let eager operations and created arrays go to the chip, unless other hooks are there."""
    if trace.eager_hook is trace.eval_eagerly:
        trace.eager_hook = on_the_chip
    if trace.asarray_hook is trace.asarray_unchanged:
        trace.asarray_hook = _asarray
