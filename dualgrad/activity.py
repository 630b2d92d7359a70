"""Activity perturbation: noise on what layers give, and which parameters it reaches.

A parameter enters the loss with a `Pending` tangent. A site (dg.nn.linear, dg.nn.conv2d) that meets
it adds noise to its result and remembers input and noise; any other operation asks it for an
ordinary direction. So one pass finds out which parameter is which.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from . import directions as draws
from .arguments import dense
from .dual import Array, DualTensor, Level, Structured, primal_of, split
from .errors import ShapeError, StructureError
from .ops.products import conv2d_filter
from .random import Key
from .structured import LowRank


class Pending(Structured):
    """The tangent of a parameter until it is known whether a site or an operation takes it."""

    __slots__ = ("run", "path", "shape", "dtype")

    def __init__(self, run: "ActivityRun", path: str, x: Array) -> None:
        self.run = run
        self.path = path
        self.shape = x.shape
        self.dtype = x.dtype

    def __len__(self) -> int:
        return self.run.numbers[1] - self.run.numbers[0]

    def dense(self) -> Array:
        """Return an ordinary direction, (k, *shape): no site took the parameter here."""
        return self.run.ordinary_direction(self)


class Site(NamedTuple):
    """One call of linear or conv2d: its parameters, input, and noise (k, *shape of the result)."""

    weight: str | None
    bias: str | None
    x: Array
    noise: np.ndarray
    weight_gradient: Callable  # (x, noise combined over directions) -> gradient of the weight


class ActivityRun:
    """The pass of one chunk of directions with noise on activations."""

    def __init__(self, key: Key, numbers: tuple[int, int], distribution: str, level: Level) -> None:
        self.key = key
        self.numbers = numbers
        self.distribution = distribution
        self.level = level
        self.sites: list[Site] = []
        self.ordinary: dict[str, Array] = {}

    def ordinary_direction(self, t: Pending) -> Array:
        if t.path not in self.ordinary:
            self.ordinary[t.path] = draws.draw_leaf(
                self.key, t.path, t, self.numbers, self.distribution, "dense"
            )
        return self.ordinary[t.path]

    def perturb(
        self, z: Array, x: Array, w: Any, b: Any, rectified: bool, weight_gradient: Callable
    ) -> Array:
        """Return z with noise on its tangents; remember the site."""
        primal, carrier = split(z, self.level)
        plain = primal_of(primal)
        name = f"site/{len(self.sites)}"
        noise = draws.draw_noise(
            self.key, name, plain.shape, plain.dtype, self.numbers, self.distribution
        )
        if rectified:
            noise *= plain > 0  # a unit that is off has derivative 0: noise there is only variance
        weight, bias = (p.carrier.path if is_pending(p, self) else None for p in (w, b))
        self.sites.append(Site(weight, bias, split(x, self.level)[0], noise, weight_gradient))
        return DualTensor(primal, noise if carrier is None else dense(carrier) + noise, self.level)


def is_pending(w: Any, run: ActivityRun | None = None) -> TypeGuard[DualTensor]:
    """Tell whether w is a parameter that a site may take; of this run, if one is given."""
    pending = type(w) is DualTensor and type(w.carrier) is Pending
    return pending and (run is None or w.carrier.run is run)


def at_site(affine: Callable, weight_gradient: Callable, x: Array, w: Array, b: Array | None,
            activation: str | None) -> Array:  # fmt: skip
    """Return affine(x, w, b), perturbed where w or b is a parameter under activity perturbation.

    weight_gradient(x, s) is the transpose of affine in w: the gradient that a cotangent s gives.
    """
    pending = next((p for p in (w, b) if is_pending(p)), None)
    if pending is None:
        return affine(x, w, b)
    pending.level.check("a layer")
    run = pending.carrier.run
    plain_w, plain_b = (p.primal if is_pending(p, run) else p for p in (w, b))
    return run.perturb(affine(x, plain_w, plain_b), x, w, b, activation == "relu", weight_gradient)


def linear_weight_gradient(x: Array, s: np.ndarray, shape: tuple[int, ...]) -> LowRank:
    """Return x' s, kept in factors: rank N, the number of examples."""
    return LowRank(x.reshape(-1, shape[0]), s.reshape(-1, shape[1]), shape)


def conv2d_weight_gradient(x: Array, s: np.ndarray, shape: tuple[int, ...], **window: Any) -> Array:
    """Return the transpose of the convolution in its filters, at s."""
    return conv2d_filter(x, s, w_shape=shape, **window)


def check_examples(losses: Array, sites: list[Site]) -> None:
    if not sites:
        raise StructureError(
            'perturb="activations": the loss reached no site. Call dg.nn.linear or dg.nn.conv2d ('
            'layers, which do) on the parameters, or use perturb="weights".'
        )
    if losses.ndim != 1:
        raise ShapeError(
            f'perturb="activations": the loss has shape {losses.shape}; noise is drawn for each '
            f"example, so it must give one number an example, shape (N,). Leave out the mean: "
            f'dg.nn.cross_entropy(logits, labels, reduction="none").'
        )
    for place, site in enumerate(sites):
        if site.noise.ndim < 3 or site.noise.shape[1] != losses.shape[0]:
            raise ShapeError(
                f'perturb="activations": the loss has {losses.shape[0]} examples, and site {place} '
                f"gave shape {site.noise.shape[1:]}. The first axis of every layer's result must "
                f"be the examples."
            )
