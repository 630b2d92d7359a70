"""Linear systems, inverses and powers, for stacks of matrices.

Formulas: G. H. Golub and V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least
squares problems whose variables separate" (1973), equation 4.12, for pinv.
"""

import math
import operator

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..beside import beside
from ..dual import Array, primal_of
from ..errors import ShapeError
from ..operations import implements
from ..primitive import align, custom, unbroadcast
from .gauges import adjoint, epsilon, hermitian, matrices, with_value
from .results import array

# a y = b, so a dy = db - da y.
_solve = custom(
    np.linalg.solve,
    lambda primals, active, y: (primals[0], y, active, primals[0].shape, primals[1].shape),
    lambda residuals, tangents: _solve_push(residuals, *tangents),
    lambda residuals, ct: _solve_pull(residuals, ct),
    name="solve",
)


def _solve_push(residuals, ta, tb):
    a, y, _, a_shape, b_shape = residuals
    ndim = max(len(a_shape), len(b_shape))
    moved = None if tb is None else align(tb, ndim)
    if ta is not None:
        turned = np.matmul(align(ta, ndim), y)
        moved = -turned if moved is None else moved - turned
    return np.linalg.solve(a, moved)


def _solve_pull(residuals, ct):
    a, y, active, a_shape, b_shape = residuals
    ctb = np.linalg.solve(adjoint(a), ct)
    cta = -np.matmul(ctb, adjoint(y)) if active[0] else None
    return [
        None if cta is None else unbroadcast(cta, a_shape),
        unbroadcast(ctb, b_shape) if active[1] else None,
    ]


# y a = 1, so dy = -y da y.
_inv = custom(
    np.linalg.inv,
    lambda primals, active, y: y,
    lambda y, tangents: -np.matmul(np.matmul(y, tangents[0]), y),
    lambda y, ct: [-np.matmul(np.matmul(adjoint(y), ct), adjoint(y))],
    name="inv",
)


@implements(np.linalg.solve)
def solve(a: Array, b: Array) -> Array:
    """x with a @ x = b, for a (..., n, n) and b (n,) or (..., n, m)."""
    a, b = array(a), array(b)
    return _solve(a, b[:, None])[..., 0] if b.ndim == 1 else _solve(a, b)


@implements(np.linalg.inv)
def inv(a: Array) -> Array:
    return _inv(matrices(a, square=True))


@implements(np.linalg.tensorinv)
def tensorinv(a: Array, ind: int = 2) -> Array:
    a = array(a)
    if ind <= 0:
        raise ValueError("Invalid ind argument.")
    rows = math.prod(a.shape[ind:])
    return np.reshape(
        np.linalg.inv(np.reshape(a, (rows, -1))), (*a.shape[ind:], *a.shape[:ind])
    )  # fmt: skip


@implements(np.linalg.tensorsolve)
def tensorsolve(a: Array, b: Array, axes=None) -> Array:
    a, b = array(a), array(b)
    order = list(range(a.ndim))
    for axis in axes or ():
        order.remove(axis)
        order.append(axis)
    a = np.transpose(a, order)
    shape = a.shape[b.ndim - a.ndim :] if a.ndim > b.ndim else a.shape
    n = math.prod(shape)
    if a.size != n * n:
        raise np.linalg.LinAlgError(
            f"tensorsolve: a, reordered to {a.shape}, is not square for b of shape {b.shape}."
        )
    return np.reshape(np.linalg.solve(np.reshape(a, (n, n)), np.ravel(b)), shape)


@implements(np.linalg.matrix_power)
def matrix_power(a: Array, n: int) -> Array:
    """a @ a @ ... n times; a negative n takes the inverse first, and n = 0 gives a plain result."""
    a, n = matrices(a), operator.index(n)
    identity = np.linalg.matrix_power(primal_of(a), 0)  # NumPy's errors for what is not square
    if n == 0:
        return identity
    square = np.linalg.inv(a) if n < 0 else a
    result, n = None, abs(n)
    while n:
        n, odd = divmod(n, 2)
        if odd:
            result = square if result is None else np.matmul(result, square)
        square = np.matmul(square, square) if n else square
    return result


# --- the pseudo-inverse Y at constant rank:
# dY = -Y da Y + Y Y' da' (1 - a Y) + (1 - Y a) da' Y' Y


def _pinv_residuals(primals, active, y, rcond):
    (a,) = primals
    one = lambda n: beside(a).eye(n, dtype=a.dtype)  # noqa: E731
    return y, y @ adjoint(y), one(a.shape[-2]) - a @ y, one(a.shape[-1]) - y @ a, adjoint(y) @ y


def _pinv_push(residuals, tangents, rcond):
    y, yy, left, right, y_y = residuals
    t = tangents[0]
    back = adjoint(t)
    return yy @ (back @ left) + right @ (back @ y_y) - y @ (t @ y)


