"""Targets, guesses and spaces of guided gradients on CIFAR-10, with backprop: accuracy and cost.

    python benchmarks/fournier.py --cells fournier.jsonl [--markdown PATH] [--plot PATH]

ResNet-18 of a --width in --blocks, on the first --examples training images, moved and mirrored, as
examples/cifar10.py trains it: SGD with momentum 0.9 and weight decay 5e-4, a rate that falls as a
cosine. A cell of the table is a target, a guess and a space; "local" alone is target local, guess
local; backprop is a cell as well. The search for a rate is the same for all: runs of --search
epochs with a seed of their own at the cell's first rate, then by factors of three up or down until
the best is between two others (five runs at most), judged by the loss on 2,000 training images held
out. Then --seeds runs of --epochs, each with its accuracy on the test set.

With --cells every finished search and run is a line of that file, and a benchmark that was
interrupted goes on where it stopped. --quick is a smoke test, on random images. Passes are forward
passes, tangents in them and reverse passes, each of the whole network; heads are not counted.
Memory is the peak of the resident set over a run, beyond what was resident before it, with the
network and its batches (memory.py measures a step more carefully). On a busy machine set
OPENBLAS_NUM_THREADS=1.

Source: Fournier, Rivaud, Belilovsky, Eickenberg and Oyallon 2023, arXiv 2306.06968, section 4.
"""

import argparse
import functools
import importlib
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import memory
import numpy as np
import timing
from cells import Cells, Row

import dualgrad as dg

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
cifar10, trainer = (importlib.import_module(name) for name in ("cifar10", "trainer"))

TARGETS, GUESSES, SPACES = dg.nn.guided.TARGETS, dg.nn.guided.GUESSES, dg.nn.guided.SPACES
BACKPROP = {"target": "global", "guess": "backprop", "space": ""}
LOCAL = {"target": "local", "guess": "local", "space": "weight"}  # the gradient itself: d = |s|^2
FIRST_RATE, RANDOM_RATE = 0.05, 3e-4  # where the search begins
FACTOR, RUNS = 3.0, 5  # of the search: step between rates, runs at most
HELD_OUT = 2000
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # Student, n - 1 = 1, 2, ...
SCALE = ("width", "blocks", "aux", "examples", "batch_size", "epochs", "search")
QUICK = {"width": 1 / 16, "examples": 128, "batch_size": 32, "epochs": 1, "search": 1, "seeds": 1}


# --- one run


def settings(cell: Row, options: argparse.Namespace, lr: float, epochs: int, seed: int) -> Any:
    """Return the options that examples/cifar10.py would have for a cell."""
    given = {name: getattr(options, name) for name in ("width", "blocks", "batch_size")}
    given |= {"lr": lr, "seed": seed, "steps": epochs * steps_an_epoch(options)}
    if cell["guess"] == "backprop":
        given["method"] = "backprop"
    else:
        given |= {**cell, "aux": options.aux}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    return cifar10.parse(arguments)


def steps_an_epoch(options: argparse.Namespace) -> int:
    return dg.datasets.batches_per_epoch(options.examples, options.batch_size)


