"""Convolution of NHWC images and its two transposes, by blocks of the patch matrix.

The three functions share one set of arguments: x (N, H, W, C), filters w (kh, kw, C / groups, O),
stride (sh, sw), padding ((top, bottom), (left, right)), dilation (dh, dw), groups. Arrays may have
any strides. As everywhere in machine learning the filter is not flipped:

    y[n, p, q, o] = sum_ijc x[n, p sh + i dh - top, q sw + j dw - left, c] w[i, j, c, o]

Conjugation is left to the caller: the transposes are those of real linear maps. They raise
ValueError where ct has not the shape of the convolution's result.
"""

import math
from collections.abc import Iterator

import numpy as np

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

# One block of the patch matrix. From 1 to 8 MB times were nearly level, on one BLAS thread and on
# two; 256 kB and 16 MB were slower.
PATCH_BYTES = 1 << 21


def conv2d(
    x: np.ndarray, w: np.ndarray, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> np.ndarray:
    """Return the convolution of x (N, H, W, C) with w (kh, kw, C / groups, O), (N, Ho, Wo, O)."""
    dtype = np.result_type(x, w)
    out = _output_size(_padded(x.shape, padding), w.shape[:2], stride, dilation)
    filters = _by_group(w.astype(dtype, copy=False).reshape(-1, w.shape[-1]), groups)
    y = np.empty((len(x), *out, w.shape[-1]), dtype)
    for images, rows, patches in _patch_blocks(
        x, w.shape[:2], out, stride, padding, dilation, groups, dtype
    ):
        np.matmul(patches, filters, out=_by_group(y[images, rows], groups))
    return y


def conv2d_filter(
    x: np.ndarray,
    ct: np.ndarray,
    w_shape: tuple[int, ...],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    """Return the transpose of w -> conv2d(x, w) at ct (N, Ho, Wo, O), of shape w_shape."""
    dtype = np.result_type(x, ct)
    out = _output_size(_padded(x.shape, padding), w_shape[:2], stride, dilation)
    _check_cotangent("conv2d_filter", ct, (len(x), *out, w_shape[-1]))
    ct = np.ascontiguousarray(ct, dtype)
    w = np.zeros(w_shape, dtype)
    total = _by_group(w, groups)
    term = np.empty(total.shape, dtype)
    for images, rows, patches in _patch_blocks(
        x, w_shape[:2], out, stride, padding, dilation, groups, dtype
    ):
        np.matmul(patches.swapaxes(1, 2), _by_group(ct[images, rows], groups), out=term)
        total += term
    return w


def conv2d_input(
    ct: np.ndarray,
    w: np.ndarray,
    x_shape: tuple[int, ...],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    """Return the transpose of x -> conv2d(x, w) at ct (N, Ho, Wo, O), of shape x_shape."""
    kh, kw, c, o = w.shape
    out = _output_size(_padded(x_shape, padding), (kh, kw), stride, dilation)
    _check_cotangent("conv2d_input", ct, (x_shape[0], *out, o))
    reach = (dilation[0] * (kh - 1), dilation[1] * (kw - 1))  # from a window's first to last tap
    margins = [[r - p for p in side] for r, side in zip(reach, padding, strict=True)]
    copying_pays = o // groups <= 2 * c  # patches of outputs are copied, those of inputs added
    if copying_pays and tuple(stride) == (1, 1) and min(map(min, margins)) >= 0:
        # a convolution with the filters turned round, inputs and outputs exchanged
        turned = w[::-1, ::-1].reshape(kh, kw, c, groups, o // groups).transpose(0, 1, 4, 3, 2)
        turned = turned.reshape(kh, kw, o // groups, groups * c)
        return conv2d(ct, turned, (1, 1), (tuple(margins[0]), tuple(margins[1])), dilation, groups)
    return _scatter_patches(ct, w, x_shape, stride, padding, dilation, groups)


def _scatter_patches(ct, w, x_shape, stride, padding, dilation, groups):
    """Return conv2d_input for any stride: patches of cotangents, added where they were read."""
    dtype = np.result_type(ct, w)
    kh, kw, c, o = w.shape
    (top, _), (left, _) = padding
    _, height, width, _ = x_shape
    x = np.zeros(_padded(x_shape, padding), dtype)
    ct = np.ascontiguousarray(ct, dtype)
    filters = _by_group(w.astype(dtype, copy=False).reshape(-1, o), groups).swapaxes(1, 2)
    # These windows are written, and they overlap, so one tap at a time.
    taps = _window_view(x, (kh, kw), ct.shape[1:3], stride, dilation, groups, writeable=True)
    for images, rows in _blocks(ct.shape, groups * filters.shape[-1] * dtype.itemsize):
        block = _by_group(ct[images, rows], groups) @ filters  # (groups, M, kh*kw*c)
        target = taps[:, images, rows]
        block = block.reshape(target.shape)
        for i in range(kh):
            for j in range(kw):
                target[..., i, j, :] += block[..., i, j, :]
    return np.ascontiguousarray(x[:, top : top + height, left : left + width])


def _check_cotangent(name, ct, shape):
    """Refuse a cotangent whose windows would lie outside the images: views do not check."""
    if ct.shape != shape:
        raise ValueError(
            f"{name}: ct has shape {ct.shape}, but the convolution's result has {shape}. "
            f"Give a cotangent of the result's shape."
        )


def _padded(shape, padding):
    """Return the shape of images (N, H, W, C) with their padding."""
    n, height, width, c = shape
    return n, height + sum(padding[0]), width + sum(padding[1]), c


def _output_size(shape, kernel, stride, dilation):
    """Return (Ho, Wo) for images of a padded shape (N, H, W, C)."""
    return tuple(
        max(0, (shape[axis + 1] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1)
        for axis in range(2)
    )


def _window_view(x, kernel, out, stride, dilation, groups, writeable):
    """Return the view (groups, N, *out, *kernel, C / groups) of x, already padded."""
    n, _, _, c = x.shape
    sn, sy, sx, sc = x.strides
    steps = (sn, sy * stride[0], sx * stride[1], sy * dilation[0], sx * dilation[1], sc)
    shape = (groups, n, *out, *kernel, c // groups)
    strides = (sc * (c // groups), *steps)
    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=writeable)


def _by_group(matrix, groups):
    """Return (..., columns) as the view (groups, rows, columns / groups)."""
    columns = matrix.shape[-1]
    rows = math.prod(matrix.shape[:-1])
    return matrix.reshape(rows, groups, columns // groups).swapaxes(0, 1)


def _blocks(shape, row_bytes) -> Iterator[tuple[slice, slice]]:
    """Yield (images, rows) slices of outputs (N, Ho, Wo, ..) whose patches fill PATCH_BYTES.

    A block is several whole images, or some rows of one image, so that outputs stay contiguous.
    """
    n, height, width = shape[:3]
    rows = max(1, PATCH_BYTES // max(1, width * row_bytes))
    images = max(1, rows // max(1, height))
    for image in range(0, n, images):
        for row in range(0, height, rows):
            yield slice(image, image + images), slice(row, row + rows)


def _patch_blocks(
    x, kernel, out, stride, padding, dilation, groups, dtype
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield (images, rows, patches) with patches (groups, M, kh*kw*C/groups), one buffer reused.

    The images of a block alone are padded at a time: whole, they would take as much as x again.
    """
    (top, _), (left, _) = padding
    n, height, width, channels = x.shape
    taps = math.prod(kernel) * (channels // groups)
    pads = padding != ((0, 0), (0, 0))
    if math.prod(kernel) == 1 and not pads:  # the images are their own patches, mostly a view
        windows = _window_view(x, kernel, out, stride, dilation, groups, writeable=False)
        yield slice(None), slice(None), windows.reshape(groups, n * math.prod(out), taps)
        return
    padded, buffer, before = x[:0], None, None
    for images, rows in _blocks((n, *out), groups * taps * dtype.itemsize):
        if images != before:
            some, before = x[images], images
            if pads:
                if not len(padded):
                    padded = np.zeros(_padded(some.shape, padding), x.dtype)
                padded[: len(some), top : top + height, left : left + width] = some
                some = padded[: len(some)]
            windows = _window_view(some, kernel, out, stride, dilation, groups, writeable=False)
        block = windows[:, :, rows]
        if buffer is None or buffer.shape != block.shape:
            # Short runs copy slowly: with few channels the pixels of a row come last in memory.
            buffer = np.empty(block.shape, dtype)
            if kernel[1] * (channels // groups) < out[1]:
                order = (0, 4, 5, 6, 1, 2, 3)
                memory = np.empty([block.shape[axis] for axis in order], dtype)
                buffer = memory.transpose(np.argsort(order))
        np.copyto(buffer, block)
        yield images, rows, _as_matrix(buffer, taps)


def _as_matrix(buffer, taps):
    """Return a patch buffer, in either memory order, as the view (groups, M, taps)."""
    groups, n, height, width = buffer.shape[:4]
    if buffer.flags.c_contiguous:
        return buffer.reshape(groups, n * height * width, taps)
    memory = buffer.transpose(0, 4, 5, 6, 1, 2, 3)
    return memory.reshape(groups, taps, n * height * width).swapaxes(1, 2)
