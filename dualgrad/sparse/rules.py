"""What each primitive depends on: which entries of its arguments may move which of its result.

A rule(table, ids, primals, y, params) gives the numbers of the sets of y, an integer array that
broadcasts to y's shape; ids[i] is that of argument i, None where it is constant. No rule looks at a
value, for it would hide what happens to be zero. A primitive without a rule of its own or of its
kind depends on all inputs of the call.
"""

import functools
import math

import numpy as np

from ..ops import (
    decompositions,
    determinants,
    eigen,
    elementwise,
    fft,
    gauges,
    indexing,
    linalg,
    neural,
    normalisation,
    numerical,
    polynomials,
    products,
    shapes,
    structural,
)


def pattern_of(primitive, table, ids, primals, y, params):
    """Return the numbers of the sets of y, memory of their own unless y is a view too."""
    rule = _rules().get(primitive) or OF_KIND.get(primitive.kind, everything)
    out = np.asarray(rule(table, ids, primals, y, params))
    if out.shape == y.shape and (primitive.views or out.flags.owndata):
        return out
    return np.array(np.broadcast_to(out, y.shape))


def everything(table, ids, primals, y, params):
    """All entries of the result depend on all of the arguments."""
    met = [np.ravel(i) for i in ids if i is not None]
    return table.union(np.unique(np.concatenate(met)))


def entrywise(table, ids, primals, y, params):
    """An entry depends on those at its place, after broadcasting."""
    moving = [np.broadcast_to(i, y.shape) for i in ids if i is not None]
    return np.copy(moving[0]) if len(moving) == 1 else table.union(np.stack(moving, -1))


def over(table, ids, axes, keepdims=True):
    """Return the union over some axes, None: all."""
    axes = range(ids.ndim) if axes is None else axes
    axes = tuple(axis % ids.ndim for axis in axes)
    free = [axis for axis in range(ids.ndim) if axis not in axes]
    wide = np.transpose(ids, [*free, *axes])
    united = table.union(np.reshape(wide, (*wide.shape[: len(free)], _size(ids, axes))))
    return np.expand_dims(united, axes) if keepdims else united


def _size(ids, axes):
    return math.prod(ids.shape[axis] for axis in axes)


def _met(table, *parts):
    """Return the union of several arrays of sets, entry by entry after broadcasting."""
    parts = [part for part in parts if part is not None]
    return parts[0] if len(parts) == 1 else table.union(np.stack(np.broadcast_arrays(*parts), -1))


# --- entries that only move: their numbers do the same


def _moving(primitive):
    def rule(table, ids, primals, y, params):
        given = [np.zeros(x.shape, np.intp) if i is None else i
                 for i, x in zip(ids, primals, strict=True)]  # fmt: skip
        return primitive.value(*given, **params)

    return rule


def _staying(table, ids, primals, y, params):
    return ids[0]


def _scatter(table, ids, primals, y, params):
    places = np.arange(y.size).reshape(y.shape)[params["index"]]
    return np.reshape(table.gather(np.broadcast_to(places, ids[0].shape), ids[0], y.size), y.shape)


# --- entries that meet along axes


def _reduced(table, ids, primals, y, params):
    return over(table, ids[0], params["axis"], params["keepdims"])


def _along(axes):
    """All entries along some axes depend on one another."""
    return lambda table, ids, primals, y, params: over(table, ids[0], axes(params))


def _accumulated(table, ids, primals, y, params):
    """An entry of a cumulative sum depends on those up to its own."""
    moved = np.moveaxis(ids[0], params["axis"], 0)
    out = np.array(moved)
    for i in range(1, len(out)):
        out[i] = table.union(np.stack([out[i - 1], moved[i]], -1))
    return np.moveaxis(out, 0, params["axis"])


def _without_last(table, ids, primals, y, params):
    return over(table, ids[0], (-1,), False)


