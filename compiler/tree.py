"""Pytrees: nested containers whose leaves are arrays.

dict (in order of its sorted keys), list, tuple, namedtuple, None (no leaves) and registered classes
are nodes; everything else is a leaf. A tree flattens into its leaves and a hashable
:class:`PyTreeDef`, from which it can be rebuilt with other leaves.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _NodeType:
    """How one class flattens to ``(keys, children, aux)`` and is rebuilt from the last two."""

    flatten: Callable
    unflatten: Callable


_REGISTRY: dict[type, _NodeType] = {}


@dataclass(frozen=True)
class PyTreeDef:
    """The structure of a tree: `node` is a class, or None for a leaf."""

    node: type | None
    keys: tuple[str, ...] = ()
    aux: Any = None
    children: tuple["PyTreeDef", ...] = ()

    @property
    def num_leaves(self):
        return 1 if self.node is None else sum(c.num_leaves for c in self.children)

    def unflatten(self, leaves):
        return unflatten(self, leaves)

    def __str__(self):
        return f"PyTreeDef({_show(self)})"

    __repr__ = __str__


def _show(treedef):
    if treedef.node is None:
        return "*"
    if treedef.node is type(None):
        return "None"
    parts = [_show(c) for c in treedef.children]
    if treedef.node is tuple:
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    if treedef.node is list:
        return f"[{', '.join(parts)}]"
    if treedef.node is dict:
        shown = (f"{k!r}: {p}" for k, p in zip(treedef.aux, parts, strict=True))
        return f"{{{', '.join(shown)}}}"
    return f"{treedef.node.__name__}({', '.join(parts)})"


_LEAF = PyTreeDef(None)


def _sorted_keys(d):
    try:
        return tuple(sorted(d))
    except TypeError:
        raise TypeError(f"keys of a dict in a pytree must be sortable, not {list(d)!r}") from None


def _flatten_dict(d):
    keys = _sorted_keys(d)
    return [f"[{k!r}]" for k in keys], [d[k] for k in keys], keys


def _indexed(items):
    return [f"[{i}]" for i in range(len(items))], list(items), None


_REGISTRY[dict] = _NodeType(_flatten_dict, lambda keys, c: dict(zip(keys, c, strict=True)))
_REGISTRY[list] = _NodeType(_indexed, lambda _, c: list(c))
_REGISTRY[tuple] = _NodeType(_indexed, lambda _, c: tuple(c))
_REGISTRY[type(None)] = _NodeType(lambda _: ([], [], None), lambda _, c: None)


def register_pytree_node(cls, flatten_func, unflatten_func):
    """Make a class a node.

    Parameters
    ----------
    flatten_func : callable
        ``value -> (children, aux)``; `aux` must be hashable.
    unflatten_func : callable
        ``(aux, children) -> value``.
    """
    if cls in _REGISTRY:
        raise ValueError(f"{cls.__name__} is registered already")

    def flatten_node(value):
        children, aux = flatten_func(value)
        children = list(children)
        return [f"[{i}]" for i in range(len(children))], children, aux

    _REGISTRY[cls] = _NodeType(flatten_node, lambda aux, c: unflatten_func(aux, tuple(c)))


def register_dataclass(cls, data_fields=None, meta_fields=()):
    """Make a dataclass a node; usable as a decorator.

    `data_fields` (all that are not in `meta_fields` by default) are its children; `meta_fields` are
    part of the structure and must be hashable. Returns `cls`.
    """
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"register_dataclass needs a dataclass, not {cls!r}")
    if cls in _REGISTRY:
        raise ValueError(f"{cls.__name__} is registered already")
    meta = tuple(meta_fields)
    init = [f.name for f in dataclasses.fields(cls) if f.init]
    data = (
        tuple(data_fields) if data_fields is not None else tuple(f for f in init if f not in meta)
    )
    if sorted(data + meta) != sorted(init):
        raise ValueError(f"data and meta fields must be exactly {init}, not {data} and {meta}")

    def flatten_node(value):
        children = [getattr(value, name) for name in data]
        return [f".{name}" for name in data], children, tuple(getattr(value, n) for n in meta)

    def unflatten_node(aux, children):
        named = dict(zip(data, children, strict=True))
        return cls(**named, **dict(zip(meta, aux, strict=True)))

    _REGISTRY[cls] = _NodeType(flatten_node, unflatten_node)
    return cls


def _node_type(cls):
    if cls in _REGISTRY:
        return _REGISTRY[cls]
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _NodeType(
            lambda v: ([f".{name}" for name in cls._fields], list(v), None),
            lambda _, c: cls(*c),
        )
    return None


def _flatten(value, path, is_leaf, leaves):
    kind = _node_type(type(value))
    if kind is None or (is_leaf is not None and is_leaf(value)):
        leaves.append((path, value))
        return _LEAF
    keys, children, aux = kind.flatten(value)
    subtrees = [
        _flatten(child, (*path, key), is_leaf, leaves)
        for key, child in zip(keys, children, strict=True)
    ]
    return PyTreeDef(type(value), tuple(keys), aux, tuple(subtrees))


def flatten_with_path(tree, is_leaf=None):
    """Return ``([(path, leaf), ...], treedef)``; a path is a tuple of texts such as ``['w']``."""
    leaves = []
    treedef = _flatten(tree, (), is_leaf, leaves)
    return leaves, treedef


def flatten(tree, is_leaf=None):
    """Return ``(leaves, treedef)``."""
    paths, treedef = flatten_with_path(tree, is_leaf)
    return [leaf for _, leaf in paths], treedef


def unflatten(treedef, leaves):
    """Return the tree of a structure with these leaves."""
    leaves = list(leaves)
    if len(leaves) != treedef.num_leaves:
        raise ValueError(f"{treedef} has {treedef.num_leaves} leaves, not {len(leaves)}")
    return _build(treedef, iter(leaves))


def _build(node, rest):
    if node.node is None:
        return next(rest)
    children = [_build(child, rest) for child in node.children]
    return _node_type(node.node).unflatten(node.aux, children)


def leaves(tree, is_leaf=None):
    """Return the leaves of a tree, in order."""
    return flatten(tree, is_leaf)[0]


def structure(tree, is_leaf=None):
    """Return the :class:`PyTreeDef` of a tree."""
    return flatten(tree, is_leaf)[1]


def map(f, tree, *rest, is_leaf=None):
    """Apply `f` to the leaves of one tree, or of several of the same structure."""
    first, treedef = flatten(tree, is_leaf)
    others = []
    for other in rest:
        found, other_def = flatten(other, is_leaf)
        if other_def != treedef:
            raise ValueError(f"trees must have one structure, not {treedef} and {other_def}")
        others.append(found)
    return unflatten(treedef, [f(*args) for args in zip(first, *others, strict=True)])


def keystr(path):
    """Return a path as text, such as ``['layer'][0].w``."""
    return "".join(path)
