"""CUDA kernels of normalisation against the definition and their twins on NumPy arrays."""

import numpy as np
import pytest
from device_case import no_transfers
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad.kernels import cuda
from dualgrad.kernels.normalise import cpu, gpu
from dualgrad.ops.normalisation import normalise, scaled

# Relative to numbers of size 1, with sums of a few thousand entries.
TOLERANCE = {"float16": 4e-3, "float32": 2e-5, "float64": 1e-12}
DTYPES = st.sampled_from(list(TOLERANCE))
EPS = 0.1  # entries that nearly coincide amplify no rounding error


def definition(x, axes):
    x = x.astype(np.float64)
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + EPS), mean, variance


def tangent(t, y, variance, axes):
    t = t.astype(np.float64)
    turned = t - t.mean(axis=axes, keepdims=True)
    turned -= y * (y * t).mean(axis=axes, keepdims=True)
    return turned / np.sqrt(variance + EPS)


def check(device, x, t, axes):
    with no_transfers(device):
        found = gpu.normalise(device.asarray(x), axes, EPS)
        turned = gpu.normalise_tangent(device.asarray(t), found[0], found[2], axes, EPS)
    tolerance = TOLERANCE[x.dtype.name]
    expected = definition(x, axes)
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == x.dtype and got.shape == want.shape
        np.testing.assert_allclose(device.asnumpy(got), want, rtol=tolerance, atol=tolerance)
    want = tangent(t, expected[0], expected[2], axes)
    assert turned.dtype == t.dtype and turned.shape == t.shape
    np.testing.assert_allclose(
        device.asnumpy(turned), want, rtol=10 * tolerance, atol=10 * tolerance
    )


def draw(shape, k, dtype, seed):
    generator = np.random.default_rng(seed)
    x = (1 + generator.normal(size=shape)).astype(dtype)
    return x, generator.normal(size=(k, *shape)).astype(dtype)


