"""The elementwise loops: against mpmath for every exponent, at the edges, and against NumPy."""

import numpy as np
import pytest
from mpmath import mp

pytest.importorskip("numba")

import dualgrad as dg
from dualgrad.kernels import dispatch, elementwise
from dualgrad.primitive import FUSED_FROM

both = pytest.mark.parametrize("dtype", [np.float32, np.float64])
BOUND = {"exp": 1.5, "tanh": 2.5, "log": 1.5}  # units in the last place, as cpu.py says
PARTIALS = {"exp": lambda x, y: y, "tanh": lambda x, y: 1 - y * y, "log": lambda x, y: 1 / x}


@pytest.fixture(autouse=True)
def always_numba(monkeypatch):
    monkeypatch.setattr(dispatch, "numba_use", "always")


def value(name, x):
    return getattr(elementwise, name)(x, np.ones((1, *x.shape), x.dtype))[0]


def every_exponent(dtype, per_exponent=3):
    """Numbers of both signs with each exponent that the dtype has, denormal ones too."""
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    exponents = np.arange(info.minexp - info.nmant, info.maxexp)
    mantissas = rng.uniform(1, 2, (per_exponent, exponents.size))
    sizes = np.ldexp(mantissas, exponents).astype(dtype)  # ends and corners of each binade too
    sizes = np.concatenate([sizes.ravel(), np.ldexp(1.0, exponents).astype(dtype)])
    return np.concatenate([sizes, -sizes])


def points(name, dtype):
    """Where a function is tried: every exponent, its own range densely, and its thresholds."""
    rng = np.random.default_rng(1)
    low, high = {"exp": (-746, 711), "tanh": (-23, 23), "log": (0, 3)}[name]
    if dtype == np.float32 and name == "exp":
        low, high = -104, 89
    dense = rng.uniform(low, high, 3000)
    near = rng.standard_normal(1000) * 0.5 + (name == "log")
    steps = np.log(2) * (np.arange(-40, 40) + 0.5)  # where the reduction changes sides
    steps = np.exp(steps) if name == "log" else steps / 2 if name == "tanh" else steps
    x = np.concatenate([every_exponent(dtype), dense, near, steps, steps * (1 + 1e-7)])
    x = x.astype(dtype)
    return x[x > 0] if name == "log" else x


def ulps(y, x, name):
    """The error of y in units of the last place of the true value; 0 where both overflow."""
    with mp.workdps(60):
        true = [getattr(mp, name)(mp.mpf(float(v))) for v in x]
        info = np.finfo(y.dtype)
        smallest = mp.mpf(float(info.smallest_subnormal))
        found = []
        for a, b in zip(y, true, strict=True):
            unit = (
                max(smallest, mp.mpf(2) ** (mp.floor(mp.log(abs(b), 2)) - info.nmant)) if b else 1
            )
            largest = mp.mpf(float(info.max)) + mp.mpf(2) ** (info.maxexp - info.nmant - 2)
            if abs(b) >= largest:
                found.append(0.0 if np.isinf(a) else np.inf)
            else:
                found.append(float(abs(mp.mpf(float(a)) - b) / unit))
    return np.array(found)


@both
@pytest.mark.parametrize("name", BOUND)
def test_values_are_within_the_stated_bound_of_mpmath(name, dtype):
    x = points(name, dtype)
    error = ulps(value(name, x), x, name)
    worst = int(np.argmax(error))
    assert error[worst] <= BOUND[name], (x[worst], error[worst])


@both
def test_edges(dtype):
    inf, nan, tiny = np.inf, np.nan, np.finfo(dtype).smallest_subnormal
    cases = {
        "exp": {inf: inf, -inf: 0, nan: nan, 0.0: 1, tiny: 1, 1e30: inf, -1e30: 0},
        "tanh": {inf: 1, -inf: -1, nan: nan, 0.0: 0.0, tiny: tiny, -tiny: -tiny, 1e30: 1},
        "log": {
            inf: inf,
            -inf: nan,
            nan: nan,
            0.0: -inf,
            -1.0: nan,
            1.0: 0,
            -tiny: nan,
        },
    }
    for name, expected in cases.items():
        x = np.array(list(expected), dtype)
        np.testing.assert_array_equal(value(name, x), np.array(list(expected.values()), dtype))
    zeros = np.array([0.0, -0.0], dtype)
    assert np.signbit(value("tanh", zeros)).tolist() == [False, True]
    assert value("log", zeros).tolist() == [-inf, -inf]


@both
def test_exp_overflows_and_vanishes_where_it_must(dtype):
    info = np.finfo(dtype)
    with mp.workdps(60):
        last = dtype(float(mp.log(mp.mpf(float(info.max)))))
        least = dtype(float(mp.log(mp.mpf(float(info.smallest_subnormal)) / 2)))
    x = np.array([np.nextafter(last, -np.inf), np.nextafter(last, np.inf)])
    y = value("exp", np.append(x, [np.nextafter(least, -np.inf), least * dtype(0.999)]))
    assert np.isfinite(y[0]) and y[0] > 0.99 * info.max and y[2] == 0
    assert y[1] == np.inf or ulps(y[1:2], x[1:], "exp")[0] <= BOUND["exp"]
    assert 0 < y[3] <= 2 * info.smallest_subnormal


