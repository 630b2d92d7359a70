"""Norms of vectors and matrices, and condition numbers."""

import math

import numpy as np

from ..beside import beside
from ..dual import Array, missing_rule, primal_of
from ..errors import OptionError, ShapeError
from ..operations import implements
from ..primitive import constant
from .gauges import with_value
from .reductions import _norm_of
from .results import array, is_dual
from .structural import negative_axes

implements(np.linalg.matrix_rank, differentiable=False)(constant(np.linalg.matrix_rank))


@implements(np.linalg.norm)
def norm(x: Array, ord=None, axis=None, keepdims: bool = False) -> Array:
    """The norm of vectors (one axis) or matrices (two), or of all entries."""
    x = array(x)
    if x.size == 0:  # nothing moves
        return np.linalg.norm(primal_of(x), primal_of(ord), axis, keepdims)
    axes = negative_axes(axis, x.ndim)
    if ord is None and (axis is None or len(axes) <= 2):
        return _norm_of(x, axes, keepdims)
    if len(axes) == 1:
        return _vector_norm(x, ord, axes, keepdims)
    if len(axes) == 2:
        return _matrix_norm(x, ord, axes, keepdims)
    raise ShapeError(
        f"np.linalg.norm: ord={ord!r} takes one or two axes, not {len(axes)} (x {x.shape}). "
        f"Improper number of dimensions to norm; name them with axis=."
    )


def _vector_norm(x, ord, axes, keepdims):
    if isinstance(ord, str):
        raise OptionError(f"np.linalg.norm: Invalid norm order {ord!r} for vectors.")
    if ord == 2 and not is_dual(ord):
        return _norm_of(x, axes, keepdims)
    if ord in (math.inf, -math.inf):
        return (np.max if ord > 0 else np.min)(np.abs(x), axis=axes, keepdims=keepdims)
    if ord == 0:
        counted = (primal_of(x) != 0).astype(primal_of(x).real.dtype)
        return np.sum(counted, axis=axes, keepdims=keepdims)
    if ord == 1 and not is_dual(ord):
        return np.sum(np.abs(x), axis=axes, keepdims=keepdims)
    size = np.abs(x)
    some = np.any(primal_of(size) == 0, axis=axes, keepdims=True) if ord < 0 else False
    size = np.where(some, 1, size) if ord < 0 else size  # a zero makes the norm 0
    powers = np.sum(size**ord, axis=axes, keepdims=True)
    zero = some | (powers == 0)  # where the tangent of a norm is 0
    y = np.where(zero, 0, np.where(zero, 1, powers) ** (1.0 / ord))
    return y if keepdims else np.squeeze(y, axes)


def _matrix_norm(x, ord, axes, keepdims):
    if axes[0] == axes[1]:
        raise ShapeError("np.linalg.norm: Duplicate axes given.")
    if is_dual(ord):
        raise missing_rule("np.linalg.norm", (), {"ord": ord}, " in the order of a matrix norm")
    if ord in ("fro", "f"):
        return _norm_of(x, axes, keepdims)
    if ord in (2, -2, "nuc"):
        s = np.linalg.svdvals(np.moveaxis(x, axes, (-2, -1)))
        y = {2: np.max, -2: np.min, "nuc": np.sum}[ord](s, axis=-1)
        return np.expand_dims(y, axes) if keepdims else y
    if ord not in (1, -1, math.inf, -math.inf):
        raise OptionError(f"np.linalg.norm: Invalid norm order {ord!r} for matrices.")
    summed, kept = axes if abs(ord) == 1 else axes[::-1]
    sums = np.sum(np.abs(x), axis=summed, keepdims=True)
    y = (np.max if ord > 0 else np.min)(sums, axis=kept, keepdims=True)
    return y if keepdims else np.squeeze(y, axes)


@implements(np.linalg.vector_norm)
def vector_norm(x: Array, /, *, axis=None, keepdims: bool = False, ord=2) -> Array:
    """The norm of all entries along the axes, taken as one vector."""
    x = array(x)
    return _vector_norm(x, ord, negative_axes(axis, x.ndim), keepdims)


@implements(np.linalg.matrix_norm)
def matrix_norm(x: Array, /, *, keepdims: bool = False, ord="fro") -> Array:
    return norm(x, ord, (-2, -1), keepdims)


@implements(np.linalg.cond)
def cond(x: Array, p=None) -> Array:
    """The condition numbers (...) in the norm p; infinite for singular matrices."""
    x = array(x)
    if is_dual(p):
        raise missing_rule("np.linalg.cond", (), {"p": p}, " in the order of the norm")
    plain = np.linalg.cond(primal_of(x), p)  # NumPy's errors
    finite = np.isfinite(plain)
    if p in (None, 2, -2):
        s = np.linalg.svdvals(x)
        high, low = (s[..., 0], s[..., -1]) if p != -2 else (s[..., -1], s[..., 0])
        y = high / np.where(finite, low, 1)
    else:
        eye = beside(x).eye(x.shape[-1], dtype=x.dtype)
        inverse = np.linalg.inv(np.where(np.expand_dims(finite, (-2, -1)), x, eye))
        high = norm(x, p, (-2, -1))
        y = high * norm(inverse, p, (-2, -1))
    if np.all(finite):
        return y
    undefined = math.nan * np.where(finite, 1, high)  # the slope where x is singular
    return with_value(np.where(finite, y, undefined), plain)
