"""Arrangements made of reshape, transpose, indexing and concatenate."""

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple
from numpy.lib.stride_tricks import sliding_window_view

from ..beside import beside, beside_all
from ..dual import DualTensor, primal_of
from ..operations import implements
from ..primitive import constant, linear
from .indexing import scatter
from .results import array, together

for _name in "diag_indices_from tril_indices_from triu_indices_from common_type".split():
    implements(getattr(np, _name), differentiable=False)(constant(getattr(np, _name)))
for _name in "array2string array_repr array_str may_share_memory shares_memory".split():
    implements(getattr(np, _name), differentiable=False)(constant(getattr(np, _name)))
implements(np.einsum_path, differentiable=False)(constant(np.einsum_path))


# --- axes


@implements(np.atleast_3d)
def atleast_3d(*arys):
    arrays = [array(x) for x in arys]
    shapes = [(*(1,) * (x.ndim < 2), *x.shape, *(1,) * (3 - max(x.ndim, 2))) for x in arrays]
    out = [
        x if x.ndim > 2 else np.reshape(x, (1, 1, 1) if x.ndim == 0 else shape)
        for x, shape in zip(arrays, shapes, strict=True)
    ]
    return out[0] if len(out) == 1 else tuple(out)


@implements(np.rollaxis)
def rollaxis(a, axis, start=0):
    axis = normalize_axis_index(axis, a.ndim)
    start = start + a.ndim if start < 0 else start
    normalize_axis_index(start, a.ndim + 1)
    return np.moveaxis(a, axis, start - 1 if axis < start else start)


@implements(np.rot90)
def rot90(m, k=1, axes=(0, 1)):
    first, second = normalize_axis_tuple(axes, m.ndim)
    k %= 4
    if k == 2:
        return np.flip(m, (first, second))
    if k == 1:
        return np.swapaxes(np.flip(m, second), first, second)
    return np.flip(np.swapaxes(m, first, second), second) if k else m[...]


@implements(np.fliplr)
def fliplr(m):
    if m.ndim < 2:
        raise ValueError(f"np.fliplr: the input must have at least two axes, not {m.ndim}.")
    return np.flip(m, 1)


@implements(np.flipud)
def flipud(m):
    return np.flip(m, 0)


@implements(np.resize)
def resize(a, new_shape):
    """The entries of a in order, repeated as often as new_shape needs."""
    shape = (new_shape,) if isinstance(new_shape, (int, np.integer)) else tuple(new_shape)
    size = math.prod(shape)
    if a.size == 0:
        return np.zeros_like(a, shape=shape)
    return np.reshape(np.ravel(a)[beside(a).arange(size) % a.size], shape)


@implements(np.trim_zeros)
def trim_zeros(filt, trim="fb", axis=None):
    """filt without its outer zeros, as its primal shows them."""
    trim = trim.lower()
    if trim not in ("f", "b", "fb", "bf"):
        raise ValueError(f"unexpected character(s) in `trim`: {trim!r}")
    filt = array(filt)
    axes = range(filt.ndim) if axis is None else normalize_axis_tuple(axis, filt.ndim)
    places = np.nonzero(np.atleast_1d(primal_of(filt)))
    index = [slice(None)] * filt.ndim
    for i in axes:
        found = places[i].size > 0
        first = int(places[i].min()) if found and "f" in trim else 0
        last = int(places[i].max()) + 1 if found and "b" in trim else filt.shape[i]
        index[i] = slice(first, last if found else 0)
    return filt[tuple(index)]


# --- joining and splitting


@implements(np.dstack)
def dstack(tup):
    return np.concatenate([np.atleast_3d(x) for x in together(tup)], 2)


@implements(np.block)
def block(arrays):
    """Nested lists of arrays joined: the innermost along the last axis, and so on outwards."""
    module = beside_all(arrays)
    depth = _depth(arrays)
    ndim = max(depth, _most_axes(arrays))
    return _join(arrays, depth, ndim, module)


def _depth(arrays):
    if type(arrays) is tuple:
        raise TypeError("np.block takes nested lists, not tuples.")
    if type(arrays) is not list:
        return 0
    if not arrays:
        raise ValueError("np.block: lists cannot be empty.")
    depths = {_depth(x) for x in arrays}
    if len(depths) > 1:
        raise ValueError(f"np.block: lists are nested {sorted(depths)} deep; depths must agree.")
    return 1 + depths.pop()


def _most_axes(arrays):
    return max(map(_most_axes, arrays)) if type(arrays) is list else np.ndim(arrays)


def _join(arrays, depth, ndim, module):
    if type(arrays) is not list:
        x = array(arrays) if hasattr(arrays, "dtype") else module.asarray(arrays)
        return np.reshape(x, (*(1,) * (ndim - x.ndim), *x.shape))
    return np.concatenate([_join(x, depth - 1, ndim, module) for x in arrays], -depth)


