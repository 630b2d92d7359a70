"""The methods of ufuncs: reduce, accumulate, reduceat, outer and at, for every ufunc with a rule.

Sums, products and extremes have rules of their own (METHODS). Any other function of two arguments
is folded: an associative one by halves, in log2(n) calls, any other entry by entry, in n.
"""

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from ..beside import as_array, beside
from ..dual import DualTensor, missing_rule, primal_of, write
from ..errors import WriteError
from ..operations import METHODS, UFUNC_METHODS, find, name_of
from ..primitive import check_levels
from .indexing import canonical_index, scatter
from .ufunc_calls import call, deliver

# Associative and commutative, with what leaves the other argument as it is.
NEUTRAL = {
    np.add: 0.0,
    np.multiply: 1.0,
    np.logaddexp: -np.inf,
    np.logaddexp2: -np.inf,
    np.hypot: 0.0,
    np.maximum: -np.inf,
    np.minimum: np.inf,
    np.fmax: np.nan,
    np.fmin: np.nan,
}
EXTREMES = (np.maximum, np.minimum, np.fmax, np.fmin)
_NONE_GIVEN = np._NoValue  # what NumPy itself takes for "not given"


def _in_loop_dtype(ufunc, method, x, dtype, *others):
    """Return x in the dtype that NumPy would compute in, and whether results may carry tangents.

    Where they may not (booleans, and what NumPy itself refuses: functions of one argument, matmul,
    ...) the method is NumPy's own, of the primal.
    """
    name = f"{name_of(ufunc)}.{method}"
    if find(ufunc) is None:
        raise missing_rule(name, (x, *others), {})
    check_levels([x, *others], name)
    x = x if hasattr(x, "dtype") else as_array(x)
    if ufunc.nin != 2 or ufunc.nout != 1 or ufunc.signature:
        return x, False
    x = x if dtype is None else np.astype(x, dtype, copy=False)
    loop = ufunc.resolve_dtypes((x.dtype, x.dtype, None), reduction=True)
    moves = loop[2].kind in "fc"
    return (np.astype(x, loop[1]) if moves and loop[1] != x.dtype else x), moves


# --- reduce


def reduce(ufunc, array, axis=0, dtype=None, out=None, keepdims=False, initial=_NONE_GIVEN,
           where=True):  # fmt: skip
    """Return the ufunc between all entries along an axis, several axes, or None: all."""
    x, moves = _in_loop_dtype(ufunc, "reduce", array, dtype, initial, where)
    if not moves:
        given = {} if initial is _NONE_GIVEN else {"initial": primal_of(initial)}
        given |= {"keepdims": keepdims, "where": primal_of(where)}
        y = ufunc.reduce(primal_of(x), axis, dtype, **given)
        return y if out is None else deliver(f"{ufunc.__name__}.reduce", y, out)
    if initial is not _NONE_GIVEN and initial is not None and type(initial) is not DualTensor:
        initial = x.dtype.type(initial)
    if not x.ndim and axis in (0, -1):
        axis = ()
    axes = tuple(range(x.ndim)) if axis is None else normalize_axis_tuple(axis, x.ndim)
    if ufunc not in NEUTRAL and len(axes) > 1:
        raise ValueError(
            f"reduction operation '{ufunc.__name__}' is not reorderable, so at most one axis may "
            f"be specified"
        )
    if initial is _NONE_GIVEN:
        initial = ufunc.identity
    if where is not True:
        if initial is None:
            raise ValueError(
                f"reduction operation '{ufunc.__name__}' does not have an identity, so to use a "
                f"where mask one has to specify 'initial'"
            )
        where = np.broadcast_to(primal_of(where), x.shape)
    count = math.prod(x.shape[a] for a in axes)
    if not count and initial is None:
        raise ValueError(
            f"zero-size array to reduction operation {ufunc.__name__} which has no identity"
        )
    if ufunc in NEUTRAL:
        y = _reduce_associative(ufunc, x, axes, initial, where, count)
    else:
        y = _reduce_in_order(ufunc, x, axes, initial, where)
    y = np.expand_dims(y, axes) if keepdims else y
    return y if out is None else deliver(f"{ufunc.__name__}.reduce", y, out)


