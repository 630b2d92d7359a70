"""Functions that move entries: shapes, indexing, joining, casts, and the sums that are linear."""

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from ..beside import beside, on_device
from ..dual import DualTensor, Structured, find_level, primal_of
from ..errors import DtypeError
from ..operations import implements
from ..primitive import Node, constant, custom, linear, unbroadcast
from .results import array, array_beside, deliver, together

# --- axes: counted from the end, so that a leading axis of directions changes nothing


def negative_axes(axis, ndim):
    """Return axis (None, int or tuple) as a tuple of negative ints."""
    if axis is None:
        return tuple(range(-ndim, 0))
    axes = normalize_axis_tuple(axis, ndim)
    return tuple(a - ndim for a in axes)


def negative_axis(axis, ndim):
    return normalize_axis_index(axis, ndim) - ndim


# --- the linear primitives

_reshape = linear(
    lambda x, shape: np.reshape(x, shape),
    lambda ct, shapes, shape: np.reshape(ct, (len(ct), *shapes[0])),
    lambda k, shape: {"shape": (k, *shape)},
    views=True,
    name="reshape",
)
transpose_core = linear(
    lambda x, axes: np.transpose(x, axes),
    lambda ct, shapes, axes: np.transpose(ct, (0, *(a + 1 for a in np.argsort(axes)))),
    lambda k, axes: {"axes": (0, *(a + 1 for a in axes))},
    views=True,
    name="transpose",
)
_broadcast_to = linear(
    lambda x, shape: np.broadcast_to(x, shape),
    lambda ct, shapes, shape: unbroadcast(ct, shapes[0]),
    lambda k, shape: {"shape": (k, *shape)},
    name="broadcast_to",
)
_sum = linear(
    lambda x, axis, keepdims: np.sum(x, axis=axis, keepdims=keepdims),
    lambda ct, shapes, axis, keepdims: _spread(ct, shapes[0], axis, keepdims),
    name="sum",
)
_cumsum = linear(
    lambda x, axis: np.cumsum(x, axis=axis),
    lambda ct, shapes, axis: np.flip(np.cumsum(np.flip(ct, axis), axis=axis), axis),
    name="cumsum",
)
_astype = linear(
    lambda x, dtype: x.astype(dtype),
    lambda ct, shapes, dtype: ct,
    name="astype",
)
_copy = linear(
    lambda x, order: np.copy(x, order) if on_device(x) else np.array(x, order=order),
    lambda ct, shapes, order: ct,
    lambda k, order: {"order": order},
    name="copy",
)
_real = linear(lambda x: x.real, lambda ct, shapes: ct, views=True, name="real")
_imag = linear(lambda x: x.imag, lambda ct, shapes: 1j * ct, views=True, name="imag")
_conj = linear(np.conjugate, lambda ct, shapes: np.conj(ct), name="conjugate")
_concatenate = linear(
    lambda *xs, axis: np.concatenate(xs, axis),
    lambda ct, shapes, axis: _cut(ct, shapes, axis),
    name="concatenate",
)


def _spread(ct, shape, axis, keepdims):
    wide = ct if keepdims else np.expand_dims(ct, axis)
    return np.broadcast_to(wide, (len(ct), *shape))


def _cut(ct, shapes, axis):
    ends = np.cumsum([shape[axis] for shape in shapes])[:-1].tolist()
    return np.split(ct, ends, axis)


# --- shapes


