"""The stages of a step on a device: what plan/device.py puts one after the other.

Each is one launch. Activations are stacked, (1 + k, rows, columns), the primal first; the rows of
images are their pixels. Nothing here makes an array or waits, so that stages can be captured. What
changes from step to step is handed to `draw_vectors` alone.
"""

from typing import Any, NamedTuple

import numpy as np

from .. import cuda
from ..conv.device import window_of, write
from ..product.gemm import gemm, matmul
from ..softmax.device import TOGETHER
from ..softmax.device import launch as launch_on_rows

THREADS, ROW_THREADS = 256, 128
ROWS = 8  # of a column, which a thread draws at a time
FEW_FILTERS = 8  # up to which a tile would be emptier than one thread an entry is slow; a guess
DRAWING_BLOCKS = 64  # at most, of a piece that is drawn
# As in step.cu: fields of a piece that is drawn, and of a leaf that is updated; kinds of leaves.
PIECE_FIELDS, LEAF_FIELDS = 7, 9
VECTOR, RANK1, DENSE = range(3)

_source = cuda.Source(
    "fused/step",
    dtypes=("float32", "float64"),
    parts=("random/philox.cuh", "special/ndtri.cuh"),
)


class Shared(NamedTuple):
    """Arrays that the stages of a plan share.

    keys: uint32 (leaves, 2), of this step. numbers: float64 (1 + k,): the rate, then c_i, what the
    parameters move by along each direction. vectors: all short vectors of a step, one after the
    other.
    """

    keys: Any
    numbers: Any
    vectors: Any


class Third(NamedTuple):
    """What the direction of a weight adds to a layer's tangents.

    s: (rows, k) with a rank-1 direction, whose right factors begin at `right` of the vectors. e:
    (rows, k, columns) with a dense one. vector: where the directions of the bias begin.
    """

    s: Any = None
    e: Any = None
    right: int = 0
    vector: int = 0


def piece(leaf: int, digest: int, role: int = 0, size: int = 0, offset: int = 0,
          strides: tuple[int, int] = (0, 0)) -> list[int]:  # fmt: skip
    """Return a row for `draw_vectors`: of a leaf's key, and of one of its vectors if size > 0.

    Args:
        leaf: its number. digest: what stands for its path in a key.
        role: LEFT, RIGHT or VECTOR of random/.
        size: entries of each of the k vectors, which lie from `offset` on.
        strides: entries from a direction to the next, and from an entry to the next.
    """
    return [digest, leaf, role, size, offset, *strides]


def leaf_row(w: Any, kind: int, left: tuple[int, int, int], right: int, block: int) -> list[int]:
    """Return a row for `update`: the leaf w, whose blocks begin at number `block`.

    Args:
        w: C-contiguous; a matrix of all axes but the last, or a vector, by its kind.
        left: where its left factors begin, and their strides as for `piece`, if RANK1.
        right: where its right factors, or the directions of a vector, begin.
    """
    return [w.data.ptr, *matrix_of(w, kind), kind, *left, right, block]


