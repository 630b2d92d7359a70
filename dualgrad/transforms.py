"""Transforms: functions in, derivative functions out; all of them built on one pushforward.

Each call opens a level, gives the arguments tangents on it, runs the function, and takes the result
apart. linearize gives recorded nodes instead of tangents; pushing or pulling the record is its
result.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import tree
from .arguments import (
    Arguments,
    argument_numbers,
    check_function,
    closed,
    take_apart,
    without_aux,
)
from .beside import as_array, beside, beside_all, dtype_of
from .dual import Array, DualTensor, new_level, primal_of
from .errors import DtypeError, DualgradError, OptionError, ShapeError, StructureError
from .options import choice
from .tape import pullback

Tree = tree.Tree
MODES = ("forward", "reverse")


def _push(f, primals, tangents, where, stacked, has_aux):
    arguments = Arguments(primals, where)
    if not isinstance(tangents, (tuple, list)) or len(tangents) != len(primals):
        raise StructureError(
            f"{where}: tangents must be a tuple with one entry for each primal ({len(primals)})."
        )
    carriers = arguments.tangents(tangents, stacked)
    k = len(carriers[0]) if carriers else 1
    with new_level(where) as level:
        result, aux = without_aux(arguments.call(f, carriers, level), has_aux, level, where)
        y, ty = take_apart(result, level, where, k)
    if not stacked:
        ty = tree.map(lambda t: t[0], ty)
    return (y, ty, aux) if has_aux else (y, ty)


def jvp(f: Callable, primals: Sequence, tangents: Sequence, *, has_aux: bool = False) -> tuple:
    """Return (f(*primals), its derivative along tangents), in one pass.

    Args:
        f: function of arrays or trees of arrays.
        primals: tuple of arguments, floating.
        tangents: tuple of the same trees and shapes.
        has_aux: f returns (result, aux); aux comes back as a third item, without tangents.

    Raises:
        DtypeError: an integer primal, or a complex tangent of a real one.
        ShapeError, StructureError: the tangents do not fit the primals.
        MissingRuleError: f calls a function without a rule.

    >>> jvp(np.sin, (0.0,), (2.0,))
    (np.float64(0.0), np.float64(2.0))
    """
    return _push(f, primals, tangents, "dg.jvp", False, has_aux)


def pushforward(
    f: Callable, primals: Sequence, tangents: Sequence, *, has_aux: bool = False
) -> tuple:
    """Return (f(*primals), k derivatives), one for each of k stacked tangents, in one pass.

    Args: as for jvp, but each tangent leaf, and each leaf of the result, has k rows: (k, *shape).

    >>> pushforward(lambda x: x * x, (3.0,), (np.array([1.0, 10.0]),))
    (np.float64(9.0), array([ 6., 60.]))
    """
    return _push(f, primals, tangents, "dg.pushforward", True, has_aux)


def derivative(f: Callable, argnums: int = 0) -> Callable:
    """Return the function that gives df/dx for a scalar x; the result has the shape of f's.

    A tuple of argnums gives a tuple of derivatives.

    >>> derivative(lambda x: x**3)(2.0)
    np.float64(12.0)
    """
    check_function(f, "dg.derivative")

    def df(*args, **kwargs):
        numbers = argument_numbers(argnums, args, "dg.derivative")
        chosen = tuple(args[n] for n in numbers)
        if any(np.shape(primal_of(x)) != () for x in chosen):
            raise ShapeError(
                f"dg.derivative: x has shape {np.shape(primal_of(chosen[0]))}, not (). Use "
                f"dg.gradient for one number as result, dg.jacobian for any."
            )
        g, basis = closed(f, args, numbers, kwargs), tuple(beside_all(*chosen).eye(len(chosen)))
        y, rows = _push(g, chosen, basis, "dg.derivative", True, False)
        leaves = [as_array(primal_of(x)) for x in chosen]
        check_modes_agree(leaves, tree.leaves(y), "forward", "dg.derivative")
        columns = tuple(tree.map(lambda t, i=i: t[i], rows) for i in range(len(chosen)))
        return _one_or_all(columns, argnums)

    return _named("derivative", f, df)


def _named(what: str, f: Callable, transformed: Callable) -> Callable:
    """Return the transformed function with the name "gradient of f" and its like."""
    name = f"{what} of {getattr(f, '__name__', type(f).__name__)}"
    transformed.__name__ = transformed.__qualname__ = name
    transformed.__doc__ = f"The {name}; takes the arguments of the function. See dg.{what}."
    return transformed


DIRECTIONS_A_PASS, BYTES_A_PASS = 128, 1 << 26


def directions_at_once(
    leaves: Sequence, chunk_size: int | None, where: str, room: int = BYTES_A_PASS
) -> int:
    """Return the number of directions a pass carries: chunk_size, or as many as fit.

    That is 128, or as many as make the tangents of the arguments `room` bytes where that is fewer.
    It depends on shapes and dtypes alone, so that the same call always does the same.
    """
    if chunk_size is None:
        row = sum(_bytes(x) for x in leaves)
        return max(1, min(DIRECTIONS_A_PASS, room // max(row, 1)))
    if (
        isinstance(chunk_size, bool)
        or not isinstance(chunk_size, (int, np.integer))
        or chunk_size < 1
    ):
        raise OptionError(
            f"{where}: chunk_size={chunk_size}; give the number of tangents a pass, >= 1."
        )
    return int(chunk_size)


def _bytes(x: Array) -> int:
    """Return the size of one direction of x, tangents of outer transforms included."""
    if type(x) is DualTensor:
        return _bytes(x.primal) * (1 + max(len(x.carrier), 1))
    return x.dtype.itemsize * math.prod(x.shape)


def _columns(
    g: Callable, chosen: tuple, chunk_size: int | None, has_aux: bool, where: str
) -> tuple:
    """Return (y, J, aux); the leaves of J are (*shape, inputs), one column for each input entry."""
    arguments = Arguments(chosen, where)
    leaves = arguments.floating()
    sizes = [math.prod(x.shape) for x in leaves]
    total = sum(sizes)
    chunk_size = directions_at_once(leaves, chunk_size, where)
    columns: list[Any] = []
    y = aux = structure = None
    for start in range(0, max(total, 1), chunk_size):
        k = min(chunk_size, total - start)
        carriers = _seeds(leaves, sizes, start, k)
        with new_level(where) as level:
            result, aux = without_aux(arguments.call(g, carriers, level), has_aux, level, where)
            y, ty = take_apart(result, level, where, k)
        ys, structure = tree.flatten(y)
        check_modes_agree(leaves, ys, "forward", where)
        rows = [np.moveaxis(t, 0, -1) for t in tree.leaves(ty)]
        columns = columns or [_Columns(t, total) for t in rows]
        for column, t in zip(columns, rows, strict=True):
            column.add(t, start)
    return y, tree.unflatten(structure, [column.whole() for column in columns]), aux


class _Columns:
    """One leaf of the Jacobian, filled chunk by chunk without a second copy of it.

    The chunks of duals of an outer transform are joined at the end: a record takes no writes.
    """

    def __init__(self, first: Array, total: int) -> None:
        self.parts: list[Array] = []
        self.total = total
        self.joined = type(first) is DualTensor or first.shape[-1] == total
        if not self.joined:
            self.array = np.empty_like(first, shape=(*first.shape[:-1], total), order="C")

    def add(self, t: Array, start: int) -> None:
        if self.joined:
            self.parts.append(t)
        else:
            self.array[..., start : start + t.shape[-1]] = t

    def whole(self) -> Array:
        if not self.joined:
            return self.array
        return self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts, -1)


def _seeds(leaves: list, sizes: list[int], start: int, k: int) -> list:
    """Return rows start to start + k of the identity, cut into tangents of the leaves.

    They are made where the leaf lives, by slices: its ones lie on a diagonal.
    """
    seeds, before = [], 0
    for x, n in zip(leaves, sizes, strict=True):
        v = np.zeros_like(primal_of(x), shape=(k * n,))
        first, last = max(before - start, 0), min(before + n - start, k)  # rows with a one
        if first < last:
            v[first * n + first + start - before : last * n : n + 1] = 1
        seeds.append(np.reshape(v, (k, *x.shape)))
        before += n
    return seeds


def _blocks(columns: Array, chosen: tuple, where: str) -> tuple:
    """Cut (*out, inputs) into a tuple of argument trees with leaves (*out, *shape of the input)."""
    arguments = Arguments(chosen, where)
    blocks: list[Any] = []
    before = 0
    for x, m in zip(arguments.primals, arguments.moving, strict=True):
        if not m:
            blocks.append(None)
            continue
        n = math.prod(x.shape)
        block = columns[..., before : before + n]
        block = np.reshape(block, (*block.shape[:-1], *x.shape))
        blocks.append(block if block.ndim else block[()])  # a number, as x and y are
        before += n
    return tree.unflatten(arguments.structure, blocks)


def _one_or_all(items: tuple, argnums: Any) -> Any:
    return items[0] if isinstance(argnums, int) else items


def value_and_jacobian(
    f: Callable, argnums: int | Sequence[int] = 0, *, mode: str = "forward",
    chunk_size: int | None = None, has_aux: bool = False,
) -> Callable:  # fmt: skip
    """Return the function that gives (f(x), Jacobian), or ((f(x), aux), Jacobian); see jacobian."""
    return _value_and_blocks(f, argnums, mode, chunk_size, has_aux, "dg.jacobian")


def _value_and_blocks(f, argnums, mode, chunk_size, has_aux, where):
    choice("mode", mode, MODES)
    check_function(f, where)

    def value_and_j(*args, **kwargs):
        numbers = argument_numbers(argnums, args, where)
        g, chosen = closed(f, args, numbers, kwargs), tuple(args[n] for n in numbers)
        if mode == "reverse":
            y, blocks, aux = _rows(g, chosen, has_aux, where)
        else:
            y, columns, aux = _columns(g, chosen, chunk_size, has_aux, where)
            blocks = tree.map(lambda c: _Held(_blocks(c, chosen, where)), columns)
        jacobian = tree.map(lambda held: _one_or_all(held.item, argnums), blocks)
        return ((y, aux), jacobian) if has_aux else (y, jacobian)

    return value_and_j


class _Held:
    """Keeps a tree as one leaf of another."""

    def __init__(self, item: Any) -> None:
        self.item = item


def check_modes_agree(inputs: Sequence, outputs: Sequence, mode: str, where: str) -> None:
    """Raise DtypeError where one number an entry of x (or of y) is not the whole derivative."""
    complex_x, complex_y = ("c" in {x.dtype.kind for x in xs} for xs in (inputs, outputs))
    if (mode == "forward" and complex_x and not complex_y) or (mode == "reverse" and complex_y):
        raise DtypeError(
            f"{where}: with mode={mode!r} a function from {[str(x.dtype) for x in inputs]} to "
            f"{[str(y.dtype) for y in outputs]} would lose half of its derivative. Use dg.jvp and "
            f"dg.vjp, the other mode, or make the real and the imaginary part two arguments."
        )


def _rows(g: Callable, chosen: tuple, has_aux: bool, where: str) -> tuple:
    y, pull, aux = pullback(g, chosen, has_aux, where)
    leaves, structure = tree.flatten(y)
    check_modes_agree(pull.arguments.floating(), leaves, "reverse", where)
    blocks = []
    for i, leaf in enumerate(leaves):
        n = math.prod(leaf.shape)
        eye = np.reshape(beside(leaf).eye(n, dtype=leaf.dtype), (n, *leaf.shape))
        cts = [beside(other).zeros((n, *other.shape), other.dtype) for other in leaves]
        cts[i] = eye
        rows = pull.stacked(tree.unflatten(structure, cts), last=i == len(leaves) - 1)
        blocks.append(_Held(tree.map(
            lambda r, s=leaf.shape: None if r is None else np.reshape(r, (*s, *r.shape[1:])), rows
        )))  # fmt: skip
    return y, tree.unflatten(structure, blocks), aux


def jacobian(
    f: Callable, argnums: int | Sequence[int] = 0, *, mode: str = "forward",
    chunk_size: int | None = None, has_aux: bool = False,
) -> Callable:  # fmt: skip
    """Return the function that gives the Jacobian of f, shape (*shape of f, *shape of x).

    Args:
        f: function of arrays or trees; a tree as result gives that tree of Jacobians, a tree as
            argument makes each of them such a tree.
        argnums: which arguments; a tuple gives a tuple.
        mode: "forward" makes the entries of x the k directions of a pass; "reverse" pulls one
            cotangent for each entry of the result through the record of linearize.
        chunk_size: directions a pass, each a pass over f with its primal. By default 128, or as
            many as make the tangents of the arguments (times those of outer transforms) 64 MB where
            that is fewer: a pass then takes at most 128 times the memory of f.
        has_aux: f returns (result, aux), the Jacobian function (jacobian, aux).

    For complex x and y it is the derivative along the real axis, that of a holomorphic function.

    Raises:
        DtypeError: complex x with real y, or complex y in reverse mode: use jvp and vjp.

    >>> jacobian(lambda x: x * x)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """
    both = value_and_jacobian(f, argnums, mode=mode, chunk_size=chunk_size, has_aux=has_aux)
    return _named("jacobian", f, _only_derivative(both, has_aux))


def _only_derivative(both: Callable, has_aux: bool) -> Callable:
    def derivative_of(*args, **kwargs):
        value, d = both(*args, **kwargs)
        return (d, value[1]) if has_aux else d

    return derivative_of


def _check_real_number(y: Any, where: str) -> None:
    if isinstance(y, (tuple, list, dict)):
        raise ShapeError(
            f"{where}: the function must give one real number, and gave a {type(y).__name__}. "
            f"Return the number alone, or with has_aux=True (number, anything)."
        )
    shape, kind = np.shape(primal_of(y)), dtype_of(primal_of(y)).kind
    if shape != () or kind == "c":
        what = "a complex number" if kind == "c" else f"shape {shape}"
        raise ShapeError(
            f"{where}: the function must give one real number, and gave {what}. Sum it, or use "
            f"dg.jacobian."
        )


def value_and_gradient(
    f: Callable, argnums: int | Sequence[int] = 0, *, mode: str = "forward",
    chunk_size: int | None = None, has_aux: bool = False,
) -> Callable:  # fmt: skip
    """Return the function that gives (f(x), gradient), or ((f(x), aux), gradient); see gradient."""

    check_function(f, "dg.gradient")

    def one_number(*args, **kwargs):
        result = f(*args, **kwargs)
        y = result[0] if has_aux and isinstance(result, tuple) else result
        _check_real_number(y, "dg.gradient")
        return result

    return _value_and_blocks(one_number, argnums, mode, chunk_size, has_aux, "dg.gradient")


def gradient(
    f: Callable, argnums: int | Sequence[int] = 0, *, mode: str = "forward",
    chunk_size: int | None = None, has_aux: bool = False,
) -> Callable:  # fmt: skip
    """Return the function that gives the exact gradient of f, a tree and shapes as the argument.

    mode="forward" costs one direction for each entry of x; "reverse" (for comparison, and exact
    gradients of many entries) one backward pass and the memory of the record. See also jacobian.

    Raises:
        ShapeError: f does not give one real number.

    >>> gradient(lambda x: np.sum(x**2))(np.array([1.0, 2.0]))
    array([2., 4.])
    """
    both = value_and_gradient(f, argnums, mode=mode, chunk_size=chunk_size, has_aux=has_aux)
    return _named("gradient", f, _only_derivative(both, has_aux))


def hessian(
    f: Callable, argnums: int | Sequence[int] = 0, *, chunk_size: int | None = None
) -> Callable:
    """Return the function that gives the Hessian of f, shape (*shape of x, *shape of x).

    Forward over forward: every pair of entries of x meets once. For trees, a tree of trees.

    >>> hessian(lambda x: np.sum(x**3))(np.array([1.0, 2.0]))
    array([[ 6.,  0.],
           [ 0., 12.]])
    """
    first = gradient(f, argnums, chunk_size=chunk_size)
    return _named("hessian", f, jacobian(first, argnums, chunk_size=chunk_size))


def hvp(f: Callable, primals: Sequence, tangents: Sequence, *, mode: str = "forward") -> Tree:
    """Return H v, the Hessian of the scalar f at primals times a direction.

    mode="forward" costs a direction for each entry of primals, nested in one more; "reverse" is
    forward over reverse: the jvp of the vjp, a few passes and the memory of the record.

    Args:
        f: function of arrays or trees with one real number as result.
        primals: tuple of arguments. tangents: v, the same trees and shapes.

    Returns:
        H v: the tree, shapes and dtypes of primals; the bare tree where there is one primal.

    >>> hvp(lambda x: np.sum(x**3), (np.array([1.0, 2.0]),), (np.ones(2),))
    array([ 6., 12.])
    """
    choice("mode", mode, MODES)
    numbers = 0 if len(primals) == 1 else tuple(range(len(primals)))
    return _push(gradient(f, numbers, mode=mode), primals, tangents, "dg.hvp", False, False)[1]


def grad(*args: Any, **kwargs: Any) -> None:
    """Raise: the word would not say whether the exact gradient or the estimate is meant."""
    raise DualgradError(
        "dg.grad does not exist here: dg.gradient(f) is the exact gradient, and "
        "dg.forward_gradient(f) the unbiased estimate from one forward pass."
    )