def _split_along(axis, name, least):
    def rule(ary, indices_or_sections):
        if ary.ndim < least:
            raise ValueError(f"np.{name} takes arrays of {least} or more axes, not {ary.ndim}.")
        return np.split(ary, indices_or_sections, 0 if ary.ndim == 1 else axis)

    return rule


implements(np.vsplit, family="shapes")(_split_along(0, "vsplit", 2))
implements(np.hsplit, family="shapes")(_split_along(1, "hsplit", 1))
implements(np.dsplit, family="shapes")(_split_along(2, "dsplit", 3))


@implements(np.unstack)
def unstack(x, *, axis=0):
    if x.ndim == 0:
        raise ValueError("np.unstack: the input has no axis.")
    return tuple(np.moveaxis(x, axis, 0))


# --- grids


@implements(np.meshgrid)
def meshgrid(*xi, copy=True, sparse=False, indexing="xy"):
    if indexing not in ("xy", "ij"):
        raise ValueError("np.meshgrid: indexing is 'xy' or 'ij'.")
    arrays = [np.ravel(array(x)) for x in xi]
    n = len(arrays)
    places = [1, 0, *range(2, n)] if indexing == "xy" and n > 1 else range(n)
    grid = [
        np.reshape(x, (*(1,) * i, -1, *(1,) * (n - 1 - i)))
        for x, i in zip(arrays, places, strict=True)
    ]
    grid = list(grid if sparse else np.broadcast_arrays(*grid))
    return tuple(np.copy(x) for x in grid) if copy else tuple(grid)


@implements(np.ix_)
def ix_(*args):
    arrays = [array(x) for x in args]
    for x in arrays:
        if x.ndim != 1:
            raise ValueError("np.ix_: every argument must have one axis.")
    arrays = [x if type(x) is DualTensor else np.ix_(x)[0] for x in arrays]
    n = len(arrays)
    return tuple(
        np.reshape(x, (*(1,) * i, x.size, *(1,) * (n - 1 - i))) for i, x in enumerate(arrays)
    )


@implements(np.diagflat)
def diagflat(v, k=0):
    return np.diag(np.ravel(array(v)), k)


def _windows_transposed(ct, shapes, window, axes):
    shape = (len(ct), *shapes[0])
    place = beside(ct).arange(math.prod(shapes[0])).reshape(shapes[0])
    source = sliding_window_view(place, window, axes).ravel()
    flat = np.reshape(ct, (len(ct), source.size))
    sums = scatter(flat, index=(slice(None), source), shape=(len(ct), place.size))
    return np.reshape(sums, shape)


# Counted from the end, a window's axes stay where they are below an axis of directions; the axes
# that NumPy adds come last.
_windows = linear(
    lambda x, window, axes: sliding_window_view(x, window, axes),
    _windows_transposed,
    views=True,
    name="sliding_window_view",
)


@implements(sliding_window_view)
def windows(x, window_shape, axis=None, *, subok=False, writeable=False):
    """The windows of x, a read-only view of both parts as NumPy's."""
    if writeable:
        raise ValueError("sliding_window_view of a dual is read-only: writeable=True is not taken.")
    window = (window_shape,) if isinstance(window_shape, int) else tuple(window_shape)
    axes = (
        range(x.ndim) if axis is None else normalize_axis_tuple(axis, x.ndim, allow_duplicate=True)
    )
    return _windows(x, window=window, axes=tuple(i - x.ndim for i in axes))


# --- functions of the user along axes


@implements(np.apply_along_axis)
def apply_along_axis(func1d, axis, arr, *args, **kwargs):
    """func1d of every one-dimensional slice, its results stacked in place of the axis."""
    arr = array(arr)
    axis = normalize_axis_index(axis, arr.ndim)
    rows = np.moveaxis(arr, axis, -1)
    kept = rows.shape[:-1]
    if 0 in kept:
        raise ValueError("Cannot apply_along_axis when any iteration dimensions are 0")
    results = [array(func1d(rows[i], *args, **kwargs)) for i in np.ndindex(kept)]
    out = np.reshape(np.stack(results), (*kept, *results[0].shape))
    last = tuple(range(len(kept), out.ndim))
    return np.moveaxis(out, last, tuple(range(axis, axis + len(last))))


@implements(np.apply_over_axes)
def apply_over_axes(func, a, axes):
    y = a = array(a)
    for axis in np.atleast_1d(axes).tolist():
        axis += a.ndim if axis < 0 else 0
        result = func(y, axis)
        y = result if np.ndim(result) == y.ndim else np.expand_dims(result, axis)
        if y.ndim != a.ndim:
            raise ValueError("function is not returning an array of the correct shape")
    return y


# --- complex parts


@implements(np.real_if_close)
def real_if_close(a, tol=100):
    """The real part, with its tangent, where the imaginary parts of the primal are nearly 0."""
    if a.dtype.kind != "c" or np.iscomplexobj(np.real_if_close(primal_of(a), tol)):
        return a
    return np.real(a)


@implements(np.sort_complex)
def sort_complex(a):
    y = np.sort(a)
    return y if y.dtype.kind == "c" else np.astype(y, np.complex128)
