"""The twins of cpu.py for CuPy arrays, among the many operations of device.py."""

from typing import Any

from .device import value_and_tangents


def exp(x: Any, t: Any) -> Any:
    """Return exp(x) and its tangents."""
    return value_and_tangents("exp", [x], [t])


def tanh(x: Any, t: Any) -> Any:
    """Return tanh(x) and its tangents."""
    return value_and_tangents("tanh", [x], [t])


def log(x: Any, t: Any) -> Any:
    """Return log(x) and its tangents."""
    return value_and_tangents("log", [x], [t])


def multiply(a: Any, b: Any, ta: Any, tb: Any) -> Any:
    """Return a * b and its tangents."""
    return value_and_tangents("multiply", [a, b], [ta, tb])
