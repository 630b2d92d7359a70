"""Directions of a tree against the map of docs/directions.md, entry by entry."""

import statistics

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings
from slow_philox import slow_philox

import dualgrad as dg
from dualgrad import drawing

KEY = dg.Key(7)
PARAMS = {
    "layers": [{"weight": np.zeros((11, 37)), "bias": np.zeros(37)}],
    "filters": np.zeros((3, 2, 2, 19), np.float32),
    "scale": 1.5,
    "steps": 3,
    "activation": np.tanh,
}


def words(path):
    return tuple(int(w) for w in KEY.fold_in(path).words)


def matrix_sign(path, row, column, direction, role=0):
    word = slow_philox((row // 8, column // 16, direction, role), words(path))[row % 8 // 2]
    return -1 if word >> 16 * (row % 2) >> column % 16 & 1 else 1


def vector_sign(path, i, direction, role):
    word = slow_philox((i // 128, 0, direction, role), words(path))[i // 32 % 4]
    return -1 if word >> i % 32 & 1 else 1


def quantile(word):
    return statistics.NormalDist().inv_cdf((word + 0.5) / 2**32)


def matrix_normal(path, row, column, direction, role=0):
    counter = (row, column // 4, direction, role + 16)
    return quantile(slow_philox(counter, words(path))[column % 4])


def vector_normal(path, i, direction, role):
    return quantile(slow_philox((i // 4, 0, direction, role + 16), words(path))[i % 4])


MATRIX = {"rademacher": matrix_sign, "normal": matrix_normal}
VECTOR = {"rademacher": vector_sign, "normal": vector_normal}


def table(entry, *shape):
    return np.array([entry(*index) for index in np.ndindex(*shape)], float).reshape(shape)


@pytest.mark.parametrize("distribution", MATRIX)
def test_a_dense_direction_follows_the_map(distribution):
    matrix, vector = MATRIX[distribution], VECTOR[distribution]
    drawn = dg.directions.draw(KEY, PARAMS, (2, 4), distribution=distribution)
    for place, direction in enumerate((2, 3)):
        weight = table(lambda r, c, d=direction: matrix("layers/0/weight", r, c, d), 11, 37)
        bias = table(lambda i, d=direction: vector("layers/0/bias", i, d, 3), 37)
        filters = table(lambda r, c, d=direction: matrix("filters", r, c, d), 12, 19)
        (layer,) = drawn["layers"]
        np.testing.assert_allclose(layer["weight"][place], weight, rtol=1e-12)
        np.testing.assert_allclose(layer["bias"][place], bias, rtol=1e-12)
        found = drawn["filters"][place]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, filters.reshape(3, 2, 2, 19), rtol=2e-7)
        number = vector("scale", 0, direction, 3)
        np.testing.assert_allclose(drawn["scale"][place], number, rtol=1e-12)
    assert drawn["steps"] is None and drawn["activation"] is None


@pytest.mark.parametrize("distribution", MATRIX)
def test_a_rank_one_direction_follows_the_map(distribution):
    vector = VECTOR[distribution]
    drawn = dg.directions.draw(KEY, PARAMS, 2, distribution=distribution, structure="rank1")
    for path, outer, rows, columns in (
        ("layers/0/weight", drawn["layers"][0]["weight"], (11,), 37),
        ("filters", drawn["filters"], (3, 2, 2), 19),
    ):
        for d in range(2):
            left = table(lambda i, p=path, d=d: vector(p, i, d, 1), int(np.prod(rows)))
            right = table(lambda i, p=path, d=d: vector(p, i, d, 2), columns)
            np.testing.assert_allclose(outer.left[d], left.reshape(rows), rtol=2e-7)
            np.testing.assert_allclose(outer.right[d], right, rtol=2e-7)
            dense = np.multiply.outer(outer.left[d], outer.right[d])
            np.testing.assert_array_equal(outer.dense()[d], dense)
    whole = dg.directions.draw(KEY, PARAMS, 2, distribution=distribution)
    bias = drawn["layers"][0]["bias"]  # one axis: the same vector in both structures
    np.testing.assert_array_equal(bias, whole["layers"][0]["bias"])


@pytest.mark.parametrize("distribution", MATRIX)
def test_activity_noise_follows_the_map(distribution):
    noise = drawing.draw_noise(KEY, "site/1", np.zeros((2, 3, 20)), (1, 3), distribution)
    expected = table(
        lambda d, r, c: MATRIX[distribution]("site/1", r, c, d + 1, 4), 2, 6, 20
    ).reshape(2, 2, 3, 20)
    np.testing.assert_allclose(noise, expected, rtol=1e-12)


def arrays_of(tree):
    leaves = []
    for leaf in dg.tree.leaves(tree):
        leaves += [leaf.left, leaf.right] if hasattr(leaf, "left") else [leaf]
    return [leaf for leaf in leaves if leaf is not None]


@given(
    start=st.integers(0, 2**32 - 10),
    inner=st.tuples(st.integers(0, 6), st.integers(1, 6)),
    distribution=st.sampled_from(["rademacher", "normal"]),
    structure=st.sampled_from(["dense", "rank1"]),
)
@example(start=0, inner=(0, 1), distribution="normal", structure="rank1")
@settings(max_examples=25)
def test_a_range_of_directions_is_a_slice(start, inner, distribution, structure):
    first, count = inner
    options = {"distribution": distribution, "structure": structure}
    whole = dg.directions.draw(KEY, PARAMS, (start, start + first + count), **options)
    part = dg.directions.draw(KEY, PARAMS, (start + first, start + first + count), **options)
    again = dg.directions.draw(KEY, PARAMS, (start, start + first + count), **options)
    for a, b, c in zip(arrays_of(whole), arrays_of(part), arrays_of(again), strict=True):
        np.testing.assert_array_equal(a[first:], b, strict=True)
        np.testing.assert_array_equal(a, c, strict=True)
        assert a is not c and len(b) == count


def test_leaves_directions_and_keys_have_streams_of_their_own():
    params = {"a": np.zeros((8, 16)), "b": np.zeros((8, 16))}
    one, other = (dg.directions.draw(key, params, 2) for key in (KEY, dg.Key(8)))
    found = [one["a"][0], one["a"][1], one["b"][0], other["a"][0]]
    for i, v in enumerate(found):
        for w in found[i + 1 :]:
            assert 0.2 < np.mean(v == w) < 0.8  # 128 signs: six standard deviations


def test_combine_and_gram_are_those_of_the_dense_directions():
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=3)
    for structure in ("dense", "rank1"):
        drawn = dg.directions.draw(
            KEY, np.zeros((4, 5)), 3, structure=structure, distribution="normal"
        )
        dense = drawn if structure == "dense" else drawn.dense()
        rows = dense.reshape(3, -1).copy()
        np.testing.assert_allclose(drawing.gram(drawn), rows @ rows.T, rtol=1e-12)
        total = np.asarray(drawing.combine(drawn, coefficients))
        np.testing.assert_allclose(total.ravel(), coefficients @ rows, rtol=1e-12)


@pytest.mark.parametrize(
    "arguments, options, said",
    [
        ((1,), {"distribution": "cauchy"}, "distribution='cauchy'"),
        ((1,), {"structure": "rank2"}, "structure='rank2'"),
        ((0,), {}, "directions=0"),
        (((3, 3),), {}, "(3, 3)"),
    ],
)
def test_what_does_not_exist_is_refused(arguments, options, said):
    with pytest.raises(dg.OptionError) as caught:
        dg.directions.draw(KEY, PARAMS, *arguments, **options)
    assert said in str(caught.value)
