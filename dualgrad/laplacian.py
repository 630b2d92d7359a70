"""The Laplacian by Taylor mode: second derivatives along the axes, or along random directions."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import random, tree
from .arguments import Arguments
from .beside import beside
from .dual import Array
from .errors import DtypeError, OptionError
from .jet import jet

Tree = tree.Tree
WHERE = "dg.laplacian"


def laplacian(
    f: Callable, *, directions: int | None = None, key: random.Key | None = None
) -> Callable:
    """Return the function that gives the Laplacian of f, the trace of its Hessian, in f's shape.

    Each direction v is one jet of order 2 along x + v t, whose second coefficient is v' H v: no
    Hessian is formed, and memory is that of a few evaluations.

    Exact (directions=None): the sum over the axes, one jet for each entry of x.

    Estimated: the mean over `directions` random v with independent entries +1 and -1. E[v v'] is
    the identity, so the estimate is unbiased; its variance is 2 sum_{i != j} H_ij**2 / directions
    (H symmetric), without the diagonal of H: none at all where f is a sum of functions of single
    entries. Normal v would have 2 sum_ij H_ij**2. The same key gives the same directions.

    Args:
        f: function of an array or tree x of real numbers, and further arguments that stay
            constant; its result, of any shape or a tree, is smooth at x.
        directions: how many random directions; None for the exact value.
        key: of the directions; needed with them.

    Raises:
        OptionError: directions is not a whole number >= 1, or comes without key, or key without it.
        DtypeError: x is complex or of integers.

    >>> laplacian(lambda x: np.sum(x**3))(np.array([1.0, 2.0]))
    np.float64(18.0)

    Source: Shi et al. 2024, "Stochastic Taylor Derivative Estimator" (arXiv 2412.00088), section 4;
    the variance is that of Hutchinson's estimator.
    """
    if (directions is None) != (key is None):
        raise OptionError(
            f"{WHERE}: directions={directions!r} with key={key!r}. Give both for an estimate, as "
            f"directions=16, key=dg.Key(0), or neither for the exact Laplacian."
        )
    if directions is not None:
        whole = isinstance(directions, (int, np.integer)) and not isinstance(directions, bool)
        if not whole or directions < 1:
            raise OptionError(f"{WHERE}: directions={directions!r}; give a whole number >= 1.")
        random.check_key(key, WHERE)

    def second_derivatives(x, *args, **kwargs):
        arguments = Arguments((x,), WHERE)
        _check_real(arguments.floating())
        vs = _axes(arguments) if directions is None else _drawn(arguments, key, directions)
        zero = _direction(
            arguments, [beside(a).zeros(a.shape, a.dtype) for a in arguments.floating()]
        )
        total = None
        for v in vs:
            _, (_, second) = jet(lambda x: f(x, *args, **kwargs), (x,), ((v, zero),))
            total = second if total is None else tree.map(np.add, total, second)
        if total is None:  # x has no entries
            return jet(lambda x: f(x, *args, **kwargs), (x,), ((zero,),))[1][0]
        return total if directions is None else tree.map(lambda t: t / directions, total)

    return second_derivatives


def _check_real(leaves: list[Array]) -> None:
    for x in leaves:
        if x.dtype.kind == "c":
            raise DtypeError(
                f"{WHERE}: x of dtype {x.dtype}. Make f a function of the real and the imaginary "
                f"part, as two arrays of a tree."
            )


def _direction(arguments: Arguments, vs: list[Array]) -> Tree:
    """Return the tree of x with the given arrays in the place of its floating leaves."""
    given = iter(vs)
    leaves = [
        next(given) if moves else x
        for x, moves in zip(arguments.leaves, arguments.moving, strict=True)
    ]
    return tree.unflatten(arguments.structure, leaves)[0]


def _axes(arguments: Arguments) -> Iterator[Tree]:
    leaves = arguments.floating()
    for i, x in enumerate(leaves):
        for place in np.ndindex(x.shape):
            vs = [beside(a).zeros(a.shape, a.dtype) for a in leaves]
            vs[i][place] = 1
            yield _direction(arguments, vs)


def _drawn(arguments: Arguments, key: Any, directions: int) -> Iterator[Tree]:
    for j in range(directions):
        own = key.fold_in(j)
        vs = [
            beside(x).asarray(random.rademacher(own.fold_in(i), x.shape), x.dtype)
            for i, x in enumerate(arguments.floating())
        ]
        yield _direction(arguments, vs)
