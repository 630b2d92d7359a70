"""What one step of training needs beside the parameters: table of methods, peak bytes.

    python benchmarks/memory.py [--layers 784,1024,1024,10] [--batch-size 64] [--json PATH]

"arrays" is tracemalloc's peak over one step, beyond what was there before it: all that NumPy
allocates. "process" is how far the first step raises the peak of the resident set, as the operating
system counts it: with what libraries allocate behind Python's back, and without pages that the
process had used before and freed. Each method runs in a process of its own, after a tiny step that
loads the code.
"""

import argparse
import json
import resource
import subprocess
import sys
import tracemalloc

import numpy as np

import dualgrad as dg
from dualgrad.kernels import dispatch

METHODS: dict[str, dict] = {
    "rank-1, k = 1": {"structure": "rank1"},
    "rank-1, k = 16": {"structure": "rank1", "directions": 16},
    "dense, k = 1": {},
    "dense, k = 16": {"directions": 16},
    "dense, k = 16 in chunks of 1": {"directions": 16, "chunk_size": 1},
    "activations, k = 1": {"perturb": "activations"},
    "activations, k = 4": {"perturb": "activations", "directions": 4},
    "backprop": {"method": "backprop"},
}


def loss(model, x: np.ndarray, y: np.ndarray):
    return dg.nn.cross_entropy(model(x), y, reduction="none")


def peak_resident() -> int:
    """Return the largest resident set that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def measure(method: str, layers: list[int], batch_size: int) -> dict:
    """Return the peaks of one step in this process, beyond what was there before it."""
    step = dg.training_step(loss, dg.optim.sgd(1e-6), **METHODS[method])
    key = dg.Key(0)

    def batch(width: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        x = dg.random.normal(key, (n, width), np.float32)
        return x, np.zeros(n, np.int64)

    dispatch.numba_use = "always"  # numba too, which otherwise loads when enough work was done
    tiny = dg.training_step(loss, dg.optim.sgd(1e-6), structure="rank1")
    for warm_up in (tiny, step):
        warm_up(warm_up.init(dg.nn.MLP([32, 32, 10], key=key), key), *batch(32, 8))
    dispatch.numba_use = "table"
    model = dg.nn.MLP(layers, key=key)
    state, data = step.init(model, key), batch(layers[0], batch_size)
    before = peak_resident()
    state, _ = step(state, *data)
    process = peak_resident() - before
    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    state, _ = step(state, *data)
    arrays = tracemalloc.get_traced_memory()[1] - start
    parameters = sum(w.nbytes for w in dg.tree.parameters(model).values())
    return {"method": method, "parameters": parameters, "arrays": arrays, "process": process}


def measure_apart(method: str, layers: str, batch_size: int) -> dict:
    """Return what `measure` gives in a fresh process."""
    command = [sys.executable, __file__, "--layers", layers, "--batch-size", str(batch_size)]
    output = subprocess.run(
        [*command, "--one", method], check=True, capture_output=True, text=True
    ).stdout
    return json.loads(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--layers", default="784,1024,1024,10", help="widths of the MLP")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", metavar="PATH", help="write the rows")
    parser.add_argument("--one", choices=METHODS, help="measure one method here, print JSON")
    options = parser.parse_args()
    if options.one:
        layers = [int(width) for width in options.layers.split(",")]
        print(json.dumps(measure(options.one, layers, options.batch_size)))
        return
    rows = [measure_apart(name, options.layers, options.batch_size) for name in METHODS]
    size = rows[0]["parameters"]
    print(f"MLP {options.layers}, batch {options.batch_size}: {size / 1e6:.2f} MB of parameters")
    print(f"{'one step':<30}{'arrays, MB':>12}{'of params':>11}{'process, MB':>13}")
    for row in rows:
        print(
            f"{row['method']:<30}{row['arrays'] / 1e6:>12.2f}{row['arrays'] / size:>11.2f}"
            f"{row['process'] / 1e6:>13.2f}"
        )
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
