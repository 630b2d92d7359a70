"""What the Jacobian of a map from 10,000 to 1,000 numbers takes beside the output itself.

    python benchmarks/jacobian.py [--json PATH]

"extra" is tracemalloc's peak while the Jacobian is computed, beyond what was there before. The
output and the tangents of one pass, chunk_size rows of the argument's size, must be held by any
such computation; the last column divides by their sum. Times are minima.
"""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import timing

import dualgrad as dg


def maps(inputs: int, outputs: int) -> dict[str, Callable]:
    """Return functions from `inputs` numbers to `outputs`, a divisor, by name."""
    w = np.random.default_rng(0).normal(size=(outputs, inputs)) / inputs**0.5
    return {
        "tanh(w @ x)": lambda x: np.tanh(w @ x),
        "sum(x * sin(x), groups)": lambda x: np.sum(
            np.reshape(x * np.sin(x), (outputs, inputs // outputs)), 1
        ),
    }


def peak(call: Callable[[], Any]) -> int:
    """Return the most bytes that a call holds at a time, its result included."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    result = call()
    most = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    del result
    return most


def measure(inputs: int, outputs: int, chunks: list[int], rounds: int) -> list[dict[str, Any]]:
    """Return for each map and chunk_size the seconds, the peak, and what must be held."""
    x = np.random.default_rng(1).normal(size=inputs)
    rows: list[dict[str, Any]] = []
    for name, function in maps(inputs, outputs).items():
        for chunk in chunks:
            jacobian = dg.jacobian(function, chunk_size=chunk)
            best = min(timing.seconds_of(lambda j=jacobian: j(x), 1) for _ in range(rounds))
            held = 8 * (inputs * outputs + chunk * inputs)
            most = peak(lambda j=jacobian: j(x))
            rows.append({"map": name, "chunk_size": chunk, "seconds": best, "extra": most,
                         "held": held, "ratio": most / held})  # fmt: skip
    return rows


def main() -> None:
    parser = timing.parser(__doc__, plot=False, peers=False, pinned=False)
    parser.add_argument("--inputs", type=timing.whole, default=10_000)
    parser.add_argument("--outputs", type=timing.whole, default=1_000, help="a divisor of inputs")
    parser.add_argument("--chunks", type=timing.wholes, default=[64], metavar="N,N")
    parser.add_argument("--rounds", type=timing.whole, default=1)
    options = parser.parse_args()
    if options.inputs % options.outputs:
        parser.error("--outputs must divide --inputs")
    rows = measure(options.inputs, options.outputs, options.chunks, options.rounds)
    print(timing.machine_line())
    head = ["map", "chunk_size", "s", "extra MB", "held MB", "extra / held"]
    body = [
        [r["map"], r["chunk_size"], r["seconds"], r["extra"] / 1e6, r["held"] / 1e6, r["ratio"]]
        for r in rows
    ]
    print(timing.table(head, body, 12))
    timing.write(options, {"rows": rows})


if __name__ == "__main__":
    main()
