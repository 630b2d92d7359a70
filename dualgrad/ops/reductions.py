"""Functions that reduce axes with a weight (products, extremes, norms, logsumexp), and sorting."""

import math

import numpy as np

from ..dual import missing_rule, primal_of
from ..operations import METHODS, implements
from ..primitive import Share, constant, reduction
from .structural import negative_axes, negative_axis

for (
    _name
) in "argmax argmin argsort nonzero flatnonzero count_nonzero searchsorted digitize".split():
    implements(getattr(np, _name), differentiable=False)(constant(getattr(np, _name)))
for _name in "shape ndim size result_type can_cast min_scalar_type argwhere lexsort".split():
    implements(getattr(np, _name), differentiable=False)(constant(getattr(np, _name)))


# --- primitives


def _shifted_products(x, axis):
    """The product of all entries before each one along an axis, by doubling; zeros may occur."""
    n = x.shape[axis]
    x = np.moveaxis(x, axis, 0)
    before = np.concatenate([np.ones_like(x[:1]), x[:-1]])
    step = 1
    while step < n:
        before = np.concatenate([before[:step], before[step:] * before[:-step]])
        step *= 2
    return np.moveaxis(before, 0, axis)


def _other_products(x, y, axis):
    """The product of all entries but each one, over several axes: no division, zeros may occur."""
    last = len(axis)
    moved = np.moveaxis(x, axis, tuple(range(-last, 0)))
    flat = np.reshape(moved, (*moved.shape[:-last], math.prod(moved.shape[-last:]))) if last else x
    if not last or flat.shape[-1] == 0:
        return np.ones_like(x)
    others = _shifted_products(flat, -1) * np.flip(_shifted_products(np.flip(flat, -1), -1), -1)
    return np.moveaxis(np.reshape(others, moved.shape), tuple(range(-last, 0)), axis)


def _chosen(x, y, axis):
    mask = (x == y) | (np.isnan(x) & np.isnan(y))
    return Share(mask, np.sum(mask, axis=axis, keepdims=True, dtype=primal_of(x).dtype))


def _softmax_weight(x, y, axis):
    return np.exp(x - np.where(y == -math.inf, 0, y))


def _from_norm(x, y, axis):
    """x / y, and 0 where y, the norm, is 0: the tangent of a norm at 0 is 0."""
    return np.where(y == 0, 0, x / np.where(y == 0, 1, y))


def _logsumexp_value(x, axis, keepdims):
    top = np.max(x, axis=axis, keepdims=True, initial=-math.inf)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):
        y = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else np.squeeze(y, axis)


def _length(x, axis, keepdims):
    return np.sqrt(np.sum(np.square(np.abs(x)), axis=axis, keepdims=keepdims))


_prod = reduction(np.prod, _other_products)
_max = reduction(np.max, _chosen, name="max")
_min = reduction(np.min, _chosen, name="min")
_logsumexp = reduction(_logsumexp_value, _softmax_weight, name="logsumexp")
_norm = reduction(_length, _from_norm, name="norm")


# --- what NumPy calls


@implements(np.prod)
def prod(a, axis=None, dtype=None, *, keepdims=False):
    a = a if dtype is None else np.astype(a, dtype)
    return _prod(a, axis=negative_axes(axis, a.ndim), keepdims=keepdims)


def _extreme(primitive, pair):
    def extreme(a, axis=None, *, keepdims=False, initial=None):
        y = primitive(a, axis=negative_axes(axis, a.ndim), keepdims=keepdims)
        return y if initial is None else pair(y, initial)

    return extreme


implements(np.max, np.amax)(_extreme(_max, np.maximum))
implements(np.min, np.amin)(_extreme(_min, np.minimum))


@implements(np.ptp)
def ptp(a, axis=None, *, keepdims=False):
    return np.max(a, axis, keepdims=keepdims) - np.min(a, axis, keepdims=keepdims)


def _reduce(function):
    """np.add.reduce and its like: as the function, but over axis 0 where none is named."""
    return lambda a, axis=0, **options: function(a, axis, **options)


METHODS[np.add, "reduce"] = _reduce(np.sum)
METHODS[np.multiply, "reduce"] = _reduce(np.prod)
METHODS[np.maximum, "reduce"] = _reduce(np.max)
METHODS[np.minimum, "reduce"] = _reduce(np.min)
METHODS[np.add, "accumulate"] = lambda a, axis=0, **options: np.cumsum(a, axis, **options)
METHODS[np.multiply, "outer"] = lambda a, b: np.tensordot(a, b, 0)


def _count(a, axes):
    return math.prod(a.shape[axis] for axis in axes)


@implements(np.mean)
def mean(a, axis=None, dtype=None, *, keepdims=False):
    axes = negative_axes(axis, a.ndim)
    if dtype is None and a.dtype == np.float16:  # sums overflow, so NumPy takes float32
        return np.astype(np.mean(a, axes, np.float32, keepdims=keepdims), np.float16)
    return np.sum(a, axis=axes, dtype=dtype, keepdims=keepdims) / _count(a, axes)


@implements(np.average)
def average(a, axis=None, weights=None):
    if weights is None:
        return np.mean(a, axis)
    if axis is None and np.shape(weights) != np.shape(a):
        raise TypeError("Axis must be specified when shapes of a and weights differ.")
    if np.ndim(weights) == 1 != np.ndim(a):
        after = -1 - negative_axis(axis, np.ndim(a))  # axes behind the averaged one
        weights = np.reshape(weights, (-1, *(1,) * after))
    return np.sum(a * weights, axis) / np.sum(np.broadcast_to(weights, np.shape(a)), axis)


