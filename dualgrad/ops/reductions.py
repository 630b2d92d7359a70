"""Functions that reduce axes with a weight (products, extremes, logsumexp), and sorting."""

import math

import numpy as np

from ..beside import as_array, beside
from ..dual import primal_of
from ..operations import METHODS, implements
from ..partials import Share
from ..primitive import constant, reduction
from .lengths import length, square_of
from .results import array, deliver
from .structural import chosen, negative_axes

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
    least = {} if x.size else {"initial": -math.inf}  # CuPy's has no such word
    top = np.max(x, axis=axis, keepdims=True, **least)
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
def prod(a, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=True):
    a = array(a) if dtype is None else np.astype(array(a), dtype)
    y = _prod(chosen(a, where, 1), axis=negative_axes(axis, a.ndim), keepdims=keepdims)
    return deliver(y if initial is None else y * initial, out)


def _extreme(primitive, pair, least):
    def extreme(a, axis=None, out=None, keepdims=False, initial=None, where=True):
        a = array(a)
        if where is not True and initial is None:
            raise ValueError(f"np.{primitive.name}: where= needs initial=, for it may choose none")
        axes = negative_axes(axis, a.ndim)
        if initial is not None and _count(a, axes) == 0:
            return deliver(np.sum(a, axes, keepdims=keepdims) + initial, out)
        y = primitive(chosen(a, where, least), axis=axes, keepdims=keepdims)
        return deliver(y if initial is None else pair(y, initial), out)

    return extreme


implements(np.max, np.amax)(_extreme(_max, np.maximum, -math.inf))
implements(np.min, np.amin)(_extreme(_min, np.minimum, math.inf))


@implements(np.ptp)
def ptp(a, axis=None, out=None, keepdims=False):
    a = array(a)
    return deliver(np.max(a, axis, keepdims=keepdims) - np.min(a, axis, keepdims=keepdims), out)


def _reduce(function):
    """np.add.reduce and its like: as the function, but over axis 0 where none is named."""
    return lambda a, axis=0, **options: function(a, axis, **options)


METHODS[np.add, "reduce"] = _reduce(np.sum)
METHODS[np.multiply, "reduce"] = _reduce(np.prod)
METHODS[np.maximum, "reduce"] = _reduce(np.max)
METHODS[np.minimum, "reduce"] = _reduce(np.min)
METHODS[np.add, "accumulate"] = lambda a, axis=0, **options: np.cumsum(a, axis, **options)
METHODS[np.multiply, "outer"] = lambda a, b: np.tensordot(a, b, 0)


def _count(a, axes, where=True, keepdims=False):
    """How many entries meet in each result: an int, or an array where a mask chooses."""
    if where is True:
        return math.prod(a.shape[axis] for axis in axes)
    mask = np.broadcast_to(primal_of(where), a.shape)
    return as_array(np.sum(mask, axis=axes, keepdims=keepdims))


def _divided(y, count):
    """y / count in the dtype of y; NaN, or infinite, where there is nothing to count."""
    number = type(count) in (int, float)  # NumPy's are not weak
    return y / (count if number else count.astype(primal_of(y).real.dtype))


@implements(np.mean)
def mean(a, axis=None, dtype=None, out=None, keepdims=False, *, where=True):
    a = array(a)
    axes = negative_axes(axis, a.ndim)
    if dtype is None and a.dtype == np.float16:  # sums overflow, so NumPy takes float32
        y = np.mean(a, axes, np.float32, keepdims=keepdims, where=where)
        return deliver(np.astype(y, np.float16), out)
    total = np.sum(a, axes, dtype, keepdims=keepdims, where=where)
    return deliver(_divided(total, _count(a, axes, where, keepdims)), out)


@implements(np.average)
def average(a, axis=None, weights=None, returned=False, *, keepdims=False):
    a = array(a)
    if weights is None:
        y = np.mean(a, axis, keepdims=keepdims)
        total = beside(y).full(y.shape, _count(a, negative_axes(axis, a.ndim)), y.dtype)
        return (y, total) if returned else y
    weights = array(weights)
    kind = np.result_type(a.dtype, weights.dtype, *(["f8"] if a.dtype.kind in "biu" else []))
    weights = np.astype(weights, kind, copy=False)
    if weights.shape != a.shape:
        weights = _along(weights, a, axis)
    total = np.sum(np.broadcast_to(weights, a.shape), axis, keepdims=keepdims)
    if np.any(primal_of(total) == 0):
        raise ZeroDivisionError("np.average: the weights sum to zero.")
    y = np.sum(a * weights, axis, keepdims=keepdims) / total
    return (y, np.astype(total, y.dtype)) if returned else y


