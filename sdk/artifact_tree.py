"""Structures of arguments and results in a program file, without the compiler's pytrees.

A structure is a JSON value: ``"*"`` is an array, ``null`` is None, a node is ``{"list": [...]}``,
``{"tuple": [...]}``, ``{"dict": [[key, child], ...]}`` in the order of its leaves, or
``{"record": name, "fields": [[field, child], ...]}``: a namedtuple or a dataclass. A record comes
back as a namedtuple of that name; it goes in as anything with those attributes.
"""

from __future__ import annotations

import keyword
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

Tree = Any  # a JSON value as above
MAX_DEPTH = 100
LEAF = "*"


class ProgramTreeError(TypeError):
    """A structure that a program file cannot hold, or that is not what the program takes."""


def describe(treedef: Any) -> Tree:
    """The structure of a `tree.PyTreeDef`.

    **Raises** ProgramTreeError: a node of a class that has no fields, or a key that JSON has not.
    """
    if treedef.node is None:
        return LEAF
    node, children = treedef.node, [describe(child) for child in treedef.children]
    if node is type(None):
        return None
    if node in (list, tuple):
        return {node.__name__: children}
    if node is dict:
        for key in treedef.aux:
            if type(key) not in (str, int):
                raise ProgramTreeError(f"keys of a saved dict must be str or int, not {key!r}")
        return {"dict": [list(pair) for pair in zip(treedef.aux, children, strict=True)]}
    fields = [key[1:] for key in treedef.keys]
    named = all(key.startswith(".") and _is_name(key[1:]) for key in treedef.keys)
    if not named or treedef.aux or not _is_name(node.__name__):
        raise ProgramTreeError(
            "a saved program's arguments and results must be made of dict, list, tuple, namedtuple "
            f"and dataclasses whose fields are all arrays, not of {node.__name__}"
        )
    pairs = [list(pair) for pair in zip(fields, children, strict=True)]
    return {"record": node.__name__, "fields": pairs}


def _is_name(text: Any) -> bool:
    if type(text) is not str or text.startswith("_"):
        return False
    return text.isidentifier() and not keyword.iskeyword(text)


def _parts(tree: Tree) -> tuple[str, Any, list[Tree]]:
    """(kind, keys, children) of a node."""
    if tree is None:
        return "None", (), []
    if "record" in tree:
        pairs = tree["fields"]
        return tree["record"], tuple(k for k, _ in pairs), [c for _, c in pairs]
    ((kind, content),) = tree.items()
    if kind == "dict":
        return kind, tuple(k for k, _ in content), [c for _, c in content]
    return kind, tuple(range(len(content))), list(content)


def is_tree(tree: Any, depth: int = 0) -> bool:
    """Whether a JSON value is a structure."""
    if tree is None or tree == LEAF:
        return True
    if not isinstance(tree, dict) or depth > MAX_DEPTH:
        return False
    record = set(tree) == {"record", "fields"}
    if not record and set(tree) not in ({"list"}, {"tuple"}, {"dict"}):
        return False
    content = tree["fields"] if record else next(iter(tree.values()))
    if not isinstance(content, list):
        return False
    if record or "dict" in tree:
        if not all(isinstance(p, list) and len(p) == 2 for p in content):
            return False
        keys = [key for key, _ in content]
        good = all(map(_is_name, keys)) if record else all(type(k) in (str, int) for k in keys)
        if not good or len(set(keys)) != len(keys) or (record and not _is_name(tree["record"])):
            return False
        content = [child for _, child in content]
    return all(is_tree(child, depth + 1) for child in content)


def is_arguments(tree: Tree) -> bool:
    """Whether a structure is that of a call: a tuple of positional, a dict of named arguments."""
    if not isinstance(tree, dict) or len(tree.get("tuple", ())) != 2:
        return False
    positional, named = tree["tuple"]
    return all(isinstance(t, dict) and k in t for t, k in ((positional, "tuple"), (named, "dict")))


def leaf_count(tree: Tree) -> int:
    """How many arrays it has."""
    return 1 if tree == LEAF else sum(map(leaf_count, _parts(tree)[2]))


def show(tree: Tree) -> str:
    """As text, such as ``(*, {'w': *})``."""
    if tree == LEAF:
        return LEAF
    kind, keys, children = _parts(tree)
    texts = [show(child) for child in children]
    if kind == "None":
        return kind
    if kind == "list":
        return f"[{', '.join(texts)}]"
    if kind == "tuple":
        return f"({', '.join(texts)}{',' * (len(texts) == 1)})"
    if kind == "dict":
        return f"{{{', '.join(f'{k!r}: {t}' for k, t in zip(keys, texts, strict=True))}}}"
    return f"{kind}({', '.join(f'{k}={t}' for k, t in zip(keys, texts, strict=True))})"


def flatten(tree: Tree, value: Any, where: str) -> list[Any]:
    """The arrays of `value` in the structure's order.

    **Raises** ProgramTreeError: it has another structure; `where` names it in the message.
    """
    return list(_leaves(tree, value, where))


def _leaves(tree: Tree, value: Any, where: str) -> Iterator[Any]:
    if tree == LEAF:
        yield value
        return
    kind, keys, children = _parts(tree)
    wrong = ProgramTreeError(f"{where} must be {show(tree)}, not {_kind_of(value)}")
    if tree is None:
        if value is not None:
            raise wrong
    elif "record" in tree:
        if not all(hasattr(value, key) for key in keys):
            raise wrong
        for key, child in zip(keys, children, strict=True):
            yield from _leaves(child, getattr(value, key), f"{where}.{key}")
    else:
        classes = {"list": list, "tuple": tuple, "dict": dict}
        if type(value) is not classes[kind] or len(value) != len(keys):
            raise wrong
        if kind == "dict" and set(value) != set(keys):
            raise wrong
        for key, child in zip(keys, children, strict=True):
            yield from _leaves(child, value[key], f"{where}[{key!r}]")


def _kind_of(value: Any) -> str:
    if isinstance(value, list | tuple | dict):
        keys = f" with keys {sorted(map(str, value))}" if isinstance(value, dict) else ""
        return f"a {type(value).__name__} of {len(value)}{keys}"
    return f"a {type(value).__name__}" if value is not None else "None"


def unflatten(tree: Tree, leaves: Iterator[Any]) -> Any:
    """A value of the structure, its arrays taken from `leaves`."""
    if tree == LEAF:
        return next(leaves)
    kind, keys, children = _parts(tree)
    values = [unflatten(child, leaves) for child in children]
    if tree is None:
        return None
    if "record" in tree:
        return namedtuple(kind, keys)(*values)
    if kind == "dict":
        return dict(zip(keys, values, strict=True))
    return values if kind == "list" else tuple(values)
