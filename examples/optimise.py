"""Minimise the functions of Beale and Rosenbrock by forward gradient, beside gradient descent.

A forward gradient takes a random direction v and one forward pass, which gives f and d, the
derivative of f along v. The estimate of the gradient is d v. It is right on average: d is the inner
product of the gradient with v, and the entries of v are independent with mean 0 and variance 1.
dg.forward_gradient does it for any tree of parameters:

    estimate = dg.forward_gradient(lambda p: beale(p[0], p[1]))
    value, gradient = estimate(np.array([0.0, 0.5]), key=dg.Key(0))

Below, forward_gradient_descent has it written out, for many runs in one pass: the functions work
entry by entry, so each run has its own point, its own directions and its own derivatives.

    python examples/optimise.py --function beale --plot beale.png

Starts, rates and numbers of iterations are those of Baydin, Pearlmutter, Syme, Wood and Torr 2022,
arXiv 2202.08587. They draw normal directions; random signs, the default here, scatter less.
"""

import argparse
import importlib.util
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import dualgrad as dg

BLOCK = 100  # steps whose directions are drawn together
DRAWN_RUNS = 3  # trajectories in the picture; more hide one another
FORWARD, EXACT, INK = "#D55E00", "#0072B2", "#222222"  # told apart by colour-blind readers too


def beale(x: Any, y: Any) -> Any:
    """Return Beale's function; its minimum is 0 at (3, 0.5)."""
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def rosenbrock(x: Any, y: Any) -> Any:
    """Return Rosenbrock's function; its minimum is 0 at (1, 1), in a curved valley."""
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


class Problem(NamedTuple):
    """A function to minimise, where from, how, and the part of the plane to show."""

    title: str
    function: Callable
    start: tuple[float, float]
    minimum: tuple[float, float]
    lr: float
    iterations: int
    xlim: tuple[float, float]
    ylim: tuple[float, float]


PROBLEMS = {
    "beale": Problem("Beale", beale, (0.0, 0.5), (3.0, 0.5), 0.01, 1_000, (-0.6, 3.8), (-0.8, 1.3)),
    "rosenbrock": Problem(
        "Rosenbrock", rosenbrock, (-1.0, 0.0), (1.0, 1.0), 5e-4, 25_000, (-1.5, 1.5), (-0.7, 1.5)
    ),
}


class Runs(NamedTuple):
    """Runs of one method: f of shape (iterations + 1, runs), points (iterations + 1, 2, runs)."""

    values: np.ndarray
    points: np.ndarray
    seconds: float

    def steps_per_second(self) -> float:
        """Return how many steps a second takes; a step of ten runs in one pass is one."""
        return (len(self.values) - 1) / self.seconds


# --- the two methods


def random_directions(keys: list[dg.Key], k: int, distribution: str) -> Iterator[np.ndarray]:
    """Yield for each step k directions of every run, of shape (2, k, runs).

    Each run has a key of its own, so its directions do not depend on the number of runs.
    """
    draw = {"rademacher": dg.random.rademacher, "normal": dg.random.normal}[distribution]
    block = 0
    while True:
        yield from np.stack([draw(key.fold_in(block), (BLOCK, 2, k)) for key in keys], axis=-1)
        block += 1


def forward_gradient_descent(
    problem: Problem, keys: list[dg.Key], k: int, distribution: str, steps: Iterable
) -> Runs:
    """Return one run of forward gradient descent for each key, a step for each item of steps."""
    points = np.repeat(np.array(problem.start)[:, None], len(keys), axis=1)  # (2, runs)
    values, path = [], [points.copy()]
    began = time.perf_counter()
    for _, v in zip(steps, random_directions(keys, k, distribution), strict=False):
        value, d = dg.pushforward(problem.function, tuple(points), tuple(v))  # d: (k, runs)
        gradient = np.mean(d * v, axis=1)  # (2, runs): the mean of d v over the k directions
        points -= problem.lr * gradient
        values.append(value)
        path.append(points.copy())
    seconds = time.perf_counter() - began
    return Runs(np.array([*values, problem.function(*points)]), np.array(path), seconds)


def gradient_descent(problem: Problem, steps: Iterable) -> Runs:
    """Return gradient descent with the exact gradient: one run, for there is nothing random."""
    exact = dg.value_and_gradient(problem.function, argnums=(0, 1))
    point = np.array(problem.start)
    values, path = [], [point.copy()]
    began = time.perf_counter()
    for _ in steps:
        value, gradient = exact(*point)
        point -= problem.lr * np.array(gradient)
        values.append(value)
        path.append(point.copy())
    seconds = time.perf_counter() - began
    values.append(problem.function(*point))
    return Runs(np.array(values)[:, None], np.array(path)[:, :, None], seconds)