def _each_matrix(table, ids, primals, y, params):
    """What is made of a matrix depends on all of it, and on no other of the stack."""
    united = over(table, ids[0], (-2, -1), False)
    return np.reshape(united, united.shape + (1,) * (y.ndim - united.ndim))


# --- products: a result depends on what is summed over in each operand


def _matmul(table, ids, primals, y, params):
    a, b = ids
    rows = None if a is None else over(table, a, (-1,))  # (..., m, 1)
    columns = None if b is None else over(table, b, (-2,))  # (..., 1, p)
    return _met(table, rows, columns)


def _einsum(table, ids, primals, y, params):
    parts = []
    for i, letters in zip(ids, params["inputs"], strict=True):
        if i is None:
            continue
        summed = [axis for axis, c in enumerate(letters) if c not in params["output"]]
        kept = [c for c in letters if c in params["output"]]
        part = over(table, i, summed, keepdims=False) if summed else i
        part = np.transpose(part, [kept.index(c) for c in params["output"] if c in kept])
        sizes = iter(part.shape)
        shape = [next(sizes) if c in kept else 1 for c in params["output"]]
        parts.append(np.reshape(part, shape))
    return _met(table, *parts)


def _convolved(table, ids, primals, y, params):
    """One-dimensional, full: each operand under a window as long as the other."""
    parts = []
    for own, other in zip(ids, reversed(primals), strict=True):
        if own is not None:
            padded = np.pad(own, other.size - 1)
            parts.append(table.union(np.lib.stride_tricks.sliding_window_view(padded, other.size)))
    return _met(table, *parts)


def _solve(table, ids, primals, y, params):
    a, b = ids
    matrix = None if a is None else over(table, a, (-2, -1))
    return _met(table, matrix, None if b is None else over(table, b, (-2,)))


# --- convolution: x (n, h, w, c) and w (r, s, c/groups, o) meet in the windows of x


