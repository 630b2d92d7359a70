"""What the rules of decompositions share: triangles, gaps between values, phases of vectors."""

import functools
import math

import numpy as np

from ..beside import as_array, beside
from ..dual import DualTensor, primal_of
from ..primitive import custom
from .results import array


def adjoint(a):
    """Return the conjugate transpose of the last two axes."""
    a = np.swapaxes(a, -1, -2)
    return np.conj(a) if a.dtype.kind == "c" else a


def matrices(a, square=False):
    """Return a as an array of matrices; LinAlgError, as NumPy has it, where it is none."""
    a = array(a)
    if a.ndim < 2:
        raise np.linalg.LinAlgError(
            f"{a.ndim}-dimensional array given (shape {a.shape}). Array must be at least "
            f"two-dimensional: matrices are the last two axes."
        )
    if square and a.shape[-1] != a.shape[-2]:
        raise np.linalg.LinAlgError(
            f"Last 2 dimensions of the array must be square, not {a.shape[-2:]} (shape {a.shape})."
        )
    return a


def hermitian(a, lower=True):
    """Return the Hermitian matrices that LAPACK sees when it reads one triangle of a."""
    strict = np.tril(a, -1) if lower else np.triu(a, 1)
    return strict + np.where(eye_like(a), np.real(a), 0) + adjoint(strict)


def eye_like(a):
    """Return the identity of a's matrices as booleans."""
    return beside(a).eye(a.shape[-2], a.shape[-1], dtype=bool)


def diagonals(a):
    """Return the diagonals of the last two axes, (..., n)."""
    return np.diagonal(a, 0, -2, -1)


def spread_diagonals(d):
    """Return diagonal matrices (..., n, n) of vectors (..., n)."""
    return np.where(
        eye_like(np.broadcast_to(d[..., None], (*d.shape, d.shape[-1]))), d[..., None], 0
    )


def epsilon(x):
    """Return the machine epsilon of x's dtype, a Python number."""
    return float(np.finfo(x.dtype).eps)


def largest(x, axis, keepdims=False):
    """Return the largest of numbers that are not negative; 0 where there are none."""
    function = np.max if x.size else np.sum  # CuPy's max takes no initial=
    return function(x, axis=axis, keepdims=keepdims)


@functools.cache
def result_type(function):
    """Return the named tuple of numpy.linalg that a function returns."""
    return type(function(np.eye(1)))


# The first argument's tangents with the value given: what a composition computes, as LAPACK has it.
with_value = custom(
    lambda x, value: value,
    lambda primals, active, y: None,
    lambda residuals, tangents: tangents[0],
    lambda residuals, ct: [ct, None],
    name="with_value",
)


# --- differences of values, which coincide where vectors are not unique


def reciprocals(x, scale, keep_diagonal=True):
    """Return 1 / x for the gaps x, NaN where they vanish to rounding.

    Args:
        x: (..., m, n). scale: (...), the largest value of each matrix, plain.
        keep_diagonal: False gives 0 on the diagonal.
    """
    tiny = 8 * max(x.shape[-2:], default=1) * epsilon(x) * as_array(scale)[..., None, None]
    vanish = np.abs(primal_of(x)) <= tiny
    y = 1 / np.where(vanish, 1, x)
    y = np.where(vanish, math.nan, y) if np.any(vanish) else y
    return y if keep_diagonal else np.where(eye_like(x), 0, y)


def guarded(factor, t):
    """Return factor * t; where factor is NaN the result is too, but 0 for a tangent of 0."""
    undefined = np.isnan(primal_of(factor))
    if not np.any(undefined):
        return factor * t
    return np.where(undefined & _is_zero(t), 0, factor * t)


def _is_zero(t):
    """Whether entries are 0 at every level: a 0 that moves with an outer level is none."""
    if type(t) is not DualTensor:
        return t == 0
    if not hasattr(t.carrier, "astype"):  # a record: what will pass is not known yet
        return beside(t).zeros(t.shape, bool)
    return _is_zero(t.primal) & np.all(_is_zero(t.carrier), axis=0)


# --- phases: a complex vector that is only defined up to one keeps a chosen entry real


def real_entries(v, pivots):
    """Return 1 / v at the pivots that are real and large enough to hold the phase, else 0.

    Where no pivot qualifies, the vector's change stays orthogonal to the vector. Both choices give
    the same derivative to everything that does not depend on phases.
    """
    plain = primal_of(v)
    real = np.abs(plain.imag) <= 8 * epsilon(v) * np.abs(plain)
    chosen = pivots & real & (np.abs(plain) > epsilon(v) ** 0.25)
    return np.where(chosen, 1 / np.where(chosen, np.real(v), 1), 0)


def keep_phases(x, v, entries):
    """Return changes x of the columns of v, turned so that the pivots stay real."""
    return x - 1j * (v * np.sum(entries * np.imag(x), -2, keepdims=True))


def keep_phases_transposed(g, v, entries):
    """Return the cotangent of x in keep_phases(x, v, entries)."""
    return g - 1j * (entries * np.imag(np.sum(np.conj(v) * g, -2, keepdims=True)))
