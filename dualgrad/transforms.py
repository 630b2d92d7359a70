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
from .dual import (
    Array,
    DualTensor,
    Level,
    Structured,
    check_floating,
    find_level,
    new_level,
    primal_of,
    read_only,
    split,
    tangent_like,
)
from .errors import DtypeError, DualgradError, LevelError, OptionError, ShapeError, StructureError
from .options import choice
from .primitive import Node, Primitive

Tree = tree.Tree
MODES = ("forward", "reverse")

# --- arguments and results


def _as_primal(x: Any, where: str) -> Any:
    if type(x) is not DualTensor and not hasattr(x, "dtype"):
        x = np.asarray(x)[()]  # a Python number becomes a NumPy scalar
    check_floating(x, where)
    return read_only(x)


def _is_static(x: Any) -> bool:
    """Tell whether a leaf is not a number at all: a name, a callable, None."""
    return (
        x is None or isinstance(x, (str, bytes, bool)) or (callable(x) and not hasattr(x, "dtype"))
    )


class _Arguments:
    """The leaves of a transform's arguments: which carry tangents, and how to put them back."""

    def __init__(self, primals: Sequence, where: str) -> None:
        if not isinstance(primals, (tuple, list)):
            raise StructureError(
                f"{where}: primals is a {type(primals).__name__}; give a tuple with one entry for "
                f"each argument of the function, even for one: (x,)."
            )
        self.where = where
        self.leaves, self.structure = tree.flatten(tuple(primals))
        self.moving = [not _is_static(x) for x in self.leaves]
        self.primals = [
            _as_primal(x, where) if m else x for x, m in zip(self.leaves, self.moving, strict=True)
        ]

    def floating(self) -> list:
        return [x for x, m in zip(self.primals, self.moving, strict=True) if m]

    def tangents(self, tangents: Sequence, stacked: bool) -> list:
        """Return the tangents of the floating leaves, each (k, *shape)."""
        leaves = tree.leaves_like(tuple(tangents), self.structure, self.where)
        given = [v for v, m in zip(leaves, self.moving, strict=True) if m]
        if not stacked:
            return [
                tangent_like(x, v, self.where)[None]
                for x, v in zip(self.floating(), given, strict=True)
            ]
        given = [v if hasattr(v, "shape") else np.asarray(v) for v in given]
        sizes = {v.shape[0] if v.ndim else None for v in given}
        if len(sizes) > 1 or None in sizes:
            raise ShapeError(
                f"{self.where}: tangents of shapes {[v.shape for v in given]} must share one "
                f"leading axis of k directions. Stack the directions along axis 0."
            )
        k = sizes.pop() if sizes else 1
        return [
            tangent_like(x, v, self.where, (k,))
            for x, v in zip(self.floating(), given, strict=True)
        ]

    def call(self, function: Callable, carriers: Sequence, level: Level) -> Any:
        given = iter(carriers)
        leaves = [
            DualTensor(x, read_only(next(given)), level) if m else x
            for x, m in zip(self.primals, self.moving, strict=True)
        ]
        return function(*tree.unflatten(self.structure, leaves))


def _number(y: Any, where: str) -> Any:
    if type(y) is DualTensor or hasattr(y, "dtype"):
        return y
    if isinstance(y, (int, float, complex)):
        return np.asarray(y)[()]
    raise StructureError(
        f"{where}: the function returned a {type(y).__name__}, which is no array. Return arrays, "
        f"numbers, or trees of them (with has_aux=True: (result, anything))."
    )


def _take_apart(result: Tree, level: Level, where: str, k: int) -> tuple[Tree, Tree]:
    """Return (primals, tangents) of a result at a level; tangents of constants are zeros."""
    leaves, structure = tree.flatten(result)
    ys, tys = [], []
    for leaf in leaves:
        y, ty = _split_result(leaf, level, where)
        ys.append(y)
        tys.append(_dense_zeros(y, k) if ty is None else _dense(ty))
    return tree.unflatten(structure, ys), tree.unflatten(structure, tys)


