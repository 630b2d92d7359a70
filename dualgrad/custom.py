"""Rules of one's own: custom_jvp, and stop_gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np

from . import tree
from .arguments import dense, number
from .dual import TRACES, DualTensor, Level, find_level, primal, primal_of, split, trace_of
from .errors import LevelError, ShapeError, StructureError
from .primitive import Node

Tree = tree.Tree


def stop_gradient(x: Tree) -> Tree:
    """Return x without tangents of any level: a constant to every transform that runs."""
    return tree.map(primal, x)


class custom_jvp:
    """Decorate a function with a derivative rule of its own.

    The rule gets a tuple of primals and a tuple of tangents (one direction, zeros for constant
    arguments) and returns (y, dy); it must be linear in the tangents and made of functions that
    dualgrad knows, and may call the function itself. Arguments and results are arrays.

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
        if TRACES and (trace := trace_of(args)) is not None:
            return trace.record(self, args, {})
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
                self._no_tangent(p) if c is None else dense(c)[i]
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
        y, dy = (number(part, f"the rule of {self.__name__}") for part in result)
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
