"""Dropout."""

import dataclasses

import numpy as np

from .. import random
from ..options import fraction
from ..random import Key
from .module import STATIC, Array, Module


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class Dropout(Module):
    """Set each entry to zero with probability rate, and scale what stays by 1 / (1 - rate).

    The scaling keeps the mean, so evaluation needs none. A pass draws one mask from its key: all
    tangents share it, and the same key gives the same mask.

    Source: Srivastava et al. 2014, Journal of Machine Learning Research 15, in its inverted form.
    """

    rate: float = dataclasses.field(metadata=STATIC)

    def __init__(self, rate: float) -> None:
        """Keep the rate, in [0, 1); raises OptionError otherwise."""
        self._set(rate=fraction("Dropout", "rate", rate))

    def __call__(self, x: Array, *, key: Key | None = None) -> Array:
        """Return x with dropped entries, shape of x; without a key (evaluation), x itself."""
        if key is None or self.rate == 0:
            return x
        kept = random.bernoulli(key, x.shape, 1 - self.rate, like=x)
        return np.where(kept, x / (1 - self.rate), 0.0)