def matrix_of(w: Any, kind: int) -> tuple[int, int]:
    """Return rows and columns of a leaf as the stages take it."""
    return (1, w.size) if kind == VECTOR else (w.size // w.shape[-1], w.shape[-1])


def blocks_of(w: Any, kind: int) -> int:
    """Return how many blocks of `update` a leaf takes."""
    rows, columns = matrix_of(w, kind)
    return -(-(-(-rows // ROWS) * columns) // THREADS)


def table(rows: list[list[int]], fields: int) -> Any:
    """Return rows of integers on the device, int64 (len(rows), fields)."""
    return cuda.cupy().asarray(np.array(rows, np.int64).reshape(-1, fields))


def draw_vectors(shared: Shared, pieces: Any, directions: int, *, key: tuple[int, int], step: int,
                 rate: float, k: int, normals: bool, largest: int) -> None:  # fmt: skip
    """Begin a step: draw all vectors of a table, and leave the leaves' keys and the rate.

    Args:
        pieces: int64 (pieces, PIECE_FIELDS), rows of `piece`.
        directions: the digest of the stream of directions.
        key: the run's two words. step: its number.
        largest: the most entries that a piece draws, k times its size.
    """
    grid = (max(1, min(-(-largest // THREADS), DRAWING_BLOCKS)), len(pieces))
    _source.launch("draw_vectors", shared.vectors.dtype, grid, THREADS, *key, step, float(rate),
                   pieces, directions, int(normals), k, shared.keys, shared.numbers,
                   shared.vectors)  # fmt: skip


def draw_matrix(shared: Shared, leaf: int, d: Any) -> None:
    """Draw the k dense directions of a leaf side by side into d (rows, k, columns)."""
    rows, k, columns = d.shape
    grid = cuda.blocks(-(-rows // ROWS) * columns, THREADS)
    _source.launch("draw_matrix", d.dtype, grid, THREADS, shared.keys, leaf, d, rows, columns, k)


def product(a: Any, b: Any, out: Any, own: bool, sums: Any = None) -> None:
    """Write a @ b into out, all matrices; own: by a kernel that can be captured, never by cuBLAS.

    sums: what product.gemm.slices_for gives, for a kernel of our own.
    """
    if own:
        gemm(a, b, out=out, sums=sums)
    else:
        matmul(a, b, out)


def convolution(x: Any, w: Any, out: Any, own: bool, *, stride: Any, padding: Any) -> None:
    """Write the convolution of x (n, h, w, c) with filters w into out; arguments as of conv2d.

    own: as for `product`, which convolutions of 1 x 1 are.
    """
    plain = tuple(stride) == (1, 1) and not np.any(padding)
    if plain and w.shape[:2] == (1, 1):
        flat = w.reshape(w.shape[2:])
        product(x.reshape(-1, len(flat)), flat, out.reshape(-1, flat.shape[1]), own)
        return
    window, _ = window_of(x.shape, w.shape, stride, padding, (1, 1), 1)
    write(x, w, out, window, 1, direct=w.shape[-1] <= FEW_FILTERS)


def row_dots(shared: Shared, x: Any, offset: int, s: Any) -> None:
    """Write into s (rows, k) the products of x (rows, inner) with the vectors from offset on."""
    rows, inner = x.shape
    _source.launch("row_dots", x.dtype, cuda.blocks(rows, 1), ROW_THREADS, x, shared.vectors,
                   offset, s, rows, inner, s.shape[1])  # fmt: skip


def end_layer(shared: Shared, y: Any, third: Third, bias: Any, *, moving: bool,
              rectified: bool) -> None:  # fmt: skip
    """Add bias and third term to y (1 + k, rows, columns) and its tangents, then relu, in place.

    moving: whether the tangents hold a term already, of the input's.
    """
    blocks, rows, columns = y.shape
    _source.launch(
        "end_layer", y.dtype, cuda.blocks(rows * columns, THREADS), THREADS, y, third.s, third.e,
        shared.vectors, third.right, bias, third.vector, rows, columns, blocks - 1, int(moving),
        int(rectified),
    )  # fmt: skip


def end_pooled_layer(shared: Shared, y: Any, pooled: Any, third: Third, bias: Any, *, moving: bool,
                     rectified: bool) -> None:  # fmt: skip
    """As end_layer for images y (1 + k, n, h, w, c); their 2 x 2 maxima go to pooled."""
    blocks, *shape = y.shape
    _source.launch(
        "end_pooled_layer", y.dtype, cuda.blocks(pooled.size // blocks, THREADS), THREADS, y,
        pooled, third.s, third.e, shared.vectors, third.right, bias, third.vector, *shape,
        blocks - 1, int(moving), int(rectified),
    )  # fmt: skip


def cross_entropy(z: Any, labels: Any, losses: Any) -> None:
    """Write the losses of logits z (1 + k, n, classes) and their tangents, (1 + k, n).

    A label that is no class has the loss NaN: to raise would be to wait for the device.
    """
    k = len(z) - 1
    launch_on_rows("cross_entropy_tangents", z[0], max(1, -(-k // TOGETHER)), labels, z[1:],
                   losses[0], losses[1:], last=(k,))  # fmt: skip


def end_step(shared: Shared, losses: Any, loss: Any, clip: float) -> None:
    """Write the mean loss, and what the parameters move by along each direction.

    clip: bound on a derivative, inf for none.
    """
    blocks, examples = losses.shape
    _source.launch("end_step", losses.dtype, blocks, THREADS, losses, examples, blocks - 1,
                   float(clip), loss, shared.numbers)  # fmt: skip


def update(shared: Shared, leaves: Any, blocks: int) -> None:
    """Take sum_i c_i v_i from all leaves of a table, rows of `leaf_row`; directions drawn again.

    blocks: of all leaves together.
    """
    _source.launch("update", shared.vectors.dtype, blocks, THREADS, leaves, len(leaves),
                   shared.keys, shared.numbers, shared.vectors,
                   len(shared.numbers) - 1)  # fmt: skip
