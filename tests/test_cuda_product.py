"""Outer products and our matrix product on the device, against NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgrad.kernels import cuda
from dualgrad.kernels.product import cpu, gemm, gpu

TOLERANCE = {np.float16: 4e-3, np.float32: 2e-6, np.float64: 1e-14}  # times the sum of sizes
dtypes = st.sampled_from(list(TOLERANCE))
sizes = st.sampled_from([0, 1, 2, 7, 8, 31, 32, 33, 65, 127, 128, 129, 130])
ranks = st.sampled_from([0, 1, 2, 5, 16, 17, 35])


def draw(seed, shape, dtype):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(actual, expected, size, dtype):
    """Compare with a result in float64; `size` is the sum of its terms' sizes."""
    assert actual.dtype == dtype
    error = np.abs(actual.astype(np.float64) - expected)
    assert (error <= TOLERANCE[dtype] * (size + 1)).all(), error.max()


def wide(*arrays):
    return [x.astype(np.float64) for x in arrays]


@settings(max_examples=40)
@given(m=sizes, n=sizes, rank=ranks, dtype=dtypes, seed=st.integers(0, 99),
       decay=st.sampled_from([None, 0.0, 0.9]))  # fmt: skip
def test_outer_products_are_added(device, m, n, rank, dtype, seed, decay):
    w, left, right = (
        draw(seed + i, s, dtype) for i, s in enumerate([(m, n), (rank, m), (rank, n)])
    )
    target, *factors = (device.asarray(x) for x in (w, left, right))
    if decay is None:
        gpu.outer_add(target, *factors, -0.3)
    else:
        gpu.outer_accumulate(target, *factors, decay)
    w, left, right = wide(w, left, right)
    scale, kept = (-0.3, 1.0) if decay is None else (1.0, decay)
    expected = kept * w + scale * (left.T @ right)
    close(device.asnumpy(target), expected, np.abs(w) + np.abs(left.T) @ np.abs(right), dtype)


def test_up_to_sixteen_outer_products_are_one_launch(device):
    w, left, right = device.zeros((40, 50)), device.ones((16, 40)), device.ones((16, 50))
    before = cuda.launches
    gpu.outer_add(w, left, right, 0.5)
    assert cuda.launches - before == 1
    assert (device.asnumpy(w) == 8).all()


@pytest.mark.parametrize("rank", [3, 20])
@pytest.mark.parametrize("view", [lambda x: x.T, lambda x: x[::2, 1:]], ids=["F", "strided"])
def test_matrices_of_other_strides_are_written_in_place(device, rank, view):
    w = draw(0, (34, 21), np.float64)
    there = device.asarray(w)
    m, n = view(w).shape
    left, right = draw(1, (rank, m), np.float64), draw(2, (rank, n), np.float64)
    gpu.outer_add(view(there), device.asarray(left), device.asarray(right), 2.0)
    cpu.outer_add(view(w), left, right, 2.0)
    np.testing.assert_allclose(device.asnumpy(there), w, rtol=1e-12, atol=1e-12)


def test_a_nan_in_the_buffer_stays_where_the_decay_is_zero(device):
    buffer = device.full((3, 4), np.nan)
    gpu.outer_accumulate(buffer, device.ones((1, 3)), device.ones((1, 4)), 0.0)
    assert np.isnan(device.asnumpy(buffer)).all()


def test_rows_of_the_sum(device):
    left, right = draw(0, (3, 9), np.float64), draw(1, (3, 5), np.float64)
    rows = gpu.outer_rows(device.asarray(left), device.asarray(right), 2, 7)
    np.testing.assert_allclose(device.asnumpy(rows), cpu.outer_rows(left, right, 2, 7))


def test_factors_that_do_not_fit_are_refused(device):
    with pytest.raises(ValueError, match="do not fit a matrix"):
        gpu.outer_add(device.zeros((3, 4)), device.zeros((2, 3)), device.zeros((2, 5)), 1.0)


