"""Gradients and tangents kept in factors: equal to their dense form, and never turned into it."""

import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import dualgrad as dg
from dualgrad.kernels import dispatch
from dualgrad.structured import Outer

KEY = dg.Key(3)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def low_rank(seed, rank, shape, dtype=np.float64):
    rows = int(np.prod(shape[:-1]))
    left, right = normal(seed, rank, rows), normal(seed + 1, rank, shape[-1])
    return dg.LowRank(left.astype(dtype), right.astype(dtype), shape)


def written_out(g):
    """Return the array from its definition, term by term."""
    total = np.zeros((g.left.shape[1], g.right.shape[1]), g.dtype)
    for column, row in zip(g.left, g.right, strict=True):
        total += np.multiply.outer(column, row)
    return total.reshape(g.shape)


SHAPES = st.one_of(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
)


@given(
    shape=SHAPES,
    rank=st.integers(1, 6),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([np.float32, np.float64]),
)
@settings(max_examples=40)
def test_arithmetic_is_that_of_the_dense_array(shape, rank, seed, dtype):
    g, other = low_rank(seed, rank, shape, dtype), low_rank(seed + 2, 2, shape, dtype)
    a, b = written_out(g), written_out(other)
    close = {"rtol": 1e-4 if dtype == np.float32 else 1e-11, "atol": 1e-4 * (dtype == np.float32)}
    p = normal(seed + 4, *shape).astype(dtype)
    for found, expected in (
        (np.asarray(g), a),
        (g.dense(), a),
        (p - 0.1 * g, p - dtype(0.1) * a),
        (p + g, p + a),
        (g + p, a + p),
        (g - p, a - p),
        (g * p, a * p),
        (p * g, a * p),
        (g / (1 + p**2), a / (1 + p**2)),
    ):
        assert type(found) is np.ndarray and found.shape == shape and found.dtype == dtype
        np.testing.assert_allclose(found, expected, **close)
    for found, expected, rank_found in (
        (g + other, a + b, rank + 2),
        (g - other, a - b, rank + 2),
        (2.5 * g, 2.5 * a, rank),
        (g / 2, a / 2, rank),
        (-g, -a, rank),
        (g * np.float32(3), a * 3, rank),
    ):
        assert isinstance(found, dg.LowRank) and len(found.left) == rank_found
        assert found.dtype == dtype
        np.testing.assert_allclose(np.asarray(found), expected, **close)
    np.testing.assert_allclose(g.norm(), np.linalg.norm(a), rtol=1e-4, atol=close["atol"])
    assert (g.shape, g.ndim, g.size) == (shape, len(shape), a.size)


def test_products_with_a_matrix():
    g = low_rank(5, 3, (4, 5))
    np.testing.assert_allclose(g @ normal(7, 5, 2), written_out(g) @ normal(7, 5, 2))
    np.testing.assert_allclose(g @ normal(7, 5), written_out(g) @ normal(7, 5))
    deep = low_rank(5, 3, (2, 4, 5))
    np.testing.assert_allclose(deep @ normal(7, 5, 2), written_out(deep) @ normal(7, 5, 2))


def test_conversion_takes_a_dtype():
    g = low_rank(8, 2, (3, 4))
    assert np.asarray(g, np.float32).dtype == np.float32
    assert np.asarray(g).dtype == np.float64


