"""float16 without loss scaling: where cotangents vanish, tangents do not."""

import numpy as np

import dualgrad as dg
from dualgrad import nn

DEPTH, WIDTH, EXAMPLES = 6, 32, 2048


def loss(weights, x, y):
    h = x
    for w in weights[:-1]:
        h = np.tanh(h @ w)
    return nn.cross_entropy(h @ weights[-1], y)


def problem():
    """A network whose gradients shrink towards the input, a batch, and the same in float64."""
    rng = np.random.default_rng(0)
    sizes = [32, *[WIDTH] * DEPTH, 10]
    weights = [
        (0.2 * rng.normal(size=(m, n)) / np.sqrt(m)).astype(np.float16)
        for m, n in zip(sizes, sizes[1:], strict=False)
    ]
    x = rng.normal(size=(EXAMPLES, 32)).astype(np.float16)
    y = rng.integers(0, 10, EXAMPLES)
    wide = [w.astype(np.float64) for w in weights], x.astype(np.float64), y
    return (weights, x, y), wide


def test_reverse_mode_loses_gradients_that_forward_mode_keeps():
    narrow, wide = problem()
    found = dg.gradient(loss, mode="reverse")(*narrow)
    exact = dg.gradient(loss, mode="reverse")(*wide)
    assert np.mean(found[0] == 0) > 0.9 and np.mean(np.abs(exact[0]) > 0) > 0.9

    weights, x, y = narrow
    rng = np.random.default_rng(1)
    signs = [rng.choice(np.array([-1, 1], np.float16), w.shape) for w in weights]
    for layer in (0, 3, DEPTH):
        v = [s if i == layer else np.zeros_like(s) for i, s in enumerate(signs)]
        _, d = dg.jvp(lambda w: loss(w, x, y), (weights,), (v,))
        _, t = dg.jvp(lambda w: loss(w, *wide[1:]), (wide[0],), ([s.astype(float) for s in v],))
        assert d.dtype == np.float16
        np.testing.assert_allclose(d, t, rtol=0.1, atol=2e-6)
