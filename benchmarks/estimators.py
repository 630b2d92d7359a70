"""Bias, variance, cosine and cost of every estimator, on an untrained and a trained network.

    python benchmarks/estimators.py --cells estimators.jsonl [--plot out.png] [--markdown] [--quick]

The network is a perceptron 784-128-128-10 with ReLU, its hidden layers' inputs normalised as by
LayerNorm, on MNIST; trained means a few hundred steps of backpropagation. Each estimator runs with
many keys on one batch and is compared with the gradient t it is meant for, by reverse mode: that of
the network's loss; or, of local losses, that of their sum. "local, weight" is the guess and the
space of guided_gradient, "groups of 8" are local losses with a copy for every 8 units.

    bias       |mean g - t| / |t|, beside it what chance alone would give, sqrt(variance / keys),
               and the law; for an unbiased estimator bias and chance are about equal
    along      <mean g, t> / |t|^2 with its standard error: 1 for an unbiased estimator, the
               sharper sign of it
    variance   E |g - E g|^2 / |t|^2, and the law worked out from the gradients of this batch
    cosine     mean of that between g and t
    cost       least time of a step, eager, with SGD, over that of the loss (planned: steps.py)
    fwd, tan   forward passes (r: a reverse pass, of all or one block at a time), and tangents

A final list names what is more than four standard errors from its law. The second table shows what
the best fixed scale does. With --cells every finished estimator is a line of that file, and a run
that was interrupted goes on where it stopped.
"""

import argparse
import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catalogue
import curves
import numpy as np
import timing
from catalogue import Estimate
from cells import Cells, Row

import dualgrad as dg

NETWORKS = ("untrained", "trained")
GROUPS = 10  # of keys, for the standard error of the bias
SIGMAS = 4
THREADS = [f"{pool}_NUM_THREADS" for pool in timing.POOLS]
ROUNDING = 1e-3  # of float32, and of laws that hold for many parameters


# --- figures of one estimator


def sample(estimate: Estimate, keys: int) -> Row:
    """Return the figures of an estimator, from 3 keys if it gives the same numbers for each."""
    t = estimate.t
    sums, counts = np.zeros((GROUPS, len(t))), np.zeros(GROUPS)
    found: list[tuple[float, float]] = []  # |g|^2 and <g, t>, over |t|^2
    whole, first, same = catalogue.squares(t), None, True
    for i in range(keys):
        g = estimate.gradient(estimate.params, catalogue.KEY.fold_in("keys").fold_in(i))
        g = catalogue.flat(estimate.part(g))
        sums[i % GROUPS] += g
        counts[i % GROUPS] += 1
        found.append((catalogue.squares(g) / whole, float(g @ t) / whole))
        first = g if first is None else first
        same = same and np.array_equal(g, first)
        if same and i == 2:
            break
    lengths, along = np.array(found).T
    n = len(found)
    mean = np.sum(sums, axis=0) / n
    variance = 0.0 if same else (np.sum(lengths) - n * catalogue.squares(mean) / whole) / (n - 1)
    square, error = bias_square(sums / math.sqrt(whole), counts, t / math.sqrt(whole), same)
    spread = estimate.law.spread
    deviations = max(np.std(along), spread), max(np.std(lengths), spread * np.mean(lengths))
    along_error, variance_error = (float(x) / math.sqrt(n) for x in deviations)
    cosines = np.divide(along, np.sqrt(lengths), out=np.zeros(n), where=lengths > 0)
    return {
        "keys": n,
        "bias": math.sqrt(catalogue.squares(mean - t) / whole),
        "chance": math.sqrt(variance / n),
        "bias_square": square,
        "bias_square_error": error,
        "along": float(np.mean(along)),
        "along_error": 0.0 if same else along_error,
        "variance": float(variance),
        "variance_error": 0.0 if same else variance_error,
        "moment": float(np.mean(lengths)),
        "cosine": float(np.mean(cosines)),
    }


