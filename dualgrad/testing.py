"""For tests of users: hypothesis strategies for arrays and trees, and checks of whole functions.

>>> from hypothesis import given, settings
>>> @settings(max_examples=10)
... @given(x=arrays(low=0.1))
... def test_my_function(x):
...     check_function(lambda x: x * np.log(x), x)
>>> test_my_function()
"""

import functools
import math
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
from .estimators import forward_gradient, wants_key
from .sections import objective
from .transforms import gradient

__all__ = [
    "CheckError",
    "arrays",
    "central_difference",
    "check_directions",
    "check_function",
    "check_jvp",
    "check_transpose",
    "check_unbiased",
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


def check_unbiased(
    loss: Callable, params: tree.Tree, *args: Any, keys: int = 200, sigmas: float = 5.0,
    seed: int = 0, **options: Any,
) -> None:  # fmt: skip
    """Check that the estimates of dg.forward_gradient(loss, **options) have the gradient for mean.

    The gradient is that of dg.objective(loss(params, *args)), by reverse mode. In each leaf the
    mean over keys must be as near to it as chance lets it, and have its length along it, within
    `sigmas` standard errors. What is smaller than these is not seen: more keys see more.

    Raises:
        CheckError: the mean is elsewhere, as where a local loss misses noise that a layer of its
        block mixes between groups, places or examples.

    >>> check_unbiased(lambda w, x: (x @ w) ** 2, np.ones(2), np.eye(2), directions=2)
    """
    keyed = {"key": random.Key(seed).fold_in("loss")} if wants_key(loss) else {}
    fixed = functools.partial(loss, **keyed)
    stated = gradient(lambda p: objective(fixed(p, *args)), mode="reverse")(params)
    wanted = {path: np.ravel(t) for path, t in tree.parameters(stated).items()}
    estimate = forward_gradient(lambda p, *rest: fixed(p, *rest), **options)
    sums = {path: _Mean(t) for path, t in wanted.items()}
    for i in range(keys):
        g = estimate(params, *args, key=random.Key(seed).fold_in(i))[1]
        for path, x in tree.parameters(g).items():
            sums[path].add(np.ravel(np.asarray(x)))
    whole = max((float(np.linalg.norm(t)) for t in wanted.values()), default=0.0)
    wrong = [f"{path!r}: {said}" for path, each in sums.items()
             if (said := each.disagreement(sigmas, whole))]  # fmt: skip
    if wrong:
        raise CheckError(
            f"dg.testing.check_unbiased: the mean of {keys} estimates is not the gradient. "
            + "; ".join(wrong)
        )


class _Mean:
    """The mean of estimates of t, a leaf's gradient, and how much of the distance is chance."""

    def __init__(self, t: np.ndarray) -> None:
        self.t = t.astype(np.float64)
        self.total = np.zeros_like(self.t)
        self.squares = 0.0
        self.along: list[float] = []  # <g, t> / |t|
        self.rounding = float(np.sqrt(np.finfo(t.dtype).eps))

    def add(self, g: np.ndarray) -> None:
        self.total += g
        self.squares += float(np.vdot(g, g))
        self.along.append(float(g @ self.t) / (float(np.linalg.norm(self.t)) or 1.0))

    def disagreement(self, sigmas: float, whole: float) -> str:
        """Return what is wrong, "" if nothing; whole is the length that rounding is relative to."""
        n, length = len(self.along), float(np.linalg.norm(self.t))
        mean, error = float(np.mean(self.along)), float(np.std(self.along)) / math.sqrt(n)
        distance = float(np.linalg.norm(self.total / n - self.t))
        scatter = max(0.0, self.squares / n - float(np.sum((self.total / n) ** 2)))
        chance = math.sqrt(scatter / n)
        least = self.rounding * whole
        if distance <= sigmas * chance + least and abs(mean - length) <= sigmas * error + least:
            return ""
        return (
            f"{distance:.3g} away from it, where chance gives {chance:.3g}, and {mean:.3g} +- "
            f"{error:.2g} along it, where it has {length:.3g}"
        )
