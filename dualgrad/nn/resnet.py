"""ResNet-18 for small images, cut into blocks with losses of their own."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import OptionError
from ..options import choice, count, positive
from ..random import Key
from .auxiliary import Norm, cnn_head, linear_head, mlp_head
from .convolution import Conv2d
from .dense import Linear
from .functional import relu
from .local import LocalBlock, LocalNetwork, call
from .module import Array, floating_dtype
from .normalisation import BatchNorm, GroupNorm
from .sequential import Sequential

CHANNELS = (64, 64, 128, 128, 256, 256, 512, 512)  # of the residual blocks
HIDDEN = {"cnn": {8: 32, 16: 16}, "mlp": {8: 1024, 16: 512}}  # of heads, by number of blocks


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class Residual(Sequential):
    """Layers side by side: the sum of what each makes of x, then ReLU; Sequential() is a skip."""

    def __call__(self, x: Array, state: Any = None, *, training: bool = True) -> Any:  # type: ignore[override]
        """Return relu(sum of layer(x)), or (it, new state) when a layer is stateful."""
        new: dict[str, Any] = {}
        parts = [
            call(layer, x, str(place), state, new, training)
            for place, layer in enumerate(self.layers)
        ]
        y = relu(functools.reduce(lambda a, b: a + b, parts))
        return (y, new) if new else y


def group_norm(channels: int, dtype: Any) -> GroupNorm:
    """Return a GroupNorm in groups of 8 channels, or the next larger number that divides them.

    With fewer, little is left of the channels of small images: of one number by itself, nothing.
    """
    size = next(n for n in range(min(8, channels), channels + 1) if channels % n == 0)
    return GroupNorm(channels // size, channels, dtype=dtype)


def global_average(x: Array) -> Array:
    """Return the mean over places, (N, channels), of images (N, height, width, channels)."""
    return np.mean(x, axis=(1, 2))


NORMS: dict[str, Norm] = {"batch": BatchNorm, "group": group_norm}


@dataclasses.dataclass(frozen=True)
class _Maker:
    """What the parts of a network have in common."""

    norm: Norm
    dtype: Any

    def convolution(self, c_in: int, c_out: int, size: int, stride: int, key: Key) -> list:
        return [
            Conv2d(
                c_in, c_out, size, stride=stride, padding=size // 2, bias=False, key=key,
                dtype=self.dtype,
            ),
            self.norm(c_out, dtype=self.dtype),
        ]  # fmt: skip

    def halves(self, c_in: int, c_out: int, stride: int, key: Key) -> list[list]:
        """Return the layers of a residual block around its two convolutions."""
        return [
            self.convolution(c_in, c_out, 3, stride, key.fold_in(0)),
            self.convolution(c_out, c_out, 3, 1, key.fold_in(1)),
        ]

    def residual(self, c_in: int, c_out: int, stride: int, key: Key) -> Residual:
        first, second = self.halves(c_in, c_out, stride, key)
        skip = stride == 1 and c_in == c_out
        shortcut = [] if skip else self.convolution(c_in, c_out, 1, stride, key.fold_in(2))
        return Residual(Sequential(*first, relu, *second), Sequential(*shortcut))


class ResNet18(LocalNetwork):
    """ResNet-18 with the stem for 32x32 images: a 3x3 convolution of stride 1 and no pooling.

    Eight residual blocks of 64, 64, 128, 128, 256, 256, 512 and 512 channels times `width`, each of
    two 3x3 convolutions; where the size changes, stride 2 and a 1x1 convolution beside. Every
    convolution is without bias and followed by `norm`; the network's head is `norm`, the average
    over places and a linear layer. The plain network has 11,174,986 parameters.

    y, state = network(x, state) and losses, state = network.local_losses(x, y, state), with
    network.init_state() at first. With training=False, batch normalisation is frozen: the running
    statistics normalise, so examples do not interact, as with norm="group", which has no state.

    Source: He, Zhang, Ren and Sun 2016 (arXiv 1512.03385), section 4.2, with a wider start; cut and
    given heads as in Fournier et al. 2023 (arXiv 2306.06968), section 4.
    """

    def __init__(
        self,
        classes: int = 10,
        *,
        blocks: int = 8,
        width: float = 1.0,
        aux: str | None = "cnn",
        norm: str = "batch",
        channels: int = 3,
        key: Key,
        dtype: Any = np.float32,
    ) -> None:
        """Draw a network.

        Args:
            classes: length of the logits.
            blocks: 8, one a residual block, or 16, one a convolution, without shortcuts. The stem
                belongs to the first.
            width: what the numbers of channels and of units of heads are multiplied with; the
                result is rounded, and at least 4.
            aux: head of each block but the last, "cnn", "mlp" or "linear" (see auxiliary.py). None:
                there are none, and the network is a single LocalBlock.
            norm: "batch", or "group" for GroupNorm in groups of 8 channels.
            channels: of the images.
            key: where the weights are drawn from. Blocks are the same whatever aux is.
            dtype: of the parameters.

        Raises:
            OptionError: an option that does not exist, or a size that is not positive.
        """
        classes = count("ResNet18", "classes", classes)
        channels = count("ResNet18", "channels", channels)
        width = positive("ResNet18", "width", width)
        choice("ResNet18: norm", norm, NORMS)
        choice("ResNet18: aux", aux, (*HIDDEN, "linear", None))
        if blocks not in (8, 16):
            raise OptionError(f"ResNet18: blocks is {blocks!r}. Give 8 or 16.")
        maker = _Maker(NORMS[norm], floating_dtype("ResNet18", dtype))
        sizes = [_scaled(c, width) for c in CHANNELS]
        parts = _cut(maker, channels, sizes, blocks, key.fold_in("blocks"))
        head = _output(maker, sizes[-1], classes, key.fold_in("head"))
        if aux is None:
            super().__init__(LocalBlock(Sequential(*parts), head))
            return
        make = _head_maker(aux, blocks, width, maker)
        per_size = blocks // len(sizes)
        heads = [
            make(sizes[place // per_size], classes, key=key.fold_in("aux").fold_in(place))
            for place in range(blocks - 1)
        ]
        super().__init__(*map(LocalBlock, parts, [*heads, head]))


def _scaled(size: int, width: float) -> int:
    return max(4, round(size * width))


def _cut(maker: _Maker, channels: int, sizes: list[int], blocks: int, key: Key) -> list[Sequential]:
    """Return the blocks of the network, the stem in the first."""
    parts: list[list] = []
    before = sizes[0]
    for place, size in enumerate(sizes):
        stride = 2 if place in (2, 4, 6) else 1
        args = before, size, stride, key.fold_in(place)
        if blocks == 8:
            parts.append([maker.residual(*args)])
        else:
            parts += [[*half, relu] for half in maker.halves(*args)]
        before = size
    stem = [*maker.convolution(channels, sizes[0], 3, 1, key.fold_in("stem")), relu]
    return [Sequential(*stem, *parts[0]), *(Sequential(*part) for part in parts[1:])]


def _output(maker: _Maker, channels: int, classes: int, key: Key) -> Sequential:
    linear = Linear(channels, classes, key=key, dtype=maker.dtype)
    return Sequential(maker.norm(channels, dtype=maker.dtype), global_average, linear)


def _head_maker(aux: str, blocks: int, width: float, maker: _Maker) -> Callable[..., Sequential]:
    options: dict[str, Any] = {"norm": maker.norm, "dtype": maker.dtype}
    if aux == "linear":
        return functools.partial(linear_head, **options)
    options["hidden"] = _scaled(HIDDEN[aux][blocks], width)
    return functools.partial({"cnn": cnn_head, "mlp": mlp_head}[aux], **options)
