"""What the tests of plans share: data, losses, and the comparison of a plan with the eager step."""

import contextlib
import io

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.kernels.fused import missing

KEY = dg.Key(5)
relu, cross_entropy = dg.nn.relu, dg.nn.cross_entropy


def need_plans():
    """Skip the module where no plan can run."""
    if missing():
        pytest.skip(missing(), allow_module_level=True)


def normal(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def batch(number, n=6, dtype=np.float64):
    labels = np.random.default_rng(number).integers(0, 3, n)
    return normal(100 + number, n, 4, dtype=dtype), labels


def batches(count=8, dtype=np.float64):
    return [batch(i, dtype=dtype) for i in range(count)]


def images(number, n=3, height=8, width=8, channels=2, dtype=np.float64):
    labels = np.random.default_rng(number).integers(0, 3, n)
    return normal(50 + number, n, height, width, channels, dtype=dtype), labels


def two_layers(hidden=8, dtype=np.float64):
    return {
        "w1": normal(0, 4, hidden, dtype=dtype) / 2,
        "b1": normal(1, hidden, dtype=dtype) / 8,
        "w2": normal(2, hidden, 3, dtype=dtype) / 2,
        "b2": normal(3, 3, dtype=dtype) / 8,
    }


def network(p, x):
    return relu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]


def loss(p, x, y):
    return cross_entropy(network(p, x), y)


def run(function, params, given, *, plan, rate=0.05, model_state=None, read=False, **options):
    """Train on each of `given`; return (values or errors, params, model state, step, state)."""
    step = dg.training_step(
        function, dg.optim.sgd(rate), plan=plan, **{"precision": "exact"} | options
    )
    state = step.init(params, KEY, model_state)
    values = []
    for one in given:
        arguments = one() if callable(one) else one
        try:
            state, value = step(state, *arguments)
        except (Exception, KeyboardInterrupt) as error:
            value = f"{type(error).__name__}: {error}"
        values.append(value)
        if read:
            _ = state.params
    return values, state.params, state.model_state, step, state


def assert_close(one, other, rtol):
    """Compare two trees, floating arrays to rtol of their largest entry, all else exactly."""
    first, second = dg.tree.leaves(one), dg.tree.leaves(other)
    assert dg.tree.flatten(one)[1] == dg.tree.flatten(other)[1]
    for a, b in zip(first, second, strict=True):
        if not hasattr(b, "dtype"):
            assert a == b
            continue
        assert (np.shape(a), a.dtype) == (np.shape(b), b.dtype)
        if a.dtype.kind == "f":
            size = np.max(np.abs(b), initial=0, where=np.isfinite(b))
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(size, 1e-2))
        else:
            np.testing.assert_array_equal(a, b)


def explained(step, state, *arguments):
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        step.explain(state, *arguments)
    return shown.getvalue()


def fused(step, state, arguments):
    """Return how many stages a plan has for such a batch; 0 where it runs eagerly."""
    text = explained(step, state, *arguments)
    return sum(line.split()[0] in ("fused", "view") for line in text.splitlines()[1:])


def assert_plan_is_eager(function, params, given, *, stages=None, rtol=None, **options):
    """Train by a plan and eagerly: the same values, errors, parameters and model state.

    stages: how many the plan must have, 0 for one that must be refused; None: any number.
    """
    arrays = [x for x in dg.tree.leaves(params) if isinstance(x, np.ndarray)]
    double = all(x.dtype == np.float64 for x in arrays)
    rtol = rtol or (1e-10 if double else 2e-5)
    *planned, step, state = run(function, params, given, plan=True, **options)
    *eager, _, _ = run(function, params, given, plan=False, **options)
    for a, b in zip(planned[0], eager[0], strict=True):
        assert_close(a, b, rtol)
    assert_close(planned[1:], eager[1:], rtol)
    if stages is not None:
        assert fused(step, state, given[0]() if callable(given[0]) else given[0]) == stages


def assert_same_bits(one, other):
    for a, b in zip(dg.tree.leaves(one), dg.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
