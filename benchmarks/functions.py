"""Beale's and Rosenbrock's functions by forward gradient and by reverse mode: time an iteration."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import timing

import dualgrad as dg


class Problem(NamedTuple):
    """A function of p = (x, y), start, constant rate, iterations, and the paper's time ratio."""

    function: Callable[[Any], Any]
    start: tuple[float, float]
    lr: float
    iterations: int
    published: float


def beale(p: Any) -> Any:
    x, y = p[0], p[1]
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def rosenbrock(p: Any) -> Any:
    x, y = p[0], p[1]
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


PROBLEMS = {
    "Beale": Problem(beale, (0.0, 0.5), 0.01, 1_000, 0.88),
    "Rosenbrock": Problem(rosenbrock, (-1.0, 0.0), 5e-4, 25_000, 0.75),
}
METHODS: dict[str, dict[str, Any]] = {
    "forward": {"distribution": "normal"},
    "backprop": {"method": "backprop"},
}


def run(problem: Problem, iterations: int, **given: Any) -> tuple[float, float]:
    """Return microseconds an iteration, and the function's value at the end."""
    step = dg.training_step(problem.function, dg.optim.sgd(problem.lr), **given)
    state = step.init(np.array(problem.start), dg.Key(0))
    state, _ = step(state)  # a plan is made here
    start = time.perf_counter()
    for _ in range(iterations - 1):
        state, _ = step(state)
    seconds = time.perf_counter() - start
    return 1e6 * seconds / max(1, iterations - 1), float(problem.function(state.params))


def measure(iterations: int | None = None) -> dict[str, Any]:
    """Return time an iteration and final value by problem and method; the least of 3 runs."""
    found: dict[str, Any] = {}
    for name, problem in PROBLEMS.items():
        number = iterations or problem.iterations
        rows: dict[str, Any] = {"iterations": number, "published": problem.published}
        for _ in range(3):  # in turn
            for method, given in METHODS.items():
                taken, value = run(problem, number, **given)
                before = rows.get(method, {"microseconds": taken})["microseconds"]
                rows[method] = {"microseconds": min(taken, before), "final": value}
        rows["ratio"] = rows["forward"]["microseconds"] / rows["backprop"]["microseconds"]
        found[name] = rows
    return found


def text(found: dict[str, Any]) -> str:
    """Return the table to print."""
    head = [
        "us an iteration",
        "iterations",
        *METHODS,
        "ratio",
        "the paper's",
        "f forward",
        "f backprop",
    ]
    rows = []
    for name, row in found.items():
        times = [row[method]["microseconds"] for method in METHODS]
        finals = [f"{row[method]['final']:.1e}" for method in METHODS]
        rows.append([name, row["iterations"], *times, row["ratio"], row["published"], *finals])
    return "\n" + timing.table(head, rows)
