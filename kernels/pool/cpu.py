"""Max pooling of NHWC images over windows that do not overlap, by an index of the winner."""

import math
from collections.abc import Iterator

import numpy as np

from ..dispatch import loop


def max_pool2d(x: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the maxima of windows (h, w) of x and where in its window each was found.

    Rows and columns that fill no window are cropped. A NaN counts as a maximum, as in np.argmax.

    Args:
        x: (N, H, W, C), any strides.
        size: (h, w), also the stride.

    Returns:
        y: (N, H // h, W // w, C), the dtype of x.
        index: the same shape, the row-major position in the window of the first maximum; int8, or
            the smallest signed integer that fits.
    """
    n, height, width, c = x.shape
    shape = (n, height // size[0], width // size[1], c)
    index = np.zeros(shape, _index_dtype(size))
    if index.dtype == np.int8 and _max_loop.wins("max_pool2d", x.size, x):
        y = np.empty(shape, x.dtype)
        _max_loop(np.ascontiguousarray(x), y, index, size[0], size[1])
        return y, index
    corners = list(_corners(x, size))
    y = corners[0].copy()
    for corner in corners[1:]:
        np.maximum(y, corner, out=y)
    nan = np.isnan(y)
    any_nan = bool(nan.any())
    for position in range(len(corners) - 1, -1, -1):  # backwards: the first maximum is written last
        found = corners[position] == y
        if any_nan:
            found |= nan & np.isnan(corners[position])
        np.copyto(index, position, where=found, casting="same_kind")
    return y, index


def max_pool2d_gather(t: np.ndarray, index: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the entries of t at the positions that max_pool2d found: its derivative along t.

    Args:
        t: (..., N, H, W, C), any number of leading axes.
        index: (N, H // h, W // w, C), as max_pool2d gives it.
        size: (h, w).

    Returns:
        (..., N, H // h, W // w, C), the dtype of t.

    Raises:
        ValueError: index has not the shape that pooling t gives.
    """
    lead = t.shape[:-4]
    _check_index("max_pool2d_gather", t.shape[-4:], index, size)
    y = np.empty(lead + index.shape, t.dtype)
    if index.dtype == np.int8 and _gather_loop.wins("max_pool2d_gather", y.size, t):
        flat = (math.prod(lead),)
        t = np.ascontiguousarray(t).reshape(flat + t.shape[-4:])
        index = np.ascontiguousarray(index)
        _gather_loop(t, index, y.reshape(flat + index.shape), size[0], size[1])
        return y
    for position, corner in enumerate(_corners(t, size)):
        np.copyto(y, corner, where=index == position)
    return y


def max_pool2d_scatter(
    ct: np.ndarray, index: np.ndarray, size: tuple[int, int], x_shape: tuple[int, ...]
) -> np.ndarray:
    """Return ct at the positions of the maxima, else 0: the transpose of max_pool2d_gather.

    Args:
        ct: (..., N, H // h, W // w, C), any number of leading axes.
        index: (N, H // h, W // w, C), as max_pool2d gives it.
        size: (h, w).
        x_shape: (N, H, W, C).

    Returns:
        (..., N, H, W, C), the dtype of ct.

    Raises:
        ValueError: index or ct has not the shape that pooling x gives.
    """
    lead = ct.shape[:-4]
    x_shape = tuple(x_shape)
    _check_index("max_pool2d_scatter", x_shape, index, size)
    _check_cotangent(ct, index)
    t = np.zeros(lead + x_shape, ct.dtype)
    if index.dtype == np.int8 and _scatter_loop.wins("max_pool2d_scatter", ct.size, ct):
        flat = (math.prod(lead),)
        ct = np.ascontiguousarray(ct).reshape(flat + index.shape)
        index = np.ascontiguousarray(index)
        _scatter_loop(ct, index, t.reshape(flat + x_shape), size[0], size[1])
        return t
    for position, corner in enumerate(_corners(t, size)):
        np.copyto(corner, ct, where=index == position)
    return t


def _check_index(name: str, shape: tuple[int, ...], index: np.ndarray, size: tuple[int, int]):
    """Refuse an index made for other images: the loops do not check bounds."""
    n, height, width, c = shape
    if index.shape != (n, height // size[0], width // size[1], c):
        raise ValueError(
            f"{name}: index has shape {index.shape}, which is not that of images {shape} pooled "
            f"by {size}. Give the index that max_pool2d returned for them."
        )


def _check_cotangent(ct: np.ndarray, index: np.ndarray) -> None:
    if ct.shape[-4:] != index.shape:
        raise ValueError(
            f"max_pool2d_scatter: ct has shape {ct.shape} and index {index.shape}. "
            f"Give a ct that ends in index's shape."
        )


def _index_dtype(size: tuple[int, int]) -> np.dtype:
    last = size[0] * size[1] - 1
    return next(np.dtype(kind) for kind in ("i1", "i2", "i4", "i8") if last <= np.iinfo(kind).max)


def _corners(x: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield, for each position in the window in row-major order, the view of x that it sees."""
    h, w = size
    rows, columns = x.shape[-3] // h * h, x.shape[-2] // w * w
    for i in range(h):
        for j in range(w):
            yield x[..., i:rows:h, j:columns:w, :]


@loop("r4 w4 w4:int8 i i")
def _max_loop(x, y, index, h, w):
    for n in range(y.shape[0]):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                best, where = y[n, i, j], index[n, i, j]
                best[:] = x[n, i * h, j * w]
                for position in range(1, h * w):
                    row = x[n, i * h + position // w, j * w + position % w]
                    for c in range(row.size):
                        value, old = row[c], best[c]
                        # not (value <= old) is true for a NaN too; a NaN found first stays
                        take = (not value <= old) and old == old
                        best[c] = value if take else old
                        where[c] = np.int8(position) if take else where[c]


@loop("r5 r4:int8 w5 i i")
def _gather_loop(t, index, y, h, w):
    for k in range(y.shape[0]):
        for n in range(y.shape[1]):
            for i in range(y.shape[2]):
                for j in range(y.shape[3]):
                    out, where = y[k, n, i, j], index[n, i, j]
                    for position in range(h * w):
                        row = t[k, n, i * h + position // w, j * w + position % w]
                        here = np.int8(position)  # compared as int8, many at once
                        for c in range(out.size):
                            value, old = row[c], out[c]  # loaded always, or it cannot vectorise
                            out[c] = value if where[c] == here else old


@loop("r5 r4:int8 w5 i i")
def _scatter_loop(ct, index, t, h, w):
    for k in range(ct.shape[0]):
        for n in range(ct.shape[1]):
            for i in range(ct.shape[2]):
                for j in range(ct.shape[3]):
                    value, where = ct[k, n, i, j], index[n, i, j]
                    for position in range(h * w):
                        row = t[k, n, i * h + position // w, j * w + position % w]
                        here = np.int8(position)
                        for c in range(row.size):
                            row[c] = value[c] if where[c] == here else row.dtype.type(0)