def _reduce_associative(ufunc, x, axes, initial, where, count):
    if where is not True:
        x = np.where(where, x, NEUTRAL[ufunc])
    if not count:
        shape = tuple(n for i, n in enumerate(x.shape) if i not in axes)
        return np.zeros_like(x, shape=shape) + initial
    if (ufunc, "reduce") in METHODS:
        y = METHODS[ufunc, "reduce"](x, axis=axes, keepdims=False)
    elif ufunc in (np.fmax, np.fmin):
        y = _extreme_of_numbers(ufunc, x, axes)
    else:
        y = _by_halves(ufunc, np.moveaxis(x, axes, range(len(axes))), len(axes), count)
    known = initial is None or (not isinstance(initial, DualTensor) and initial == ufunc.identity)
    return y if known else ufunc(y, initial)


def _extreme_of_numbers(ufunc, x, axes):
    """The largest or smallest entry that is no NaN; ties share as in np.max. All NaN: NaN."""
    missing = np.isnan(primal_of(x))
    extreme, worst = (np.max, -np.inf) if ufunc is np.fmax else (np.min, np.inf)
    y = extreme(np.where(missing, worst, x), axis=axes)
    return np.where(np.all(missing, axis=axes), np.nan, y)


def _by_halves(ufunc, x, ndim, count):
    x = np.reshape(x, (count, *x.shape[ndim:]))
    while len(x) > 1:
        half = len(x) // 2
        y = ufunc(x[:half], x[half : 2 * half])
        x = y if len(x) % 2 == 0 else np.concatenate([y, x[-1:]])
    return x[0]


def _reduce_in_order(ufunc, x, axes, initial, where):
    if not axes:
        return x if initial is None else ufunc(initial, x)
    rows = np.moveaxis(x, axes[0], 0)
    mask = None if where is True else np.moveaxis(where, axes[0], 0)
    y, start = (rows[0], 1) if initial is None else (initial, 0)
    for i in range(start, len(rows)):
        new = ufunc(y, rows[i])
        y = new if mask is None else np.where(mask[i], new, y)
    if len(rows) == start and initial is not None:
        return np.zeros_like(x, shape=rows.shape[1:]) + initial
    return y


# --- accumulate and reduceat


def accumulate(ufunc, array, axis=0, dtype=None, out=None):
    """Return the results of reducing ever longer pieces of an axis.

    maximum.accumulate and its like carry the tangent of the first of equal entries.
    """
    x, moves = _in_loop_dtype(ufunc, "accumulate", array, dtype)
    if not moves:
        y = ufunc.accumulate(primal_of(x), axis, dtype)
        return y if out is None else deliver(f"{ufunc.__name__}.accumulate", y, out)
    if not x.ndim:
        raise TypeError("cannot accumulate on a scalar")
    axis = normalize_axis_index(axis, x.ndim)
    if (ufunc, "accumulate") in METHODS:
        y = METHODS[ufunc, "accumulate"](x, axis=axis)
    elif x.shape[axis] == 0:
        y = np.copy(x)
    elif ufunc in EXTREMES:
        y = np.take_along_axis(x, _places_of_records(ufunc, primal_of(x), axis), axis)
    elif ufunc in NEUTRAL:
        y = np.moveaxis(_scan(ufunc, np.moveaxis(x, axis, 0)), 0, axis)
    else:
        rows = np.moveaxis(x, axis, 0)
        found = [rows[0]]
        for row in rows[1:]:
            found.append(ufunc(found[-1], row))
        y = np.stack(found, axis)
    return y if out is None else deliver(f"{ufunc.__name__}.accumulate", y, out)


def _places_of_records(ufunc, x, axis):
    """Return for each entry the place along the axis of the first entry equal to the extreme."""
    y = np.moveaxis(ufunc.accumulate(x, axis), axis, 0)
    new = (y[1:] != y[:-1]) & ~(np.isnan(y[1:]) & np.isnan(y[:-1]))
    places = beside(y).arange(len(y)).reshape(-1, *(1,) * (y.ndim - 1))
    first = np.where(np.concatenate([np.ones_like(new, shape=(1, *y.shape[1:])), new]), places, 0)
    return np.moveaxis(np.maximum.accumulate(first, 0), 0, axis)