def bias_square(
    sums: np.ndarray, counts: np.ndarray, t: np.ndarray, same: bool
) -> tuple[float, float]:
    """Return an unbiased estimate of |E g - t|^2 and its standard error, by a jackknife.

    Means of different groups of keys are independent, so products between groups have no scatter
    in them that would add up.
    """
    if same:
        total = np.sum(sums, axis=0) / np.sum(counts)
        return catalogue.squares(total - t), 0.0
    distances = sums / counts[:, None] - t
    gram = distances @ distances.T

    def between(chosen: np.ndarray) -> float:
        part = gram[np.ix_(chosen, chosen)]
        return float(np.sum(part) - np.trace(part)) / (len(chosen) * (len(chosen) - 1))

    every = np.arange(GROUPS)
    without = np.array([between(np.delete(every, b)) for b in every])
    return between(every), float(np.std(without) * math.sqrt(GROUPS - 1))


def disagreements(row: Row) -> list[str]:
    """Return which figures are too far from their law."""
    law = row["law"]
    pairs = {
        "along": (row["along"], law["along"], row["along_error"]),
        "bias": (row["bias_square"], law["bias"] and law["bias"] ** 2, row["bias_square_error"]),
        "variance": (row["variance"], law["variance"], row["variance_error"]),
    }
    found = []
    for name, (value, expected, error) in pairs.items():
        if expected is None:
            continue
        if not abs(value - expected) <= SIGMAS * error + ROUNDING * abs(expected) + 1e-6:
            found.append(f"{name} {value:.4g}, law {expected:.4g}, standard error {error:.2g}")
    return found


# --- time


def step(estimate: Estimate) -> Callable[[], Any]:
    """Return a call that takes one step from parameters of its own."""
    params = dg.tree.map(lambda x: x.copy() if hasattr(x, "dtype") else x, estimate.params)
    optimiser = dg.optim.sgd(1e-9)  # the rate is no matter, but the parameters must stay finite
    state, number = optimiser.init(params), 0

    def call() -> None:
        nonlocal params, state, number
        number += 1
        g = estimate.gradient(params, catalogue.KEY.fold_in("time").fold_in(number))
        params, state = optimiser.update(params, g, state)

    return call


def costs(subject: catalogue.Subject, estimates: list[Estimate], options: Any) -> Row:
    """Return the least time of each estimator over that of the loss alone."""
    calls: timing.Calls = {"loss": subject.value}
    calls |= {estimate.name: step(estimate) for estimate in estimates}
    figures = timing.summary(timing.interleaved(calls, options.rounds, options.seconds))
    loss = figures["loss"]["minimum"]
    cost = {name: row["minimum"] / loss for name, row in figures.items()}
    return {"loss_ms": 1e3 * loss, "cost": cost}


# --- what is measured


def fingerprint(data: curves.Data, options: argparse.Namespace) -> str:
    """Return what tells these images from others: of how many, and the bits of the first ones."""
    x, y = data.train
    used = [np.ascontiguousarray(part[: 11 * options.batch]).tobytes() for part in (x, y)]
    return f"{len(x)}-{hashlib.blake2b(b''.join(used), digest_size=6).hexdigest()}"


def subjects(
    data: curves.Data, options: argparse.Namespace
) -> dict[str, tuple[catalogue.Subject, float]]:
    """Return the untrained and the trained network on the batch, with their test accuracies."""
    start = catalogue.build(options.width)
    networks = {"untrained": start, "trained": catalogue.train(start, data, options.steps)}
    x, y = data.train
    size = options.batch
    batches = [(x[i : i + size], y[i : i + size]) for i in range(0, 11 * size, size)]
    return {
        name: (
            catalogue.Subject(network, batches[0], batches[1:]),
            curves.evaluate(network, data.test)["accuracy"],
        )
        for name, network in networks.items()
    }


