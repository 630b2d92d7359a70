"""Layers that are a table of weights: Linear and Embedding."""

import dataclasses
from typing import Any

import numpy as np

from .. import random
from ..beside import on_device
from ..errors import DtypeError, OptionError
from ..options import count
from ..random import Key
from . import functional
from .module import Array, Module, floating_dtype, kaiming_uniform


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class Linear(Module):
    """The layer y = activation(x @ weight + bias).

    Attributes:
        weight: shape (n_in, n_out), drawn by `kaiming_uniform` with fan-in n_in.
        bias: shape (n_out,), zeros; None without a bias.
        activation: None or its name.
    """

    weight: Array
    bias: Array | None
    activation: str | None

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        bias: bool = True,
        activation: str | None = None,
        key: Key,
        dtype: Any = np.float32,
    ) -> None:
        """Draw a layer from n_in to n_out numbers.

        Args:
            n_in, n_out: lengths of the last axis of x and of y.
            bias: whether there is one.
            activation: None, "relu", "gelu", "tanh" or "sigmoid", applied to the result. Named here
                rather than called afterwards, "relu" lets activity perturbation skip inactive
                units.
            key: where the weights are drawn from.
            dtype: of the parameters.

        Raises:
            OptionError: a size below 1 or an unknown activation.
            DtypeError: dtype is not a floating one.
        """
        n_in, n_out = count("Linear", "n_in", n_in), count("Linear", "n_out", n_out)
        dtype = floating_dtype("Linear", dtype)
        functional.activation_function(activation)  # raises for a name that there is not
        self._set(
            weight=kaiming_uniform(key, (n_in, n_out), n_in, dtype),
            bias=np.zeros(n_out, dtype) if bias else None,
            activation=activation,
        )

    def __call__(self, x: Array) -> Array:
        """Return activation(x @ weight + bias), shape (..., n_out), for x of shape (..., n_in)."""
        return functional.linear(x, self.weight, self.bias, activation=self.activation)


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class Embedding(Module):
    """A table of n vectors of length dim, looked up by integers.

    Attributes:
        weight: shape (n, dim), drawn from N(0, 1).
    """

    weight: Array

    def __init__(self, n: int, dim: int, *, key: Key, dtype: Any = np.float32) -> None:
        """Draw n vectors of length dim from `key`; raises OptionError for a size below 1."""
        shape = count("Embedding", "n", n), count("Embedding", "dim", dim)
        dtype = floating_dtype("Embedding", dtype)
        self._set(weight=random.normal(key, shape, dtype=dtype))

    def __call__(self, ids: Array) -> Array:
        """Return weight[ids], shape (*ids.shape, dim).

        Raises:
            DtypeError: ids are not integers.
            OptionError: an id is negative, or n or larger. On a device nothing is looked at.
        """
        ids = np.asarray(ids) if isinstance(ids, (int, list, tuple)) else ids
        if ids.dtype.kind not in "iu":
            raise DtypeError(f"Embedding: ids have dtype {ids.dtype}. Give integers.")
        n = self.weight.shape[0]
        if ids.size and not on_device(ids) and not (0 <= ids.min() and ids.max() < n):
            raise OptionError(
                f"Embedding: ids run from {ids.min()} to {ids.max()} and the table has {n} rows. "
                f"Give ids from 0 to {n - 1}."
            )
        return self.weight[ids]
