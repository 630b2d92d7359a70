"""Auxiliary heads: small networks from the result of a block to classes, for a loss of its own.

Each costs under a tenth of the multiplications of the block that it stands on.

Source: Fournier, Rivaud, Belilovsky, Eickenberg and Oyallon 2023 (arXiv 2306.06968), section 4.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..options import count
from ..random import Key
from .convolution import Conv2d
from .dense import Linear
from .functional import relu
from .module import STATIC, Array, Module
from .normalisation import BatchNorm
from .sequential import Flatten, Sequential

Norm = Callable[..., Any]  # norm(channels, dtype=dtype) -> a layer


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class AdaptiveAvgPool2d(Module):
    """The layer that averages images of any size to size x size places.

    Place i of n rows is the mean of rows floor(i n / size) to ceil((i + 1) n / size), so that
    windows overlap where size does not divide n, and repeat where n is smaller.
    """

    size: int = dataclasses.field(metadata=STATIC)

    def __init__(self, size: int) -> None:
        """Keep the size of the result; raises OptionError for one below 1."""
        self._set(size=count("AdaptiveAvgPool2d", "size", size))

    def __call__(self, x: Array) -> Array:
        """Return (N, size, size, channels) for images x, (N, height, width, channels)."""
        if x.ndim != 4:
            raise ShapeError(
                f"AdaptiveAvgPool2d: x has shape {x.shape}. Give images as (batch, height, width, "
                f"channels)."
            )
        rows = [np.mean(x[:, start:stop], axis=1) for start, stop in self._windows(x.shape[1])]
        places = [
            np.mean(row[:, start:stop], axis=1)
            for row in rows
            for start, stop in self._windows(x.shape[2])
        ]
        return np.stack(places, axis=1).reshape((x.shape[0], self.size, self.size, x.shape[3]))

    def _windows(self, n: int) -> list[tuple[int, int]]:
        size = self.size
        return [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]


def cnn_head(
    channels: int, classes: int, *, hidden: int = 32, norm: Norm = BatchNorm, key: Key,
    dtype: Any = np.float32,
) -> Sequential:  # fmt: skip
    """Return a convolutional head: images (N, height, width, channels) to logits (N, classes).

    A 1x1 convolution to `hidden` channels, three 3x3 convolutions of stride 2, each followed by
    `norm` and ReLU; then the average in 2x2 places, and a linear layer.
    """
    keys = key.split(5)
    layers: list[Any] = [Conv2d(channels, hidden, 1, bias=False, key=keys[0], dtype=dtype)]
    for each in keys[1:4]:
        layers += [
            norm(hidden, dtype=dtype), relu,
            Conv2d(hidden, hidden, 3, stride=2, padding=1, bias=False, key=each, dtype=dtype),
        ]  # fmt: skip
    layers += [norm(hidden, dtype=dtype), relu, AdaptiveAvgPool2d(2), Flatten()]
    return Sequential(*layers, Linear(4 * hidden, classes, key=keys[4], dtype=dtype))


def mlp_head(
    channels: int, classes: int, *, hidden: int = 1024, norm: Norm = BatchNorm, key: Key,
    dtype: Any = np.float32,
) -> Sequential:  # fmt: skip
    """Return a head of dense layers: images (N, height, width, channels) to logits (N, classes).

    The average in 2x2 places, three layers of `hidden` units without bias, each followed by `norm`
    and ReLU, and a linear layer.
    """
    keys = key.split(4)
    layers: list[Any] = [AdaptiveAvgPool2d(2), Flatten()]
    for n_in, each in zip((4 * channels, hidden, hidden), keys, strict=False):
        layers += [
            Linear(n_in, hidden, bias=False, key=each, dtype=dtype),
            norm(hidden, dtype=dtype), relu,
        ]  # fmt: skip
    return Sequential(*layers, Linear(hidden, classes, key=keys[3], dtype=dtype))


def linear_head(
    channels: int, classes: int, *, norm: Norm = BatchNorm, key: Key, dtype: Any = np.float32
) -> Sequential:
    """Return a linear head: images (N, height, width, channels) to logits (N, classes).

    `norm`, the average in 2x2 places, and a linear layer.
    """
    return Sequential(
        norm(channels, dtype=dtype), AdaptiveAvgPool2d(2), Flatten(),
        Linear(4 * channels, classes, key=key, dtype=dtype),
    )  # fmt: skip
