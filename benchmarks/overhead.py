"""What dualgrad costs before it computes: import, one operation on a number, the first step.

    python benchmarks/overhead.py [--json PATH]

The first step is one of the MLP 784-1024-1024-10 with a rank-1 direction, from the start of the
process to the loss: "cold" with an empty cache of compiled kernels, "warm" with what the cold run
left in it. Python may keep its bytecode, as it does of what is installed.
"""

import os
import subprocess
import sys
import tempfile
import time
import timeit

import numpy as np
import timing

import dualgrad as dg

ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
FIRST_STEP = """
import numpy as np, dualgrad as dg
loss = lambda model, x, y: dg.nn.cross_entropy(model(x), y, reduction="none")
step = dg.training_step(loss, dg.optim.sgd(1e-4), structure="rank1")
state = step.init(dg.nn.MLP([784, {width}, {width}, 10], key=dg.Key(0)), dg.Key(1))
state, value = step(state, np.ones((64, 784), np.float32), np.arange(64) % 10)
"""
OPERATIONS = {
    "np.exp(x)": lambda x: np.exp(x),
    "np.tanh(x)": lambda x: np.tanh(x),
    "x + x": lambda x: x + x,
    "x * x": lambda x: x * x,
    "x * 2.0": lambda x: x * 2.0,
    "np.sum(x)": lambda x: np.sum(x),
}


def import_seconds(module: str, rounds: int) -> float:
    """Return the least time that a fresh interpreter takes to import a module."""
    command = [sys.executable, "-c", IMPORT.format(module)]
    return min(float(subprocess.check_output(command, env=ENVIRONMENT)) for _ in range(rounds))


def first_step_seconds(width: int) -> dict[str, float]:
    """Return the seconds from a process's start to its end after one step, cold and then warm."""
    found = {}
    command = [sys.executable, "-c", FIRST_STEP.format(width=width)]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cold", "warm"):
            start = time.perf_counter()
            environment = {**ENVIRONMENT, "NUMBA_CACHE_DIR": folder}
            subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
            found[name] = time.perf_counter() - start
    return found


def main() -> None:
    parser = timing.parser(__doc__, plot=False, peers=False, pinned=False)
    parser.add_argument("--rounds", type=timing.whole, default=15, help="imports and repeats")
    parser.add_argument(
        "--width", type=timing.whole, default=1024, help="of the MLP (default: 1024)"
    )
    options = parser.parse_args()
    imports = {name: import_seconds(name, options.rounds) for name in ("numpy", "dualgrad")}
    numpy, ours = imports.values()
    print(timing.machine_line())
    print(
        f"import numpy {numpy:.3f} s, import dualgrad {ours:.3f} s, difference {ours - numpy:.3f} s"
    )
    first = first_step_seconds(options.width)
    print(f"first step: cold {first['cold']:.1f} s, warm {first['warm']:.1f} s")
    x = dg.dual(1.0, 1.0)
    rows = []
    for name, operation in OPERATIONS.items():
        plain, dual = (
            1e6
            * min(timeit.repeat(lambda v=v, f=operation: f(v), number=2000, repeat=options.rounds))
            / 2000
            for v in (np.float64(1.0), x)
        )
        rows.append([name, plain, dual])
    print(timing.table(["one operation, us", "NumPy", "dual"], rows))
    operations = {name: {"numpy": plain, "dual": dual} for name, plain, dual in rows}
    content = {"import": imports, "first_step": first, "operations_us": operations}
    timing.write(options, content)


if __name__ == "__main__":
    main()
