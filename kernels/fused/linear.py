"""Linear layers with k tangents, ReLU and the pending update, a few panels of the weights a chunk.

While a panel is in the cache everything is done that needs it: the update that the previous step
left pending, then the products of the primal rows and of the tangents with it. A direction of rank
one, left right^T, adds s_i right^T to tangent i, where s_i = x left_i comes from its own stage; one
that is dense is drawn, a panel at a time, beside the weights. All products are `tile.rows`, which
fixes the order of additions, so that a flush gives the bits that the next step would have given.
"""

import numpy as np

from ..jit import jit
from .draws import DENSE, FIELDS, PENDING, RANK1, sign_panel
from .tile import PANEL, dots, fill, interleave, itemsize, rows, view

# The fields of a row of `update_stage`, shared by the two below,
(W, BIAS, INPUTS, OUTPUTS, K, STRUCTURE, LEFTS, RIGHTS, VECTORS, KEYS) = range(2, 12)
(WORDS, NUMBERS, GROUP, V) = range(12, 16)
# and those that a linear layer adds.
(X, LDX, X_TANGENTS, BATCH, Y, LDY, RELU, SUMS) = range(16, 24)

FEW = 8  # directions from which on the sums s are one product with a panel of left vectors
WORK = 1 << 16  # multiplications of rows that a chunk does at least, about 10 us
_COEFFICIENTS = 8  # where the derivatives begin among the numbers; the coefficients follow


def update_stage(
    kind: int,
    *,
    w: int,
    bias: int = 0,
    inputs: int,
    outputs: int,
    k: int,
    structure: int,
    lefts: int = 0,
    rights: int = 0,
    vectors: int = 0,
    keys: int = 0,
    words: int,
    numbers: int,
    v: int = 0,
) -> np.ndarray:
    """Return the row that applies the pending update to the weights, and leaves it pending.

    P is a sixteenth of the outputs, rounded up. The buffers of directions are those of
    `draws.leaf_draw`: the current ones and after them the previous ones, which the update uses. A
    flush between two steps therefore draws for the second before it runs these rows.

    Args:
        kind: what the driver calls this stage.
        w: address of the packed weights (P, inputs, 16).
        bias: address of (P * 16,), or 0.
        inputs, outputs: rows and columns of the weights.
        k: number of directions.
        structure: of the weights' directions: RANK1, DENSE (of signs), or NONE if they have none.
        lefts, rights: addresses of (2, k, inputs) and (2, k, P * 16), if RANK1.
        vectors: address of the bias's directions (2, k, P * 16), or 0 if it has none.
        keys: address of int64 (2, 2), the key of the leaf w, if DENSE.
        words, numbers: addresses of the program's.
        v: address of (k, P, inputs, 16) for the current dense directions, or 0 not to draw them.

    Raises:
        ValueError: a size is not positive.
    """
    if min(inputs, outputs) < 1 or k < 0:
        raise ValueError(
            f"update_stage: inputs {inputs}, outputs {outputs}, k {k}: a size is too small. All "
            f"but k must be positive."
        )
    row = np.zeros(FIELDS, np.int64)
    row[0] = kind
    row[W:LEFTS] = [w, bias, inputs, outputs, k, structure]
    row[LEFTS : V + 1] = [lefts, rights, vectors, keys, words, numbers, 0, v]
    _share(row, inputs * k)
    return row


