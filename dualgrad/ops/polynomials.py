"""Convolution of sequences, and polynomials by their coefficients (highest power first)."""

import numpy as np

from ..beside import beside
from ..dual import primal_of
from ..operations import implements
from ..primitive import Primitive, bilinear, custom
from .results import array, array_beside, together

# --- convolution: bilinear, and its transposes are convolutions with one factor reversed


def _each(function, t):
    return np.stack([function(row) for row in t])


def _correlated(ct, other, n):
    """The cotangent of one factor of length n, from that of the product and the other factor."""
    m = other.shape[0]
    return _each(lambda row: _convolve(row, np.flip(other))[m - 1 : m - 1 + n], ct)


_convolve: Primitive = bilinear(
    lambda a, b: np.convolve(a, b),
    left=lambda ta, b: _each(lambda row: _convolve(row, b), ta),
    right=lambda a, tb: _each(lambda row: _convolve(a, row), tb),
    left_t=lambda ct, b, shape: _correlated(ct, b, shape[0]),
    right_t=lambda a, ct, shape: _correlated(ct, a, shape[0]),
    name="convolve",
)


@implements(np.convolve)
def convolve(a, v, mode="full"):
    a, v = np.atleast_1d(array(a)), np.atleast_1d(array(v))
    if a.ndim > 1 or v.ndim > 1:
        raise ValueError("np.convolve takes sequences, arrays of one axis.")
    if a.size == 0 or v.size == 0:
        raise ValueError(f"np.convolve: {'a' if a.size == 0 else 'v'} cannot be empty")
    long, short = max(a.size, v.size), min(a.size, v.size)
    y = _convolve(a, v)
    if mode == "full":
        return y
    if mode == "same":
        start = (short - 1) // 2
        return y[start : start + long]
    if mode == "valid":
        return y[short - 1 : long]
    raise ValueError(f"mode={mode!r}; give 'full', 'same' or 'valid'.")


@implements(np.correlate)
def correlate(a, v, mode="valid"):
    a, v = np.atleast_1d(array(a)), np.atleast_1d(array(v))
    y = np.convolve(a, np.flip(np.conj(v)), "full" if mode == "same" else mode)
    if mode != "same":
        return y
    long, short = max(a.size, v.size), min(a.size, v.size)
    start = (short - 1) // 2 if v.size <= a.size else short // 2
    return y[start : start + long]


# --- polynomials


def _raised(p, size):
    """The coefficients with zeros in front, `size` in all."""
    return np.concatenate([beside(p).zeros(size - p.size, p.dtype), p]) if size > p.size else p


@implements(np.polyval)
def polyval(p, x):
    p = np.atleast_1d(array(p))
    x = array(x)
    y = beside(x).zeros(x.shape, x.dtype)
    for coefficient in p:
        y = y * x + coefficient
    return y


@implements(np.polyadd)
def polyadd(a1, a2):
    a1, a2 = map(np.atleast_1d, together((a1, a2)))
    size = max(a1.size, a2.size)
    return _raised(a1, size) + _raised(a2, size)


@implements(np.polysub)
def polysub(a1, a2):
    a1, a2 = map(np.atleast_1d, together((a1, a2)))
    size = max(a1.size, a2.size)
    return _raised(a1, size) - _raised(a2, size)


@implements(np.polymul)
def polymul(a1, a2):
    return np.convolve(array(a1), array(a2))


@implements(np.polyder)
def polyder(p, m=1):
    if m < 0:
        raise ValueError("Order of derivative must be positive (see polyint)")
    p = np.atleast_1d(array(p))
    for _ in range(m):
        p = p[:-1] * beside(p).arange(p.size - 1, 0, -1)
    return p


@implements(np.polyint)
def polyint(p, m=1, k=None):
    if m < 0:
        raise ValueError("Order of integral must be positive (see polyder)")
    p = np.atleast_1d(array(p))
    constants = beside(p).zeros(m) if k is None else np.ravel(array_beside(k, p))
    if constants.size == 1 < m:
        constants = np.broadcast_to(constants, (m,))
    if constants.size < m:
        raise ValueError("k must be a scalar or a rank-1 array of length 1 or >m.")
    for i in range(m):
        p = np.concatenate([p / beside(p).arange(p.size, 0, -1), constants[i : i + 1]])
    return p


@implements(np.polydiv)
def polydiv(u, v):
    """Quotient and remainder; leading zeros of the remainder's primal are left out."""
    u, v = np.atleast_1d(array(u)) + 0.0, np.atleast_1d(array(v)) + 0.0
    scale = 1.0 / v[0]
    n = v.size
    quotient = []
    for _ in range(max(u.size - n + 1, 1)):
        if u.size < n:
            quotient.append(np.zeros_like(u[0]))
            break
        quotient.append(scale * u[0])
        u = np.concatenate([u[1:n] - quotient[-1] * v[1:], u[n:]])
    # NumPy's remainder begins with the zeros that division left, and drops all of them but one.
    u = u if u.size else np.zeros_like(u, shape=(1,))
    while u.size > 1 and np.allclose(primal_of(u[0]), 0, rtol=1e-14):
        u = u[1:]
    return np.stack(quotient), u


