"""Whole networks: the multilayer perceptron and the convolutional network of the MNIST studies."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import OptionError, ShapeError
from ..random import Key
from . import functional
from .convolution import Conv2d
from .dense import Linear
from .module import Array, Module
from .sequential import flatten


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class MLP(Module):
    """A multilayer perceptron: Linear layers with an activation after each but the last.

    MLP([784, 1024, 1024, 10]) has 1,863,690 parameters; MLP([784, 10]) is logistic regression.

    Attributes:
        layers: tuple of Linear.
    """

    layers: tuple[Linear, ...]

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: str | None = "relu",
        key: Key | None = None,
        dtype: Any = np.float32,
    ) -> None:
        """Draw the layers.

        Args:
            sizes: lengths of the flattened input, of each hidden layer, and of the output.
            activation: of the hidden layers, as for `Linear`.
            key: where the weights are drawn from; None is Key(0), the same weights every time.
            dtype: of the parameters.

        Raises:
            OptionError: fewer than two sizes, one below 1, or an unknown activation.
        """
        if not isinstance(sizes, (list, tuple)) or len(sizes) < 2:
            raise OptionError(
                f"MLP: sizes is {sizes!r}. Give a list of the input's and output's lengths at "
                f"least, as in MLP([784, 10])."
            )
        keys = (Key(0) if key is None else key).split(len(sizes) - 1)
        last = len(sizes) - 2
        self._set(
            layers=tuple(
                Linear(
                    sizes[i],
                    sizes[i + 1],
                    activation=activation if i < last else None,
                    key=keys[i],
                    dtype=dtype,
                )
                for i in range(len(sizes) - 1)
            )
        )

    def __call__(self, x: Array) -> Array:
        """Return logits, shape (N, sizes[-1]), for N examples x of sizes[0] numbers each."""
        x = flatten("MLP", x)
        for layer in self.layers:
            x = layer(x)
        return x


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class CNN(Module):
    """The convolutional network for MNIST: 3,333,962 parameters with 64 channels.

    Four 3x3 convolutions with padding 1 and ReLU, 2x2 max-pooling after every second, a hidden
    layer of 1,024 units with ReLU, and 10 outputs.

    Attributes:
        convolutions: tuple of four Conv2d.
        hidden, output: Linear.

    Source: Baydin et al. 2022 (arXiv 2202.08587), section 5.2.
    """

    convolutions: tuple[Conv2d, ...]
    hidden: Linear
    output: Linear

    def __init__(
        self, *, channels: int = 64, key: Key | None = None, dtype: Any = np.float32
    ) -> None:
        """Draw the network.

        Args:
            channels: of each convolution.
            key: where the weights are drawn from; None is Key(0), the same weights every time.
            dtype: of the parameters.
        """
        *conv_keys, hidden_key, output_key = (Key(0) if key is None else key).split(6)
        inputs = (1, channels, channels, channels)
        self._set(
            convolutions=tuple(
                Conv2d(c_in, channels, 3, padding=1, activation="relu", key=conv_key, dtype=dtype)
                for c_in, conv_key in zip(inputs, conv_keys, strict=True)
            ),
            hidden=Linear(7 * 7 * channels, 1024, activation="relu", key=hidden_key, dtype=dtype),
            output=Linear(1024, 10, key=output_key, dtype=dtype),
        )

    def __call__(self, x: Array) -> Array:
        """Return logits, shape (N, 10), for images x of shape (N, 28, 28, 1); else ShapeError."""
        if x.shape[1:] != (28, 28, 1):
            raise ShapeError(
                f"CNN: x has shape {x.shape}. Give images as (batch, 28, 28, 1); "
                f"x.reshape(-1, 28, 28, 1) makes them from flat ones."
            )
        for i, convolution in enumerate(self.convolutions):
            x = convolution(x)
            if i % 2:
                x = functional.max_pool2d(x, 2)
        return self.output(self.hidden(flatten("CNN", x)))
