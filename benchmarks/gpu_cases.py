"""The networks that benchmarks/gpu.py times, and how many operations a step on them needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import models
import numpy as np

import dualgrad as dg


@dataclass
class Problem:
    """A network with its batch, in host memory.

    state: running statistics, or None. products: multiply-adds of the forward pass, layer by layer.
    """

    model: Any
    data: tuple[np.ndarray, np.ndarray]
    products: list[int]
    state: Any = None

    def loss(self, model: Any, *rest: Any) -> Any:
        """Return one cross entropy an example; and the new statistics, where there are some."""
        if self.state is None:
            return models.loss(model, *rest)
        state, x, labels = rest
        logits, state = model(x, state)
        return dg.nn.cross_entropy(logits, labels, reduction="none"), state

    @property
    def parameters(self) -> int:
        return sum(w.size for w in models.arrays(self.model))


def chain(sizes: list[int], batch: int) -> Problem:
    """Return an MLP and images for it."""
    model = dg.nn.MLP(sizes, key=models.KEY)
    return Problem(model, models.batch("mlp", batch), [batch * w.size for w in _filters(model)])


def convolutional(channels: int, batch: int) -> Problem:
    """Return the CNN of the MNIST studies, and images for it."""
    model = models.build("cnn", channels=channels)
    places = (784, 784, 196, 196, 1, 1)
    products = [batch * n * w.size for n, w in zip(places, _filters(model), strict=True)]
    return Problem(model, models.batch("cnn", batch), products)


def residual(width: float, batch: int) -> Problem:
    """Return a ResNet-18 without heads of its own, and images of 32 x 32 for it."""
    model = dg.nn.ResNet18(aux=None, width=width, key=models.KEY)
    x = dg.random.uniform(models.KEY.fold_in("x"), (batch, 32, 32, 3), np.float32)
    labels = dg.random.permutation(models.KEY.fold_in("labels"), batch) % 10
    filters = _filters(model)
    first = filters[0].shape[3]  # channels double where the image's side halves
    places = [(32 * first // w.shape[3]) ** 2 if w.ndim == 4 else 1 for w in filters]
    products = [batch * n * w.size for n, w in zip(places, filters, strict=True)]
    return Problem(model, (x, labels), products, model.init_state())


def _filters(model: Any) -> list[np.ndarray]:
    return [w for w in models.arrays(model) if w.ndim > 1]


@dataclass(frozen=True)
class Case:
    """A network at a batch size: how to build it in full and tiny, and its share of the time."""

    build: Callable[[], Problem]
    tiny: Callable[[], Problem]
    share: float
    compute_bound: bool = False


CASES = {
    "logreg-64": Case(lambda: chain([784, 10], 64), lambda: chain([784, 10], 8), 5),
    "mlp-64": Case(lambda: chain([784, 1024, 1024, 10], 64), lambda: chain([784, 16, 10], 8), 9),
    "mlp-4096": Case(lambda: chain([784, 1024, 1024, 10], 4096),
                      lambda: chain([784, 16, 10], 24), 8, True),
    "wide-4096": Case(lambda: chain([784, 4096, 4096, 10], 4096),
                           lambda: chain([784, 32, 10], 24), 9, True),
    "cnn-64": Case(lambda: convolutional(64, 64), lambda: convolutional(4, 4), 10),
    "cnn-1024": Case(lambda: convolutional(64, 1024), lambda: convolutional(4, 6), 11, True),
    "depth-100": Case(lambda: chain([784, *[1024] * 100, 10], 64),
                          lambda: chain([784, *[8] * 4, 10], 8), 10),
    "resnet18-128": Case(lambda: residual(1.0, 128), lambda: residual(1 / 16, 4), 14, True),
}  # fmt: skip


def flops(problem: Problem, what: str) -> float:
    """Return the operations that a step's products need, two a multiply-add.

    The images have no tangent, and need none back: the first layer has one product less. Products
    of rank-1 directions count for nothing.
    """
    whole, first = 2.0 * sum(problem.products), 2.0 * problem.products[0]
    k = 16 if what.endswith("k=16") else 1
    if what == "forward":
        return whole
    if what == "backprop":
        return 3 * whole - first
    return whole * (1 + k if what.startswith("rank-1") else 1 + 2 * k) - k * first
