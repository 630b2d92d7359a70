"""linearize and vjp: the linear part of a function, recorded in one run, then pushed or pulled."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from . import tree
from .arguments import Arguments, dense_zeros, owned, split_result, without_aux
from .beside import has_memory, is_writeable
from .dual import Array, DualTensor, new_level, primal_of
from .errors import DtypeError, MissingRuleError, ShapeError
from .primitive import Node, Primitive

Tree = tree.Tree


class Tape:
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
                at[id(node)] = self._fitted(node, self.pushed(node, given))
        return [None if node is None else at.get(id(node)) for node in self.outputs]

    @staticmethod
    def pushed(node: Node, tangents: list) -> Any:
        """Return the tangent of a node from those of its inputs."""
        return node.primitive.push(node.residuals, tangents, **node.params)

    @staticmethod
    def pulled(node: Node, ct: Any, far: Any = None) -> tuple[list, list]:
        """Return the cotangents of a node's inputs from its own, and their infinite parts.

        Going forward, an infinite slope times a tangent of 0 is 0. Going back, what moves the
        argument comes after the slope. So a cotangent is ct + omega * far, with omega beyond all
        numbers, and only what is left of far in the end is infinite; None stands for 0.
        """
        pull, near, signs = node.primitive.pull, node.residuals, None
        assert pull is not None
        if node.primitive.split is not None:
            near, signs = node.primitive.split(near)
        cts = pull(near, ct, **node.params)
        fars = [None] * len(cts) if far is None else pull(near, far, **node.params)
        if signs is not None:
            steepest = ct if far is None else np.where(far != 0, far, ct)
            more = pull(signs, steepest, **node.params)
            fars = [_sum(a, b) for a, b in zip(fars, more, strict=True)]
        return cts, fars

    @staticmethod
    def _fitted(node: Node, t: Any) -> Any:
        if t.shape[1:] != node.shape:
            t = np.broadcast_to(t, (len(t), *node.shape))
        return t if t.dtype == node.dtype else np.astype(t, node.dtype)

    def pull(self, cotangents: list, last: bool = False) -> list:
        """Return the cotangents of the inputs, None where nothing depends on them.

        last: what the record holds goes as soon as it was used, as does the list of cotangents.
        """
        at: dict[int, Any] = {}
        beyond: dict[int, Any] = {}  # the infinite parts

        def add(node, ct, at=at):
            if ct.dtype != node.dtype:  # a real argument keeps the real part of a complex cotangent
                real = ct.dtype.kind == "c" and node.dtype.kind != "c"
                ct = np.astype(np.real(ct) if real else ct, node.dtype)
            at[id(node)] = ct if id(node) not in at else at[id(node)] + ct

        for node, ct in zip(self.outputs, cotangents, strict=True):
            if node is not None:
                add(node, ct)
        if last:
            ct = None
            cotangents.clear()
        for node in reversed(self.nodes):
            ct = at.get(id(node))
            if ct is None or node.primitive is None:
                continue
            if node.primitive.pull is None:
                raise _no_transpose(node.primitive)
            cts, fars = self.pulled(node, ct, beyond.pop(id(node), None))
            del at[id(node)], ct
            if last:
                node.residuals = None
            c = None  # there may be no inputs
            for source, c in zip(node.inputs, cts, strict=False):
                if source is not None and c is not None:
                    add(source, c)
            for source, c in zip(node.inputs, fars, strict=False):
                if source is not None and c is not None and np.any(primal_of(c)):
                    add(source, c, beyond)
            del cts, fars, c
        return [with_infinities(at.get(id(n)), beyond.get(id(n))) for n in self.inputs]


def _sum(a: Any, b: Any) -> Any:
    return a if b is None else b if a is None else a + b


def with_infinities(ct: Any, far: Any) -> Any:
    """Return ct + omega * far as numbers: infinite where far is not 0."""
    if far is None:
        return ct
    if type(ct) is DualTensor:  # the slope of an infinite slope is not 0 but NaN
        far = far + np.multiply(ct, 0)
    with np.errstate(invalid="ignore"):  # of inf * 0, which is not chosen
        return np.where(far != 0, np.astype(np.inf * far, ct.dtype), ct)


def _no_transpose(primitive: Primitive) -> MissingRuleError:
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


def record(f: Callable, primals: tuple, where: str, has_aux: bool = False) -> tuple:
    """Run f once on recording duals; return (arguments, y, tape, structure of y, aux)."""
    arguments = Arguments(primals, where)
    inputs = [Node(None, None, {}, [], x.shape, x.dtype) for x in arguments.floating()]
    with new_level(where) as level:
        result, aux = without_aux(arguments.call(f, inputs, level), has_aux, level, where)
        leaves, structure = tree.flatten(result)
        pairs = [split_result(leaf, level, where) for leaf in leaves]
    tape = Tape(inputs, [node for _, node in pairs])
    return arguments, [owned(y) for y, _ in pairs], tape, structure, aux


def apart(results: list, given: Iterable) -> list:
    """Return results that may be written, each with memory of its own.

    What is read-only is copied, and what shares memory with `given` or with another result: the
    pull of a + b gives both one array.
    """
    kept: dict[int, list] = {}

    def is_alone(x: np.ndarray) -> bool:
        beside = kept.setdefault(id(x if x.base is None else x.base), [])
        alone = not any(np.may_share_memory(x, other) for other in beside)
        beside.append(x)
        return alone

    for x in given:
        if has_memory(x):
            is_alone(x)
    return [
        x.copy() if has_memory(x) and not (is_writeable(x) and is_alone(x)) else x for x in results
    ]


def linearize(f: Callable, *primals: Any) -> tuple[Tree, Callable]:
    """Return (f(*primals), f_jvp), where f_jvp(*tangents) is the derivative at primals.

    f runs once; f_jvp replays the recorded linear part, as often as wanted.

    >>> y, f_jvp = linearize(np.sin, 0.0)
    >>> f_jvp(2.0)
    np.float64(2.0)
    """
    arguments, ys, tape, structure, _ = record(f, primals, "dg.linearize")

    def f_jvp(*tangents):
        given = arguments.tangents(tangents, stacked=False)
        tys = apart(tape.push(given), given)
        tys = [dense_zeros(y, 1) if t is None else t for y, t in zip(ys, tys, strict=True)]
        return tree.unflatten(structure, [t[0] for t in tys])

    return tree.unflatten(structure, ys), f_jvp


class Pullback:
    """f_vjp: cotangents of the result in, a tuple of cotangents of the arguments out."""

    def __init__(self, arguments: Arguments, ys: list, tape: Tape, structure: Any) -> None:
        self.arguments = arguments
        self.ys = ys
        self.tape = tape
        self.structure = structure

    def __call__(self, cotangents: Tree) -> tuple:
        return self.once(cotangents, last=False)

    def once(self, cotangents: Tree, last: bool = True) -> tuple:
        """Return what a call does, for the last time: memory goes back as the record is used."""
        leaves = tree.leaves_like(cotangents, self.structure, "f_vjp")
        del cotangents
        leaves[:] = [self._fit(y, ct)[None] for y, ct in zip(self.ys, leaves, strict=True)]
        return tree.map(lambda r: None if r is None else r[0], self._rows(leaves, last))

    @staticmethod
    def _fit(y: Array, ct: Any) -> Array:
        ct = ct if type(ct) is DualTensor or hasattr(ct, "dtype") else np.asarray(ct)
        if ct.shape != y.shape:
            raise ShapeError(
                f"f_vjp: a cotangent of shape {ct.shape} for a result of shape {y.shape}."
            )
        if ct.dtype.kind not in "fciub" or (ct.dtype.kind == "c" and y.dtype.kind != "c"):
            raise DtypeError(
                f"f_vjp: a cotangent of dtype {ct.dtype} for a result of dtype {y.dtype}. Give an "
                f"array of the result's dtype."
            )
        return ct if ct.dtype == y.dtype or y.dtype.kind not in "fc" else np.astype(ct, y.dtype)

    def stacked(self, cotangents: Tree, last: bool = False) -> tuple:
        """Pull k cotangents at once: leaves (k, *shape) in and out; `last` as for Tape.pull."""
        return self._rows(tree.leaves_like(cotangents, self.structure, "f_vjp"), last)

    def _rows(self, leaves: list, last: bool) -> tuple:
        k = len(leaves[0]) if leaves else 1
        given = [] if last else list(leaves)  # what is pulled for the last time is let go
        found = iter(apart(self.tape.pull(leaves, last), given))
        arguments, out = self.arguments, []
        for x, m in zip(arguments.primals, arguments.moving, strict=True):
            ct = next(found) if m else None
            out.append(dense_zeros(x, k) if m and ct is None else ct)
        return tree.unflatten(arguments.structure, out)


def vjp(f: Callable, *primals: Any, has_aux: bool = False) -> tuple:
    """Return (f(*primals), f_vjp[, aux]); f_vjp(cotangent) is a tuple, one cotangent an argument.

    Reverse mode, by transposing the linear part that linearize records, in the inner product
    Re(sum(conj(u) v)). It is here as the honest baseline and as a test oracle.

    >>> y, f_vjp = vjp(lambda x: np.sum(x * x), np.array([1.0, 2.0]))
    >>> f_vjp(1.0)
    (array([2., 4.]),)
    """
    y, f_vjp, aux = pullback(f, primals, has_aux, "dg.vjp")
    return (y, f_vjp, aux) if has_aux else (y, f_vjp)


def pullback(f: Callable, primals: tuple, has_aux: bool, where: str) -> tuple:
    """Return (y, f_vjp, aux); `where` names the transform that the user called."""
    arguments, ys, tape, structure, aux = record(f, primals, where, has_aux)
    return tree.unflatten(structure, ys), Pullback(arguments, ys, tape, structure), aux
