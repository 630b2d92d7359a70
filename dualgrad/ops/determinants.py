"""Determinants and their logarithms, for stacks of matrices."""

import numpy as np

from ..beside import beside
from ..dual import Array, primal_of
from ..operations import implements
from ..primitive import custom
from .gauges import adjoint, epsilon, matrices, result_type, with_value


def _flow(inverse, t):
    """trace(inverse @ t), over stacks."""
    return np.sum(np.swapaxes(inverse, -1, -2) * t, (-2, -1))


def _flow_transposed(inverse, ct):
    return ct[..., None, None] * adjoint(inverse)


# d det = trace(det a^-1 da)
_det = custom(
    lambda a: np.linalg.det(a),
    lambda primals, active, y: np.expand_dims(y, (-2, -1)) * np.linalg.inv(primals[0]),
    lambda adjugate, tangents: _flow(adjugate, tangents[0]),
    lambda adjugate, ct: [_flow_transposed(adjugate, ct)],
    name="det",
)


@implements(np.linalg.det)
def det(a: Array) -> Array:
    """The determinants (...); derivatives of every order hold for singular matrices too."""
    a = matrices(a, square=True)
    # The inverse costs each order a factor of the condition, so a split takes over early.
    if a.shape[-1] == 0 or np.all(_condition(primal_of(a)) < epsilon(a) ** -0.25):
        return _det(a)
    return with_value(_split_det(a), np.linalg.det(primal_of(a)))


def _condition(a):
    """The condition numbers in the spectral norm, infinite where a is singular."""
    s = np.linalg.svd(a, compute_uv=False)
    low, high = s[..., -1], s[..., 0]
    return np.where(low > 0, high / np.where(low > 0, low, 1), np.inf)


def _split_det(a):
    """det a through constant rotations that gather what is nearly singular in a last, small block.

    B = U' a V is nearly diagonal, and det B = det B11 det(B22 - B21 B11^-1 B12). B11 is well
    conditioned; the other factor is a polynomial, so it needs no inverse.
    """
    u, s, vh = np.linalg.svd(primal_of(a))
    small = s <= epsilon(s) ** 0.25 * s[..., :1]
    n = s.shape[-1] - int(np.max(np.sum(small, axis=-1)))
    b = adjoint(u) @ a @ adjoint(vh)
    b11, b12, b21, b22 = b[..., :n, :n], b[..., :n, n:], b[..., n:, :n], b[..., n:, n:]
    rest = b22 - b21 @ np.linalg.solve(b11, b12) if n else b22
    rotations = np.linalg.det(u) * np.linalg.det(vh)
    return rotations * _polynomial_det(rest) * (_det(b11) if n else 1)


def _polynomial_det(c):
    """det c by the recursion of Faddeev and Le Verrier: products and traces alone."""
    n = c.shape[-1]
    one = beside(c).eye(n, dtype=c.dtype)
    power, coefficient = one, 1
    for k in range(1, n + 1):
        product = c @ power
        coefficient = np.trace(product, 0, -2, -1) / -k
        power = product + np.expand_dims(coefficient, (-2, -1)) * one
    return coefficient * (-1) ** n


# d log|det| = Re trace(a^-1 da), and the sign of a complex determinant turns by the imaginary part.
_log_abs_det = custom(
    lambda a: np.linalg.slogdet(a)[1],
    lambda primals, active, y: np.linalg.inv(primals[0]),
    lambda inverse, tangents: np.real(_flow(inverse, tangents[0])),
    lambda inverse, ct: [_flow_transposed(inverse, ct)],
    name="slogdet",
)
_sign_det = custom(
    lambda a: np.linalg.slogdet(a)[0],
    lambda primals, active, y: (np.linalg.inv(primals[0]), y),
    lambda residuals, tangents: 1j * residuals[1] * np.imag(_flow(residuals[0], tangents[0])),
    lambda residuals, ct: [
        _flow_transposed(residuals[0], 1j * np.imag(ct * np.conj(residuals[1])))
    ],
    name="sign of det",
)  # fmt: skip


@implements(np.linalg.slogdet)
def slogdet(a: Array):
    """(sign, log|det|); the sign of a real determinant is piecewise constant, a plain array.

    Raises:
        numpy.linalg.LinAlgError: a matrix is singular, so that log|det| has no derivative.
    """
    a = matrices(a, square=True)
    sign = _sign_det(a) if a.dtype.kind == "c" else np.linalg.slogdet(primal_of(a))[0]
    return result_type(np.linalg.slogdet)(sign, _log_abs_det(a))
