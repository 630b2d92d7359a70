"""Checks of derivatives against something independent: central differences, and identities."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import random, tree
from .dual import Array
from .errors import DualgradError, OptionError, StructureError
from .tape import linearize, vjp
from .transforms import jvp, pushforward

Tree = tree.Tree

# Of the five-point formula: error h^4 from the formula, eps / h from rounding.
STEP = 1e-3
TOLERANCES = {2: 2e-2, 4: 2e-3, 8: 1e-6}  # relative, by bytes of a real number


class CheckError(DualgradError, AssertionError):
    """A derivative disagrees with what it was checked against."""


def _wide(x: Any) -> Any:
    """Return a floating leaf in double precision; anything else as it is."""
    if not tree.is_floating(x):
        return x
    return np.astype(np.asarray(x), np.complex128 if np.iscomplexobj(x) else np.float64)


def random_like(key: random.Key, args: Tree) -> Tree:
    """Return standard normal tangents of the shapes and dtypes of args; static leaves stay."""
    leaves, structure = tree.flatten(args)
    drawn = []
    for i, x in enumerate(leaves):
        if not tree.is_floating(x):
            drawn.append(x)
            continue
        x = np.asarray(x)
        v = random.normal(key.fold_in(2 * i), x.shape)
        if x.dtype.kind == "c":
            v = v + 1j * random.normal(key.fold_in(2 * i + 1), x.shape)
        drawn.append(np.asarray(v).astype(x.dtype))
    return tree.unflatten(structure, drawn)


def central_difference(f: Callable, args: Sequence, tangents: Sequence, step: float = STEP) -> Tree:
    """Return the derivative of f along tangents by the five-point formula, in double precision.

    (8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h, accurate to h^4 where f is smooth.
    """

    def at(t):
        moved = tree.map(lambda x, v: x + t * v if tree.is_floating(x) else x, wide, directions)
        return f(*moved)

    wide, directions = tree.map(_wide, tuple(args)), tree.map(_wide, tuple(tangents))
    scale = _norm(wide)
    h = step * max(1.0, min(scale, 1e3)) / (_norm(directions) or 1.0)
    return tree.map(
        lambda a, b, c, d: (8.0 * (np.asarray(a) - b) - (np.asarray(c) - d)) / (12 * h),
        at(h), at(-h), at(2 * h), at(-2 * h),
    )  # fmt: skip


def _norm(v: Tree) -> float:
    squares = [np.max(np.abs(x), initial=0) for x in tree.leaves(v) if tree.is_floating(x)]
    return float(max(squares, default=0))


def _compare(what: str, got: Tree, expected: Tree, rtol: float, atol: float) -> None:
    for path, a, b in zip(tree.paths(got), tree.leaves(got), tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        bound = atol + rtol * max(float(np.max(np.abs(b), initial=0)), 1.0)
        error = np.abs(a - b)
        if a.shape != b.shape or not np.all(error <= bound):
            worst = float(np.max(error, initial=0)) if a.shape == b.shape else float("nan")
            raise CheckError(
                f"{what}{' at ' + path if path else ''}: largest difference {worst:.3g}, allowed "
                f"{bound:.3g}.\n  got      {a}\n  expected {b}\nEither a rule is wrong, or the "
                f"function is not smooth at this point."
            )


def _tuple(args: Any, where: str) -> tuple:
    if not isinstance(args, (tuple, list)):
        raise StructureError(
            f"{where}: args is a {type(args).__name__}; give a tuple with one entry for each "
            f"argument of the function, even for one: (x,)."
        )
    return tuple(args)


def _tolerance(args: Tree) -> float:
    sizes = [np.asarray(x).real.dtype.itemsize for x in tree.leaves(args) if tree.is_floating(x)]
    return TOLERANCES[min(sizes, default=8)]


def check_jvp(
    f: Callable, args: Sequence, order: int = 1, *, key: random.Key | None = None,
    rtol: float | None = None, atol: float = 0.0,
) -> None:  # fmt: skip
    """Compare jvp with central differences along random directions, nested to the given order.

    Args:
        f: function of arrays or trees, evaluated in double precision for the differences.
        args: tuple of arguments, at a point where f is smooth.
        order: 1 checks the derivative, 2 also the derivative of the derivative, and so on.
        key: chooses the directions.
        rtol: relative to the largest entry; by default 1e-6, 2e-3 and 2e-2 for float64, 32, 16.

    Raises:
        CheckError: they disagree; the message shows both.

    >>> check_jvp(np.sin, (0.5,), order=2)
    """
    if order < 1:
        raise OptionError(f"check_jvp: order={order}; give 1 or more.")
    args = _tuple(args, "check_jvp")
    key = random.Key(0) if key is None else key
    tangents = random_like(key, args)
    rtol = _tolerance(args) if rtol is None else rtol
    for number in range(1, order + 1):
        _, ty = jvp(f, args, tangents)
        what = f"jvp, derivative of order {number}"
        _compare(what, ty, central_difference(f, args, tangents), rtol, atol)
        f = _along(f, tree.map(_wide, tangents))
        key = key.fold_in("next")
        tangents = random_like(key, args)


def _along(f: Callable, tangents: tuple) -> Callable:
    return lambda *xs: jvp(f, xs, tangents)[1]


def inner(u: Tree, v: Tree) -> float:
    """Return Re(sum(conj(u) v)) over all leaves of two trees."""
    pairs = zip(tree.leaves(u), tree.leaves(v), strict=True)
    return float(sum(np.real(np.vdot(a, b)) for a, b in pairs if tree.is_floating(a)))


def check_transpose(f: Callable, args: Sequence, *, key: random.Key | None = None) -> None:
    """Check <u, J v> = <J' u, v>, and that linearize replays jvp, in random directions.

    Raises:
        CheckError: one of the identities fails.

    >>> check_transpose(np.outer, (np.ones(2), np.ones(3)))
    """
    args = _tuple(args, "check_transpose")
    key = random.Key(0) if key is None else key
    v = random_like(key.fold_in("v"), args)
    y, ty = jvp(f, args, v)
    rtol = _tolerance(args)
    _compare("linearize", linearize(f, *args)[1](*v), ty, rtol, 0.0)
    u = random_like(key.fold_in("u"), y)
    left, right = inner(u, ty), inner(vjp(f, *args)[1](u), v)
    scale = 1 + abs(left) + np.sqrt(abs(inner(u, u) * inner(ty, ty)))
    if not abs(left - right) <= rtol * scale:
        raise CheckError(f"transpose: <u, J v> = {left!r} and <J' u, v> = {right!r} differ.")


def check_directions(
    f: Callable, args: Sequence, k: int = 3, *, key: random.Key | None = None
) -> None:
    """Check that k tangents in one pass are k single ones, of the primal's dtype and shape.

    Raises:
        CheckError: a direction differs from its own pass, or a tangent has another dtype or shape.

    >>> check_directions(np.outer, (np.ones(2), np.ones(3)), k=2)
    """
    args = _tuple(args, "check_directions")
    key = random.Key(0) if key is None else key
    single = [random_like(key.fold_in(i), args) for i in range(k)]
    stacked = tree.map(lambda *vs: np.stack(vs) if tree.is_floating(vs[0]) else vs[0], *single)
    y, ty = pushforward(f, args, stacked)
    for path, a, t in zip(tree.paths(y), tree.leaves(y), tree.leaves(ty), strict=True):
        if t.shape != (k, *a.shape) or (a.dtype.kind in "fc" and t.dtype != a.dtype):
            raise CheckError(
                f"pushforward at {path!r}: tangents {t.shape} {t.dtype} of a primal {a.shape} "
                f"{a.dtype}."
            )
    for i, v in enumerate(single):
        row: Array = tree.map(lambda t, i=i: t[i], ty)
        _compare(f"direction {i} of {k}", row, jvp(f, args, v)[1], _tolerance(args), 0.0)
