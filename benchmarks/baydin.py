"""The timing tables of Baydin et al. 2022: T_f/T_b, loss against time, R_f and R_b, two functions.

    python benchmarks/baydin.py [--model mlp] [--paper] [--plot baydin.png] [--json baydin.json]

Every method starts from the same weights and sees the same batches of 64. T_b is the wall time at
which backpropagation reaches its lowest validation loss (of the last images of the training set),
T_f the time at which a method first reaches that loss; evaluation is not counted. Forward methods
may take a quarter more steps, or one that follows a little behind never gets there. The first table
has the paper's learning rates, which suit forward gradients and not backpropagation; the second has
for each method the best of five rates, each tried for a fifth of the steps and judged by the same
validation images. "-": that loss was not reached.
The test set is looked at once, at the end. With --paper the runs are as long as the paper's:
hours.

Source: Baydin, Pearlmutter, Syme, Wood and Torr 2022, arXiv 2202.08587, section 5.
"""

import argparse
import sys
from functools import partial
from typing import Any

import curves
import functions
import models
import peers
import timing

# Experiment: model, rate, the paper's steps, steps here, the paper's T_f/T_b, R_f and R_b.
EXPERIMENTS = {
    "logreg": ("logreg", 1e-4, 25_000, 5_000, "0.553", "2.4", "4.4"),
    "mlp 2e-5": ("mlp", 2e-5, 20_000, 1_500, "0.567", "2.46", "4.17"),
    "mlp 2e-4": ("mlp", 2e-4, 20_000, 1_500, "0.229", "2.46", "4.17"),
    "cnn": ("cnn", 2e-4, 20_000, 150, "about 0.5", "?", "? (R_f/R_b 0.51)"),
}
PAPER_METHODS: dict[str, dict[str, Any]] = {
    "backprop (vjp)": {"method": "backprop"},
    "forward, dense normal": {"distribution": "normal"},  # the paper's
    "forward, rank-1": {"structure": "rank1"},
}
TUNED_METHODS: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {  # options, rates to try
    "backprop (vjp)": ({"method": "backprop"}, (0.5, 0.2, 0.1, 0.05, 0.02)),
    "forward, rank-1": ({"structure": "rank1"}, (5e-3, 2e-3, 1e-3, 5e-4, 2e-4)),
    "forward, activations k=4": (
        {"perturb": "activations", "directions": 4}, (0.5, 0.1, 0.02, 5e-3, 1e-3)),
}  # fmt: skip


def cost(model: Any, data: tuple, options: argparse.Namespace) -> dict[str, Any]:
    """Return R of each method: time of its step over the time of the loss alone."""
    calls = {"forward": models.own_forward(model, data)}
    calls |= {name: models.own_step(model, data, **given) for name, given in PAPER_METHODS.items()}
    found = timing.summary(timing.interleaved(calls, options.rounds, options.seconds))
    return {name: found[name]["minimum"] / found["forward"]["minimum"] for name in PAPER_METHODS}


