"""What one step costs: forward, forward-gradient and backprop step of dualgrad, torch and jax.

    python benchmarks/steps.py --model all --pinned

Each contestant runs on the same float32 weights and the same batch; steps include drawing the
directions and the SGD update. dualgrad goes through dg.training_step, planned and eager
(plan=False); what never runs as a plan has one row, named without either word. Below the times
stand ratios of minima beside what the project aims at. "Best peer" is the fastest of torch (also
channels_last, also compiled) and jax at that task. timing.py says how contestants are timed.
"""

import argparse
import math
import sys
from functools import partial
from typing import Any

import models
import peers
import timing

RANK_1, DENSE, FORWARD = "planned rank-1", "planned dense", "forward"
# Ratio: (numerator, denominator, {model: (target, aim)}); "best X" is the fastest peer at X.
ALL = {name: (2.1, None) for name in models.MODELS}
ALL_DENSE = {name: (3.8, None) for name in models.MODELS}
RATIOS: dict[str, tuple[str, str, dict[str, tuple[float, float | None]]]] = {
    "rank-1 step / best backprop step": (
        RANK_1, "best backprop", {"logreg": (0.35, 0.23), "mlp": (0.6, 0.48), "cnn": (0.35, 0.25)}),
    "rank-1 step / best forward-gradient step": (
        RANK_1, "best forward gradient",
        {"logreg": (0.12, None), "mlp": (0.25, None), "cnn": (0.25, None)}),
    "rank-1 step / torch channels_last forward": (
        RANK_1, "torch channels_last forward", {"cnn": (1.2, 0.9)}),
    "dense step / best backprop step": (
        DENSE, "best backprop", {"logreg": (0.6, None), "mlp": (1.1, None), "cnn": (0.5, None)}),
    "R_f rank-1: step / own forward": (RANK_1, f"dualgrad {FORWARD}", ALL),
    "R_f rank-1: step / best forward": (RANK_1, f"best {FORWARD}", ALL),
    "R_f dense: step / own forward": (DENSE, f"dualgrad {FORWARD}", ALL_DENSE),
    "R_f dense: step / best forward": (DENSE, f"best {FORWARD}", ALL_DENSE),
    "k = 16 rank-1, a direction / own forward": (
        "planned rank-1 k=16", f"dualgrad {FORWARD}", {"mlp": (0.9, None)}),
    "k = 16 rank-1, a direction / best forward": (
        "planned rank-1 k=16", f"best {FORWARD}", {"mlp": (0.9, None)}),
    "R_b: own backprop step / own forward": ("backprop by vjp", f"dualgrad {FORWARD}", {}),
    "peers' R_f: best forward gradient / best forward": (
        "best forward gradient", f"best {FORWARD}", {}),
    "peers' R_b: best backprop / best forward": ("best backprop", f"best {FORWARD}", {}),
}  # fmt: skip


def contestants(name: str, options: argparse.Namespace) -> tuple[timing.Calls, list[str]]:
    """Return all calls for one model, and notes on what is left out."""
    model = models.build(name, options.width, options.channels)
    data = models.batch(name, options.batch)
    step = partial(models.own_step, model, data)
    own = {f"dualgrad {FORWARD}": partial(models.own_forward, model, data)}
    for method, given in methods(name, models.PLANNED, models.MORE_PLANNED).items():
        own[f"planned {method}"] = partial(step, **given)
        if options.eager:
            own[f"eager {method}"] = partial(step, plan=False, **given)
    for method, given in methods(name, models.EAGER, models.MORE_EAGER).items():
        own[method] = partial(step, **given)
    words = [word for word in (options.only or "").split(",") if word] or [""]

    def keep(contestant: str) -> bool:
        return any(word in contestant for word in words)

    calls, notes = peers.contestants(options.peers, model, data, keep)
    calls |= {contestant: make() for contestant, make in own.items() if keep(contestant)}
    return calls, notes


