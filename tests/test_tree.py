"""Trees: which leaves they have, how they are named, taken apart and put together."""

import dataclasses
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
from hypothesis import given

import dualgrad as dg
from dualgrad import testing, tree


@dataclasses.dataclass
class Layer:
    weight: object
    bias: object = None
    units: int = 4
    name: str = "layer"
    activation: object = np.tanh
    table: object = dataclasses.field(default=None, metadata={"static": True})

    def __post_init__(self):
        self.made = True  # unflatten must not run this: __init__ may draw parameters


@dataclasses.dataclass(frozen=True)
class Frozen:
    inner: Layer
    others: list


Point = namedtuple("Point", "x y")


def example():
    layer = Layer(np.ones((2, 3)), np.zeros(3), table=(1, 2))
    return {"b": [1.5, Point(np.float32(2), 3)], "a": Frozen(layer, [None, "text", np.arange(2)])}


def test_leaves_and_paths_are_in_one_order_keys_sorted():
    t = example()
    assert tree.paths(t) == [
        "a/inner/weight",
        "a/inner/bias",
        "a/others/0",
        "a/others/1",
        "a/others/2",
        "b/0",
        "b/1/0",
        "b/1/1",
    ]
    leaves = tree.leaves(t)
    assert len(leaves) == 8 and leaves[5] == 1.5 and leaves[3] == "text" and leaves[2] is None


def test_flatten_and_unflatten_are_inverse_and_run_no_constructor():
    t = example()
    leaves, structure = tree.flatten(t)
    same = tree.unflatten(structure, leaves)
    assert tree.paths(same) == tree.paths(t)
    assert all(a is b for a, b in zip(tree.leaves(same), leaves, strict=True))
    layer = same["a"].inner
    assert (layer.units, layer.name, layer.activation, layer.table) == (4, "layer", np.tanh, (1, 2))
    assert not hasattr(layer, "made") and isinstance(same["b"][1], Point)


@given(t=testing.trees())
def test_map_visits_every_leaf_and_keeps_the_containers(t):
    doubled = tree.map(lambda x, y: x + y, t, t)
    assert tree.flatten(doubled)[1] == tree.flatten(t)[1]
    for a, b in zip(tree.leaves(doubled), tree.leaves(t), strict=True):
        np.testing.assert_array_equal(a, 2 * b)


def test_kinds_of_containers_are_kinds_of_trees():
    for t in (OrderedDict(b=1.0, a=2.0), Point(1.0, 2.0), (1.0,), [], {}, 3.0):
        assert type(tree.map(lambda x: x, t)) is type(t)
    assert tree.leaves([]) == [] and tree.paths(3.0) == [""]


@pytest.mark.parametrize("other", [
    [1.0], [1.0, 2.0, 3.0], (1.0, 2.0), {"a": 1.0, "b": 2.0}, [1.0, [2.0]],
], ids=str)  # fmt: skip
def test_trees_that_differ_are_refused_with_both_structures(other):
    with pytest.raises(dg.StructureError, match=r"(?s)expected: \[\*, \*\].*got: "):
        tree.map(lambda x, y: x, [1.0, 2.0], other)


def test_dataclasses_differ_in_their_static_fields():
    for change in (
        {"units": 5},
        {"name": "other"},
        {"activation": np.sin},
        {"table": 1},
        {"bias": None},
    ):
        one = Layer(np.ones(2), np.ones(2))
        with pytest.raises(dg.StructureError):
            tree.map(lambda x, y: x, one, dataclasses.replace(one, **change))


def test_floating_leaves_are_the_parameters():
    class Described:
        dtype = np.dtype("S3")

    floating = [
        1.0,
        1j,
        np.float16(1),
        np.ones(2, np.float32),
        np.ones((), complex),
        dg.dual(1.0, 1.0),
    ]
    static = [
        1,
        True,
        "x",
        None,
        np.arange(2),
        np.array(True),
        np.sin,
        Described(),
        np.array("text"),
    ]
    assert all(tree.is_floating(x) for x in floating)
    assert not any(tree.is_floating(x) for x in static)
    assert list(tree.parameters(example())) == ["a/inner/weight", "a/inner/bias", "b/0", "b/1/0"]


def test_registered_classes_are_containers():
    class Box:
        def __init__(self, item, label):
            self.item, self.label = item, label

    box = Box(2.0, "kept")
    assert tree.leaves(box) == [box]
    tree.register(
        Box, lambda b: ([b.item], b.label), lambda label, items: Box(next(iter(items)), label)
    )
    assert tree.leaves(box) == [2.0] and tree.map(lambda x: -x, box).label == "kept"
    assert dg.gradient(lambda b: b.item**2)(box).item == 4
