"""What a layer costs."""

from typing import Any

import numpy as np

from .convolution import Conv2d
from .dense import Linear
from .local import call
from .module import Array
from .resnet import Residual
from .sequential import Sequential, stateful


def flops(layer: Any, shape: tuple[int, ...]) -> int:
    """Return the multiply-adds of the layers Conv2d and Linear, for one example of some shape.

    The layer is a Sequential, a Residual, or a layer or function of an array; what normalises,
    pools or applies a function is not counted.

    >>> flops(dg.nn.Sequential(dg.nn.Flatten(), dg.nn.Linear(12, 5, key=dg.Key(0))), (2, 2, 3))
    60
    """
    return _walk(layer, np.zeros((1, *shape), np.float32))[0]


def _walk(layer: Any, x: Array) -> tuple[int, Array]:
    """Return the multiply-adds of layer(x), and layer(x) in evaluation."""
    if isinstance(layer, Residual):
        total = sum(_walk(part, x)[0] for part in layer.layers)
        return total, _result(layer, x)
    if isinstance(layer, Sequential):
        total = 0
        for part in layer.layers:
            n, x = _walk(part, x)
            total += n
        return total, x
    y = _result(layer, x)
    if isinstance(layer, (Conv2d, Linear)):  # each number of y is a product over all other axes
        return y.size * (layer.weight.size // layer.weight.shape[-1]), y
    return 0, y


def _result(layer: Any, x: Array) -> Array:
    state = {"": layer.init_state()} if stateful(layer) else None
    return call(layer, x, "", state, {}, False)
