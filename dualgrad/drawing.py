"""Directions of one leaf: drawn from a key and the leaf's path, and put together again.

docs/directions.md fixes which bits make which entry.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .beside import beside
from .dual import Array, DualTensor, Structured
from .kernels import random as kernels
from .random import Key
from .structured import Outer

DISTRIBUTIONS = {  # the kernels that draw a matrix and a vector
    "rademacher": ("sign_matrix", "sign_vector"),
    "normal": ("normal_matrix", "normal_vector"),
}


def draws_beside(x: Array, distribution: str) -> tuple[Callable, Callable]:
    """Return the kernels that draw a distribution where x lies: the same words on every device."""
    module = kernels.twin(beside(x) is not np)
    matrix, vector = (getattr(module, name) for name in DISTRIBUTIONS[distribution])
    return matrix, vector


def draw_leaf(
    key: Key, path: str, x: Array, numbers: tuple[int, int], distribution: str, structure: str
) -> Array | Outer:
    """Return the directions numbers[0] to numbers[1] of one leaf: (k, *x.shape), or an Outer."""
    matrix, vector = draws_beside(x, distribution)
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


def draw_noise(key: Key, path: str, x: Array, numbers: tuple[int, int], distribution: str) -> Array:
    """Return activity noise like x, (k, *shape): a matrix of prod(shape[:-1]) rows a direction."""
    matrix, _ = draws_beside(x, distribution)
    shape, rows = x.shape, math.prod(x.shape[:-1])
    noise = matrix(key.fold_in(path).words, rows, shape[-1], numbers, kernels.ACTIVITY, x.dtype)
    return noise.reshape(numbers[1] - numbers[0], *shape)


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


# --- scales
