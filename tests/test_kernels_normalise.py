"""Normalisation and its tangents against the definition in double precision, in both forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgrad.kernels import dispatch, normalise
from dualgrad.kernels.normalise import cpu

FORMS = ["never", "always"] if dispatch.numba_available() else ["never"]
EPS = 1e-5


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_use", request.param)
    return request.param


def definition(x, axes, eps=EPS):
    x = x.astype(np.float64)
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps), mean, variance


def difference(x, t, axes, step=1e-5):
    """The central difference of the definition, one direction at a time."""
    x = x.astype(np.float64)
    rows = [
        (definition(x + step * v, axes)[0] - definition(x - step * v, axes)[0]) / (2 * step)
        for v in t.astype(np.float64)
    ]
    return np.stack(rows)


def calls(monkeypatch):
    """Return a list that grows by the name of each loop as it runs."""
    names = []
    for name in [name for name in vars(cpu) if name.endswith("_loop")]:
        compiled = getattr(cpu, name)

        def counted(*arguments, loop=compiled):
            names.append(loop.function.__name__)
            loop(*arguments)

        counted.wins = compiled.wins
        monkeypatch.setattr(cpu, name, counted)
    return names


@pytest.mark.parametrize("form", FORMS)
@given(
    shape=st.lists(st.sampled_from([1, 2, 3, 5, 8]), min_size=1, max_size=4),
    chosen=st.lists(st.booleans(), min_size=4, max_size=4),
    k=st.integers(1, 3),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=100)
def test_any_axes_of_any_shape(form, shape, chosen, k, dtype, seed):
    axes = tuple(axis - len(shape) for axis in range(len(shape)) if chosen[axis])
    generator = np.random.default_rng(seed)
    x = (1 + generator.normal(size=shape)).astype(dtype)
    t = generator.normal(size=(k, *shape)).astype(dtype)
    eps = 0.1  # two entries that nearly coincide: no such rounding error is amplified
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "numba_use", form)
        y, mean, variance = normalise.normalise(x, axes, eps)
        turned = normalise.normalise_tangent(t, y, variance, axes, eps)
    tolerance = 100 * float(np.finfo(dtype).eps)
    for got, expected in zip((y, mean, variance), definition(x, axes, eps), strict=True):
        assert got.dtype == dtype and got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)
    exact, _, spread = definition(x, axes, eps)
    wide = t.astype(np.float64)
    expected = wide - wide.mean(axis=axes, keepdims=True)
    expected -= exact * (exact * wide).mean(axis=axes, keepdims=True)
    expected /= np.sqrt(spread + eps)
    assert turned.dtype == dtype and turned.shape == t.shape
    np.testing.assert_allclose(turned, expected, rtol=tolerance, atol=10 * tolerance)


LAYOUTS = {
    "rows": ((30, 37), (-1,), "_rows"),
    "rows longer than a block": ((3, 2 * cpu.BLOCK + 7), (-1,), "_rows"),
    "the last two axes": ((4, 5, 6), (-2, -1), "_rows"),
    "everything": ((7, 6), (-2, -1), "_rows"),
    "columns": ((4, 6, 8, 5), (-4, -3, -2), "_columns"),
    "columns wider than a step": ((6, cpu.WIDTH + 3), (-2,), "_columns"),
    "many steps down the columns": ((3 * cpu.BLOCK * cpu.WIDTH // 8 + 3, 8), (-2,), "_columns"),
    "the middle axis": ((3, 20, 6), (-2,), "_columns"),
    "groups of channels": ((3, 16, 2, 5), (-3, -1), "_columns"),
    "axes between others": ((2, 3, 4, 5), (-4, -2), None),
    "three runs of axes": ((2, 3, 4, 3, 2), (-5, -3, -1), None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_layout_by_its_loop(layout, dtype, form, monkeypatch):
    shape, axes, expected = LAYOUTS[layout]
    names = calls(monkeypatch)
    generator = np.random.default_rng(0)
    x = (2 + generator.normal(size=shape)).astype(dtype)
    t = generator.normal(size=(2, *shape)).astype(dtype)
    y, mean, variance = normalise.normalise(x, axes, EPS)
    turned = normalise.normalise_tangent(t, y, variance, axes, EPS)
    loops = [f"{expected}_loop", f"{expected}_tangent_loop"]
    assert names == (loops if form == "always" and expected else [])
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    for got, exact in zip((y, mean, variance), definition(x, axes), strict=True):
        np.testing.assert_allclose(got, exact, rtol=tolerance, atol=tolerance)
    tolerance = max(tolerance, 1e-8)  # of the central difference
    np.testing.assert_allclose(turned, difference(x, t, axes), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape, axes", [((1, 1 << 17), (-1,)), ((1 << 16, 16), (-2,))])
def test_long_sums_in_float32_are_as_good_as_short_ones(shape, axes):
    pytest.importorskip("numba")
    x = (3 + np.random.default_rng(0).normal(size=shape)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "numba_use", "always")
        y, mean, variance = normalise.normalise(x, axes, EPS)
    exact = definition(x, axes)
    np.testing.assert_allclose(mean, exact[1], rtol=4e-7)
    np.testing.assert_allclose(variance, exact[2], rtol=4e-7)
    np.testing.assert_allclose(y, exact[0], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("shape, axes", [((5, 12), (-1,)), ((12, 5), (-2,)), ((12, 3, 1), (-3,))])
def test_a_small_spread_about_a_large_mean_is_not_lost(shape, axes, form):
    x = 1e4 + 1e-3 * np.random.default_rng(0).normal(size=shape)
    _, _, variance = normalise.normalise(x, axes, EPS)
    np.testing.assert_allclose(variance, definition(x, axes)[2], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("transposed", [False, True])
def test_nan_and_infinity_spoil_their_own_statistics_alone(dtype, transposed, form):
    x = np.random.default_rng(0).normal(size=(5, 9)).astype(dtype)
    clean = x.copy()
    x[1, 2], x[2, 3], x[3, 4], x[3, 5] = np.nan, np.inf, np.inf, -np.inf
    t = np.ones((2, 5, 9), dtype)
    t[0, 4, 1] = np.nan
    axes = (-1,)
    if transposed:
        x, clean, t, axes = x.T.copy(), clean.T.copy(), np.swapaxes(t, 1, 2).copy(), (-2,)
    y, _, variance = normalise.normalise(x, axes, EPS)
    turned = normalise.normalise_tangent(t, y, variance, axes, EPS)
    if transposed:
        y, turned, clean = y.T, np.swapaxes(turned, 1, 2), clean.T
    assert np.isnan(y[1:4]).all() and np.isnan(turned[:, 1:4]).all()
    expected = definition(clean, (-1,))[0]
    np.testing.assert_allclose(y[[0, 4]], expected[[0, 4]], rtol=1e-5, atol=1e-6)
    assert np.isnan(turned[0, 4]).all()
    np.testing.assert_allclose(turned[1, [0, 4]], 0, atol=1e-6)
    np.testing.assert_allclose(turned[0, 0], 0, atol=1e-6)


@pytest.mark.parametrize("axes", [(-1,), (-3, -2), (-2,)])
def test_any_strides_and_nothing_is_written(axes, form):
    whole = np.random.default_rng(0).normal(size=(2, 7, 4, 6))
    t = np.swapaxes(whole, 1, 3)[:, ::-1]
    x = t[1]
    copies = x.copy(), t.copy()
    for array in (x, t):
        array.flags.writeable = False
    y, mean, variance = normalise.normalise(x, axes, EPS)
    again, _, _ = normalise.normalise(copies[0], axes, EPS)
    np.testing.assert_allclose(y, again, rtol=1e-13, atol=1e-13)
    variance.flags.writeable = False
    turned = normalise.normalise_tangent(t, np.asfortranarray(y), variance, axes, EPS)
    straight = normalise.normalise_tangent(copies[1], again, variance, axes, EPS)
    np.testing.assert_allclose(turned, straight, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(t, copies[1])


def test_half_precision_goes_through_numpy(form, monkeypatch):
    names = calls(monkeypatch)
    x = np.arange(12, dtype=np.float16).reshape(3, 4)
    y, _, variance = normalise.normalise(x, (-1,), EPS)
    turned = normalise.normalise_tangent(x[None], y, variance, (-1,), EPS)
    assert y.dtype == variance.dtype == turned.dtype == np.float16 and not names
    np.testing.assert_allclose(y, definition(x, (-1,))[0], atol=2e-3)


@pytest.mark.parametrize("shape, last", [((6, 5, 4), 1), ((6, 5, 4), 2), ((5, 4), 2), ((0, 3), 1)])
@pytest.mark.parametrize("moving", ["y", "scale", "y shift", "y scale shift", ""])
def test_scale_and_shift_in_blocks_is_its_definition(shape, last, moving, monkeypatch):
    monkeypatch.setattr(cpu, "BLOCK_BYTES", 400)
    generator = np.random.default_rng(0)
    y, k = generator.normal(size=shape), 3
    scale, shift = generator.normal(size=(2, *shape[-last:]))
    tangents = {
        name: generator.normal(size=(k, *part.shape)) if name in moving.split() else None
        for name, part in (("y", y), ("scale", scale), ("shift", shift))
    }
    expected, moved = y * scale + shift, []
    for i in range(k if moving else 0):
        ty, ts, tb = (0.0 if t is None else t[i] for t in tangents.values())
        moved.append(np.broadcast_to(ty * scale + y * ts + tb, shape))
    if tangents["y"] is not None:
        product = normalise.sum_product(tangents["y"], y, scale.shape)
        whole = np.sum(tangents["y"] * y, axis=tuple(range(1, 1 + len(shape) - last)))
        np.testing.assert_allclose(product, whole, rtol=1e-12, atol=1e-13)
    t = normalise.scale_and_shift(y, scale, shift, *tangents.values())
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    assert (t is None) == (not moving)
    if moving:
        np.testing.assert_allclose(t, np.reshape(moved, (k, *shape)), rtol=1e-12, atol=1e-14)
