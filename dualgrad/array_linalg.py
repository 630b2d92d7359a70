"""numpy.linalg with the signatures and results of the standard's linear algebra extension."""

from typing import Any

import numpy as np

from .array_functions import vecdot
from .dual import Array

__all__ = ["eig", "eigvals", "vecdot"]


def eig(x: Array, /) -> Any:
    """Return (eigenvalues, eigenvectors), complex also where they happen to be real."""
    result = np.linalg.eig(x)
    return type(result)(*(part if np.iscomplexobj(part) else part + 0j for part in result))


def eigvals(x: Array, /) -> Array:
    """Return the eigenvalues, complex also where they happen to be real."""
    values = np.linalg.eigvals(x)
    return values if np.iscomplexobj(values) else values + 0j


def __getattr__(name: str) -> Any:
    return getattr(np.linalg, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(np.linalg)})
