"""For tests of users: hypothesis strategies for arrays and trees, and checks of whole functions.

>>> from hypothesis import given, settings
>>> @settings(max_examples=10)
... @given(x=arrays(low=0.1))
... def test_my_function(x):
...     check_function(lambda x: x * np.log(x), x)
>>> test_my_function()
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from . import random, tree
from .check import (
    CheckError,
    central_difference,
    check_directions,
    check_jvp,
    check_transpose,
    random_like,
)

__all__ = [
    "CheckError",
    "arrays",
    "central_difference",
    "check_directions",
    "check_function",
    "check_jvp",
    "check_transpose",
    "random_like",
    "shapes",
    "tangents",
    "trees",
]


def shapes(
    min_dims: int = 0, max_dims: int = 3, max_side: int = 4, *, min_side: int = 1
) -> st.SearchStrategy:
    """Draw shapes: tuples of ints in [min_side, max_side]; min_side=0 gives empty arrays too."""
    sides = st.integers(min_side, max_side)
    return st.lists(sides, min_size=min_dims, max_size=max_dims).map(tuple)


def arrays(
    shape: Any = None, *, low: float = -2.0, high: float = 2.0, dtype: Any = np.float64,
    distinct: bool = False,
) -> st.SearchStrategy:  # fmt: skip
    """Draw floating arrays, C-ordered or strided views, with entries spread over [low, high].

    Args:
        shape: a shape, or a strategy for shapes; by default any of up to three axes.
        low, high: the range, to stay where a function is smooth.
        dtype: float16, float32, float64 or complex.
        distinct: no two entries closer than (high - low) / (2 size): away from the ties of max,
            sort.
    """
    shape = shapes() if shape is None else shape
    drawn = shape if isinstance(shape, st.SearchStrategy) else st.just(shape)
    return st.builds(
        lambda s, seed, view: _array(s, seed, view, low, high, np.dtype(dtype), distinct),
        drawn, st.integers(0, 2**32 - 1), st.sampled_from(("plain", "transposed", "strided")),
    )  # fmt: skip


def _array(shape, seed, view, low, high, dtype, distinct):
    key = random.Key(seed)
    size = int(np.prod(shape))

    def entries(key):
        u = random.uniform(key, size)
        if distinct and size:
            u = (random.permutation(key.fold_in("order"), size) + 0.25 + 0.5 * u) / size
        return (low + (high - low) * u).reshape(shape)

    x = entries(key)
    if dtype.kind == "c":
        x = x + 1j * entries(key.fold_in("imag"))
    x = np.asarray(x).astype(dtype)
    if view == "transposed":
        return x.T.copy().T
    if view == "strided" and x.ndim:
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    return x


def tangents(like: tree.Tree, k: int | None = None) -> st.SearchStrategy:
    """Draw trees of tangents of the shapes and dtypes of `like`, for jvp; of k each, (k, *shape),
    for pushforward.
    """

    def draw(seed: int) -> tree.Tree:
        key = random.Key(seed)
        if k is None:
            return random_like(key, like)
        rows = [random_like(key.fold_in(i), like) for i in range(k)]
        return tree.map(lambda *v: np.stack(v) if tree.is_floating(v[0]) else v[0], *rows)

    return st.integers(0, 2**32 - 1).map(draw)


def trees(leaves: st.SearchStrategy | None = None) -> st.SearchStrategy:
    """Draw nested tuples, lists and dicts with the drawn leaves (by default small arrays).

    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(t=trees())
    ... def test_of_a_norm(t):
    ...     check_function(lambda t: sum(np.sum(x**2) for x in tree.leaves(t)), t)
    >>> test_of_a_norm()
    """
    leaves = arrays(shapes(max_dims=2, max_side=3)) if leaves is None else leaves
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3),
            st.lists(inner, min_size=1, max_size=3).map(tuple),
            st.dictionaries(st.sampled_from("abc"), inner, min_size=1),
        ),
        max_leaves=5,
    )


def check_function(f: Callable, *args: Any, order: int = 2, k: int = 3, seed: int = 0) -> None:
    """Check every derivative of f at args: differences to `order`, k tangents, transpose, dtypes.

    args are those of f, by place: arrays, numbers or trees of them.

    Raises:
        CheckError: a derivative is wrong (or f is not smooth at args).

    >>> check_function(lambda a, b: {"y": a @ b}, np.eye(2), np.ones(2))
    """
    key = random.Key(seed)
    check_jvp(f, args, order, key=key)
    check_directions(f, args, k, key=key)
    check_transpose(f, args, key=key)
