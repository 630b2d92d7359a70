"""Trees as arguments and results of every transform: containers, static parts, errors with both."""

import collections
import dataclasses
import types
from typing import Any, NamedTuple

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import tree

X = np.array([1.0, 2.0, 3.0])
V = np.array([1.0, 0.0, -1.0])


@dataclasses.dataclass
class Model:
    weight: Any
    scale: Any = 2.0
    units: int = 3
    name: str = "model"
    activation: Any = np.tanh
    inner: Any = None
    table: Any = dataclasses.field(default=None, metadata={"static": True})

    def __call__(self, x):
        y = self.activation(self.weight * x) * self.scale
        return y if self.inner is None else self.inner(y)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    weight: Any
    later: Any = dataclasses.field(init=False)


class Pair(NamedTuple):
    left: Any
    right: Any = 1.0


def model(**fields):
    return Model(X / 4, inner=Model(X, 3.0, name="inner"), table=np.array([[1, 2]]), **fields)


def loss(m):
    return np.sum(m(1.5) ** 2)


def flat(t):
    return np.concatenate([np.ravel(x) for x in tree.leaves(t)])


def test_every_transform_takes_a_dataclass_and_gives_one_back():
    m, v = model(), tree.map(lambda x: np.cos(np.asarray(x) * 1.0), model())
    g = dg.gradient(loss)(m)
    assert type(g) is type(g.inner) is Model and (g.units, g.inner.name) == (3, "inner")
    np.testing.assert_array_equal(g.table, [[1, 2]])
    slope = flat(g) @ flat(v)
    y, dy = dg.jvp(loss, (m,), (v,))
    assert dy == pytest.approx(slope) and y == pytest.approx(loss(m))
    assert dg.linearize(loss, m)[1](v) == pytest.approx(slope)
    np.testing.assert_allclose(flat(dg.vjp(loss, m)[1](1.0)[0]), flat(g))
    np.testing.assert_allclose(flat(dg.gradient(loss, mode="reverse", chunk_size=2)(m)), flat(g))
    columns = dg.jacobian(lambda m: {"y": m(1.5)})(m)["y"]
    assert type(columns) is Model and columns.inner.weight.shape == (3, 3)
    np.testing.assert_allclose(2 * m(1.5) @ columns.inner.weight, g.inner.weight)
    h = dg.hessian(loss)(m)
    along = sum(np.tensordot(h_i, v_i, np.ndim(v_i)) for h_i, v_i in zip(
        tree.leaves(h.weight), tree.leaves(v), strict=True))  # fmt: skip
    for mode in ("forward", "reverse"):
        np.testing.assert_allclose(dg.hvp(loss, (m,), (v,), mode=mode).weight, along, rtol=1e-10)
    _, k_slopes = dg.pushforward(loss, (m,), (tree.map(lambda t: np.stack([t, 2 * t]), v),))
    np.testing.assert_allclose(k_slopes, [slope, 2 * slope])
    _, estimate = dg.forward_gradient(loss, directions=3)(m, key=dg.Key(0))
    assert type(estimate.inner) is Model and estimate.inner.name == "inner"


@pytest.mark.parametrize(
    "container",
    [
        lambda x: (x,),
        lambda x: [x, {"deep": (x, [x])}],
        lambda x: {"b": x, "a": 2.0, 3: x},
        lambda x: collections.OrderedDict(b=x, a=x),
        lambda x: collections.defaultdict(list, a=x),
        lambda x: collections.deque([x, x]),
        lambda x: Pair(x),
        lambda x: Frozen(x),
        lambda x: [x, None, "text", np.sin, True, dg.Key(1)],
    ],
    ids=["tuple", "list", "dict", "OrderedDict", "defaultdict", "deque", "NamedTuple", "frozen",
         "static leaves"],
)  # fmt: skip
def test_containers_keep_their_kind(container):
    t = container(X)

    def f(t):
        moving = [x for x in tree.leaves(t) if isinstance(x, dg.DualTensor)]
        return sum(np.sum(x**2) for x in moving)

    g = dg.gradient(f)(t)
    assert type(g) is type(t) and tree.paths(g) == tree.paths(t)
    for x, slope in zip(tree.leaves(t), tree.leaves(g), strict=True):
        if tree.is_floating(x):
            np.testing.assert_array_equal(slope, 2 * np.asarray(x))
    if not any(isinstance(x, (str, dg.Key)) for x in tree.leaves(t)):  # those are no results
        y, dy = dg.jvp(lambda x: container(x * x), (X,), (V,))
        assert type(y) is type(dy) is type(t)
        np.testing.assert_array_equal(tree.leaves(dy)[0], 2 * X * V)


