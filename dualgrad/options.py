"""Checks of options: numbers in range, names that exist."""

import math
import numbers
import os
from typing import Any, TypeGuard

from .errors import OptionError
from .kernels import threads


def non_negative(where: str, name: str, value: Any) -> float:
    """Return value as a float; raise OptionError unless it is a finite number >= 0."""
    number = _number(where, name, value)
    if not (math.isfinite(number) and number >= 0):
        raise OptionError(f"{where}: {name} is {value}. Give a finite number that is not negative.")
    return number


def fraction(where: str, name: str, value: Any) -> float:
    """Return value as a float; raise OptionError unless 0 <= value < 1."""
    number = _number(where, name, value)
    if not 0 <= number < 1:
        raise OptionError(f"{where}: {name} is {value}. Give a number in [0, 1).")
    return number


def positive(where: str, name: str, value: Any) -> float:
    """Return value as a float; raise OptionError unless it is a finite number > 0."""
    number = _number(where, name, value)
    if not (math.isfinite(number) and number > 0):
        raise OptionError(f"{where}: {name} is {value}. Give a finite number above zero.")
    return number


def count(where: str, name: str, value: Any) -> int:
    """Return value as an int; raise OptionError unless it is a whole number >= 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise OptionError(f"{where}: {name} is {value!r}. Give a whole number of at least 1.")
    return int(value)


def pair(where: str, name: str, value: Any) -> tuple[int, int]:
    """Return (height, width) from one whole number >= 1 or two; else raise OptionError."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise OptionError(f"{where}: {name} is {value!r}. Give one number or (height, width).")
        return count(where, name, value[0]), count(where, name, value[1])
    number = count(where, name, value)
    return number, number


def largest_derivative(value: Any) -> float | None:
    """Return clip as a float or None; raise OptionError unless it is None or a number > 0."""
    if value is None:
        return None
    known = isinstance(value, numbers.Real) and not isinstance(value, bool)
    number = float(value) if known else math.nan
    if not number > 0:
        raise OptionError(f"clip={value!r}; give the largest |derivative| to keep, > 0.")
    return number


def is_whole(value: Any) -> TypeGuard[int]:
    """Tell whether value is a whole number, of Python or NumPy."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def choice(name: str, value: Any, choices: Any) -> None:
    """Raise OptionError unless value is one of the choices."""
    if value not in tuple(choices):
        listed = ", ".join(map(repr, choices))
        raise OptionError(f"{name}={value!r} does not exist; give one of {listed}.")


def _number(where: str, name: str, value: Any) -> float:
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise OptionError(f"{where}: {name} is {value!r}, which is no number. Give a real number.")
    return float(value)


def num_threads() -> int:
    """Return how many threads compiled kernels use: plans of training steps.

    As `set_num_threads` said; else the variable DUALGRAD_NUM_THREADS, read at the first use; else,
    also where it is empty, one for each CPU that the process may run on. 256 at most, and no more
    than the system starts, which is said once. A forked child uses one.

    Raises:
        OptionError: DUALGRAD_NUM_THREADS is no positive integer.
    """
    try:
        return threads.num_threads()
    except ValueError as error:
        raise OptionError(str(error)) from None


def cuda_graphs() -> bool | None:
    """Return whether planned steps on a GPU run as CUDA graphs: None where their size decides.

    As the variable DUALGRAD_CUDA_GRAPH says when a plan is made: 1, 0, or not set.

    Raises:
        OptionError: it is something else.
    """
    value = os.environ.get("DUALGRAD_CUDA_GRAPH", "")
    if value not in ("", "0", "1"):
        raise OptionError(f"DUALGRAD_CUDA_GRAPH is {value!r}. Set it to 1, 0, or nothing.")
    return value == "1" if value else None


def set_num_threads(n: int) -> None:
    """Let compiled kernels use n threads from now on, 256 at most; results do not depend on it.

    Raises:
        OptionError: n is no positive integer.
    """
    threads.set_num_threads(count("dg.set_num_threads", "n", n))
