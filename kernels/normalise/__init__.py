"""Normalise an array by its mean and variance over some axes, and its tangents."""

from ..dispatch import by_array
from . import cpu

__all__ = ["normalise", "normalise_tangent", "scale_and_shift", "sum_product"]

normalise = by_array(cpu.normalise)
normalise_tangent = by_array(cpu.normalise_tangent)
scale_and_shift = by_array(cpu.scale_and_shift)
sum_product = by_array(cpu.sum_product)
