"""What transforms share: arguments that get tangents, results taken apart, duals made by hand."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import tree
from .beside import as_array, beside, check_together, has_memory, is_writeable, on_device
from .dual import BY_HAND, Array, DualTensor, Level, Structured, primal_of, read_only, split
from .errors import (
    ConversionError,
    DtypeError,
    LevelError,
    OptionError,
    ShapeError,
    StructureError,
)
from .foreign import check_class, check_is_array
from .random import Key

Tree = tree.Tree


def _as_primal(x: Any, where: Any) -> Any:
    if type(x) is not DualTensor and not hasattr(x, "dtype"):
        given, x = x, None if isinstance(x, _CONTAINERS) else np.asarray(x)[()]  # 1.0: a scalar
        if not hasattr(x, "dtype"):
            raise StructureError(
                f"{where}: a {type(given).__name__} is neither an array nor a container that is "
                f"known. Give a tuple, list, dict or dataclass, or declare it by dg.tree.register."
            )
    check_is_array(x, where)
    check_floating(x, where)
    return read_only(x)


_CONTAINERS = (list, tuple, dict, set, frozenset)  # of a class that optree does not know


def _is_static(x: Any) -> bool:
    """Tell whether a leaf is not a number at all: a name, a callable, a random key, None."""
    return (
        x is None
        or isinstance(x, (str, bytes, bool, Key))
        or (callable(x) and not hasattr(x, "dtype"))
    )


class _Leaf:
    """The name of a leaf for messages, found when one is printed: "dg.jvp, leaf '0/w'"."""

    __slots__ = ("arguments", "place")

    def __init__(self, arguments: "Arguments", place: int) -> None:
        self.arguments = arguments
        self.place = place

    def __str__(self) -> str:
        path = tree.paths(tree.unflatten(self.arguments.structure, self.arguments.leaves))
        where, name = self.arguments.where, path[self.place]
        return f"{where}, leaf {name!r}" if "/" in name else where


class Arguments:
    """The leaves of a transform's arguments: which carry tangents, and how to put them back."""

    def __init__(self, primals: Sequence, where: str) -> None:
        if not isinstance(primals, (tuple, list)):
            raise StructureError(
                f"{where}: primals is a {type(primals).__name__}; give a tuple with one entry for "
                f"each argument of the function, even for one: (x,)."
            )
        self.where = where
        self.given = primals
        self.leaves, self.structure = tree.flatten(tuple(primals))
        self.moving = [not _is_static(x) for x in self.leaves]
        self.primals = [
            _as_primal(x, _Leaf(self, i)) if self.moving[i] else x
            for i, x in enumerate(self.leaves)
        ]

    def floating(self) -> list:
        return [x for x, m in zip(self.primals, self.moving, strict=True) if m]

    def tangents(self, tangents: Sequence, stacked: bool) -> list:
        """Return the tangents of the floating leaves, each (k, *shape)."""
        leaves = tree.leaves_like(tuple(tangents), self.structure, self.where)
        for x, v, m in zip(self.leaves, leaves, self.moving, strict=True):
            if not m and tree.is_floating(v) and np.any(primal_of(v) != 0):
                raise DtypeError(
                    f"{self.where}: a tangent was given for {x!r}, which is no floating number and "
                    f"does not move. Give 0 or None in its place, or make it a float."
                )
        places = [i for i, m in enumerate(self.moving) if m]
        given = [leaves[i] for i in places]
        for i, v in zip(places, given, strict=True):
            _check_tangent(self.primals[i], v, _Leaf(self, i))
        directions: tuple[int, ...] = ()
        if stacked:
            given = [v if hasattr(v, "shape") else np.asarray(v) for v in given]
            sizes = {v.shape[0] if v.ndim else -1 for v in given}
            if len(sizes) > 1 or -1 in sizes:
                raise ShapeError(
                    f"{self.where}: tangents of shapes {[v.shape for v in given]} must share one "
                    f"leading axis of k directions. Stack the directions along axis 0."
                )
            directions = (sizes.pop() if sizes else 1,)
        found = [
            tangent_like(self.primals[i], v, _Leaf(self, i), directions)
            for i, v in zip(places, given, strict=True)
        ]
        return found if stacked else [v[None] for v in found]

    def call(self, function: Callable, carriers: Sequence, level: Level) -> Any:
        check_function(function, self.where)
        given = iter(carriers)
        leaves = [
            DualTensor(x, read_only(next(given)), level) if m else x
            for x, m in zip(self.primals, self.moving, strict=True)
        ]
        try:
            return function(*tree.unflatten(self.structure, leaves))
        except (ConversionError, ValueError) as error:
            explain(error, self.given)
            raise


