"""Duals beside constants of other dtypes: integers that overflow, logarithms in float16."""

import warnings

import numpy as np
import pytest

import dualgrad as dg

X = np.array([0.7, 0.9, 2.5, 1.3, 0.4])
CALLS = {
    "power": lambda x, c: c**x,
    "float_power": lambda x, c: np.float_power(c, x),
    "logspace": lambda x, c: np.logspace(x, 2, 3, base=c),
    "einsum": lambda x, c: np.einsum("i,i,ij,j->j", c, c, np.stack([c] * 5), x),
    "multi_dot": lambda x, c: np.linalg.multi_dot([np.stack([c] * 5), c[:, None] * x]),
    "average": lambda x, c: np.average(x, weights=c),
    "cov aweights": lambda x, c: np.cov(np.outer(X, x) + np.eye(5), aweights=c),
    "cov fweights": lambda x, c: np.cov(np.outer(X, x) + np.eye(5), fweights=c),
    "xlogy": lambda x, c: dg.special.xlogy(x, c),
    "boxcox": lambda x, c: dg.special.boxcox(c, x),
    "stdtr": lambda x, c: dg.special.stdtr(c, x),
    "elliprd": lambda x, c: dg.special.elliprd(c, c + c, x),
    "logsumexp": lambda x, c: dg.special.logsumexp(x, b=c),
}
INTEGERS = ("cov fweights",)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "float16"])
@pytest.mark.parametrize("name", CALLS)
def test_a_constant_of_few_bits_gives_the_slope_of_its_value(name, dtype):
    f = CALLS[name]
    if name in INTEGERS and dtype == "float16":
        dtype = "int32"
    c = np.array([60, 7, 3, 50, 11]).astype(dtype)
    wide = c.astype(np.int64 if name in INTEGERS else np.float64)
    y, slope = dg.jvp(lambda x: f(x, c), (X,), (np.ones(5),))
    np.testing.assert_allclose(y, f(X, wide), rtol=2e-7)
    h = 1e-6
    around = (f(X + h, wide) - f(X - h, wide)) / (2 * h)
    np.testing.assert_allclose(slope, around, rtol=1e-5, atol=1e-6)


METHODS = "linear weibull hazen nearest lower inverted_cdf averaged_inverted_cdf".split()


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64, np.uint16])
@pytest.mark.parametrize("method", METHODS)
def test_a_percentile_that_moves_goes_between_integers(dtype, method):
    a = np.array([35, 15, 50, 20, 40], dtype)
    f = lambda q: np.percentile(a, q, method=method)  # noqa: E731
    y, slope = dg.jvp(f, (33.0,), (1.0,))
    assert (y, y.dtype) == (f(33.0), f(np.float64(33.0)).dtype)
    assert slope == pytest.approx((f(33.0 + 1e-6) - f(33.0 - 1e-6)) / 2e-6, abs=1e-7)


def test_percentiles_that_move_are_those_of_every_row():
    a = np.random.default_rng(0).normal(size=(5, 6))
    for q in ([30.0, 60.0], [0.0, 20, 30, 60, 90], [[0.0, 45.0], [10.0, 70.0]]):
        f = lambda q: np.percentile(a, q, axis=1)  # noqa: E731
        q = np.array(q)
        slope = dg.jvp(f, (q,), (np.ones_like(q),))[1]
        np.testing.assert_allclose(slope, (f(q + 1e-5) - f(q)) / 1e-5, atol=1e-8)


@pytest.mark.parametrize("name", "sum prod mean std var max min nansum nanmean nanmax".split())
def test_numpy_marks_for_what_is_not_given_are_not_given(name):
    function, x = getattr(np, name), np.random.default_rng(1).uniform(1, 2, (3, 4))
    left = np._NoValue
    for options in ({"keepdims": left}, {"keepdims": left, "where": left}):
        y, pull = dg.vjp(lambda x: function(x, axis=1, **options), x)  # noqa: B023
        expected, known = dg.vjp(lambda x: function(x, axis=1), x)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(pull(np.arange(3.0))[0], known(np.arange(3.0))[0])


@pytest.mark.parametrize("ufunc", [np.add, np.multiply, np.maximum, np.logaddexp])
def test_a_reduction_from_no_initial_value_given(ufunc):
    f = lambda x: ufunc.reduce(x, axis=1, initial=np._NoValue)  # noqa: E731
    x = np.random.default_rng(2).uniform(1, 2, (3, 4))
    y, slope = dg.jvp(f, (x,), (x,))
    np.testing.assert_allclose(y, f(x), rtol=1e-14)
    np.testing.assert_allclose(slope, (f(x + 1e-6 * x) - f(x - 1e-6 * x)) / 2e-6, rtol=1e-7)


def test_edges_where_numpy_has_an_answer():
    # Infinite entries, no entries, too few of them: each was NaN, an error or a wrong number.
    infinite = np.array([[1.0, np.inf, np.nan, np.inf], [-np.inf, 2.0, -np.inf, np.nan]])
    empty, box = np.zeros((0, 3)), np.zeros((2, 0, 2))
    x = np.array([[1.0, 4.0, 2.0], [0.5, 0.2, 3.0]])
    calls = [
        (lambda x: np.nanmedian(x, axis=1), infinite),
        (np.nanmedian, infinite + 1j),
        (lambda x: np.nanmedian(x, axis=0, keepdims=True), empty),
        (lambda x: np.nanpercentile(x, 40, axis=1), empty),
        (lambda x: np.cov(x, ddof=5), x),
        (np.cov, empty.T[:2]),
        (lambda x: np.pad(x, ((3, 3), (0, 0), (1, 1)), mode="maximum"), box),
        (lambda x: np.take_along_axis(x, np.array([[[1, 0, 3]] * 2]), 1), np.zeros((2, 4, 1))),
    ]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for f, x in calls:
            plain, y = f(x), dg.jvp(f, (x,), (np.ones_like(x),))[0]
            assert (y.shape, y.dtype) == (plain.shape, plain.dtype)
            np.testing.assert_array_equal(y, plain)


def test_take_along_axis_repeats_an_axis_of_one_entry():
    x, index = np.random.default_rng(3).normal(size=(3, 4, 1)), np.array([[[0, 3, 3], [1, 2, 0]]])
    f = lambda x: np.take_along_axis(x, index, 1)  # noqa: E731
    y, pull = dg.vjp(f, x)
    u, v = (
        np.random.default_rng(4).normal(size=y.shape),
        np.random.default_rng(5).normal(size=x.shape),
    )
    np.testing.assert_array_equal(dg.jvp(f, (x,), (v,))[1], f(v))
    assert np.sum(pull(u)[0] * v) == pytest.approx(np.sum(u * f(v)), rel=1e-13)
    with pytest.raises(IndexError):
        dg.jvp(f, (x[:2, :, [0, 0]],), (v[:2, :, [0, 0]],))
