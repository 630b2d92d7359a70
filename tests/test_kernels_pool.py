"""Max pooling against np.argmax over each window, in both forms, NumPy and numba."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgrad.kernels import dispatch, pool

FORMS = ["never", "always"] if dispatch.numba_available() else ["never"]


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_use", request.param)
    return request.param


def definition(x, size):
    """Return (y, index) by np.argmax over every window, written out."""
    h, w = size
    n, rows, columns, c = x.shape[0], x.shape[1] // h, x.shape[2] // w, x.shape[3]
    y, index = np.empty((n, rows, columns, c), x.dtype), np.empty((n, rows, columns, c), int)
    for a, i, j, b in itertools.product(range(n), range(rows), range(columns), range(c)):
        window = x[a, i * h : (i + 1) * h, j * w : (j + 1) * w, b].ravel()
        index[a, i, j, b] = np.argmax(window)
        y[a, i, j, b] = window[index[a, i, j, b]]
    return y, index


SHAPES = st.tuples(st.integers(0, 3), st.integers(1, 7), st.integers(1, 7), st.integers(1, 20))


@pytest.mark.parametrize("form", FORMS)
@given(
    shape=SHAPES,
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    lead=st.sampled_from([(), (1,), (3,), (2, 2)]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=100)
def test_pooling_is_argmax_and_scatter_is_the_transpose_of_gather(
    form, shape, size, lead, dtype, seed
):
    generator = np.random.default_rng(seed)
    values = np.array([-np.inf, -1, 0, 1, 2, np.inf, np.nan], dtype)  # ties in every window
    x = generator.choice(values, shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "numba_use", form)
        y, index = pool.max_pool2d(x, size)
        t = generator.integers(-9, 9, (*lead, *shape)).astype(dtype)
        ty = pool.max_pool2d_gather(t, index, size)
        ct = generator.integers(-9, 9, ty.shape).astype(dtype)
        ct_x = pool.max_pool2d_scatter(ct, index, size, shape)
    expected_y, expected_index = definition(x, size)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(index, expected_index)
    assert y.dtype == ty.dtype == ct_x.dtype == dtype and index.dtype == np.int8
    assert ct_x.shape == t.shape
    np.testing.assert_array_equal(np.vdot(ct, ty), np.vdot(ct_x, t))  # integers: exact
    for direction in np.ndindex(lead):  # the gather is x -> y with the choice held
        np.testing.assert_array_equal(
            ty[direction].sum((1, 2)), chosen_sums(t[direction], expected_index, size)
        )


def chosen_sums(t, index, size):
    """Return for each image and channel the sum of t at the chosen entries."""
    total = np.zeros((index.shape[0], index.shape[3]), t.dtype)
    for n, i, j, c in np.ndindex(index.shape):
        row, column = divmod(index[n, i, j, c], size[1])
        total[n, c] += t[n, i * size[0] + row, j * size[1] + column, c]
    return total


def test_any_strides_and_read_only_arrays(form):
    x = np.random.default_rng(0).normal(size=(5, 6, 4, 3)).transpose(3, 1, 2, 0)[:, ::-1]
    x.flags.writeable = False
    y, index = pool.max_pool2d(x, (2, 2))
    expected_y, expected_index = definition(x, (2, 2))
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(index, expected_index)
    strided = np.asfortranarray(index)
    np.testing.assert_array_equal(pool.max_pool2d_gather(x, strided, (2, 2)), y)
    back = pool.max_pool2d_scatter(np.asfortranarray(y), strided, (2, 2), x.shape)
    np.testing.assert_array_equal(back[back != 0], x[back != 0])
    assert np.count_nonzero(back) == y.size


@pytest.mark.parametrize(
    "size, dtype", [((8, 16), np.int8), ((8, 17), np.int16), ((182, 181), np.int32)]
)
def test_the_index_is_as_wide_as_the_window_needs(size, dtype, form):
    x = np.zeros((1, *size, 2), np.float32)
    x[0, -1, -1, 0] = 1
    _, index = pool.max_pool2d(x, size)
    assert index.dtype == dtype
    np.testing.assert_array_equal(index.ravel(), [size[0] * size[1] - 1, 0])
    np.testing.assert_array_equal(pool.max_pool2d_gather(x, index, size).ravel(), [1, 0])
    ct = np.ones((1, 1, 1, 2), np.float32)
    back = pool.max_pool2d_scatter(ct, index, size, x.shape)
    assert back[0, -1, -1, 0] == back[0, 0, 0, 1] == 1 and back.sum() == 2


def test_half_precision_goes_through_numpy(form):
    x = np.arange(16, dtype=np.float16).reshape(1, 4, 4, 1)
    y, _ = pool.max_pool2d(x, (2, 2))
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y.ravel(), [5, 7, 13, 15])


def test_an_index_of_other_images_is_refused(form):
    _, index = pool.max_pool2d(np.zeros((2, 8, 8, 3)), (2, 2))
    small = np.zeros((2, 4, 4, 3))
    with pytest.raises(ValueError, match="max_pool2d_gather: index has shape"):
        pool.max_pool2d_gather(small, index, (2, 2))
    with pytest.raises(ValueError, match="max_pool2d_scatter: index has shape"):
        pool.max_pool2d_scatter(np.zeros(index.shape), index, (2, 2), small.shape)
    with pytest.raises(ValueError, match="max_pool2d_scatter: ct has shape"):
        pool.max_pool2d_scatter(small[:, :2], index, (2, 2), (2, 8, 8, 3))