def _along(weights, a, axis):
    """Weights of the averaged axes alone, laid along those axes of a."""
    if axis is None:
        raise TypeError("Axis must be specified when shapes of a and weights differ.")
    axes = negative_axes(axis, a.ndim)
    if weights.shape != tuple(a.shape[i] for i in axes):
        raise ValueError("Shape of weights must be consistent with shape of a along axis.")
    weights = np.transpose(weights, sorted(range(len(axes)), key=axes.__getitem__))
    return np.reshape(weights, [n if i - a.ndim in axes else 1 for i, n in enumerate(a.shape)])


def _deviation(a, axes, dtype, where, mean):
    """The distances from the mean (0 where the mask drops an entry), in the dtype asked for."""
    a = array(a) if dtype is None else np.astype(array(a), dtype)
    centre = np.mean(a, axes, keepdims=True, where=where) if mean is None else mean
    return chosen(a - centre, where, 0)


def _degrees(a, axes, where, keepdims, ddof):
    count = _count(a, axes, where, keepdims)
    return max(count - ddof, 0) if isinstance(count, int) else np.maximum(count - ddof, 0)


@implements(np.var)
def var(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None,
        correction=None):  # fmt: skip
    axes = negative_axes(axis, np.ndim(a))
    x = _deviation(a, axes, dtype, where, mean)
    square = x * x if x.dtype.kind == "f" else np.real(x * np.conj(x))
    degrees = _degrees(x, axes, where, keepdims, ddof if correction is None else correction)
    return deliver(_divided(np.sum(square, axis=axes, keepdims=keepdims), degrees), out)


@implements(np.std)
def std(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None,
        correction=None):  # fmt: skip
    """The standard deviation; where the variance is 0 its tangent is 0."""
    axes = negative_axes(axis, np.ndim(a))
    x = _deviation(a, axes, dtype, where, mean)
    degrees = _degrees(x, axes, where, keepdims, ddof if correction is None else correction)
    y = _divided(_norm_of(x, axes, keepdims), np.sqrt(degrees))
    square = lambda: _divided(np.sum(square_of(x), axis=axes, keepdims=keepdims), degrees)  # noqa: E731
    return deliver(length(y, square), out)


def _norm_of(x, axes, keepdims):
    square = lambda: np.sum(square_of(x), axis=axes, keepdims=keepdims)  # noqa: E731
    return length(_norm_of_parts(x, axes, keepdims), square)


def _norm_of_parts(x, axes, keepdims):
    if x.dtype.kind == "c":
        x = np.stack([np.real(x), np.imag(x)], -1)
        axes = (*(axis - 1 for axis in axes), -1)
        y = _norm(x, axis=axes, keepdims=keepdims)
        return y[..., 0] if keepdims else y
    return _norm(x, axis=axes, keepdims=keepdims)


def logsumexp(x, axis=None, keepdims=False):
    """log(sum(exp(x))) over an axis (None: all), computed without overflow.

    Args:
        x: array of any shape. axis: int, tuple of ints or None. keepdims: keep the reduced axes.
    """
    x = array(x)
    return _logsumexp(x, axis=negative_axes(axis, x.ndim), keepdims=keepdims)


# --- order


@implements(np.sort)
def sort(a, axis=-1, kind=None, order=None, *, stable=None):
    """The entries in order; ties keep their order, and tangents follow their entries."""
    if order is not None:
        raise ValueError("np.sort: order= names fields, and a dual has none.")
    if axis is None:
        a, axis = np.ravel(a), 0
    places = np.argsort(primal_of(a), axis=axis, kind="stable")
    return np.take_along_axis(a, places, axis)


@implements(np.median)
def median(a, axis=None, out=None, overwrite_input=False, keepdims=False):
    a = array(a)
    axes = negative_axes(axis, a.ndim)
    moved = np.moveaxis(a, axes, tuple(range(-len(axes), 0)))
    n = _count(a, axes)
    flat = np.sort(np.reshape(moved, (*moved.shape[: a.ndim - len(axes)], n)))
    y = np.mean(flat[..., max(n - 1, 0) // 2 : n // 2 + 1], axis=-1)
    y = np.where(np.isnan(flat[..., -1]), flat[..., -1], y) if n else y
    return deliver(np.expand_dims(y, axes) if keepdims else y, out)
