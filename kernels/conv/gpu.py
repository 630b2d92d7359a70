"""The twins of cpu.py for CuPy arrays: implicit products by tiles, or patch matrices and cuBLAS.

Tangents of x go with x as further images: the filters are then read once for all of them.
"""

import math
from typing import Any

import numpy as np

from .. import cuda
from ..product.gemm import SMALL, STRIP, THREADS, matmul
from .cpu import Padding, Pair, _check_cotangent
from .device import source, window_of, write

# "implicit": own kernels that read patches where they lie. "im2col": the patch matrix in memory,
# for some images at a time, and `@`: the plain form that the first is tested against.
method = "implicit"

PATCH_BYTES = 1 << 28  # of one block of the patch matrix in memory
FEW_OUTPUTS = 16  # outputs of a group below which they would leave most of a tile empty
BLOCKS = 512  # that the filters' transpose is cut into, if there are pixels enough,
SLICE = 512  # so many for each


def conv2d(x: Any, w: Any, stride: Pair, padding: Padding, dilation: Pair, groups: int) -> Any:
    """Return the convolution of x (N, H, W, C) with w (kh, kw, C / groups, O), (N, Ho, Wo, O)."""
    x, w = _prepared(x, w)
    window, out = window_of(x.shape, w.shape, stride, padding, dilation, groups)
    shape = (len(x), *out, w.shape[-1])
    plain = w.shape[:2] == (1, 1) and tuple(stride) == (1, 1) and out == x.shape[1:3]
    if plain and groups == 1:
        return matmul(x.reshape(-1, x.shape[-1]), w.reshape(w.shape[2:])).reshape(shape)
    y = cuda.empty(shape, x.dtype)
    if method == "im2col":
        for images, patches in _patch_blocks(x, w.shape, window, out, groups):
            _by_group(y[images], groups)[...] = patches @ _by_group(w, groups)
        return y
    if y.size:
        write(x, w, y, window, groups, groups > 1 and w.shape[-1] // groups < FEW_OUTPUTS)
    return y


def conv2d_filter(
    x: Any,
    ct: Any,
    w_shape: tuple[int, ...],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Any:
    """Return the transpose of w -> conv2d(x, w) at ct (N, Ho, Wo, O), of shape w_shape."""
    x, ct = _prepared(x, ct)
    window, out = window_of(x.shape, w_shape, stride, padding, dilation, groups)
    _check_cotangent("conv2d_filter", ct, (len(x), *out, w_shape[-1]))
    taps, outputs, pixels = math.prod(w_shape[:-1]), w_shape[-1] // groups, math.prod(ct.shape[:3])
    if method == "im2col" or not pixels:
        w = cuda.zeros(w_shape, x.dtype)
        for images, patches in _patch_blocks(x, w_shape, window, out, groups):
            _by_group(w, groups)[...] += patches.swapaxes(1, 2) @ _by_group(ct[images], groups)
        return w
    w = cuda.empty(w_shape, x.dtype)
    tiles = SMALL.count(taps, outputs)
    slices = max(1, min(BLOCKS // max(1, tiles * groups), pixels // SLICE))
    slice_ = -(-pixels // slices // STRIP) * STRIP
    slices = -(-pixels // slice_)
    sums = cuda.empty((slices, *w_shape), np.result_type(x.dtype, np.float32))
    source.launch("conv_filter", x.dtype, (tiles, groups, slices), THREADS, x, ct, sums, slice_,
                   *window)  # fmt: skip
    source.launch("add_slices", x.dtype, cuda.blocks(w.size, THREADS), THREADS, sums, w, slices,
                   w.size)  # fmt: skip
    return w


def conv2d_input(
    ct: Any,
    w: Any,
    x_shape: tuple[int, ...],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Any:
    """Return the transpose of x -> conv2d(x, w) at ct (N, Ho, Wo, O), of shape x_shape."""
    ct, w = _prepared(ct, w)
    window, out = window_of(x_shape, w.shape, stride, padding, dilation, groups)
    _check_cotangent("conv2d_input", ct, (x_shape[0], *out, w.shape[-1]))
    x = cuda.empty(x_shape, ct.dtype)
    if method == "im2col":
        filters = _by_group(w, groups).swapaxes(1, 2)
        for images in _image_blocks(x_shape, w.shape, out, groups, x.itemsize):
            patches = cuda.contiguous(_by_group(ct[images], groups) @ filters)
            part = x[images]
            source.launch("col2im", x.dtype, cuda.blocks(part.size, THREADS), THREADS, patches,
                           part, len(part), *window[1:])  # fmt: skip
        return x
    inputs = x_shape[-1] // groups
    tiles = SMALL.count(math.prod(x_shape[:3]), inputs)
    source.launch("conv_input", x.dtype, (tiles, groups), THREADS, ct, w, x, *window)
    return x


def _prepared(a: Any, b: Any) -> tuple[Any, Any]:
    """Return both contiguous and in the dtype of their product."""
    dtype = np.result_type(a.dtype, b.dtype)
    return tuple(cuda.contiguous(x.astype(dtype, copy=False)) for x in (a, b))  # type: ignore[return-value]


def _image_blocks(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], out: Pair, groups: int, itemsize: int
) -> list[slice]:
    """Return slices of images whose patches fill PATCH_BYTES."""
    each = math.prod(out) * math.prod(w_shape[:-1]) * groups * itemsize
    images = max(1, PATCH_BYTES // max(1, each))
    return [slice(first, first + images) for first in range(0, x_shape[0], images)]


def _patch_blocks(
    x: Any, w_shape: tuple[int, ...], window: tuple[int, ...], out: Pair, groups: int
) -> Any:
    """Yield (images, patches) with patches (groups, pixels, taps)."""
    taps = math.prod(w_shape[:-1])
    for images in _image_blocks(x.shape, w_shape, out, groups, x.itemsize):
        part = x[images]
        patches = cuda.empty((groups, len(part) * math.prod(out), taps), x.dtype)
        source.launch("im2col", x.dtype, cuda.blocks(patches.size, THREADS), THREADS, part,
                       patches, len(part), *window[1:])  # fmt: skip
        yield images, patches


def _by_group(x: Any, groups: int) -> Any:
    """Return (.., columns) as the view (groups, rows, columns / groups)."""
    rows, columns = math.prod(x.shape[:-1]), x.shape[-1]
    return x.reshape(rows, groups, columns // groups).swapaxes(0, 1)
