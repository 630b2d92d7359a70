"""The models and batches that all contestants run on, and dualgrad's own contestants."""

from collections.abc import Callable
from typing import Any

import numpy as np

import dualgrad as dg

MODELS = ("logreg", "mlp", "cnn")
KEY = dg.Key(0)
LR = 1e-4

Methods = dict[str, dict[str, Any]]  # options of dg.training_step
PLANNED: Methods = {"rank-1": {"structure": "rank1"}, "dense": {}}
EAGER: Methods = {  # these never run as a plan
    "dense normal": {"distribution": "normal"},
    "backprop by vjp": {"method": "backprop"},
}
MORE_PLANNED: Methods = {"rank-1 k=16": {"structure": "rank1", "directions": 16}}
MORE_EAGER: Methods = {
    "activations": {"perturb": "activations"},
    "activations k=4": {"perturb": "activations", "directions": 4},
}


def build(name: str, width: int = 1024, channels: int = 64) -> dg.nn.Module:
    """Return a model of the MNIST studies with float32 weights, or a narrower one."""
    key = KEY.fold_in(name)
    if name == "cnn":
        return dg.nn.CNN(channels=channels, key=key)
    return dg.nn.MLP([784, 10] if name == "logreg" else [784, width, width, 10], key=key)


def batch(name: str, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return random images, flat but for the CNN, and labels."""
    x = dg.random.uniform(KEY.fold_in("x"), (size, 28, 28, 1), np.float32)
    labels = dg.random.permutation(KEY.fold_in("labels"), size) % 10
    return (x if name == "cnn" else x.reshape(size, 784)), labels


def arrays(model: Any) -> list[np.ndarray]:
    """Return weight, bias, weight, bias, ... in the order of the layers."""
    return [np.asarray(w) for w in dg.tree.leaves(model) if hasattr(w, "dtype")]


def loss(model: Any, x: Any, labels: np.ndarray) -> Any:
    """Return one cross entropy an example."""
    return dg.nn.cross_entropy(model(x), labels, reduction="none")


def mean_loss(model: Any, x: Any, labels: np.ndarray) -> Any:
    return np.mean(loss(model, x, labels))


def own_step(model: Any, data: tuple, *, plan: bool = True, **options: Any) -> Callable[[], float]:
    """Return a call that trains once, directions and update included, and gives the loss."""
    step = dg.training_step(loss, dg.optim.sgd(LR), plan=plan, **options)
    state = step.init(model, KEY)

    def call() -> float:
        nonlocal state
        state, value = step(state, *data)
        return float(value)

    return call


def own_forward(model: Any, data: tuple) -> Callable[[], float]:
    """Return a call that gives the loss alone: by the step's plan where it offers that."""
    step = dg.training_step(loss, dg.optim.sgd(LR), structure="rank1")
    if not hasattr(step, "value"):
        return lambda: float(mean_loss(model, *data))
    state = step.init(model, KEY)
    return lambda: float(step.value(state, *data))
