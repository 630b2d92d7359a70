"""The reductions that leave NaN out: a NaN entry neither counts nor moves the result."""

import math
import warnings

import numpy as np

from ..dual import primal_of
from ..operations import implements
from .results import array, deliver
from .structural import negative_axes


def _valid(a, where=True):
    """Which entries count: those that are not NaN and that the mask `where` chooses."""
    valid = ~np.isnan(primal_of(a))
    return valid if where is True else valid & np.broadcast_to(primal_of(where), a.shape)


@implements(np.nansum)
def nansum(a, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=True):
    a = array(a)
    return np.sum(a, axis, dtype, out, keepdims, initial=initial, where=_valid(a, where))


@implements(np.nanprod)
def nanprod(a, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=True):
    a = array(a)
    return np.prod(a, axis, dtype, out, keepdims, initial=initial, where=_valid(a, where))


@implements(np.nancumsum)
def nancumsum(a, axis=None, dtype=None, out=None):
    a = array(a)
    return np.cumsum(np.where(_valid(a), a, 0), axis, dtype, out)


@implements(np.nancumprod)
def nancumprod(a, axis=None, dtype=None, out=None):
    a = array(a)
    return np.cumprod(np.where(_valid(a), a, 1), axis, dtype, out)


def _extreme(function, least):
    def extreme(a, axis=None, out=None, keepdims=False, initial=None, where=True):
        a = array(a)
        if where is not True and initial is None:
            raise ValueError(f"np.nan{function.__name__}: where= needs initial=")
        start = {} if initial is None else {"initial": initial}
        valid = _valid(a, where)
        y = function(np.where(valid, a, least), axis, keepdims=keepdims, **start)
        none = ~np.any(valid, axis=axis, keepdims=keepdims)
        if initial is None and np.any(none):
            warnings.warn("All-NaN slice encountered", RuntimeWarning, stacklevel=3)
            y = np.where(none, y.dtype.type(math.nan), y)
        return deliver(y, out)

    return extreme


implements(np.nanmax, family="nans")(_extreme(np.max, -math.inf))
implements(np.nanmin, family="nans")(_extreme(np.min, math.inf))


@implements(np.nanmean)
def nanmean(a, axis=None, dtype=None, out=None, keepdims=False, *, where=True):
    a = array(a)
    return np.mean(a, axis, dtype, out, keepdims, where=_valid(a, where))


@implements(np.nanvar)
def nanvar(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None,
           correction=None):  # fmt: skip
    return _spread(np.var, a, axis, dtype, out, ddof, keepdims, where, mean, correction)


@implements(np.nanstd)
def nanstd(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None,
           correction=None):  # fmt: skip
    return _spread(np.std, a, axis, dtype, out, ddof, keepdims, where, mean, correction)


def _spread(function, a, axis, dtype, out, ddof, keepdims, where, mean, correction):
    """The variance or deviation of the entries that count; NaN where ddof leaves none of them."""
    a = array(a)
    valid = _valid(a, where)
    ddof = ddof if correction is None else correction
    y = function(a, axis, dtype, None, ddof, keepdims, where=valid, mean=mean)
    left = np.sum(valid, axis=negative_axes(axis, a.ndim), keepdims=keepdims) - ddof
    if np.any(left <= 0):
        warnings.warn("Degrees of freedom <= 0 for slice.", RuntimeWarning, stacklevel=3)
        y = np.where(left <= 0, y.dtype.type(math.nan), y)
    return deliver(y, out)
