"""Convolution on the device as launches: what a kernel knows of one, and one into a given array."""

import math
from typing import Any

from .. import cuda
from ..product.gemm import MOST, PARTS, THREADS, tile_for
from .cpu import Padding, Pair, _output_size, _padded

source = cuda.Source("conv", parts=PARTS, tensor=True)


def window_of(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: Pair, padding: Padding,
    dilation: Pair, groups: int,
) -> tuple[tuple[int, ...], tuple[int, int]]:  # fmt: skip
    """Return what kernels know of a convolution, as in conv.cu, and (Ho, Wo)."""
    out = _output_size(_padded(x_shape, padding), w_shape[:2], stride, dilation)
    before = padding[0][0], padding[1][0]
    pixels = x_shape[0] * max(math.prod(x_shape[1:3]), math.prod(out))
    if max(pixels, math.prod(x_shape[1:]), math.prod(w_shape)) > MOST:
        raise ValueError(
            f"convolution of {x_shape} with {w_shape}: kernels count pixels and the entries of an "
            f"image in 32 bits. Give fewer images at a time."
        )
    sizes = (*x_shape, *w_shape[:2], w_shape[-1], *stride, *before, *dilation, groups, *out)
    return sizes, out


def write(x: Any, w: Any, y: Any, window: tuple[int, ...], groups: int, direct: bool) -> None:
    """Write a convolution into y: by tiles, or `direct` with a thread for each of its entries."""
    if direct:
        source.launch("conv_direct", x.dtype, cuda.blocks(y.size, THREADS), THREADS, x, w, y,
                       *window)  # fmt: skip
        return
    pixels, outputs = y.size // y.shape[-1], y.shape[-1] // groups
    tile = tile_for(pixels, outputs, groups, x.dtype)
    source.launch(f"conv_{tile.name}", x.dtype, (tile.count(pixels, outputs), groups), THREADS,
                   x, w, y, *window)  # fmt: skip
