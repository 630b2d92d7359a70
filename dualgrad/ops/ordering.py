"""Functions of the order of entries: partitions, quantiles, sets.

The primal decides the order; tangents follow the entries, as in sort.
"""

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..beside import as_array, beside, is_array
from ..dual import missing_rule, primal_of
from ..operations import implements
from ..primitive import constant
from .indexing import anywhere
from .results import array, deliver, is_dual
from .structural import negative_axes

for _name in "argpartition nanargmax nanargmin isin in1d".split():
    if hasattr(np, _name):  # in1d left NumPy with 2.4
        implements(getattr(np, _name), differentiable=False)(constant(getattr(np, _name)))


@implements(np.partition)
def partition(a, kth, axis=-1, kind="introselect", order=None):
    """The entries in the arrangement of np.argpartition."""
    if order is not None:
        raise ValueError("np.partition: order= names fields, and a dual has none.")
    if axis is None:
        a, axis = np.ravel(a), 0
    return np.take_along_axis(a, np.argpartition(primal_of(a), kth, axis), axis)


# --- quantiles: NumPy finds the place between two sorted entries, the entries interpolate

# The slope of that place in q, less n, for the methods that move with q.
SLOPES = {
    "linear": -1.0,
    "interpolated_inverted_cdf": 0.0,
    "hazen": 0.0,
    "weibull": 1.0,
    "median_unbiased": 1 / 3,
    "normal_unbiased": 1 / 4,
}
# The methods that choose one entry: of integers they give integers.
CHOOSING = ("inverted_cdf", "closest_observation", "lower", "higher", "nearest")


def _places(function, ranks, q, method, weights):
    """Where in the sorted rows the quantiles lie, q last: NumPy's quantiles of the ranks."""
    plain = as_array(primal_of(q)) if is_dual(q) else q
    options = {} if weights is None else {"weights": weights}
    places = as_array(function(ranks, plain, axis=-1, method=method, **options))
    if not is_dual(q):
        return np.moveaxis(places, range(np.ndim(q)), range(-np.ndim(q), 0))
    wide = (*np.shape(q), *(1,) * (ranks.ndim - 1))
    start = (places == 0) & (np.reshape(plain, wide) <= 0) & (method == "linear")
    n = as_array(np.sum(~np.isnan(ranks), -1))
    slope = as_array(n + SLOPES.get(method, -n), ranks.dtype)
    inner = (places > 0) & (places < n - 1) | start
    places = places + np.where(inner, slope, 0) * np.reshape(q - plain, wide)
    return np.moveaxis(places, range(np.ndim(q)), range(-np.ndim(q), 0))


def _quantiles(function, a, q, axis, method, keepdims, weights):
    """Quantiles of the entries of some axes, the axes of q in front."""
    a = array(a)
    given = a.dtype
    if given.kind in "iu":  # as here, where only q moves: NumPy interpolates in float64
        a = np.astype(a, np.float64)
    axes = negative_axes(axis, a.ndim)
    last = tuple(range(-len(axes), 0))
    flat = _as_rows(a, axes)
    kept = flat.shape[:-1]
    if weights is not None:
        weights = as_array(primal_of(weights))
        if weights.shape == a.shape:
            weights = np.moveaxis(weights, axes, last).reshape(flat.shape)
        elif weights.shape == tuple(a.shape[i] for i in axes):
            weights = np.broadcast_to(weights.ravel(), flat.shape)
        else:
            raise ValueError("Shape of weights must be consistent with shape of a along axis.")
    order = np.argsort(primal_of(flat), axis=-1, kind="stable")
    ranks = np.argsort(order, axis=-1).astype(a.dtype if a.dtype.itemsize > 2 else np.float64)
    ranks = np.where(np.isnan(primal_of(flat)), ranks.dtype.type(np.nan), ranks)
    places = _places(function, ranks, q, method, weights)
    rows = np.reshape(np.take_along_axis(flat, order, -1), (*kept, flat.shape[-1]))
    last = np.maximum(np.sum(~np.isnan(ranks), -1, keepdims=True) - 1, 0)
    y = _between(rows, np.reshape(places, (*kept, math.prod(np.shape(q)))), last)
    y = np.reshape(y, (*kept, *np.shape(q)))
    y = np.moveaxis(y, range(len(kept), y.ndim), range(np.ndim(q)))
    if keepdims:
        y = np.expand_dims(y, axes)
    if given.kind in "iu":
        return np.astype(y, given) if method in CHOOSING else y
    return np.astype(y, given, copy=False) if given.itemsize == 2 else y


def _as_rows(a, axes):
    """a with the given axes as one, the last."""
    rows = np.moveaxis(a, axes, tuple(range(-len(axes), 0)))
    kept = rows.shape[: a.ndim - len(axes)]
    return np.reshape(rows, (*kept, math.prod(rows.shape[len(kept) :])))


def _between(rows, places, last):
    """The entries of sorted rows, whose numbers end at `last`, at places between two of them."""
    plain = primal_of(places)
    missing = np.isnan(plain)
    below = np.clip(np.floor(np.where(missing, 0, plain)).astype(np.intp), 0, last)
    above = np.minimum(below + 1, last)
    low = np.take_along_axis(rows, below, -1)
    high = np.take_along_axis(rows, above, -1)
    part = places - below.astype(plain.dtype)
    y = np.where(primal_of(part) < 0.5, low + (high - low) * part, high - (high - low) * (1 - part))
    if not is_dual(places):
        y = np.where(plain == below, low, y)  # the entry itself, be it infinite
    return np.where(missing, y.dtype.type(np.nan), y)


