"""LocalMixer: patches, mixed over places and channels, with a loss for each place and group."""

import dataclasses
import math
from typing import Any

import numpy as np

from ..activity import credit
from ..beside import beside
from ..errors import OptionError, ShapeError
from ..options import count
from ..random import Key
from . import functional
from .dense import Linear
from .local import LocalBlock, LocalNetwork, ReplicatedHead
from .module import STATIC, Array, Module, floating_dtype, kaiming_uniform
from .normalisation import normalise
from .sequential import Sequential

MNIST, CIFAR = (28, 28, 1), (32, 32, 3)
SIZES: dict[str, dict[str, Any]] = {  # of Ren et al. 2023; patches a side
    "S/1/1": {"patches": 1, "channels": 256, "groups": 1, "blocks": 1, "image": MNIST},
    "M/1/16": {"patches": 1, "channels": 512, "groups": 16, "blocks": 1, "image": MNIST},
    "M/8/16": {"patches": 8, "channels": 512, "groups": 16, "blocks": 4, "image": CIFAR},
    "L/8/64": {"patches": 8, "channels": 2048, "groups": 64, "blocks": 4, "image": CIFAR},
}
STATISTICS = {  # mean and deviation of the training images' channels, in [0, 1]
    1: ((0.1307,), (0.3081,)),
    3: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}
