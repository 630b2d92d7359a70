"""Functions that pick entries: indexing, and what is made of it (take, flip, roll, pad, diag)."""

import operator

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..beside import as_array, beside, on_device
from ..dual import missing_rule, primal_of
from ..operations import implements
from ..primitive import Primitive, linear
from .results import array, deliver
from .structural import negative_axes, negative_axis, transpose_core

_take: Primitive = linear(
    lambda x, index: x[index],
    lambda ct, shapes, index: scatter(ct, index=lifted(index), shape=(len(ct), *shapes[0])),
    lambda k, index: {"index": lifted(index)},
    views=True,
    name="getitem",
)


def _scatter_value(x, index, shape):
    out = beside(x).zeros(shape, x.dtype)
    if _has_arrays(index):
        beside(x).add.at(out, index, x)  # CuPy lets np.add.at with a tuple as index pass by
    else:
        out[index] = x
    return out


# The transpose of x[index]: zeros of `shape` with the entries of x added at index.
scatter: Primitive = linear(
    _scatter_value,
    lambda ct, shapes, index, shape: _take(ct, index=lifted(index)),
    lambda k, index, shape: {"index": lifted(index), "shape": (k, *shape)},
    name="scatter",
)


# x[index] where values usually decide which entry of an axis it is: take_along_axis, sort and what
# is made of them. With other values it is another, and what follows dependencies must know.
pick: Primitive = linear(
    lambda x, index, axis: x[index],
    lambda ct, shapes, index, axis: scatter(ct, index=lifted(index), shape=(len(ct), *shapes[0])),
    lambda k, index, axis: {"index": lifted(index), "axis": axis},
    name="take_along_axis",
)


def canonical_index(index, shape):
    """Return index as a tuple of slices, ints, None and integer arrays, one entry for each axis.

    Masks become integer arrays, an ellipsis slices, and where ints and arrays are separated NumPy
    would move the indexed axes to the front; bringing that about is left to `getitem`.
    """
    index = index if type(index) is tuple else (index,)
    entries, masked = [], False
    for entry in index:
        entry = primal_of(entry)
        if isinstance(entry, (list, tuple, range, np.ndarray, np.bool_, bool)) or on_device(entry):
            empty = isinstance(entry, (list, tuple, range)) and np.size(entry) == 0
            entry = as_array(entry, np.intp if empty else None)
            if entry.dtype == bool and entry.ndim:
                masked = True
                entries.extend(entry.nonzero())
                continue
        entries.append(entry)
    if masked:
        _check_masks(primal_of(index), shape)
    used = sum(1 for e in entries if e is not None and e is not Ellipsis and not _is_flag(e))
    free = (slice(None),) * (len(shape) - used)
    if not any(e is Ellipsis for e in entries):
        entries.append(Ellipsis)
    at = next(i for i, e in enumerate(entries) if e is Ellipsis)
    return (*entries[:at], *free, *entries[at + 1 :])


def _check_masks(index, shape):
    """Raise NumPy's own error where masks are of another shape than x."""
    like = next((x for x in index if on_device(x)), None)
    beside(like).broadcast_to(beside(like).asarray(False), shape)[index]


def _is_index_array(entry):
    return isinstance(entry, np.ndarray) or on_device(entry)


def _is_flag(entry):  # x[True] adds an axis
    return _is_index_array(entry) and entry.dtype == bool


def _has_arrays(index):
    return any(map(_is_index_array, index))


def lifted(index):
    return (slice(None), *index)


def _is_separated(index):
    places = [
        i for i, e in enumerate(index) if _is_index_array(e) or isinstance(e, (int, np.integer))
    ]
    return _has_arrays(index) and places[-1] - places[0] + 1 != len(places)


@implements(operator.getitem)
def getitem(x, index):
    """x[index] with everything NumPy takes; basic indexing gives views of both parts."""
    given = index if type(index) is tuple else (index,)
    index = canonical_index(index, x.shape)
    if not _has_arrays(index):
        basic = tuple(operator.index(e) if hasattr(e, "__index__") else e for e in index)
        if any(e is Ellipsis for e in given):
            basic = (*basic, Ellipsis)  # x[0, ...] is a view where x[0] is a number
        return _take(x, index=basic)
    if not _is_separated(index):
        return _take(x, index=index)
    # x[i, :, j]: NumPy puts the axes of i and j first, which would displace the direction axis. So
    # bring the indexed axes together at the front, where they stay in order.
    if any(_is_flag(e) for e in index):
        raise missing_rule("x[index]", (x,), {}, " for a scalar bool beside separated arrays")
    if None in [e if e is None else 0 for e in index]:
        x = np.expand_dims(x, tuple(i for i, e in enumerate(index) if e is None))
        index = tuple(slice(None) if e is None else e for e in index)
    picked = [i for i, e in enumerate(index) if not isinstance(e, slice)]
    sliced = [i for i, e in enumerate(index) if isinstance(e, slice)]
    x = transpose_core(x, axes=(*picked, *sliced))
    return _take(x, index=(*(index[i] for i in picked), *(index[i] for i in sliced)))


