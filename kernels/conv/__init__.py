"""Convolution of NHWC images and its two transposes."""

from ..dispatch import by_array
from . import cpu

__all__ = ["conv2d", "conv2d_filter", "conv2d_input"]

conv2d = by_array(cpu.conv2d)
conv2d_filter = by_array(cpu.conv2d_filter)
conv2d_input = by_array(cpu.conv2d_input)