@implements(np.reshape)
def reshape(a, shape=None, order="C", *, copy=None):
    if order == "A":  # as the entries lie in memory
        order = "F" if np.isfortran(primal_of(a)) else "C"
    if order not in ("C", "F"):
        raise ValueError(f"np.reshape: order={order!r}; give 'C', 'F' or 'A'.")
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if -1 in shape:
        known = math.prod(n for n in shape if n != -1)
        shape = tuple(a.size // max(known, 1) if n == -1 else n for n in shape)
    if order == "F":
        return np.transpose(np.reshape(np.transpose(a), shape[::-1], copy=copy))
    result = _reshape(a, shape=shape)
    return np.copy(result) if copy else result


@implements(np.ravel)
def ravel(a, order="C"):
    if order == "K":  # as the axes lie in memory, longest stride first
        strides = np.abs(getattr(primal_of(a), "strides", ()))
        a, order = np.transpose(a, np.argsort(-strides, kind="stable")), "C"
    return np.reshape(a, (a.size,), order)


@implements(np.transpose, np.permute_dims)
def transpose(a, axes=None):
    axes = range(a.ndim)[::-1] if axes is None else normalize_axis_tuple(axes, a.ndim)
    return transpose_core(a, axes=tuple(axes))


@implements(np.matrix_transpose, np.linalg.matrix_transpose)
def matrix_transpose(x):
    return np.swapaxes(x, -1, -2)


@implements(np.swapaxes)
def swapaxes(a, axis1, axis2):
    axes = list(range(a.ndim))
    axis1, axis2 = normalize_axis_index(axis1, a.ndim), normalize_axis_index(axis2, a.ndim)
    axes[axis1], axes[axis2] = axes[axis2], axes[axis1]
    return np.transpose(a, axes)


@implements(np.moveaxis)
def moveaxis(a, source, destination):
    source = normalize_axis_tuple(source, a.ndim)
    destination = normalize_axis_tuple(destination, a.ndim)
    axes = [i for i in range(a.ndim) if i not in source]
    for to, place in sorted(zip(destination, source, strict=True)):
        axes.insert(to, place)
    return np.transpose(a, axes)


@implements(np.expand_dims)
def expand_dims(a, axis):
    axes = (axis,) if isinstance(axis, (int, np.integer)) else tuple(axis)
    axes = normalize_axis_tuple(axes, a.ndim + len(axes))
    kept = iter(a.shape)
    return _reshape(
        a, shape=tuple(1 if i in axes else next(kept) for i in range(a.ndim + len(axes)))
    )


@implements(np.squeeze)
def squeeze(a, axis=None):
    ones = [i for i, n in enumerate(a.shape) if n == 1]
    axes = ones if axis is None else normalize_axis_tuple(axis, a.ndim)
    np.squeeze(np.empty(a.shape, bool), axis)  # NumPy's own error for an axis longer than 1
    return _reshape(a, shape=tuple(n for i, n in enumerate(a.shape) if i not in axes))


@implements(np.broadcast_to)
def broadcast_to(array, shape, subok=False):
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    missing = len(shape) - array.ndim
    if missing > 0:
        array = _reshape(array, shape=(1,) * missing + array.shape)
    return _broadcast_to(array, shape=shape)


@implements(np.broadcast_arrays)
def broadcast_arrays(*args, subok=False):
    shape = np.broadcast_shapes(*(np.shape(x) for x in args))
    return tuple(np.broadcast_to(x, shape) for x in args)


@implements(np.atleast_1d)
def atleast_1d(*arys):
    out = tuple(x if np.ndim(x) >= 1 else np.reshape(x, (1,)) for x in arys)
    return out[0] if len(out) == 1 else out


@implements(np.atleast_2d)
def atleast_2d(*arys):
    out = tuple(x if np.ndim(x) >= 2 else np.reshape(x, (1, -1)) for x in arys)
    return out[0] if len(out) == 1 else out


# --- joining and splitting


@implements(np.concatenate)
def concatenate(arrays, axis=0, out=None, *, dtype=None, casting="same_kind"):
    arrays = together(arrays)
    if axis is None:
        arrays, axis = [np.ravel(x) for x in arrays], 0
    joined = _concatenate(*arrays, axis=negative_axis(axis, arrays[0].ndim))
    if dtype is None:
        return deliver(joined, out)
    if not np.can_cast(joined.dtype, dtype, casting):
        raise TypeError(f"concatenate: {joined.dtype} to {np.dtype(dtype)} is not {casting!r}")
    return deliver(np.astype(joined, dtype), out)


@implements(np.stack)
def stack(arrays, axis=0, out=None, *, dtype=None, casting="same_kind"):
    arrays = together(arrays)
    shapes = {np.shape(x) for x in arrays}
    if len(shapes) > 1:
        raise ValueError("all input arrays must have the same shape")
    axis = normalize_axis_index(axis, len(shapes.pop()) + 1)
    wide = [np.expand_dims(x, axis) for x in arrays]
    return np.concatenate(wide, axis, out, dtype=dtype, casting=casting)


@implements(np.hstack)
def hstack(tup, *, dtype=None, casting="same_kind"):
    arrays = [np.atleast_1d(x) for x in together(tup)]
    axis = 0 if arrays[0].ndim == 1 else 1
    return np.concatenate(arrays, axis, dtype=dtype, casting=casting)


@implements(np.vstack)
def vstack(tup, *, dtype=None, casting="same_kind"):
    arrays = [np.atleast_2d(x) for x in together(tup)]
    return np.concatenate(arrays, 0, dtype=dtype, casting=casting)


@implements(np.column_stack)
def column_stack(tup):
    arrays = together(tup)
    return np.concatenate([x if x.ndim > 1 else np.reshape(x, (-1, 1)) for x in arrays], 1)


@implements(np.append)
def append(arr, values, axis=None):
    return np.concatenate((arr, values), axis)


@implements(np.array_split)
def array_split(ary, indices_or_sections, axis=0):
    axis = normalize_axis_index(axis, ary.ndim)
    parts = np.array_split(np.arange(ary.shape[axis]), indices_or_sections)
    before = (slice(None),) * axis
    starts = np.cumsum([0, *(len(p) for p in parts)]).tolist()
    if np.ndim(indices_or_sections):  # cut points may run backwards or past the end
        return [np.take(ary, p, axis) for p in parts]
    return [ary[(*before, slice(*cut))] for cut in zip(starts, starts[1:], strict=False)]


@implements(np.split)
def split(ary, indices_or_sections, axis=0):
    np.split(np.empty(ary.shape, bool), indices_or_sections, axis)  # NumPy's own errors
    return array_split(ary, indices_or_sections, axis)


# --- sums, casts, copies


@implements(np.sum)
def sum_(a, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=True):
    a = array(a) if dtype is None else np.astype(array(a), dtype)
    y = _sum(chosen(a, where, 0), axis=negative_axes(axis, a.ndim), keepdims=keepdims)
    return deliver(y if initial is None else y + initial, out)


def chosen(a, where, otherwise):
    """Return a where the mask `where` (True: everywhere) holds, else a number."""
    if where is True:
        return a
    return np.where(np.broadcast_to(primal_of(where), a.shape), a, otherwise)


def cumulative(primitive):
    """Return the rule of np.cumsum or np.cumprod, given what runs along one axis."""

    def rule(a, axis=None, dtype=None, out=None):
        a = array(a)
        if axis is None:
            a, axis = np.ravel(a), 0
        a = np.atleast_1d(a if dtype is None else np.astype(a, dtype))
        return deliver(primitive(a, axis=negative_axis(axis, a.ndim)), out)

    return rule


implements(np.cumsum)(cumulative(_cumsum))


@implements(np.diff)
def diff(a, n=1, axis=-1, prepend=None, append=None):
    if n < 0:
        raise ValueError(f"np.diff: n={n}; the order must not be negative.")
    if n == 0:
        return a
    a = array(a)
    axis = normalize_axis_index(axis, a.ndim)
    if prepend is not None or append is not None:
        edge = (*a.shape[:axis], 1, *a.shape[axis + 1 :])
        ends = [x if x is None else array_beside(x, a) for x in (prepend, append)]
        ends = [x if x is None or x.ndim else np.broadcast_to(x, edge) for x in ends]
        parts = [x for x in (ends[0], a, ends[1]) if x is not None]
        a = np.concatenate(parts, axis)
    before = (slice(None),) * axis
    for _ in range(n):
        a = a[(*before, slice(1, None))] - a[(*before, slice(None, -1))]
    return a


@implements(np.astype)
def astype(x, dtype, *, copy=True, order="K", casting="unsafe", subok=True, device=None):
    """x in another dtype; a cast to integers or bool is piecewise constant: its result is plain."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "fciub":
        raise DtypeError(
            f"astype({dtype}): entries that are no numbers cannot carry tangents. Keep x in a "
            f"floating dtype, or pass dg.primal(x) if the derivative is not wanted."
        )
    if dtype.kind not in "fc":
        return constant(np.astype)(x, dtype)
    if dtype.kind == "f" and x.dtype.kind == "c":
        raise DtypeError(
            f"astype({dtype}): x is {x.dtype}; say np.real(x), np.imag(x) or np.abs(x)."
        )
    return x if dtype == x.dtype and not copy else _astype(x, dtype=dtype)


@implements(np.copy)
def copy(a, order="K", subok=False):
    """A writable copy of both parts."""
    y = _copy(a, order=order)
    if hasattr(y.carrier, "room"):
        y.carrier = y.carrier.room(y.primal)
    elif type(y.carrier) is not Node:
        y.carrier = _roomy(y.carrier, y.primal)
    return y


def _roomy(carrier, primal):
    """The carrier, with room for the outer tangents of what may be written into it."""
    return carrier + np.zeros_like(primal, shape=carrier.shape) if find_level([primal]) else carrier


@implements(np.real)
def real(val):
    return _real(val)


@implements(np.imag)
def imag(val):
    return _imag(val)


@implements(np.conjugate)
def conjugate(x):
    return _conj(x) if x.dtype.kind == "c" else np.positive(x)


# --- arrays like a dual: writable, with zero tangents


def _push_nothing(residuals, tangents, **params):
    return None


# The recorded tangent of np.zeros_like(x): it pushes and pulls nothing.
_zero = custom(np.zeros_like, _push_nothing, _push_nothing, lambda residuals, ct: [])


@implements(np.zeros_like, np.empty_like)
def zeros_like(a, dtype=None, order="K", subok=True, shape=None, *, device=None):
    """Zeros that can hold values like a: a dual of a's level (an integer dtype: a plain array)."""
    dtype = a.dtype if dtype is None else np.dtype(dtype)
    shape = a.shape if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)
    if dtype.kind not in "fc":
        return beside(a).zeros(shape, dtype)
    a.level.check("np.zeros_like")
    primal = np.zeros_like(a.primal, dtype=dtype, shape=shape)
    if type(a.carrier) is Node:
        return DualTensor(primal, Node(_zero, None, {}, [], shape, dtype), a.level)
    if hasattr(a.carrier, "zeros"):
        return DualTensor(primal, a.carrier.zeros(primal), a.level)
    full = (len(a.carrier), *shape)
    if isinstance(a.carrier, Structured):
        return DualTensor(primal, beside(primal).zeros(full, dtype), a.level)
    carrier = np.zeros_like(a.carrier, dtype=dtype, shape=full)
    return DualTensor(primal, _roomy(carrier, primal), a.level)


@implements(np.full_like)
def full_like(a, fill_value, dtype=None, order="K", subok=True, shape=None, *, device=None):
    if type(a) is not DualTensor:  # the fill value is the dual
        shape = np.shape(a) if shape is None else shape
        return np.copy(np.broadcast_to(np.astype(fill_value, dtype or a.dtype), shape))
    zeros = np.zeros_like(a, dtype=dtype, shape=shape)
    return np.astype(zeros + fill_value, zeros.dtype, copy=False)


@implements(np.ones_like)
def ones_like(a, dtype=None, order="K", subok=True, shape=None, *, device=None):
    return full_like(a, 1, dtype, shape=shape)