@implements(np.take)
def take(a, indices, axis=None, out=None, mode="raise"):
    a = array(a)
    indices = as_array(primal_of(indices))
    if axis is None:
        a, axis = np.ravel(a), 0
    if mode != "raise":
        n = a.shape[axis]
        indices = indices % n if mode == "wrap" else np.clip(indices, 0, n - 1)
    axis = normalize_axis_index(axis, a.ndim)
    return deliver(a[(slice(None),) * axis + (indices,)], out)


@implements(np.take_along_axis)
def take_along_axis(arr, indices, axis=-1):
    if axis is None:
        arr, axis = np.ravel(arr), 0
    indices = as_array(primal_of(indices))
    axis = normalize_axis_index(axis, arr.ndim)
    if indices.ndim != arr.ndim:
        raise ValueError("`indices` and `arr` must have the same number of dimensions")
    # An axis of length 1 in either is broadcast.
    grid = [
        beside(arr).arange(n).reshape((n,) + (1,) * (arr.ndim - 1 - i))
        for i, n in enumerate(arr.shape)
    ]
    grid[axis] = indices
    return pick(arr, index=tuple(grid), axis=axis - arr.ndim)


def anywhere(x):
    """Return x, of which values are about to decide which entry goes where (see `pick`)."""
    flat = np.ravel(x)
    return np.reshape(np.take_along_axis(flat, beside(x).arange(flat.size), 0), np.shape(x))


# --- arrangements of entries


@implements(np.flip)
def flip(m, axis=None):
    axes = negative_axes(axis, m.ndim)
    return m[tuple(slice(None, None, -1 if i - m.ndim in axes else 1) for i in range(m.ndim))]


roll_core = linear(
    lambda x, shift, axis: np.roll(x, shift, axis),
    lambda ct, shapes, shift, axis: np.roll(ct, tuple(-s for s in shift), axis),
    name="roll",
)


@implements(np.roll)
def roll(a, shift, axis=None):
    if axis is None:
        return np.reshape(np.roll(np.ravel(a), shift, 0), a.shape)
    shifts, axes = np.broadcast_arrays(shift, axis)
    axes = tuple(negative_axis(i, a.ndim) for i in axes.ravel().tolist())
    return roll_core(a, shift=tuple(shifts.ravel().tolist()), axis=axes)


@implements(np.repeat)
def repeat(a, repeats, axis=None):
    if axis is None:
        a, axis = np.ravel(a), 0
    return np.take(a, np.repeat(beside(a).arange(a.shape[axis]), repeats), axis)


@implements(np.tile)
def tile(A, reps):
    reps = (reps,) if isinstance(reps, (int, np.integer)) else tuple(reps)
    index = np.tile(beside(A).arange(A.size).reshape(A.shape), reps)
    return np.ravel(A)[index]


# --- diagonals and triangles


def _on_diagonal(ct, shapes, offset, axis1, axis2):
    shape = list(shapes[0])
    rows, columns = shape[axis1], shape[axis2]
    kept = [n for i, n in enumerate(shape) if i - len(shape) not in (axis1, axis2)]
    i = beside(ct).arange(ct.shape[-1])
    index = (..., i - min(offset, 0), i + max(offset, 0))
    moved = (len(ct), *kept, rows, columns)
    spread = scatter(ct, index=canonical_index(index, moved), shape=moved)
    return np.moveaxis(spread, (-2, -1), (axis1, axis2))


_diagonal = linear(np.diagonal, _on_diagonal, views=True, name="diagonal")


@implements(np.diagonal)
def diagonal(a, offset=0, axis1=0, axis2=1):
    """The diagonal of two axes, moved to the end: a read-only view of both parts, as NumPy's."""
    axis1, axis2 = negative_axis(axis1, a.ndim), negative_axis(axis2, a.ndim)
    return _diagonal(a, offset=offset, axis1=axis1, axis2=axis2)


@implements(np.linalg.diagonal)
def matrix_diagonal(x, /, *, offset=0):
    """The diagonals of a stack of matrices, which are its last two axes."""
    return diagonal(x, offset, -2, -1)


@implements(np.trace)
def trace(a, offset=0, axis1=0, axis2=1, dtype=None, out=None):
    return np.sum(np.diagonal(array(a), offset, axis1, axis2), -1, dtype, out)


@implements(np.linalg.trace)
def matrix_trace(x, /, *, offset=0, dtype=None):
    """The traces of a stack of matrices, which are its last two axes."""
    return np.sum(diagonal(x, offset, -2, -1), axis=-1, dtype=dtype)


@implements(np.diag)
def diag(v, k=0):
    if v.ndim == 2:
        return diagonal(v, k)
    size = v.size + abs(k)
    i = beside(v).arange(v.size)
    return scatter(v, index=(i + max(-k, 0), i + max(k, 0)), shape=(size, size))


@implements(np.tril)
def tril(m, k=0):
    return np.where(beside(m).tri(*m.shape[-2:], k=k, dtype=bool), m, 0)


@implements(np.triu)
def triu(m, k=0):
    return np.where(beside(m).tri(*m.shape[-2:], k=k - 1, dtype=bool), 0, m)
