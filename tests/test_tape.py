"""The record of reverse mode, and when it lets go of what it holds."""

import tracemalloc

import numpy as np

import dualgrad as dg

X = np.linspace(-1, 1, 50_000)
LAYERS = 12


def f(x):
    for _ in range(LAYERS):
        x = np.sin(x)
    return x


def test_a_pullback_can_be_called_again_and_then_once_for_the_last_time():
    _, f_vjp = dg.vjp(f, X)
    (first,), (again,) = f_vjp(X), f_vjp(X)
    (last,) = f_vjp.once(X)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, last)
    assert all(node.residuals is None for node in f_vjp.tape.nodes if node.primitive)


def test_the_last_pull_gives_memory_back_as_it_goes():
    tracemalloc.start()
    y, pull = dg.vjp(f, X)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    pull.once(X)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held > LAYERS * X.nbytes  # a residual a layer
    assert now < held - (LAYERS - 1) * X.nbytes
    assert peak < held + 3 * X.nbytes
    assert y.shape == X.shape


def test_what_is_handed_out_shares_no_memory():
    a, b, ct = np.array([1.0, 2.0]), np.array([3.0, 5.0]), np.array([7.0, 11.0])
    for f in (np.add, lambda a, b: (a + b) ** 2, lambda a, b: np.concatenate([a, b, a])[1:3] + a):
        g, h = dg.vjp(f, a, b)[1](ct)
        before = h.copy()
        g *= 0
        np.testing.assert_array_equal(h, before)
        h *= 0
    y, f_jvp = dg.linearize(lambda a: (a, a[::-1], np.broadcast_to(a, (3, 2))), a)
    for result in (*f_jvp(b), *y):
        result *= 0
    np.testing.assert_array_equal([a, b, ct], [[1, 2], [3, 5], [7, 11]])
    np.testing.assert_array_equal(f_jvp(b)[1], [5, 3])
