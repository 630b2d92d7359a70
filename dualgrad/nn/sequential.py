"""Layers one after the other."""

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

from ..errors import OptionError, ShapeError
from ..random import Key
from .module import STATIC, Array, Module


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class Flatten(Module):
    """The layer that joins all axes but the first."""

    def __call__(self, x: Array) -> Array:
        """Return x of shape (N, ...) as (N, product of the rest)."""
        return flatten("Flatten", x)


def flatten(where: str, x: Array) -> Array:
    """Return x of shape (N, ...) as (N, product of the rest); raise ShapeError without a rest."""
    if x.ndim < 2:
        raise ShapeError(
            f"{where}: x has shape {x.shape}, and its first axis is the batch. "
            f"Give (batch, ...); x[None] is a batch of one."
        )
    return x if x.ndim == 2 else x.reshape((x.shape[0], math.prod(x.shape[1:])))


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class Sequential(Module):
    """Layers and functions one after the other; stateful when one of its layers is.

    A layer is stateful when it has `init_state` (BatchNorm, or a Sequential with one); the state of
    a Sequential is a dict from the place of each such layer, as a string, to its state. Layers
    whose call takes `key` get key.fold_in(place).

    Attributes:
        layers: tuple of layers and functions of one array.
    """

    layers: tuple
    takes_key: tuple[bool, ...] = dataclasses.field(repr=False, metadata=STATIC)

    def __init__(self, *layers: Callable) -> None:
        """Keep the layers; raises OptionError for one that cannot be called."""
        for place, layer in enumerate(layers):
            if not callable(layer) or isinstance(layer, type):
                raise OptionError(
                    f"Sequential: layer {place} is {layer!r}, not a layer or function. Give "
                    f"them one by one, as in Sequential(Linear(784, 10, key=key), dg.nn.relu)."
                )
        self._set(layers=layers, takes_key=tuple(map(_takes_key, layers)))

    def init_state(self) -> dict[str, Any]:
        """Return the initial state of the stateful layers, {} when there are none."""
        return {
            str(i): layer.init_state() for i, layer in enumerate(self.layers) if stateful(layer)
        }

    def __call__(
        self,
        x: Array,
        state: dict[str, Any] | None = None,
        *,
        training: bool = True,
        key: Key | None = None,
    ) -> Any:
        """Return y, or (y, new state) when the Sequential is stateful.

        Args:
            x: what the first layer takes.
            state: from `init_state` or the last call; None when no layer is stateful.
            training: passed to stateful layers; False withholds the key too, so nothing is dropped.
            key: for layers that draw, such as Dropout; None switches them off.

        Raises:
            OptionError: a stateful Sequential without its state, or a state for one that has none.
        """
        with_state = [str(i) for i, layer in enumerate(self.layers) if stateful(layer)]
        if sorted(with_state) != sorted(state or {}):
            raise OptionError(
                f"Sequential: the stateful layers are {with_state} and state has "
                f"{sorted(state or {})}. Call y, state = model(x, state), with state = "
                f"model.init_state() at first."
            )
        new_state = {}
        for place, layer in enumerate(self.layers):
            options: dict[str, Any] = {}
            if self.takes_key[place] and key is not None and training:
                options["key"] = key.fold_in(place)
            if state and str(place) in state:
                options["training"] = training
                x, new_state[str(place)] = layer(x, state[str(place)], **options)
            else:
                x = layer(x, **options)
        return (x, new_state) if with_state else x


def stateful(layer: Any) -> bool:
    """Tell whether a layer is called with its state, and returns the new one too."""
    if isinstance(layer, Sequential):
        return any(map(stateful, layer.layers))
    return hasattr(layer, "init_state")


def _takes_key(layer: Callable) -> bool:
    try:
        return "key" in inspect.signature(layer).parameters
    except (TypeError, ValueError):  # ufuncs and other functions written in C
        return False
