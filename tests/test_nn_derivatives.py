"""The tangents of the layers, against central differences and against what is known of them."""

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn, testing, tree
from dualgrad.dual import DualTensor, new_level
from dualgrad.kernels import dispatch
from dualgrad.ops.normalisation import normalise, normalise_with_statistics, scaled
from dualgrad.random import Key
from dualgrad.structured import Outer
from dualgrad.trace import fill, trace

KEY = Key(0)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


DOUBLE = {"key": KEY, "dtype": np.float64}
DIFFERENTIATED = {
    "linear": (nn.Linear(6, 4, activation="gelu", **DOUBLE), (5, 6)),
    "conv": (nn.Conv2d(4, 6, 3, stride=2, groups=2, activation="relu", **DOUBLE), (2, 6, 5, 4)),
    "max pool": (nn.MaxPool2d(2), (2, 4, 4, 3)),
    "average pool": (nn.AvgPool2d(2), (2, 4, 4, 3)),
    "layer norm": (nn.LayerNorm((3, 6), **DOUBLE), (5, 3, 6)),
    "group norm": (nn.GroupNorm(2, 6, **DOUBLE), (2, 4, 3, 6)),
    "dropout": (nn.Sequential(nn.Dropout(0.5)), (5, 6)),
    "batch norm": (nn.Sequential(nn.BatchNorm(3, **DOUBLE)), (7, 3)),
    "mlp": (nn.MLP([12, 5, 3], activation="sigmoid", **DOUBLE), (4, 2, 3, 2)),
    "sequential": (
        nn.Sequential(
            nn.Conv2d(1, 3, 3, **DOUBLE),
            nn.BatchNorm(3, **DOUBLE),
            nn.relu,
            nn.Dropout(0.3),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(12, 2, **DOUBLE),
        ),
        (3, 4, 4, 1),
    ),
}


def call(model, x, state):
    if not isinstance(model, nn.Sequential):
        return model(x)
    y = model(x, state, key=KEY)
    return y[0] if state else y


def moved(model, direction, step):
    return tree.map(lambda w, v: w + step * v if tree.is_floating(w) else w, model, direction)


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_the_jvp_of_a_layer_is_its_central_difference(name):
    model, shape = DIFFERENTIATED[name]
    state = model.init_state() if isinstance(model, nn.Sequential) else {}
    seeds = iter(range(100, 200))
    direction = tree.map(
        lambda w: normal(next(seeds), *w.shape) if tree.is_floating(w) else w,
        model,
    )
    x, tx = normal(0, *shape), normal(1, *shape)
    y, dy = dg.jvp(lambda m, x: call(m, x, state), (model, x), (direction, tx))
    h = 1e-6
    ahead = call(moved(model, direction, h), x + h * tx, state)
    behind = call(moved(model, direction, -h), x - h * tx, state)
    np.testing.assert_array_equal(y, call(model, x, state))
    np.testing.assert_allclose(dy, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-7)


def test_the_jvp_of_an_embedding_picks_the_rows_of_the_direction():
    table = nn.Embedding(5, 3, key=KEY)
    direction = nn.Embedding(5, 3, key=Key(1))
    ids = np.array([3, 3, 0])
    _, dy = dg.jvp(lambda t: t(ids), (table,), (direction,))
    np.testing.assert_array_equal(dy, direction.weight[ids])


def test_running_statistics_carry_no_tangents_and_batch_statistics_do():
    layer = nn.BatchNorm(3, **DOUBLE)
    states = []

    def call_layer(x):
        y, state = layer(x, layer.init_state())
        states.append(state)
        return y

    x = normal(0, 7, 3)
    _, dy = dg.jvp(call_layer, (x,), (np.ones_like(x),))
    np.testing.assert_allclose(dy, 0, atol=1e-12)  # a shift of the whole batch changes nothing
    assert all(type(array) is np.ndarray for array in states[0].values())
    np.testing.assert_allclose(states[0]["mean"], 0.1 * x.mean(axis=0), rtol=1e-12)


# --- normalisation, one primitive


