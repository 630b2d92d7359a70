"""(x - mean) / sqrt(variance + eps) over some axes, and its tangents, read from cache twice over.

The variance is the mean of squares about the mean, never a difference of two large numbers. The
loops sum blocks in x's dtype and add the blocks in float64. NaN and infinity in x give NaN wherever
their mean is subtracted, without a warning.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..dispatch import loop

BLOCK = 256  # entries of a row, or rows of a block of columns, that are summed in x's dtype
BLOCK_BYTES = 1 << 18  # of y that is scaled, with its tangents, before the next part
WIDTH = 256  # entries that a step down the columns takes at once, where the shape allows it


def normalise(
    x: np.ndarray, axes: tuple[int, ...], eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (x - mean) / sqrt(variance + eps), x's shape, and the mean and variance.

    Args:
        x: any shape and strides.
        axes: of the statistics, counted from the end.
        eps: added to the variance.

    Returns:
        y: x's shape and dtype. mean, variance: the same with axes of length 1.
    """
    layout = _layout(x.shape, axes)
    if layout is None or not _rows_loop.wins("normalise", x.size, x):
        with np.errstate(invalid="ignore", over="ignore"):  # as the loops: NaN, without a warning
            mean = np.mean(x, axis=axes, keepdims=True)
            y = x - mean
            variance = np.mean(y * y, axis=axes, keepdims=True)
            y /= np.sqrt(variance + eps)
        return y, mean, variance
    y = np.empty(x.shape, x.dtype)
    kept = tuple(1 if axis - x.ndim in axes else n for axis, n in enumerate(x.shape))
    mean, variance = np.empty(kept, x.dtype), np.empty(kept, x.dtype)
    shape, small = _matrices(*layout)
    run = _rows_loop if len(shape) == 2 else _columns_loop
    run(
        np.ascontiguousarray(x).reshape(shape), y.reshape(shape),
        mean.reshape(small), variance.reshape(small), x.dtype.type(eps), layout[-1],
    )  # fmt: skip
    return y, mean, variance


def normalise_tangent(
    t: np.ndarray, y: np.ndarray, variance: np.ndarray, axes: tuple[int, ...], eps: float
) -> np.ndarray:
    """Return (t - mean(t) - y * mean(y * t)) / sqrt(variance + eps), for each of k tangents.

    The map is its own transpose, so that it takes cotangents as well.

    Args:
        t: (k, *shape of y), any strides.
        y, variance: as normalise gives them.
        axes, eps: as normalise was given them.

    Returns:
        (k, *shape of y), the dtype of t.
    """
    layout = _layout(y.shape, axes)
    if layout is None or not _rows_loop.wins("normalise_tangent", t.size, t, y, variance):
        with np.errstate(invalid="ignore", over="ignore"):
            turned = t - np.mean(t, axis=axes, keepdims=True)
            turned -= y * np.mean(y * t, axis=axes, keepdims=True)
            turned /= np.sqrt(variance + eps)
        return turned
    turned = np.empty(t.shape, t.dtype)
    shape, small = _matrices(*layout)
    stack = (len(t), *shape)
    run = _rows_tangent_loop if len(shape) == 2 else _columns_tangent_loop
    run(
        np.ascontiguousarray(t).reshape(stack), np.ascontiguousarray(y).reshape(shape),
        np.ascontiguousarray(variance).reshape(small), turned.reshape(stack),
        t.dtype.type(eps), layout[-1],
    )  # fmt: skip
    return turned


def scale_and_shift(
    y: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    t: np.ndarray | None = None,
    t_scale: np.ndarray | None = None,
    t_shift: np.ndarray | None = None,
) -> np.ndarray | None:
    """Do y = y * scale + shift in place; return its k tangents, t written into, or None.

    Args:
        y: written into. t: (k, *shape of y), written into; None where y is constant.
        scale, shift: the shape of y's last axes. t_scale, t_shift: (k, *that shape), or None.
    """
    given = [each for each in (t_scale, t_shift) if each is not None]
    if t is None and given:
        t = np.zeros((len(given[0]), *y.shape), y.dtype)
    ones = (1,) * (y.ndim - scale.ndim)
    moves = [None if v is None else v.reshape(len(v), *ones, *v.shape[1:])
             for v in (t_scale, t_shift)]  # fmt: skip
    for rows in _blocks(y, scale.ndim):
        part = y[rows]
        if t is not None:
            moved = t[:, rows] if rows is not Ellipsis else t
            moved *= scale
            if moves[0] is not None:
                moved += part * moves[0]
            if moves[1] is not None:
                moved += moves[1]
        part *= scale
        part += shift
    return t


