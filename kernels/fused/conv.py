"""Convolution of padded NHWC images with k tangents, bias, ReLU and 2x2 max pooling in one stage.

With a rank-1 direction left right^T of the filters, the convolution of x is s right^T, where s is
that of x with the one filter `left`: a number a pixel, and not a product for each output channel.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..jit import jit
from .draws import DENSE, FIELDS, NONE, RANK1
from .tile import PANEL, _load, _splat, dots, fill, interleave, itemsize, rows, view

# The fields of a row of `conv_stage`, which winograd.py shares and continues at LAST.
(X, X_IMAGE, X_ROW, X_BLOCK, CHANNELS, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W) = range(2, 11)
(IMAGES, HEIGHT, WIDTH, PANELS, K, INPUT_TANGENTS, DIRECTIONS) = range(11, 18)
(W, V, LEFT, RIGHT, BIAS, VECTOR, RELU, POOL) = range(18, 26)
(Y, Y_IMAGE, Y_ROW, Y_PIXEL, Y_BLOCK, BANDS, BAND, LAST) = range(26, 34)

# The fields of a row of `pad_stage`.
(SOURCE, LINES, LINE, PIXEL, TARGET, TARGET_IMAGE, TARGET_ROW, TARGET_PIXEL) = range(2, 10)


def pad_stage(
    kind: int, *,
    images: int, height: int, width: int, channels: int,
    source: int, target: int, target_image: int, target_row: int, target_pixel: int,
) -> np.ndarray:  # fmt: skip
    """Return the row that copies contiguous images (images, height, width, channels), one a chunk.

    Args:
        kind: what the driver calls this stage.
        source, target: addresses; target is that of pixel (0, 0) of the first image, inside its
            border.
        target_image, target_row, target_pixel: strides there, in elements.
    """
    row = np.zeros(FIELDS, np.int64)
    row[:SOURCE] = kind, images
    row[SOURCE:TARGET] = [source, height, width, channels]
    row[TARGET : TARGET_PIXEL + 1] = [target, target_image, target_row, target_pixel]
    return row


@jit
def pad_chunk(like, row, chunk, scratch):
    """Copy image number `chunk` of a row of `pad_stage`."""
    size = itemsize(like)
    lines, pixels, channels = row[LINES], row[LINE], row[PIXEL]
    run = channels
    if row[TARGET_PIXEL] == channels:  # whole lines are contiguous in both
        run, pixels = channels * pixels, 1
    source = row[SOURCE] + size * chunk * row[LINES] * row[LINE] * channels
    target = row[TARGET] + size * chunk * row[TARGET_IMAGE]
    for i in range(lines):
        for j in range(pixels):
            entries = view(like, source + size * (i * pixels + j) * run, run)
            places = view(like, target + size * (i * row[TARGET_ROW] + j * row[TARGET_PIXEL]), run)
            for c in range(run):
                places[c] = entries[c]


def conv_stage(
    kind: int, *,
    x: int, x_image: int, x_row: int, x_block: int = 0,
    channels: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1),
    images: int, height: int, width: int, panels: int,
    k: int = 0, input_tangents: bool = False, directions: int = NONE,
    w: int, v: int = 0, left: int = 0, right: int = 0, bias: int = 0, vector: int = 0,
    relu: bool = False, pool: bool = False,
    y: int, y_image: int, y_row: int, y_pixel: int, y_block: int = 0, chunks: int = 16,
) -> np.ndarray:  # fmt: skip
    """Return the row of a convolution, its epilogue and its k tangents, a band of an image a chunk.

    The filters are matrices of kernel height * width * channels rows. x, y, and w to vector are
    addresses; strides count elements.

    Args:
        kind: what the driver calls this stage.
        x: of the padded pixel where the first window of the first image begins; a pixel's channels
            and a row's pixels are contiguous.
        x_image, x_row, x_block: strides of x from image to image, row to row, and from the primal
            to the first tangent, from there to the second, and so on.
        kernel, stride: (height, width) of a filter, and of its steps.
        images, height, width: number of images, and the convolution's height and width, before
            pooling.
        panels: a sixteenth of the output channels, rounded up.
        k, input_tangents: number of tangents, and whether x has them too.
        directions: NONE (k may still be positive: x alone has tangents), RANK1 or DENSE.
        w, v: filters (panels, rows, 16) and, if DENSE, their k directions (k, panels, rows, 16).
        left, right: if RANK1, (k, rows) and (k, panels * 16).
        bias, vector: (panels * 16,) and its directions (k, panels * 16), or 0 for none.
        relu, pool: what follows: ReLU, 2x2 max pooling (odd rows and columns are cropped).
        y: of the first output; its axes (tangent, image, row, pixel, channel) have the strides
            y_block, y_image, y_row, y_pixel and 1. All panels * 16 channels are written.
        chunks: how many chunks to make at least, where there are so many rows.

    Raises:
        ValueError: a size is not positive.
    """
    if min(channels, *kernel, *stride, images, height, width, panels) < 1 or k < 0:
        raise ValueError(
            f"conv_stage: channels {channels}, kernel {kernel}, stride {stride}, images {images}, "
            f"height {height}, width {width}, panels {panels}, k {k}: a size is too small. All but "
            f"k must be positive."
        )
    lines = height // 2 if pool else height
    bands = max(1, min(lines, -(-chunks // images)))
    band = max(1, -(-lines // bands))
    bands = max(1, -(-lines // band))
    row = np.zeros(FIELDS, np.int64)
    row[0], row[1] = kind, images * bands
    row[X:IMAGES] = [x, x_image, x_row, x_block, channels, *kernel, *stride]
    row[IMAGES:W] = [images, height, width, panels, k, input_tangents, directions]
    row[W:Y] = [w, v, left, right, bias, vector, relu, pool]
    row[Y:LAST] = [y, y_image, y_row, y_pixel, y_block, bands, band]
    return row


def conv_scratch(row: np.ndarray, itemsize: int) -> int:
    """Return the bytes of scratch that a chunk of a row of `conv_stage` needs."""
    lines, k = 1 + int(row[POOL]), int(row[K])
    taps = int(row[KERNEL_H] * row[KERNEL_W] * row[CHANNELS])
    groups = -(-k // PANEL)
    tiles = (1 + k) * lines * int(row[WIDTH])
    return itemsize * PANEL * (1 + groups * taps + lines * groups * int(row[WIDTH]) + tiles)


@jit
def conv_chunk(like, row, chunk, scratch):
    """Do one band of one image: chunk = image * bands + band, a row of `conv_stage`."""
    size = itemsize(like)
    image = chunk // row[BANDS]
    first = (chunk - image * row[BANDS]) * row[BAND]
    lines = 1 + row[POOL]
    pitch = row[WIDTH] * PANEL  # from one line of the scratch to the next
    zeros = scratch
    lefts = zeros + size * PANEL
    groups = (row[K] + PANEL - 1) // PANEL
    sums = lefts + size * groups * PANEL * _taps(row)
    z = sums + size * lines * groups * pitch
    fill(like, zeros, PANEL)
    short = row[KERNEL_W] * row[CHANNELS] < PANEL
    if row[DIRECTIONS] == RANK1 and short:
        taps = _taps(row)
        for j in range(0, row[K], PANEL):
            vectors, panel = row[LEFT] + size * j * taps, lefts + size * j * taps
            interleave(like, min(row[K] - j, PANEL), taps, vectors, panel)
    down = row[STRIDE_H] * row[X_ROW]
    for r in range(first, min(first + row[BAND], row[HEIGHT] // lines)):
        x = row[X] + size * (image * row[X_IMAGE] + r * lines * down)
        if row[DIRECTIONS] == RANK1:
            for i in range(lines):
                _left_products(like, row, short, x + size * i * down, lefts, zeros, sums, i)
        for p in range(row[PANELS]):
            for i in range(lines):
                _line(like, row, p, x + size * i * down, short, sums, zeros, z, i)
            y = row[Y] + size * (image * row[Y_IMAGE] + r * row[Y_ROW] + p * PANEL)
            finish(like, row, z, lines * pitch, pitch, 1, row[WIDTH] // lines, y)


@jit
def _taps(row):
    return row[KERNEL_H] * row[KERNEL_W] * row[CHANNELS]


@jit
def _left_products(like, row, short, x, lefts, zeros, sums, i):
    """Write line i of s: each window times each left vector, at `_place`."""
    size = itemsize(like)
    taps, width = _taps(row), row[WIDTH]
    lda = row[STRIDE_W] * row[CHANNELS]
    run = row[KERNEL_W] * row[CHANNELS]
    if short:  # too few entries in a run for a vector: 16 directions fill one instead
        for j in range(0, row[K], PANEL):
            b, s = lefts + size * j * taps, _place(like, row, short, sums, i, j)
            rows(like, width, x, lda, row[X_ROW], row[KERNEL_H], run, b, zeros, 0, s, PANEL)
    else:
        for j in range(row[K]):
            b, s = row[LEFT] + size * j * taps, _place(like, row, short, sums, i, j)
            dots(like, width, x, lda, row[X_ROW], row[KERNEL_H], run, b, s)


@jit
def _place(like, row, short, sums, i, j):
    """Return where s of line i and direction j begins; a pixel takes 16 places if short, else 1."""
    groups = (row[K] + PANEL - 1) // PANEL
    line = sums + itemsize(like) * i * groups * row[WIDTH] * PANEL
    if short:
        return line + itemsize(like) * (j // PANEL * row[WIDTH] * PANEL + j % PANEL)
    return line + itemsize(like) * j * row[WIDTH]


@jit
def _line(like, row, p, x, short, sums, zeros, z, i):
    """Write panel p of line i of the convolution and of its tangents, before the epilogue."""
    size = itemsize(like)
    taps, width, segments, down = _taps(row), row[WIDTH], row[KERNEL_H], row[X_ROW]
    lda = row[STRIDE_W] * row[CHANNELS]
    run = row[KERNEL_W] * row[CHANNELS]
    block = (1 + row[POOL]) * width * PANEL
    w = row[W] + size * p * taps * PANEL
    start = zeros if row[BIAS] == 0 else row[BIAS] + size * p * PANEL
    z += size * i * width * PANEL
    rows(like, width, x, lda, down, segments, run, w, start, 0, z, PANEL)
    for j in range(row[K]):
        t = z + size * (j + 1) * block
        column = (j * row[PANELS] + p) * PANEL
        start = zeros if row[VECTOR] == 0 else row[VECTOR] + size * column
        step = 0
        if row[DIRECTIONS] == RANK1:
            s = _place(like, row, short, sums, i, j)
            right = row[RIGHT] + size * column
            lds = PANEL if short else 1
            rows(like, width, s, lds, 0, 1, 1, right, start, step, t, PANEL)
            start, step = t, PANEL
        elif row[DIRECTIONS] == DENSE:
            v = row[V] + size * column * taps
            rows(like, width, x, lda, down, segments, run, v, start, step, t, PANEL)
            start, step = t, PANEL
        if row[INPUT_TANGENTS]:
            tx = x + size * (j + 1) * row[X_BLOCK]
            rows(like, width, tx, lda, down, segments, run, w, start, step, t, PANEL)
        elif step == 0:  # an empty sum
            rows(like, width, x, lda, down, 0, run, w, start, step, t, PANEL)


def _store(builder: ir.IRBuilder, value: Any, address: Any, align: int) -> None:
    """Write a vector to an address."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = align


