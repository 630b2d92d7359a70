"""What layers have in common: a base class, initial weights, and checks of their arguments."""

import dataclasses
import math
from typing import Any

import numpy as np

from .. import random, tree
from ..errors import DtypeError, ShapeError
from ..random import Key
from ..tree import Tree

Array = Any  # a NumPy or CuPy array, or a DualTensor
STATIC = {"static": True}  # of dataclass fields that hold no parameter


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class Module:
    """Base class of the layers: a frozen dataclass, so a tree whose floating arrays are parameters.

    Any dataclass is a model; deriving from Module adds the short repr. A field that holds a number
    but no parameter is declared with `dataclasses.field(metadata={"static": True})`.
    """

    def _set(self, **fields: Any) -> None:
        """Set fields in __init__: a frozen dataclass has no other way."""
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        fields = [f.name for f in dataclasses.fields(self) if f.repr]
        shown = (f"{name}={_show(getattr(self, name))}" for name in fields)
        return f"{type(self).__name__}({', '.join(shown)})"


def _show(value: Any) -> str:
    if isinstance(value, tuple) and any(dataclasses.is_dataclass(part) for part in value):
        return f"({', '.join(map(_show, value))})"
    if tree.is_floating(value) and getattr(value, "shape", None):
        return f"{value.dtype}{list(value.shape)}"
    return getattr(value, "__name__", None) or repr(value)


def parameter_count(model: Tree) -> int:
    """Return how many numbers train in a model: the sizes of its floating leaves added up."""
    return sum(math.prod(np.shape(leaf)) for leaf in tree.leaves(model) if tree.is_floating(leaf))


def kaiming_uniform(key: Key, shape: tuple[int, ...], fan_in: int, dtype: Any) -> Array:
    """Return weights drawn from U(-a, a), a = sqrt(6 / fan_in), so of variance 2 / fan_in.

    The gain sqrt(2) keeps the mean square of activations from layer to layer under ReLU.

    Source: He, Zhang, Ren and Sun 2015 (arXiv 1502.01852), equation 10, as a uniform distribution.
    """
    bound = math.sqrt(6 / fan_in)
    draw = random.uniform(key, shape, dtype=dtype)
    draw *= 2 * bound
    draw -= bound
    return draw


def floating_dtype(where: str, dtype: Any) -> np.dtype:
    """Return the dtype of parameters; raise DtypeError unless it is float16, float32 or float64."""
    dtype = np.dtype(dtype)
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise DtypeError(
            f"{where}: parameters of dtype {dtype} cannot train. Give float16, 32 or 64."
        )
    return dtype


def check_trailing(where: str, x: Array, shape: tuple[int, ...], least: int, fix: str) -> None:
    """Raise ShapeError unless x has at least `least` axes and its last ones are `shape`."""
    if x.ndim < least or x.shape[x.ndim - len(shape) :] != shape:
        raise ShapeError(
            f"{where}: x has shape {x.shape}, and the layer was built for {shape} as its last "
            f"{'axis' if len(shape) == 1 else 'axes'}. {fix}"
        )