def _scan(ufunc, x):
    """All prefixes along axis 0, by doubling the length of what an entry covers."""
    step = 1
    while step < len(x):
        x = np.concatenate([x[:step], ufunc(x[:-step], x[step:])])
        step *= 2
    return x


def reduceat(ufunc, array, indices, axis=0, dtype=None, out=None):
    """Return the reductions of the slices of an axis that begin at indices, as NumPy has them."""
    indices = primal_of(indices)
    x, moves = _in_loop_dtype(ufunc, "reduceat", array, dtype)
    if not moves:
        y = ufunc.reduceat(primal_of(x), indices, axis, dtype)
        return y if out is None else deliver(f"{ufunc.__name__}.reduceat", y, out)
    axis = normalize_axis_index(axis, x.ndim)
    module = beside(indices)
    module.add.reduceat(module.empty(x.shape[axis], np.int8), indices)  # NumPy's own errors
    rows = np.moveaxis(x, axis, 0)
    starts = as_array(indices).tolist()
    pieces = []
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=False):
        piece = rows[start : max(stop, start + 1)]
        pieces.append(piece[0] if len(piece) == 1 else reduce(ufunc, piece))
    y = np.stack(pieces, axis) if pieces else np.moveaxis(rows[:0], 0, axis)
    return y if out is None else deliver(f"{ufunc.__name__}.reduceat", y, out)


# --- outer and at


def outer(ufunc, a, b, **keywords):
    """Return the ufunc of every entry of a with every entry of b, of shape a.shape + b.shape."""
    if ufunc.nin != 2 or ufunc.signature:
        return ufunc.outer(primal_of(a), primal_of(b), **keywords)  # raises
    a, b = (x if hasattr(x, "ndim") else np.asarray(x) for x in (a, b))
    return call(ufunc, np.reshape(a, (*a.shape, *(1,) * b.ndim)), b, **keywords)


def at(ufunc, a, indices, *operands):
    """Do a[indices] = ufunc(a[indices], operand) once for every index, also where they repeat."""
    name = f"{name_of(ufunc)}.at"
    if find(ufunc) is None:
        raise missing_rule(name, (a, *operands), {})
    if type(a) is not DualTensor:
        raise WriteError(
            f"{name}: writing a dual into a plain array would lose the tangent. Write into a copy "
            f"of a dual, or into np.zeros_like(x) of one."
        )
    if ufunc.nout != 1 or ufunc.nin != 1 + len(operands) or ufunc.signature:
        ufunc.at(beside(a).zeros(a.shape, a.dtype), primal_of(indices), *map(primal_of, operands))
    index = canonical_index(indices, a.shape)
    places = beside(a).arange(a.size).reshape(a.shape)[index]
    values = [
        np.ravel(np.broadcast_to(np.copy(v) if np.ndim(v) else v, places.shape)) for v in operands
    ]
    places = places.ravel()
    if ufunc in (np.add, np.subtract) and values:
        flat = (places,)
        total = scatter(values[0], index=flat, shape=(a.size,))
        write(a, ..., ufunc(a, np.reshape(total, a.shape)))
        return
    for chosen in _rounds(places):
        target = np.unravel_index(places[chosen], a.shape)
        write(a, target, ufunc(a[target], *(v[chosen] for v in values)))


def _rounds(places):
    """Split range(len(places)) into parts within which no place repeats, in order for each."""
    order = np.argsort(places, kind="stable")
    ordered = places[order]
    first = np.searchsorted(ordered, ordered)  # where the run of an entry's place begins
    turn = np.empty_like(order)
    turn[order] = beside(order).arange(len(places)) - first
    return [np.flatnonzero(turn == i) for i in range(int(turn.max(initial=-1)) + 1)]


UFUNC_METHODS.update(reduce=reduce, accumulate=accumulate, reduceat=reduceat, outer=outer, at=at)