@pytest.mark.parametrize("rank", [1, 3, 9])
@pytest.mark.parametrize("shape", [(7, 5), (3, 2, 4, 6)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_updates_in_place(rank, shape, dtype):
    g = low_rank(9, rank, shape, dtype)
    w, buffer = normal(11, *shape).astype(dtype), normal(12, *shape).astype(dtype)
    expected_w = w - dtype(0.3) * written_out(g)
    expected_buffer = dtype(0.9) * buffer + written_out(g)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-12}
    g.add_to(w, -0.3)
    g.accumulate(buffer, 0.9)
    np.testing.assert_allclose(w, expected_w, **close)
    np.testing.assert_allclose(buffer, expected_buffer, **close)
    assert w.dtype == buffer.dtype == dtype


def test_row_blocks_tile_the_matrix():
    g = low_rank(13, 2, (40, 30, 500))
    dense, covered = written_out(g).reshape(1200, 500), np.zeros(1200, int)
    for rows, block in g.row_blocks():
        np.testing.assert_allclose(block, dense[rows], rtol=1e-10, atol=1e-12)
        assert block.nbytes < dense.nbytes / 4
        covered[rows] += 1
    np.testing.assert_array_equal(covered, 1)


@pytest.mark.parametrize("rank", [1, 16])
@pytest.mark.parametrize("method, number", [("add_to", -0.1), ("accumulate", 0.9)])
def test_an_update_makes_no_array_of_the_size_of_what_it_updates(rank, method, number):
    w = np.ones((1024, 2048), np.float32)
    g = low_rank(14, rank, w.shape, np.float32)
    getattr(g, method)(w, number)  # loads what is loaded once
    tracemalloc.start()
    try:
        getattr(g, method)(w, number)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < w.nbytes / 8


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: dg.LowRank(np.ones((2, 3)), np.ones((3, 4))), "are no factors of"),
        (lambda: dg.LowRank(np.ones((2, 3)), np.ones((2, 4)), (4, 4)), "are no factors of (4, 4)"),
        (lambda: low_rank(0, 1, (3, 4)).add_to(np.ones((4, 3)), 1.0), "(3, 4) cannot be added"),
        (lambda: low_rank(0, 1, (3, 4)) + low_rank(0, 1, (4, 3)), "differ"),
    ],
)
def test_factors_and_arrays_that_do_not_fit_are_refused(make, said):
    with pytest.raises(dg.ShapeError) as caught:
        make()
    assert said in str(caught.value)


# --- rank-one tangents


@pytest.fixture
def factors_stay(monkeypatch):
    """Fail the test if a rank-one tangent is multiplied out."""

    def dense(self):
        raise AssertionError(f"{self} was materialised")

    monkeypatch.setattr(Outer, "dense", dense)


X, IMAGES = normal(15, 6, 4), normal(16, 2, 6, 6, 3)
TOKENS = normal(17, 2, 3, 4)
PRODUCTS = {
    "linear": (lambda w: dg.nn.linear(X, w, np.ones(5), activation="relu"), (4, 5)),
    "linear-tokens": (lambda w: dg.nn.linear(TOKENS, w), (4, 5)),
    "matmul": (lambda w: X @ w, (4, 5)),
    "vector-matmul": (lambda w: X[0] @ w, (4, 5)),
    "left-matmul": (lambda w: w @ X, (5, 6)),
    "transposed": (lambda w: X @ w.T, (5, 4)),
    "left-transposed": (lambda w: w.T @ X, (6, 5)),
    "np-transpose": (lambda w: X @ np.transpose(w), (5, 4)),
    "conv2d": (lambda w: dg.nn.conv2d(IMAGES, w, b=np.ones(4), padding=1), (3, 3, 3, 4)),
    "conv2d-strides": (
        lambda w: dg.nn.conv2d(IMAGES, w, stride=(2, 1), dilation=(1, 2), padding="SAME"),
        (2, 3, 3, 4),
    ),
    "mlp": (lambda w: np.tanh(dg.nn.linear(np.tanh(X @ w), w.T)), (4, 5)),
}


def tangent_of(name, structure, k):
    function, shape = PRODUCTS[name]
    fg = dg.forward_gradient(
        lambda w: np.sum(np.sin(function(w))), structure=structure, directions=k, with_info=True
    )
    w = normal(18, *shape)
    return fg(w, key=KEY), w


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("k", [1, 4])
def test_products_take_a_rank_one_tangent_in_factors(name, k, factors_stay):
    (_, gradient, info), _ = tangent_of(name, "rank1", k)
    assert isinstance(gradient, dg.LowRank) and isinstance(info.directions, Outer)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("k", [1, 4])
