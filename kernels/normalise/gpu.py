"""(x - mean) / sqrt(variance + eps) on CuPy arrays, and its tangents.

A statistic is taken by one warp or block where its entries lie together, in one launch. Statistics
of columns are cut into chunks, in three launches (tangents: two): sums, squares about the mean, and
the result.
"""

import math
from typing import Any

import numpy as np

from .. import cuda
from .cpu import _layout

THREADS = 256
TILE = (32, 8)  # columns and rows that a block takes at once
TOGETHER = 8  # neighbours in memory from which one statistic is read well by itself
BUSY = 256  # statistics that keep a device busy
MOST_CHUNKS = 64
MOST_OUTER = 65535  # of a grid
WARP_ENTRIES = 1024  # up to here a warp takes a statistic, beyond a block
_source = cuda.Source("normalise", parts=("rows.cuh",))


def normalise(x: Any, axes: tuple[int, ...], eps: float) -> tuple[Any, Any, Any]:
    """Return (x - mean) / sqrt(variance + eps), x's shape, and the mean and variance."""
    layout = _layout(x.shape, axes)
    if layout is None or x.dtype.name not in cuda.TYPES:
        mean = np.mean(x, axis=axes, keepdims=True)
        y = x - mean
        variance = np.mean(y * y, axis=axes, keepdims=True)
        y /= np.sqrt(variance + eps)
        return y, mean, variance
    x = cuda.contiguous(x)
    y = cuda.empty(x.shape, x.dtype)
    kept = tuple(1 if axis - x.ndim in axes else n for axis, n in enumerate(x.shape))
    mean, variance = cuda.empty(kept, x.dtype), cuda.empty(kept, x.dtype)
    outer, m, groups, size = layout
    if _in_rows(*layout):
        kind, blocks, block = _rows(*layout)
        _source.launch(
            f"rows_{kind}", x.dtype, blocks, block, x, y, mean, variance, *layout, float(eps)
        )
        return y, mean, variance
    width = groups * size
    tiles, step, parts = _columns(outer, m, width)
    sums, squares = cuda.empty(parts, _accumulator(x)), cuda.empty(parts, _accumulator(x))
    _source.launch("column_sums", x.dtype, tiles, TILE, x, sums, outer, m, width, step)
    _source.launch(
        "column_squares", x.dtype, tiles, TILE, x, sums, squares, outer, m, width, size, step
    )
    _source.launch(
        "columns", x.dtype, tiles, TILE, x, sums, squares, y, mean, variance, outer, m, width, size,
        step, float(eps),
    )  # fmt: skip
    return y, mean, variance


def normalise_tangent(t: Any, y: Any, variance: Any, axes: tuple[int, ...], eps: float) -> Any:
    """Return k tangents of what normalise gives, for tangents t of its argument."""
    layout = _layout(y.shape, axes)
    alike = t.dtype == y.dtype == variance.dtype and t.dtype.name in cuda.TYPES
    if layout is None or not alike or not len(t):
        turned = t - np.mean(t, axis=axes, keepdims=True)
        turned -= y * np.mean(y * t, axis=axes, keepdims=True)
        turned /= np.sqrt(variance + eps)
        return turned
    t, y, variance = map(cuda.contiguous, (t, y, variance))
    turned = cuda.empty(t.shape, t.dtype)
    outer, m, groups, size = layout
    if _in_rows(*layout):
        kind, blocks, block = _rows(*layout)
        grid = blocks, min(len(t), MOST_OUTER)
        arguments = (t, y, variance, turned, *layout, len(t), float(eps))
        _source.launch(f"rows_tangent_{kind}", t.dtype, grid, block, *arguments)
        return turned
    width = groups * size
    tiles, step, parts = _columns(outer * len(t), m, width)
    sums, products = cuda.empty(parts, _accumulator(t)), cuda.empty(parts, _accumulator(t))
    _source.launch(
        "column_products", t.dtype, tiles, TILE, t, y, sums, products, outer, len(t), m, width, step
    )
    _source.launch(
        "columns_tangent", t.dtype, tiles, TILE, t, y, variance, sums, products, turned, outer,
        len(t), m, width, size, step, float(eps),
    )  # fmt: skip
    return turned


def scale_and_shift(
    y: Any, scale: Any, shift: Any, t: Any = None, t_scale: Any = None, t_shift: Any = None
) -> Any:
    """Do y = y * scale + shift in place; return its k tangents, t written into, or None."""
    given = [each for each in (t, t_scale, t_shift) if each is not None]
    moved = t
    if t is None and given:
        moved = cuda.empty((len(given[0]), *y.shape), y.dtype)
    into = [None if each is None else cuda.contiguous(each) for each in (y, moved)]
    fixed = [None if each is None else cuda.contiguous(each)
             for each in (scale, shift, t_scale, t_shift)]  # fmt: skip
    _source.launch(
        "scale_and_shift", y.dtype, cuda.blocks(y.size, THREADS), THREADS, *into, *fixed, y.size,
        scale.size, len(given[0]) if given else 0, int(t is not None),
    )  # fmt: skip
    for each, written in zip((y, moved), into, strict=True):
        if written is not each:  # a copy, of an array that was not contiguous
            each[...] = written
    return moved


def sum_product(t: Any, y: Any, shape: tuple[int, ...]) -> Any:
    """Return t * y summed over the axes of y before those of `shape`, for each of k tangents t."""
    total = cuda.empty((len(t), *shape), t.dtype)
    if not t.size:
        total[...] = 0
        return total
    t, y = map(cuda.contiguous, (t, y))
    width = math.prod(shape)
    m = y.size // width
    tiles, step, parts = _columns(len(t), m, width)
    products = cuda.empty(parts, _accumulator(t))
    _source.launch(
        "column_products", t.dtype, tiles, TILE, t, y, None, products, 1, len(t), m, width, step
    )
    blocks = cuda.blocks(total.size, THREADS)
    _source.launch("sum_chunks", t.dtype, blocks, THREADS, products, total, parts[0], total.size)
    return total


def _in_rows(outer: int, m: int, groups: int, size: int) -> bool:
    """Whether each statistic is taken by itself: its entries lie together, or there are many."""
    return groups == 1 or (size >= TOGETHER and outer * groups >= BUSY)


def _rows(outer: int, m: int, groups: int, size: int) -> tuple[str, int, tuple[int, ...]]:
    """Return the kernel's width, the blocks and the block."""
    if m * size <= WARP_ENTRIES:
        return "warp", cuda.blocks(outer * groups, 8), (32, 8)
    return "block", cuda.blocks(outer * groups, 1), (THREADS,)


def _columns(
    outer: int, m: int, width: int
) -> tuple[tuple[int, int, int], int, tuple[int, int, int]]:
    """Return the grid, the rows of a chunk, and the shape of the chunks' sums."""
    tiles = -(-width // TILE[0])
    chunks = min(MOST_CHUNKS, -(-m // (4 * TILE[1])), max(1, 4 * BUSY // (tiles * outer)))
    step = -(-m // chunks)
    chunks = -(-m // step)
    return (tiles, chunks, min(outer, MOST_OUTER)), step, (chunks, outer, width)


def _accumulator(x: Any) -> np.dtype:
    """Return the dtype that sums of x are kept in."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
