"""Convolution with 3x3 filters by Winograd's F(4x4, 3x3), for the same rows as conv.py.

Each output tile of 4x4 pixels comes from an input tile of 6x6: both and the filter are transformed,
to 36 numbers a channel, and multiplied there, 2.25 products an output instead of 9. In float32, on
normal data, the largest error was below 1e-5 of the largest output with 64 channels and 2e-5 with
256 (the direct form's 2e-6 and 3e-6; root mean squares 5e-7 and 9e-7). NaN and infinity in a pixel
make NaN of every tile that reads it, also where the filter would not.

Source: A. Lavin and S. Gray, Fast algorithms for convolutional neural networks, CVPR 2016.
"""

from typing import Any

import numpy as np

from ..jit import jit
from .conv import (
    BIAS,
    CHANNELS,
    DENSE,
    DIRECTIONS,
    HEIGHT,
    IMAGES,
    INPUT_TANGENTS,
    LAST,
    LEFT,
    PANELS,
    POOL,
    RANK1,
    RIGHT,
    VECTOR,
    WIDTH,
    X_BLOCK,
    X_IMAGE,
    X_ROW,
    Y_IMAGE,
    Y_PIXEL,
    Y_ROW,
    K,
    V,
    W,
    X,
    Y,
    conv_stage,
    finish,
)
from .tile import PANEL, dots, fill, itemsize, rows
from .transforms import (
    POINTS,
    SIDE,
    TILE,
    transform_input,
    transform_output,
    width_of,
)

TILES = LAST  # tiles a chunk

# Rows of a product, primal and tangents together: enough to use a transformed filter often while it
# is in the L1 cache, and few enough for all that a chunk needs to stay in an L2 cache of 1 MB.
ROWS = 24


