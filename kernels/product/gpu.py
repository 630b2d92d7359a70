"""The twins of cpu.py for CuPy arrays: one pass over the matrix adds up to 16 outer products."""

from typing import Any

from .. import cuda
from .gemm import gemm

RANK, ROWS, COLUMNS = 16, 32, 128  # as in product.cu; above RANK products are made by tiles

_source = cuda.Source("product")


def outer_add(w: Any, left: Any, right: Any, scale: float) -> None:
    """Add scale * sum_i left[i] (outer) right[i] to w, in place.

    Args:
        w: (m, n), any strides; best C- or F-contiguous.
        left: (r, m).
        right: (r, n).
        scale: a number.

    Raises:
        ValueError: left or right does not fit w.
    """
    _update(w, left, right, scale, None)


def outer_accumulate(buffer: Any, left: Any, right: Any, decay: float) -> None:
    """Set buffer to decay * buffer + sum_i left[i] (outer) right[i], in place.

    Args:
        buffer: (m, n), any strides; best C- or F-contiguous.
        left: (r, m).
        right: (r, n).
        decay: a number; 0 still multiplies, so that a NaN in buffer stays.

    Raises:
        ValueError: left or right does not fit buffer.
    """
    _update(buffer, left, right, 1.0, decay)


def outer_rows(left: Any, right: Any, start: int, stop: int) -> Any:
    """Return rows start to stop of sum_i left[i] (outer) right[i], (stop - start, n)."""
    return left[:, start:stop].T @ right


def _update(w: Any, left: Any, right: Any, scale: float, decay: float | None) -> None:
    if left.shape != (len(right), w.shape[0]) or right.shape != (len(left), w.shape[1]):
        raise ValueError(  # a kernel does not check bounds
            f"outer products of left {left.shape} and right {right.shape} do not fit a matrix "
            f"{w.shape}. Give left as (r, {w.shape[0]}) and right as (r, {w.shape[1]})."
        )
    if not w.flags.c_contiguous:
        if w.flags.f_contiguous:  # (a b^T)^T = b a^T
            _update(w.T, right, left, scale, decay)
            return
        copy = cuda.contiguous(w)
        _update(copy, left, right, scale, decay)
        w[...] = copy
        return
    left, right = (cuda.contiguous(factor.astype(w.dtype, copy=False)) for factor in (left, right))
    if len(left) > RANK:
        gemm(left, right, left_transposed=True, out=w, alpha=float(scale),
             beta=1.0 if decay is None else float(decay))  # fmt: skip
        return
    tiles = -(-w.shape[0] // ROWS) * -(-w.shape[1] // COLUMNS)
    _source.launch("outer_update", w.dtype, tiles, COLUMNS, w, left, right, len(left), *w.shape,
                   float(scale), float(decay or 0.0), int(decay is not None))  # fmt: skip
