"""The operation table: every function that takes duals, with its rule.

NumPy's protocols look functions up here, by the function itself; the tests and docs/operations.md
iterate over it. `implements` is the only way in.
"""

import operator
from collections.abc import Callable
from inspect import isfunction, signature
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


def implements(
    *functions: Callable, differentiable: bool = True, family: str | None = None
) -> Callable:
    """Enter a rule into the operation table, under each of the given functions."""
    given = family

    def enter(rule: Callable) -> Callable:
        keywords = frozenset(signature(rule).parameters) if isfunction(rule) else frozenset()
        family = given or (getattr(rule, "__module__", None) or "").rpartition(".")[2]
        for function in functions:
            OPERATIONS[function] = Operation(
                name_of(function), rule, family, differentiable, keywords
            )
        return rule

    return enter


def name_of(function: Callable) -> str:
    """Return how a user writes a function: np.exp, np.linalg.norm, dg.nn.relu."""
    if isinstance(function, np.ufunc):
        return f"np.{function.__name__}"
    if function is operator.getitem:
        return "x[index]"
    package, _, module = function.__module__.partition(".")
    prefix = {"numpy": "np", "dualgrad": "dg"}.get(package, package)
    if package == "dualgrad":
        module = "nn"
    return ".".join(part for part in (prefix, module, function.__name__) if part)
