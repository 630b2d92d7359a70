"""The twins of cpu.py for CuPy arrays: one launch each, for any number of leading axes."""

import math
from typing import Any

from .. import cuda
from .cpu import _check_cotangent, _check_index, _index_dtype

THREADS = 128

_source = cuda.Source("pool")


def max_pool2d(x: Any, size: tuple[int, int]) -> tuple[Any, Any]:
    """Return the maxima of windows (h, w) of x and where in its window each was found.

    Arguments and results as on the CPU.
    """
    n, height, width, c = x.shape
    shape = (n, height // size[0], width // size[1], c)
    y, index = cuda.empty(shape, x.dtype), cuda.empty(shape, _index_dtype(size))
    _source.launch("max_pool", x.dtype, _grid(shape), THREADS, cuda.contiguous(x), y, index,
                  index.itemsize, *x.shape, *size)  # fmt: skip
    return y, index


def max_pool2d_gather(t: Any, index: Any, size: tuple[int, int]) -> Any:
    """Return the entries of t at the positions that max_pool2d found: its derivative along t.

    Arguments, result and errors as on the CPU; the index is read once for all leading axes.
    """
    _check_index("max_pool2d_gather", t.shape[-4:], index, size)
    lead = t.shape[:-4]
    y = cuda.empty(lead + index.shape, t.dtype)
    _source.launch("max_pool_gather", t.dtype, _grid(y.shape), THREADS, cuda.contiguous(t),
                  cuda.contiguous(index), y, math.prod(lead), index.itemsize, *t.shape[-4:],
                  *size)  # fmt: skip
    return y


def max_pool2d_scatter(ct: Any, index: Any, size: tuple[int, int], x_shape: tuple[int, ...]) -> Any:
    """Return ct at the positions of the maxima, else 0: the transpose of max_pool2d_gather.

    Arguments, result and errors as on the CPU.
    """
    lead, x_shape = ct.shape[:-4], tuple(x_shape)
    _check_index("max_pool2d_scatter", x_shape, index, size)
    _check_cotangent(ct, index)
    t = cuda.empty(lead + x_shape, ct.dtype)
    _source.launch("max_pool_scatter", ct.dtype, _grid(t.shape), THREADS, cuda.contiguous(ct),
                  cuda.contiguous(index), t, math.prod(lead), index.itemsize, *x_shape,
                  *size)  # fmt: skip
    return t


def _grid(shape: tuple[int, ...]) -> int:
    """Return how many blocks go over the rows of images (.., N, H, W, C), one at a time."""
    return cuda.blocks(shape[-4] * shape[-3], 1) if math.prod(shape) else 0