def experiment(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return both tables of one experiment."""
    kind, lr, papers, ours, *published = EXPERIMENTS[name]
    steps = options.iterations or (papers if options.paper else ours)
    every = max(1, steps // 25)
    model = models.build(kind, options.width, options.channels)
    data = curves.Data(kind, options.validation)
    first = next(data.batches())
    table: dict[str, dict] = {}
    for method, given in PAPER_METHODS.items():
        print(f"{name}: {method}", file=sys.stderr)
        run = partial(curves.own_run, model, lr, given)
        longer = steps if "backprop" in method else steps + steps // 4
        table[method] = curves.train(run, data, lr, longer, every)
    torch = partial(curves.torch_run, model, first)
    with_torch = "torch" in peers.available(options.peers)
    if with_torch:
        table["backprop (torch)"] = curves.train(torch, data, lr, steps, every)
    curves.finish(table, data)
    found = {"published": published, "R": cost(model, first, options), "paper": table}
    if options.tuned and name != "mlp 2e-5":  # the model and data of "mlp 2e-4"
        second: dict[str, dict] = {}
        for method, (given, rates) in TUNED_METHODS.items():
            print(f"{name}, tuned: {method}", file=sys.stderr)
            best = curves.best_rate(model, given, rates, data, max(1, steps // 5))
            run = partial(curves.own_run, model, best, given)
            second[method] = curves.train(run, data, best, steps, every)
        if with_torch:
            best = second["backprop (vjp)"]["lr"]
            second["backprop (torch)"] = curves.train(torch, data, best, steps, every)
        curves.finish(second, data)
        found["tuned"] = second
    return found


def show(name: str, found: dict[str, Any]) -> None:
    """Print both tables of one experiment."""
    published, costs = found["published"], found["R"]
    print(f"\n{name}: time of a step over the loss alone, and R_f/R_b")
    for method, value in costs.items():
        print(f"  {method:24}{value:6.2f}{value / costs['backprop (vjp)']:6.2f}")
    print(f"the paper: T_f/T_b {published[0]}; R_f {published[1]}, R_b {published[2]}")
    for title, key in (("at the paper's rate", "paper"), ("each method tuned", "tuned")):
        for against in [name for name in found.get(key, {}) if "backprop" in name]:
            rows = []
            for method, row in found[key].items():
                each = 1e3 * row["seconds"] / row["steps"]
                figures = [row["lr"], row["steps"], each, row["lowest"], row["test"]["accuracy"]]
                rows.append([method, *figures, *quotient(row["T"][against])])
            head = ["rate", "steps", "ms a step", "lowest val", "test acc"]
            print(f"{title}; T_b of {against}")
            print(timing.table(["", *head, "T_f, s", "T_b, s", "T_f/T_b"], rows, 10))


def quotient(t: dict[str, float | None]) -> tuple:
    """Return T_f, T_b and T_f/T_b, None where the loss was never reached."""
    ours, theirs = t["T_f"], t["T_b"]
    return ours, theirs, None if ours is None or not theirs else ours / theirs


def draw(figure: Any, results: dict[str, Any]) -> None:
    """Draw validation loss against time, a row an experiment: the paper's rates, then tuned."""
    grid = figure.subplots(len(results), 2, squeeze=False)
    for row, (name, found) in zip(grid, results.items(), strict=True):
        for axes, key in zip(row, ("paper", "tuned"), strict=True):
            for method, figures in found.get(key, {}).items():
                axes.plot(*zip(*figures["curve"], strict=True), label=method)
            title = "the paper's rate" if key == "paper" else "each method tuned"
            axes.set(title=f"{name}, {title}", xlabel="seconds", ylabel="validation loss")
            axes.grid(color="0.9")
            if key in found:
                axes.legend(fontsize=7)


def main() -> None:
    parser = timing.parser(__doc__, rounds=20, pinned=False)
    parser.set_defaults(peers="torch", seconds=30.0)
    parser.add_argument("--model", choices=[*EXPERIMENTS, "functions", "all"], default="all")
    parser.add_argument("--paper", action="store_true", help="as many steps as in the paper")
    parser.add_argument("--iterations", type=timing.whole, metavar="N", help="steps of each run")
    parser.add_argument("--validation", type=timing.whole, default=2_000, metavar="N",
                        help="training images held out (default: %(default)s)")  # fmt: skip
    parser.add_argument("--no-tuned", dest="tuned", action="store_false", help="one table only")
    parser.add_argument(
        "--width", type=timing.whole, default=1024, help="of the MLP (default: 1024)"
    )
    parser.add_argument(
        "--channels", type=timing.whole, default=64, help="of the CNN (default: 64)"
    )
    options = parser.parse_args()
    wanted = [*EXPERIMENTS, "functions"] if options.model == "all" else [options.model]
    print(timing.machine_line())
    results = {}
    for name in wanted:
        if name in EXPERIMENTS:
            results[name] = experiment(name, options)
            show(name, results[name])
    found = functions.measure(options.iterations) if "functions" in wanted else {}
    if found:
        print(functions.text(found))
    timing.write(options, {"experiments": results, "functions": found})
    if results:
        size = (11, 3.6 * len(results))
        timing.figure(options.plot, lambda figure: draw(figure, results), size)


if __name__ == "__main__":
    main()
