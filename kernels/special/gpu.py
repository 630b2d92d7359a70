"""The twins of cpu.py for CuPy arrays: names and arguments, CUDA kernels in a later release."""

from typing import Any

from ..dispatch import not_on_gpu


def erf(x: Any) -> Any:
    """Return the error function of x, in x's shape and dtype."""
    raise not_on_gpu("erf")


def ndtri(u: Any) -> Any:
    """Return the standard normal's quantiles at u, in u's shape and dtype."""
    raise not_on_gpu("ndtri")
