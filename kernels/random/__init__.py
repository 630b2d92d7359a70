"""Random words, signs and normals addressed by counters.

These functions take no array to choose a device by: these are the CPU's, gpu.py has their twins.
"""

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

__all__ = ["ACTIVITY", "LEFT", "MATRIX", "NORMAL", "RIGHT", "VECTOR"] + [
    "normal_matrix",
    "normal_vector",
    "philox",
    "sign_matrix",
    "sign_vector",
    "word_vector",
]