# --- the report


def summary(problem: Problem, forward: Runs, exact: Runs) -> dict[str, Any]:
    """Return the figures of one function, as they go into the table and the JSON file."""

    def of(runs: Runs) -> dict[str, Any]:
        final = runs.values[-1]
        return {
            "final": final.tolist(),
            "median": float(np.median(final)),
            "min": float(np.min(final)),
            "max": float(np.max(final)),
            "seconds": runs.seconds,
            "steps_per_second": runs.steps_per_second(),
        }

    methods = {"forward_gradient": of(forward), "gradient_descent": of(exact)}
    reached, target = (figures["median"] for figures in methods.values())
    return {
        "start": problem.start,
        "initial": float(problem.function(*problem.start)),
        "lr": problem.lr,
        "iterations": problem.iterations,
        **methods,
        "ratio": reached / target if target > 0 else math.nan,
    }


def table(problem: Problem, figures: dict[str, Any], settings: str) -> str:
    """Return the lines to print for one function."""
    lines = [
        f"{problem.title}: rate {problem.lr:g}, {problem.iterations:,} iterations, {settings}",
        f"  {'':<18}{'median f':>10}{'min f':>10}{'max f':>10}{'runs':>6}{'steps/s':>10}",
    ]
    for name in ("forward_gradient", "gradient_descent"):
        row = figures[name]
        numbers = "".join(f"{row[column]:>10.2e}" for column in ("median", "min", "max"))
        lines.append(
            f"  {name.replace('_', ' '):<18}{numbers}{len(row['final']):>6}"
            f"{row['steps_per_second']:>10,.0f}"
        )
    return "\n".join([*lines, f"  {'ratio of medians':<18}{figures['ratio']:>10.2f}"])