def _is_number(x: Any) -> bool:
    return tree.is_floating(x) and np.ndim(primal_of(x)) == 0


def explain(error: Exception, given: Sequence) -> None:
    """Note on an error what a conversion behind it was, and which argument is a list of numbers."""
    conversion = error if isinstance(error, ConversionError) else error.__cause__
    if not isinstance(conversion, ConversionError):
        return
    notes = [] if conversion is error else [str(conversion)]
    for x in given:
        if isinstance(x, (list, tuple)) and x and all(map(_is_number, x)):
            notes.append(
                f"An argument is a {type(x).__name__}, hence a tree of {len(x)} numbers; pass "
                f"np.array([...]) for an array."
            )
    for note in notes:
        if note not in getattr(error, "__notes__", ()):  # of an inner transform
            error.add_note(note)


def check_function(f: Any, where: str) -> None:
    """Raise StructureError unless f can be called."""
    if not callable(f):
        raise StructureError(
            f"{where}: the first argument is a {type(f).__name__}, no function. Give the function "
            f"itself, dg.gradient(f)(x), not its value f(x)."
        )


def number(y: Any, where: str) -> Any:
    if type(y) is DualTensor or hasattr(y, "dtype"):
        return y
    if isinstance(y, (int, float, complex)):
        return np.asarray(y)[()]
    raise StructureError(
        f"{where}: the function returned a {type(y).__name__}, which is no array. Return arrays, "
        f"numbers, or trees of them (with has_aux=True: (result, anything))."
    )


def take_apart(result: Tree, level: Level, where: str, k: int) -> tuple[Tree, Tree]:
    """Return (primals, tangents) of a result at a level; tangents of constants are zeros."""
    leaves, structure = tree.flatten(result)
    ys, tys = [], []
    for leaf in leaves:
        y, ty = split_result(leaf, level, where)
        ys.append(owned(y))
        tys.append(dense_zeros(y, k) if ty is None else owned(dense(ty)))
    return tree.unflatten(structure, ys), tree.unflatten(structure, tys)


def split_result(leaf: Any, level: Level, where: str) -> tuple[Any, Any]:
    y, carrier = split(number(leaf, where), level)
    if type(y) is DualTensor:
        y.level.check(where)  # what escaped from an inner transform that has returned
    return y, carrier


def owned(x: Any) -> Any:
    """Return x, or a copy where it is a read-only view: of the caller's array, or broadcast.

    Nothing tells such a view on a device, where every result is copied.
    """
    return x.copy() if on_device(x) or (has_memory(x) and not is_writeable(x)) else x


def dense(t: Any) -> Any:
    return t.dense() if isinstance(t, Structured) else t


def dense_zeros(y: Array, k: int) -> Array:
    dtype = y.dtype if y.dtype.kind in "fc" else np.dtype(float)
    return beside(y).zeros((k, *y.shape), dtype)


def without_aux(result: Any, has_aux: bool, level: Level, where: str) -> tuple[Any, Any]:
    """Return (result, aux), aux without the tangents of this level; those of outer levels stay."""
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise StructureError(f"{where}: has_aux=True, so the function must return (result, aux).")
    return result[0], tree.map(lambda x: split(x, level)[0], result[1])


