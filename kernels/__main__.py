"""python -m dualgrad.kernels warm: compile the kernels for this CPU, so that no first use waits."""

import argparse
import sys
import time

import numpy as np

from . import dispatch, fused, threads
from .jit import NOT_KEPT


def warm() -> None:
    """Compile what numba compiles, for float32 and float64, and say how long each took."""
    from .elementwise import loops
    from .fused import program

    assert loops  # imported for what it enters into dispatch.LOOPS
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        start = time.perf_counter()
        folder = program.warm(dtype)
        for loop in dispatch.LOOPS:
            loop.prepare(dtype.char)
        print(f"{dtype}: {time.perf_counter() - start:.1f} s", flush=True)
    print(f"kept in {folder}" if folder else f"not kept, so every process compiles: {NOT_KEPT}")


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dualgrad.kernels",
        description="Compiled kernels: `warm` compiles them beforehand, `info` says how they run.",
    )
    parser.add_argument("command", choices=("warm", "info"))
    command = parser.parse_args().command
    if fused.missing():
        print(f"nothing to compile: {fused.missing()}", file=sys.stderr)
        return 1
    try:
        number = threads.num_threads()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if command == "warm":
        warm()
    else:
        print(f"vectors: {dispatch.vector_unit()}; threads: {number}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
