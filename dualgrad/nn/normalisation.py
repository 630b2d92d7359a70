"""Layers that normalise: over the last axes, over groups of channels, or over the batch."""

import dataclasses
import math
from typing import Any

import numpy as np

from ..activity import check_batch_statistics
from ..dual import primal_of
from ..errors import OptionError, ShapeError
from ..ops.normalisation import normalise, normalise_with_statistics, scaled
from ..options import count, fraction, positive
from ..random import Key
from .module import STATIC, Array, Module, check_trailing, floating_dtype


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class LayerNorm(Module):
    """The layer (x - mean) / sqrt(variance + eps) * scale + shift, statistics over the last axes.

    Attributes:
        scale, shift: ones and zeros of the shape of those axes.

    Source: Ba, Kiros and Hinton 2016 (arXiv 1607.06450), equations 3 and 4.
    """

    scale: Array
    shift: Array
    eps: float = dataclasses.field(metadata=STATIC)

    def __init__(
        self,
        shape: int | tuple[int, ...],
        eps: float = 1e-5,
        *,
        key: Key | None = None,
        dtype: Any = np.float32,
    ) -> None:
        """Build a layer over the last axis of length n, or the last axes of the given lengths.

        Args:
            shape: n, or a tuple.
            eps: added to the variance, above zero.
            key: taken like every layer's; nothing is drawn.
            dtype: of the parameters.
        """
        lengths = shape if isinstance(shape, (tuple, list)) else (shape,)
        if not lengths:
            raise OptionError(
                "LayerNorm: shape is (), no axis at all. Give n, or a tuple of lengths."
            )
        lengths = tuple(count("LayerNorm", "shape", n) for n in lengths)
        dtype = floating_dtype("LayerNorm", dtype)
        eps = positive("LayerNorm", "eps", eps)
        self._set(scale=np.ones(lengths, dtype), shift=np.zeros(lengths, dtype), eps=eps)

    def __call__(self, x: Array) -> Array:
        """Return the normalised x, shape of x, whose last axes are the shape of scale."""
        shape = self.scale.shape
        check_trailing("LayerNorm", x, shape, len(shape), "Give x with these axes last.")
        axes = tuple(range(-len(shape), 0))
        return scaled(normalise(x, axes, self.eps), self.scale, self.shift)


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class GroupNorm(Module):
    """Normalise each example over positions and the channels of a group, then scale and shift.

    One group is layer normalisation over the whole image; as many groups as channels, instance
    normalisation.

    Attributes:
        scale, shift: ones and zeros of shape (channels,).

    Source: Wu and He 2018 (arXiv 1803.08494), equations 1, 2, 6 and 7.
    """

    scale: Array
    shift: Array
    groups: int
    eps: float = dataclasses.field(metadata=STATIC)

    def __init__(
        self,
        groups: int,
        channels: int,
        eps: float = 1e-5,
        *,
        key: Key | None = None,
        dtype: Any = np.float32,
    ) -> None:
        """Build a layer over `channels` channels cut into `groups` groups.

        Args:
            groups: divides channels.
            channels: length of the last axis of x.
            eps: added to the variance, above zero.
            key: taken like every layer's; nothing is drawn.
            dtype: of the parameters.
        """
        groups = count("GroupNorm", "groups", groups)
        channels = count("GroupNorm", "channels", channels)
        if channels % groups:
            raise OptionError(
                f"GroupNorm: {groups} groups do not divide {channels} channels. Give a divisor."
            )
        dtype = floating_dtype("GroupNorm", dtype)
        self._set(
            scale=np.ones(channels, dtype),
            shift=np.zeros(channels, dtype),
            groups=groups,
            eps=positive("GroupNorm", "eps", eps),
        )

    def __call__(self, x: Array) -> Array:
        """Return the normalised x, shape of x (N, ..., channels)."""
        check_trailing("GroupNorm", x, self.scale.shape, 2, "Give x as (batch, ..., channels).")
        channels = x.shape[-1]
        positions = math.prod(x.shape[1:-1])
        split = x.reshape((x.shape[0], positions, self.groups, channels // self.groups))
        y = normalise(split, (1, 3), self.eps).reshape(x.shape)
        return scaled(y, self.scale, self.shift)


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class BatchNorm(Module):
    """Normalise each channel over the batch while training, by running statistics in evaluation.

    The statistics of a batch carry tangents, so a derivative sees that the examples interact. The
    running ones are state, kept outside the layer: {"mean", "variance"}, shape (channels,), no
    tangents.

    Attributes:
        scale, shift: ones and zeros of shape (channels,).
        momentum: how much of the running statistics stays at a step (1 - PyTorch's momentum).

    Source: Ioffe and Szegedy 2015 (arXiv 1502.03167), algorithms 1 and 2.
    """

    scale: Array
    shift: Array
    momentum: float = dataclasses.field(metadata=STATIC)
    eps: float = dataclasses.field(metadata=STATIC)

    def __init__(
        self,
        channels: int,
        momentum: float = 0.9,
        eps: float = 1e-5,
        *,
        key: Key | None = None,
        dtype: Any = np.float32,
    ) -> None:
        """Build a layer over `channels` channels.

        Args:
            channels: length of the last axis of x.
            momentum: in [0, 1).
            eps: added to the variance, above zero.
            key: taken like every layer's; nothing is drawn.
            dtype: of the parameters and of the running statistics.
        """
        channels = count("BatchNorm", "channels", channels)
        dtype = floating_dtype("BatchNorm", dtype)
        self._set(
            scale=np.ones(channels, dtype),
            shift=np.zeros(channels, dtype),
            momentum=fraction("BatchNorm", "momentum", momentum),
            eps=positive("BatchNorm", "eps", eps),
        )

    def init_state(self) -> dict[str, Array]:
        """Return the running statistics of a layer that has seen nothing: mean 0, variance 1."""
        scale = primal_of(self.scale)
        return {"mean": np.zeros_like(scale), "variance": np.ones_like(scale)}

    def __call__(
        self, x: Array, state: Any = None, *, training: bool = True
    ) -> tuple[Array, dict[str, Array]]:
        """Return the normalised x, shape of x (N, ..., channels), and the new state.

        Training uses the batch's mean and biased variance; the new state is an exponential average
        of the mean and the unbiased variance, in new arrays. Otherwise the state normalises, and is
        returned as it came.

        Raises:
            ShapeError: x has another number of channels, or training has one value a channel only.
            OptionError: no state, or one that is not of such a layer.
            StructureError: training between a layer and a ReplicatedHead, under noise.
        """
        check_trailing("BatchNorm", x, self.scale.shape, 2, "Give x as (batch, ..., channels).")
        self._check_state(state)
        if not training:
            spread = np.sqrt(state["variance"] + self.eps)
            return (x - state["mean"]) / spread * self.scale + self.shift, state
        size = math.prod(x.shape[:-1])
        if size < 2:
            raise ShapeError(
                f"BatchNorm: x of shape {x.shape} has {size} value a channel, which has no "
                f"variance. Give two examples or more, or training=False."
            )
        check_batch_statistics(x, "BatchNorm")
        axes = tuple(range(x.ndim - 1))
        y, mean, variance = normalise_with_statistics(x, axes, self.eps)
        unbiased = variance.reshape(-1) * (size / (size - 1))
        new = {"mean": self._running(state["mean"], mean.reshape(-1))}
        new["variance"] = self._running(state["variance"], unbiased)
        return scaled(y, self.scale, self.shift), new

    def _check_state(self, state: Any) -> None:
        named = hasattr(state, "items")
        shapes = {name: np.shape(x) for name, x in state.items()} if named else state
        channels = self.scale.shape
        if shapes != {"mean": channels, "variance": channels}:
            raise OptionError(
                f"BatchNorm: state is {shapes}, and the layer keeps mean and variance of shape "
                f"{channels}. Call y, state = layer(x, state), with state = layer.init_state() at "
                f"first."
            )

    def _running(self, old: Array, batch: Array) -> Array:
        return (self.momentum * old + (1 - self.momentum) * batch).astype(old.dtype, copy=False)