def measure(options: argparse.Namespace) -> Row:
    """Return the rows of both networks, and what else is shown.

    Times do not depend on the weights, so the trained network stands for both.
    """
    cells = Cells(options.cells, ["settings"])
    data = curves.Data("mlp", 5000)
    setting = [fingerprint(data, options), options.width, options.batch, options.steps]
    machine = timing.machine()
    place = [machine["processor"], machine["cores"], *map(os.environ.get, THREADS)]
    words = options.only.split(",") if options.only else [""]
    chosen = subjects(data, options)
    estimates = {
        network: [(group, e) for group, found in catalogue.everything(subject).items()
                  for e in found if any(word in e.name for word in words)]
        for network, (subject, _) in chosen.items()
    }  # fmt: skip
    timed = [e for _, e in estimates["trained"]]
    names = [e.name for e in timed]
    times = cells.get({"settings": ["time", *setting, options.rounds, *place, names]},
                      lambda: costs(chosen["trained"][0], timed, options))  # fmt: skip
    rows = []
    for network in NETWORKS:
        for group, e in estimates[network]:
            # The law belongs to the cell: both are of the same network and batch.
            cell = cells.get(
                {"settings": [network, e.name, *setting, options.repeats]},
                lambda e=e: {"law": e.law._asdict(), **sample(e, options.repeats)},
            )
            rows.append({
                "network": network, "group": group, "name": e.name, "passes": e.passes,
                "tangents": e.tangents, "cost": times["cost"][e.name], **cell,
            })  # fmt: skip
    return {
        "accuracy": {network: accuracy for network, (_, accuracy) in chosen.items()},
        "value": {network: subject.value() for network, (subject, _) in chosen.items()},
        "loss_ms": times["loss_ms"],
        "rows": rows,
    }


def scales(rows: list[Row]) -> list[Row]:
    """Return for unbiased estimators the best fixed scale c, and |g - t|^2 without and with it."""
    found = []
    for row in rows:
        law = row["law"]
        if law["bias"] == 0 and law["variance"]:
            c = 1 / (1 + law["variance"])
            error = 1 - 2 * c * row["along"] + c**2 * row["moment"]
            plain = 1 - 2 * row["along"] + row["moment"]
            figures = {"moment": row["moment"], "scale": c, "plain": plain, "scaled": error}
            found.append({"network": row["network"], "name": row["name"], **figures})
    return found


# --- what is shown


def short(x: Any) -> str:
    """Return a figure in seven characters at most, below a million."""
    if x is None or isinstance(x, str):
        return x or "-"
    if isinstance(x, int) or abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:.3g}" if abs(x) >= 0.001 else f"{x:.1e}" if abs(x) > 1e-9 else "0"


def table(head: list[str], rows: list[list[Any]], markdown: bool) -> str:
    """Return an aligned table, each column as wide as it must be."""
    text = [head, *([short(x) for x in row] for row in rows)]
    widths = [max(len(row[i]) for row in text) for i in range(len(head))]
    if markdown:
        text.insert(1, ["-" * widths[0], *(("-" * (n - 1)) + ":" for n in widths[1:])])
    left, between, right = ("| ", " | ", " |") if markdown else ("", "  ", "")
    return "\n".join(
        left + between.join([row[0].ljust(widths[0]), *(
            x.rjust(n) for x, n in zip(row[1:], widths[1:], strict=True)
        )]) + right
        for row in text
    )  # fmt: skip


HEAD = ["bias", "chance", "law", "along", "+-", "variance", "law", "cosine", "cost", "fwd", "tan"]