def linear_stage(
    kind: int,
    update: np.ndarray,
    *,
    x: int,
    ldx: int,
    x_tangents: bool,
    batch: int,
    y: int,
    ldy: int,
    relu: bool = False,
    sums: int = 0,
) -> np.ndarray:
    """Return the row of y = activation(x w + bias) with its tangents, and of the pending update.

    With k = 0 it is the forward pass alone.

    Args:
        kind: what the driver calls this stage.
        update: a row of `update_stage` for the weights, with v = 0.
        x: address of the rows (1 + k, batch, ldx), or (batch, ldx) without x_tangents.
        ldx, ldy: entries from a row of x and of y to the next; ldy is at least P * 16.
        x_tangents: whether x has tangents.
        batch: number of examples.
        y: address of the rows (1 + k, batch, ldy).
        relu: whether the activation is ReLU, or none.
        sums: address of `sums_size` entries, which `dot_stage` fills, if RANK1.

    Raises:
        ValueError: batch is not positive, or a row is shorter than its entries.
    """
    padded = -(-int(update[OUTPUTS]) // PANEL) * PANEL
    if batch < 1 or ldx < update[INPUTS] or ldy < padded:
        raise ValueError(
            f"linear_stage: batch {batch}, ldx {ldx} for {update[INPUTS]} inputs, ldy {ldy} for "
            f"{padded} padded outputs. Give a batch of 1 or more, and strides of a row or more."
        )
    row = update.copy()
    row[0] = kind
    row[X : SUMS + 1] = [x, ldx, x_tangents, batch, y, ldy, relu, sums]
    _share(row, (1 + 2 * int(row[K])) * batch * int(row[INPUTS]))
    return row


def dot_stage(kind: int, linear: np.ndarray) -> np.ndarray:
    """Return the row that fills the sums of a RANK1 row of `linear_stage`, to run before it."""
    row = linear.copy()
    row[0] = kind
    k, batch = int(row[K]), int(row[BATCH])
    if k >= FEW:  # sixteen directions a chunk
        row[1] = -(-k // PANEL)
    else:
        row[GROUP] = max(1, WORK // (int(row[INPUTS]) * max(k, 1)))  # rows a chunk
        row[1] = -(-batch // int(row[GROUP]))
    return row


def sums_size(batch: int, k: int) -> int:
    """Return how many entries the sums of a RANK1 layer take."""
    return batch * -(-k // PANEL) * PANEL


def linear_scratch(row: np.ndarray, itemsize: int) -> int:
    """Return the bytes of scratch that a chunk of a row of any of these stages needs."""
    return itemsize * PANEL * (int(row[INPUTS]) + PANEL + 2)


def _share(row: np.ndarray, work: int) -> None:
    """Set how many panels, of so much work each, a chunk takes, and how many chunks there are."""
    panels = -(-int(row[OUTPUTS]) // PANEL)
    row[GROUP] = min(panels, -(-WORK // max(work, 1)))
    row[1] = -(-panels // int(row[GROUP]))


# The scratch of a chunk: a panel or columns of one, 16 rows of a panel, 16 numbers, 16 zeros.


@jit
def _scratch_zeros(like, row, scratch):
    return scratch + itemsize(like) * PANEL * (row[INPUTS] + PANEL + 1)


@jit
def update_chunk(like, row, chunk, scratch):
    """Do one chunk of a row of `update_stage`."""
    size = itemsize(like)
    panels = (row[OUTPUTS] + PANEL - 1) // PANEL
    keys = view(np.int64(0), row[KEYS], 2)
    for p in range(chunk * row[GROUP], min((chunk + 1) * row[GROUP], panels)):
        update_panel(like, row, p, scratch)
        if row[V] != 0:
            for i in range(row[K]):
                v = row[V] + size * (i * panels + p) * row[INPUTS] * PANEL
                sign_panel(like, v, row[INPUTS], row[OUTPUTS], keys[0], keys[1], i, p)


@jit
def linear_chunk(like, row, chunk, scratch):
    """Do one chunk of a row of `linear_stage`."""
    panels = (row[OUTPUTS] + PANEL - 1) // PANEL
    fill(like, _scratch_zeros(like, row, scratch), PANEL)
    for p in range(chunk * row[GROUP], min((chunk + 1) * row[GROUP], panels)):
        update_panel(like, row, p, scratch)
        _products(like, row, p, panels, scratch)
        if row[RELU]:
            _relu(like, row, row[Y] + itemsize(like) * p * PANEL)


@jit
def dot_chunk(like, row, chunk, scratch):
    """Do one chunk of a row of `dot_stage`."""
    size = itemsize(like)
    batch, inputs, k = row[BATCH], row[INPUTS], row[K]
    if k >= FEW:
        zeros = _scratch_zeros(like, row, scratch)
        fill(like, zeros, PANEL)
        first = chunk * PANEL
        here = min(k - first, PANEL)
        interleave(like, here, inputs, row[LEFTS] + size * first * inputs, scratch)
        sums, pitch = row[SUMS] + size * first, (k + PANEL - 1) // PANEL * PANEL
        rows(like, batch, row[X], row[LDX], 0, 1, inputs, scratch, zeros, 0, sums, pitch)
        return
    first = chunk * row[GROUP]
    here = min(batch - first, row[GROUP])
    x = row[X] + size * first * row[LDX]
    for i in range(k):
        left, sums = row[LEFTS] + size * i * inputs, row[SUMS] + size * (i * batch + first)
        dots(like, here, x, row[LDX], 0, 1, inputs, left, sums)


@jit
def _products(like, row, p, panels, scratch):
    """Write panel p of the outputs and of their tangents, before the activation."""
    size = itemsize(like)
    x, ldx, y, ldy = row[X], row[LDX], row[Y] + size * p * PANEL, row[LDY]
    batch, inputs, k, structure = row[BATCH], row[INPUTS], row[K], row[STRUCTURE]
    w = row[W] + size * p * inputs * PANEL
    zeros = _scratch_zeros(like, row, scratch)
    start = zeros if row[BIAS] == 0 else row[BIAS] + size * p * PANEL
    rows(like, batch, x, ldx, 0, 1, inputs, w, start, 0, y, ldy)
    for i in range(k):
        start = zeros if row[VECTORS] == 0 else row[VECTORS] + size * (i * panels + p) * PANEL
        t = y + size * (i + 1) * batch * ldy
        if structure == DENSE:
            keys = view(np.int64(0), row[KEYS], 2)
            sign_panel(like, scratch, inputs, row[OUTPUTS], keys[0], keys[1], i, p)
            rows(like, batch, x, ldx, 0, 1, inputs, scratch, start, 0, t, ldy)
        elif structure == RANK1:  # s right^T is a product too, of one column with one row
            few = k < FEW
            s = row[SUMS] + size * (i * batch if few else i)
            lds = 1 if few else (k + PANEL - 1) // PANEL * PANEL
            right = row[RIGHTS] + size * (i * panels + p) * PANEL
            rows(like, batch, s, lds, 0, 1, 1, right, start, 0, t, ldy)
        else:
            rows(like, batch, x, ldx, 0, 0, 0, w, start, 0, t, ldy)
    if row[X_TANGENTS]:
        t = y + size * batch * ldy
        rows(like, k * batch, x + size * batch * ldx, ldx, 0, 1, inputs, w, t, ldy, t, ldy)


@jit
def _relu(like, row, y):
    """Apply ReLU to one panel of the outputs; tangents stop where the output is not positive."""
    size = itemsize(like)
    for r in range(row[BATCH]):
        z = view(like, y + size * r * row[LDY], PANEL)
        for i in range(row[K]):
            t = view(like, y + size * ((i + 1) * row[BATCH] + r) * row[LDY], PANEL)
            for j in range(PANEL):
                t[j] = like if z[j] <= like else t[j]  # a NaN lets it pass, as elsewhere
        for j in range(PANEL):
            z[j] = like if z[j] <= like else z[j]  # so that NaN stays


@jit
def update_panel(like, row, p, scratch):
    """Subtract from panel p, and from its part of the bias, what the previous step left pending."""
    if view(np.int64(0), row[WORDS], 8)[PENDING] == 0:
        return
    size = itemsize(like)
    inputs, k = row[INPUTS], row[K]
    panels = (row[OUTPUTS] + PANEL - 1) // PANEL
    w, bias = row[W] + size * p * inputs * PANEL, row[BIAS] + size * p * PANEL
    short = scratch + size * PANEL * inputs
    one = short + size * PANEL * PANEL
    view(like, one, 1)[0] = 1
    for first in range(0, k, PANEL):
        here = min(k - first, PANEL)
        if row[STRUCTURE] == RANK1:  # a product of the columns left_i with the rows -c_i right_i
            left = row[LEFTS] + size * (k + first) * inputs
            _scaled(like, row, row[RIGHTS], first, here, panels, p, short)
            rows(like, inputs, left, 1, inputs, here, 1, short, w, PANEL, w, PANEL)
        elif row[STRUCTURE] == DENSE:
            for i in range(first, first + here):
                _subtract_signs(like, row, i, p, scratch, w)
        if row[VECTORS] != 0:
            _scaled(like, row, row[VECTORS], first, here, panels, p, short)
            rows(like, 1, one, 0, 0, here, 1, short, bias, 0, bias, 0)


@jit
def _scaled(like, row, vectors, first, n, panels, p, panel):
    """Write panel p of n previous vectors times minus their coefficients, (n, 16)."""
    size, k = itemsize(like), row[K]
    c = view(np.float64(0), row[NUMBERS] + 8 * (_COEFFICIENTS + k), k)
    short = view(like, panel, n * PANEL)
    for i in range(n):
        short[i * PANEL] = -c[first + i]  # as a number of like's type
        factor = short[i * PANEL]
        previous = vectors + size * ((k + first + i) * panels + p) * PANEL
        entries = view(like, previous, PANEL)
        for j in range(PANEL):
            short[i * PANEL + j] = factor * entries[j]


@jit
def _subtract_signs(like, row, i, p, scratch, w):
    """Subtract from a panel the previous dense direction i times its coefficient.

    The product with a sign is exact, so that it does not matter whether it is rounded.
    """
    n = row[INPUTS] * PANEL
    keys = view(np.int64(0), row[KEYS], 4)
    sign_panel(like, scratch, row[INPUTS], row[OUTPUTS], keys[2], keys[3], i, p)
    entries, places = view(like, scratch, n), view(like, w, n)
    short = view(like, scratch + itemsize(like) * n, 1)
    short[0] = view(np.float64(0), row[NUMBERS] + 8 * (_COEFFICIENTS + row[K]), row[K])[i]
    c = short[0]
    for j in range(n):
        places[j] -= c * entries[j]
