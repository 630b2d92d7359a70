"""Moving trees of arrays between host memory and a device."""

from typing import Any

import numpy as np

from . import tree
from .beside import on_device
from .dual import DualTensor, Structured
from .errors import DeviceError, OptionError
from .kernels import cuda
from .primitive import Node
from .structured import LowRank, Outer

DEVICES = ("cpu", "gpu")


def check_device(where: str, device: Any) -> None:
    """Raise OptionError for a name that is no device, DeviceError for one that is not there."""
    if device not in DEVICES:
        raise OptionError(f'{where}: device={device!r}; give "cpu" or "gpu".')
    if device == "gpu" and (why := cuda.missing()):
        raise DeviceError(f"{where}: {why}")


def to_device(arrays: tree.Tree, device: str) -> tree.Tree:
    """Return the tree with its arrays on a device: "gpu", or "cpu" for host memory.

    Arrays that are there already come back as they are, the others are copied; one that is in two
    places of the tree is copied once. Duals move with their tangents, of every level. What is no
    array stays: numbers, names, keys, callables, and counters (integers of shape ()).

    Raises:
        DeviceError: there is no CuPy or no device, or a device cannot hold the dtype.
        OptionError: device is neither "cpu" nor "gpu".

    >>> to_device({"w": np.ones(2), "n": 3}, "cpu")
    {'w': array([1., 1.]), 'n': 3}
    """
    check_device("dg.to_device", device)
    moved: dict[int, Any] = {}

    def move(x: Any) -> Any:
        if id(x) not in moved:
            moved[id(x)] = _moved(x, device)
        return moved[id(x)]

    return tree.map(move, arrays)


def _dual_to_device(self: DualTensor, device: Any, /, *, stream: Any = None) -> DualTensor:
    """Return the dual on a device, with all its tangents: "cpu", "gpu", or what x.device gives."""
    return self if device == self.device else to_device(self, device)


DualTensor.to_device = _dual_to_device  # type: ignore[attr-defined]


def _moved(x: Any, device: str) -> Any:
    if type(x) is DualTensor:
        return DualTensor(_moved(x.primal, device), _moved(x.carrier, device), x.level)
    if isinstance(x, (Outer, LowRank)):
        return x.with_factors(*(_moved(factor, device) for factor in (x.left, x.right)))
    if isinstance(x, Structured) or type(x) is Node:
        raise DeviceError(
            f"dg.to_device: the tangent of a dual is {x!r}, which another transform writes. Move "
            f"what goes into the transform instead."
        )
    if device == "cpu":
        return x.get() if on_device(x) else x
    if not isinstance(x, (np.ndarray, np.generic)) or (not x.ndim and x.dtype.kind in "iub"):
        return x
    if x.dtype.kind not in "biufc" or x.dtype.itemsize > 8 * (1 + (x.dtype.kind == "c")):
        raise DeviceError(
            f"dg.to_device: an array of dtype {x.dtype} and shape {x.shape} cannot lie on a "
            f"device. Give it another dtype, x.astype(np.float32), or leave it out of the tree."
        )
    return cuda.cupy().asarray(x)
