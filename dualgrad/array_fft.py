"""numpy.fft with the signatures of the standard's extension: the frequencies take a dtype."""

from typing import Any

import numpy as np

from .dual import Array

__all__ = ["fftfreq", "rfftfreq"]


def fftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Array:
    """Return the frequencies of fft's n results for samples d apart."""
    return np.fft.fftfreq(n, d, device=device).astype(dtype or float, copy=False)


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Array:
    """Return the frequencies of rfft's n // 2 + 1 results for samples d apart."""
    return np.fft.rfftfreq(n, d, device=device).astype(dtype or float, copy=False)


def __getattr__(name: str) -> Any:
    return getattr(np.fft, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(np.fft)})
