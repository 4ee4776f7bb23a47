"""Pytrees: flatten, unflatten, paths, registration."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
from tilewright.compiler import tree

Point = namedtuple("Point", "x y")


@dataclass
class Layer:
    w: object
    b: object
    name: str = "dense"


tree.register_dataclass(Layer, meta_fields=("name",))

EXAMPLE = {"b": [1, (2, None)], "a": Point(3, {}), "c": Layer(4, 5, "out")}


def test_flatten_sorts_dict_keys():
    assert tree.leaves(EXAMPLE) == [3, 1, 2, 4, 5]


def test_unflatten_inverts_flatten():
    leaves, treedef = tree.flatten(EXAMPLE)
    assert tree.unflatten(treedef, leaves) == EXAMPLE


def test_paths_name_every_leaf():
    paths, _ = tree.flatten_with_path(EXAMPLE)
    assert [tree.keystr(p) for p, _ in paths] == [
        "['a'].x",
        "['b'][0]",
        "['b'][1][0]",
        "['c'].w",
        "['c'].b",
    ]


def test_treedef_is_hashable_and_compares_by_structure():
    same = {"a": Point(0, {}), "b": [9, (8, None)], "c": Layer(7, 6, "out")}
    other = {"a": Point(0, {}), "b": [9, (8, None)], "c": Layer(7, 6, "in")}
    assert hash(tree.structure(EXAMPLE)) == hash(tree.structure(same))
    assert tree.structure(EXAMPLE) == tree.structure(same)
    assert tree.structure(EXAMPLE) != tree.structure(other)


def test_treedef_prints():
    text = str(tree.structure({"a": (1,), "b": [None, Point(1, 2)]}))
    assert text == "PyTreeDef({'a': (*,), 'b': [None, Point(*, *)]})"


def test_map_over_several_trees():
    assert tree.map(lambda a, b: a + b, {"x": 1, "y": [2]}, {"x": 10, "y": [20]}) == {
        "x": 11,
        "y": [22],
    }


def test_map_refuses_different_structures():
    with pytest.raises(ValueError, match="trees must have one structure"):
        tree.map(lambda a, b: a, [1], (1,))


def test_is_leaf_stops_descent():
    assert tree.leaves([(1, 2), 3], is_leaf=lambda v: isinstance(v, tuple)) == [(1, 2), 3]


def test_register_pytree_node():
    class Box:
        def __init__(self, value):
            self.value = value

    tree.register_pytree_node(Box, lambda b: ((b.value,), None), lambda _, c: Box(*c))
    assert tree.map(lambda v: v + 1, Box(1)).value == 2
    with pytest.raises(ValueError, match="registered already"):
        tree.register_pytree_node(Box, None, None)


def test_unflatten_counts_leaves():
    with pytest.raises(ValueError, match="has 2 leaves, not 1"):
        tree.unflatten(tree.structure((1, 2)), [1])


def test_unsortable_keys_are_refused():
    with pytest.raises(TypeError, match="must be sortable"):
        tree.leaves({1: 0, "a": 0})


def test_register_dataclass_checks_fields():
    @dataclass
    class Bad:
        a: int

    with pytest.raises(ValueError, match="must be exactly"):
        tree.register_dataclass(Bad, data_fields=("a", "b"))