@jit
def finish(like, row, z, block, pitch, height, width, y):
    """Apply ReLU and pooling to tiles of the primal and its tangents, and write them to y.

    Tile j begins at z + j * block, and pixel (line, column) of it at line * pitch + column * 16.
    height, width: of what is written.
    """
    size = itemsize(like)
    for j in range(1 + row[K]):
        for line in range(height):
            for column in range(width):
                c = y + size * (j * row[Y_BLOCK] + line * row[Y_ROW] + column * row[Y_PIXEL])
                if row[POOL]:
                    a = z + size * 2 * (line * pitch + column * PANEL)
                    _choose_of_four(like, a, a + size * j * block, pitch, c, row[RELU])
                else:
                    a = z + size * (line * pitch + column * PANEL)
                    _choose(like, a, a + size * j * block, c, row[RELU])


@intrinsic
def _choose(typing, like, z, t, c, relu):
    """Write 16 entries of t into c, or 0 if relu and z <= 0, so that NaN passes; addresses."""

    def emit(context, builder, signature, arguments):
        vector, size = _sixteen(context, like)
        _, z, t, c, relu = arguments
        z, t = _load(builder, z, vector, size), _load(builder, t, vector, size)
        _store(builder, _relu(builder, z, t, relu), c, size)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 4), emit


