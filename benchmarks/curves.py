"""Training runs timed step by step, with the validation loss between: what baydin.py compares."""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import models
import numpy as np
import timing

import dualgrad as dg

DECAY = 1e-4  # the rate at step i is lr exp(-DECAY i)
BATCH = 64
Step = Callable[[np.ndarray, np.ndarray, float], float]  # x, labels, rate -> the loss


class Data:
    """MNIST, flat but for the CNN: training images, `size` of them held out, and the test set."""

    def __init__(self, model: str, size: int) -> None:
        (x, y), self.test = dg.datasets.mnist()
        if model != "cnn":
            x, self.test = x.reshape(len(x), 784), (self.test[0].reshape(-1, 784), self.test[1])
        size = min(size, len(x) // 6)
        self.train = x[:-size], y[:-size]
        self.validation = x[-size:], y[-size:]

    def batches(self) -> Iterator[tuple]:
        """Yield shuffled batches for ever, the same for every method."""
        epoch = 0
        while True:
            yield from dg.datasets.batches(*self.train, BATCH, key=models.KEY, epoch=epoch)
            epoch += 1


def evaluate(model: Any, data: tuple) -> dict[str, float]:
    """Return mean loss and accuracy of a model on images."""
    x, y = data
    logits = np.concatenate([model(x[i : i + 500]) for i in range(0, len(x), 500)])
    loss = np.mean(dg.nn.cross_entropy(logits, y, reduction="none"))
    return {"loss": float(loss), "accuracy": float(np.mean(np.argmax(logits, axis=-1) == y))}


def own_run(model: Any, lr: float, given: dict[str, Any]) -> tuple[Step, Callable[[], Any]]:
    """Return a step of dualgrad's, and a function that gives the parameters."""
    step = dg.training_step(models.loss, dg.optim.sgd(dg.optim.exponential(lr, DECAY)), **given)
    state = step.init(model, models.KEY)

    def call(x: np.ndarray, labels: np.ndarray, rate: float) -> float:
        nonlocal state
        state, value = step(state, x, labels)
        return float(value)

    return call, lambda: state.params


def torch_run(model: Any, data: tuple) -> tuple[Step, Callable[[], Any]]:
    """Return torch's backprop step (the CNN's in channels_last), and the parameters."""
    from torch_peer import Torch

    weights = models.arrays(model)
    peer = Torch(weights, *data, channels_last=data[0].ndim == 4)
    leaves, structure = dg.tree.flatten(model)

    def call(x: np.ndarray, labels: np.ndarray, rate: float) -> float:
        peer.feed(x, labels)
        return peer.backprop(rate)

    def params() -> Any:
        own = iter(peer.own_layout(peer.weights(), weights))
        return dg.tree.unflatten(
            structure, [next(own) if hasattr(w, "dtype") else w for w in leaves]
        )

    return call, params


def train(
    make: Callable[[], tuple[Step, Callable]], data: Data, lr: float, steps: int, every: int
) -> dict[str, Any]:
    """Return validation losses, each with the seconds of training before it.

    A run that is thrown away goes first, so that nothing is compiled or loaded on the clock.
    """
    warm_up, _ = make()
    for _, (x, y) in zip(range(3), data.batches(), strict=False):
        warm_up(x, y, 0.0)
    step, params = make()
    seconds, curve = 0.0, [(0.0, evaluate(params(), data.validation)["loss"])]
    for number, (x, y) in zip(range(steps), data.batches(), strict=False):
        start = time.perf_counter()
        value = step(x, y, lr * math.exp(-DECAY * number))
        seconds += time.perf_counter() - start
        if not math.isfinite(value):
            break
        if number % every == every - 1 or number == steps - 1:
            curve.append((seconds, evaluate(params(), data.validation)["loss"]))
            time.sleep(timing.SETTLE)  # the next step is not billed for these threads
    finite = [loss if math.isfinite(loss) else math.inf for _, loss in curve]
    figures = {"lr": lr, "steps": number + 1, "seconds": seconds, "lowest": min(finite)}
    return figures | {"curve": curve, "last": value, "params": params()}


def first_below(curve: list[tuple[float, float]], loss: float) -> float | None:
    """Return the seconds at which a curve is first at a loss or below, None for never.

    1e-5 of the loss is allowed for rounding: two backpropagations differ by as much.
    """
    return next((seconds for seconds, value in curve if value <= loss * (1 + 1e-5)), None)


def best_rate(model: Any, given: dict[str, Any], rates: tuple, data: Data, steps: int) -> float:
    """Return the rate with the lowest validation loss after `steps` steps."""
    best = (math.inf, rates[-1])
    for lr in rates:
        with np.errstate(all="ignore"):  # too high a rate diverges, and loses
            figures = train(partial(own_run, model, lr, given), data, lr, steps, steps)
        loss = figures["curve"][-1][1] if math.isfinite(figures["last"]) else math.inf
        best = min(best, (loss if math.isfinite(loss) else math.inf, lr))
    return best[1]


def finish(found: dict[str, dict], data: Data) -> None:
    """Put test figures in the place of parameters, and T_f and T_b for each backpropagation."""
    backward = [name for name in found if "backprop" in name]
    for row in found.values():
        row["test"] = evaluate(row.pop("params"), data.test)
        row["T"] = {}
        for name in backward:
            goal = found[name]["lowest"]
            theirs, ours = first_below(found[name]["curve"], goal), first_below(row["curve"], goal)
            row["T"][name] = {"T_f": ours, "T_b": theirs}
