"""Functions entry by entry, with their tangents in the same pass."""

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..dispatch import by_array
from . import cpu

__all__ = ["Fused", "exp", "fused", "log", "multiply", "tanh"]

exp = by_array(cpu.exp)
log = by_array(cpu.log)
multiply = by_array(cpu.multiply)
tanh = by_array(cpu.tanh)

HOST: dict[str, Callable[..., Any]] = {
    "exp": cpu.exp,
    "log": cpu.log,
    "multiply": cpu.multiply,
    "tanh": cpu.tanh,
}


class Fused(NamedTuple):
    """The kernels of one operation that give value and tangents in one pass over memory.

    Each returns None where it does not serve the arguments.

    Attributes:
        host: f(*primals, *tangents) for large NumPy arrays that all move; None without a kernel.
        device: f(primals, tangents) for CuPy arrays and numbers, None for the tangent of what does
            not move.
    """

    host: Callable[..., Any] | None
    device: Callable[[Sequence[Any], Sequence[Any]], Any]


def fused(name: str) -> Fused:
    """Return the kernels of an operation, by NumPy's name of the function or one of device.py."""

    def device(primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
        return _device().value_and_tangents(name, primals, tangents)

    return Fused(HOST.get(name), device)


@functools.cache
def _device() -> Any:
    return importlib.import_module(".device", __package__)