def _windows(shape, window, stride, padding, dilation, groups):
    """Return which entries of x (-1: padding) a window has, (n, h', w', groups, r, s, c/groups)."""
    places = np.arange(math.prod(shape)).reshape(shape)
    places = np.pad(places, ((0, 0), *padding, (0, 0)), constant_values=-1)
    reach = tuple((size - 1) * gap + 1 for size, gap in zip(window, dilation, strict=True))
    found = np.lib.stride_tricks.sliding_window_view(places, reach, (1, 2))
    found = found[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]
    n, h, w, c, r, s = found.shape  # channels before windows, so far
    found = np.reshape(found, (n, h, w, groups, c // groups, r, s))
    return np.moveaxis(found, 4, -1)


def _read(ids, places):
    """The sets at places, and the empty one where a place is -1."""
    return np.where(places < 0, 0, np.ravel(ids)[places])


def _grouped(ids, groups):
    """Channels (..., o) as (..., groups, o / groups)."""
    return np.reshape(ids, (*ids.shape[:-1], groups, ids.shape[-1] // groups))


def _conv2d(table, ids, primals, y, params):
    (x, w), groups = ids, params["groups"]
    seen = filters = None
    if x is not None:
        places = _windows(x.shape, primals[1].shape[:2], **params)
        seen = over(table, _read(x, places), (-3, -2, -1), False)[..., None]
    if w is not None:
        filters = _grouped(over(table, w, (0, 1, 2), False), groups)
    wide = (*y.shape[:-1], groups, y.shape[-1] // groups)
    return np.reshape(np.broadcast_to(_met(table, seen, filters), wide), y.shape)


def _conv2d_input(table, ids, primals, y, params):
    (ct, w), window = ids, dict(params)
    shape = window.pop("x_shape")
    groups = window["groups"]
    places = _windows(shape, primals[1].shape[:2], **window)
    sent = filters = None
    if ct is not None:
        united = over(table, _grouped(ct, groups), (-1,), False)[..., None, None, None]
        united, inside = np.broadcast_to(united, places.shape), places >= 0
        sent = np.reshape(table.gather(places[inside], united[inside], y.size), shape)
    if w is not None:  # (r, s, c / groups, o): the filters of a channel
        per_group = over(table, _grouped(w, groups), (0, 1, -1), False)  # (c / groups, groups)
        filters = np.reshape(np.transpose(per_group), (-1,))
    return _met(table, sent, filters)


def _conv2d_filter(table, ids, primals, y, params):
    (x, ct), window = ids, dict(params)
    shape, groups = window.pop("w_shape"), window["groups"]
    seen = outputs = None
    if x is not None:  # (groups, r, s, c / groups)
        places = _windows(x.shape, shape[:2], **window)[..., : shape[0], : shape[1], :]
        seen = np.moveaxis(over(table, _read(x, places), (0, 1, 2), False), 0, -1)[..., None]
    if ct is not None:
        outputs = _grouped(over(table, ct, (0, 1, 2), False), groups)
    wide = (*shape[:-1], groups, shape[-1] // groups)
    return np.reshape(np.broadcast_to(_met(table, seen, outputs), wide), shape)


# --- pooling: any entry of a window may become the largest


def _pooled(table, ids, primals, y, params):
    (r, s), (*first, h, w, c) = params["size"], y.shape  # first: examples, and directions of pulls
    cells = np.reshape(ids[0][..., : h * r, : w * s, :], (*first, h, r, w, s, c))
    return over(table, cells, (-4, -2), False)


def _unpooled(table, ids, primals, y, params):
    (r, s), (*_, h, w, _) = params["size"], ids[0].shape
    out = np.zeros(y.shape, np.intp)
    out[..., : h * r, : w * s, :] = np.repeat(np.repeat(ids[0], r, -3), s, -2)
    return out


# --- which primitive has which

OF_KIND = {"elementwise": entrywise, "reduction": _reduced}


@functools.cache
def _rules():
    """Return {primitive: rule}; a primitive that is not here goes by its kind."""
    last, matrices = _along(lambda params: (-1,)), _along(lambda params: (-2, -1))
    moving = (
        structural._reshape, structural.transpose_core, structural._broadcast_to,
        structural._concatenate, indexing._take, indexing._diagonal, indexing.roll_core,
        shapes._windows,
    )  # fmt: skip
    staying = (structural._astype, structural._copy, structural._real, structural._imag,
               structural._conj)  # fmt: skip
    alone = (
        decompositions._svd, decompositions._svdvals, decompositions._qr, decompositions._cholesky,
        determinants._det, determinants._log_abs_det, determinants._sign_det,
        eigen._eigh, eigen._eigvalsh, eigen._eig, eigen._eigvals, linalg._pinv,
    )  # fmt: skip
    return {
        **{primitive: _moving(primitive) for primitive in moving},
        **dict.fromkeys(staying, _staying),
        **dict.fromkeys(alone, _each_matrix),
        **dict.fromkeys((indexing.pick, fft._fft, fft._ifft, fft._rfft, fft._irfft),
                        _along(lambda params: (params["axis"],))),
        **dict.fromkeys((elementwise._complex_abs, gauges.with_value, normalisation._scaled),
                        entrywise),
        indexing.scatter: _scatter,
        structural._sum: _reduced,
        structural._cumsum: _accumulated,
        numerical._cumprod: _accumulated,
        products.matmul_core: _matmul,
        products.einsum_core: _einsum,
        polynomials._convolve: _convolved,
        products.conv2d_core: _conv2d,
        products.conv2d_input: _conv2d_input,
        products.conv2d_filter: _conv2d_filter,
        linalg._solve: _solve,
        linalg._inv: matrices,
        neural._softmax: last,
        neural._log_softmax: last,
        neural._cross_entropy: _without_last,
        neural._gather: _pooled,
        neural._scatter: _unpooled,
        normalisation._normalise: _along(lambda params: params["axes"]),
    }  # fmt: skip