def argument_numbers(argnums: int | Sequence[int], args: tuple, where: str) -> tuple[int, ...]:
    try:
        given = (argnums,) if hasattr(argnums, "__index__") else tuple(argnums)
        numbers = tuple(operator.index(n) for n in given)
    except TypeError:
        raise OptionError(
            f"{where}: argnums={argnums!r}; give an int or a tuple of ints."
        ) from None
    for n in numbers:
        if not -len(args) <= n < len(args):
            raise OptionError(
                f"{where}: argnums={argnums!r}, but {len(args)} arguments were given by place. "
                f"Give those that are differentiated by place, not by keyword."
            )
    numbers = tuple(n % len(args) for n in numbers)
    if len(set(numbers)) < len(numbers):
        raise OptionError(f"{where}: argnums={argnums!r} names an argument twice. Name each once.")
    return numbers


def closed(f: Callable, args: tuple, numbers: tuple[int, ...], kwargs: dict) -> Callable:
    """Return f as a function of the arguments with the given numbers."""

    def g(*chosen):
        full = list(args)
        for n, x in zip(numbers, chosen, strict=True):
            full[n] = x
        return f(*full, **kwargs)

    return g


# --- by hand


def dual(x: Array, v: Array) -> DualTensor:
    """Return the dual of level 0 with primal x and the single tangent v; both are copied.

    Args:
        x: floating array or number, shape (...).
        v: its tangent, of x's shape; cast to x's dtype.

    Raises:
        DtypeError: x is an integer array. ShapeError: v has another shape.
        LevelError: x or v belongs to a transform that is running.

    >>> x = dual(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    >>> (x * x).tangent
    array([2., 0.])
    """
    if type(x) is DualTensor or type(v) is DualTensor:
        raise LevelError(
            "dg.dual(x, v): x or v is a dual already. Duals made by hand live on one level and do "
            "not nest; use dg.jvp inside the function instead."
        )
    check_class(type(x), "dg.dual")
    x = beside(x).array(x)
    check_floating(x, "dg.dual")
    v = tangent_like(x, v, "dg.dual")
    check_together("dg.dual", x, v)
    return DualTensor(x, v[None].copy(), BY_HAND)


def check_floating(x: Array, where: Any) -> None:
    """Raise DtypeError unless x is of a real or complex floating dtype."""
    if x.dtype.kind not in "fc":
        raise DtypeError(
            f"{where}: a primal of dtype {x.dtype} has no derivative. Give a floating array "
            f"(x.astype(float)), or close over the integer instead of passing it."
        )


def _check_tangent(x: Array, v: Any, where: Any) -> None:
    if v is None:
        raise DtypeError(
            f"{where}: the tangent is None. Give an array of the primal's shape, {x.shape}: zeros "
            f"where it does not move."
        )
    check_class(type(v), where)


def tangent_like(x: Array, v: Any, where: Any, directions: tuple[int, ...] = ()) -> Array:
    """Return v as a tangent of x, (*directions, *x.shape) in x's dtype; raise if it is none."""
    _check_tangent(x, v, where)
    if type(v) is not DualTensor and not hasattr(v, "dtype"):
        v = np.asarray(v)
    if v.dtype.kind not in "fciub":
        raise DtypeError(
            f"{where}: a tangent of dtype {v.dtype}; give a floating array of the primal's shape, "
            f"{x.shape}."
        )
    if v.shape != directions + x.shape:
        leading = f"k = {directions[0]} leading and then " if directions else ""
        raise ShapeError(
            f"{where}: a tangent has shape {v.shape}; {leading}the shape of its primal, {x.shape}, "
            f"was expected. Give the tangent the shape {directions + x.shape}."
        )
    if v.dtype.kind == "c" and x.dtype.kind != "c":
        raise DtypeError(
            f"{where}: a complex tangent for a primal of dtype {x.dtype}. A real primal moves "
            f"along real directions: give v.real, or make the primal complex."
        )
    return v if v.dtype == x.dtype else np.astype(v, x.dtype)


def tangent(x: Any) -> Array:
    """Return the single tangent of x, of its shape: zeros for a constant.

    Raises:
        ShapeError: x carries several tangents. LevelError: its transform has returned.
    """
    return x.tangent if type(x) is DualTensor else np.zeros_like(as_array(x))
