"""What the rules of array functions share: arguments made arrays, results written to out=."""

import numpy as np

from ..dual import DualTensor, find_level
from ..errors import ShapeError, WriteError


def array(x):
    """Return x as an array: a dual as it is, lists that hold duals joined by np.stack."""
    if type(x) is DualTensor:
        return x
    if type(x) in (list, tuple) and find_level(x) is not None:
        return np.stack([array(item) for item in x])
    return np.asarray(x)


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
