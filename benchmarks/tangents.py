"""What k directions in one step cost: time a direction over the loss alone, dense and rank-1.

    python benchmarks/tangents.py --k 1,4,16,64

All k tangents share the weights and one pass over the batch. Drawing and update are included. A
peer's step has one direction; the last rows give it for comparison.
"""

import argparse
import sys
from typing import Any

import models
import peers
import timing


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the times of the forward pass, and of each structure at each k."""
    model = models.build(options.model, options.width, options.channels)
    data = models.batch(options.model, options.batch)
    calls, notes = peers.contestants(
        options.peers, model, data, keep=lambda name: not name.endswith("backprop")
    )
    for note in notes:
        print(note, file=sys.stderr)
    calls["dualgrad forward"] = models.own_forward(model, data)
    for structure in ("rank1", "dense"):
        for k in options.k:
            calls[f"{structure} k={k}"] = models.own_step(
                model, data, structure=structure, directions=k
            )
    return timing.summary(timing.interleaved(calls, options.rounds, options.seconds))


def ratios(views: dict[str, Any], ks: list[int]) -> list[dict[str, Any]]:
    """Return for each structure and k the time a direction over forward passes, in each view."""
    rows = []
    for structure in ("rank1", "dense"):
        for k in ks:
            row: dict[str, Any] = {"structure": structure, "k": k}
            for view, found in views.items():
                own = found["dualgrad forward"]["minimum"]
                forwards = [found[n]["minimum"] for n in found if n.endswith("forward")]
                step = found[f"{structure} k={k}"]["minimum"] / k
                row[view] = {"ms": 1e3 * step, "own": step / own, "best": step / min(forwards)}
            rows.append(row)
    return rows


def draw(figure: Any, views: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Draw the time a direction over the own forward pass against k."""
    axes = figure.subplots()
    for structure in ("rank1", "dense"):
        for view, style in zip(views, ("-", "--"), strict=False):
            points = [(row["k"], row[view]["own"]) for row in rows if row["structure"] == structure]
            label = f"{structure}, {timing.VIEWS[view]}"
            axes.plot(*zip(*points, strict=True), style, marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="directions k",
             ylabel="time a direction over a forward pass")  # fmt: skip
    axes.grid(color="0.9")
    axes.legend()


def main() -> None:
    parser = timing.parser(__doc__, rounds=15)
    parser.add_argument("--k", type=timing.wholes, default=[1, 4, 16, 64], metavar="K,K")
    parser.add_argument("--model", choices=models.MODELS, default="mlp")
    parser.add_argument("--batch", type=timing.whole, default=64)
    parser.add_argument(
        "--width", type=timing.whole, default=1024, help="of the MLP (default: 1024)"
    )
    parser.add_argument(
        "--channels", type=timing.whole, default=64, help="of the CNN (default: 64)"
    )
    options = parser.parse_args()
    views = timing.views(options, lambda: measure(options))
    rows = ratios(views, options.k)
    print(timing.machine_line())
    for view, found in views.items():
        print(f"\n{options.model}, {timing.VIEWS[view]}")
        head = ["", "ms/direction", "/ own fwd", "/ best fwd", "spread"]
        body = []
        for row in rows:
            name = f"{row['structure']} k={row['k']}"
            body.append([name, *row[view].values(), found[name]["spread"]])
        for name, figures in found.items():
            if name.startswith(("torch", "jax", "dualgrad")):
                ms = 1e3 * figures["minimum"]
                own = figures["minimum"] / found["dualgrad forward"]["minimum"]
                body.append([name, ms, own, None, figures["spread"]])
        print(timing.table(head, body, 12))
    timing.write(options, {"views": views, "ratios": rows})
    timing.figure(options.plot, lambda figure: draw(figure, views, rows), (6, 4.5))


if __name__ == "__main__":
    main()
