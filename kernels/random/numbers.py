"""Keys and ranges of directions as kernels on the device take them."""

from typing import Any

Directions = range | tuple[int, int]


def key_numbers(key: Any) -> tuple[Any, int, int]:
    """Return a key as a device array or None, and as two numbers that count where it is None."""
    if hasattr(key, "__cuda_array_interface__"):
        return key, 0, 0
    first, second = (int(word) for word in key)
    return None, first, second


def direction_numbers(directions: Directions) -> tuple[int, int, int]:
    """Return k, the index of the first direction and the step to the next."""
    indices = directions if isinstance(directions, range) else range(*directions)
    return len(indices), indices.start, indices.step