def _pinv_pull(residuals, ct, rcond):
    y, yy, left, right, y_y = residuals
    back = adjoint(ct)
    return [left @ (back @ yy) + y_y @ (back @ right) - adjoint(y) @ (ct @ adjoint(y))]


_pinv = custom(
    lambda a, rcond: np.linalg.pinv(a, rcond),
    _pinv_residuals,
    _pinv_push,
    _pinv_pull,
    name="pinv",
)


@implements(np.linalg.pinv)
def pinv(a: Array, rcond=None, hermitian: bool = False, *, rtol=np._NoValue) -> Array:
    """The pseudo-inverse (..., n, m); singular values below the cut-off count as zeros that stay.

    The derivative is that at constant rank. Where rank changes, pinv jumps and has none.
    """
    a = matrices(a)
    if rcond is not None and rtol not in (np._NoValue, None):
        raise ValueError("`rtol` and `rcond` can't be both set.")
    if rcond is None and rtol is np._NoValue:
        rcond = 1e-15
    elif rcond is None:
        rcond = max(a.shape[-2:], default=1) * epsilon(a) if rtol is None else rtol
    a = _symmetric(a) if hermitian else a
    return _cut_pinv(a, rcond) if _cuts(a, rcond) else _pinv(a, rcond=primal_of(rcond))


def _symmetric(a):
    """What LAPACK reads of a Hermitian argument."""
    return hermitian(a)


def _cuts(a, rcond):
    """Whether the cut-off drops singular values that are more than rounding."""
    rounding = 64 * max(a.shape[-2:], default=1) * epsilon(a)
    rcond = beside(a).asarray(primal_of(rcond))
    if a.size == 0 or not np.any(rcond > rounding):
        return False
    s = np.linalg.svd(primal_of(a), compute_uv=False)
    largest = np.max(s, axis=-1, keepdims=True)
    return bool(np.any((s <= rcond[..., None] * largest) & (s > rounding * largest)))


def _cut_pinv(a, rcond):
    """The pseudo-inverse of the part of a above the cut-off, from singular vectors."""
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    plain = primal_of(s)
    rcond = beside(a).asarray(primal_of(rcond))[..., None]
    kept = plain > rcond * np.max(plain, axis=-1, keepdims=True)
    columns = kept[..., None, :]
    inverse = np.where(kept, 1 / np.where(kept, s, 1), 0)
    v = np.where(columns, adjoint(vh), 0) * inverse[..., None, :]
    return v @ adjoint(np.where(columns, u, 0))


@implements(np.linalg.lstsq)
def lstsq(a: Array, b: Array, rcond=None):
    """(x, residuals, rank, s): the shortest x with least |a x - b|, for a (m, n), b (m[, k])."""
    a, b = matrices(a), array(b)
    x, residuals, rank, s = np.linalg.lstsq(primal_of(a), primal_of(b), rcond)
    m, n = a.shape
    cut = max(m, n) * epsilon(s) if rcond is None else epsilon(s) if rcond < 0 else rcond
    x = with_value(np.matmul(np.linalg.pinv(a, cut), b), x)
    if residuals.size:
        miss = b - np.matmul(a, x)
        squares = np.sum(np.real(miss * np.conj(miss)), 0)
        residuals = with_value(np.reshape(squares, residuals.shape), residuals)
    return x, residuals, rank, np.linalg.svdvals(a)


# --- products of three-vectors


@implements(np.cross)
def cross(a, b, axisa=-1, axisb=-1, axisc=-1, axis=None):
    """a x b of three-vectors along an axis; a third component that is missing counts as 0."""
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = np.moveaxis(array(a), axisa, -1), np.moveaxis(array(b), axisb, -1)
    if a.shape[-1] not in (2, 3) or b.shape[-1] not in (2, 3):
        raise ShapeError(
            f"np.cross: the axes must have length 3, got {a.shape} and {b.shape} (axes moved last)."
        )
    if a.shape[-1] == 2 == b.shape[-1]:
        return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    a, b = _three(a), _three(b)
    first, second = [1, 2, 0], [2, 0, 1]
    y = a[..., first] * b[..., second] - a[..., second] * b[..., first]
    return np.moveaxis(y, -1, normalize_axis_index(axisc, y.ndim))


def _three(x):
    if x.shape[-1] == 3:
        return x
    return np.concatenate([x, beside(x).zeros((*x.shape[:-1], 1), x.dtype)], -1)


@implements(np.linalg.cross)
def three_cross(x1: Array, x2: Array, /, *, axis: int = -1) -> Array:
    x1, x2 = array(x1), array(x2)
    if x1.shape[axis] != 3 or x2.shape[axis] != 3:
        raise ShapeError(
            f"np.linalg.cross: axis {axis} must have length 3, got {x1.shape} and {x2.shape}."
        )
    return cross(x1, x2, axis=axis)
