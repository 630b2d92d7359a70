"""The micro-kernel, the dot kernel, packing, sign panels and atomics against NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from dualgrad.kernels import random as plain  # noqa: E402
from dualgrad.kernels.fused import draws, tile  # noqa: E402
from dualgrad.kernels.jit import jit  # noqa: E402
from dualgrad.random import Key  # noqa: E402

FLOATS = [np.float32, np.float64]


@jit
def _rows(like, m, a, lda, segment_a, segments, segment_k, b, initial, ldi, c, ldc):
    tile.rows(like, m, a, lda, segment_a, segments, segment_k, b, initial, ldi, c, ldc)


@jit
def _dots(like, m, a, lda, segment_a, segments, segment_k, b, s):
    tile.dots(like, m, a, lda, segment_a, segments, segment_k, b, s)


@jit
def _pack(like, k, n, vectors, panel):
    tile.interleave(like, k, n, vectors, panel)


@jit
def _count(address, times):
    before = tile.fetch_add(address, 5)
    for _ in range(times):
        tile.fetch_add(address, 1)
        tile.pause()
    tile.store(address + 8, tile.load(address))
    return before


@st.composite
def _shapes(draw):
    """Rows, segments, entries of a segment, and the gaps between rows and between segments."""
    m = draw(st.integers(0, 20))
    segments, segment_k = draw(st.integers(0, 4)), draw(st.integers(0, 40))
    return m, segments, segment_k, draw(st.integers(-2, 5)), draw(st.integers(0, 50))


def _address(array):
    return array.ctypes.data


def _windows(a, m, lda, segment_a, segments, segment_k):
    """Return A as a matrix (m, segments * segment_k) in float64: what both kernels read."""
    i, s, r = np.ogrid[:m, :segments, :segment_k]
    return a[s * segment_a + i * lda + r].astype(np.float64).reshape(m, segments * segment_k)


def _bound(left, right, dtype):
    """Return a bound of the error of a product of sums in any order."""
    depth = left.shape[-1] + 2
    return depth * np.finfo(dtype).eps * (np.abs(left) @ np.abs(right) + 3) + 1e-300


@settings(max_examples=60)
@given(shape=_shapes(), dtype=st.sampled_from(FLOATS), seed=st.integers(0, 99), data=st.data())
def test_rows_is_a_product_added_to_what_was_there(shape, dtype, seed, data):
    m, segments, segment_k, gap, segment_a = shape
    ldi = data.draw(st.sampled_from([0, 16, 19]))
    lda, ldc = max(segment_k + gap, 1), 21  # overlapping rows too
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(m * lda + segments * segment_a + segment_k).astype(dtype)
    b = rng.standard_normal((segments * segment_k, 16)).astype(dtype)
    start = rng.standard_normal(m * ldi + 16).astype(dtype)
    c = np.full((m, ldc), 9, dtype)
    _rows(
        dtype(0), m, _address(a), lda, segment_a, segments, segment_k, _address(b),
        _address(start), ldi, _address(c), ldc,
    )  # fmt: skip
    matrix = _windows(a, m, lda, segment_a, segments, segment_k)
    first = start[np.arange(m)[:, None] * ldi + np.arange(16)]
    error = np.abs(c[:, :16] - (first + matrix @ b.astype(np.float64)))
    assert (error <= _bound(matrix, b.astype(np.float64), dtype)).all()
    assert (c[:, 16:] == 9).all()


@settings(max_examples=60)
@given(shape=_shapes(), dtype=st.sampled_from(FLOATS), seed=st.integers(0, 99))
def test_dots_is_a_product_with_a_vector(shape, dtype, seed):
    m, segments, segment_k, gap, segment_a = shape
    lda = max(segment_k + gap, 1)
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(m * lda + segments * segment_a + segment_k).astype(dtype)
    b = rng.standard_normal(segments * segment_k).astype(dtype)
    s = np.full(m + 1, 9, dtype)
    _dots(
        dtype(0), m, _address(a), lda, segment_a, segments, segment_k, _address(b), _address(s)
    )  # fmt: skip
    matrix = _windows(a, m, lda, segment_a, segments, segment_k)
    error = np.abs(s[:m] - matrix @ b.astype(np.float64))
    assert (error <= _bound(matrix, b.astype(np.float64), dtype)).all()
    assert s[m] == 9


@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_may_accumulate_in_place(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((13, 9)).astype(dtype), rng.standard_normal((9, 16)).astype(dtype)
    start = rng.standard_normal((13, 16)).astype(dtype)
    c, apart = start.copy(), np.empty_like(start)
    for source, target in ((c, c), (start, apart)):
        _rows(
            dtype(0), 13, _address(a), 9, 0, 1, 9, _address(b), _address(source), 16,
            _address(target), 16,
        )  # fmt: skip
    np.testing.assert_array_equal(c, apart)
    assert not np.array_equal(c, start)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_row_has_the_same_bits_in_every_block(dtype):
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((17, 33)).astype(dtype), rng.standard_normal((33, 16)).astype(dtype)
    start, whole, single = np.zeros(16, dtype), np.empty((17, 16), dtype), np.empty(16, dtype)
    start_at, b_at = _address(start), _address(b)
    _rows(dtype(0), 17, _address(a), 33, 0, 1, 33, b_at, start_at, 0, _address(whole), 16)
    for i in range(17):
        row = a[i].copy()
        _rows(dtype(0), 1, _address(row), 33, 0, 1, 33, b_at, start_at, 0, _address(single), 16)
        np.testing.assert_array_equal(single, whole[i])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_stays_in_its_row(dtype, value):
    a, b = np.ones((9, 20), dtype), np.ones((20, 16), dtype)
    a[4, 3] = value
    start, c, s = np.zeros(16, dtype), np.empty((9, 16), dtype), np.empty(9, dtype)
    column = np.ones(20, dtype)
    _rows(dtype(0), 9, _address(a), 20, 0, 1, 20, _address(b), _address(start), 0, _address(c), 16)
    _dots(dtype(0), 9, _address(a), 20, 0, 1, 20, _address(column), _address(s))
    expected = np.full(9, 20.0)
    expected[4] = value
    np.testing.assert_array_equal(c, np.repeat(expected[:, None], 16, axis=1))
    np.testing.assert_array_equal(s, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("k", [1, 5, 16])
def test_interleave_makes_vectors_columns(dtype, k):
    vectors = np.arange(k * 7, dtype=dtype).reshape(k, 7) + 1
    panel = np.full((7, 16), 9, dtype)
    _pack(dtype(0), k, 7, _address(vectors), _address(panel))
    np.testing.assert_array_equal(panel[:, :k], vectors.T)
    assert (panel[:, k:] == 0).all()


def test_atomics_on_one_thread_and_on_many():
    from concurrent.futures import ThreadPoolExecutor

    counter = np.zeros(2, np.int64)
    with ThreadPoolExecutor(4) as pool:
        befores = list(pool.map(lambda _: _count(_address(counter), 1000), range(8)))
    assert counter[0] == 8 * 1005 and counter[1] <= counter[0]
    assert len(set(befores)) == 8  # no two of them saw the same count


@jit
def _sign_panel(like, v, n, columns, low, high, direction, panel):
    draws.sign_panel(like, v, n, columns, low, high, direction, panel)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (9, 40), (784, 10), (600, 33)])
def test_a_sign_panel_is_bit_for_bit_that_of_the_map(rows, columns, dtype):
    words = Key(2**63 + 5).words
    low, high = (int(word) for word in words)
    expected = plain.sign_matrix(words, rows, columns, range(7, 8), plain.MATRIX, dtype)[0]
    panels = -(-columns // 16)
    padded = np.zeros((rows, panels * 16), dtype)
    padded[:, :columns] = expected
    for p in range(panels):
        v = np.full((rows + 1, 16), 9, dtype)
        _sign_panel(dtype(0), _address(v), rows, columns, low, high, 7, p)
        np.testing.assert_array_equal(v[:rows], padded[:, 16 * p : 16 * p + 16])
        assert (v[rows] == 9).all()