def _split_result(leaf: Any, level: Level, where: str) -> tuple[Any, Any]:
    y, carrier = split(_number(leaf, where), level)
    if type(y) is DualTensor:
        y.level.check(where)  # what escaped from an inner transform that has returned
    return y, carrier


def _dense(t: Any) -> Any:
    return t.dense() if isinstance(t, Structured) else t


def _dense_zeros(y: Array, k: int) -> np.ndarray:
    dtype = y.dtype if y.dtype.kind in "fc" else np.dtype(float)
    return np.zeros((k, *y.shape), dtype)


def _without_aux(result: Any, has_aux: bool, level: Level, where: str) -> tuple[Any, Any]:
    """Return (result, aux), aux without the tangents of this level; those of outer levels stay."""
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise StructureError(f"{where}: has_aux=True, so the function must return (result, aux).")
    return result[0], tree.map(lambda x: split(x, level)[0], result[1])


# --- forward


def _push(f, primals, tangents, where, stacked, has_aux):
    arguments = _Arguments(primals, where)
    if not isinstance(tangents, (tuple, list)) or len(tangents) != len(primals):
        raise StructureError(
            f"{where}: tangents must be a tuple with one entry for each primal ({len(primals)})."
        )
    carriers = arguments.tangents(tangents, stacked)
    k = len(carriers[0]) if carriers else 1
    with new_level(where) as level:
        result, aux = _without_aux(arguments.call(f, carriers, level), has_aux, level, where)
        y, ty = _take_apart(result, level, where, k)
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
        DtypeError: an integer primal, or a complex tangent of a real one. ShapeError,
            StructureError:
        tangents do not fit. MissingRuleError: f calls a function without a rule.

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


def _argument_numbers(argnums: int | Sequence[int], args: tuple, where: str) -> tuple[int, ...]:
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for n in numbers:
        if not -len(args) <= n < len(args):
            raise OptionError(
                f"{where}: argnums={argnums!r}, but {len(args)} arguments were given."
            )
    return tuple(n % len(args) for n in numbers)


def _closed(f: Callable, args: tuple, numbers: tuple[int, ...], kwargs: dict) -> Callable:
    """Return f as a function of the arguments with the given numbers."""

    def g(*chosen):
        full = list(args)
        for n, x in zip(numbers, chosen, strict=True):
            full[n] = x
        return f(*full, **kwargs)

    return g


def derivative(f: Callable, argnums: int = 0) -> Callable:
    """Return the function that gives df/dx for a scalar x; the result has the shape of f's.

    A tuple of argnums gives a tuple of derivatives.

    >>> derivative(lambda x: x**3)(2.0)
    np.float64(12.0)
    """

    def df(*args, **kwargs):
        numbers = _argument_numbers(argnums, args, "dg.derivative")
        chosen = tuple(args[n] for n in numbers)
        if any(np.shape(primal_of(x)) != () for x in chosen):
            raise ShapeError(
                f"dg.derivative: x has shape {np.shape(primal_of(chosen[0]))}, not (). Use "
                f"dg.gradient for one number as result, dg.jacobian for any."
            )
        g, basis = _closed(f, args, numbers, kwargs), tuple(np.eye(len(chosen)))
        rows = _push(g, chosen, basis, "dg.derivative", True, False)[1]
        columns = tuple(tree.map(lambda t, i=i: t[i], rows) for i in range(len(chosen)))
        return _one_or_all(columns, argnums)

    return df


BYTES_A_CHUNK = 1 << 28  # of tangents of the arguments, where no chunk_size is given


