"""The end of a step: cross-entropy of logits with k tangents, then the loss and its derivatives.

A row of logits that is all -inf, or that holds +inf or NaN, has the loss NaN, as in softmax/.
"""

import math
from functools import partial

import numpy as np

from ..jit import jit
from .draws import ERROR, FIELDS, PENDING
from .tile import PANEL, itemsize, view

# The fields of a row of `cross_entropy_stage`, shared by `finish_stage`.
(Z, LDZ, BATCH, CLASSES, K, LABELS, LOSSES, TANGENTS, WORDS, NUMBERS) = range(2, 12)

# The entries of a program's numbers, before the derivatives and the coefficients.
RATE, CLIP, LOSS, INVERSE = range(4)
_DERIVATIVES = 8

_LOG2_E, _LN_2 = 1 / math.log(2), math.log(2)
_INTEGERS = 1.5 * 2.0**52  # a float64 near it is an integer, which its low bits hold
_TAYLOR = tuple(1 / math.factorial(i) for i in range(8, -1, -1))

_EXAMPLES = PANEL  # examples of a chunk: they fill the lanes of a vector


def cross_entropy_stage(
    kind: int,
    *,
    z: int,
    ldz: int,
    batch: int,
    classes: int,
    k: int,
    labels: int,
    losses: int,
    tangents: int = 0,
    words: int,
    numbers: int,
) -> np.ndarray:
    """Return the row of the losses -log_softmax(z)[label] and their tangents, 16 examples a chunk.

    Args:
        kind: what the driver calls this stage.
        z: address of the logits and their tangents, (1 + k, batch, ldz).
        ldz: entries from a row of z to the next.
        batch, classes, k: number of examples, of classes and of tangents.
        labels: address of int64 (batch,). A row whose label is not from 0 to classes - 1 has the
            loss 0; `finish_chunk` reports it.
        losses: address of (batch,).
        tangents: address of (k, batch), if k > 0.
        words, numbers: addresses of the program's.

    Raises:
        ValueError: a size is not positive, or ldz is below classes.
    """
    if batch < 1 or classes < 1 or k < 0 or ldz < classes:
        raise ValueError(
            f"cross_entropy_stage: batch {batch}, classes {classes}, k {k}, ldz {ldz}: a size is "
            f"too small. All but k must be positive, and ldz at least as large as classes."
        )
    row = np.zeros(FIELDS, np.int64)
    row[0], row[1] = kind, -(-batch // _EXAMPLES)
    row[Z : NUMBERS + 1] = [z, ldz, batch, classes, k, labels, losses, tangents, words, numbers]
    return row


def finish_stage(kind: int, cross_entropy: np.ndarray) -> np.ndarray:
    """Return the row that ends a step whose losses a row of `cross_entropy_stage` computes.

    It writes the mean loss and, if k > 0, the derivatives and the coefficients of the update, which
    becomes pending. If a label is bad, words[ERROR] is 1 + the index of the first such example, the
    coefficients are zero and nothing is pending.
    """
    row = cross_entropy.copy()
    row[0], row[1] = kind, 1
    return row


def head_scratch(row: np.ndarray, itemsize: int) -> int:
    """Return the bytes of scratch that a chunk of a row of either stage needs."""
    return itemsize * _EXAMPLES * (int(row[CLASSES]) + 3)


@jit
def cross_entropy_chunk(like, row, chunk, scratch):
    """Do 16 examples of a row of `cross_entropy_stage`; classes run first, so that examples vary
    fastest and each loop over them is one vector."""
    size = itemsize(like)
    classes, first = row[CLASSES], chunk * _EXAMPLES
    here = min(row[BATCH] - first, _EXAMPLES)
    labels = view(np.int64(0), row[LABELS] + 8 * first, here)
    weights = view(like, scratch, classes * _EXAMPLES)
    top = view(like, scratch + size * classes * _EXAMPLES, _EXAMPLES)
    total = view(like, scratch + size * (classes + 1) * _EXAMPLES, _EXAMPLES)
    losses = view(like, row[LOSSES] + size * first, here)
    _columns(like, row, 0, first, here, weights)
    _exponentials(like, classes, weights, top, total)
    for i in range(here):
        z = view(like, row[Z] + size * (first + i) * row[LDZ], classes)
        good = 0 <= labels[i] < classes
        losses[i] = np.log(total[i]) - (z[labels[i]] - top[i]) if good else like
    if row[K] == 0:
        return
    for i in range(_EXAMPLES):
        total[i] = 1 / total[i]
    for c in range(classes):
        for i in range(_EXAMPLES):
            weights[c * _EXAMPLES + i] *= total[i]
    for i in range(here):
        if 0 <= labels[i] < classes:
            weights[labels[i] * _EXAMPLES + i] -= 1
    for j in range(row[K]):
        tangents = view(like, row[TANGENTS] + size * (j * row[BATCH] + first), here)
        for i in range(here):
            place = (1 + j) * row[BATCH] + first + i
            t = view(like, row[Z] + size * place * row[LDZ], classes)
            derivative = like
            for c in range(classes):
                derivative += weights[c * _EXAMPLES + i] * t[c]
            tangents[i] = derivative


@jit
def _columns(like, row, block, first, here, columns):
    """Write the logits of 16 examples as (classes, 16), and zeros where there are fewer."""
    size = itemsize(like)
    for i in range(_EXAMPLES):
        place = block * row[BATCH] + first + min(i, here - 1)
        z = view(like, row[Z] + size * place * row[LDZ], row[CLASSES])
        for c in range(row[CLASSES]):
            columns[c * _EXAMPLES + i] = z[c]


@jit
def _exponentials(like, classes, z, top, total):
    """Replace z by exp(z - top), where top are the maxima and total the sums, over the classes."""
    for i in range(_EXAMPLES):
        top[i] = z[i]
        total[i] = like
    for c in range(1, classes):
        for i in range(_EXAMPLES):
            x = z[c * _EXAMPLES + i]
            top[i] = x if x > top[i] else top[i]
    for c in range(classes):
        for i in range(_EXAMPLES):
            z[c * _EXAMPLES + i] -= top[i]
    if itemsize(like) == 4:
        for i in range(classes * _EXAMPLES):
            z[i] = _exp(np.float64(z[i]))
    else:
        for i in range(classes * _EXAMPLES):
            z[i] = np.exp(z[i])
    for c in range(classes):
        for i in range(_EXAMPLES):
            total[i] += z[c * _EXAMPLES + i]


@partial(jit, fastmath=False)  # x - n log 2 and the rounding to n are no real arithmetic
def _exp(x):
    """Return exp(x) for x <= 0 or NaN, to 1e-9 of itself or 1e-65: enough for a float32.

    exp(x) = 2**n exp(r), |r| <= log(2) / 2. There is no call and no branch, so that a loop of it
    runs on vectors.
    """
    x = -150.0 if x < -150.0 else x
    shifted = x * _LOG2_E + _INTEGERS
    n = shifted - _INTEGERS
    r = x - n * _LN_2
    total = _TAYLOR[0]
    for i in range(1, len(_TAYLOR)):
        total = total * r + _TAYLOR[i]
    power = (np.float64(shifted).view(np.int64) + 1023) << 52
    return total * np.int64(power).view(np.float64)


@jit
def finish_chunk(like, row, chunk, scratch):
    """Do the one chunk of a row of `finish_stage`."""
    batch, k = row[BATCH], row[K]
    words = view(np.int64(0), row[WORDS], 8)
    numbers = view(np.float64(0), row[NUMBERS], _DERIVATIVES + 2 * k)
    labels = view(np.int64(0), row[LABELS], batch)
    words[ERROR] = 0
    for i in range(batch):
        if words[ERROR] == 0 and not 0 <= labels[i] < row[CLASSES]:
            words[ERROR] = 1 + i
    numbers[LOSS] = _mean(like, row[LOSSES], batch)
    if k == 0:
        return
    clip = numbers[CLIP]
    for i in range(k):
        d = _mean(like, row[TANGENTS] + itemsize(like) * i * batch, batch)
        numbers[_DERIVATIVES + i] = d
        clipped = clip if d > clip else (-clip if d < -clip else d)  # so that NaN stays
        c = numbers[RATE] * clipped / k
        numbers[_DERIVATIVES + k + i] = c if words[ERROR] == 0 else 0.0
    words[PENDING] = 1 if words[ERROR] == 0 else 0


@jit
def _mean(like, address, n):
    entries = view(like, address, n)
    total = 0.0
    for i in range(n):
        total += entries[i]
    return total / n
