"""The twins of cpu.py for CuPy arrays: names and arguments, CUDA kernels in a later release."""

from typing import Any

from ..dispatch import not_on_gpu


def max_pool2d(x: Any, size: tuple[int, int]) -> tuple[Any, Any]:
    """Return the maxima of windows (h, w) of x and where in its window each was found."""
    raise not_on_gpu("max_pool2d")


def max_pool2d_gather(t: Any, index: Any, size: tuple[int, int]) -> Any:
    """Return the entries of t at the positions that max_pool2d found: its derivative along t."""
    raise not_on_gpu("max_pool2d_gather")


def max_pool2d_scatter(ct: Any, index: Any, size: tuple[int, int], x_shape: tuple[int, ...]) -> Any:
    """Return ct at the positions of the maxima, else 0: the transpose of max_pool2d_gather."""
    raise not_on_gpu("max_pool2d_scatter")
