"""Random words, signs and normals addressed by counters.

These functions take no array to choose a device by: these are the CPU's, gpu.py has their twins.
"""

from types import ModuleType

from . import cpu, gpu
from .cpu import (
    ACTIVITY,
    LEFT,
    MATRIX,
    NORMAL,
    RIGHT,
    VECTOR,
    normal_matrix,
    normal_vector,
    philox,
    sign_matrix,
    sign_vector,
    word_vector,
)

__all__ = ["ACTIVITY", "LEFT", "MATRIX", "NORMAL", "RIGHT", "VECTOR", "twin"] + [
    "normal_matrix",
    "normal_vector",
    "philox",
    "sign_matrix",
    "sign_vector",
    "word_vector",
]


def twin(on_device: bool) -> ModuleType:
    """Return the module that draws in host memory, or that which draws the same on a device."""
    return gpu if on_device else cpu
