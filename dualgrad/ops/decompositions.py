"""Factors of matrices: singular values and vectors, QR and Cholesky.

Formulas: J. Townsend, "Differentiating the singular value decomposition" (2016), its quotients
split into 1 / (s_j - s_i) and 1 / (s_j + s_i) so that one vanishing value of a square matrix does
no harm; S. Walter and L. Lehmann, "Algorithmic differentiation of linear algebra functions with
application in optimum experimental design" (2010), for QR; I. Murray, "Differentiation of the
Cholesky decomposition" (2016). docs/linalg.md says what holds where factors are not unique.
"""

import math
from typing import Any

import numpy as np

from ..beside import beside
from ..dual import Array, primal_of
from ..operations import implements
from ..primitive import custom
from .gauges import (
    adjoint,
    diagonals,
    epsilon,
    eye_like,
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
    with_value,
)

# --- singular values: a = U diag(s) V', packed as the rows [U; s; V] of one array (m + 1 + n, k)


def _svd_value(a, full):
    u, s, vh = np.linalg.svd(a, full_matrices=full)
    k = s.shape[-1]
    rows = np.astype(s, u.dtype)[..., None, :]
    return np.concatenate([u[..., :, :k], rows, adjoint(vh[..., :k, :])], -2)


def _unpack(y, m):
    return y[..., :m, :], np.real(y[..., m, :]), y[..., m + 1 :, :]


_svd = custom(
    _svd_value,
    lambda primals, active, y, full: _svd_residuals(y, primals[0].shape[-2]),
    lambda residuals, tangents, full: _svd_push(residuals, tangents[0]),
    lambda residuals, ct, full: [_svd_pull(residuals, ct)],
    name="svd",
)


def _svd_residuals(y, m):
    u, s, v = _unpack(y, m)
    scale = largest(primal_of(s), -1)
    column, row, entries = s[..., None, :], s[..., :, None], None
    phases = y.dtype.kind == "c"
    minus = reciprocals(column - row, scale, keep_diagonal=False)
    plus = reciprocals(column + row, scale, keep_diagonal=phases)
    if phases:  # LAPACK's reflectors leave the first row of one factor real
        pivot = 0 if m < v.shape[-2] else m
        w = np.concatenate([u, v], -2)
        entries = real_entries(w, beside(w).arange(w.shape[-2])[:, None] == pivot)
    return u, v, minus, plus, reciprocals(column, scale), entries


def _svd_push(residuals, t):
    u, v, minus, plus, inverse, entries = residuals
    m = adjoint(u) @ (t @ v)
    even, odd = guarded(minus, m + adjoint(m)), guarded(plus, m - adjoint(m))
    tu, tv = u @ ((even + odd) / 2), v @ ((even - odd) / 2)
    if u.shape[-2] > u.shape[-1]:
        tu = tu + guarded(inverse, t @ v - u @ m)
    if v.shape[-2] > v.shape[-1]:
        tv = tv + guarded(inverse, adjoint(t) @ u - v @ adjoint(m))
    if entries is not None:
        turned = keep_phases(np.concatenate([tu, tv], -2), np.concatenate([u, v], -2), entries)
        tu, tv = turned[..., : u.shape[-2], :], turned[..., u.shape[-2] :, :]
    ts = np.astype(np.real(diagonals(m)), tu.dtype)
    return np.concatenate([tu, ts[..., None, :], tv], -2)


def _svd_pull(residuals, ct):
    u, v, minus, plus, inverse, entries = residuals
    ctu, cts, ctv = _unpack(ct, u.shape[-2])
    if entries is not None:
        turned = keep_phases_transposed(
            np.concatenate([ctu, ctv], -2), np.concatenate([u, v], -2), entries
        )
        ctu, ctv = turned[..., : u.shape[-2], :], turned[..., u.shape[-2] :, :]
    left, right = adjoint(u) @ ctu, adjoint(v) @ ctv
    even, odd = guarded(minus, (left + right) / 2), guarded(plus, (left - right) / 2)
    ctm = spread_diagonals(cts) + even + adjoint(even) + odd - adjoint(odd)
    cta = 0
    if u.shape[-2] > u.shape[-1]:
        outside = guarded(inverse, ctu)
        ctm = ctm - adjoint(u) @ outside
        cta = cta + outside @ adjoint(v)
    if v.shape[-2] > v.shape[-1]:
        outside = guarded(inverse, ctv)
        ctm = ctm - adjoint(outside) @ v
        cta = cta + u @ adjoint(outside)
    return cta + u @ ctm @ adjoint(v)


# The vectors U2 that complete U to a basis, of U2' a = 0: dU2 = -(a+)' da' U2, none along U2.
_complement = custom(
    lambda a, u2: u2,
    lambda primals, active, y: (adjoint(np.linalg.pinv(primals[0])), y),
    lambda residuals, tangents: -residuals[0] @ (adjoint(tangents[0]) @ residuals[1]),
    lambda residuals, ct: [-residuals[1] @ (adjoint(ct) @ residuals[0]), None],
    name="svd complement",
)


