"""The Laplacian against the trace of the Hessian, and the moments of its estimate."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import dualgrad as dg

X = np.random.default_rng(0).normal(size=(2, 3))


def f(x):
    return np.sum(np.sin(x)) * np.sum(x**2) + np.prod(x)


def test_exact_is_the_trace_of_the_hessian():
    hessian = dg.hessian(f)(X).reshape(X.size, X.size)
    assert_allclose(dg.laplacian(f)(X), np.trace(hessian), rtol=1e-12)


def test_harmonic_function():
    # log(x**2 + y**2) satisfies Laplace's equation away from the origin.
    assert abs(dg.laplacian(lambda x: np.log(np.sum(x * x)))(np.array([0.3, -1.2]))) < 1e-14


def test_results_of_any_shape_and_trees():
    # u**3 v: 6 u v in u, 0 in v. sum(v**2): 2. The name stays as it is.
    x = {"u": np.array([1.0, 2.0]), "v": 2.0, "name": "x"}
    found = dg.laplacian(lambda x: {"a": x["u"] ** 3 * x["v"], "b": np.sum(x["v"] ** 2)})(x)
    assert_allclose(found["a"], [12, 24])
    assert found["b"] == 2
    assert dg.laplacian(lambda x: x**4)(1.0) == 12
    assert dg.laplacian(lambda x, c, power=2: c * np.sum(x**power))(X, 3.0) == 36
    assert dg.laplacian(np.sum)(np.zeros(0)) == 0


M = np.random.default_rng(1).normal(size=(6, 6))
H = M + M.T  # the Hessian of `quadratic`
VARIANCE = 2 * (np.sum(H**2) - np.sum(np.diag(H) ** 2))


def quadratic(x):
    return x @ M @ x


@pytest.mark.parametrize(("directions", "seeds"), [(1, 1000), (4, 250)])
def test_mean_and_variance_of_the_estimate(directions, seeds):
    x = np.ones(6)
    found = [
        dg.laplacian(quadratic, directions=directions, key=dg.Key(seed))(x) for seed in range(seeds)
    ]
    variance = VARIANCE / directions
    assert abs(np.mean(found) - np.trace(H)) < 4 * np.sqrt(variance / seeds)
    assert 0.75 < np.var(found) / variance < 1.3


def test_the_same_key_gives_the_same_estimate():
    first, again, other = (dg.laplacian(f, directions=2, key=dg.Key(k))(X) for k in (1, 1, 2))
    assert first == again != other


def test_estimate_is_exact_where_the_hessian_is_diagonal():
    exact = dg.laplacian(lambda x: np.sum(np.exp(x)))(X)
    estimate = dg.laplacian(lambda x: np.sum(np.exp(x)), directions=1, key=dg.Key(5))(X)
    assert_allclose(estimate, exact, rtol=1e-12)


def test_float32_stays():
    x = X.astype(np.float32)
    assert dg.laplacian(f)(x).dtype == np.float32
    assert dg.laplacian(f, directions=3, key=dg.Key(0))(x).dtype == np.float32


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_gradient_of_the_laplacian(mode):
    # x**4 summed, times x_0: the Laplacian is 12 x_0 sum(x**2) + 8 x_0**3.
    x = np.array([1.0, 2.0])
    found = dg.gradient(dg.laplacian(lambda x: np.sum(x**4) * x[0]), mode=mode)(x)
    s = np.sum(x * x)
    assert_allclose(found, [12 * s + 24 * x[0] ** 2 + 24 * x[0] ** 2, 24 * x[0] * x[1]])


def test_laplacian_of_the_laplacian():
    # Of sum(x**4): 12 sum(x**2), and of that 24 for each entry.
    assert dg.laplacian(dg.laplacian(lambda x: np.sum(x**4)))(np.array([1.0, 2.0])) == 48


@pytest.mark.parametrize(
    "options", [{"directions": 3}, {"key": dg.Key(0)}, {"directions": 0, "key": dg.Key(0)},
                {"directions": True, "key": dg.Key(0)}, {"directions": 2, "key": 3}], ids=str
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(options):
    with pytest.raises(dg.OptionError, match="dg.laplacian"):
        dg.laplacian(f, **options)


@pytest.mark.parametrize("x", [X + 1j, np.arange(3)], ids=["complex", "integers"])
def test_dtypes_without_a_laplacian_are_refused(x):
    with pytest.raises(dg.DtypeError, match="dg.laplacian"):
        dg.laplacian(f)(x)