def methods(name: str, always: models.Methods, more: models.Methods) -> models.Methods:
    return always if name == "cnn" else always | more  # a CNN step of 16 directions takes seconds


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return for each model the times of each contestant; end if --only leaves none."""
    found = {}
    for name in models.MODELS if options.model == "all" else [options.model]:
        calls, notes = contestants(name, options)
        for note in notes:
            print(note, file=sys.stderr)
        if not calls:
            continue
        times = timing.interleaved(calls, options.rounds, options.seconds)
        for contestant, call in calls.items():
            assert math.isfinite(call()), f"{name}, {contestant}: the loss is no longer finite"
        found[name] = timing.summary(times)
    if not found:
        there = [*models.PLANNED, *models.EAGER, *peers.WHAT]
        print(f"error: --only {options.only}: no contestant has that in its name; "
              f"there are names with {', '.join(there)}", file=sys.stderr)  # fmt: skip
        sys.exit(2)
    return found


def least(figures: dict[str, Any], name: str) -> float | None:
    """Return a contestant's least time, or of "best X" the least of the peers' at X."""
    task = name.removeprefix("best ")
    if task == name:
        return figures[name]["minimum"] if name in figures else None
    theirs = [
        row["minimum"]
        for other, row in figures.items()
        if other.split()[0] in ("torch", "jax") and other.endswith(f" {task}")
    ]
    return min(theirs, default=None)


def ratios(views: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return for one model the rows of RATIOS in each view, None where a contestant is absent."""
    rows = []
    for title, (above, below, targets) in RATIOS.items():
        target, aim = targets.get(name, (None, None))
        row: dict[str, Any] = {"ratio": title, "target": target, "aim": aim}
        for view, by_model in views.items():
            top, bottom = least(by_model[name], above), least(by_model[name], below)
            if top is not None and bottom is not None:
                row[view] = top / bottom / (16 if "k=16" in above else 1)
        if set(views) & set(row):
            rows.append(row)
    return rows


def show(name: str, views: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Print the times of one model, and its ratios."""
    columns = [(view, figure) for view in views for figure in ("minimum", "median", "spread")]
    head = [f"{name}, ms", *(figure for _, figure in columns)]
    body = []
    for contestant in next(iter(views.values()))[name]:
        cells = [views[v][name].get(contestant, {}).get(f) for v, f in columns]
        scaled = [
            x if x is None or f == "spread" else 1e3 * x
            for x, (_, f) in zip(cells, columns, strict=True)
        ]
        body.append([contestant, *scaled])
    print("\n" + "; then ".join(timing.VIEWS[view] for view in views))
    print(timing.table(head, body))
    if not rows:  # of the two, --only left one out
        return
    keys = [*views, "target", "aim"]
    print(
        timing.table(
            ["ratios of minima", *keys], [[row["ratio"], *map(row.get, keys)] for row in rows]
        )
    )


def draw(figure: Any, views: dict[str, Any]) -> None:
    """Draw one panel a model: least times as bars, one colour a view."""
    by_model = next(iter(views.values()))
    grid = figure.subplots(1, len(by_model), squeeze=False)[0]
    for axes, name in zip(grid, by_model, strict=True):
        names = list(by_model[name])[::-1]
        height = 0.8 / len(views)
        for i, (view, found) in enumerate(views.items()):
            bars = [(j + i * height, found[name][c]["minimum"]) for j, c in enumerate(names)
                    if c in found[name]]  # fmt: skip
            at, long = zip(*bars, strict=True)
            axes.barh(at, [1e3 * x for x in long], height, label=timing.VIEWS[view])
        axes.set(xlabel="ms, least", title=name)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    grid[0].legend(fontsize=7)


def main() -> None:
    parser = timing.parser(__doc__, rounds=30)
    parser.add_argument("--model", choices=[*models.MODELS, "all"], default="all")
    parser.add_argument("--batch", type=timing.whole, default=64)
    parser.add_argument(
        "--width", type=timing.whole, default=1024, help="of the MLP (default: 1024)"
    )
    parser.add_argument(
        "--channels", type=timing.whole, default=64, help="of the CNN (default: 64)"
    )
    parser.add_argument("--no-eager", dest="eager", action="store_false",
                        help="leave out dualgrad with plan=False")  # fmt: skip
    parser.add_argument("--only", metavar="WORDS",
                        help="contestants whose name holds one of these, with commas")  # fmt: skip
    options = parser.parse_args()
    views = timing.views(options, lambda: measure(options))
    rows = {name: ratios(views, name) for name in next(iter(views.values()))}
    print(timing.machine_line())
    for name in rows:
        show(name, views, rows[name])
    timing.write(options, {"views": views, "ratios": rows})
    timing.figure(options.plot, lambda figure: draw(figure, views), (6 * len(rows), 6))


if __name__ == "__main__":
    main()
