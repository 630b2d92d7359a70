"""The operation table: every function that takes duals, with its rule.

NumPy's protocols look functions up here, by the function itself; the tests and docs/operations.md
iterate over it. `implements` is the only way in.
"""

import operator
import sys
from collections.abc import Callable
from inspect import CO_VARKEYWORDS, isfunction, unwrap
from typing import NamedTuple

import numpy as np


class Operation(NamedTuple):
    """A row of the operation table: how duals take part in one public function."""

    name: str
    rule: Callable
    family: str  # the module of dualgrad.ops that declares it
    differentiable: bool
    keywords: frozenset[str]  # the parameters that the rule understands


OPERATIONS: dict[Callable, Operation] = {}
METHODS: dict[tuple[Callable, str], Callable] = {}  # (np.add, "reduce") and its like
# How any ufunc is called with keywords, or by a method: "__call__", "reduce", "outer", "at", ...
UFUNC_METHODS: dict[str, Callable] = {}  # each takes (ufunc, *inputs, **keywords)
# Functions that write into their first argument: the rule where that is a dual.
WRITES: dict[Callable, Callable] = {}
# Tables of packages that are not imported with dualgrad, by the module that has their functions;
# each is asked once that module is there.
LATER: dict[str, Callable[[Callable], Operation | None]] = {}


# Functions, or modules full of them, that no dual can go through, and why.
REFUSED: dict[Callable | str, str] = {
    np.busday_count: "it takes dates",
    np.busday_offset: "it takes dates",
    np.is_busday: "it takes dates",
    np.datetime_as_string: "it takes dates",
    np.packbits: "it takes bits",
    np.unpackbits: "it takes bits",
    np.unravel_index: "it takes places, which are integers",
    np.ravel_multi_index: "it takes places, which are integers",
    "numpy.char": "it takes text",
    "numpy.strings": "it takes text",
    "numpy.polynomial.polynomial": "np.polyval of one variable has one",
    "numpy.lib.recfunctions": "it takes structured arrays, and a dual has no fields",
}


def why_refused(function: Callable) -> str:
    """Return the reason for a function without a rule, as a part of the error's sentence."""
    reason = REFUSED.get(function) or REFUSED.get(getattr(function, "__module__", ""))
    return f" ({reason})" if reason else ""


def find(function: Callable) -> Operation | None:
    """Return the row of a function, also from the tables that are read late; None without one."""
    row = OPERATIONS.get(function)
    if row is None:
        for module, table in LATER.items():
            if row is None and sys.modules.get(module) is not None:
                row = table(function)
    return row


def given(kwargs: dict) -> dict:
    """Return the keywords without those that hold NumPy's own mark for "not given"."""
    if any(value is np._NoValue for value in kwargs.values()):  # type: ignore[attr-defined]
        return {k: v for k, v in kwargs.items() if v is not np._NoValue}  # type: ignore[attr-defined]
    return kwargs


def implements(
    *functions: Callable, differentiable: bool = True, family: str | None = None
) -> Callable:
    """Enter a rule into the operation table, under each of the given functions."""
    given = family

    def enter(rule: Callable) -> Callable:
        keywords = frozenset(_keywords_of(rule) if isfunction(rule) else ())
        family = given or (getattr(rule, "__module__", None) or "").rpartition(".")[2]
        for function in functions:
            OPERATIONS[function] = Operation(
                name_of(function), rule, family, differentiable, keywords
            )
        return rule

    return enter


def _keywords_of(rule: Callable) -> tuple[str, ...]:
    code = unwrap(rule).__code__  # type: ignore[attr-defined]  # inspect.signature takes longer
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return (*names, "**") if code.co_flags & CO_VARKEYWORDS else names


def name_of(function: Callable) -> str:
    """Return how a user writes a function: np.exp, np.linalg.norm, dg.nn.relu."""
    if isinstance(function, np.ufunc):
        return f"{_home_of(function)}.{function.__name__}"
    if function is operator.getitem:
        return "x[index]"
    package, _, module = function.__module__.partition(".")
    prefix = {"numpy": "np", "dualgrad": "dg"}.get(package, package)
    if package == "dualgrad":
        module = "nn"
    return ".".join(part for part in (prefix, module, function.__name__) if part)


def _home_of(function: np.ufunc) -> str:
    """Return the module of a ufunc, which does not know it."""
    for module in LATER:
        for home in (module, f"{module}._ufuncs"):
            if getattr(sys.modules.get(home), function.__name__, None) is function:
                return module
    return "np"
