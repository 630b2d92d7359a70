"""Mean and projection (FROG) of k directions on three functions of n numbers, with the gradient.

    python benchmarks/frog.py --cells frog.jsonl [--plot frog.png] [--json frog.json]

Each cell of the table is a function, a size, a method and a number of normal directions k: how far
above the minimum gradient descent with a constant rate is after the steps, as the median of ten
seeds. Every cell has the best of thirteen rates from 1 to 1e-6, each tried for all the steps with
five other seeds and judged by the worst; of rates equal but for rounding it is the largest. "inf":
most of the ten seeds diverged all the same. A step is one forward pass with k tangents, for the
gradient a forward and a reverse one. Directional derivatives come from dg.pushforward, for all
seeds and rates in one call. Cells with k > n, where the projection is the gradient, are left out.

With --cells every finished cell is a line of that file, and a run that was interrupted goes on
where it stopped. The cells that are there by default take about ten minutes; Rosenbrock at
n = 1024, 25,000 steps, is for --functions rosenbrock --n 1024; --quick is a smoke test.

Source: Fluegel, Coquelin, Debus, Goetz and Streit 2024, arXiv 2410.17764, section 4.
"""

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import timing
from cells import Cells, Row

import dualgrad as dg

RATES = tuple(float(f"{10 ** (-i / 2):.2g}") for i in range(13))
SEARCH = 5  # seeds that judge a rate
BLOCK = 1 << 17  # numbers of directions drawn at a time


# --- functions of x (..., n)


def sphere(x: Any) -> Any:
    return np.sum(x**2, axis=-1)


def rosenbrock(x: Any) -> Any:
    first, second = x[..., :-1], x[..., 1:]
    return np.sum(100 * (second - first**2) ** 2 + (1 - first) ** 2, axis=-1)


def styblinski(x: Any) -> Any:
    square = x**2
    return np.sum(square * square - 16 * square + 5 * x, axis=-1) / 2


class Problem(NamedTuple):
    """A function, its start (all entries but the first are `rest`), minimum a number, and steps."""

    function: Callable[[Any], Any]
    first: float
    rest: float
    minimum: float
    steps: int
    sizes: tuple[int, ...]


PROBLEMS = {
    "sphere": Problem(sphere, -1, -1, 0, 1_000, (1, 4, 16, 64, 256, 1024)),
    "rosenbrock": Problem(rosenbrock, -1, 0, 0, 25_000, (2, 16, 64)),
    "styblinski": Problem(styblinski, 0, 0, -39.16616570377142, 1_000, (1, 4, 16, 64, 256, 1024)),
}


# --- descent of many seeds and rates at once: x is (seeds, rates, n)


