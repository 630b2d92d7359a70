"""Normalise an array by its mean and variance over some axes, and its tangents."""

from ..dispatch import by_array
from . import cpu

__all__ = ["normalise", "normalise_tangent"]

normalise = by_array(cpu.normalise)
normalise_tangent = by_array(cpu.normalise_tangent)
