"""Convolution on the device, implicit and by patches, against the CPU's in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgrad.kernels import cuda
from dualgrad.kernels.conv import cpu, gpu
from dualgrad.kernels.conv.device import window_of
from dualgrad.kernels.product.gemm import TALL, large

TOLERANCE = {np.float16: 4e-3, np.float32: 2e-6, np.float64: 1e-14}  # times the sum of sizes
METHODS = ("implicit", "im2col")

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
pads = st.tuples(st.integers(0, 3), st.integers(0, 3))


@st.composite
def cases(draw):
    """Draw x and w, and the window; sizes reach past a tile now and then."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    c = draw(st.sampled_from([1, 2, 5, 9, 66]))
    o = draw(st.sampled_from([1, 3, 4, 17, 65]))
    images = draw(st.integers(0, 3))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    window = {
        "stride": draw(pairs),
        "padding": (draw(pads), draw(pads)),
        "dilation": draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3)])),
        "groups": groups,
    }
    dtype = draw(st.sampled_from(list(TOLERANCE)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.standard_normal((images, height, width, c * groups)).astype(dtype)
    return x, rng.standard_normal((*kernel, c, o * groups)).astype(dtype), window


def wide(x):
    return x.astype(np.float64)


def close(device, actual, function, dtype):
    """Compare with function(f) in float64, where f is applied to all that goes in."""
    expected, size = function(wide), function(lambda x: np.abs(wide(x)))
    actual = device.asnumpy(actual)
    assert (actual.shape, actual.dtype) == (expected.shape, dtype)
    error = np.abs(wide(actual) - expected)
    assert (error <= TOLERANCE[dtype] * (size + 1)).all(), error.max()


def check(device, case, method, kinds):
    x, w, window = case
    dtype = x.dtype.type
    shape = cpu.conv2d(x[..., :1], w[:, :, :1, :1], **{**window, "groups": 1}).shape[:3]
    ct = np.random.default_rng(0).standard_normal((*shape, w.shape[-1])).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "method", method)
        dx, dw, dct = map(device.asarray, (x, w, ct))
        if "value" in kinds:
            y = gpu.conv2d(dx, dw, **window)
            close(device, y, lambda f: cpu.conv2d(f(x), f(w), **window), dtype)
        if "filter" in kinds:
            y = gpu.conv2d_filter(dx, dct, w.shape, **window)
            close(device, y, lambda f: cpu.conv2d_filter(f(x), f(ct), w.shape, **window), dtype)
        if "input" in kinds:
            y = gpu.conv2d_input(dct, dw, x.shape, **window)
            close(device, y, lambda f: cpu.conv2d_input(f(ct), f(w), x.shape, **window), dtype)


@settings(max_examples=40)
@given(case=cases(), method=st.sampled_from(METHODS))
def test_convolution(device, case, method):
    check(device, case, method, ["value"])


@settings(max_examples=25)
@given(case=cases(), method=st.sampled_from(METHODS))
def test_transpose_in_the_filters(device, case, method):
    check(device, case, method, ["filter"])


@settings(max_examples=25)
@given(case=cases(), method=st.sampled_from(METHODS))
def test_transpose_in_the_images(device, case, method):
    check(device, case, method, ["input"])


def standard(n, size, c, o, dtype=np.float32):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, size, size, c)).astype(dtype)
    window = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    return x, rng.standard_normal((3, 3, c, o)).astype(dtype), window


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("tile", [large, lambda _: TALL], ids=["large", "tall"])
def test_larger_tiles(device, monkeypatch, dtype, tile):
    monkeypatch.setattr("dualgrad.kernels.conv.device.tile_for", lambda *_: tile(dtype))
    for case in (standard(2, 9, 5, 130, dtype), standard(1, 3, 3, 7, dtype)):
        check(device, case, "implicit", ["value"])


@pytest.mark.parametrize("slice_", [7, 64, 1 << 20])
def test_the_bits_of_filters_do_not_depend_on_the_run(device, monkeypatch, slice_):
    monkeypatch.setattr(gpu, "SLICE", slice_)  # 108 pixels: many slices, two, one
    x, w, window = standard(3, 6, 2, 3)
    check(device, (x, w, window), "implicit", ["filter"])
    ct = device.asarray(np.random.default_rng(2).standard_normal((3, 6, 6, 3)).astype(np.float32))
    before = cuda.launches
    one, other = (gpu.conv2d_filter(device.asarray(x), ct, w.shape, **window) for _ in range(2))
    assert cuda.launches - before == 4  # the sums of the slices, and then the sum of those
    np.testing.assert_array_equal(device.asnumpy(one), device.asnumpy(other))


def test_few_images_are_patched_at_a_time(device, monkeypatch):
    case = standard(3, 5, 2, 4)
    monkeypatch.setattr(gpu, "PATCH_BYTES", 5 * 5 * 9 * 2 * 4)  # one image
    check(device, case, "im2col", ["value", "filter", "input"])


def test_a_1x1_convolution_is_a_product_without_kernels_of_ours(device):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 5, 6)), rng.standard_normal((1, 1, 6, 7))
    window = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    before = cuda.launches
    y = gpu.conv2d(device.asarray(x), device.asarray(w), **window)
    assert cuda.launches == before
    np.testing.assert_allclose(device.asnumpy(y), x @ w[0, 0], rtol=1e-12)
    padded = {**window, "padding": ((1, 0), (0, 1))}
    check(device, (x, w, padded), "implicit", ["value"])


def test_value_and_tangents_share_one_launch(device):
    x, w, window = standard(4, 6, 3, 8)
    before = cuda.launches
    gpu.conv2d(device.asarray(x), device.asarray(w), **window)
    assert cuda.launches - before == 1


def test_mixed_dtypes_give_the_wider_one(device):
    x, w, window = standard(1, 4, 2, 3)
    y = gpu.conv2d(device.asarray(x.astype(np.float16)), device.asarray(w), **window)
    assert y.dtype == np.float32


def test_images_too_large_for_the_kernels_are_refused():
    window = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    with pytest.raises(ValueError, match="Give fewer images"):
        window_of((1, 1 << 16, 1 << 15, 1), (3, 3, 1, 1), **window)


def test_cotangents_of_another_shape_are_refused(device):
    x, w, window = standard(1, 4, 2, 3)
    ct = device.zeros((1, 3, 4, 3), np.float32)
    with pytest.raises(ValueError, match="ct has shape"):
        gpu.conv2d_filter(device.asarray(x), ct, w.shape, **window)
    with pytest.raises(ValueError, match="ct has shape"):
        gpu.conv2d_input(ct, device.asarray(w), x.shape, **window)