def padded_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width of the zero-bordered input for outputs (height, width)."""
    return -(-height // TILE) * TILE + 2, -(-width // TILE) * TILE + 2


def winograd_stage(kind: int, **layer: Any) -> np.ndarray:
    """Return the row of a convolution with 3x3 filters, some of its tiles a chunk.

    Args:
        kind: what the driver calls this stage.
        layer: the arguments of `conv_stage`, of which kernel is (3, 3), stride (1, 1), channels a
            multiple of 16 and chunks unused. x has the height and width of `padded_size`, zero
            beyond the images. w, v and left are the transforms that `filters_stage` makes.

    Raises:
        ValueError: another kernel, stride or number of channels.
    """
    row = conv_stage(kind, **layer)
    channels, kernel, stride = layer["channels"], layer["kernel"], layer.get("stride", (1, 1))
    if tuple(kernel) != (3, 3) or tuple(stride) != (1, 1) or channels % PANEL:
        raise ValueError(
            f"winograd_stage: kernel {kernel}, stride {stride} and {channels} channels. The tiles "
            f"are made for 3x3 filters, stride 1 and whole panels of 16 channels. Use conv_stage."
        )
    tiles = int(row[IMAGES]) * _tiles(row)
    row[TILES] = max(1, min(tiles, ROWS // (1 + int(row[K]))))
    row[1] = -(-tiles // row[TILES])
    return row


def _tiles(row: np.ndarray) -> int:
    """Return the tiles of an image."""
    return -(-int(row[HEIGHT]) // TILE) * -(-int(row[WIDTH]) // TILE)


def winograd_scratch(row: np.ndarray, itemsize: int) -> int:
    """Return the bytes of scratch that a chunk of a row of `winograd_stage` needs."""
    tiles, k = int(row[TILES]), int(row[K])
    lanes = -(-tiles // PANEL) * PANEL
    inputs = POINTS * ((1 + k) * tiles * int(row[CHANNELS]) + PANEL)
    products = POINTS * ((1 + k) * tiles + 1) * PANEL
    sums = (POINTS + k * TILE * TILE) * lanes
    return itemsize * (PANEL + inputs + products + sums + (1 + k) * TILE * TILE * PANEL)


@jit
def winograd_chunk(like, row, chunk, scratch):
    """Do the tiles of one chunk of a row of `winograd_stage`, with all panels and tangents."""
    size = itemsize(like)
    wide, tall = (row[WIDTH] + TILE - 1) // TILE, (row[HEIGHT] + TILE - 1) // TILE
    first = chunk * row[TILES]
    count = min(row[TILES], row[IMAGES] * tall * wide - first)
    lanes = (row[TILES] + PANEL - 1) // PANEL * PANEL
    zeros = scratch
    inputs = zeros + size * PANEL
    products = inputs + size * POINTS * _pitch(row)
    sums = products + size * POINTS * ((1 + row[K]) * row[TILES] + 1) * PANEL
    z = sums + size * (POINTS + row[K] * TILE * TILE) * lanes
    fill(like, zeros, PANEL)
    _transform_inputs(like, row, first, count, inputs)
    if row[DIRECTIONS] == RANK1:
        for i in range(row[K]):
            _left_products(like, row, i, count, lanes, inputs, zeros, sums)
    for p in range(row[PANELS]):
        _products(like, row, p, count, inputs, zeros, products)
        for t in range(count):
            s = sums + size * (POINTS * lanes + t)
            _tile(like, row, p, t, count, products, s, lanes, zeros, z)
            image, rest = (first + t) // (tall * wide), (first + t) % (tall * wide)
            _write(like, row, p, image, rest // wide * TILE, rest % wide * TILE, z)


@jit
def _pitch(row):
    """Return the entries from one point of the inputs to the next: no power of two for caches."""
    return (1 + row[K] * row[INPUT_TANGENTS]) * row[TILES] * row[CHANNELS] + PANEL


@jit
def _transform_inputs(like, row, first, count, inputs):
    """Write the transformed inputs: (36, 1 or 1 + k blocks, count, channels)."""
    size, channels = itemsize(like), row[CHANNELS]
    wide, tall = (row[WIDTH] + TILE - 1) // TILE, (row[HEIGHT] + TILE - 1) // TILE
    pitch = _pitch(row)
    for t in range(count):
        image, rest = (first + t) // (tall * wide), (first + t) % (tall * wide)
        corner = rest // wide * TILE * row[X_ROW] + rest % wide * TILE * channels
        for j in range(1 + row[K] * row[INPUT_TANGENTS]):
            x = row[X] + size * (image * row[X_IMAGE] + j * row[X_BLOCK] + corner)
            u = inputs + size * (j * count + t) * channels
            for c in range(0, channels, width_of(like)):
                place = u + size * c
                transform_input(
                    like, x + size * c, row[X_ROW], channels, place, SIDE * pitch, pitch
                )


@jit
def _left_products(like, row, i, count, lanes, inputs, zeros, sums):
    """Write s of direction i behind the 36 * lanes workspace: (16 pixels, lanes tiles)."""
    size, channels = itemsize(like), row[CHANNELS]
    s = sums + size * (POINTS + i * TILE * TILE) * lanes
    for point in range(POINTS):
        left = row[LEFT] + size * (i * POINTS + point) * channels
        u = inputs + size * point * _pitch(row)
        dots(like, count, u, channels, 0, 1, channels, left, sums + size * point * lanes)
    for t in range(0, count, width_of(like)):
        place = sums + size * t
        transform_output(like, place, SIDE * lanes, lanes, zeros, s + size * t, TILE * lanes, lanes)


@jit
def _products(like, row, p, count, inputs, zeros, products):
    """Write the products of panel p: (36, 1 + k blocks, count, 16), tangents without s right^T."""
    size, channels, k = itemsize(like), row[CHANNELS], row[K]
    panel = (channels + 1) * PANEL
    blocks = 1 + k * row[INPUT_TANGENTS]
    for point in range(POINTS):
        u = inputs + size * point * _pitch(row)
        w = row[W] + size * (p * POINTS + point) * panel
        m = products + size * point * ((1 + k) * row[TILES] + 1) * PANEL
        rows(like, blocks * count, u, channels, 0, 1, channels, w, zeros, 0, m, PANEL)
        if row[DIRECTIONS] == DENSE:
            for i in range(k):
                v = row[V] + size * ((i * row[PANELS] + p) * POINTS + point) * panel
                t = m + size * (1 + i) * count * PANEL
                start, step = (t, PANEL) if blocks > 1 else (zeros, 0)
                rows(like, count, u, channels, 0, 1, channels, v, start, step, t, PANEL)


@jit
def _tile(like, row, p, t, count, products, s, lanes, zeros, z):
    """Write tile t of panel p and its tangents, before ReLU: (1 + k, 16 pixels, 16)."""
    size = itemsize(like)
    pitch = ((1 + row[K]) * row[TILES] + 1) * PANEL
    whole = TILE * TILE * PANEL
    for j in range(1 + row[K]):
        place = z + size * j * whole
        vectors, column = (row[BIAS], p) if j == 0 else (row[VECTOR], (j - 1) * row[PANELS] + p)
        start = zeros if vectors == 0 else vectors + size * column * PANEL
        step = 0
        if j == 0 or row[INPUT_TANGENTS] or row[DIRECTIONS] == DENSE:
            m = products + size * (j * count + t) * PANEL
            for c in range(0, PANEL, width_of(like)):
                a, b, y = m + size * c, start + size * c, place + size * c
                transform_output(like, a, SIDE * pitch, pitch, b, y, TILE * PANEL, PANEL)
            start, step = place, PANEL
        if j > 0 and row[DIRECTIONS] == RANK1:
            factor = s + size * (j - 1) * TILE * TILE * lanes
            right = row[RIGHT] + size * column * PANEL
            rows(like, TILE * TILE, factor, lanes, 0, 1, 1, right, start, step, place, PANEL)
        elif step == 0:  # an empty sum
            rows(like, TILE * TILE, zeros, 0, 0, 0, 0, zeros, start, step, place, PANEL)


@jit
def _write(like, row, p, image, top, left, z):
    """Finish the tile whose first output is (top, left), as far as it lies inside the image."""
    lines = 1 + row[POOL]
    height = min(TILE, row[HEIGHT] - top) // lines
    width = min(TILE, row[WIDTH] - left) // lines
    corner = image * row[Y_IMAGE] + top // lines * row[Y_ROW] + left // lines * row[Y_PIXEL]
    y = row[Y] + itemsize(like) * (corner + p * PANEL)
    finish(like, row, z, TILE * TILE * PANEL, TILE * PANEL, height, width, y)
