"""How a case of the operation table is declared and drawn.

Shapes are written "i j 3": equal letters are equal sizes drawn from 1 to 4, digits are themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dualgrad.beside import beside
from dualgrad.operations import name_of
from dualgrad.testing import arrays


@dataclass(frozen=True)
class Argument:
    """Where one argument is drawn from; `distinct` keeps entries apart, away from ties."""

    shape: str
    low: float = -2.0
    high: float = 2.0
    distinct: bool = False

    def draw(self, sizes: dict[str, int], dtype: Any) -> st.SearchStrategy:
        shape = tuple(int(s) if s.isdigit() else sizes[s] for s in self.shape.split())
        return arrays(shape, low=self.low, high=self.high, dtype=dtype, distinct=self.distinct)


@dataclass(frozen=True)
class Case:
    """One way to call one operation, smooth wherever its arguments are drawn."""

    name: str
    operation: Callable
    call: Callable
    arguments: tuple[Argument, ...]
    complex: bool = False  # takes complex arguments as well
    narrow: bool = True  # keeps float16 (NumPy's linear solvers do not take it)
    widens: bool = False  # computes in float64 whatever comes in, as np.interp does

    def __str__(self) -> str:
        return self.name

    def draw(self, dtype: Any = np.float64) -> st.SearchStrategy:
        """Draw the arguments, as a tuple."""
        letters = sorted({s for a in self.arguments for s in a.shape.split() if s.isalpha()})
        sizes = st.tuples(*[st.integers(1, 4)] * len(letters))
        return sizes.flatmap(
            lambda n: st.tuples(
                *(a.draw(dict(zip(letters, n, strict=True)), dtype) for a in self.arguments)
            )
        )


def near(x: Any, constant: Any) -> Any:
    """Return a constant of a case where x lies; of lists, tuples and dicts each part."""
    if isinstance(constant, dict):
        return {name: near(x, value) for name, value in constant.items()}
    if type(constant) in (list, tuple):
        return type(constant)(near(x, value) for value in constant)
    return beside(x).asarray(constant) if isinstance(constant, np.ndarray) else constant


CASES: list[Case] = []


def case(
    operation: Callable,
    *arguments: str | Argument,
    call: Callable | None = None,
    what: str = "",
    complex: bool = False,
    narrow: bool = True,
    widens: bool = False,
) -> None:
    """Add a case; `call` defaults to the operation, and a bare shape is drawn from [-2, 2]."""
    drawn = tuple(Argument(a) if isinstance(a, str) else a for a in arguments)
    shapes = ", ".join(f"({a.shape.replace(' ', ',')})" for a in drawn)
    name = f"{name_of(operation)} {what or shapes}"
    CASES.append(Case(name, operation, call or operation, drawn, complex, narrow, widens))


def within(low: float, high: float, shape: str = "i j") -> Argument:
    return Argument(shape, low, high)


def apart(shape: str = "i j") -> Argument:
    return Argument(shape, distinct=True)