EPS = 1e-5


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class GroupedLinear(Module):
    """The layer y = activation(x @ weight + bias) of each group of channels for itself.

    Attributes:
        weight: shape (groups, n_in / groups, n_out / groups), drawn by `kaiming_uniform`.
        bias: shape (n_out,), zeros.
        activation: None or its name.
    """

    weight: Array
    bias: Array
    activation: str | None

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        groups: int,
        activation: str | None = None,
        key: Key,
        dtype: Any = np.float32,
    ) -> None:
        """Draw a layer from n_in to n_out numbers, both cut into `groups`.

        Raises:
            OptionError: a size below 1, groups that do not divide, or an unknown activation.
        """
        n_in, n_out = count("GroupedLinear", "n_in", n_in), count("GroupedLinear", "n_out", n_out)
        groups = count("GroupedLinear", "groups", groups)
        if n_in % groups or n_out % groups:
            raise OptionError(
                f"GroupedLinear: {groups} groups do not divide n_in = {n_in} and n_out = {n_out}. "
                f"Give a common divisor of both."
            )
        dtype = floating_dtype("GroupedLinear", dtype)
        functional.activation_function(activation)  # raises for a name that there is not
        shape = (groups, n_in // groups, n_out // groups)
        self._set(
            weight=kaiming_uniform(key, shape, shape[1], dtype),
            bias=np.zeros(n_out, dtype),
            activation=activation,
        )

    def __call__(self, x: Array) -> Array:
        """Return the array of shape (..., n_out) for x of shape (..., n_in)."""
        return functional.grouped_linear(x, self.weight, self.bias, activation=self.activation)


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class Patches(Module):
    """Cut images into patches side by side, their pixels centred and scaled by channel.

    Attributes:
        image: (height, width, channels). side: patches a side. mean, std: one number a channel.
    """

    image: tuple[int, int, int] = dataclasses.field(metadata=STATIC)
    side: int = dataclasses.field(metadata=STATIC)
    mean: tuple[float, ...] = dataclasses.field(metadata=STATIC)
    std: tuple[float, ...] = dataclasses.field(metadata=STATIC)

    def __init__(self, image: Any, side: int, mean: Any = None, std: Any = None) -> None:
        """Keep the sizes; without mean or std, those of MNIST (one channel) or CIFAR-10 (three).

        Raises:
            OptionError: patches that do not divide the image, or not one mean or std a channel.
        """
        image = tuple(image)
        known = STATISTICS.get(image[-1], (None, None))
        mean, std = known[0] if mean is None else mean, known[1] if std is None else std
        if len(image) != 3 or image[0] % side or image[1] % side:
            raise OptionError(
                f"LocalMixer: {side} patches a side do not divide images of shape {image}. Give "
                f"image as (height, width, channels), and patches that divide both."
            )
        if any(np.shape(given) != image[2:] for given in (mean, std)):
            raise OptionError(
                f"LocalMixer: mean is {mean} and std is {std}, for images of {image[2]} channels. "
                f"Give a tuple with one number a channel for each."
            )
        self._set(image=image, side=side, mean=tuple(mean), std=tuple(std))

    def __call__(self, x: Array) -> Array:
        """Return (N, side**2, height * width * channels of a patch) for images (N, *image)."""
        if x.shape[1:] != self.image:
            raise ShapeError(
                f"LocalMixer: x has shape {x.shape}, and the network was built for images of shape "
                f"{self.image}. Give (batch, height, width, channels)."
            )
        height, width, channels = self.image
        side = self.side
        x = (x - beside(x).asarray(self.mean, x.dtype)) / beside(x).asarray(self.std, x.dtype)
        cut = x.reshape((x.shape[0], side, height // side, side, width // side, channels))
        return np.transpose(cut, (0, 1, 3, 2, 4, 5)).reshape((x.shape[0], side * side, -1))


def each_place(d: Array, shape: tuple[int, ...]) -> Array:
    """Return derivatives by place and group, (k, N, P, G), summed for noise (k, N, channels, P).

    The credit of token mixing: each channel goes on to all groups of its place, and no other place.
    """
    return np.sum(d, axis=-1)[:, :, None, :]


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class MixerBlock(Module):
    """Mix places, then channels, then the channels of each group; normalised after every layer.

    A group's result depends on the others by way of the dense layer's input only, and a place's on
    other places by way of the token layer's input only. So a copy of the loss, one a place and
    group, has all of the derivative of a unit of its place and group, which is what makes activity
    perturbation with such copies unbiased: what follows the dense layer is normalised by place and
    group, what comes before it, by place.

    Attributes:
        tokens: Linear over the places; None in the first block. Its bias, the same for all
            channels, is normalised away: its gradient is zero, and its estimates are noise.
        dense: Linear over the channels. grouped: GroupedLinear.
    """

    tokens: Linear | None
    dense: Linear
    grouped: GroupedLinear

    def __init__(
        self, n_in: int, channels: int, *, groups: int, places: int | None, key: Key, dtype: Any
    ) -> None:
        """Draw a block from n_in to `channels` channels; places is None without token mixing."""
        keys = key.split(3)
        self._set(
            tokens=None if places is None else Linear(places, places, key=keys[0], dtype=dtype),
            dense=Linear(n_in, channels, key=keys[1], dtype=dtype),
            grouped=GroupedLinear(channels, channels, groups=groups, key=keys[2], dtype=dtype),
        )

    def __call__(self, x: Array) -> Array:
        """Return (N, places, channels) for x of shape (N, places, n_in)."""
        h = normalise(x, (-1,), EPS)
        if self.tokens is not None:
            with credit(each_place):
                h = self.tokens(np.swapaxes(h, 1, 2))  # (N, channels, places)
            h = functional.relu(normalise(h, (1,), EPS))
            h = normalise(np.swapaxes(h, 1, 2), (-1,), EPS)
        h = functional.relu(self._by_group(self.dense(h)))
        h = self._by_group(self.grouped(h))
        return functional.relu(h if self.tokens is None else h + x)

    def _by_group(self, h: Array) -> Array:
        """Return h normalised over the channels of each group."""
        cut = h.reshape((*h.shape[:-1], self.grouped.weight.shape[0], -1))
        return normalise(cut, (-1,), EPS).reshape(h.shape)


class LocalMixer(LocalNetwork):
    """A network of linear layers over patches, with a ReplicatedHead after every block.

    LocalMixer("S/1/1", key=key) has 271,892 parameters, "M/1/16" 429,076 (both for MNIST), "M/8/16"
    918,770 and "L/8/64" 13,074,674 (CIFAR-10): channels / patches a side / groups. The last of its
    LocalBlocks is a final read-out alone, a head on all channels as one group.

    x is images in [0, 1] of shape (N, *image). Layer normalisation has no parameters.

    Source: Ren, Kornblith, Liao and Hinton 2023 (arXiv 2210.03310), section 5 and appendix. There
    noise comes after the normalisation of the layer's result; here it comes before, and so the
    dense layer's result is normalised by group, not over all channels.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        patches: int | None = None,
        channels: int | None = None,
        groups: int | None = None,
        blocks: int | None = None,
        image: tuple[int, int, int] | None = None,
        classes: int = 10,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        key: Key,
        dtype: Any = np.float32,
    ) -> None:
        """Draw a network of a published size, or of one's own.

        Args:
            name: "S/1/1", "M/1/16", "M/8/16" or "L/8/64"; sizes that are given replace its own.
            patches: how many a side; they divide the image's height and width.
            channels, groups: the second divides the first, at least three times: normalisation
                would leave nothing of one channel, and of two which is larger.
            blocks: their number; the first has no token mixing.
            image: (height, width, channels); (32, 32, 3) without a name.
            classes: length of the logits.
            mean, std: of each channel, subtracted and divided by; None is MNIST's or CIFAR-10's.
            key: where the weights are drawn from; heads are zeros.
            dtype: of the parameters.

        Raises:
            OptionError: an unknown name, a missing size, or sizes that do not divide.
        """
        given = {"patches": patches, "channels": channels, "groups": groups, "blocks": blocks}
        sizes = _sizes(name, {**given, "image": image})
        dtype = floating_dtype("LocalMixer", dtype)
        shape, side, c, g = (sizes[each] for each in ("image", "patches", "channels", "groups"))
        cut = Patches(shape, side, mean, std)
        n_in = math.prod(shape) // side**2
        parts: list[Any] = []
        for place in range(sizes["blocks"]):
            block = MixerBlock(
                c if place else n_in, c, groups=g, places=side**2 if place else None,
                key=key.fold_in(place), dtype=dtype,
            )  # fmt: skip
            parts.append(block if place else Sequential(cut, block))
        heads = [
            ReplicatedHead(c, classes, groups=each, normalised=True, dtype=dtype)
            for each in (*[g] * len(parts), 1)
        ]
        super().__init__(*map(LocalBlock, [*parts, Sequential()], heads))


def _sizes(name: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Return the sizes of a published network, with those that are given in their place."""
    if name is not None and name not in SIZES:
        raise OptionError(
            f"LocalMixer: name is {name!r}. Give one of {', '.join(SIZES)}, or patches, channels, "
            f"groups and blocks."
        )
    known = SIZES[name] if name is not None else {"image": CIFAR}
    sizes = {**known, **{size: value for size, value in given.items() if value is not None}}
    missing = [size for size in given if size not in sizes]
    if missing:
        raise OptionError(
            f"LocalMixer: {', '.join(missing)} missing. Give a name, one of {', '.join(SIZES)}, or "
            f"all of patches, channels, groups and blocks."
        )
    checked = {s: count("LocalMixer", s, value) for s, value in sizes.items() if s != "image"}
    size = checked["channels"] // checked["groups"]
    if size < 3:
        raise OptionError(
            f"LocalMixer: groups of {size} channels have no gradient, as each is normalised. Give "
            f"groups of 3 channels or more."
        )
    return {**checked, "image": sizes["image"]}
