"""Families of random directions: (target, (start, stop)) -> these directions of each leaf."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import tree
from .beside import beside, beside_all
from .drawing import DISTRIBUTIONS, draw_leaf
from .dual import Array
from .random import Key, uniform


class Target(NamedTuple):
    """What the directions of one estimate are wanted for."""

    key: Key
    leaves: list[tuple[str, Array]]  # path and array of every floating leaf of params, in order
    structure: str
    params: tree.Tree
    args: tuple  # of the loss, for guesses that are computed from them

    @property
    def size(self) -> int:
        """d, how many numbers are perturbed."""
        return sum(math.prod(x.shape) for _, x in self.leaves)


def _independent(name: str, target: Target, numbers: tuple[int, int]) -> list:
    return [draw_leaf(target.key, path, x, numbers, name, target.structure)
            for path, x in target.leaves]  # fmt: skip


def _orthogonal(target: Target, numbers: tuple[int, int]) -> list:
    """Gram-Schmidt of normal directions, each of which only sees those before it."""
    start, stop = numbers
    rows = beside_all(*(x for _, x in target.leaves)).empty((stop, target.size))
    end = 0
    for path, x in target.leaves:
        begin, end = end, end + math.prod(x.shape)
        wide = beside(x).broadcast_to(beside(x).asarray(0.0), x.shape)
        drawn: Any = draw_leaf(target.key, path, wide, (0, stop), "normal", "dense")
        rows[:, begin:end] = drawn.reshape(stop, -1)
    for i, row in enumerate(rows):
        for _ in range(2):  # the second time takes away what rounding left
            row -= (rows[:i] @ row) @ rows[:i]
        row /= np.linalg.norm(row)
    rows *= math.sqrt(target.size)
    return _split(rows[start:], target)


def _basis(target: Target, numbers: tuple[int, int]) -> list:
    start, stop = numbers
    rows = beside_all(*(x for _, x in target.leaves)).zeros((stop - start, target.size))
    rows[list(range(stop - start)), _axes(target.key, target.size, stop)[start:]] = math.sqrt(
        target.size
    )
    return _split(rows, target)


def _axes(key: Key, d: int, k: int) -> list[int]:
    """Return k different numbers below d: the first swaps of a Fisher-Yates shuffle."""
    swapped: dict[int, int] = {}
    chosen = []
    for i, u in enumerate(uniform(key.fold_in("basis"), k)):
        j = i + int(u * (d - i))
        chosen.append(swapped.get(j, j))
        swapped[j] = swapped.get(i, i)
    return chosen


def _split(rows: np.ndarray, target: Target) -> list:
    """Return rows of d numbers, (k, d), as new arrays (k, *shape) of the leaves."""
    sizes = [math.prod(x.shape) for _, x in target.leaves]
    pieces = np.split(rows, np.cumsum(sizes)[:-1].tolist(), axis=1)
    return [piece.reshape(len(rows), *x.shape).astype(x.dtype)
            for piece, (_, x) in zip(pieces, target.leaves, strict=True)]  # fmt: skip


FAMILIES: dict[str, Callable] = {
    **{name: functools.partial(_independent, name) for name in DISTRIBUTIONS},
    "orthogonal": _orthogonal,
    "basis": _basis,
}
JOINT = ("orthogonal", "basis")  # directions that depend on one another
