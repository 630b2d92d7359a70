"""What the rules of array functions share: arguments made arrays, results written to out=."""

import numpy as np

from ..beside import as_array, beside_all, has_memory
from ..dual import DualTensor, find_level
from ..errors import ShapeError, WriteError


def array(x):
    """Return x as an array: a dual as it is, lists that hold duals joined by np.stack."""
    if type(x) is DualTensor:
        return x
    if type(x) in (list, tuple) and find_level(x) is not None:
        return np.stack(together(x))
    return as_array(x)


def together(xs):
    """Return each of xs as an array: numbers, which lie nowhere, beside what is on a device."""
    module = beside_all(*xs)
    return [_array_of(module, x) for x in xs]


def array_beside(x, *others):
    """Return x as an array: numbers beside what of the others is on a device."""
    return _array_of(beside_all(x, *others), x)


def _array_of(module, x):
    known = module is np or has_memory(x) or is_dual(x)
    return array(x) if known else module.asarray(x)


def is_dual(x):
    """Return whether x, or what it lists, carries a tangent."""
    return find_level([x]) is not None


def deliver(y, out):
    """Return y, written into out where one is given; WriteError where that would lose a tangent."""
    if out is None:
        return y
    if type(out) is not DualTensor and is_dual(y):
        raise WriteError(
            "out= is a plain array and the result a dual, which would lose its tangent. Leave out= "
            "away, or make the array with np.zeros_like(x) of a dual."
        )
    if out.shape != np.shape(y):
        raise ShapeError(
            f"out= has shape {out.shape} and the result {np.shape(y)}. Give it the result's shape."
        )
    out[...] = y
    return out