def show(found: Row, options: argparse.Namespace) -> None:
    """Print the tables, and what disagrees with its law."""
    mark = "### " if options.markdown else ""
    rows = found["rows"]
    for network in NETWORKS:
        name = network if network == "untrained" else f"{network}, {options.steps} steps"
        print(f"\n{mark}{name}: test accuracy {100 * found['accuracy'][network]:.1f} %, "
              f"loss on the batch {found['value'][network]:.3g}")  # fmt: skip
        own = [row for row in rows if row["network"] == network]
        for group in dict.fromkeys(row["group"] for row in own):
            body = []
            for row in (row for row in own if row["group"] == group):
                law = row["law"]
                figures = [row["bias"], row["chance"], law["bias"], row["along"],
                           row["along_error"], row["variance"], law["variance"], row["cosine"],
                           row["cost"], row["passes"], row["tangents"]]  # fmt: skip
                body.append([row["name"], *figures])
            print(f"\nAgainst {group}\n")
            print(table(["estimator", *HEAD], body, options.markdown))
    print(f"\n{mark}The best fixed scale c = 1 / E|g|^2 (trained; |t| = 1)\n")
    head = ["estimator", "E|g|^2", "c", "E|g - t|^2", "E|c g - t|^2", "1 - that, over c"]
    body = [
        [row["name"], row["moment"], row["scale"], row["plain"], f"{row['scaled']:.6f}",
         (1 - row["scaled"]) / row["scale"]]
        for row in found["scales"] if row["network"] == "trained"
    ]  # fmt: skip
    print(table(head, body, options.markdown))
    print(f"\nthe loss alone: {found['loss_ms']:.2f} ms; {options.repeats} keys")
    for line in found["disagreements"]:
        print(f"more than {SIGMAS} standard errors from its law: {line}")
    if not found["disagreements"]:
        print(f"every figure is within {SIGMAS} standard errors of its law")


def draw(figure: Any, rows: list[Row]) -> None:
    """Draw variance, cosine and cost, one line an estimator; a cross is the variance's law."""
    names = list(dict.fromkeys(row["name"] for row in rows))[::-1]
    panels = {
        "variance": "variance over |t|² (zeros left out)",
        "cosine": "cosine to t (zeros and negative ones left out)",
        "cost": "time over a loss",
    }
    for axes, (what, label) in zip(figure.subplots(1, 3, sharey=True), panels.items(), strict=True):
        for network, colour, up in zip(
            NETWORKS, ("tab:blue", "tab:orange"), (0.17, -0.17), strict=True
        ):
            own = [row for row in rows if row["network"] == network]
            at = [names.index(row["name"]) + up for row in own]
            figures = [row[what] if row[what] > 0 else math.nan for row in own]
            axes.plot(figures, at, "o", color=colour, label=network, markersize=4)
            if what == "variance":
                law = [row["law"]["variance"] or math.nan for row in own]
                label_once = "its law" if network == NETWORKS[-1] else None
                axes.plot(law, at, "x", color="black", markersize=5, label=label_once)
        axes.set(xscale="log", xlabel=label)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        if what == "variance":
            axes.legend(fontsize=7, loc="best")


def main() -> None:
    parser = timing.parser(__doc__, rounds=15, pinned=False, peers=False)
    parser.add_argument("--repeats", type=int, default=200, metavar="KEYS",
                        help="keys of each estimator (default: %(default)s)")  # fmt: skip
    parser.add_argument("--width", type=int, default=128, help="of the hidden layers, a multiple "
                        "of 8 (default: %(default)s)")  # fmt: skip
    parser.add_argument("--batch", type=int, default=256, help="examples (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=400,
                        help="of training, 64 examples each (default: %(default)s)")  # fmt: skip
    parser.add_argument("--cells", type=Path, metavar="PATH",
                        help="append each finished estimator there, skip what it has")  # fmt: skip
    parser.add_argument("--only", metavar="WORDS",
                        help="estimators whose name holds one of these, with commas")  # fmt: skip
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--quick", action="store_true",
                        help="a small network, 40 keys, 3 rounds, 100 steps")  # fmt: skip
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.rounds, options.width = 40, 3, 32
        options.batch, options.steps = 64, 100
    if options.repeats < 2 * GROUPS or options.width % 8:
        parser.error(f"--repeats must be at least {2 * GROUPS}, and 8 must divide --width.")
    print(timing.machine_line())
    found = measure(options)
    found["scales"] = scales(found["rows"])
    found["disagreements"] = [
        f"{row['network']}, {row['name']}: {each}"
        for row in found["rows"]
        for each in disagreements(row)
    ]
    show(found, options)
    timing.write(options, found)
    timing.figure(options.plot, lambda figure: draw(figure, found["rows"]), (11, 8))


if __name__ == "__main__":
    timing.run(main)