@both
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("name", BOUND)
def test_k_tangents_are_partial_times_tangent(name, dtype, k):
    rng = np.random.default_rng(k)
    x = rng.uniform(0.1, 3, (41, 50)).astype(dtype)
    t = rng.standard_normal((k, 41, 50)).astype(dtype)
    y, ty = getattr(elementwise, name)(x, t)
    assert y.dtype == ty.dtype == dtype and y.shape == x.shape and ty.shape == t.shape
    exact = getattr(np, name)(x.astype(float))
    expected = PARTIALS[name](x.astype(float), exact) * t
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(ty, expected, rtol=4 * eps, atol=8 * eps)  # 1 - y * y cancels


@both
@pytest.mark.parametrize("k", [1, 5])
def test_products_have_numpys_bits(dtype, k):
    rng = np.random.default_rng(k)
    a, b = rng.standard_normal((2, 41, 50)).astype(dtype)
    ta, tb = rng.standard_normal((2, k, 41, 50)).astype(dtype)
    a[0, :4], tb[:, 0, :2] = [np.inf, np.nan, 0, -0.0], 0
    with np.errstate(invalid="ignore"):
        y, ty = elementwise.multiply(a, b, ta, tb)
        assert y.tobytes() == (a * b).tobytes()
        np.testing.assert_array_equal(ty, ta * b + a * tb)
        assert elementwise.multiply(a, a, ta, ta)[1].tobytes() == (ta * a + a * ta).tobytes()


def test_the_value_does_not_depend_on_the_number_of_directions():
    x = np.random.default_rng(0).uniform(0.1, 3, 777)
    for name in BOUND:
        f = getattr(elementwise, name)
        assert f(x, np.ones((1, 777)))[0].tobytes() == f(x, np.ones((4, 777)))[0].tobytes()


def test_what_the_loops_cannot_take_is_left_to_numpy():
    x, t = np.ones((64, 2)), np.ones((1, 64, 2))
    assert elementwise.exp(x, t) is not None
    assert elementwise.exp(x.T, t.transpose(0, 2, 1)) is None
    assert elementwise.exp(x.astype(np.float16), t.astype(np.float16)) is None
    assert elementwise.exp(x + 0j, t + 0j) is None
    assert elementwise.exp(np.float64(1), np.ones(1)) is None
    assert elementwise.multiply(x, x[:1], t, t[:, :1]) is None  # broadcasting
    assert elementwise.multiply(x, x.astype(np.float32), t, t.astype(np.float32)) is None
    empty = np.empty((0, 2))
    assert elementwise.multiply(x, x, np.empty((0, 64, 2)), np.empty((0, 64, 2))) is None
    y, ty = elementwise.exp(empty, np.empty((3, 0, 2)))
    assert y.shape == (0, 2) and ty.shape == (3, 0, 2)


def test_duals_of_large_arrays_take_the_loops_and_agree_with_numpy(monkeypatch):
    def f(x):
        return np.tanh(x) * x + np.exp(-x) + np.log(x * x)

    x, t = np.random.default_rng(3).standard_normal((2, FUSED_FROM))
    with_loops = dg.jvp(f, (x,), (t,))
    monkeypatch.setattr(dispatch, "numba_use", "never")
    plain = dg.jvp(f, (x,), (t,))
    np.testing.assert_allclose(with_loops, plain, rtol=1e-11, atol=1e-13)
    assert not np.array_equal(with_loops, plain)  # other last bits: the loops did run


def test_the_table_decides_by_size_and_vector_unit(monkeypatch):
    monkeypatch.setattr(dispatch, "numba_use", "table")
    monkeypatch.setitem(dispatch.THRESHOLDS, "exp", {"avx512": 100, "avx2": 10, "other": 1000})
    for unit, least in (("avx512", 100), ("avx2", 10), ("other", 1000)):
        monkeypatch.setattr(dispatch, "vector_unit", lambda unit=unit: unit)
        assert elementwise.exp(np.ones(least - 1), np.ones((1, least - 1))) is None
        assert elementwise.exp(np.ones(least), np.ones((1, least))) is not None


@pytest.mark.parametrize("features, unit", [
    ({"AVX512_SKX": True, "AVX2": True}, "avx512"),
    ({"AVX512_SKX": False, "AVX2": True}, "avx2"),
    ({"ASIMD": True}, "other"),
])  # fmt: skip
def test_the_vector_unit_is_what_numpy_found(features, unit, monkeypatch):
    monkeypatch.setattr("numpy._core._multiarray_umath.__cpu_features__", features)
    assert dispatch.vector_unit.__wrapped__() == unit


def test_every_row_of_the_table_covers_every_vector_unit():
    for row in dispatch.THRESHOLDS.values():
        assert isinstance(row, int) or set(row) == {"avx512", "avx2", "other"}