@settings(max_examples=60)
@given(m=sizes, n=st.sampled_from([0, 1, 7, 8, 9, 40]), p=sizes, batch=st.sampled_from([(), (3,)]),
       transposed=st.tuples(st.booleans(), st.booleans()), tile=st.integers(0, 2), dtype=dtypes,
       beta=st.sampled_from([None, 0.5]), seed=st.integers(0, 99))  # fmt: skip
def test_gemm(device, m, n, p, batch, transposed, tile, dtype, beta, seed):
    a = draw(seed, (*batch, *((n, m) if transposed[0] else (m, n))), dtype)
    b = draw(seed + 1, (*batch, *((p, n) if transposed[1] else (n, p))), dtype)
    c = draw(seed + 2, (*batch, m, p), dtype)
    out = None if beta is None else device.asarray(c)
    tile = (gemm.SMALL, gemm.TALL, gemm.large(dtype))[tile]
    which = {"left_transposed": transposed[0], "right_transposed": transposed[1]}
    operands = device.asarray(a), device.asarray(b)
    y = gemm.gemm(*operands, **which, out=out, alpha=1.5, beta=beta, tile=tile)
    a, b, c = wide(a, b, c)
    a, b = (np.swapaxes(x, -1, -2) if t else x for x, t in zip((a, b), transposed, strict=True))
    expected = 1.5 * a @ b + (beta or 0.0) * c
    close(device.asnumpy(y), expected, 1.5 * np.abs(a) @ np.abs(b) + np.abs(c), dtype)


@settings(max_examples=20)
@given(m=sizes, n=st.sampled_from([1, 255, 256, 300, 700]), p=st.sampled_from([1, 33, 130]),
       batch=st.sampled_from([(), (2,)]), dtype=dtypes, beta=st.sampled_from([None, 0.5]),
       seed=st.integers(0, 99))  # fmt: skip
def test_gemm_by_slices_of_the_sum(device, m, n, p, batch, dtype, beta, seed):
    a, b, c = (draw(seed, (*batch, *shape), dtype) for shape in [(m, n), (n, p), (m, p)])
    sums = gemm.slices_for(c.shape, n, dtype)
    assert (sums is None) == (n < 256)
    out = device.asarray(c)
    before = cuda.launches
    gemm.gemm(device.asarray(a), device.asarray(b), out=out, alpha=1.5, beta=beta, sums=sums)
    assert cuda.launches - before == (0 if not m else 1 if sums is None else 2)
    a, b, c = wide(a, b, c)
    expected = 1.5 * a @ b + (beta or 0.0) * c
    close(device.asnumpy(out), expected, 1.5 * np.abs(a) @ np.abs(b) + np.abs(c), dtype)


def test_a_product_of_many_tiles_has_no_slices():
    assert gemm.slices_for((4096, 4096), 4096, np.float32) is None
    assert gemm.slices_for((128, 64, 64), 4096, np.float32) is None


def test_gemm_without_beta_does_not_read_what_was_there(device):
    out = device.full((5, 6), np.nan)
    gemm.gemm(device.ones((5, 3)), device.ones((3, 6)), out=out)
    assert (device.asnumpy(out) == 3).all()


def test_the_tile_is_the_largest_of_which_there_are_enough():
    assert gemm.tile_for(4096, 4096, 1, np.float32) == gemm.large(np.float32)
    assert gemm.tile_for(64, 4096, 1, np.float32) == gemm.SMALL
    assert gemm.tile_for(20000, 64, 1, np.float32) == gemm.TALL
    assert gemm.tile_for(20000, 32, 1, np.float32) == gemm.SMALL
    assert gemm.tile_for(256, 256, 1, np.float32) == gemm.SMALL
    assert gemm.tile_for(256, 256, 64, np.float64) == gemm.large(np.float64)


@pytest.mark.parametrize("shapes", [((3, 4), (5, 6), None), ((3, 4), (4, 6), (3, 5)),
                                    ((2, 3, 4), (4, 6), None)])  # fmt: skip
def test_matrices_that_do_not_fit_are_refused(device, shapes):
    a, b, out = (None if shape is None else device.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="do not fit"):
        gemm.gemm(a, b, out=out)
    with pytest.raises(ValueError, match="an out for beta"):
        gemm.gemm(device.zeros((2, 2)), device.zeros((2, 2)), beta=1.0)
