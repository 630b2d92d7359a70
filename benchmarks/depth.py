"""Deep MLPs: time and peak memory of a step against depth, beside torch and its checkpointing.

    python benchmarks/depth.py --depths 1,2,5,10,20,50,100 --pinned --plot depth.png

Depth is the number of hidden layers of --width units. Times are of steps taken in turn in one
process (timing.py says how); checkpointing keeps the activations of about sqrt(layers) layers.
Memory is the peak of the resident set in a process of its own, over steps after the first, less
what was there before the model was built and one copy of the parameters, by the same method for all
(memory.py).
"""

import argparse
import functools
import json
from typing import Any

import memory
import models
import peers
import timing

import dualgrad as dg

CONTESTANTS = ("planned rank-1, k = 1", "planned dense, k = 1", "torch backprop",
               "torch checkpointed backprop")  # fmt: skip
TARGETS = {"torch backprop": 0.65, "torch checkpointed backprop": 0.45}  # rank-1 at depth 10
MEMORY_TARGET = 1.2  # rank-1, depth 100 over depth 2


def network(depth: int, width: int) -> dg.nn.MLP:
    return dg.nn.MLP([784, *[width] * depth, 10], key=models.KEY)


def times(options: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """Return for each depth the times of each contestant."""
    data, found = models.batch("mlp", options.batch), {}
    for depth in options.depths:
        model = network(depth, options.width)
        calls = {name: memory.maker(name)(model, data) for name in names}
        del model
        if any(name.startswith("torch") for name in names):
            compare(calls)
        measured = timing.interleaved(calls, options.rounds, options.seconds)
        found[str(depth)] = timing.summary(measured)
    return found


def compare(calls: timing.Calls) -> None:
    """Raise AssertionError unless all contestants begin at the same loss."""
    losses = {name: call() for name, call in calls.items()}
    first = next(iter(losses.values()))
    assert all(abs(x - first) <= 1e-4 * abs(first) for x in losses.values()), losses


def peak(options: argparse.Namespace, name: str, depth: int) -> int:
    """Return peak bytes beyond the parameters, the least of two fresh processes."""
    given = ("--width", str(options.width), "--batch", str(options.batch))
    arguments = (__file__, "--one", name, "--depths", str(depth), *given)
    return min(memory.apart(*arguments)["later"] for _ in range(2))


def ratios(options: argparse.Namespace, views: dict[str, Any], bytes_: dict[str, Any]) -> list:
    """Return rank-1 over each torch contestant at each depth, and memory over depth 2's."""
    ours, rows = CONTESTANTS[0], []
    for depth in map(str, options.depths):
        row: dict[str, Any] = {"depth": int(depth)}
        for view, found in views.items():
            figures = found[depth]
            for other in figures:
                if other.startswith("torch"):
                    ratio = figures[ours]["minimum"] / figures[other]["minimum"]
                    row[f"{view}, over {other}"] = ratio
        if bytes_ and "2" in bytes_:
            row["memory over depth 2"] = bytes_[depth][ours] / bytes_["2"][ours]
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the ratios there are, under what is aimed at."""
    columns = list(rows[-1])[1:]
    for other, target in TARGETS.items():
        if any(column.endswith(other) for column in columns):
            print(f"rank-1 over {other}: aim at depth 10 {target}")
    if "memory over depth 2" in columns:
        print(f"memory at depth 100 over depth 2: aim {MEMORY_TARGET}")
    for row in rows if columns else []:
        print(f"  depth {row['depth']:>3}: " + ", ".join(f"{c} {row[c]:.2f}" for c in columns))


def draw(figure: Any, options: argparse.Namespace, views: dict, bytes_: dict) -> None:
    """Draw time and memory against depth, both axes logarithmic."""
    left, right = figure.subplots(1, 2)
    names = list(next(iter(next(iter(views.values())).values())))
    for i, name in enumerate(names):
        for view, style in zip(views, ("-", "--"), strict=False):
            y = [1e3 * views[view][str(d)][name]["minimum"] for d in options.depths]
            label = f"{name}, {timing.VIEWS[view]}"
            left.plot(options.depths, y, style, marker="o", color=f"C{i}", label=label)
        if bytes_:
            y = [max(bytes_[str(d)][name], 1) / 1e6 for d in options.depths]
            right.plot(options.depths, y, marker="o", color=f"C{i}", label=name)
    for axes, label in ((left, "ms a step"), (right, "peak MB beyond the parameters")):
        axes.set(xscale="log", yscale="log", xlabel="hidden layers", ylabel=label)
        axes.set_xticks(options.depths, options.depths)
        axes.minorticks_off()
        axes.grid(color="0.9")
    left.legend(fontsize=7)


def main() -> None:
    parser = timing.parser(__doc__, rounds=10)
    parser.set_defaults(peers="torch", seconds=60.0)
    parser.add_argument("--depths", type=timing.wholes,
                        default=[1, 2, 5, 10, 20, 50, 100], metavar="N,N")  # fmt: skip
    parser.add_argument("--width", type=timing.whole, default=1024)
    parser.add_argument("--batch", type=timing.whole, default=64)
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="times alone")
    parser.add_argument("--one", choices=CONTESTANTS, help="measure its memory here, print JSON")
    options = parser.parse_args()
    if options.one:
        build = functools.partial(network, options.depths[0], options.width)
        data = models.batch("mlp", options.batch)
        print(json.dumps(memory.peaks(build, data, memory.maker(options.one))))
        return
    present = peers.available(options.peers)
    names = [n for n in CONTESTANTS if n.startswith("planned") or "torch" in present]
    views = timing.views(options, lambda: times(options, names))
    bytes_ = {}
    if options.memory and not timing.PINNED:
        bytes_ = {str(d): {n: peak(options, n, d) for n in names} for d in options.depths}
    rows = ratios(options, views, bytes_)
    print(timing.machine_line())
    for view, found in views.items():
        body = [[d, *(1e3 * found[d][name]["minimum"] for name in names)] for d in found]
        print(timing.table([f"depth; ms a step, {timing.VIEWS[view]}", *names], body, 28))
    if bytes_:
        body = [[d, *(bytes_[d][name] / 1e6 for name in names)] for d in bytes_]
        print(timing.table(["depth; peak MB beyond the parameters", *names], body, 28))
    show(rows)
    timing.write(options, {"views": views, "memory": bytes_, "ratios": rows})
    timing.figure(options.plot, lambda figure: draw(figure, options, views, bytes_), (11, 4.5))


if __name__ == "__main__":
    main()