def test_a_tangent_in_factors_gives_what_its_dense_form_gives(name, k):
    (_, gradient, info), w = tangent_of(name, "rank1", k)
    v = np.einsum("k...,kj->k...j", info.directions.left, info.directions.right)
    function = PRODUCTS[name][0]
    _, expected = dg.pushforward(lambda w: np.sum(np.sin(function(w))), (w,), (v,))
    np.testing.assert_allclose(info.derivatives, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        np.asarray(gradient), np.tensordot(expected, v, 1) / k, rtol=1e-9, atol=1e-12
    )


OTHERS = {
    "grouped": (lambda w: dg.nn.conv2d(IMAGES, w, groups=3), (2, 2, 1, 6)),
    "elementwise": (lambda w: np.exp(w), (4, 5)),
    "stacked-matmul": (lambda w: TOKENS @ w, (2, 4, 3)),
    "einsum": (lambda w: np.einsum("ni,ij->nj", X, w), (4, 5)),
    "index": (lambda w: w[1:, ::2], (4, 5)),
    "left-of-a-stack": (lambda w: w @ TOKENS, (5, 3)),
    "left-of-a-vector": (lambda w: w @ X[0], (5, 4)),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("k", [1, 4])
def test_other_operations_take_it_multiplied_out(name, k):
    function, shape = OTHERS[name]
    w = normal(19, *shape)
    outer = dg.directions.draw(KEY.fold_in("directions"), w, k, structure="rank1")
    v = np.einsum("k...,kj->k...j", outer.left, outer.right)
    fg = dg.forward_gradient(
        lambda w: np.sum(np.sin(function(w))), structure="rank1", directions=k, with_info=True
    )
    _, expected = dg.pushforward(lambda w: np.sum(np.sin(function(w))), (w,), (v,))
    np.testing.assert_allclose(fg(w, key=KEY)[2].derivatives, expected, rtol=1e-9, atol=1e-12)


def test_a_rank_one_direction_of_a_large_layer_is_never_as_large(monkeypatch):
    """One pass holds products of the batch, and no array of the weight's size."""
    w = np.ones((2048, 1024), np.float32) / 1024
    x = normal(20, 4, 2048).astype(np.float32)
    fg = dg.forward_gradient(
        lambda w: np.mean(dg.nn.linear(x, w) ** 2), structure="rank1", directions=4
    )
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "numba_use", "always")
        fg(w, key=KEY)  # loads what is loaded once
    tracemalloc.start()
    try:
        fg(w, key=KEY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < w.nbytes / 8


@pytest.mark.parametrize("rank", [3, 40, 2000])
def test_the_norm_takes_no_array_larger_than_the_dense_one(rank):
    g = low_rank(20, rank, (300, 400))
    exact = np.linalg.norm(np.asarray(g))
    tracemalloc.start()
    try:
        found = g.norm()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(found, exact, rtol=1e-12)
    assert peak < 1.05 * 300 * 400 * 8


@pytest.mark.parametrize("places, factors", [((), True), ((2,), True), ((5,), False)])
def test_a_layer_on_many_places_of_each_example_has_a_whole_gradient(places, factors):
    layer = dg.nn.Linear(8, 6, key=KEY, dtype=np.float64)
    x = normal(21, 2, *places, 8)

    def loss(layer, x):
        return np.sum(np.tanh(layer(x)).reshape(len(x), -1), axis=1)

    fg = dg.forward_gradient(loss, perturb="activations", directions=3000)
    _, g = fg(layer, x, key=KEY)
    assert isinstance(g.weight, dg.LowRank) == factors
    exact = dg.gradient(lambda layer: np.mean(loss(layer, x)), mode="reverse")(layer).weight
    assert np.linalg.norm(np.asarray(g.weight) - exact) < 0.25 * np.linalg.norm(exact)
