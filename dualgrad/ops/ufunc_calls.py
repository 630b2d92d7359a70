"""Every keyword that NumPy's ufuncs take: where=, out=, dtype=, casting=, signature=, axes= ...

The rules themselves see positional arguments only; what a keyword means is done around them.
"""

import numpy as np

from ..beside import as_array
from ..dual import DualTensor, find_level, missing_rule, primal_of, write
from ..errors import DtypeError, WriteError
from ..operations import UFUNC_METHODS, find, name_of
from ..primitive import check_levels
from .results import array


def call(ufunc, *inputs, out=None, where=True, order="K", subok=True, **options):
    """Return ufunc(*inputs, ...) as NumPy would, written into the duals of out= if there are any.

    Entries that where= leaves out are not computed; without out= they are 0. The memory layout
    that order= asks for, and subclasses, do not exist here.
    """
    operation = find(ufunc)
    if operation is None:
        raise missing_rule(name_of(ufunc), inputs, {})
    check_levels([where, *(out or ())], name_of(ufunc))
    inputs = [array(x) if type(x) in (list, tuple) else x for x in inputs]
    casting = options.pop("casting", "same_kind")
    if "dtype" in options or "signature" in options:
        inputs = _cast(ufunc, inputs, options, casting)
    rule = operation.rule if find_level(inputs) is not None else ufunc
    if ufunc.signature:
        if where is not True:
            raise TypeError(f"{name_of(ufunc)}() got an unexpected keyword argument 'where'")
        y = _generalised(ufunc, rule, inputs, **options)
    elif options:
        raise TypeError(f"{name_of(ufunc)}() got an unexpected keyword argument {min(options)!r}")
    elif where is True:
        y = rule(*inputs)
    else:
        where = as_array(primal_of(where))
        shape = np.broadcast_shapes(where.shape, *map(np.shape, inputs))
        where = np.broadcast_to(where, shape)
        y = rule(*(np.broadcast_to(x, shape)[where] if hasattr(x, "ndim") else x for x in inputs))
    if out is None and where is True:
        return y
    return deliver(ufunc.__name__, y, out or (None,) * ufunc.nout, casting, where)


UFUNC_METHODS["__call__"] = call


def _parts(y):
    return y if type(y) is tuple else (y,)


def _cast(ufunc, inputs, options, casting):
    """Return the inputs in the dtypes of the loop that dtype= or signature= chooses."""
    chosen = options.pop("signature", None)
    if isinstance(chosen, str) and "->" in chosen:
        chosen = tuple(np.dtype(c) for c in chosen.replace("->", ""))
    dtype = options.pop("dtype", None) if chosen is None else chosen
    if dtype is None:
        return inputs
    if not isinstance(dtype, tuple):
        dtype = (None,) * ufunc.nin + (np.dtype(dtype),) * ufunc.nout
    given = [getattr(x, "dtype", np.dtype(bool) if type(x) is bool else type(x)) for x in inputs]
    none = (None,) * ufunc.nout
    found = ufunc.resolve_dtypes((*given, *none), signature=dtype, casting=casting)
    return [
        np.astype(x if hasattr(x, "dtype") else np.asarray(x), d, copy=False)
        for x, d in zip(inputs, found, strict=False)
    ]


def _spread(part, where):
    """Return an array of where's shape that has the entries of part where it holds, else 0."""
    if where is True:
        return part
    zeros = np.zeros_like(part, shape=where.shape)
    if not part.size:
        return zeros
    place = np.maximum(np.cumsum(where) - 1, 0)
    part = np.broadcast_to(part, place.shape) if part.ndim == 0 else part[place]
    return np.where(where, np.reshape(part, where.shape), zeros)


def _generalised(ufunc, rule, inputs, axes=None, axis=None, keepdims=False):
    """Call matmul and its like, whose core axes are the last ones unless axes= or axis= says so."""
    if axes is None and axis is None and not keepdims:
        return rule(*inputs)
    inputs = [x if hasattr(x, "ndim") else np.asarray(x) for x in inputs]
    *cores, last = [
        operand.count(",") + 1 if operand else 0
        for operand in ufunc.signature.replace("->", ",")[1:-1].split("),(")
    ]
    if (axis is not None or keepdims) and (last or set(cores) != {1}):
        raise TypeError(f"{name_of(ufunc)} does not support axis= or keepdims=")
    if axes is None:
        axes = [(-1 if axis is None else axis,)] * ufunc.nin
    axes = [a if isinstance(a, (tuple, list)) else (a,) for a in axes]
    cores = [min(n, x.ndim) for n, x in zip(cores, inputs, strict=True)]  # a vector in matmul
    last = sum(cores) - 2 if "?" in ufunc.signature else last
    given = [len(a) for a in axes]
    if given != [*cores, last] and not (given == cores and not last):
        raise ValueError(
            f"{name_of(ufunc)}: axes={axes} for operands with {[*cores, last]} core dimensions."
        )
    y = rule(*(np.moveaxis(x, a, range(-len(a), 0)) for x, a in zip(inputs, axes, strict=False)))
    if keepdims:
        return np.expand_dims(y, tuple(axes[0]))
    return np.moveaxis(y, range(-last, 0), axes[-1]) if last else y


def deliver(name, y, out, casting="same_kind", where=True):
    """Write the results y into the arrays of the tuple out (None: return that one), all or none."""
    parts = _parts(y)
    for part, o in zip(parts, out, strict=True):
        if o is None:
            continue
        if type(part) is DualTensor and type(o) is not DualTensor:
            raise WriteError(
                f"np.{name}: the result is a dual, and out= (the left side of +=, -=, ...) is a "
                f"plain array, which would lose the tangent. Write y = y + x instead, or make the "
                f"array with np.zeros_like(x) of a dual."
            )
        if not np.can_cast(part.dtype, o.dtype, casting):
            raise DtypeError(
                f"np.{name}: out= has dtype {o.dtype}, and the result's {part.dtype} does not fit "
                f"by the rule casting={casting!r}. Give an array of dtype {part.dtype}."
            )
        shape = part.shape if where is True else np.shape(where)
        if np.broadcast_shapes(shape, o.shape) != o.shape:
            raise ValueError(
                f"np.{name}: non-broadcastable output operand with shape {o.shape} doesn't match "
                f"the broadcast shape {np.broadcast_shapes(shape, o.shape)}"
            )
    done = tuple(
        _written(o, part, where) if o is not None else _spread(part, where)
        for part, o in zip(parts, out, strict=True)
    )
    return done if len(done) > 1 else done[0]


def _written(o, part, where):
    index = ... if where is True else np.broadcast_to(where, o.shape)
    if where is not True and part.ndim and np.shape(where) != o.shape:
        part = np.broadcast_to(_spread(part, where), o.shape)[index]
    if type(o) is DualTensor:
        write(o, index, part)
    else:
        o[index] = part
    return o