# A singular value that vanishes has a kink, like abs: its tangent is 0.
def _values_residuals(primals, active, y):
    u, _, vh = np.linalg.svd(primals[0], full_matrices=False)
    s = primal_of(y)
    tiny = 8 * max(primals[0].shape[-2:]) * epsilon(y) * largest(s, -1)
    kept = (s > tiny[..., None])[..., None, :]
    return np.where(kept, u, 0), np.where(kept, adjoint(vh), 0)


_svdvals = custom(
    lambda a: np.linalg.svd(a, compute_uv=False),
    _values_residuals,
    lambda uv, tangents: np.real(np.sum(np.conj(uv[0]) * (tangents[0] @ uv[1]), -2)),
    lambda uv, ct: [(uv[0] * ct[..., None, :]) @ adjoint(uv[1])],
    name="svdvals",
)


@implements(np.linalg.svd)
def svd(a: Array, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False):
    """U, s and V' of a (..., m, n), or s alone."""
    a = matrices(a)
    if hermitian:
        return _svd_hermitian(a, compute_uv)
    if not compute_uv:
        return _svdvals(a)
    m, n = a.shape[-2:]
    full = bool(full_matrices) and m != n
    u, s, v = _unpack(_svd(a, full=full), m)
    vh = adjoint(v)
    if full:
        plain = np.linalg.svd(primal_of(a))
        if m > n:
            u = np.concatenate([u, _complement(a, plain[0][..., :, n:])], -1)
        else:
            rest = _complement(adjoint(a), adjoint(plain[2][..., m:, :]))
            vh = np.concatenate([vh, adjoint(rest)], -2)
    return result_type(np.linalg.svd)(u, s, vh)


def _svd_hermitian(a, compute_uv):
    """From eigenvalues: s = |w| in descending order, with the signs moved into V'."""
    if not compute_uv:
        return np.sort(np.abs(np.linalg.eigvalsh(a)), axis=-1)[..., ::-1]
    w, u = np.linalg.eigh(a)
    order = np.argsort(np.abs(primal_of(w)), axis=-1)[..., ::-1]
    s = np.take_along_axis(np.abs(w), order, -1)
    sign = np.take_along_axis(np.sign(primal_of(w)), order, -1)
    u = np.take_along_axis(u, order[..., None, :], -1)
    return result_type(np.linalg.svd)(u, s, adjoint(u * sign[..., None, :]))


@implements(np.linalg.svdvals)
def svdvals(x: Array, /) -> Array:
    return _svdvals(matrices(x))


# --- QR, at least as tall as wide: with X = Q' da R^-1, its strictly lower part turns Q. The
# diagonal of LAPACK's R is real, so the imaginary part of X's diagonal turns Q too.


def _turn(x):
    lower = np.tril(x, -1)
    turn = lower - adjoint(lower)
    return turn if x.dtype.kind != "c" else turn + spread_diagonals(1j * np.imag(diagonals(x)))


def _turn_transposed(g):
    lower = np.tril(g - adjoint(g), -1)
    return lower if g.dtype.kind != "c" else lower + spread_diagonals(1j * np.imag(diagonals(g)))


def _qr_value(a):
    q, r = np.linalg.qr(a)
    return np.concatenate([q, np.swapaxes(r, -1, -2)], -2)


def _split_qr(y):
    n = y.shape[-1]
    return y[..., :-n, :], np.swapaxes(y[..., -n:, :], -1, -2)


def _qr_residuals(primals, active, y):
    q, r = _split_qr(y)
    return q, r, _inverse_factor(r)


def _inverse_factor(r):
    """R^-1; NaN from the first column on that depends on those before it, for then Q is not unique.

    The columns before it do not see the diagonal entry that is replaced.
    """
    size = np.abs(primal_of(r))
    tiny = 8 * r.shape[-1] * epsilon(r) * largest(size, (-2, -1))
    lost = diagonals(size) <= tiny[..., None]
    if not np.any(lost):
        return np.linalg.inv(r)
    inverse = np.linalg.inv(np.where(eye_like(r) & lost[..., None, :], 1, r))
    return np.where(np.cumsum(lost, axis=-1)[..., None, :] > 0, math.nan, inverse)


def _qr_push(residuals, tangents):
    q, r, inverse = residuals
    moved = tangents[0] @ inverse
    x = adjoint(q) @ moved
    turn = _turn(x)
    tr = np.triu(x - turn) @ r
    return np.concatenate([q @ (turn - x) + moved, np.swapaxes(tr, -1, -2)], -2)


def _qr_pull(residuals, ct):
    q, r, inverse = residuals
    ctq, ctr = _split_qr(ct)
    ctx = np.triu(ctr @ adjoint(r))
    back = adjoint(q) @ ctq
    ctx = ctx - back + _turn_transposed(back - ctx)
    return [(ctq + q @ ctx) @ adjoint(inverse)]


_qr = custom(_qr_value, _qr_residuals, _qr_push, _qr_pull, name="qr")


