"""Rules of one's own: custom_jvp, and stop_gradient."""

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np

from . import tree
from .arguments import dense, number
from .beside import as_array, beside
from .dual import TRACES, DualTensor, Level, find_level, primal, primal_of, split, trace_of
from .errors import (
    DtypeError,
    DualgradError,
    LevelError,
    MissingRuleError,
    OptionError,
    ShapeError,
    StructureError,
)
from .primitive import Follower, Node, Primitive

Tree = tree.Tree

# The functions whose rules run on recording duals, each with the level.
_recording: ContextVar[tuple] = ContextVar("rules being recorded", default=())


def stop_gradient(x: Tree) -> Tree:
    """Return x without tangents of any level: a constant to every transform that runs."""
    return tree.map(primal, x)


class custom_jvp:
    """Decorate a function with a derivative rule of its own.

    The rule gets a tuple of primals and a tuple of tangents (one direction; zeros for constant
    arguments, None for what is no number) and returns (y, dy). It must be linear in the tangents
    and made of functions that dualgrad knows, and may call the function itself; then it serves
    every order and mode. If it calls the function itself on a *tangent*, as that of a linear map
    may (`double(p), double(t)`), only forward mode can pass it: a transpose is not to be had from
    calls, and reverse mode raises MissingRuleError; write dy with NumPy functions, or as a product
    with a matrix. Arguments and results are arrays or trees of them. Keyword arguments and
    defaults reach the rule by place, as the function declares them.

    A function without a rule to be found: dg.finite_difference(f).

    Raises:
        MissingRuleError: no rule was declared, or reverse mode meets the above.
        StructureError, ShapeError, DtypeError: y and dy do not fit each other.
        LevelError: the function closes over a dual, whose tangent the rule would lose.

    >>> from dualgrad import jvp
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

    __name__: str

    def __init__(self, function: Callable) -> None:
        functools.update_wrapper(self, function)  # first: it copies the function's attributes
        self.function = function
        self.rule: Callable | None = None
        self.__name__ = getattr(function, "__name__", "function")
        try:
            self._signature: inspect.Signature | None = inspect.signature(function)
        except (TypeError, ValueError):  # of compiled code: only by place
            self._signature = None

    def defjvp(self, rule: Callable) -> Callable:
        """Declare rule(primals, tangents) -> (y, dy) as the derivative."""
        if not callable(rule):
            raise OptionError(f"{self.__name__}.defjvp: give a function, not {rule!r}.")
        self.rule = rule
        return rule

    def __repr__(self) -> str:
        return f"<custom_jvp {self.__name__}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args = self._by_place(args, kwargs)
        leaves, structure = tree.flatten(args)
        level = find_level(leaves)
        if level is None:
            return self.function(*args)
        level.check(self.__name__)
        if TRACES and (trace := trace_of(leaves)) is not None:
            return trace.record(self, args, {})
        if self.rule is None:
            raise MissingRuleError(
                f"{self.__name__} is a custom_jvp without a rule. Declare one with "
                f"@{self.__name__}.defjvp, or use dg.finite_difference instead of dg.custom_jvp."
            )
        pairs = [split(x, level) for x in leaves]
        primals, carriers = [p for p, _ in pairs], [c for _, c in pairs]
        followers = [c for c in carriers if isinstance(c, Follower)]
        if any(not c.first_order for c in followers) or (self, level) in _recording.get():
            return self._as_primitives(leaves, structure)
        if followers or any(type(c) is Node for c in carriers):
            return self._recorded(level, primals, carriers, structure)
        k = next(len(c) for c in carriers if c is not None)
        rows = []
        for i in range(k):
            along = [None if c is None else dense(c)[i] for c in carriers]
            ys, dys, out = self._call_rule(primals, along, structure)
            self._check_closed(level, *ys, *dys)
            rows.append(dys)
        return tree.unflatten(
            out,
            [
                DualTensor(y, np.stack(slopes), level) if y.dtype.kind in "fc" else y
                for y, *slopes in zip(ys, *rows, strict=True)
            ],
        )

    def _by_place(self, args: tuple, kwargs: dict) -> tuple:
        if self._signature is None or (not kwargs and len(args) == len(self._signature.parameters)):
            if kwargs:
                raise OptionError(
                    f"{self.__name__}: its signature is not known; pass arguments by place."
                )
            return args
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if bound.kwargs:
            raise OptionError(
                f"{self.__name__}: custom_jvp passes arguments by place, and {list(bound.kwargs)} "
                f"can only be given by keyword. Declare them before the * of the signature."
            )
        return bound.args

    def _no_tangent(self, p: Any) -> Any:
        """Return the tangent of a constant: zeros, or None where it is no number."""
        p = as_array(primal_of(p))
        if p.dtype.kind not in "fciub":
            return None
        return beside(p).zeros(p.shape, p.dtype if p.dtype.kind in "fc" else float)

    def _call_rule(self, primals: list, tangents: list, structure: Any) -> tuple:
        """Return (leaves of y, leaves of dy, their structure); None stands for no tangent."""
        assert self.rule is not None
        given = [
            self._no_tangent(p) if t is None else t for p, t in zip(primals, tangents, strict=True)
        ]
        where = f"the rule of {self.__name__}"
        result = self.rule(tree.unflatten(structure, primals), tree.unflatten(structure, given))
        if not isinstance(result, tuple) or len(result) != 2:
            raise StructureError(
                f"{where} must return (y, dy), two arrays or trees of one structure."
            )
        leaves, out = tree.flatten(result[0])
        ys = [number(y, where) for y in leaves]
        dys = [number(dy, where) for dy in tree.leaves_like(result[1], out, where)]
        return ys, [self._fitted(y, dy, where) for y, dy in zip(ys, dys, strict=True)], out

    @staticmethod
    def _fitted(y: Any, dy: Any, where: str) -> Any:
        if y.shape != dy.shape:
            raise ShapeError(f"{where}: y has shape {y.shape} and dy {dy.shape}; they must agree.")
        if dy.dtype == y.dtype or y.dtype.kind not in "fc":
            return dy
        if dy.dtype.kind == "c":
            raise DtypeError(
                f"{where}: dy is complex and y of dtype {y.dtype}. A real result has a real "
                f"tangent: return dy.real."
            )
        return dy.astype(y.dtype)

    def _check_closed(self, level: Level, *results: Any) -> None:
        for x in results:
            if split(x, level)[1] is not None:
                raise LevelError(
                    f"{self.__name__}: what it, or its rule, returns carries a tangent of "
                    f"level {level} ({level.name}) of its own: it uses a dual that is no argument. "
                    f"Make that value an argument of {self.__name__}."
                )

    def _recorded(self, level: Level, primals: list, carriers: list, structure: Any) -> Tree:
        # The rule is linear in the tangents, so at zero its own derivative along them is the rule.
        tangents = [
            None if c is None else DualTensor(np.zeros_like(p), c, level)
            for p, c in zip(primals, carriers, strict=True)
        ]
        token = _recording.set((*_recording.get(), (self, level)))
        try:
            ys, dys, out = self._call_rule(primals, tangents, structure)
        finally:
            _recording.reset(token)
        self._check_closed(level, *ys)
        for dy in dys:
            at_zero = as_array(primal_of(dy))
            if np.any(np.isfinite(at_zero) & (at_zero != 0)):
                raise DualgradError(
                    f"the rule of {self.__name__} gives dy = {at_zero} for tangents of zero: it "
                    f"must be linear in the tangents."
                )
        nodes = [split(dy, level)[1] for dy in dys]
        return tree.unflatten(
            out,
            [
                y if node is None else DualTensor(y, node, level)
                for y, node in zip(ys, nodes, strict=True)
            ],
        )

    def _as_primitives(self, leaves: list, structure: Any) -> Tree:
        """Return the result by primitives whose residuals are the arguments, one for each leaf."""
        outs, out = tree.flatten(self.function(*tree.unflatten(structure, map(primal_of, leaves))))

        def pull(primals, ct):
            raise MissingRuleError(
                f"{self.__name__}: its rule calls {self.__name__} on a tangent, and reverse mode "
                f"would need the transpose of that. Write dy in the rule with NumPy functions, or "
                f"as a product with a matrix; or use mode='forward'."
            )

        def primitive(place: int) -> Primitive:
            def value(*primals):
                return number(tree.leaves(self(*tree.unflatten(structure, primals)))[place], "y")

            def push(primals, tangents):
                k = next(len(t) for t in tangents if t is not None)
                along = [[None if t is None else t[i] for t in tangents] for i in range(k)]
                slopes = [self._call_rule(list(primals), ts, structure)[1][place] for ts in along]
                return np.stack(slopes)

            return Primitive(self.__name__, value, lambda primals, active, y: primals, push, pull)

        return tree.unflatten(out, [primitive(i)(*leaves) for i in range(len(outs))])
