"""The tangents of the layers, against central differences and against what is known of them."""

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn, tree
from dualgrad.random import Key

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