def _columns(
    g: Callable, chosen: tuple, chunk_size: int | None, has_aux: bool, where: str
) -> tuple:
    """Return (y, J, aux); the leaves of J are (inputs, *shape), one row for each input entry."""
    arguments = _Arguments(chosen, where)
    leaves = arguments.floating()
    sizes = [math.prod(x.shape) for x in leaves]
    total = sum(sizes)
    if chunk_size is None:
        row = sum(n * x.dtype.itemsize for n, x in zip(sizes, leaves, strict=True))
        chunk_size = max(1, BYTES_A_CHUNK // max(row, 1))
    if chunk_size < 1:
        raise OptionError(
            f"{where}: chunk_size={chunk_size}; give the number of tangents a pass, >= 1."
        )
    parts = []
    y = aux = None
    for start in range(0, max(total, 1), chunk_size):
        k = min(chunk_size, total - start)
        carriers = _seeds(leaves, sizes, start, k)
        with new_level(where) as level:
            result, aux = _without_aux(arguments.call(g, carriers, level), has_aux, level, where)
            y, ty = _take_apart(result, level, where, k)
        _check_modes_agree(leaves, tree.leaves(y), "forward", where)
        parts.append(ty)
    if len(parts) == 1:
        return y, parts[0], aux
    return y, tree.map(lambda *rows: np.concatenate(rows), *parts), aux


def _seeds(leaves: list, sizes: list[int], start: int, k: int) -> list:
    """Return rows start to start + k of the identity, cut into tangents of the leaves."""
    seeds, before = [], 0
    for x, n in zip(leaves, sizes, strict=True):
        v = np.zeros((k, n), x.dtype)
        rows = np.arange(max(before - start, 0), min(before + n - start, k))
        v[rows, rows + start - before] = 1
        seeds.append(np.reshape(v, (k, *x.shape)))
        before += n
    return seeds


def _blocks(columns: Array, chosen: tuple, where: str) -> tuple:
    """Cut (inputs, *out) into a tuple of argument trees with leaves (*out, *shape of the input)."""
    arguments = _Arguments(chosen, where)
    blocks, before = [], 0
    for x, m in zip(arguments.primals, arguments.moving, strict=True):
        if not m:
            blocks.append(None)
            continue
        n = math.prod(x.shape)
        rows = columns[before : before + n]
        out = rows.shape[1:]
        blocks.append(np.reshape(np.moveaxis(rows, 0, -1), (*out, *x.shape)))
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

    def value_and_j(*args, **kwargs):
        numbers = _argument_numbers(argnums, args, where)
        g, chosen = _closed(f, args, numbers, kwargs), tuple(args[n] for n in numbers)
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


def _check_modes_agree(inputs: Sequence, outputs: Sequence, mode: str, where: str) -> None:
    """Raise DtypeError where one number an entry of x (or of y) is not the whole derivative."""
    complex_x, complex_y = ("c" in {x.dtype.kind for x in xs} for xs in (inputs, outputs))
    if (mode == "forward" and complex_x and not complex_y) or (mode == "reverse" and complex_y):
        raise DtypeError(
            f"{where}: with mode={mode!r} a function from {[str(x.dtype) for x in inputs]} to "
            f"{[str(y.dtype) for y in outputs]} would lose half of its derivative. Use dg.jvp and "
            f"dg.vjp, the other mode, or make the real and the imaginary part two arguments."
        )


def _rows(g: Callable, chosen: tuple, has_aux: bool, where: str) -> tuple:
    y, pull, aux = _pullback(g, chosen, has_aux, where)
    leaves, structure = tree.flatten(y)
    _check_modes_agree(pull.arguments.floating(), leaves, "reverse", where)
    blocks = []
    for i, leaf in enumerate(leaves):
        n = math.prod(leaf.shape)
        eye = np.reshape(np.eye(n, dtype=leaf.dtype), (n, *leaf.shape))
        cts = [np.zeros((n, *other.shape), other.dtype) for other in leaves]
        cts[i] = eye
        rows = pull.stacked(tree.unflatten(structure, cts))
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
        chunk_size: directions a pass; by default as many as make the arguments' tangents 256 MB.
        has_aux: f returns (result, aux), the Jacobian function (jacobian, aux).

    For complex x and y it is the derivative along the real axis, that of a holomorphic function.

    Raises:
        DtypeError: complex x with real y, or complex y in reverse mode: use jvp and vjp.

    >>> jacobian(lambda x: x * x)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """
    both = value_and_jacobian(f, argnums, mode=mode, chunk_size=chunk_size, has_aux=has_aux)
    return _only_derivative(both, has_aux)


def _only_derivative(both: Callable, has_aux: bool) -> Callable:
    def derivative_of(*args, **kwargs):
        value, d = both(*args, **kwargs)
        return (d, value[1]) if has_aux else d

    return derivative_of


def _check_real_number(y: Any, where: str) -> None:
    shape, kind = np.shape(primal_of(y)), np.asarray(primal_of(y)).dtype.kind
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
    return _only_derivative(both, has_aux)


def hessian(
    f: Callable, argnums: int | Sequence[int] = 0, *, chunk_size: int | None = None
) -> Callable:
    """Return the function that gives the Hessian of f, shape (*shape of x, *shape of x).

    Forward over forward: every pair of entries of x meets once. For trees, a tree of trees.

    >>> hessian(lambda x: np.sum(x**3))(np.array([1.0, 2.0]))
    array([[ 6.,  0.],
           [ 0., 12.]])
    """
    return jacobian(gradient(f, argnums, chunk_size=chunk_size), argnums, chunk_size=chunk_size)


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
    return jvp(gradient(f, numbers, mode=mode), primals, tangents)[1]


# --- linearize and vjp


class _Tape:
    """The record of one run: input and output nodes, and those between in execution order."""

    def __init__(self, inputs: list[Node], outputs: list[Node | None]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.nodes = _in_order([node for node in outputs if node is not None])

    def push(self, tangents: list) -> list:
        """Return the tangents of the outputs, None where they are constant."""
        at = {id(node): t for node, t in zip(self.inputs, tangents, strict=True)}
        for node in self.nodes:
            if id(node) in at or node.primitive is None:
                continue
            given = [None if n is None else at.get(id(n)) for n in node.inputs]
            if any(t is not None for t in given):
                at[id(node)] = self._fitted(
                    node, node.primitive.push(node.residuals, given, **node.params)
                )
        return [None if node is None else at.get(id(node)) for node in self.outputs]

    @staticmethod
    def _fitted(node: Node, t: Any) -> Any:
        if t.shape[1:] != node.shape:
            t = np.broadcast_to(t, (len(t), *node.shape))
        return t if t.dtype == node.dtype else np.astype(t, node.dtype)

    def pull(self, cotangents: list) -> list:
        """Return the cotangents of the inputs, None where nothing depends on them."""
        at: dict[int, Any] = {}

        def add(node, ct):
            if ct.dtype != node.dtype:  # a real argument keeps the real part of a complex cotangent
                real = ct.dtype.kind == "c" and node.dtype.kind != "c"
                ct = np.astype(np.real(ct) if real else ct, node.dtype)
            at[id(node)] = ct if id(node) not in at else at[id(node)] + ct

        for node, ct in zip(self.outputs, cotangents, strict=True):
            if node is not None:
                add(node, ct)
        for node in reversed(self.nodes):
            ct = at.get(id(node))
            if ct is None or node.primitive is None:
                continue
            if node.primitive.pull is None:
                raise _no_transpose(node.primitive)
            cts = node.primitive.pull(node.residuals, ct, **node.params)
            del at[id(node)]
            for source, c in zip(node.inputs, cts, strict=False):
                if source is not None and c is not None:
                    add(source, c)
        return [at.get(id(node)) for node in self.inputs]


def _no_transpose(primitive: Primitive) -> DualgradError:
    from .errors import MissingRuleError

    return MissingRuleError(
        f"{primitive.name} has a tangent rule but no transpose, so reverse mode cannot pass it. "
        f"Use mode='forward'."
    )


def _in_order(outputs: list[Node]) -> list[Node]:
    """Return the nodes that outputs depend on, each after its inputs."""
    order: list[Node] = []
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [(node, False) for node in reversed(outputs)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((n, False) for n in node.inputs if n is not None)
    return order


def _record(f: Callable, primals: tuple, where: str, has_aux: bool = False) -> tuple:
    """Run f once on recording duals; return (arguments, y, tape, structure of y, aux)."""
    arguments = _Arguments(primals, where)
    inputs = [Node(None, None, {}, [], x.shape, x.dtype) for x in arguments.floating()]
    with new_level(where) as level:
        result, aux = _without_aux(arguments.call(f, inputs, level), has_aux, level, where)
        leaves, structure = tree.flatten(result)
        pairs = [_split_result(leaf, level, where) for leaf in leaves]
    tape = _Tape(inputs, [node for _, node in pairs])
    return arguments, [y for y, _ in pairs], tape, structure, aux


def linearize(f: Callable, *primals: Any) -> tuple[Tree, Callable]:
    """Return (f(*primals), f_jvp), where f_jvp(*tangents) is the derivative at primals.

    f runs once; f_jvp replays the recorded linear part, as often as wanted.

    >>> y, f_jvp = linearize(np.sin, 0.0)
    >>> f_jvp(2.0)
    np.float64(2.0)
    """
    arguments, ys, tape, structure, _ = _record(f, primals, "dg.linearize")

    def f_jvp(*tangents):
        tys = tape.push(arguments.tangents(tangents, stacked=False))
        tys = [_dense_zeros(y, 1) if t is None else t for y, t in zip(ys, tys, strict=True)]
        return tree.unflatten(structure, [t[0] for t in tys])

    return tree.unflatten(structure, ys), f_jvp


class _Pullback:
    """f_vjp: cotangents of the result in, a tuple of cotangents of the arguments out."""

    def __init__(self, arguments: _Arguments, ys: list, tape: _Tape, structure: Any) -> None:
        self.arguments = arguments
        self.ys = ys
        self.tape = tape
        self.structure = structure

    def __call__(self, cotangents: Tree) -> tuple:
        leaves = tree.leaves_like(cotangents, self.structure, "f_vjp")
        stacked = [self._fit(y, ct)[None] for y, ct in zip(self.ys, leaves, strict=True)]
        rows = self.stacked(tree.unflatten(self.structure, stacked))
        return tree.map(lambda r: None if r is None else r[0], rows)

    @staticmethod
    def _fit(y: Array, ct: Any) -> Array:
        ct = ct if type(ct) is DualTensor or hasattr(ct, "dtype") else np.asarray(ct)
        if ct.shape != y.shape:
            raise ShapeError(
                f"f_vjp: a cotangent of shape {ct.shape} for a result of shape {y.shape}."
            )
        return ct if ct.dtype == y.dtype or y.dtype.kind not in "fc" else np.astype(ct, y.dtype)

    def stacked(self, cotangents: Tree) -> tuple:
        """Pull k cotangents at once: leaves (k, *shape) in and out."""
        leaves = tree.leaves_like(cotangents, self.structure, "f_vjp")
        k = len(leaves[0]) if leaves else 1
        found = iter(self.tape.pull(leaves))
        arguments, out = self.arguments, []
        for x, m in zip(arguments.primals, arguments.moving, strict=True):
            ct = next(found) if m else None
            out.append(_dense_zeros(x, k) if m and ct is None else ct)
        return tree.unflatten(arguments.structure, out)


def vjp(f: Callable, *primals: Any, has_aux: bool = False) -> tuple:
    """Return (f(*primals), f_vjp[, aux]); f_vjp(cotangent) is a tuple, one cotangent an argument.

    Reverse mode, by transposing the linear part that linearize records, in the inner product
    Re(sum(conj(u) v)). It is here as the honest baseline and as a test oracle.

    >>> y, f_vjp = vjp(lambda x: np.sum(x * x), np.array([1.0, 2.0]))
    >>> f_vjp(1.0)
    (array([2., 4.]),)
    """
    y, pullback, aux = _pullback(f, primals, has_aux, "dg.vjp")
    return (y, pullback, aux) if has_aux else (y, pullback)


def _pullback(f: Callable, primals: tuple, has_aux: bool, where: str) -> tuple:
    arguments, ys, tape, structure, aux = _record(f, primals, where, has_aux)
    pullback = _Pullback(arguments, ys, tape, structure)
    return tree.unflatten(structure, ys), pullback, aux


# --- rules of one's own


def stop_gradient(x: Tree) -> Tree:
    """Return x without tangents of any level: a constant to every transform that runs."""
    return tree.map(primal_of, x)


class custom_jvp:
    """Decorate a function with a derivative rule of its own.

    The rule gets a tuple of primals and a tuple of tangents (one direction, zeros for constant
    arguments) and returns (y, dy); it must be linear in the tangents and made of functions that
    dualgrad knows, and may call the function itself. Arguments and results are arrays.

    >>> @custom_jvp
    ... def softplus(x):
    ...     return np.log1p(np.exp(x))
    >>> @softplus.defjvp
    ... def rule(primals, tangents):
    ...     (x,), (dx,) = primals, tangents
    ...     return softplus(x), dx / (1 + np.exp(-x))
    >>> jvp(softplus, (0.0,), (1.0,))[1]
    np.float64(0.5)
    """

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.rule: Callable | None = None
        self.__name__ = getattr(function, "__name__", "function")
        self.__doc__ = function.__doc__

    def defjvp(self, rule: Callable) -> Callable:
        """Declare rule(primals, tangents) -> (y, dy) as the derivative."""
        self.rule = rule
        return rule

    def __call__(self, *args: Any) -> Any:
        level = find_level(args)
        if level is None:
            return self.function(*args)
        level.check(self.__name__)
        if self.rule is None:
            raise LevelError(
                f"{self.__name__} is a custom_jvp without a rule. Declare one: "
                f"@{self.__name__}.defjvp"
            )
        primals, carriers = zip(*(split(x, level) for x in args), strict=True)
        if any(type(c) is Node for c in carriers):
            return self._recorded(level, primals, carriers)
        k = next(len(c) for c in carriers if c is not None)
        rows = []
        for i in range(k):
            tangents = tuple(
                self._no_tangent(p) if c is None else _dense(c)[i]
                for p, c in zip(primals, carriers, strict=True)
            )
            rows.append(self._call_rule(primals, tangents))
        y = rows[0][0]
        return DualTensor(y, np.stack([dy for _, dy in rows]), level)

    @staticmethod
    def _no_tangent(p: Any) -> np.ndarray:
        p = np.asarray(primal_of(p))
        return np.zeros(p.shape, p.dtype if p.dtype.kind in "fc" else float)

    def _call_rule(self, primals: tuple, tangents: tuple) -> tuple:
        assert self.rule is not None
        result = self.rule(primals, tangents)
        if not isinstance(result, tuple) or len(result) != 2:
            raise StructureError(f"the rule of {self.__name__} must return (y, dy), two arrays.")
        y, dy = (_number(part, f"the rule of {self.__name__}") for part in result)
        if y.shape != dy.shape:
            raise ShapeError(
                f"the rule of {self.__name__}: y has shape {y.shape} and dy {dy.shape}; they must "
                f"agree."
            )
        return y, dy if dy.dtype == y.dtype else dy.astype(y.dtype)

    def _recorded(self, level: Level, primals: tuple, carriers: tuple) -> DualTensor:
        # The rule is linear in the tangents, so at zero its own derivative along them is the rule.
        tangents = tuple(
            self._no_tangent(p) if c is None else DualTensor(np.zeros_like(p), c, level)
            for p, c in zip(primals, carriers, strict=True)
        )
        y, dy = self._call_rule(primals, tangents)
        node = split(dy, level)[1]
        return y if node is None else DualTensor(y, node, level)


def grad(*args: Any, **kwargs: Any) -> None:
    """Raise: the word would not say whether the exact gradient or the estimate is meant."""
    raise DualgradError(
        "dg.grad does not exist here: dg.gradient(f) is the exact gradient, and "
        "dg.forward_gradient(f) the unbiased estimate from one forward pass."
    )
