"""Local losses: blocks that train on a loss of their own, behind a stopped gradient.

A block with its auxiliary head is cut off from what comes before it. Under dg.forward_gradient it
has a derivative of its own (sections.py), so the noise of one block never disturbs another. A
ReplicatedHead goes further and gives each group of channels, and each place, a loss of its own.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..activity import credit, spread
from ..beside import beside
from ..custom import stop_gradient
from ..errors import OptionError, ShapeError
from ..options import count
from ..random import Key
from ..sections import section
from . import functional
from .module import STATIC, Array, Module, floating_dtype
from .normalisation import normalise
from .sequential import stateful


def each_cross_entropy(logits: Array, labels: Array) -> Array:
    """Return the cross-entropy of each example, shape (N,)."""
    return functional.cross_entropy(logits, labels, reduction="none")


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class ReplicatedHead(Module):
    """A linear head on pooled features, whose loss each group of channels and place has a copy of.

    logits = mean over places (h) @ weight + bias. In the copy of group g at place p every other
    feature is held constant: all copies have the value of the loss, and the derivative of a copy
    along noise on all features sees its own noise alone. So a unit's noise is disturbed by the
    channels // groups - 1 others of its group only (times the places of a pooling window, where
    pooling follows); with one unit a copy and Rademacher noise the estimate is the exact gradient
    of the local loss. The features are not replicated: with
    e = weight (softmax(logits) - one-hot), the derivatives are sums of dh * e over each group.

    Attributes:
        weight: (channels, classes), zeros at first. bias: (classes,), zeros.
        groups: how many groups the channels are cut into. patches: whether places have copies too.
        normalised: whether the features of each place and group are normalised first.

    Source: Ren, Kornblith, Liao and Hinton 2023 (arXiv 2210.03310), section 4 and appendix.
    """

    weight: Array
    bias: Array
    groups: int = dataclasses.field(metadata=STATIC)
    patches: bool = dataclasses.field(metadata=STATIC)
    normalised: bool = dataclasses.field(metadata=STATIC)

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        groups: int = 1,
        patches: bool = True,
        normalised: bool = False,
        key: Key | None = None,
        dtype: Any = np.float32,
    ) -> None:
        """Make a head; `key` is taken like every layer's, but nothing is drawn.

        Raises:
            OptionError: a size below 1, groups that do not divide channels, or that normalising
                would leave without a gradient.
        """
        channels = count("ReplicatedHead", "channels", channels)
        classes = count("ReplicatedHead", "classes", classes)
        groups = count("ReplicatedHead", "groups", groups)
        if channels % groups:
            raise OptionError(
                f"ReplicatedHead: {groups} groups do not divide {channels} channels. Give a "
                f"divisor."
            )
        if normalised and channels // groups < 3:
            raise OptionError(
                f"ReplicatedHead: normalised=True with groups of {channels // groups} channels, "
                f"which have no gradient: normalising leaves nothing of one channel, and of two "
                f"which is larger. Give groups of 3 or more, or leave normalised out."
            )
        dtype = floating_dtype("ReplicatedHead", dtype)
        self._set(
            weight=np.zeros((channels, classes), dtype),
            bias=np.zeros(classes, dtype),
            groups=groups,
            patches=patches,
            normalised=normalised,
        )

    def _features(self, h: Array) -> Array:
        """Return h, (N, ..., channels), with its channels cut, (N, ..., groups, size)."""
        channels = self.weight.shape[0]
        if h.ndim < 2 or h.shape[-1] != channels:
            raise ShapeError(
                f"ReplicatedHead: h has shape {h.shape}, and the head was built for {channels} "
                f"channels along the last axis."
            )
        cut = h.reshape((*h.shape[:-1], self.groups, channels // self.groups))
        return normalise(cut, (-1,), 1e-5) if self.normalised else cut

    def _logits(self, cut: Array) -> Array:
        places = tuple(range(1, cut.ndim - 2))
        pooled = np.mean(cut, axis=places) if places else cut
        flat = pooled.reshape((cut.shape[0], -1))
        return functional.linear(flat, self.weight, self.bias)

    def __call__(self, h: Array) -> Array:
        """Return logits, (N, classes), for features h of shape (N, ..., channels)."""
        return self._logits(self._features(h))

    def losses(self, h: Array, labels: Array) -> list[Array]:
        """Return [copies, head]: what adds up to the cross-entropy, with all its derivatives.

        copies has shape (N, ..., groups), the places of h (of length 1 unless `patches`), and
        depends on h; head, (N, classes), has value 0 and depends on the weights. Each logit is a
        group of its own there, so that Rademacher noise gives the head's exact gradient (and normal
        noise not).
        First derivatives only: these are what training needs.
        """
        cut = self._features(h)
        plain = stop_gradient(cut)
        with credit(spread):
            logits = self._logits(plain)
        z = stop_gradient(logits)
        loss = each_cross_entropy(z, labels)
        slope = functional.softmax(z)
        slope[beside(z).arange(len(z)), labels] -= 1

        places = cut.shape[1:-2]
        ones = (1,) * len(places)
        e = (slope @ stop_gradient(self.weight).T) / math.prod(places)
        moved = (cut - plain) * e.reshape((len(z), *ones, *cut.shape[-2:]))
        copies = np.sum(moved, axis=-1)
        if not self.patches and places:
            copies = np.sum(copies, axis=tuple(range(1, cut.ndim - 2)), keepdims=True)
        share = loss / math.prod(copies.shape[1:])
        return [copies + share.reshape((-1, *ones, 1)), (logits - z) * slope]


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class LocalBlock(Module):
    """A part of a network with an auxiliary head and a loss, cut off from what comes before.

    Attributes:
        block: a layer. aux: a layer from the block's result to what the loss takes.
        loss: loss(aux(h), y) -> (N,), one number an example.
    """

    block: Any
    aux: Any
    loss: Callable = dataclasses.field(metadata=STATIC)

    def __init__(self, block: Any, aux: Any, loss: Callable = each_cross_entropy) -> None:
        """Keep the parts; aux may be a ReplicatedHead, whose loss is the cross-entropy.

        With a ReplicatedHead, what follows a linear or convolution layer in the block must not mix
        groups, nor places beyond pooling: the copies would miss what crosses. Another such layer,
        or batch statistics, is refused under noise; of other functions it cannot be known
        (dg.testing.check_unbiased).

        Raises:
            OptionError: a ReplicatedHead with another loss.
        """
        if isinstance(aux, ReplicatedHead) and loss is not each_cross_entropy:
            raise OptionError(
                "LocalBlock: a ReplicatedHead has its own loss, the cross-entropy. Leave loss out, "
                "or give a layer as aux."
            )
        self._set(block=block, aux=aux, loss=loss)

    def init_state(self) -> dict[str, Any]:
        """Return the initial state of the stateful parts, {} when there are none."""
        parts = {"block": self.block, "aux": self.aux}
        return {name: part.init_state() for name, part in parts.items() if stateful(part)}

    def __call__(
        self, x: Array, y: Array, state: dict[str, Any] | None = None, *, training: bool = True
    ) -> Any:
        """Return (h, local loss), or ((h, local loss), new state) if a part is stateful.

        h is the block's result; no gradient reaches x. The local loss is an array (N,), or with a
        ReplicatedHead a list of two (see `ReplicatedHead.losses`): dg.forward_gradient takes lists.
        """
        new: dict[str, Any] = {}
        x = stop_gradient(x)
        if isinstance(self.aux, ReplicatedHead):
            with credit(spread):
                h = call(section(self.block), x, "block", state, new, training)
            local: Any = section(self.aux).losses(h, y)
        else:
            part = section(self)
            h = call(part.block, x, "block", state, new, training)
            local = self.loss(call(part.aux, h, "aux", state, new, training), y)
        return ((h, local), new) if state else (h, local)


def call(layer: Any, x: Array, name: str, state: Any, new: dict[str, Any], training: bool) -> Array:
    """Return layer(x), taking its state from state[name] and putting the new one into new[name]."""
    if not stateful(layer):
        return layer(x)
    if not state or name not in state:
        raise OptionError(
            f"{type(layer).__name__}: the layer is stateful and its state is missing. Call with "
            f"state = network.init_state() at first, then with the state of the call before."
        )
    h, new[name] = layer(x, state[name], training=training)
    return h


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class LocalNetwork(Module):
    """Local blocks one after the other; the last one's auxiliary head is the network's.

    Attributes:
        blocks: tuple of LocalBlock.
    """

    blocks: tuple[LocalBlock, ...]

    def __init__(self, *blocks: LocalBlock) -> None:
        """Keep the blocks; raises OptionError unless there is one, and all are LocalBlocks."""
        if not blocks or not all(isinstance(b, LocalBlock) for b in blocks):
            raise OptionError(f"LocalNetwork: {blocks!r}; give LocalBlocks, one by one.")
        self._set(blocks=blocks)

    def init_state(self) -> dict[str, Any]:
        """Return the initial state of the stateful blocks, {} when there are none."""
        states = {str(i): block.init_state() for i, block in enumerate(self.blocks)}
        return {place: state for place, state in states.items() if state}

    def __call__(
        self, x: Array, state: dict[str, Any] | None = None, *, training: bool = True
    ) -> Any:
        """Return logits, or (logits, new state): the whole network, no gradient stopped."""
        new: dict[str, Any] = {}
        for place, block in enumerate(self.blocks):
            of, parts = (state or {}).get(str(place)), dict((state or {}).get(str(place), {}))
            x = call(block.block, x, "block", of, parts, training)
            if place == len(self.blocks) - 1:
                x = call(block.aux, x, "aux", of, parts, training)
            if parts:
                new[str(place)] = parts
        return (x, new) if state else x

    def local_losses(
        self, x: Array, y: Array, state: dict[str, Any] | None = None, *, training: bool = True
    ) -> Any:
        """Return the local losses, a list (or with the new state); the last is the network's."""
        losses, new = [], {}
        for place, block in enumerate(self.blocks):
            of = (state or {}).get(str(place))
            result = block(x, y, of, training=training)
            (x, local), new_of = result if of else (result, None)
            if of:
                new[str(place)] = new_of
            losses.append(local)
        return (losses, new) if state else losses

    def average(self, x: Array, state: dict[str, Any] | None = None) -> Array:
        """Return the mean over all heads of the log-probabilities, (N, classes), in evaluation."""
        total: Any = 0.0
        for place, block in enumerate(self.blocks):
            of = (state or {}).get(str(place))
            x = call(block.block, x, "block", of, {}, False)
            total = total + functional.log_softmax(call(block.aux, x, "aux", of, {}, False))
        return total / len(self.blocks)