@given(
    shape=st.lists(st.sampled_from([1, 2, 3, 5, 8]), min_size=1, max_size=4),
    chosen=st.lists(st.booleans(), min_size=4, max_size=4),
    k=st.integers(1, 3),
    dtype=DTYPES,
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_any_axes_of_any_shape(device, shape, chosen, k, dtype, seed):
    axes = tuple(axis - len(shape) for axis in range(len(shape)) if chosen[axis])
    check(device, *draw(shape, k, dtype, seed), axes)


LAYOUTS = {
    "short rows": ((30, 37), (-1,), "rows_warp"),
    "rows about a warp's most": ((3, gpu.WARP_ENTRIES), (-1,), "rows_warp"),
    "long rows": ((3, gpu.WARP_ENTRIES + 1), (-1,), "rows_block"),
    "the last two axes": ((4, 5, 6), (-2, -1), "rows_warp"),
    "everything": ((70, 60), (-2, -1), "rows_block"),
    "batch": ((300, 5), (-2,), "columns"),
    "batch, one column": ((64, 1, 3), (-3, -1), "rows_warp"),
    "images": ((3, 6, 8, 33), (-4, -3, -2), "columns"),
    "many columns": ((6, 259), (-2,), "columns"),
    "groups, few": ((2, 40, 3, 4), (-3, -1), "columns"),
    "groups wider than a tile": ((1, 40, 2, 40), (-3, -1), "columns"),
    "groups, many": ((3, 6, 2, 8), (-3, -1), "rows_warp"),
    "groups, many and large": ((3, 65, 2, 16), (-3, -1), "rows_block"),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(device, monkeypatch, layout, dtype):
    shape, axes, kernel = LAYOUTS[layout]
    monkeypatch.setattr(gpu, "BUSY", 6)  # statistics that are "many"
    names = []
    launch = gpu._source.launch
    monkeypatch.setattr(
        gpu._source, "launch", lambda name, *more: (names.append(name), launch(name, *more))
    )
    check(device, *draw(shape, 2, dtype, 0), axes)
    assert kernel in names
    assert len(names) == (5 if kernel == "columns" else 2)


def test_a_large_mean_cancels_nothing(device):
    x = 1e6 + np.random.default_rng(0).normal(size=(5000, 3))
    for array, axes in ((x, (-2,)), (x.T.copy(), (-1,))):
        y, _, variance = gpu.normalise(device.asarray(array), axes, 0.0)
        expected = array.var(axis=axes, keepdims=True)
        np.testing.assert_allclose(device.asnumpy(variance), expected, rtol=1e-8)
        np.testing.assert_allclose(device.asnumpy(y).std(axis=axes), 1, rtol=1e-8)


def test_strides_nan_and_arrays_without_entries(device):
    x, t = draw((4, 6), 2, "float64", 1)
    x[1, 2] = np.nan
    for axes in ((-1,), (-2,)):
        y, _, variance = gpu.normalise(device.asarray(x).T, axes, EPS)
        expected = definition(x.T, axes)
        np.testing.assert_allclose(device.asnumpy(y), expected[0], rtol=1e-12)
        turned = gpu.normalise_tangent(device.asarray(t).transpose(0, 2, 1), y, variance, axes, EPS)
        want = tangent(t.transpose(0, 2, 1), expected[0], expected[2], axes)
        np.testing.assert_allclose(device.asnumpy(turned), want, rtol=1e-11)
    empty = gpu.normalise(device.ones((0, 3)), (-1,), EPS)
    assert [y.shape for y in empty] == [(0, 3), (0, 1), (0, 1)]


def test_complex_numbers_take_the_formula(device):
    x = np.random.default_rng(0).normal(size=(4, 3)) + 1j
    for got, want in zip(gpu.normalise(device.asarray(x), (-1,), EPS),
                         cpu.normalise(x, (-1,), EPS), strict=True):  # fmt: skip
        np.testing.assert_allclose(device.asnumpy(got), want, rtol=1e-12)


@given(
    shape=st.sampled_from([(6,), (5, 3), (2, 3, 4), (300, 2), (0, 3)]),
    last=st.integers(0, 3),
    k=st.integers(1, 3),
    moving=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    turned=st.booleans(),
    dtype=DTYPES,
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_scale_and_shift(device, shape, last, k, moving, turned, dtype, seed):
    generator = np.random.default_rng(seed)
    small = shape[max(0, len(shape) - last) :]
    y, t = draw(shape, k, dtype, seed)
    scale, shift = (generator.normal(size=small).astype(dtype) for _ in range(2))
    t_scale, t_shift = (generator.normal(size=(k, *small)).astype(dtype) for _ in range(2))
    tangents = [v if m else None for v, m in zip((t, t_scale, t_shift), moving, strict=True)]

    def run(module, kernels, cast):
        def put(x):
            return None if x is None else module.asarray(np.array(x.astype(cast)))

        into = put(y)
        if turned and into.ndim > 1:  # a view that is not contiguous
            into = module.ascontiguousarray(into.T).T
        moved = kernels.scale_and_shift(into, put(scale), put(shift), *map(put, tangents))
        return [into] if moved is None else [into, moved]

    wide = np.promote_types(dtype, np.float32)
    tolerance = 4 * TOLERANCE[dtype]
    found = run(device, gpu, dtype)
    for got, want in zip(found, run(np, cpu, wide), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(device.asnumpy(got), want, rtol=tolerance, atol=tolerance)


@given(
    shape=st.sampled_from([(), (6,), (5, 3), (2, 3, 4), (700, 2), (70, 40), (0, 3), (2, 0)]),
    last=st.integers(0, 3),
    k=st.integers(1, 3),
    dtype=DTYPES,
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_sum_product(device, shape, last, k, dtype, seed):
    y, t = draw(shape, k, dtype, seed)
    small = shape[max(0, len(shape) - last) :]
    found = gpu.sum_product(device.asarray(t), device.asarray(y), small)
    want = cpu.sum_product(t.astype(np.float64), y.astype(np.float64), small)
    assert found.dtype == dtype and found.shape == want.shape
    tolerance = 30 * TOLERANCE[dtype]
    np.testing.assert_allclose(device.asnumpy(found), want, rtol=tolerance, atol=tolerance)


def test_duals_take_one_launch_for_each_part(device):
    x, t = draw((8, 16), 3, "float32", 0)

    def layer(module):
        scale, shift = module.full(16, 2, "float32"), module.full(16, 3, "float32")
        f = lambda x: scaled(normalise(x, (-1,), EPS), scale, shift)  # noqa: E731
        return dg.pushforward(f, (module.asarray(x),), (module.asarray(t),))

    expected = layer(np)
    count = cuda.launches
    with no_transfers(device):
        found = layer(device)
    assert cuda.launches - count == 3  # the value, its tangents, scale and shift of both
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(device.asnumpy(got), want, rtol=1e-5, atol=1e-5)
