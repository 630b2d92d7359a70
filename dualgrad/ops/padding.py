"""np.pad: borders that repeat entries, average them, or lead away from them."""

import numpy as np

from ..beside import beside
from ..dual import missing_rule
from ..operations import implements
from .results import array as as_array

BY_INDEX = ("edge", "reflect", "symmetric", "wrap")
LINEAR = ("mean", "linear_ramp", "reflect", "symmetric")
EXTREMES = {"maximum": np.max, "minimum": np.min, "median": np.median}


@implements(np.pad)
def pad(array, pad_width, mode="constant", *, constant_values=0, reflect_type="even",
        stat_length=None, end_values=0):  # fmt: skip
    """The array with a border on every axis, in all of NumPy's modes but a function's."""
    x = as_array(array)
    width = _pairs(pad_width, x.ndim)
    if mode in BY_INDEX and reflect_type == "even":
        index = np.pad(beside(x).arange(x.size).reshape(x.shape), width, mode)
        return np.ravel(x)[index]
    if mode in ("constant", "empty"):
        return _constant(x, width, constant_values if mode == "constant" else 0)
    if mode not in LINEAR and mode not in EXTREMES:
        raise missing_rule("np.pad", (array,), {}, f" for mode={mode!r}")
    lengths = [(None, None)] * x.ndim if stat_length is None else _pairs(stat_length, x.ndim)
    ends = np.broadcast_to(end_values, (x.ndim, 2)).tolist()
    for axis, (before, after) in enumerate(width):
        if not before and not after:  # and perhaps no entry
            continue
        rows = np.moveaxis(x, axis, 0)
        if mode in EXTREMES:
            parts = _extremes(rows, before, after, EXTREMES[mode], lengths[axis])
        else:
            options = {"reflect_type": reflect_type} if mode in BY_INDEX else {}
            if mode == "mean" and stat_length is not None:
                options = {"stat_length": lengths[axis]}
            parts = _linear(rows, before, after, mode, options)
            if mode == "linear_ramp":
                parts = _towards(parts, before, after, ends[axis])
        x = np.moveaxis(np.concatenate([parts[0], rows, parts[1]]), 0, axis)
    return x


def _pairs(value, ndim):
    """The (before, after) of every axis, from any of the forms that NumPy takes."""
    if isinstance(value, dict):
        pairs = {axis % ndim: pair for axis, pair in value.items()}
        return [tuple(np.broadcast_to(pairs.get(i, 0), 2).tolist()) for i in range(ndim)]
    return [tuple(pair) for pair in np.broadcast_to(value, (ndim, 2)).tolist()]


def _constant(x, width, values):
    frame = np.pad(beside(x).zeros(x.shape, bool), width, constant_values=True)
    border = np.pad(beside(x).zeros(x.shape, x.dtype), width, constant_values=values)
    if x.size == 0:
        return border
    place = np.pad(beside(x).arange(x.size).reshape(x.shape), width)
    return np.where(frame, border, np.ravel(x)[place])


def _extremes(rows, before, after, function, lengths):
    """Borders that repeat one number of the first, or last, entries."""
    n = len(rows)
    first, last = (n if m is None else min(m, n) for m in lengths)
    low = function(rows[:first], axis=0, keepdims=True)
    high = function(rows[n - last :], axis=0, keepdims=True)
    return np.repeat(low, before, 0), np.repeat(high, after, 0)


def _linear(rows, before, after, mode, options):
    """Borders linear in the entries: NumPy's padding of the unit matrix is their matrix."""
    n = len(rows)
    dtype = rows.dtype if rows.dtype.itemsize > 2 else np.dtype(np.float32)
    matrix = np.pad(beside(rows).eye(n, dtype=dtype), ((before, after), (0, 0)), mode, **options)
    flat = np.reshape(rows, (n, -1 if rows.size else 0))
    borders = (np.matmul(m, flat) for m in (matrix[:before], matrix[before + n :]))
    return tuple(
        np.astype(np.reshape(b, (len(b), *rows.shape[1:])), rows.dtype, copy=False) for b in borders
    )


def _towards(parts, before, after, ends):
    """Ramps that end at 0, raised to end at the values given."""
    low, high = parts
    wide = (-1, *(1,) * (low.ndim - 1))
    down = beside(low).linspace(1, 0, before, endpoint=False, dtype=low.dtype).reshape(wide)
    up = beside(low).linspace(1, 0, after, endpoint=False, dtype=low.dtype)[::-1].reshape(wide)
    return low + down * ends[0], high + up * ends[1]
