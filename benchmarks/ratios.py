"""What a forward-gradient step costs beside the loss alone: R_f = time(estimate) / time(loss).

    python benchmarks/ratios.py --model mlp

Runs are interleaved, so that a slow moment of a shared machine meets every method; the table has
minima and medians, and ratios of both. Drawing the directions is included.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

import dualgrad as dg
from dualgrad.kernels import dispatch

MODELS = {
    "logreg": lambda key: dg.nn.MLP([784, 10], key=key),
    "mlp": lambda key: dg.nn.MLP([784, 1024, 1024, 10], key=key),
    "cnn": lambda key: dg.nn.CNN(key=key),
}
METHODS = {
    "rank-1 Rademacher": {"structure": "rank1"},
    "dense Rademacher": {},
    "dense normal": {"distribution": "normal"},
    "rank-1 Rademacher, k = 16": {"structure": "rank1", "directions": 16},
    "activations": {"perturb": "activations"},
    "activations, k = 4": {"perturb": "activations", "directions": 4},
}


def contestants(model: str, batch: int) -> dict:
    """Return the calls to time, by name; the loss alone comes first."""
    key = dg.Key(0)
    params = MODELS[model](key)
    x = dg.random.uniform(key.fold_in("x"), (batch, 28, 28, 1), np.float32)
    labels = dg.random.permutation(key.fold_in("labels"), batch) % 10

    def loss(params, x, labels):
        return dg.nn.cross_entropy(params(x), labels, reduction="none")

    def mean(params, x, labels):
        return np.mean(loss(params, x, labels))

    calls = {"loss": lambda: mean(params, x, labels)}
    for name, options in METHODS.items():
        estimate = dg.forward_gradient(loss, **options)
        calls[name] = lambda estimate=estimate: estimate(params, x, labels, key=key)
    exact = dg.value_and_gradient(mean, mode="reverse")
    calls["gradient by vjp"] = lambda: exact(params, x, labels)
    return calls


def measure(calls: dict, rounds: int) -> dict[str, list[float]]:
    """Return the times in seconds of each call, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="mlp")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args()
    dispatch.numba_available()  # so that every round runs the same kernels
    times = measure(contestants(options.model, options.batch), options.rounds)
    base_minimum, base_median = min(times["loss"]), statistics.median(times["loss"])
    rows = []
    print(f"{options.model}, batch {options.batch}, {options.rounds} rounds, times in ms")
    print(f"{'':28}{'minimum':>9}{'median':>9}{'R minima':>10}{'R medians':>11}")
    for name, taken in times.items():
        least, middle = min(taken), statistics.median(taken)
        rows.append({"name": name, "minimum": least, "median": middle, "R": least / base_minimum})
        print(f"{name:28}{1e3 * least:9.3f}{1e3 * middle:9.3f}"
              f"{least / base_minimum:10.2f}{middle / base_median:11.2f}")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
