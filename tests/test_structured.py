"""Tangents in factors pass every operation: each gives what the same tangent gives as an array."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_table import CASES

import dualgrad as dg
from dualgrad.dual import DualTensor, Structured, new_level
from dualgrad.structured import Outer

WITH_MATRICES = [case for case in CASES if any(len(a.shape.split()) > 1 for a in case.arguments)]


def outer(generator, k, shape):
    left, right = (
        generator.standard_normal((k, *shape[:-1])),
        generator.standard_normal((k, shape[-1])),
    )
    return Outer(left, right)


def run(case, args, tangents):
    """Return (value, dense tangent, carrier) of each result; a carrier of None is a constant."""
    with new_level("test") as level:
        duals = [
            x if t is None else DualTensor(x, t, level) for x, t in zip(args, tangents, strict=True)
        ]
        results = [y for y in dg.tree.leaves(case.call(*duals)) if isinstance(y, DualTensor)]
        return [(y.primal, y.tangents, y.carrier) for y in results]


@pytest.mark.parametrize("case", WITH_MATRICES, ids=str)
@settings(max_examples=3)
@given(data=st.data(), k=st.integers(1, 3), seed=st.integers(0, 99))
def test_every_operation_takes_rank_one_tangents(case, data, k, seed):
    args = data.draw(case.draw())
    generator = np.random.default_rng(seed)
    in_factors = [outer(generator, k, x.shape) if x.ndim > 1 else None for x in args]
    mixed = [generator.standard_normal((k, *x.shape)) if t is None else t
             for x, t in zip(args, in_factors, strict=True)]  # fmt: skip
    for tangents in (in_factors, mixed):
        dense = [t.dense() if isinstance(t, Structured) else t for t in tangents]
        found, expected = run(case, args, tangents), run(case, args, dense)
        assert len(found) == len(expected) > 0
        for (y, t, _), (plain_y, plain_t, _) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(y, plain_y)
            np.testing.assert_allclose(t, plain_t, rtol=1e-10, atol=1e-10)


def test_the_dense_array_is_the_outer_product_of_each_direction():
    generator = np.random.default_rng(0)
    t = outer(generator, 3, (2, 4, 5))
    expected = np.stack([np.multiply.outer(t.left[i], t.right[i]) for i in range(3)])
    np.testing.assert_array_equal(t.dense(), expected)
    assert t.shape == (2, 4, 5) and len(t) == 3 and t.dtype == np.float64
    assert repr(t) == "Outer(k=3, shape=(2, 4, 5))"
    flat = expected.reshape(3, -1)
    np.testing.assert_allclose(t.gram(), flat @ flat.T)
    c = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(t.combine(c).dense(), np.tensordot(c, expected, 1))


def test_a_rank_one_tangent_cannot_be_written_to():
    with new_level("test") as level:
        x = DualTensor(np.zeros((2, 3)), outer(np.random.default_rng(0), 1, (2, 3)), level)
        with pytest.raises(dg.WriteError, match="cannot follow in-place writes"):
            x[0] = 1.0
        y = x.copy()
        y[0] = 1.0
        assert not y.tangents[:, 0].any() and y.tangents[:, 1].any()


def test_a_rank_one_tangent_under_another_transform():
    # Both levels are pushed: the outer derivative of the inner tangent of tanh(w @ x) in w.
    generator = np.random.default_rng(0)
    w, x, v = (generator.standard_normal(s) for s in ((4, 3), (3, 2), (4, 3)))
    t = outer(generator, 2, (4, 3))

    def inner(w, carrier):
        with new_level("test") as level:
            return np.tanh(DualTensor(w, carrier, level) @ x).tangents

    found = dg.jvp(lambda w: inner(w, t), (w,), (v,))[1]
    expected = dg.jvp(lambda w: inner(w, t.dense()), (w,), (v,))[1]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
