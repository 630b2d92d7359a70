"""Sums of outer products added to a matrix in place, without a temporary of the matrix's size."""

from typing import Any

import numpy as np

from ..dispatch import loop

BUFFER_BYTES = 1 << 17  # of the row block that NumPy makes: it stays in the second-level cache
LOOP_RANK = 4  # above this rank blocks of BLAS products are as fast as the loop


def outer_add(w: np.ndarray, left: np.ndarray, right: np.ndarray, scale: float) -> None:
    """Add scale * sum_i left[i] (outer) right[i] to w, in place.

    Args:
        w: (m, n), writable, any strides.
        left: (r, m).
        right: (r, n).
        scale: a number; the product is made in w's dtype.

    Raises:
        ValueError: left or right does not fit w.
    """
    _decay_and_add(w, np.multiply(left, scale, dtype=w.dtype, casting="same_kind"), right, None)


def outer_accumulate(buffer: np.ndarray, left: np.ndarray, right: np.ndarray, decay: float) -> None:
    """Set buffer to decay * buffer + sum_i left[i] (outer) right[i], in place.

    Args:
        buffer: (m, n), writable, any strides.
        left: (r, m).
        right: (r, n).
        decay: a number; 0 still multiplies, so that a NaN in buffer stays.

    Raises:
        ValueError: left or right does not fit buffer.
    """
    _decay_and_add(buffer, left, right, decay)


def outer_rows(left: np.ndarray, right: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return rows start to stop of sum_i left[i] (outer) right[i], (stop - start, n).

    Args:
        left: (r, m).
        right: (r, n).
        start, stop: a range of rows, 0 <= start <= stop <= m.
    """
    return left[:, start:stop].T @ right


def _decay_and_add(w: np.ndarray, left: Any, right: Any, decay: float | None) -> None:
    if left.shape != (len(right), w.shape[0]) or right.shape != (len(left), w.shape[1]):
        raise ValueError(  # the loop does not check bounds
            f"outer products of left {left.shape} and right {right.shape} do not fit a matrix "
            f"{w.shape}. Give left as (r, {w.shape[0]}) and right as (r, {w.shape[1]})."
        )
    if w.flags.f_contiguous and not w.flags.c_contiguous:
        w, left, right = w.T, right, left  # (a b^T)^T = b a^T
    rank = len(left)
    if w.flags.c_contiguous and rank <= LOOP_RANK and _outer_loop.wins("outer_add", w.size, w):
        left, right = (np.ascontiguousarray(factor, w.dtype) for factor in (left, right))
        _outer_loop(w, left, right, w.dtype.type(1 if decay is None else decay))
        return
    rows = max(1, BUFFER_BYTES // max(1, w.shape[1] * w.itemsize))
    block = np.empty((min(rows, len(w)), w.shape[1]), w.dtype)
    for start in range(0, len(w), rows):
        target, column = w[start : start + rows], left[:, start : start + rows].T
        product = block[: len(target)]
        if rank == 1:  # a plain multiplication beats a matrix product with one inner term
            np.multiply(column, right, out=product, casting="same_kind")
        else:
            np.matmul(column, right, out=product, casting="same_kind")
        if decay is not None:
            np.multiply(target, decay, out=target, casting="same_kind")
        np.add(target, product, out=target)


@loop("w2 r2 r2 f")
def _outer_loop(w, left, right, decay):
    rank, m = left.shape
    n = right.shape[1]
    fours = rank - rank % 4
    for i in range(m):
        row = w[i]
        if decay != 1:
            for j in range(n):
                row[j] *= decay
        for r in range(0, fours, 4):  # four terms for each time the row is read and written
            a, b, c, d = left[r, i], left[r + 1, i], left[r + 2, i], left[r + 3, i]
            for j in range(n):
                row[j] += (
                    a * right[r, j]
                    + b * right[r + 1, j]
                    + c * right[r + 2, j]
                    + d * right[r + 3, j]
                )
        for r in range(fours, rank):
            a = left[r, i]
            for j in range(n):
                row[j] += a * right[r, j]
