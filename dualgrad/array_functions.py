"""Functions of the array API standard that NumPy spells or does otherwise, for arrays and duals.

They have the standard's signatures. Everything else of the standard is NumPy's own function.
"""

from typing import Any, NamedTuple

import numpy as np

from .dual import Array, DualTensor, find_level, primal_of
from .errors import DeviceError


class FloatInfo(NamedTuple):
    """The limits of a floating dtype, as Python numbers; for a complex one, those of its parts."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: np.dtype


class Info(np.__array_namespace_info__):  # type: ignore[misc, valid-type, name-defined]
    """What `dg` can do as a namespace: NumPy's answers."""

    def capabilities(self) -> Any:
        return {**super().capabilities(), "max dimensions": 64}


def __array_namespace_info__() -> Info:
    """Return the inspection object of the standard: devices, dtypes, capabilities."""
    return Info()


def asarray(obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
    """Return obj as an array; a dual stays a dual, and a nesting of lists with duals is stacked.

    Raises:
        ValueError: copy=False, and a copy is needed.
    """
    if type(obj) in (list, tuple) and find_level(obj) is not None:
        if copy is False:
            raise ValueError("asarray: copy=False, but joining a list of duals makes a copy.")
        obj, copy = np.stack([asarray(item) for item in obj]), None
    if type(obj) is not DualTensor:
        return np.asarray(obj, dtype=dtype, device=device, copy=copy)
    if device not in (None, obj.device):
        raise DeviceError(f"asarray: the dual is on {obj.device!r}, not on device={device!r}.")
    if dtype is not None and obj.dtype != dtype:
        if copy is False:
            raise ValueError(f"asarray: copy=False, but {obj.dtype} to {dtype} makes a copy.")
        return obj.astype(dtype)
    return np.copy(obj) if copy else obj  # type: ignore[call-overload]


def _dtype_of(x: Any) -> Any:
    return x if isinstance(x, (type, np.dtype, str)) else x.dtype


def finfo(type: Any, /) -> FloatInfo:
    """Return the limits of a floating dtype, or of an array's."""
    info = np.finfo(_dtype_of(type))
    eps, high, low = float(info.eps), float(info.max), float(info.min)
    return FloatInfo(info.bits, eps, high, low, float(info.smallest_normal), np.dtype(info.dtype))


def iinfo(type: Any, /) -> Any:
    """Return the limits of an integer dtype, or of an array's."""
    return np.iinfo(_dtype_of(type))


def clip(x: Array, /, min: Any = None, max: Any = None) -> Array:
    """Return x kept between min and max, in x's dtype; an edge keeps slope 1."""
    y = np.clip(x, min, max)
    return y if y.dtype == x.dtype else y.astype(x.dtype)


def sign(x: Array, /) -> Array:
    """Return the sign of each entry, a plain array: +0 for both zeros."""
    return np.sign(x) + 0


def argsort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """Return the indices that sort x, a plain array; equal entries keep their order if stable."""
    x = primal_of(x)
    kind: Any = "stable" if stable else None
    if not descending:
        return np.argsort(x, axis=axis, kind=kind)
    # Backwards twice: the order of equal entries turns with the array, and back.
    order = np.flip(np.argsort(np.flip(x, axis), axis=axis, kind=kind), axis)
    return x.shape[axis] - 1 - order


def sort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """Return x sorted along an axis; tangents go with their entries."""
    if type(x) is not DualTensor and not descending:
        return np.sort(x, axis=axis, kind="stable" if stable else None)
    order = argsort(x, axis=axis, descending=descending, stable=stable)
    return np.take_along_axis(x, order, axis)


def take_along_axis(x: Array, indices: Array, /, *, axis: int = -1) -> Array:
    """Return the entries of x that indices name along an axis."""
    return np.take_along_axis(x, indices, axis)


def repeat(x: Array, repeats: Any, /, *, axis: int | None = None) -> Array:
    """Return x with each entry repeated; repeats is an int, or an array of any integer dtype."""
    if not isinstance(repeats, int):
        repeats = np.asarray(repeats).astype(np.intp)
    return np.repeat(x, repeats, axis=axis)


def count_nonzero(x: Array, /, *, axis: Any = None, keepdims: bool = False) -> Array:
    """Return how many entries are not zero, a plain integer array."""
    return np.sum(primal_of(x) != 0, axis=axis, keepdims=keepdims, dtype=np.intp)


def vecdot(x1: Array, x2: Array, /, *, axis: int = -1) -> Array:
    """Return the sums of conj(x1) * x2 over an axis."""
    return np.vecdot(x1, x2, axis=axis)  # type: ignore[call-overload]


def isin(x1: Array, x2: Array, /, *, invert: bool = False) -> Array:
    """Tell for each entry of x1 whether it is among those of x2; a plain array."""
    return np.isin(primal_of(x1), primal_of(x2), invert=invert)