def _reduced(a):
    """Q (..., m, k) and R (..., k, n), k the smaller of m and n; the first k columns give Q."""
    m, n = a.shape[-2:]
    if n == 0 or m == 0:
        return np.linalg.qr(primal_of(a))
    q, r = _split_qr(_qr(a[..., :, : min(m, n)]))
    return q, r if m >= n else np.concatenate([r, adjoint(q) @ a[..., :, m:]], -1)


def _reflectors(a):
    """Householder's v, below its leading 1, and tau of each column, as LAPACK's geqrf has them."""
    for _ in range(min(a.shape[-2:])):
        x = a[..., :, 0]
        alpha, rest = x[..., 0], x[..., 1:]
        sign = np.where(primal_of(alpha).real < 0, -1, 1).astype(primal_of(x).real.dtype)
        beta = -sign * np.linalg.norm(x, axis=-1)
        v = rest / (alpha - beta)[..., None]
        tau = (beta - alpha) / beta
        yield v, tau
        top, below = a[..., :1, 1:], a[..., 1:, 1:]  # what is left is cleared row by row
        a = below - _times_reflector(v, np.conj(tau), top + np.conj(v)[..., None, :] @ below)


def _times_reflector(v, tau, along):
    return v[..., :, None] * (tau[..., None, None] * along)


def _completion(a):
    """The columns of Q beyond a's: the product of the reflectors, applied to the last unit vectors.

    A reflector that LAPACK skips (nothing to clear below the diagonal) turns a row that is 0.
    """
    m, n = a.shape[-2:]
    x = np.broadcast_to(beside(a).eye(m - n, dtype=a.dtype), (*a.shape[:-2], m - n, m - n))
    for v, tau in reversed(list(_reflectors(a))):  # each reaches one row further up
        along = np.conj(v)[..., None, :] @ x
        top = -tau[..., None, None] * along
        x = np.concatenate([top, x - _times_reflector(v, tau, along)], -2)
    return x


def _undefined(x, mask):
    """x with NaN for a slope where the mask holds, and untouched elsewhere, in reverse too."""
    return np.where(mask, math.nan * np.where(mask, x, 0), x)


def _raw(a):
    """LAPACK's (h, tau): R and, below its diagonal, the reflectors; transposed."""
    m, n = a.shape[-2:]
    plain = np.linalg.qr(primal_of(a), mode="raw")
    r = _reduced(a)[1]
    columns, taus = [], []
    for j, (v, tau) in enumerate(_reflectors(a)):
        skipped = primal_of(plain[1])[..., j] == 0  # a jump: any entry below would switch it on
        if m == j + 1 and a.dtype.kind != "c":
            tau = np.zeros_like(tau)
        else:
            tau, v = _undefined(tau, skipped), _undefined(v, skipped[..., None])
        columns.append(np.concatenate([r[..., : j + 1, j], v], -1))
        taus.append(tau)
    columns += [r[..., :, j] for j in range(m, n)]
    return with_value(np.stack(columns, -2), plain[0]), with_value(np.stack(taus, -1), plain[1])


@implements(np.linalg.qr)
def qr(a: Array, mode: Any = "reduced"):
    """Q and R of a (..., m, n), reduced or complete; R alone ("r"); or LAPACK's h, tau ("raw")."""
    a = matrices(a)
    if mode == "raw" and a.size:
        return _raw(a)
    if mode not in ("reduced", "complete", "r") or not a.size:
        return np.linalg.qr(primal_of(a), mode)  # NumPy's own error, or nothing that moves
    q, r = _reduced(a)
    if mode == "r":
        return r
    m, n = a.shape[-2:]
    if mode == "complete" and m > n:
        last = np.linalg.qr(primal_of(a), "complete")[0][..., :, n:]
        q = np.concatenate([q, with_value(_completion(a), last)], -1)
        r = np.concatenate([r, beside(r).zeros((*r.shape[:-2], m - n, n), r.dtype)], -2)
    return result_type(np.linalg.qr)(q, r)


# --- Cholesky: a = L L'. With X = L^-1 da L^-1', dL = L times X's lower triangle, diagonal halved.


def _lower_half(x):
    return np.tril(x, -1) + spread_diagonals(np.real(diagonals(x)) / 2)


_cholesky = custom(
    lambda a: np.linalg.cholesky(a),
    lambda primals, active, y: (y, np.linalg.inv(y)),
    lambda residuals, tangents: _cholesky_push(residuals, tangents[0]),
    lambda residuals, ct: [_cholesky_pull(residuals, ct)],
    name="cholesky",
)


def _cholesky_push(residuals, t):
    factor, inverse = residuals
    return np.tril(factor @ _lower_half(inverse @ t @ adjoint(inverse)))


def _cholesky_pull(residuals, ct):
    factor, inverse = residuals
    return adjoint(inverse) @ _lower_half(adjoint(factor) @ np.tril(ct)) @ inverse


@implements(np.linalg.cholesky)
def cholesky(a: Array, /, *, upper: bool = False) -> Array:
    """L with L L' = a, or its adjoint if upper; a is Hermitian, and one triangle of it is read."""
    factor = _cholesky(hermitian(matrices(a, square=True), lower=not upper))
    return adjoint(factor) if upper else factor
