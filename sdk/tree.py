"""Pytrees: nested containers of arrays, as `jax.tree` has them."""

from tilewright.compiler.tree import (
    PyTreeDef,
    flatten,
    flatten_with_path,
    keystr,
    leaves,
    map,
    register_dataclass,
    register_pytree_node,
    structure,
    unflatten,
)

__all__ = [
    "PyTreeDef",
    "flatten",
    "flatten_with_path",
    "keystr",
    "leaves",
    "map",
    "register_dataclass",
    "register_pytree_node",
    "structure",
    "unflatten",
]