AXES = {"rows": (-1,), "columns": (0, 1), "the middle": (1,), "apart": (0, 2)}
FORMS = ["never", "always"] if dispatch.numba_available() else ["never"]
NORMALISE = {
    "alone": lambda x, axes: normalise(x, axes, 0.1),
    "with statistics": lambda x, axes: normalise_with_statistics(x, axes, 0.1)[0],
}


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("which", NORMALISE)
@pytest.mark.parametrize("use", FORMS)
def test_normalise_has_derivatives_of_every_order_in_every_mode(use, which, axes, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_use", use)
    x, v, u = normal(0, 4, 3, 5), normal(1, 4, 3, 5), normal(2, 4, 3, 5)

    def function(x):
        return NORMALISE[which](x, AXES[axes])

    testing.check_function(function, x, order=2, k=3)
    testing.check_transpose(lambda x: dg.jvp(function, (x,), (v,))[1], (x,))
    testing.check_jvp(lambda x: dg.vjp(function, x)[1](u), (x,))

    def scalar(x):
        return np.sum(u * function(x) ** 3)

    composed = dg.hessian(lambda x: np.sum(u * by_numpy(x, AXES[axes]) ** 3))(x)
    np.testing.assert_allclose(dg.hessian(scalar)(x), composed, rtol=1e-9, atol=1e-9)
    third = dg.jvp(lambda x: dg.jvp(lambda x: dg.jvp(scalar, (x,), (v,))[1], (x,), (u,))[1],
                   (x,), (v,))[1]  # fmt: skip
    backwards = dg.jvp(
        lambda x: dg.jvp(lambda x: np.sum(dg.vjp(scalar, x)[1](1.0)[0] * v), (x,), (u,))[1],
        (x,), (v,),
    )[1]  # fmt: skip
    np.testing.assert_allclose(backwards, third, rtol=1e-9)


def test_normalise_of_complex_numbers():
    x = normal(0, 4, 3) + 1j * normal(1, 4, 3)
    testing.check_function(lambda x: normalise(x, (0,), 2.0), x, order=2)


def by_numpy(x, axes):
    centred = x - np.mean(x, axis=axes, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=axes, keepdims=True) + 0.1)


def test_normalise_of_a_tangent_in_factors():
    x = normal(0, 6, 5)
    a, b = normal(1, 2, 6), normal(2, 2, 5)
    with new_level("test") as level:
        got = normalise(DualTensor(x, Outer(a, b), level), (-1,), 0.1).tangents
    dense = np.einsum("ki,kj->kij", a, b)
    expected = dg.pushforward(lambda x: by_numpy(x, (-1,)), (x,), (dense,))[1]
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


def test_a_record_of_batch_statistics_replays_them_for_another_batch():
    def function(layer, x, mean, variance):
        state = {"mean": mean, "variance": variance}
        y, state = layer(normalise(x, (1,), 0.1), state)
        return y, state["mean"], state["variance"]

    layer = nn.BatchNorm(6, **DOUBLE)
    first = layer, normal(0, 5, 6), np.zeros(6), np.ones(6)
    second = layer, normal(1, 5, 6), np.ones(6), np.zeros(6)
    graph, _ = trace(function, first)
    values = tree.leaves(second)
    assert len(values) == graph.inputs
    for call in graph.calls:
        values.append(call.function(*fill(call.args, values), **fill(call.kwargs, values)))
    for ref, array in zip(graph.outputs, function(*second), strict=True):
        np.testing.assert_array_equal(values[ref], array)


def test_the_statistics_of_nested_duals_are_plain():
    x, found = normal(0, 4, 3), []

    def function(x):
        y, mean, variance = normalise_with_statistics(x, (0,), 0.1)
        found.append((mean, variance))
        return np.sum(y**3)

    dg.hessian(function)(x)
    dg.gradient(function, mode="reverse")(x)
    for mean, variance in found:
        assert type(mean) is type(variance) is np.ndarray
        np.testing.assert_allclose(mean, x.mean(axis=0, keepdims=True), rtol=1e-12)
        np.testing.assert_allclose(variance, x.var(axis=0, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("moving", [(0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)])
def test_what_follows_a_normalisation_in_every_mode(moving):
    """scaled writes into what normalise gave; the same composed of operators writes nowhere."""
    parts = normal(0, 4, 3, 5), normal(1, 3, 5), normal(2, 3, 5)
    rows = [np.stack([normal(3 + i + 9 * j, *x.shape) for j in range(2)])
            for i, x in enumerate(parts)]  # fmt: skip

    def of(apply):
        def function(*chosen):
            x, scale, shift = (chosen[moving.index(i)] if i in moving else p
                               for i, p in enumerate(parts))  # fmt: skip
            return apply(normalise(x, (0,), 0.1), scale, shift)

        return function

    got, expected = of(scaled), of(lambda y, scale, shift: y * scale + shift)
    chosen, directions = tuple(parts[i] for i in moving), tuple(rows[i] for i in moving)
    u = normal(8, 4, 3, 5)

    def twice(f):  # forward over reverse: the record holds duals
        def g(*args):
            return dg.vjp(f, *args)[1](u)

        return dg.jvp(g, chosen, tuple(d[0] for d in directions))

    for use in (
        lambda f: f(*chosen),
        lambda f: dg.pushforward(f, chosen, directions),
        lambda f: dg.vjp(f, *chosen)[1](u),
        lambda f: dg.linearize(f, *chosen)[1](*(d[0] for d in directions)),
        lambda f: dg.jvp(lambda *args: dg.jvp(f, args, tuple(d[0] for d in directions))[1],
                         chosen, tuple(d[1] for d in directions)),
        twice,
    ):  # fmt: skip
        for a, b in zip(tree.leaves(use(got)), tree.leaves(use(expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)
    before = [x.copy() for x in chosen]
    testing.check_transpose(got, chosen)
    for x, y in zip(chosen, before, strict=True):
        np.testing.assert_array_equal(x, y)
