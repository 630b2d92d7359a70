"""Taylor mode: derivatives of any order along a curve, in one pass.

A dual whose carrier is a `Series` flows through the same primitives as any other. Two ways to give
a primitive its series were tried. A recurrence for each function (product rule, y' = y x' for exp)
is fast, O(n**2) at order n, but covers what was written down. The derivative rule that every
primitive has, evaluated in series arithmetic, gives dy/dt = J(x(t)) dx/dt and so y by integration:
no function is left out and conventions at kinks are those of the rule, but where J depends on y it
takes n rounds, and n rules where J is a function as new as the first (erf, gamma, its derivatives).
So series.py goes by what a primitive is: linear ones take the coefficients as so many directions,
multilinear ones the product rule, those of recurrences.py their own; all others the derivative
rule. A function entered into the operation table anywhere is covered without a line here.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..arguments import Arguments, owned, split_result, tangent_like
from ..beside import beside, has_memory
from ..dual import Array, Level, new_level, read_only
from ..errors import OptionError, StructureError
from ..kernels import memory
from .series import Series

Tree = tree.Tree
WHERE = "dg.jet"


def jet(f: Callable, primals: Sequence, series: Sequence) -> tuple[Tree, list]:
    """Return f and its derivatives along a curve: (y, [dy/dt, d2y/dt2, ...]), up to order n.

    The curve is x(t) = primals + series[.][0] t + series[.][1] t**2 / 2! + ...: coefficients are
    derivatives, in and out. Along a line give (v, 0, 0, ...) with zeros of v's shape; zeros at the
    end cost nothing. Order n costs O(n**2) where n nested jvps cost 2**n or more; docs/jet.md says
    how each operation takes its part, and which take O(n**3).

    Args:
        f: function of arrays or trees of arrays, smooth at primals (elsewhere see
            docs/conventions.md).
        primals: tuple of arguments, floating.
        series: tuple with one sequence for each of primals: n trees like it, all of the same n
            (a stacked array (n, *shape) will do). None for an argument that does not move.

    Returns:
        y = f(*primals), and a list of n trees like y.

    Raises:
        StructureError: series does not fit primals, or lengths differ. ShapeError, DtypeError: a
            coefficient does not fit its primal. OptionError: n! overflows the dtype.
        MissingRuleError: f calls a function without a rule.

    >>> jet(lambda x: x**3, (2.0,), ((1.0, 0.0, 0.0),))
    (np.float64(8.0), [np.float64(12.0), np.float64(12.0), np.float64(6.0)])

    Source: Griewank and Walther 2008, "Evaluating Derivatives", chapter 13.
    """
    arguments = Arguments(primals, WHERE)
    terms = _terms(arguments, primals, series)
    order = len(terms)
    with new_level(WHERE) as level:
        carriers = [
            _carrier(x, [term[i] for term in terms], level)
            for i, x in enumerate(arguments.floating())
        ]
        result = arguments.call(f, carriers, level)
        leaves, structure = tree.flatten(result)
        pairs = [split_result(leaf, level, WHERE) for leaf in leaves]
    derivatives = [_derivatives(y, c, order) for y, c in pairs]
    y = tree.unflatten(structure, [owned(y) for y, _ in pairs])
    return y, [tree.unflatten(structure, [d[j] for d in derivatives]) for j in range(order)]


def _carrier(x: Array, rows: list, level: Level) -> Series:
    """Return the derivatives of an argument along the curve as its series."""
    order = len(rows)
    _check_order(order, x.dtype)
    if (order + 1) * x.size * x.dtype.itemsize >= memory.MAPPED:
        memory.keep()
    while (
        rows and (has_memory(rows[-1]) or isinstance(rows[-1], np.generic)) and not np.any(rows[-1])
    ):
        rows = rows[:-1]
    rows = [c / math.factorial(j) if j > 1 else c for j, c in enumerate(rows, 1)]
    stacked = np.stack(rows) if rows else beside(x).zeros((0, *x.shape), x.dtype)
    return Series(read_only(stacked), order, level)


def _terms(arguments: Arguments, primals: Sequence, series: Sequence) -> list[list]:
    """Return for each order the coefficients of the floating leaves, checked."""
    if not isinstance(series, (tuple, list)) or len(series) != len(primals):
        raise StructureError(
            f"{WHERE}: series must be a tuple with one sequence of coefficients for each of the "
            f"{len(primals)} primals. For one argument: ((v1, v2, ...),)."
        )
    lengths = {len(s) if hasattr(s, "__len__") else -1 for s in series if s is not None}
    if len(lengths) > 1 or -1 in lengths:
        given = [
            len(s) if hasattr(s, "__len__") else type(s).__name__ for s in series if s is not None
        ]
        raise StructureError(
            f"{WHERE}: the series have lengths {given}; each must be a sequence of the same n "
            f"coefficients. Fill shorter ones with zeros."
        )
    order = lengths.pop() if lengths else 0
    rows = []
    for j in range(order):
        leaves: list[Any] = []
        for x, s in zip(primals, series, strict=True):
            found, structure = tree.flatten(x)
            leaves.extend(
                [None] * len(found) if s is None else tree.leaves_like(s[j], structure, WHERE)
            )
        given = [v for v, m in zip(leaves, arguments.moving, strict=True) if m]
        rows.append([
            beside(x).zeros(x.shape, x.dtype) if v is None else tangent_like(x, v, WHERE)
            for x, v in zip(arguments.floating(), given, strict=True)
        ])  # fmt: skip
    return rows


def _check_order(order: int, dtype: np.dtype) -> None:
    largest = float(np.finfo(dtype).max)
    if math.lgamma(order + 1) > math.log(largest):
        raise OptionError(
            f"{WHERE}: order {order} of {dtype} numbers: {order}! is larger than {largest:.3g}. "
            f"Use a lower order or a wider dtype."
        )


def _derivatives(y: Array, carrier: Any, order: int) -> list:
    """Return the derivatives 1 to order of a result."""
    dtype = y.dtype if y.dtype.kind in "fc" else np.dtype(float)
    _check_order(order, dtype)
    rows = [] if carrier is None else list(carrier.coefficients)
    found = [c * math.factorial(j) for j, c in enumerate(rows, 1)]
    return found + [beside(y).zeros(y.shape, dtype)[()] for _ in range(order - len(rows))]