@implements(np.vander)
def vander(x, N=None, increasing=False):
    x = array(x)
    if x.ndim != 1:
        raise ValueError("x must be a one-dimensional array or sequence.")
    x = np.astype(x, np.promote_types(x.dtype, int), copy=False)
    powers = [beside(x).ones(x.shape, x.dtype)]
    N = x.size if N is None else N
    for _ in range(N - 1):
        powers.append(powers[-1] * x)
    if N == 0:
        return beside(x).zeros((x.size, 0), x.dtype)
    return np.stack(powers if increasing else powers[::-1], 1)


# p(r) = 0, so p'(r) dr = -dp(r).
_roots = custom(
    lambda p: np.roots(p),
    lambda primals, active, y: (
        np.vander(y, primals[0].shape[0]),
        np.polyval(polyder(primals[0]), y),
        primals[0].dtype.kind,
    ),
    lambda residuals, tangents: -np.matmul(tangents[0], residuals[0].T) / residuals[1],
    lambda residuals, ct: [_roots_pull(residuals, ct)],
    name="roots",
)


def _roots_pull(residuals, ct):
    powers, slope, kind = residuals
    ct = -np.matmul(ct / np.conj(slope), np.conj(powers))
    return ct if kind == "c" else np.real(ct)


@implements(np.roots)
def roots(p):
    """The roots, in NumPy's order; a root of a higher multiplicity has no finite tangent."""
    p = np.atleast_1d(p)
    if p.ndim != 1:
        raise ValueError("Input must be a rank-1 array.")
    return _roots(p)


def _characteristic_residuals(primals, active, y):
    """The coefficients B_k of the adjugate of s - A in s, highest power first.

    Source: Faddeev and LeVerrier; F. R. Gantmacher, The Theory of Matrices, vol. 1, IV.4-5.
    """
    (a,) = primals
    unit = beside(a).eye(a.shape[0], dtype=primal_of(a).dtype)
    adjugate = [unit]
    for k in range(1, a.shape[0]):
        adjugate.append(np.matmul(a, adjugate[-1]) + y[k] * unit)
    return np.stack(adjugate), y.dtype, a.dtype


# det(s - A) moves by -trace(adj(s - A) dA).
_characteristic = custom(
    lambda a: np.poly(a),
    _characteristic_residuals,
    lambda residuals, tangents: _characteristic_push(residuals, tangents[0]),
    lambda residuals, ct: [_characteristic_pull(residuals, ct)],
    name="poly",
)


def _characteristic_push(residuals, t):
    adjugate, dtype, _ = residuals
    moved = -np.einsum("nij,kji->kn", adjugate, t)
    moved = np.real(moved) if dtype.kind != "c" else moved
    return np.concatenate([beside(t).zeros((len(t), 1), moved.dtype), moved], 1)


def _characteristic_pull(residuals, ct):
    adjugate, _, dtype = residuals
    ct = -np.einsum("nij,kn->kji", np.conj(adjugate), ct[:, 1:])
    return np.real(ct) if dtype.kind != "c" else ct


@implements(np.poly)
def poly(seq_of_zeros):
    """The monic polynomial with these roots, or the characteristic polynomial of a matrix."""
    x = np.atleast_1d(array(seq_of_zeros))
    if x.ndim == 2 and x.shape[0] == x.shape[1] and x.size:
        return _characteristic(x)
    if x.ndim != 1:
        raise ValueError("input must be 1d or non-empty square 2d array.")
    if x.size == 0:
        return 1.0
    y = beside(x).ones(1, x.dtype)
    for root in x:
        y = np.convolve(y, np.stack([np.ones_like(primal_of(root)), -root]))
    if y.dtype.kind == "c" and not np.iscomplexobj(np.poly(primal_of(x))):
        y = np.real(y)  # the roots come in conjugate pairs
    return y


@implements(np.polyfit)
def polyfit(x, y, deg, rcond=None, full=False, w=None, cov=False):
    """The least-squares polynomial, and what NumPy gives beside it; all three may move."""
    x, y = array(x) + 0.0, array(y) + 0.0
    if deg < 0:
        raise ValueError("expected deg >= 0")
    if x.ndim != 1 or x.size == 0 or y.ndim not in (1, 2) or len(y) != x.size:
        raise TypeError("expected x and y to have same length")
    rcond = x.size * np.finfo(x.dtype).eps if rcond is None else rcond
    left, right = np.vander(x, deg + 1), y
    if w is not None:
        w = array(w) + 0.0
        left = left * w[:, None]
        right = right * (w if right.ndim == 1 else w[:, None])
    scale = np.sqrt(np.sum(left * left, 0))
    left = left / scale
    solution, residues, rank, singular = np.linalg.lstsq(left, right, rcond)
    solution = (solution.T / scale).T
    if full:
        return solution, residues, rank, singular, rcond
    if not cov:
        return solution
    base = np.linalg.inv(np.matmul(left.T, left)) / np.outer(scale, scale)
    if cov == "unscaled":
        factor = 1
    else:
        if x.size <= deg + 1:
            raise ValueError("the number of data points must exceed order to scale the covariance")
        factor = residues / (x.size - deg - 1)
    return solution, base * factor if y.ndim == 1 else base[:, :, None] * factor
