"""The transforms: the pattern of a function, its Jacobian and its Hessian in compressed rows."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import random, tree
from ..arguments import Arguments, argument_numbers, closed, split_result, take_apart
from ..dual import DualTensor, find_level, new_level, primal_of
from ..errors import ConversionError, OptionError, ShapeError
from ..options import choice
from ..transforms import check_modes_agree, directions_at_once, gradient
from .coloring import Coloring, Sparse, canonical, scipy_sparse
from .sets import Table

BYTES_A_PASS = 4 << 20  # of tangents of the arguments: more would leave the cache


def sparsity(f: Callable, argnums: int | Sequence[int] = 0) -> Callable:
    """Return the function that gives the pattern of f's Jacobian, a Boolean scipy.sparse CSR array.

    Row i and column j are entries of the result and of the argument, trees flattened in order. An
    entry is there where the result may move with the argument, whatever the values are: nothing
    that happens to be zero is left out, and sorting or taking a maximum counts as depending on all
    that is compared. A branch that your code takes by a value (if x > 0, an index from argmax, the
    bin of a histogram) is followed as taken: it is the pattern of the points that branch alike.

    Args: as for sparse_jacobian.

    >>> sparsity(lambda x: x[1:] * x[:-1])(np.zeros(3)).toarray().astype(int)
    array([[1, 1, 0],
           [0, 1, 1]])
    """

    def pattern_at(*args, **kwargs):
        numbers = argument_numbers(argnums, args, "dg.sparsity")
        chosen = tuple(tree.map(primal_of, args[n]) for n in numbers)
        return _pattern(closed(f, args, numbers, kwargs), Arguments(chosen, "dg.sparsity"))

    return pattern_at


def _pattern(g: Callable, arguments: Arguments) -> Sparse:
    leaves = arguments.floating()
    n = sum(math.prod(x.shape) for x in leaves)
    table, carriers, before = Table(n), [], 1
    for x in leaves:
        size = math.prod(x.shape)
        carriers.append(table.carrier(np.arange(before, before + size).reshape(x.shape)))
        before += size
    found = [np.zeros(0, np.intp)]
    with new_level("dg.sparsity") as level:
        for leaf in tree.leaves(arguments.call(g, carriers, level)):
            y, carrier = split_result(leaf, level, "dg.sparsity")
            size = math.prod(y.shape)
            found.append(np.zeros(size, np.intp) if carrier is None else np.ravel(carrier.ids))
    indices, sizes = table.read(np.concatenate(found))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    ones = np.ones(len(indices), bool)
    return canonical(
        scipy_sparse().csr_array((ones, indices, starts), shape=(len(sizes), n)), "dg.sparsity"
    )


def sparse_jacobian(
    f: Callable, sparsity: Any = None, *, argnums: int | Sequence[int] = 0,
    chunk_size: int | None = None, check: bool | str = True,
) -> Callable:  # fmt: skip
    """Return the function that gives the Jacobian of f as a scipy.sparse CSR array.

    Its shape is (entries of the result, entries of the argument), trees and tuples of argnums
    flattened in order. One direction probes all columns of a colour, so a call costs as many
    directions as there are colours. What is stored is the pattern; entries may be zero.

    Args:
        f: function of arrays or trees.
        sparsity: a Coloring (the fastest: neither pattern nor colours are looked for), or the
            pattern as a scipy.sparse matrix or dense array, coloured once. By default `sparsity(f)`
            finds it at every call, as the branches of f may differ from point to point.
        argnums: which arguments; for a tuple their columns follow one another.
        chunk_size: directions a pass; by default as many as make the tangents of the arguments 4 MB
            (and 128 at most): functions with sparse Jacobians are as fast as their arrays are near.
        check: with a given sparsity, compare the product with a random direction with that of the
            result, for one direction more: a pattern that lacks an entry raises. True does it at
            the first call, "always" at every call, as f may take other branches later; False never.

    For complex x and y it is the derivative along the real axis, as for jacobian.

    Raises:
        ShapeError: the sparsity is not (entries of the result, entries of the argument).
        OptionError: the sparsity given lacks entries; no such `check`.
        ConversionError: an argument is a dual of a transform around this one.
        MissingRuleError: SciPy is not installed, or f calls a function without a rule.

    >>> sparse_jacobian(lambda x: x[1:] * x[:-1])(np.array([2.0, 3.0, 5.0])).toarray()
    array([[3., 2., 0.],
           [0., 5., 3.]])

    Source: Curtis, Powell, Reid 1974; Griewank, Walther 2008, Evaluating Derivatives, section 7.2.
    """
    return _sparse(f, sparsity, argnums, chunk_size, check, False, "dg.sparse_jacobian")


def sparse_hessian(
    f: Callable, sparsity: Any = None, *, argnums: int | Sequence[int] = 0,
    chunk_size: int | None = None, check: bool | str = True,
) -> Callable:  # fmt: skip
    """Return the function that gives the Hessian of the scalar f as a scipy.sparse CSR array.

    A product of the Hessian with the directions of all colours is forward over reverse: the
    pushforward of gradient(f, mode="reverse"), of which `sparsity` also finds the pattern. Star
    colouring (see Coloring) uses the symmetry, and takes fewer colours than a Jacobian's.

    Args: as for sparse_jacobian; f gives one real number, a Coloring may be symmetric or plain.

    Raises: as sparse_jacobian, and
        WriteError: f writes in place, which reverse mode cannot follow.

    >>> sparse_hessian(lambda x: np.sum(x[1:] * x[:-1] ** 2))(np.array([2.0, 3.0, 5.0])).toarray()
    array([[ 6.,  4.,  0.],
           [ 4., 10.,  6.],
           [ 0.,  6.,  0.]])
    """
    return _sparse(f, sparsity, argnums, chunk_size, check, True, "dg.sparse_hessian")


def _sparse(f, given, argnums, chunk_size, check, symmetric, where):
    choice("check", check, (True, False, "always"))
    if given is not None and not isinstance(given, Coloring):
        given = Coloring(given, symmetric=symmetric)
    if given is not None and given.symmetric and not symmetric:
        raise OptionError(
            f"{where}: the Coloring given is symmetric, for a Hessian. Make one without "
            f"symmetric=True."
        )

    checked: list[bool] = []  # once

    def matrix_at(*args, **kwargs):
        if find_level(tree.leaves((args, kwargs))) is not None:
            raise _outer_dual(where)
        scipy_sparse()
        numbers = argument_numbers(argnums, args, where)
        g, arguments = (
            closed(f, args, numbers, kwargs),
            Arguments([args[n] for n in numbers], where),
        )
        if symmetric:
            g = _moving_gradient(g, len(numbers))
        coloring = given
        if coloring is None:
            coloring = Coloring(_pattern(g, arguments), symmetric=symmetric)
        probe = None
        if check and given is not None and (check == "always" or not checked):
            probe = 0.5 + random.uniform(random.Key(0).fold_in("sparse"), (coloring.shape[1],))
        matrix = _matrix(g, arguments, coloring, chunk_size, probe, where)
        checked.append(True)
        return matrix

    return matrix_at


def _moving_gradient(g: Callable, count: int) -> Callable:
    """Return the gradient by reverse mode as a list of arrays, static leaves left out."""
    gradient_of_g = gradient(g, tuple(range(count)), mode="reverse")
    return lambda *chosen: [t for t in tree.leaves(gradient_of_g(*chosen)) if t is not None]


def _matrix(g, arguments, coloring, chunk_size, probe, where):
    """Return the matrix read from the products with the colours, compared along the probe."""
    rows = _products(g, arguments, coloring, chunk_size, probe, where)
    first = next(rows)
    matrix = coloring.matrix(itertools.islice(itertools.chain([first], rows), coloring.count),
                             first.dtype)  # fmt: skip
    if probe is not None:
        _compare(matrix, probe, next(rows, first), where)
    return matrix


def _products(g, arguments, coloring, chunk_size, probe, where):
    """Yield the derivative along each colour, (results,), and then that along the probe.

    At least one comes, of no meaning where there is no colour: it tells the dtype.
    """
    leaves = arguments.floating()
    total = max(coloring.count + (probe is not None), 1)
    directions = _Directions(leaves, coloring, probe, where)
    passes = -(-total // directions_at_once(leaves, chunk_size, where, BYTES_A_PASS))
    chunk_size = -(-total // passes)  # all passes alike
    for start in range(0, total, chunk_size):
        k = min(chunk_size, total - start)
        with new_level(where) as level:
            result = arguments.call(g, directions.carriers(start, k), level)
            y, ty = take_apart(result, level, where, k)
        check_modes_agree(leaves, tree.leaves(y), "forward", where)
        tys = [np.reshape(_plain(t, where), (k, math.prod(t.shape[1:]))) for t in tree.leaves(ty)]
        size = sum(t.shape[1] for t in tys)
        if size != coloring.shape[0]:
            raise _other_shape(where, coloring, "results", size)
        yield from tys[0] if len(tys) == 1 else np.concatenate([np.zeros((k, 0), bool), *tys], 1)


def _plain(t, where):
    if type(t) is DualTensor:
        raise _outer_dual(where)
    return t


def _outer_dual(where):
    return ConversionError(
        f"{where}: the function, or an argument, carries tangents of a transform around it, and a "
        f"scipy.sparse matrix cannot hold them. Use dg.jacobian, or pass dg.primal(x)."
    )


class _Directions:
    """The directions as tangents of the leaves, written into the same arrays again and again."""

    def __init__(self, leaves: list, coloring: Coloring, probe: Any, where: str) -> None:
        sizes = [math.prod(x.shape) for x in leaves]
        if sum(sizes) != coloring.shape[1]:
            raise _other_shape(where, coloring, "arguments", sum(sizes))
        ends = np.cumsum(sizes)
        self.leaves = leaves
        self.colors = np.split(coloring.colors, ends[:-1])
        self.probes = None if probe is None else np.split(probe, ends[:-1])
        self.count = coloring.count
        self.rows: list[np.ndarray] = []

    def carriers(self, start: int, k: int) -> list:
        """Return directions start to start + k, each (k, *shape of the leaf)."""
        if not self.rows:
            self.rows = [np.empty((k, math.prod(x.shape)), x.dtype) for x in self.leaves]
        for place, rows in enumerate(self.rows):
            for i in range(k):
                if start + i < self.count or self.probes is None:
                    np.equal(self.colors[place], start + i, out=rows[i])
                else:
                    rows[i] = self.probes[place]
        return [
            np.reshape(v[:k], (k, *x.shape)) for v, x in zip(self.rows, self.leaves, strict=True)
        ]


def _other_shape(where, coloring, what, found):
    rows, columns = coloring.shape
    return ShapeError(
        f"{where}: the sparsity has shape {coloring.shape}, for {rows} results and {columns} "
        f"arguments, and the function has {found} {what}. Rows are the entries of the result and "
        f"columns those of the argument, trees flattened in order."
    )


def _compare(matrix, probe, product, where):
    """Raise OptionError where matrix @ probe is not the product that the function has."""
    expected = matrix @ probe
    scale = abs(matrix) @ np.abs(probe) + np.abs(product)
    error = np.abs(expected - product)
    wrong = error > math.sqrt(np.finfo(product.dtype).eps) * scale
    rows = np.flatnonzero(wrong & np.isfinite(error))
    if len(rows):
        raise OptionError(
            f"{where}: the sparsity lacks entries: in row {rows[0]}, and in {len(rows)} rows in "
            f"all, the derivative along a random direction is not that of the matrix "
            f"({product[rows[0]]} and {expected[rows[0]]}). Give a pattern that holds every entry, "
            f"or none: dg.sparsity(f) finds it."
        )