def train(given: Any, data: Row, held_out: str) -> Row:
    """Return what a run gives: losses of the last batches and of other images, ms and bytes.

    A loss that is not finite ends the run; it has None for all but the accuracy, 0.
    """
    memory.forget_peak()
    before = memory.resident("VmRSS")
    step = cifar10.training_step(given)
    run = cifar10.CifarRun(given, step, *data["train"], None)
    model = cifar10.network(given, run.key.fold_in("model"))
    state = step.init(model, run.key.fold_in("train"), model.init_state())
    losses, seconds = [], []
    with np.errstate(all="ignore"):  # too high a rate diverges, and loses
        for _, batch in zip(range(given.steps), run.batches(0), strict=False):
            start = time.perf_counter()
            state, value = step(state, *batch)
            seconds.append(time.perf_counter() - start)
            losses.append(float(value))
            if not math.isfinite(value):
                nothing = dict.fromkeys(("loss", "other_loss", "ms", "bytes"))
                return {**nothing, "accuracy": 0.0}
        peak = memory.resident("VmHWM") - before
        other = trainer.evaluate(cifar10.predictor(given, state), *data[held_out])
    tail = losses[-max(1, given.steps // 10) :]
    return {
        "loss": statistics.fmean(tail),
        "other_loss": other["loss"] if math.isfinite(other["loss"]) else None,
        "accuracy": other["accuracy"],
        "ms": 1e3 * statistics.median(seconds),
        "bytes": peak,
    }


def load(options: argparse.Namespace) -> Row:
    """Return training images, those held out and the test set, centred and scaled."""
    if options.quick:
        return random_images(options.examples)
    found = cifar10.load(cifar10.parse([f"--examples={options.examples}"]))
    x, y = found["held out"]
    return {**found, "held out": (x[:HELD_OUT], y[:HELD_OUT])}


def random_images(examples: int) -> Row:
    """Return images of nothing, and labels, in the place of CIFAR-10's."""
    found = {}
    for name, n in (("train", examples), ("held out", 100), ("test", 100)):
        key = dg.Key(0).fold_in(name)
        found[name] = dg.random.normal(key, (n, 32, 32, 3), dtype=np.float32), np.arange(n) % 10
    return found


# --- the search, the same for every cell


def search(cell: Row, options: argparse.Namespace, data: Row) -> Row:
    """Return the rate with the lowest loss on images held out, and all that were tried."""
    tried: dict[int, float] = {}  # power of FACTOR -> loss
    first, best = RANDOM_RATE if cell["guess"] == "random" else FIRST_RATE, 0
    while len(tried) < RUNS:
        above = [best + 1] if tried.get(best, 0.0) < math.inf else []  # what diverged has none
        missing = [power for power in (best, *above, best - 1) if power not in tried]
        if not missing:
            break
        lr = first * FACTOR ** missing[0]
        given = settings(cell, options, lr, options.search, 1000)
        loss = train(given, data, "held out")["other_loss"]
        tried[missing[0]] = math.inf if loss is None else loss
        best = min(tried, key=lambda power: (tried[power], power))
    losses = {
        f"{first * FACTOR**power:.3g}": loss if loss < math.inf else None
        for power, loss in sorted(tried.items())
    }
    return {"rate": first * FACTOR**best, "tried": losses}


def measure(
    cell: Row, seed: int | None, rate: float, options: Any, images: Callable[[], Row]
) -> Row:
    """Return what the line of a search (seed None) or of a run adds to its settings."""
    data = images()
    start = time.perf_counter()
    if seed is None:
        found = search(cell, options, data)
    else:
        given = settings(cell, options, rate, options.epochs, seed)
        found = {"rate": rate, **train(given, data, "test")}
    return found | {"seconds": time.perf_counter() - start}


# --- cells, each search and run a line of a file


def passes(cell: Row, blocks: int) -> tuple[int, int, int]:
    """Return forward passes, tangents and reverse passes of the network in a step."""
    target, guess, space = cell["target"], cell["guess"], cell["space"]
    if guess == "backprop":
        return 1, 0, 1
    more = target == "intermediate" or (target == "sum" and space != "activation")
    if space == "activation":
        again = guess == "intermediate"
        return 2 + again + more, 1 + more, 1 + again
    extra = {"ntk": 1, "fixed-ntk": 1, "intermediate": 2, "random": 0}.get(guess, 0)
    reverse = 0 if guess == "random" else 1 + extra
    if space == "module":  # each block's tangent passes the blocks after it alone
        tangents = round((blocks - 1) * (blocks + 2) / (2 * blocks))
        return 3 + extra + more, tangents + more, reverse
    return 2 + extra + more, 1 + more, reverse


def wanted(options: argparse.Namespace) -> list[Row]:
    grid = [
        {"target": target, "guess": guess, "space": space}
        for target in options.targets
        for guess in options.guesses
        for space in options.spaces
    ]
    return [BACKPROP, LOCAL, *(cell for cell in grid if cell != LOCAL)]


def run(options: argparse.Namespace) -> list[Row]:
    """Return searches and runs of all cells, those of the file and those made now."""
    known = Cells(options.cells, ("target", "guess", "space", "seed", *SCALE, "images"))
    images = functools.cache(lambda: load(options))  # not where all cells are there
    scale = {name: getattr(options, name) for name in SCALE}
    cells, results = wanted(options), []
    for number, cell in enumerate(cells):
        rate = 0.0
        for seed in (None, *range(options.seeds)):
            make = functools.partial(measure, cell, seed, rate, options, images)
            row = {**cell, "seed": seed, **scale, "images": "random" if options.quick else None}
            results.append(known.get(row, make, f"{number + 1}/{len(cells)}"))
            rate = results[-1]["rate"]
    return results


# --- what is shown


def summaries(rows: list[Row], blocks: int) -> list[Row]:
    """Return a line for each cell: mean, deviation and interval over seeds, best first."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if row["seed"] is not None:
            groups.setdefault((row["target"], row["guess"], row["space"]), []).append(row)
    found = []
    for (target, guess, space), runs in groups.items():
        cell = {"target": target, "guess": guess, "space": space}
        accuracy = [run["accuracy"] for run in runs]
        n = len(accuracy)
        spread = statistics.stdev(accuracy) if n > 1 else None
        half = T95[min(n - 2, len(T95) - 1)] * spread / math.sqrt(n) if n > 1 else None
        figures = {
            "rate": runs[0]["rate"],
            "accuracy": statistics.fmean(accuracy),
            "spread": spread,
            "interval": half,
        }
        for name in ("loss", "ms", "bytes"):
            known = [run[name] for run in runs if run[name] is not None]
            figures[name] = statistics.median(known) if known else None
        found.append({**cell, **figures, "passes": passes(cell, blocks)})
    return sorted(found, key=lambda row: -row["accuracy"])


def name_of(row: Row) -> str:
    if row["guess"] == "backprop":
        return "backprop"
    if (row["target"], row["guess"]) == ("local", "local") and row["space"] == "weight":
        return "local losses alone"
    return f"{row['target']}, {row['guess']}, {row['space']}"


def cells_of(row: Row) -> list[str]:
    """Return the texts of a line of the table."""

    def shown(x: float | None, pattern: str) -> str:
        return "-" if x is None else format(x, pattern)

    percent = {name: None if row[name] is None else 100 * row[name] for name in
               ("accuracy", "spread", "interval")}  # fmt: skip
    return [
        name_of(row),
        f"{row['rate']:.2g}",
        shown(percent["accuracy"], ".1f"),
        shown(percent["spread"], ".1f"),
        shown(percent["interval"], ".1f"),
        shown(row["loss"], ".3f"),
        shown(row["ms"], ".0f"),
        " / ".join(map(str, row["passes"])),
        shown(None if row["bytes"] is None else row["bytes"] / 1e6, ".0f"),
    ]


HEAD = ["target, guess, space", "rate", "test %", "sd", "+- 95 %", "train loss", "ms a step"]
HEAD += ["passes", "MB"]


def caption(options: argparse.Namespace) -> str:
    return (
        f"ResNet-18 of width {options.width:g} in {options.blocks} blocks, {options.examples} "
        f"images, {options.epochs} epochs of batches of {options.batch_size}, "
        f"heads: {options.aux}, {options.seeds} seeds"
    )


def markdown(options: argparse.Namespace, rows: list[Row]) -> str:
    """Return caption and table for a page."""
    lines = [HEAD, ["---"] + ["---:"] * (len(HEAD) - 1), *(cells_of(row) for row in rows)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{caption(options)}; {timing.machine_line()}.\n\n{table}\n"


def draw(figure: Any, rows: list[Row]) -> None:
    """Draw the accuracy of each cell, best on top, and every step's time beside it."""
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    places = range(len(rows), 0, -1)
    bars = [100 * (row["interval"] or 0) for row in rows]
    left.errorbar([100 * row["accuracy"] for row in rows], places, xerr=bars, fmt="o", capsize=3)
    left.set(xlabel="test accuracy, %, with 95 % intervals")
    left.set_yticks(places, [name_of(row) for row in rows])
    left.grid(color="0.9")
    right.barh(places, [row["ms"] or 0 for row in rows])
    right.set(xlabel="ms a step")


def some(known: tuple[str, ...]) -> Any:
    """Return a parser of lists as "local,ntk", or all."""

    def chosen(text: str) -> list[str]:
        names = list(known) if text == "all" else text.split(",")
        if set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{text}: give some of {', '.join(known)}, or all")
        return names

    return chosen


def parse() -> argparse.Namespace:
    parser = timing.parser(__doc__, pinned=False, peers=False)
    for name, known, default in (
        ("targets", TARGETS, "global"),
        ("guesses", GUESSES, "local,random"),
        ("spaces", SPACES, "weight,activation"),
    ):
        parser.add_argument(f"--{name}", type=some(known), default=default, metavar="NAMES",
                            help="of " + ", ".join(known) + " (default: %(default)s)")  # fmt: skip
    parser.add_argument("--width", type=timing.positive, default=0.25, metavar="FACTOR",
                        help="of the network (default: %(default)s)")  # fmt: skip
    parser.add_argument("--blocks", type=int, choices=(8, 16), default=8)
    for name, default, what in (
        ("examples", 5000, "images"), ("batch-size", 128, "images a step"),
        ("epochs", 3, "of a run"), ("search", 1, "epochs of the runs that try a rate"),
        ("seeds", 3, "runs of each cell"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=timing.whole, default=default, metavar="N",
                            help=f"{what} (default: %(default)s)")  # fmt: skip
    parser.add_argument("--aux", choices=("cnn", "mlp", "linear"), default="cnn", help="heads")
    parser.add_argument("--quick", action="store_true", help="tiny: to see that all runs")
    parser.add_argument("--cells", type=timing.output, metavar="PATH",
                        help="append each finished line there, and skip those it has")  # fmt: skip
    parser.add_argument("--markdown", type=timing.output, metavar="PATH",
                        help="write the table there")  # fmt: skip
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    return options


def main() -> None:
    options = parse()
    print(timing.machine_line())
    rows = run(options)
    found = summaries(rows, options.blocks)
    print(caption(options))
    print(timing.table(HEAD, [cells_of(row) for row in found]))
    if options.markdown:
        options.markdown.write_text(markdown(options, found))
    timing.write(options, {"runs": rows, "cells": found})
    size = (10, 1.5 + 0.35 * len(found))
    timing.figure(options.plot, lambda figure: draw(figure, found), size)


if __name__ == "__main__":
    timing.run(main)
