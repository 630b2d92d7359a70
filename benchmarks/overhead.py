"""What dualgrad costs before it computes: its import, and one operation on a 0-d dual.

python benchmarks/overhead.py
"""

import subprocess
import sys
import timeit

import numpy as np

import dualgrad as dg

IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
OPERATIONS = {
    "np.exp(x)": lambda x: np.exp(x),
    "np.tanh(x)": lambda x: np.tanh(x),
    "x + x": lambda x: x + x,
    "x * x": lambda x: x * x,
    "x * 2.0": lambda x: x * 2.0,
    "np.sum(x)": lambda x: np.sum(x),
}


def import_seconds(module: str, rounds: int = 15) -> float:
    """Return the least time that a fresh interpreter takes to import a module."""
    command = [sys.executable, "-c", IMPORT.format(module)]
    return min(float(subprocess.check_output(command)) for _ in range(rounds))


def main() -> None:
    numpy, ours = import_seconds("numpy"), import_seconds("dualgrad")
    print(
        f"import numpy {numpy:.3f} s, import dualgrad {ours:.3f} s, difference {ours - numpy:.3f} s"
    )
    x = dg.dual(1.0, 1.0)
    print(f"{'one operation, us':20}{'NumPy':>8}{'dual':>8}")
    for name, operation in OPERATIONS.items():
        plain, dual = (
            1e6 * min(timeit.repeat(lambda v=v, f=operation: f(v), number=2000, repeat=15)) / 2000
            for v in (np.float64(1.0), x)
        )
        print(f"{name:20}{plain:8.2f}{dual:8.2f}")


if __name__ == "__main__":
    main()
