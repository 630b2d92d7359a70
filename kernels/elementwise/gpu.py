"""The twins of cpu.py for CuPy arrays: names and arguments, CUDA kernels in a later release."""

from typing import Any

from ..dispatch import not_on_gpu


def exp(x: Any, t: Any) -> Any:
    """Return exp(x) and its tangents."""
    raise not_on_gpu("exp")


def tanh(x: Any, t: Any) -> Any:
    """Return tanh(x) and its tangents."""
    raise not_on_gpu("tanh")


def log(x: Any, t: Any) -> Any:
    """Return log(x) and its tangents."""
    raise not_on_gpu("log")


def multiply(a: Any, b: Any, ta: Any, tb: Any) -> Any:
    """Return a * b and its tangents."""
    raise not_on_gpu("multiply")