def test_static_parts_stay_out_of_tangents_and_belong_to_the_structure():
    same = dataclasses.replace(model(), table=np.array([[1, 2]]))
    assert tree.flatten(same)[1] == tree.flatten(model())[1]
    assert hash(tree.flatten(same)[1]) == hash(tree.flatten(model())[1])
    for change in (
        {"table": np.array([[1, 3]])},
        {"table": np.array([1, 2])},
        {"table": np.array([[1.0, 2.0]])},
        {"table": [1, 2]},
        {"units": 4},
        {"activation": np.sin},
        {"inner": None},
    ):
        with pytest.raises(dg.StructureError, match="(?s)dg.jvp: .*expected: .*got: "):
            dg.jvp(loss, (model(),), (dataclasses.replace(same, **change),))


@pytest.mark.parametrize(
    "one, other, equal",
    [
        ([1, {"a": np.zeros(2)}], [1, {"a": np.zeros(2)}], True),
        ([1, {"a": np.zeros(2)}], [1, {"a": np.ones(2)}], False),
        (np.array([np.nan, 1.0]), np.array([np.nan, 1.0]), True),
        ((1, 2), [1, 2], False),
        (1, 1.0, False),
        ({"a": 1}, {"b": 1}, False),
        (np.zeros(2), 0.0, False),
    ],
)
def test_static_values_are_compared_entry_by_entry(one, other, equal):
    structures = [tree.flatten(Model(X, table=table))[1] for table in (one, other)]
    assert (structures[0] == structures[1]) is equal


def test_a_field_that_was_never_set_stays_unset():
    g = dg.gradient(lambda m: np.sum(m.weight**2))(Frozen(X))
    np.testing.assert_array_equal(g.weight, 2 * X)
    assert not hasattr(g, "later")


def test_both_structures_are_shown_and_the_first_difference_of_long_ones():
    with pytest.raises(dg.StructureError) as caught:
        dg.jvp(lambda p: p.left, (Pair(X),), ((X, 1.0),))
    assert str(caught.value) == (
        "dg.jvp: two trees differ in structure.\n  expected: (Pair(left=*, right=*),)\n"
        "  got:      ((*, *),)\nGive both the same containers, keys and static fields."
    )
    long = {f"layer{i:02}": {"weight": X, "bias": X} for i in range(50)}
    short = {**long, "layer30": {"weight": X}}
    with pytest.raises(dg.StructureError) as caught:
        dg.jvp(lambda p: X, (long,), (short,))
    message = str(caught.value)
    assert "... (100 leaves)" in message and "... (99 leaves)" in message and len(message) < 1000
    assert "the first leaf that only the expected one has: '0/layer30/bias'" in message
    with pytest.raises(dg.StructureError, match="only the got one has: '0/layer30/bias'"):
        dg.jvp(lambda p: X, (short,), (long,))


@pytest.mark.parametrize(
    "mistake, error, words",
    [
        (lambda p: dg.gradient(loss)({"a": [1.0, 3]}), dg.DtypeError, "leaf '0/a/1': a primal of"),
        (lambda p: dg.jvp(len, ({"a": X},), ({"a": V[:2]},)), dg.ShapeError, r"leaf '0/a': .*\(2,"),
        (lambda p: dg.vjp(len, {"a": {"b": 1}}), dg.DtypeError, "dg.vjp, leaf '0/a/b'"),
        (lambda p: dg.gradient(loss)(types.SimpleNamespace(w=X)), dg.StructureError,
         "a SimpleNamespace is neither an array nor a container.*dg.tree.register"),
        (lambda p: dg.gradient(loss)({1.0, 2.0}), dg.StructureError, "a set is neither"),
        (lambda p: dg.gradient(loss)(x for x in X), dg.StructureError, "a generator is neither"),
        (lambda p: dg.gradient(loss)([type("Rows", (list,), {})([1.0])]), dg.StructureError,
         "leaf '0/0': a Rows is neither"),
        (lambda p: dg.jvp(lambda x: {"y": "text"}, (X,), (V,)), dg.StructureError, "a str"),
    ],
)  # fmt: skip
def test_leaves_that_cannot_move_are_named(mistake, error, words):
    with pytest.raises(error, match=f"(?s){words}"):
        mistake(None)


def test_duals_inside_containers_of_an_outer_transform_keep_their_tangents():
    # d/dx of the gradient of x * w**3 with respect to w, at w = x: d/dx 3 x**3 = 9 x**2.
    def outer(x):
        return dg.gradient(lambda p: x * p["w"][0] ** 3)({"w": (x, 3.0)})["w"][0]

    assert dg.derivative(outer)(2.0) == 36
    assert dg.gradient(outer, mode="reverse")(2.0) == 36
