"""The operators and ndarray's methods of a dual: each is the NumPy function of that name."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .dual import TRACES, DualTensor, as_operand, is_foreign, primal_of, trace_of, write
from .operations import OPERATIONS, name_of


def apply(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call the rule of a NumPy function without going through NumPy's own dispatch."""
    if TRACES and (trace := trace_of(args)) is not None:
        return trace.record(function, args, kwargs)
    return OPERATIONS[function].rule(*args, **kwargs)


def _binary(function: Callable) -> tuple[Callable, Callable, Callable]:
    def forward(self, other):
        return NotImplemented if is_foreign(other) else apply(function, self, as_operand(other))

    def reflected(self, other):
        return NotImplemented if is_foreign(other) else apply(function, as_operand(other), self)

    def in_place(self, other):
        result = forward(self, other)
        if result is NotImplemented or isinstance(primal_of(self), np.generic):
            return result  # a scalar is immutable: += rebinds the name
        write(self, ..., result)
        return self

    return forward, reflected, in_place


def _comparison(function: Callable) -> Callable:
    def compare(self, other):
        if is_foreign(other):
            return NotImplemented
        listed = type(other) in (list, tuple)
        return apply(function, self, as_operand(other) if listed else other)

    return compare


def _power(self, other, modulus=None):
    if modulus is not None or is_foreign(other):  # pow(x, y, z) is of integers
        return NotImplemented
    return apply(np.power, self, as_operand(other))


def _round(self, digits=None):
    """The rounded primal, which is piecewise constant: an int without digits, as Python has it."""
    y = np.round(self, 0 if digits is None else digits)
    return int(y) if digits is None else y


def _unary(function: Callable) -> Callable:
    return lambda self: apply(function, self)


def _method(function: Callable) -> Callable:
    def method(self, *args, **kwargs):
        return function(self, *args, **kwargs)

    method.__doc__ = f"The same as {name_of(function)}(x, ...)."
    return method


def _unpacked(function: Callable) -> Callable:
    """x.reshape(2, 3) is np.reshape(x, (2, 3))."""

    def method(self, *args, **kwargs):
        return function(self, args[0] if len(args) == 1 else args, **kwargs)

    return method


def _attach() -> None:
    arithmetic = {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "truediv": np.divide,
        "floordiv": np.floor_divide,
        "mod": np.remainder,
        "pow": np.power,
        "matmul": np.matmul,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
    }
    for name, function in arithmetic.items():
        for prefix, method in zip(("", "r", "i"), _binary(function), strict=True):
            setattr(DualTensor, f"__{prefix}{name}__", method)
    DualTensor.__pow__ = _power  # type: ignore
    DualTensor.__round__ = _round  # type: ignore[attr-defined]
    comparisons = {
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
        "eq": np.equal,
        "ne": np.not_equal,
    }
    for name, function in comparisons.items():
        setattr(DualTensor, f"__{name}__", _comparison(function))
    for name, method in zip(("__divmod__", "__rdivmod__"), _binary(np.divmod), strict=False):
        setattr(DualTensor, name, method)
    unary = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}
    for name, function in unary.items():
        setattr(DualTensor, f"__{name}__", _unary(function))
    methods = "all any argmax argmin argsort clip cumsum dot max mean min nonzero prod ptp ravel "
    methods += "repeat round searchsorted squeeze std sum swapaxes take trace var diagonal "
    methods += "conj conjugate astype argpartition choose compress cumprod put"
    for name in methods.split():
        setattr(DualTensor, name, _method(getattr(np, name)))
    DualTensor.copy = lambda self, order="C": np.copy(self, order)  # type: ignore[attr-defined]
    DualTensor.flatten = lambda self, order="C": np.copy(np.ravel(self, order))  # type: ignore[attr-defined]
    DualTensor.fill = lambda self, value: write(self, ..., value)  # type: ignore[attr-defined]
    DualTensor.sort = lambda self, axis=-1: write(self, ..., np.sort(self, axis))  # type: ignore
    DualTensor.partition = lambda self, kth, axis=-1: write(  # type: ignore[attr-defined]
        self, ..., np.partition(self, kth, axis)
    )
    DualTensor.reshape = _unpacked(np.reshape)  # type: ignore[attr-defined]
    DualTensor.transpose = lambda self, *axes: np.transpose(  # type: ignore[attr-defined]
        self, (axes[0] if len(axes) == 1 else axes) or None
    )


_attach()