def without_nan(tree: Any) -> Any:
    """Return a tree of dicts and lists with None for numbers that JSON cannot hold."""
    if isinstance(tree, dict):
        return {name: without_nan(item) for name, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [without_nan(item) for item in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


# --- the picture


def plot(path: Path, results: list[tuple[Problem, Runs, Runs]]) -> None:
    """Write one PNG: for each function its contours with trajectories, and f at each iteration."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6 * len(results)), dpi=130, layout="constrained")
    grid = figure.subplots(len(results), 2, squeeze=False)
    for (plane, curve), (problem, forward, exact) in zip(grid, results, strict=True):
        draw_plane(figure, plane, problem, forward, exact)
        draw_curve(curve, problem, forward, exact)
    figure.savefig(path, format="png")


def shown(numbers: np.ndarray) -> np.ndarray:
    """Return numbers with nan, which is not drawn, where a run has left every sensible range."""
    return np.where(np.abs(numbers) < 1e9, numbers, np.nan)


def draw_plane(figure: Any, axes: Any, problem: Problem, forward: Runs, exact: Runs) -> None:
    """Draw the contours of the function and the way of some runs over them."""
    from matplotlib.colors import LogNorm

    def way(runs: Runs, run: int) -> np.ndarray:
        return shown(runs.points[:, :, run]).T

    x, y = np.meshgrid(np.linspace(*problem.xlim, 400), np.linspace(*problem.ylim, 400))
    levels = np.logspace(-3, 3, 19)
    z, light = problem.function(x, y), LogNorm(levels[0], 1e8)  # the runs stand out on light greys
    height = axes.contourf(x, y, z, levels, cmap="Greys", norm=light, extend="min")
    axes.contour(x, y, z, levels, colors="0.5", linewidths=0.4)
    axes.plot(*way(exact, 0), color=EXACT, lw=4, solid_joinstyle="round", label="gradient descent")
    for run in range(min(DRAWN_RUNS, forward.values.shape[1])):
        label = None if run else "forward gradient, single runs"
        axes.plot(*way(forward, run), color=FORWARD, lw=1, alpha=0.9, label=label)
    marks = {"ls": "none", "mec": INK, "zorder": 5}
    axes.plot(*problem.start, marker="o", ms=9, mfc="white", label="start", **marks)
    axes.plot(*problem.minimum, marker="*", ms=17, mfc="#F0E442", label="minimum", **marks)
    axes.set(xlim=problem.xlim, ylim=problem.ylim, xlabel="x", ylabel="y")
    axes.set_title(f"{problem.title}: the way down")
    axes.legend(loc="lower right", framealpha=0.9, fontsize=9)
    bar = figure.colorbar(height, ax=axes, ticks=10.0 ** np.arange(-3, 4), pad=0.02)
    bar.ax.set_title("f(x, y)", fontsize=10)


def draw_curve(axes: Any, problem: Problem, forward: Runs, exact: Runs) -> None:
    """Draw f against the iteration: median and range of the runs, and gradient descent."""
    last = problem.iterations
    at = np.unique(np.linspace(0, last, 1_000).astype(int))  # as many as the picture can show
    values = shown(forward.values[at])
    runs = values.shape[1]
    if runs > 1:
        lowest, highest = np.min(values, axis=1), np.max(values, axis=1)
        label = f"forward gradient, all {runs} runs"
        axes.fill_between(at, lowest, highest, color=FORWARD, alpha=0.25, lw=0, label=label)
    label = "forward gradient, median" if runs > 1 else "forward gradient"
    axes.plot(at, np.median(values, axis=1), color=FORWARD, lw=2, label=label)
    line = shown(exact.values[at, 0])
    axes.plot(at, line, color=EXACT, lw=2.2, ls=(0, (5, 2)), label="gradient descent")
    axes.set(xlim=(0, last), xlabel="iteration", ylabel="f(x, y)", yscale="log")
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.set_title(f"{problem.title}: f at each iteration, rate {problem.lr:g}")
    axes.grid(color="0.9")
    axes.legend(fontsize=9)


# --- the command line


def whole(text: str) -> int:
    """Return text as an integer of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1.")
    return int(text)


def rate(text: str) -> float:
    """Return text as a finite number above zero, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above zero.")
    return number


def file_in_folder(text: str) -> Path:
    """Return text as the path of a file in a folder that exists, for argparse."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder; give the name of a file.")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}; create it.")
    return path


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the options; bad ones end the program with exit code 2 and one line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    option = parser.add_argument
    option("--function", choices=[*PROBLEMS, "both"], default="both")
    option("--seeds", type=whole, default=10, metavar="N", help="random runs (default 10)")
    option("--seed", type=int, default=0, help="seed of the first run; the next ones follow on it")
    option("--iterations", type=whole, metavar="N", help="default 1000 (Beale), 25000 (Rosenbrock)")
    option("--lr", type=rate, metavar="X", help="constant rate, default 0.01 (Beale), 5e-4")
    option("--distribution", choices=["rademacher", "normal"], default="rademacher")
    option("--directions", type=whole, default=1, metavar="K", help="in each step (default 1)")
    option("--plot", type=file_in_folder, default="optimise.png", metavar="PATH", help="a PNG file")
    option("--json", type=file_in_folder, metavar="PATH", help="write the figures to this file too")
    options = parser.parse_args(argv)
    if not 0 <= options.seed <= 2**64 - options.seeds:
        parser.error(f"argument --seed: {options.seed} is not from 0 to 2**64 - (number of seeds).")
    if options.plot.suffix != ".png":
        parser.error(f"argument --plot: {str(options.plot)!r} does not end in '.png'.")
    missing = [name for name in ("tqdm", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        parser.error(
            f"not installed: {' and '.join(missing)}; python -m pip install {' '.join(missing)}"
        )
    return options


def write(options: argparse.Namespace, results: list, report: dict[str, Any]) -> None:
    """Write the JSON file, if one is wanted, and the picture."""
    if options.json:
        chosen = {name: getattr(options, name) for name in ("seeds", "seed", "directions")}
        content = {**chosen, "distribution": options.distribution, "functions": report}
        options.json.write_text(json.dumps(without_nan(content), indent=2) + "\n")
    plot(options.plot, results)
    print(f"picture: {options.plot}")


def main(argv: list[str] | None = None) -> int:
    """Minimise, print a table for each function, write the picture; return the exit code."""
    options = parse(argv)
    from tqdm import tqdm

    keys = [dg.Key(options.seed + run) for run in range(options.seeds)]
    settings = f"{options.seeds} runs at once, k = {options.directions}, {options.distribution}"
    results, report = [], {}
    for name in PROBLEMS if options.function == "both" else [options.function]:
        problem = PROBLEMS[name]
        problem = problem._replace(
            lr=options.lr or problem.lr, iterations=options.iterations or problem.iterations
        )

        def steps(method: str, problem: Problem = problem) -> Any:
            return tqdm(range(problem.iterations), desc=f"{problem.title}, {method}", unit="step")

        with np.errstate(over="ignore", invalid="ignore"):  # too high a rate shows in the table
            forward = forward_gradient_descent(
                problem, keys, options.directions, options.distribution, steps("forward gradient")
            )
            exact = gradient_descent(problem, steps("gradient descent"))
        report[name] = summary(problem, forward, exact)
        results.append((problem, forward, exact))
        print(table(problem, report[name], settings), flush=True)
    try:
        write(options, results, report)
    except OSError as error:
        print(f"optimise.py: cannot write {error.filename or 'a result'}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