@implements(np.var)
def var(a, axis=None, dtype=None, *, ddof=0, keepdims=False, correction=None):
    ddof = ddof if correction is None else correction
    a = a if dtype is None else np.astype(a, dtype)
    axes = negative_axes(axis, a.ndim)
    deviation = a - np.mean(a, axis=axes, keepdims=True)
    square = (
        deviation * deviation if a.dtype.kind == "f" else np.real(deviation * np.conj(deviation))
    )
    return np.sum(square, axis=axes, keepdims=keepdims) / max(_count(a, axes) - ddof, 0)


@implements(np.std)
def std(a, axis=None, dtype=None, *, ddof=0, keepdims=False, correction=None):
    """The standard deviation; where the variance is 0 its tangent is 0."""
    ddof = ddof if correction is None else correction
    a = a if dtype is None else np.astype(a, dtype)
    axes = negative_axes(axis, a.ndim)
    deviation = a - np.mean(a, axis=axes, keepdims=True)
    length = _norm_of(deviation, axes, keepdims)
    return length / math.sqrt(_count(a, axes) - ddof) if _count(a, axes) > ddof else length / 0.0


def _norm_of(x, axes, keepdims):
    if x.dtype.kind == "c":
        x = np.stack([np.real(x), np.imag(x)], -1)
        axes = (*(axis - 1 for axis in axes), -1)
        y = _norm(x, axis=axes, keepdims=keepdims)
        return y[..., 0] if keepdims else y
    return _norm(x, axis=axes, keepdims=keepdims)


@implements(np.linalg.norm)
def norm(x, ord=None, axis=None, keepdims=False):
    """The norm as NumPy has it, less the matrix norms that need singular values (2, -2, "nuc")."""
    axes = negative_axes(axis, x.ndim)
    matrix = len(axes) == 2 and (ord is not None or axis is not None or x.ndim == 2)
    if ord is None or (ord == "fro" and matrix) or (ord == 2 and len(axes) == 1):
        return _norm_of(x, axes, keepdims)
    if len(axes) == 1:
        return _vector_norm(x, ord, axes, keepdims)
    if not matrix or ord not in (1, -1, math.inf, -math.inf):
        raise missing_rule("np.linalg.norm", (x,), {}, f" for ord={ord!r}")
    summed, kept = axes if abs(ord) == 1 else axes[::-1]
    sums = np.sum(np.abs(x), axis=summed, keepdims=True)
    y = (np.max if ord > 0 else np.min)(sums, axis=kept, keepdims=True)
    return y if keepdims else np.squeeze(y, axes)


def _vector_norm(x, ord, axes, keepdims):
    if ord in (math.inf, -math.inf):
        return (np.max if ord > 0 else np.min)(np.abs(x), axis=axes, keepdims=keepdims)
    if ord == 0:
        return np.sum(np.astype(x != 0, primal_of(np.abs(x)).dtype), axis=axes, keepdims=keepdims)
    powers = np.sum(np.abs(x) ** ord, axis=axes, keepdims=keepdims)
    if ord == 1:
        return powers
    zero = powers == 0  # where the tangent of a norm is 0
    return np.where(zero, 0, np.where(zero, 1, powers) ** (1.0 / ord))


@implements(np.linalg.vector_norm)
def vector_norm(x, /, *, axis=None, ord=2, keepdims=False):
    axes = negative_axes(axis, x.ndim)
    if len(axes) > 1:
        if ord != 2:
            x = np.moveaxis(x, axes, tuple(range(-len(axes), 0)))
            y = norm(np.reshape(x, (*x.shape[: -len(axes)], -1)), ord, -1)
            return np.expand_dims(y, axes) if keepdims else y
        return _norm_of(x, axes, keepdims)
    return norm(x, ord, axes, keepdims)


def logsumexp(x, axis=None, keepdims=False):
    """log(sum(exp(x))) over an axis (None: all), computed without overflow.

    Args:
        x: array of any shape. axis: int, tuple of ints or None. keepdims: keep the reduced axes.
    """
    x = x if hasattr(x, "ndim") else np.asarray(x)
    return _logsumexp(x, axis=negative_axes(axis, x.ndim), keepdims=keepdims)


# --- order


@implements(np.sort)
def sort(a, axis=-1, kind=None, *, stable=None):
    """The entries in order; ties keep their order, and tangents follow their entries."""
    if axis is None:
        a, axis = np.ravel(a), 0
    order = np.argsort(primal_of(a), axis=axis, kind="stable")
    return np.take_along_axis(a, order, axis)


@implements(np.median)
def median(a, axis=None, *, keepdims=False):
    axes = negative_axes(axis, a.ndim)
    moved = np.moveaxis(a, axes, tuple(range(-len(axes), 0)))
    flat = np.sort(np.reshape(moved, (*moved.shape[: a.ndim - len(axes)], -1)))
    n = flat.shape[-1]
    y = np.mean(flat[..., (n - 1) // 2 : n // 2 + 1], axis=-1)
    y = np.where(np.isnan(flat[..., -1]), flat[..., -1], y)
    return np.expand_dims(y, axes) if keepdims else y
