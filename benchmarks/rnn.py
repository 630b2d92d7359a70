"""A recurrent network's step against the length of its sequences: peak memory and time.

    python benchmarks/rnn.py --lengths 10,30,100,300,1000 --plot rnn.png

The network and the copy task are those of examples/rnn.py, and so are the steps, optimiser
included. "arrays" is tracemalloc's peak over one step, beyond what was there before it; "resident"
is how much the peak of the resident set over steps exceeds what was resident before the network was
built, in a process of its own that ran a short sequence before (memory.py has the method), the
least of two. Times are of steps taken in turn in one process (timing.py says how).
"""

import argparse
import importlib
import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import memory
import timing

import dualgrad as dg

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
example = importlib.import_module("rnn")  # examples/rnn.py: this file is __main__

WEIGHTS, ACTIVATIONS, BACKPROP = "forward, weights", "forward, activations", "backprop"
METHODS = {
    WEIGHTS: ("--perturb", "weights"),
    ACTIVATIONS: ("--perturb", "activations"),
    BACKPROP: ("--method", "backprop"),
}
KEY = dg.Key(0)
FLAT = 1.5  # aim: arrays of a forward step of the longest sequence over those of the shortest


def stepper(name: str, length: int, given: argparse.Namespace) -> Callable[[], float]:
    """Return a call that trains once on sequences of a length."""
    chosen = ["--length", length, "--units", given.units, "--batch-size", given.batch_size]
    if name != BACKPROP and given.directions:
        chosen += ["--directions", given.directions]
    options = example.parse([*METHODS[name], *map(str, chosen)])
    symbols, alphabet = options.symbols, options.alphabet
    batch = example.copy_task(KEY, options.batch_size, symbols, alphabet, length)
    step = example.training_step(options)
    model = example.Recurrent(alphabet, options.units, symbols, length, key=KEY)
    state = step.init(model, KEY)

    def call() -> float:
        nonlocal state
        state, value = step(state, *batch)
        return float(value)

    return call


def peaks(name: str, length: int, given: argparse.Namespace) -> dict[str, int]:
    """Return peak bytes of one method at one length, measured in this process."""
    warm = stepper(name, 3, given)
    for _ in range(3):
        warm()
    del warm
    memory.forget_peak()
    before = memory.resident("VmRSS")
    call = stepper(name, length, given)
    for _ in range(2):
        call()
    found = {"resident": memory.resident("VmHWM") - before}
    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    call()
    return found | {"arrays": tracemalloc.get_traced_memory()[1] - start}


def measure(name: str, length: int, given: argparse.Namespace) -> dict[str, int]:
    """Return peak bytes, the least of two fresh processes."""
    chosen = ["--units", given.units, "--batch-size", given.batch_size, "--lengths", length]
    chosen += ["--directions", given.directions] if given.directions else []
    found = [memory.apart(__file__, "--one", name, *map(str, chosen)) for _ in range(2)]
    return {what: min(row[what] for row in found) for what in found[0]}


def draw(figure: Any, lengths: list[int], rows: dict[str, list[dict]]) -> None:
    """Draw memory and time against length, all axes logarithmic."""
    left, right = figure.subplots(1, 2)
    for i, (name, found) in enumerate(rows.items()):
        for what, style in (("arrays", "-"), ("resident", "--")):
            y = [max(row[what], 1) / 1e6 for row in found]
            left.plot(lengths, y, style, marker="o", color=f"C{i}", label=f"{name}, {what}")
        y = [1e3 * row["minimum"] for row in found]
        right.plot(lengths, y, marker="o", color=f"C{i}", label=name)
    for axes, label in ((left, "peak MB of a step"), (right, "ms a step")):
        axes.set(xscale="log", yscale="log", xlabel="blanks between string and answer")
        axes.set_ylabel(label)
        axes.grid(color="0.9")
        axes.legend(fontsize=7)


def main() -> None:
    parser = timing.parser(__doc__, rounds=7, pinned=False, peers=False)
    parser.add_argument("--lengths", type=timing.wholes,
                        default=[10, 30, 100, 300, 1000], metavar="N,N")  # fmt: skip
    parser.add_argument("--units", type=timing.whole, default=16)
    parser.add_argument("--batch-size", type=timing.whole, default=16)
    parser.add_argument("--directions", type=timing.whole, help="default: those of the example")
    parser.add_argument("--one", metavar="METHOD", help="measure its memory here, print JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(peaks(given.one, given.lengths[0], given)))
        return
    rows: dict[str, list[dict]] = {name: [] for name in METHODS}
    for length in given.lengths:
        calls = {name: stepper(name, length, given) for name in METHODS}
        times = timing.summary(timing.interleaved(calls, given.rounds, given.seconds))
        for name in METHODS:
            row = {"length": length, **measure(name, length, given), **times[name]}
            rows[name].append(row)
    print(timing.machine_line())
    print(f"{given.units} units, batch {given.batch_size}; one step")
    for what, unit in (("arrays", 1e-6), ("resident", 1e-6), ("minimum", 1e3)):
        head = f"length; {'ms' if what == 'minimum' else f'peak MB, {what}'}"
        body = [
            [str(n), *(rows[name][i][what] * unit for name in METHODS)]
            for i, n in enumerate(given.lengths)
        ]
        print(timing.table([head, *METHODS], body, 21))
    growth = {name: found[-1]["arrays"] / found[0]["arrays"] for name, found in rows.items()}
    shown = ", ".join(f"{name} {ratio:.3g}" for name, ratio in growth.items())
    print(f"arrays, longest over shortest: {shown} (aim for {WEIGHTS}: {FLAT})")
    timing.write(given, {"rows": rows, "growth": growth})
    timing.figure(given.plot, lambda figure: draw(figure, given.lengths, rows), (11, 4.5))


if __name__ == "__main__":
    main()
