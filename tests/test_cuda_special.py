"""CUDA's error function and normal quantile against their twins on NumPy arrays."""

import numpy as np
import pytest

from dualgrad.kernels.special import cpu, gpu

# Units in the last place; each side's error function has an error of its own. The quantile is that
# of the twin, but in float16 it is rounded twice.
ULPS = {"float16": 1, "float32": 3, "float64": 5}
QUANTILE_ULPS = {"float16": 1, "float32": 0, "float64": 0}
EDGES = [0.0, -0.0, 1.0, np.nan, np.inf, -np.inf, -0.5, 1.5]


def assert_near(got, want, ulps):
    assert got.dtype == want.dtype and got.shape == want.shape
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    np.testing.assert_array_equal(np.signbit(got[finite]), np.signbit(want[finite]))
    if finite.any():
        np.testing.assert_array_max_ulp(got[finite], want[finite], ulps)


@pytest.mark.parametrize("size", [0, 1, 255, 257, 3001])
@pytest.mark.parametrize("dtype", ULPS)
def test_error_function(device, dtype, size):
    generator = np.random.default_rng(size)
    x = np.concatenate([EDGES, 2 * generator.normal(size=size)]).astype(dtype)
    assert_near(device.asnumpy(gpu.erf(device.asarray(x))), cpu.erf(x), ULPS[dtype])


@pytest.mark.parametrize("size", [0, 1, 255, 257, 3001])
@pytest.mark.parametrize("dtype", ULPS)
def test_normal_quantile_has_the_same_bits(device, dtype, size):
    generator = np.random.default_rng(size)
    tails = 10.0 ** -generator.uniform(0, 300, size)
    u = np.concatenate([EDGES, generator.random(size), tails, 1 - tails]).astype(dtype)
    found = device.asnumpy(gpu.ndtri(device.asarray(u)))
    assert_near(found, cpu.ndtri(u), QUANTILE_ULPS[dtype])


def test_integers_and_strides(device):
    x = np.arange(-3, 3)
    for name in ("erf", "ndtri"):
        found = getattr(gpu, name)(device.asarray(x))
        assert_near(device.asnumpy(found), getattr(cpu, name)(x), ULPS["float64"])
    u = np.linspace(0.1, 0.9, 24).reshape(4, 6)
    assert_near(device.asnumpy(gpu.ndtri(device.asarray(u).T)), cpu.ndtri(u.T), 0)