def _quantile_rule(function, scale):
    def rule(a, q, axis=None, out=None, overwrite_input=False, method="linear", keepdims=False, *,
             weights=None):  # fmt: skip
        if is_dual(weights):
            raise missing_rule(f"np.{function.__name__}", (), {"weights": weights}, " in weights")
        if not np.size(a) and function in (np.nanquantile, np.nanpercentile):
            return np.nanmean(a, axis, out=out, keepdims=keepdims)  # as NumPy does
        q = array(q) / scale if is_dual(q) else q
        plain = function if not is_dual(q) else _unscaled(function)
        y = _quantiles(plain, a, q, axis, method, keepdims, weights)
        return deliver(y, out)

    return rule


def _unscaled(function):
    return {np.percentile: np.quantile, np.nanpercentile: np.nanquantile}.get(function, function)


implements(np.quantile)(_quantile_rule(np.quantile, 1))
implements(np.nanquantile)(_quantile_rule(np.nanquantile, 1))
implements(np.percentile)(_quantile_rule(np.percentile, 100))
implements(np.nanpercentile)(_quantile_rule(np.nanpercentile, 100))


@implements(np.nanmedian)
def nanmedian(a, axis=None, out=None, overwrite_input=False, keepdims=False):
    """The mean of the two entries in the middle of those that are not NaN."""
    a = array(a)
    if a.size == 0:
        return np.nanmean(a, axis, out=out, keepdims=keepdims)
    axes = negative_axes(axis, a.ndim)
    flat = np.sort(_as_rows(a, axes))  # NaN last
    n = np.sum(~np.isnan(primal_of(flat)), -1, keepdims=True)
    middle = np.concatenate([np.maximum(n - 1, 0) // 2, n // 2], -1)
    y = np.mean(np.take_along_axis(flat, middle, -1), -1)
    y = np.where(n[..., 0] == 0, math.nan, y)
    return deliver(np.expand_dims(y, axes) if keepdims else y, out)


# --- sets: each value is the entry where it first occurs


def _first(x, values, equal_nan):
    """Where in x, a flat plain array, the values of np.unique(x), in any order, first occur."""
    _, first = np.unique(x, return_index=True, equal_nan=equal_nan)
    places = np.empty_like(first)
    places[np.argsort(values, kind="stable")] = first
    return places


@implements(np.unique)
def unique(ar, return_index=False, return_inverse=False, return_counts=False, axis=None, *,
           equal_nan=True, sorted=True):  # fmt: skip
    """The distinct values, which move as the entries where they first occur."""
    ar = array(ar)
    if axis is None:
        ar, along = np.ravel(ar) if not return_inverse else ar, 0
    else:
        along = normalize_axis_index(axis, ar.ndim)
    _, index, inverse, counts = np.unique(
        primal_of(ar), True, True, True, axis=axis, equal_nan=equal_nan
    )
    values = np.take(anywhere(np.ravel(ar) if axis is None else ar), index, along)
    chosen = ((index, return_index), (inverse, return_inverse), (counts, return_counts))
    extra = tuple(x for x, wanted in chosen if wanted)
    return (values, *extra) if extra else values


def _with_values(function):
    def rule(x):
        plain = function(primal_of(x))
        values = plain if is_array(plain) else plain.values
        flat = anywhere(np.ravel(x))
        moving = flat[_first(primal_of(flat), values, equal_nan=False)]
        return moving if is_array(plain) else plain._replace(values=moving)

    return rule


for _function in (np.unique_all, np.unique_counts, np.unique_inverse, np.unique_values):
    implements(_function, family="ordering")(_with_values(_function))


def _flat(x):
    return np.ravel(array(x))


@implements(np.union1d)
def union1d(ar1, ar2):
    return np.unique(np.concatenate([_flat(ar1), _flat(ar2)]))


@implements(np.intersect1d)
def intersect1d(ar1, ar2, assume_unique=False, return_indices=False):
    """The values in both, as entries of the first array (of the second, if that alone moves)."""
    ar1, ar2 = _flat(ar1), _flat(ar2)
    _, first, second = np.intersect1d(primal_of(ar1), primal_of(ar2), assume_unique, True)
    values = anywhere(ar1)[first] if is_dual(ar1) else anywhere(ar2)[second]
    return (values, first, second) if return_indices else values


@implements(np.setdiff1d)
def setdiff1d(ar1, ar2, assume_unique=False):
    ar1 = _flat(ar1) if assume_unique else np.unique(array(ar1))
    return anywhere(ar1)[~np.isin(primal_of(ar1), primal_of(array(ar2)))]


@implements(np.setxor1d)
def setxor1d(ar1, ar2, assume_unique=False):
    ar1, ar2 = _flat(ar1), _flat(ar2)
    if not assume_unique:
        ar1, ar2 = np.unique(ar1), np.unique(ar2)
    both = np.sort(np.concatenate([ar1, ar2]))
    plain = primal_of(both)
    end = beside(plain).ones(1, bool)
    changes = np.concatenate([end, plain[1:] != plain[:-1], end])
    return both[changes[1:] & changes[:-1]] if both.size else both
