"""Eigenvalues and eigenvectors, of Hermitian and of general matrices.

Formulas: M. B. Giles, "An extended collection of matrix derivative results for forward and reverse
mode algorithmic differentiation" (2008), section 3. docs/linalg.md says what holds where
eigenvalues coincide, and which phases vectors keep.
"""

import numpy as np

from ..beside import beside
from ..dual import Array, primal_of
from ..operations import implements
from ..primitive import custom
from .gauges import (
    adjoint,
    diagonals,
    guarded,
    hermitian,
    keep_phases,
    keep_phases_transposed,
    largest,
    matrices,
    real_entries,
    reciprocals,
    result_type,
    spread_diagonals,
)


def _pack(w, v):
    """Return (..., n + 1, n): the values as a first row above their vectors."""
    return np.concatenate([np.astype(w, v.dtype)[..., None, :], v], -2)


def _gaps(w):
    """Return 1 / (w_j - w_i), NaN where they coincide, 0 on the diagonal."""
    scale = largest(np.abs(primal_of(w)), -1)
    return reciprocals(w[..., None, :] - w[..., :, None], scale, keep_diagonal=False)


# --- Hermitian: a V = V diag(w). With M = V' da V, dw_i = M_ii and dV = V (M_ij / (w_j - w_i)).

_eigh = custom(
    lambda a, UPLO: _pack(*np.linalg.eigh(a, UPLO)),
    lambda primals, active, y, UPLO: _eigh_residuals(y, UPLO),
    lambda residuals, tangents, UPLO: _eigh_push(residuals, tangents[0]),
    lambda residuals, ct, UPLO: [_eigh_pull(residuals, ct)],
    name="eigh",
)


def _eigh_residuals(y, UPLO):
    v = y[..., 1:, :]
    entries = None
    if v.dtype.kind == "c":  # LAPACK's reflectors leave the first, or last, row real
        row = beside(v).arange(v.shape[-2])[:, None] == (0 if UPLO == "L" else v.shape[-2] - 1)
        entries = real_entries(v, row)
    return v, _gaps(np.real(y[..., 0, :])), entries


def _eigh_push(residuals, t):
    v, gaps, entries = residuals
    m = adjoint(v) @ (t @ v)
    tv = v @ guarded(gaps, m)
    return _pack(np.real(diagonals(m)), tv if entries is None else keep_phases(tv, v, entries))


def _eigh_pull(residuals, ct):
    v, gaps, entries = residuals
    ctw, ctv = np.real(ct[..., 0, :]), ct[..., 1:, :]
    if entries is not None:
        ctv = keep_phases_transposed(ctv, v, entries)
    m = spread_diagonals(ctw) + guarded(gaps, adjoint(v) @ ctv)
    return v @ m @ adjoint(v)


_eigvalsh = custom(
    lambda a, UPLO: np.linalg.eigvalsh(a, UPLO),
    lambda primals, active, y, UPLO: np.linalg.eigh(primals[0], UPLO)[1],
    lambda v, tangents, UPLO: np.real(np.sum(np.conj(v) * (tangents[0] @ v), -2)),
    lambda v, ct, UPLO: [(v * ct[..., None, :]) @ adjoint(v)],
    name="eigvalsh",
)


@implements(np.linalg.eigh)
def eigh(a: Array, UPLO: str = "L"):
    """Eigenvalues (..., n), ascending, and vectors (..., n, n) of what one triangle of a says."""
    UPLO = _triangle(UPLO)
    y = _eigh(hermitian(matrices(a, square=True), UPLO == "L"), UPLO=UPLO)
    return result_type(np.linalg.eigh)(np.real(y[..., 0, :]), y[..., 1:, :])


@implements(np.linalg.eigvalsh)
def eigvalsh(a: Array, UPLO: str = "L") -> Array:
    UPLO = _triangle(UPLO)
    return _eigvalsh(hermitian(matrices(a, square=True), UPLO == "L"), UPLO=UPLO)


def _triangle(UPLO):
    UPLO = UPLO.upper()
    if UPLO not in ("L", "U"):
        raise ValueError("UPLO argument must be 'L' or 'U'")
    return UPLO


# --- general: a V = V diag(w). With M = V^-1 da V, dw_i = M_ii and dV = V (M_ij / (w_j - w_i)),
# then along V itself: each column keeps length 1 and its largest entry real, as LAPACK has them.

_eig = custom(
    lambda a: _pack(*np.linalg.eig(a)),
    lambda primals, active, y: _eig_residuals(y),
    lambda residuals, tangents: _eig_push(residuals, tangents[0]),
    lambda residuals, ct: [_eig_pull(residuals, ct)],
    name="eig",
)


def _eig_residuals(y):
    v = y[..., 1:, :]
    entries = None
    if v.dtype.kind == "c":
        plain = primal_of(v)
        size = np.where(plain.imag == 0, np.abs(plain), -1)
        pivots = size == largest(size, -2, keepdims=True)
        first = np.cumsum(pivots, axis=-2) == 1
        entries = real_entries(v, pivots & first)
    return v, np.linalg.inv(v), _gaps(y[..., 0, :]), entries


def _eig_push(residuals, t):
    v, inverse, gaps, entries = residuals
    m = inverse @ (t @ v)
    x = v @ guarded(gaps, m)
    x = x - v * np.sum(np.real(np.conj(v) * x), -2, keepdims=True)
    return _pack(diagonals(m), x if entries is None else keep_phases(x, v, entries))


def _eig_pull(residuals, ct):
    v, inverse, gaps, entries = residuals
    ctw, ctv = ct[..., 0, :], ct[..., 1:, :]
    along = np.real(np.sum(np.conj(v) * ctv, -2, keepdims=True))
    ctx = ctv if entries is None else keep_phases_transposed(ctv, v, entries)
    m = guarded(np.conj(gaps), adjoint(v) @ (ctx - v * along))
    return adjoint(inverse) @ (spread_diagonals(ctw) + m) @ adjoint(v)


def _values_residuals(primals, active, y):
    v = np.linalg.eig(primals[0])[1]
    return v, np.linalg.inv(v)


_eigvals = custom(
    lambda a: np.linalg.eigvals(a),
    _values_residuals,
    lambda residuals, tangents: diagonals(residuals[1] @ (tangents[0] @ residuals[0])),
    lambda residuals, ct: [
        adjoint(residuals[1]) @ (ct[..., :, None] * adjoint(residuals[0]))
    ],
    name="eigvals",
)  # fmt: skip


@implements(np.linalg.eig)
def eig(a: Array):
    """Eigenvalues (..., n) and vectors (..., n, n); real where NumPy finds them so."""
    y = _eig(matrices(a, square=True))
    return result_type(np.linalg.eig)(y[..., 0, :], y[..., 1:, :])


@implements(np.linalg.eigvals)
def eigvals(a: Array) -> Array:
    return _eigvals(matrices(a, square=True))
