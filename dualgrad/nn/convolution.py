"""Layers over images, NHWC (batch, height, width, channels): convolution and pooling."""

import dataclasses
import math
from operator import index
from typing import Any

import numpy as np

from ..errors import OptionError
from ..options import count, pair
from ..random import Key
from . import functional
from .module import STATIC, Array, Module, floating_dtype, kaiming_uniform

Padding = str | int | tuple | list


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class Conv2d(Module):
    """The layer y = activation(conv2d(x, weight) + bias).

    Attributes:
        weight: filters of shape (height, width, c_in / groups, c_out), drawn by `kaiming_uniform`
            with fan-in height * width * c_in / groups.
        bias: shape (c_out,), zeros; None without a bias.
        stride, dilation: (height, width).
        padding: as given.
        groups: c_in and c_out are cut into so many groups that do not see each other.
        activation: None or its name.
    """

    weight: Array
    bias: Array | None
    stride: tuple[int, int] = dataclasses.field(metadata=STATIC)
    padding: Padding = dataclasses.field(metadata=STATIC)
    dilation: tuple[int, int] = dataclasses.field(metadata=STATIC)
    groups: int
    activation: str | None

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: Padding = "SAME",
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
        key: Key,
        dtype: Any = np.float32,
    ) -> None:
        """Draw a layer from c_in to c_out channels.

        Args:
            c_in, c_out: numbers of channels of x and y.
            kernel, stride, dilation: one number, or (height, width).
            padding: "SAME" (y has ceil(size / stride) rows and columns, the odd zero comes after),
                "VALID" (none), a number for all sides, or ((top, bottom), (left, right)).
            groups: divides c_in and c_out; c_in groups make a depthwise convolution.
            bias: whether there is one.
            activation: None, "relu", "gelu", "tanh" or "sigmoid", as for `Linear`.
            key: where the filters are drawn from.
            dtype: of the parameters.

        Raises:
            OptionError: a size below 1, groups that do not divide, an unknown padding or
                activation.
            DtypeError: dtype is not a floating one.
        """
        c_in, c_out = count("Conv2d", "c_in", c_in), count("Conv2d", "c_out", c_out)
        groups = count("Conv2d", "groups", groups)
        if c_in % groups or c_out % groups:
            raise OptionError(
                f"Conv2d: {groups} groups do not divide c_in = {c_in} and c_out = {c_out}. "
                f"Give a common divisor of both."
            )
        shape = (*pair("Conv2d", "kernel", kernel), c_in // groups, c_out)
        dtype = floating_dtype("Conv2d", dtype)
        functional.activation_function(activation)  # raises for a name that there is not
        self._set(
            weight=kaiming_uniform(key, shape, math.prod(shape[:3]), dtype),
            bias=np.zeros(c_out, dtype) if bias else None,
            stride=pair("Conv2d", "stride", stride),
            padding=_padding(padding),
            dilation=pair("Conv2d", "dilation", dilation),
            groups=groups,
            activation=activation,
        )

    def __call__(self, x: Array) -> Array:
        """Return the images (N, height', width', c_out) for x of shape (N, height, width, c_in)."""
        return functional.conv2d(
            x,
            self.weight,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            b=self.bias,
            activation=self.activation,
        )


def _padding(padding: Any) -> Padding:
    if padding in ("SAME", "VALID"):
        return padding
    sides: Any = padding
    if hasattr(sides, "__index__") and not isinstance(sides, bool):
        sides = ((sides, sides), (sides, sides))
    try:
        sides = tuple((index(before), index(after)) for before, after in sides)
    except (TypeError, ValueError):
        sides = ()
    if len(sides) != 2 or min(map(min, sides)) < 0:
        raise OptionError(
            f"Conv2d: padding is {padding!r}. Give 'SAME', 'VALID', a number that is not negative, "
            f"or ((top, bottom), (left, right))."
        )
    return sides


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class MaxPool2d(Module):
    """The layer max_pool2d(x, size): the largest entry of each window, windows side by side."""

    size: tuple[int, int] = dataclasses.field(metadata=STATIC)

    def __init__(self, size: int | tuple[int, int]) -> None:
        """Keep the window's size, one number or (height, width)."""
        self._set(size=pair("MaxPool2d", "size", size))

    def __call__(self, x: Array) -> Array:
        """Return (N, height // size, width // size, channels) for images x, NHWC."""
        return functional.max_pool2d(x, self.size)


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class AvgPool2d(Module):
    """The layer avg_pool2d(x, size): the mean of each window, windows side by side."""

    size: tuple[int, int] = dataclasses.field(metadata=STATIC)

    def __init__(self, size: int | tuple[int, int]) -> None:
        """Keep the window's size, one number or (height, width)."""
        self._set(size=pair("AvgPool2d", "size", size))

    def __call__(self, x: Array) -> Array:
        """Return (N, height // size, width // size, channels) for images x, NHWC."""
        return functional.avg_pool2d(x, self.size)