def sum_product(t: np.ndarray, y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return t * y summed over the axes of y before those of `shape`, for each of k tangents t."""
    axes = tuple(range(1, 1 + y.ndim - len(shape)))
    total = np.zeros((len(t), *shape))
    for rows in _blocks(y, len(shape)):
        product = (t[:, rows] if rows is not Ellipsis else t) * y[rows]
        total += np.sum(product, axis=axes) if axes else product
    return total.astype(t.dtype)


def _blocks(y: np.ndarray, last: int) -> Iterator[Any]:
    """Yield slices of the first axis whose part of y stays in cache, `...` where it is among the
    `last` axes, which are not cut."""
    if y.ndim <= last:
        yield ...
        return
    step = max(1, BLOCK_BYTES * len(y) // max(1, y.nbytes))
    for start in range(0, len(y), step):
        yield slice(start, start + step)


def _layout(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Return the shape with neighbours joined, (kept, reduced, kept, reduced), or None.

    None where the axes are in no such order, or the array is empty.
    """
    lengths, reduced = [1], False
    for axis, n in enumerate(shape, -len(shape)):
        if n == 1:
            continue
        if (axis in axes) != reduced:
            reduced = not reduced
            lengths.append(1)
        lengths[-1] *= n
    if len(lengths) > 4 or 0 in lengths:
        return None
    outer, m, groups, size = lengths + [1] * (4 - len(lengths))
    return outer, m, groups, size


def _matrices(
    outer: int, m: int, groups: int, size: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes in which the loops take x and its statistics: rows, or columns.

    Rows: (outer, n) and (outer,). Columns: (outer, steps, width) and (outer, groups), where a step
    takes several rows of groups * size entries if these are short: short loops are slow.
    """
    if groups == 1:
        return (outer, m * size), (outer,)
    width = groups * size
    most = max(1, WIDTH // width)
    together = math.gcd(m, 1 << most.bit_length() - 1)
    return (outer, m // together, together * width), (outer, groups)


@loop("r2 w2 w1 w1 f i")
def _rows_loop(x, y, mean, variance, eps, size):
    number = x.dtype.type
    rows, n = x.shape
    for i in range(rows):
        total = 0.0
        for start in range(0, n, BLOCK):
            block = x[i, start : start + BLOCK]  # indices from 0 on are what numba vectorises
            part = number(0)
            for j in range(block.size):
                part += block[j]
            total += part
        centre = number(total / n)
        total = 0.0
        for start in range(0, n, BLOCK):
            block = x[i, start : start + BLOCK]
            part = number(0)
            for j in range(block.size):
                d = block[j] - centre
                part += d * d
            total += part
        mean[i], variance[i] = centre, number(total / n)
        scale = number(1) / np.sqrt(variance[i] + eps)
        for j in range(n):
            y[i, j] = (x[i, j] - centre) * scale


@loop("r3 r2 r1 w3 f i")
def _rows_tangent_loop(t, y, variance, turned, eps, size):
    number = t.dtype.type
    directions, rows, n = t.shape
    for i in range(rows):
        scale = number(1) / np.sqrt(variance[i] + eps)
        for k in range(directions):
            total, along = 0.0, 0.0
            for start in range(0, n, BLOCK):
                block, values = t[k, i, start : start + BLOCK], y[i, start : start + BLOCK]
                part, product = number(0), number(0)
                for j in range(block.size):
                    part += block[j]
                    product += values[j] * block[j]
                total += part
                along += product
            shift, slope = number(total / n), number(along / n)
            for j in range(n):
                turned[k, i, j] = (t[k, i, j] - shift - y[i, j] * slope) * scale


# In the column loops a group is `size` neighbours of the groups * size columns, and these columns
# repeat along the width; `of` is the group of each column of the width.


@loop("r3 w3 w2 w2 f i")
def _columns_loop(x, y, mean, variance, eps, size):
    number = x.dtype.type
    outer, steps, width = x.shape
    groups = mean.shape[1]
    count = steps * width // groups
    of = np.arange(width) // size % groups
    shift, part = np.empty(width, x.dtype), np.empty(width, x.dtype)
    total, pooled = np.empty(width), np.empty(groups)
    for o in range(outer):
        shift[:] = 0
        for moment in range(2):
            total[:] = 0
            for start in range(0, steps, BLOCK):
                part[:] = 0
                for i in range(start, min(start + BLOCK, steps)):
                    for c in range(width):
                        d = x[o, i, c] - shift[c]
                        part[c] += d if moment == 0 else d * d
                for c in range(width):
                    total[c] += part[c]
            pooled[:] = 0
            for c in range(width):
                pooled[of[c]] += total[c]
            for g in range(groups):
                if moment == 0:
                    mean[o, g] = number(pooled[g] / count)
                else:
                    variance[o, g] = number(pooled[g] / count)
            for c in range(width):
                g = of[c]
                if moment == 0:
                    shift[c] = mean[o, g]
                else:
                    part[c] = number(1) / np.sqrt(variance[o, g] + eps)
        for i in range(steps):
            for c in range(width):
                y[o, i, c] = (x[o, i, c] - shift[c]) * part[c]


@loop("r4 r3 r2 w4 f i")
def _columns_tangent_loop(t, y, variance, turned, eps, size):
    number = t.dtype.type
    directions, outer, steps, width = t.shape
    groups = variance.shape[1]
    count = steps * width // groups
    of = np.arange(width) // size % groups
    part, product = np.empty(width, t.dtype), np.empty(width, t.dtype)
    scale = np.empty(width, t.dtype)
    totals, pooled = np.empty((2, width)), np.empty((2, groups))
    for o in range(outer):
        for k in range(directions):
            totals[:] = 0
            for start in range(0, steps, BLOCK):
                part[:] = 0
                product[:] = 0
                for i in range(start, min(start + BLOCK, steps)):
                    for c in range(width):
                        part[c] += t[k, o, i, c]
                        product[c] += y[o, i, c] * t[k, o, i, c]
                for c in range(width):
                    totals[0, c] += part[c]
                    totals[1, c] += product[c]
            pooled[:] = 0
            for c in range(width):
                pooled[0, of[c]] += totals[0, c]
                pooled[1, of[c]] += totals[1, c]
            for c in range(width):
                g = of[c]
                part[c], product[c] = number(pooled[0, g] / count), number(pooled[1, g] / count)
                scale[c] = number(1) / np.sqrt(variance[o, g] + eps)
            for i in range(steps):
                for c in range(width):
                    moved = t[k, o, i, c] - part[c] - y[o, i, c] * product[c]
                    turned[k, o, i, c] = moved * scale[c]
