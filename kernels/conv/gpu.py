"""The twins of cpu.py for CuPy arrays: names and arguments, CUDA kernels in a later release."""

from typing import Any

from ..dispatch import not_on_gpu


def conv2d(
    x: Any,
    w: Any,
    stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int],
    groups: int,
) -> Any:
    """Return the convolution of x (N, H, W, C) with w (kh, kw, C / groups, O), (N, Ho, Wo, O)."""
    raise not_on_gpu("conv2d")


def conv2d_filter(
    x: Any,
    ct: Any,
    w_shape: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int],
    groups: int,
) -> Any:
    """Return the transpose of w -> conv2d(x, w) at ct (N, Ho, Wo, O), of shape w_shape."""
    raise not_on_gpu("conv2d_filter")


def conv2d_input(
    ct: Any,
    w: Any,
    x_shape: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int],
    groups: int,
) -> Any:
    """Return the transpose of x -> conv2d(x, w) at ct (N, Ho, Wo, O), of shape x_shape."""
    raise not_on_gpu("conv2d_input")
