"""The twins of cpu.py for CuPy arrays: names and arguments, CUDA kernels in a later release."""

from typing import Any

from ..dispatch import not_on_gpu


def normalise(x: Any, axes: tuple[int, ...], eps: float) -> tuple[Any, Any, Any]:
    """Return (x - mean) / sqrt(variance + eps), x's shape, and the mean and variance."""
    raise not_on_gpu("normalise")


def normalise_tangent(t: Any, y: Any, variance: Any, axes: tuple[int, ...], eps: float) -> Any:
    """Return k tangents of what normalise gives, for tangents t of its argument."""
    raise not_on_gpu("normalise_tangent")


def scale_and_shift(
    y: Any, scale: Any, shift: Any, t: Any = None, t_scale: Any = None, t_shift: Any = None
) -> Any:
    """Do y = y * scale + shift in place; return its k tangents, t written into, or None."""
    raise not_on_gpu("scale_and_shift")


def sum_product(t: Any, y: Any, shape: tuple[int, ...]) -> Any:
    """Return t * y summed over the axes of y before those of `shape`, for each of k tangents t."""
    raise not_on_gpu("sum_product")
