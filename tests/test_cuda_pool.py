"""Pooling on the device is the CPU's pooling, entry for entry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgrad.kernels.pool import cpu, gpu

DTYPES = (np.float16, np.float32, np.float64)

images = st.tuples(
    st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 1, 3, 130])
)
windows = st.tuples(st.integers(1, 3), st.integers(1, 3))

pytestmark = pytest.mark.usefixtures("numpy_alone")


def draw(seed, shape, dtype):
    """Small integers, so that there are ties, and a few NaNs and infinities."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, shape).astype(dtype)
    for value in (np.nan, np.inf, -np.inf):
        x[rng.random(shape) < 0.05] = value
    return x


@settings(max_examples=40)
@given(shape=images, size=windows, dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99))
def test_maxima_and_where_they_are(device, shape, size, dtype, seed):
    x = draw(seed, shape, dtype)
    y, index = gpu.max_pool2d(device.asarray(x), size)
    expected, places = cpu.max_pool2d(x, size)
    assert (y.dtype, index.dtype) == (expected.dtype, places.dtype)
    np.testing.assert_array_equal(device.asnumpy(y), expected)
    np.testing.assert_array_equal(device.asnumpy(index), places)


@settings(max_examples=40)
@given(shape=images, size=windows, lead=st.sampled_from([(), (1,), (5,), (2, 3), (0,)]),
       dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99))  # fmt: skip
def test_gather_and_scatter(device, shape, size, lead, dtype, seed):
    _, index = cpu.max_pool2d(draw(seed, shape, dtype), size)
    rng = np.random.default_rng(seed)
    t = rng.standard_normal(lead + shape).astype(dtype)
    ct = rng.standard_normal(lead + index.shape).astype(dtype)
    there = device.asarray(index)
    gathered = gpu.max_pool2d_gather(device.asarray(t), there, size)
    np.testing.assert_array_equal(device.asnumpy(gathered), cpu.max_pool2d_gather(t, index, size))
    scattered = gpu.max_pool2d_scatter(device.asarray(ct), there, size, shape)
    expected = cpu.max_pool2d_scatter(ct, index, size, shape)
    np.testing.assert_array_equal(device.asnumpy(scattered), expected)


@pytest.mark.parametrize("size", [(12, 12), (200, 200)])
def test_windows_whose_positions_need_more_than_a_byte(device, size):
    x = np.random.default_rng(0).standard_normal((1, size[0] + 1, size[1], 2)).astype(np.float32)
    y, index = gpu.max_pool2d(device.asarray(x), size)
    expected, places = cpu.max_pool2d(x, size)
    assert index.dtype == places.dtype != np.int8
    np.testing.assert_array_equal(device.asnumpy(y), expected)
    np.testing.assert_array_equal(device.asnumpy(index), places)
    back = gpu.max_pool2d_scatter(y, index, size, x.shape)
    np.testing.assert_array_equal(
        device.asnumpy(back), cpu.max_pool2d_scatter(expected, places, size, x.shape)
    )


def test_images_that_are_not_contiguous(device):
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 8)).astype(np.float32)
    y, index = gpu.max_pool2d(device.asarray(x).transpose(0, 2, 3, 1), (2, 2))
    expected, places = cpu.max_pool2d(x.transpose(0, 2, 3, 1), (2, 2))
    np.testing.assert_array_equal(device.asnumpy(y), expected)
    np.testing.assert_array_equal(device.asnumpy(index), places)


def test_an_index_of_other_images_is_refused(device):
    t, index = device.zeros((1, 4, 4, 1)), device.zeros((1, 3, 2, 1), np.int8)
    with pytest.raises(ValueError, match="index has shape"):
        gpu.max_pool2d_gather(t, index, (2, 2))
    with pytest.raises(ValueError, match="index has shape"):
        gpu.max_pool2d_scatter(t, index, (2, 2), (1, 4, 4, 1))
    with pytest.raises(ValueError, match="Give a ct that ends in index's shape"):
        gpu.max_pool2d_scatter(t, index[:, :2], (2, 2), (1, 4, 4, 1))
