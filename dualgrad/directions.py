"""Random directions of a tree of parameters; docs/directions.md fixes which bits make which entry.

A direction is a function of (key, path of the leaf, number of the direction), never of a running
position, so it can be drawn again instead of stored.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import tree
from .dual import Array, DualTensor, Structured
from .errors import OptionError
from .kernels import random as kernels
from .options import choice
from .random import Key, check_key
from .structured import Outer

DISTRIBUTIONS: dict[str, tuple[Callable, Callable]] = {
    "rademacher": (kernels.sign_matrix, kernels.sign_vector),
    "normal": (kernels.normal_matrix, kernels.normal_vector),
}
STRUCTURES = ("dense", "rank1")


def draw_leaf(
    key: Key, path: str, x: Array, numbers: tuple[int, int], distribution: str, structure: str
) -> Array | Outer:
    """Return the directions numbers[0] to numbers[1] of one leaf: (k, *x.shape), or an Outer."""
    matrix, vector = DISTRIBUTIONS[distribution]
    words, shape, dtype = key.fold_in(path).words, x.shape, x.dtype
    k = numbers[1] - numbers[0]
    if len(shape) < 2:
        return vector(words, math.prod(shape), numbers, kernels.VECTOR, dtype).reshape(k, *shape)
    rows = math.prod(shape[:-1])
    if structure == "dense":
        drawn = matrix(words, rows, shape[-1], numbers, kernels.MATRIX, dtype)
        return drawn.reshape(k, *shape)
    left = vector(words, rows, numbers, kernels.LEFT, dtype).reshape(k, *shape[:-1])
    return Outer(left, vector(words, shape[-1], numbers, kernels.RIGHT, dtype))


def draw_noise(
    key: Key,
    path: str,
    shape: tuple[int, ...],
    dtype: Any,
    numbers: tuple[int, int],
    distribution: str,
) -> np.ndarray:
    """Return activity noise, (k, *shape): a matrix of prod(shape[:-1]) rows a direction."""
    matrix, _ = DISTRIBUTIONS[distribution]
    rows = math.prod(shape[:-1])
    noise = matrix(key.fold_in(path).words, rows, shape[-1], numbers, kernels.ACTIVITY, dtype)
    return noise.reshape(numbers[1] - numbers[0], *shape)


def draw(
    key: Key, params: tree.Tree, directions: int | tuple[int, int] = 1, *,
    distribution: str = "rademacher", structure: str = "dense",
) -> tree.Tree:  # fmt: skip
    """Return k directions of a tree: its leaves are (k, *shape), the same each time they are drawn.

    Entries are independent with mean 0 and variance 1: +-1 ("rademacher") or "normal". With
    structure="rank1" a leaf of two or more axes gets an `Outer`, whose factors are such entries;
    its entries have mean 0, variance 1 and are uncorrelated. Static leaves get None.

    Args:
        key: the key of this step.
        params: tree; leaves decide shapes and dtypes.
        directions: k, or the range (start, stop) of the directions to draw.

    Raises:
        OptionError: an unknown distribution or structure, or less than one direction.
    """
    choice("distribution", distribution, DISTRIBUTIONS)
    choice("structure", structure, STRUCTURES)
    check_key(key, "dg.directions.draw")
    ends = directions if isinstance(directions, tuple) else (0, directions)
    whole = all(isinstance(end, (int, np.integer)) for end in ends)
    if not whole or len(ends) != 2 or not 0 <= ends[0] < ends[1]:
        raise OptionError(f"directions={directions!r}; give an int >= 1, or a range (start, stop).")
    numbers = int(ends[0]), int(ends[1])
    leaves, where = tree.flatten(params)
    drawn = [
        draw_leaf(key, path, np.asarray(x) if isinstance(x, (float, complex)) else x, numbers,
                  distribution, structure) if tree.is_floating(x) else None
        for path, x in zip(tree.paths(params), leaves, strict=True)
    ]  # fmt: skip
    return tree.unflatten(where, drawn)


def combine(direction: Array | Outer, coefficients: Array) -> Any:
    """Return sum_i coefficients[i] direction[i]: an array of the leaf's shape, or a LowRank.

    A single direction is scaled in place, so it is gone afterwards: it can be drawn again.
    Coefficients may be duals of an outer transform, for which a new array is made.
    """
    if isinstance(direction, Outer):
        return direction.combine(coefficients)
    if isinstance(direction, Structured):
        direction = direction.dense()
    weights = coefficients.astype(direction.dtype)
    if len(weights) > 1 or type(weights) is DualTensor:
        return np.tensordot(weights, direction, 1)
    direction *= weights[0]
    return direction[0]


def gram(direction: Array | Outer) -> np.ndarray:
    """Return the inner products of the k directions of one leaf, (k, k)."""
    if isinstance(direction, Outer):
        return direction.gram()
    rows = direction.reshape(len(direction), -1)
    return rows @ rows.T
