"""NumPy's functions that write into their first argument, where that is a dual that can be written.

Each finds the places that NumPy would write and leaves the rest to `write`, which does both parts.
"""

import numpy as np

from ..beside import as_array, beside
from ..dual import primal_of, write
from ..operations import WRITES
from .results import array
from .ufunc_calls import deliver


def _writes(function):
    def enter(rule):
        WRITES[function] = rule
        return rule

    return enter


def _cycled(values, turns):
    """Return the entries of values at the given turns, counted round and round."""
    values = np.ravel(array(values))
    return values[beside(values).asarray(turns, np.intp) % values.size]


@_writes(np.copyto)
def copyto(dst, src, casting="same_kind", where=True):
    """dst[...] = src, or where a mask holds."""
    src, mask = array(src), np.broadcast_to(primal_of(where), dst.shape)
    picked = src if where is True else np.broadcast_to(src, dst.shape)[mask]
    deliver("copyto", picked, (dst,), casting, True if where is True else mask)


@_writes(np.put)
def put(a, ind, v, mode="raise"):
    """a.flat[ind] = v, with v repeated as often as needed."""
    places = np.ravel(primal_of(ind))
    places = np.take(beside(places).arange(a.size), places, mode=mode)
    if places.size and a.ndim:
        write(a, np.unravel_index(places, a.shape), _cycled(v, range(places.size)))
    elif places.size:
        write(a, (), _cycled(v, range(places.size))[-1])


@_writes(np.place)
def place(arr, mask, vals):
    """arr[mask] = the first entries of vals, repeated as often as needed."""
    mask = np.reshape(as_array(primal_of(mask), bool), arr.shape)
    count = int(np.count_nonzero(mask))
    if count and not np.size(vals):
        raise ValueError("Cannot insert from an empty array!")
    if count:
        write(arr, mask, _cycled(vals, range(count)))


@_writes(np.putmask)
def putmask(a, mask, values):
    """a.flat[n] = values.flat[n] wherever mask.flat[n] holds, values repeated."""
    mask = as_array(primal_of(mask), bool)
    if mask.size != a.size:
        raise ValueError("putmask: mask and data must be the same size")
    places = np.flatnonzero(mask)
    if places.size and np.size(values):
        write(a, np.reshape(mask, a.shape), _cycled(values, places))


@_writes(np.fill_diagonal)
def fill_diagonal(a, val, wrap=False):
    """The main diagonal of a becomes val, repeated as often as needed."""
    mask = beside(a).zeros(a.shape, bool)
    np.fill_diagonal(mask, True, wrap)
    write(a, mask, _cycled(val, range(int(np.count_nonzero(mask)))))


@_writes(np.put_along_axis)
def put_along_axis(arr, indices, values, axis):
    """The inverse of take_along_axis: those entries become values."""
    places = np.reshape(beside(arr).arange(arr.size), arr.shape)
    picked = np.take_along_axis(places, primal_of(indices), axis)
    write(arr, np.unravel_index(picked, arr.shape), np.broadcast_to(array(values), picked.shape))
