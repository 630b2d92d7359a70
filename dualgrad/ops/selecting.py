"""Functions that choose entries by a condition or a place: select, piecewise, insert, delete."""

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..beside import as_array, beside
from ..dual import DualTensor, primal_of
from ..operations import implements
from ..primitive import check_levels
from .indexing import scatter
from .results import array, array_beside, deliver


def _flag(condition):
    check_levels([condition], "a condition")
    return as_array(primal_of(condition))


@implements(np.select)
def select(condlist, choicelist, default=0):
    """The entry of the first choice whose condition holds, else the default."""
    if len(condlist) != len(choicelist):
        raise ValueError("list of cases must be same length as list of conditions")
    if not condlist:
        raise ValueError("select with an empty condition list is not possible")
    conditions = [_flag(c) for c in condlist]
    if any(c.dtype != bool for c in conditions):
        raise TypeError("np.select: conditions must be arrays of bool.")
    y = default
    for condition, choice in zip(conditions[::-1], choicelist[::-1], strict=True):
        y = np.where(condition, choice, y)
    return y


@implements(np.choose)
def choose(a, choices, out=None, mode="raise"):
    """choices[a[i]][i] for every i; a holds integers."""
    a = array_beside(primal_of(a), *choices)
    arrays = np.broadcast_arrays(*(array(x) for x in choices))
    n = len(arrays)
    if a.dtype.kind not in "iub":
        raise TypeError(f"np.choose: a holds places, integers, and its dtype is {a.dtype}.")
    if mode == "raise" and np.any((a < 0) | (a >= n)):
        raise ValueError("invalid entry in choice array")
    a = a % n if mode == "wrap" else np.clip(a, 0, n - 1)
    shape = np.broadcast_shapes(a.shape, arrays[0].shape)
    y = np.broadcast_to(arrays[0], shape)
    for place, x in enumerate(arrays[1:], 1):
        y = np.where(a == place, x, y)
    return deliver(y, out)


@implements(np.piecewise)
def piecewise(x, condlist, funclist, *args, **kw):
    """The functions, or numbers, of funclist on the entries of x where their conditions hold."""
    x = array(x)
    listed = isinstance(condlist, (list, tuple))
    if not (listed or np.ndim(condlist)) or (np.ndim(condlist[0]) == 0 and x.ndim != 0):
        condlist = [condlist]
    conditions = [np.broadcast_to(_flag(c).astype(bool), x.shape) for c in condlist]
    if len(funclist) == len(conditions) + 1:
        conditions.append(~np.any(np.stack(conditions), axis=0))
    if len(funclist) != len(conditions):
        raise ValueError(
            f"with {len(condlist)} condition(s), either {len(condlist)} or {len(condlist) + 1} "
            f"functions are expected"
        )
    owner = beside(x).full(x.shape, -1)  # which function has the last word on an entry
    for i, condition in enumerate(conditions):
        owner[condition] = i
    parts, places = [np.zeros_like(x)[owner == -1]], [np.flatnonzero(owner == -1)]
    for i, (condition, function) in enumerate(zip(conditions, funclist, strict=True)):
        if not condition.any():
            continue
        inside = x[condition]
        values = function(inside, *args, **kw) if callable(function) else function
        values = np.broadcast_to(array_beside(values, inside), inside.shape)
        last = (owner == i)[condition]
        parts.append(np.astype(values[last], x.dtype, copy=False))
        places.append(np.flatnonzero(owner == i))
    order = np.argsort(np.concatenate(places))
    return np.reshape(np.concatenate(parts)[order], x.shape)


@implements(np.compress)
def compress(condition, a, axis=None, out=None):
    condition = _flag(condition)
    if condition.ndim != 1:
        raise ValueError("condition must be a 1-d array")
    return deliver(np.take(array(a), np.flatnonzero(condition), axis), out)


@implements(np.extract)
def extract(condition, arr):
    return np.take(np.ravel(array(arr)), np.flatnonzero(_flag(condition)))


@implements(np.delete)
def delete(arr, obj, axis=None):
    arr = array(arr)
    if axis is None:
        arr, axis = np.ravel(arr), 0
    axis = normalize_axis_index(axis, arr.ndim)
    return np.take(arr, np.delete(beside(arr).arange(arr.shape[axis]), primal_of(obj)), axis)


@implements(np.insert)
def insert(arr, obj, values, axis=None):
    """arr with values put in before the places obj of an axis; values takes the dtype of arr."""
    arr, values = array(arr), array(values)
    if axis is None:
        arr, axis = np.ravel(arr), 0
    axis = normalize_axis_index(axis, arr.ndim)
    n, obj = arr.shape[axis], primal_of(obj)
    probe = np.insert(np.arange(n), obj, -1)
    count = len(probe) - n
    if count == 1:  # values may hold several entries for the one place
        values = np.reshape(values, (*(1,) * (arr.ndim - values.ndim), *values.shape))
        if np.ndim(obj) == 0 and not isinstance(obj, slice):
            values = np.moveaxis(values, 0, axis)
        count = values.shape[axis]
        obj = np.full(count, np.flatnonzero(probe == -1)[0])
    shape = (*arr.shape[:axis], count, *arr.shape[axis + 1 :])
    values = np.astype(np.broadcast_to(values, shape), arr.dtype, copy=False)
    order = np.insert(np.arange(n), obj, np.arange(n, n + count))
    return np.take(np.concatenate([arr, values], axis), order, axis)


# --- sums into places


def spread(weights, places, size):
    """The weights summed by place, an array of `size` float64 numbers."""
    weights = np.astype(array(weights), np.result_type(weights.dtype, np.float64), copy=False)
    kept = (places >= 0) & (places < size)
    places, weights = places[kept], weights[kept]
    return scatter(weights, index=(places,), shape=(size,))


@implements(np.bincount)
def bincount(x, weights=None, minlength=0):
    """How often each integer occurs; with weights, which may be duals, their sums."""
    x = as_array(primal_of(x))
    counts = np.bincount(x, minlength=minlength)
    if type(weights) is not DualTensor:
        return counts if weights is None else np.bincount(x, weights, minlength)
    if weights.shape != x.shape:
        raise ValueError("The weights and list don't have the same length.")
    return spread(weights, x, counts.size)