@intrinsic
def _choose_of_four(typing, like, z, t, pitch, c, relu):
    """`_choose` at the first maximum, or first NaN, of z in a 2x2 window of lines `pitch` apart."""

    def emit(context, builder, signature, arguments):
        vector, size = _sixteen(context, like)
        _, z, t, pitch, c, relu = arguments
        line = builder.mul(pitch, ir.Constant(ir.IntType(64), size))
        pixel = ir.Constant(ir.IntType(64), PANEL * size)

        def corners(address):
            below = builder.add(address, line)
            for place in (address, builder.add(address, pixel), below, builder.add(below, pixel)):
                yield _load(builder, place, vector, size)

        (best, *others), (value, *values) = corners(z), corners(t)
        for other, tangent in zip(others, values, strict=True):
            greater = builder.fcmp_unordered(">", other, best)  # or one of them is NaN
            wins = builder.and_(greater, builder.fcmp_ordered("ord", best, best))
            best = builder.select(wins, other, best)
            value = builder.select(wins, tangent, value)
        _store(builder, _relu(builder, best, value, relu), c, size)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 5), emit


def _sixteen(context: Any, like: Any) -> tuple[ir.VectorType, int]:
    """Return the type of 16 elements of like's type, and the bytes of one."""
    return ir.VectorType(context.get_value_type(like), PANEL), like.bitwidth // 8


def _relu(builder: ir.IRBuilder, z: Any, t: Any, relu: Any) -> Any:
    """Return t, or 0 where the number relu is not 0 and z <= 0."""
    zero = ir.Constant(z.type, [0.0] * PANEL)
    on = builder.icmp_signed("!=", relu, ir.Constant(relu.type, 0))
    cut = builder.and_(
        builder.fcmp_ordered("<=", z, zero),
        _splat(builder, on, ir.VectorType(ir.IntType(1), PANEL)),
    )
    return builder.select(cut, zero, t)