def derivatives(function: Callable, x: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the derivatives at x along the directions v, (k, seeds, n), as (seeds, rates, k)."""
    tangents = np.broadcast_to(v[:, :, None], (len(v), *x.shape))
    return np.moveaxis(dg.pushforward(function, (x,), (tangents,))[1], 0, -1)


def mean(d: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return sum_i d_i v_i / k, (seeds, rates, n)."""
    return d @ np.moveaxis(v, 0, 1) / len(v)


def projection(d: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return B (B'B)^-1 d for B = (v_1 | ... | v_k) = Q R, which is Q R'^-1 d."""
    q, r = np.linalg.qr(np.moveaxis(v, 0, -1))  # (seeds, n, k), (seeds, k, k)
    coefficients = np.linalg.solve(np.moveaxis(r, 1, 2), np.moveaxis(d, 1, 2))
    return np.moveaxis(q @ coefficients, 1, 2)


ESTIMATES = {"mean": mean, "FROG": projection}


def directions(key: dg.Key, seeds: int, n: int, k: int, steps: int) -> Iterator[np.ndarray]:
    """Yield k normal directions for each seed, (k, seeds, n), for step after step."""
    block = max(1, min(100, BLOCK // (k * seeds * n)))
    like = np.empty((seeds, n))
    for start in range(0, steps, block):
        numbers = k * start, k * min(start + block, steps)
        drawn = dg.directions.draw(key, like, numbers, distribution="normal")
        yield from drawn.reshape(-1, k, seeds, n)


def gradients(function: Callable, x: np.ndarray) -> np.ndarray:
    return dg.gradient(lambda x: np.sum(function(x)), mode="reverse")(x)


def descend(cell: Row, rates: np.ndarray, seeds: int, key: dg.Key) -> np.ndarray:
    """Return how far above the minimum each run ends, (seeds, rates); inf for one that diverges."""
    problem, n, k = PROBLEMS[cell["function"]], cell["n"], cell["k"]
    x = np.full((seeds, len(rates), n), float(problem.rest))
    x[..., 0] = problem.first
    found = np.full((seeds, len(rates)), np.inf)
    alive = np.arange(len(rates))
    drawn = directions(key, seeds, n, k or 1, cell["steps"]) if k else None
    for step in range(cell["steps"]):
        if drawn is None:
            g = gradients(problem.function, x)
        else:
            v = next(drawn)
            g = ESTIMATES[cell["method"]](derivatives(problem.function, x, v), v)
        x = x - rates[alive, None] * g
        if step % 50 == 49 or step == cell["steps"] - 1:
            kept = np.all(np.abs(x) < 1e6, axis=(0, 2))  # not nan either
            x, alive = x[:, kept], alive[kept]
            if not len(alive):
                return found
    found[:, alive] = np.maximum(problem.function(x) - n * problem.minimum, 0)
    return found


def measure(cell: Row, seeds: int) -> Row:
    """Return the cell with its best rate and what that gives on seeds of its own."""
    start = time.perf_counter()
    seeds, search = (seeds, SEARCH) if cell["k"] else (1, 1)  # the gradient knows no chance
    key = dg.Key(0).fold_in(cell["k"])
    with np.errstate(over="ignore", invalid="ignore"):  # too high a rate diverges, and loses
        tried = np.max(descend(cell, np.array(RATES), search, key.fold_in("search")), axis=0)
        rounding = 1e-15 * cell["n"] * abs(PROBLEMS[cell["function"]].minimum)
        best = RATES[int(np.argmin(np.maximum(tried, rounding)))]
        ends = descend(cell, np.array([best]), seeds, key.fold_in("runs"))[:, 0]
    found = {"lowest": np.min(ends), "median": np.median(ends), "highest": np.max(ends)}
    cell |= {name: float(x) if np.isfinite(x) else None for name, x in found.items()}
    diverged = int(np.sum(np.isinf(ends)))
    return cell | {"rate": best, "diverged": diverged, "seconds": time.perf_counter() - start}


# --- cells, each a line of a file


def wanted(options: argparse.Namespace) -> list[Row]:
    cells = []
    for name in options.functions:
        problem = PROBLEMS[name]
        for n in options.n or problem.sizes:
            if name == "rosenbrock" and n < 2:
                continue
            methods = [("gradient", 0)]
            methods += [(method, k) for method in ESTIMATES for k in options.k if k <= n]
            for method, k in methods:
                cell = {"function": name, "n": n, "method": method, "k": k}
                cells.append(cell | {"steps": options.steps or problem.steps})
    return cells


def run(options: argparse.Namespace) -> list[Row]:
    """Return all cells, those of the file and the ones that are measured now."""
    known = Cells(options.cells, ("function", "n", "method", "k", "steps", "seeds"))
    cells = wanted(options)
    return [
        known.get(
            {**cell, "seeds": options.seeds},
            functools.partial(measure, cell, options.seeds),
            f"{number + 1}/{len(cells)}",
        )
        for number, cell in enumerate(cells)
    ]


# --- what is shown


def label(cell: Row) -> str:
    return f"{cell['method']} k={cell['k']}" if cell["k"] else cell["method"]


def shown(x: float | None) -> str:
    return "inf" if x is None else f"{x:.2g}"


def labels_of(group: list[Row]) -> list[str]:
    """Return the methods of some cells in order: the gradient, then each by its k."""
    order = ["gradient", *ESTIMATES]
    return list(dict.fromkeys(
        label(cell) for cell in sorted(group, key=lambda c: (order.index(c["method"]), c["k"]))
    ))  # fmt: skip


def by_function(cells: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for cell in cells:
        found.setdefault(cell["function"], []).append(cell)
    return found


def show(cells: list[Row]) -> None:
    """Print for each function the medians, and the rates they were reached with."""
    for name, group in by_function(cells).items():
        labels = labels_of(group)
        for what, title in (("median", "above the minimum"), ("rate", "learning rate")):
            rows = []
            for n in sorted({cell["n"] for cell in group}):
                at = {label(cell): shown(cell[what]) for cell in group if cell["n"] == n}
                rows.append([str(n), *(at.get(each) for each in labels)])
            print(f"\n{name}, {title} after {group[0]['steps']} steps")
            print(timing.table(["n", *labels], rows, 9))


def draw(figure: Any, cells: list[Row]) -> None:
    """Draw the median over n where no seed diverged; bars are the lowest and highest seed.

    Lines of one k have one colour, the mean's dashed and a little to the right.
    """
    groups = by_function(cells)
    colours = ("tab:blue", "tab:green", "tab:orange", "tab:red", "tab:purple", "tab:brown")
    for axes, (name, group) in zip(
        np.ravel(figure.subplots(1, len(groups))), groups.items(), strict=True
    ):
        sizes = sorted({cell["k"] for cell in group})
        for each in labels_of(group):
            line = [cell for cell in group if label(cell) == each]
            colour = colours[sizes.index(line[0]["k"]) % 6] if line[0]["k"] else "black"
            line = [cell for cell in line if not cell["diverged"]]
            x, middle, low, high = (
                np.maximum([cell[what] for cell in line], 1e-16)  # for the logarithm
                for what in ("n", "median", "lowest", "highest")
            )
            x = x * (1.03 if "mean" in each else 1)
            axes.errorbar(x, middle, [middle - low, high - middle], label=each, color=colour,
                          marker=".", linestyle="--" if "mean" in each else "-")  # fmt: skip
        axes.set(title=name, xlabel="n", ylabel="above the minimum (what is less drawn at 1e-16)",
                 xscale="log", yscale="log")  # fmt: skip
        sizes_of_x = sorted({cell["n"] for cell in group})
        axes.set_xticks(sizes_of_x, map(str, sizes_of_x))
        axes.minorticks_off()
        axes.grid(color="0.9")
        axes.legend(fontsize=7, handlelength=3.5)  # as long as it takes to see dashes


def main() -> None:
    parser = timing.parser(__doc__, pinned=False, peers=False)
    parser.add_argument("--functions", type=lambda text: text.split(","), metavar="NAMES",
                        default=list(PROBLEMS),
                        help=f"of {', '.join(PROBLEMS)} (default: all)")  # fmt: skip
    parser.add_argument(
        "--n", type=timing.wholes, help="sizes, as 4,64 (default: each function's own)"
    )
    parser.add_argument("--k", type=timing.wholes, default=[1, 2, 4, 16],
                        help="numbers of directions (default: 1,2,4,16)")  # fmt: skip
    parser.add_argument("--steps", type=timing.whole, metavar="N",
                        help="of each run (default: the paper's)")  # fmt: skip
    parser.add_argument("--seeds", type=timing.whole, default=10,
                        help="of each cell (default: %(default)s)")  # fmt: skip
    parser.add_argument("--cells", type=timing.output, metavar="PATH",
                        help="append each finished cell there, and skip those it has")  # fmt: skip
    parser.add_argument("--quick", action="store_true",
                        help="n = 2 and 8, k = 1 and 2, 100 steps, 3 seeds")  # fmt: skip
    options = parser.parse_args()
    if options.quick:
        options.n, options.k, options.steps, options.seeds = [2, 8], [1, 2], 100, 3
    if unknown := set(options.functions) - set(PROBLEMS):
        parser.error(f"--functions: {sorted(unknown)} unknown; known: {', '.join(PROBLEMS)}")
    print(timing.machine_line())
    cells = run(options)
    show(cells)
    timing.write(options, {"rates": RATES, "cells": cells})
    width = 4.5 * len(by_function(cells))
    timing.figure(options.plot, lambda figure: draw(figure, cells), (width, 4.5))


if __name__ == "__main__":
    timing.run(main)
