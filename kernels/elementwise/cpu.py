"""Value and tangents of functions entry by entry, for large arrays, in one pass over memory.

Each function returns None where NumPy's own form is the better one: arrays too small to matter
(THRESHOLDS in dispatch.py), of other dtypes or not contiguous, or numba not installed. The size
alone decides, so that the same arrays always give the same bits.
"""

import functools
import importlib
from typing import Any

import numpy as np

from .. import dispatch, memory

Pair = tuple[np.ndarray, np.ndarray] | None


def exp(x: Any, t: Any) -> Pair:
    """Return exp(x) and its tangents, within 1.5 units in the last place; no warnings are given.

    Args:
        x: float32 or float64. t: its tangents, (k, *x.shape).
    """
    return _one_argument("exp", x, t)


def tanh(x: Any, t: Any) -> Pair:
    """Return tanh(x), within 2.5 units in the last place, and its tangents; see `exp`."""
    return _one_argument("tanh", x, t)


def log(x: Any, t: Any) -> Pair:
    """Return log(x), within 1.5 units in the last place, and its tangents; see `exp`."""
    return _one_argument("log", x, t)


def multiply(a: Any, b: Any, ta: Any, tb: Any) -> Pair:
    """Return a * b and its tangents, in NumPy's bits.

    Args:
        a, b: of one shape, float32 or float64. ta, tb: their tangents, (k, *shape).
    """
    for x in (a, b, ta, tb):
        if type(x) is not np.ndarray or x.dtype != a.dtype or not x.flags.c_contiguous:
            return None
    if a.shape != b.shape or not _wins("multiply", a, ta):
        return None
    y, ty = np.empty(a.shape, a.dtype), np.empty(ta.shape, a.dtype)
    rows = (len(ta), a.size)
    _loop("multiply")(
        a.reshape(-1), b.reshape(-1), ta.reshape(rows), tb.reshape(rows),
        y.reshape(-1), ty.reshape(rows),
    )  # fmt: skip
    return y, ty


def _one_argument(name: str, x: Any, t: Any) -> Pair:
    if type(x) is not np.ndarray or not (x.flags.c_contiguous and t.flags.c_contiguous):
        return None
    if not _wins(name, x, t):
        return None
    y, ty = np.empty(x.shape, x.dtype), np.empty(t.shape, x.dtype)
    rows = (len(t), x.size)
    _loop(name)(x.reshape(-1), t.reshape(rows), y.reshape(-1), ty.reshape(rows))
    return y, ty


def _wins(name: str, x: np.ndarray, t: np.ndarray) -> bool:
    if x.nbytes >= memory.MAPPED:
        memory.keep()
    return len(t) > 0 and dispatch.wins(name, x.size, x, t)


@functools.cache
def _loop(name: str) -> dispatch.Loop:
    return getattr(importlib.import_module(".loops", __package__), name)
