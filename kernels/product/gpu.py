"""The twins of cpu.py for CuPy arrays: names and arguments, CUDA kernels in a later release."""

from typing import Any

from ..dispatch import not_on_gpu


def outer_add(w: Any, left: Any, right: Any, scale: float) -> None:
    """Add scale * sum_i left[i] (outer) right[i] to w, in place."""
    raise not_on_gpu("outer_add")


def outer_accumulate(buffer: Any, left: Any, right: Any, decay: float) -> None:
    """Set buffer to decay * buffer + sum_i left[i] (outer) right[i], in place."""
    raise not_on_gpu("outer_accumulate")


def outer_rows(left: Any, right: Any, start: int, stop: int) -> Any:
    """Return rows start to stop of sum_i left[i] (outer) right[i], (stop - start, n)."""
    raise not_on_gpu("outer_rows")
