"""Linear systems and inverses, for stacks of matrices."""

import numpy as np

from ..dual import Array
from ..operations import implements
from ..primitive import align, custom, unbroadcast
from .products import _array


def _adjoint(a):
    a = np.swapaxes(a, -1, -2)
    return np.conj(a) if a.dtype.kind == "c" else a


# a y = b, so a dy = db - da y.
_solve = custom(
    lambda a, b: np.linalg.solve(a, b),
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
    ctb = np.linalg.solve(_adjoint(a), ct)
    cta = -np.matmul(ctb, _adjoint(y)) if active[0] else None
    return [
        None if cta is None else unbroadcast(cta, a_shape),
        unbroadcast(ctb, b_shape) if active[1] else None,
    ]


# y a = 1, so dy = -y da y.
_inv = custom(
    lambda a: np.linalg.inv(a),
    lambda primals, active, y: y,
    lambda y, tangents: -np.matmul(np.matmul(y, tangents[0]), y),
    lambda y, ct: [-np.matmul(np.matmul(_adjoint(y), ct), _adjoint(y))],
    name="inv",
)


@implements(np.linalg.solve)
def solve(a: Array, b: Array) -> Array:
    """x with a @ x = b, for a (..., n, n) and b (n,) or (..., n, m)."""
    a, b = _array(a), _array(b)
    return _solve(a, b[:, None])[..., 0] if b.ndim == 1 else _solve(a, b)


@implements(np.linalg.inv)
def inv(a: Array) -> Array:
    return _inv(a)
