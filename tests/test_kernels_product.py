"""Sums of outer products in place, against np.einsum, and their memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgrad.kernels import dispatch, product
from dualgrad.kernels.product import cpu

FORMS = ["never", "always"] if dispatch.numba_available() else ["never"]

# How w lies in memory: each makes a writable (m, n) array of zeros.
LAYOUTS = {
    "rows": lambda m, n, dtype: np.zeros((m, n), dtype),
    "columns": lambda m, n, dtype: np.zeros((n, m), dtype).T,
    "every second": lambda m, n, dtype: np.zeros((2 * m, 2 * n), dtype)[::2, ::2],
    "reversed": lambda m, n, dtype: np.zeros((m, n), dtype)[::-1, ::-1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
@given(
    m=st.integers(0, 40),
    n=st.integers(0, 40),
    rank=st.integers(0, 20),
    dtype=st.sampled_from([np.float32, np.float64]),
    factor=st.sampled_from([0.0, 1.0, -0.25, 3.0]),
    block=st.sampled_from([1, 1000, 1 << 17]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_outer_products_are_added_in_place(form, layout, m, n, rank, dtype, factor, block, seed):
    generator = np.random.default_rng(seed)
    start = generator.integers(-9, 9, (m, n)).astype(dtype)
    # small integers: every sum is exact, in any order
    left = generator.integers(-9, 9, (m, rank)).astype(dtype).T
    right = generator.integers(-9, 9, (rank, n)).astype(dtype)
    left.flags.writeable = right.flags.writeable = False
    outer = np.einsum("ri,rj->ij", left, right)
    w, buffer = LAYOUTS[layout](m, n, dtype), LAYOUTS[layout](m, n, dtype)
    w[...] = buffer[...] = start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "numba_use", form)
        patch.setattr(cpu, "BUFFER_BYTES", block)
        patch.setattr(cpu, "LOOP_RANK", 20)  # all of the loop, which takes four terms at a time
        product.outer_add(w, left, right, factor)
        product.outer_accumulate(buffer, left, right, factor)
    np.testing.assert_array_equal(w, start + factor * outer)
    np.testing.assert_array_equal(buffer, factor * start + outer)
    assert w.dtype == buffer.dtype == dtype


@pytest.mark.parametrize("form", FORMS)
def test_what_lies_between_the_strides_of_w_is_left_alone(form, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_use", form)
    whole = np.zeros((6, 8))
    product.outer_add(whole[1:3, 2:6], np.ones((1, 2)), np.ones((1, 4)), 1.0)
    assert whole.sum() == whole[1:3, 2:6].sum() == 8


@pytest.mark.parametrize("form", FORMS)
def test_nan_and_infinity_arrive(form, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_use", form)
    monkeypatch.setattr(cpu, "LOOP_RANK", 5)
    for rank in (1, 4, 5):
        left, right = np.ones((rank, 2)), np.ones((rank, 3))
        left[-1, 0], right[-1, 2] = np.inf, 0
        w, buffer = np.zeros((2, 3)), np.full((2, 3), np.nan)
        with np.errstate(invalid="ignore"):
            product.outer_add(w, left, right, 1.0)
            product.outer_accumulate(buffer, left, right, 0.0)
        np.testing.assert_array_equal(w[0], [np.inf, np.inf, np.nan])
        np.testing.assert_array_equal(w[1], [rank, rank, rank - 1])
        assert np.isnan(buffer).all()


@pytest.mark.parametrize("form", FORMS)
def test_mixed_dtypes_keep_that_of_w(form, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_use", form)
    w = np.zeros((3, 2), np.float32)
    left, right = np.ones((2, 3)), np.ones((2, 2), np.float32)
    product.outer_add(w, left, right, np.float64(0.5))
    np.testing.assert_array_equal(w, np.ones((3, 2), np.float32))
    product.outer_accumulate(w, left, right, np.float64(0.5))
    np.testing.assert_array_equal(w, np.full((3, 2), 2.5, np.float32))
    half = np.zeros((3, 2), np.float16)
    product.outer_add(half, left, right, 0.5)
    np.testing.assert_array_equal(half, np.ones((3, 2), np.float16))


def test_rows_of_a_sum_of_outer_products():
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=(3, 7)), generator.normal(size=(3, 4))
    dense = np.einsum("ri,rj->ij", left, right)
    for start, stop in ((0, 7), (2, 5), (6, 7), (3, 3)):
        np.testing.assert_allclose(
            product.outer_rows(left, right, start, stop), dense[start:stop], rtol=1e-12
        )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rank", [1, 8, 64])
def test_no_temporary_of_the_size_of_w(form, layout, rank, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_use", form)
    m, n = 2048, 1024
    w = LAYOUTS[layout](m, n, np.float32)
    left, right = np.ones((rank, m), np.float32), np.ones((rank, n), np.float32)
    for call in (product.outer_add, product.outer_accumulate):
        call(w, left, right, 1.0)  # the first call compiles
        tracemalloc.start()
        call(w, left, right, 1.0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < w.size * w.itemsize / 4
    np.testing.assert_array_equal(w, np.full((m, n), 4 * rank))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("left, right", [((2, 9), (2, 4)), ((2, 3), (2, 9)), ((2, 3), (1, 4))])
def test_factors_that_do_not_fit_are_refused(form, left, right, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_use", form)
    w = np.zeros((3, 4))
    for call in (product.outer_add, product.outer_accumulate):
        with pytest.raises(ValueError, match="do not fit a matrix"):
            call(w, np.ones(left), np.ones(right), 1.0)
    assert not w.any()
