"""The sparse Jacobian of a reaction and diffusion of two fields, over one evaluation.

    python benchmarks/sparse.py [--side 224] [--json PATH]

The Brusselator on a periodic grid, its Laplacian written in three ways. "again" is a call of
sparse_jacobian with the Coloring at hand, over the time of one evaluation; "first" is a call that
also finds the pattern and the colours, in seconds. Times are minima of interleaved rounds; "CPU" is
the ratio of processor time, which a busy machine disturbs less. Of a small grid the matrix is
compared with the dense Jacobian.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import timing

import dualgrad as dg


def rolled(u: Any) -> Any:
    return np.roll(u, 1, 0) + np.roll(u, -1, 0) + np.roll(u, 1, 1) + np.roll(u, -1, 1) - 4 * u


def framed(u: Any) -> Any:
    """The Laplacian by slices of an array with a periodic frame."""
    p = np.concatenate([u[-1:], u, u[:1]], 0)
    p = np.concatenate([p[:, -1:], p, p[:, :1]], 1)
    return p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * u


def written(u: Any) -> Any:
    """The Laplacian by writing into slices."""
    out = -4 * u
    for axis in (0, 1):
        a, v = np.swapaxes(out, 0, axis), np.swapaxes(u, 0, axis)
        a[1:] += v[:-1]
        a[:-1] += v[1:]
        a[0] += v[-1]
        a[-1] += v[0]
    return out


LAPLACIANS: dict[str, Callable] = {"np.roll": rolled, "slices": framed, "in place": written}


def brusselator(laplacian: Callable) -> Callable:
    """Return f of the state (2, side, side)."""

    def f(state: Any) -> Any:
        u, v = state[0], state[1]
        reaction = u * u * v
        return np.stack([
            0.02 * laplacian(u) + reaction - 4.4 * u + 1.0,
            0.02 * laplacian(v) - reaction + 3.4 * u,
        ])  # fmt: skip

    return f


def agrees(f: Callable) -> float:
    """Return the largest difference from the dense Jacobian, on a grid of 7 x 6."""
    x = np.random.default_rng(0).normal(size=(2, 7, 6))
    dense = np.reshape(dg.jacobian(f)(x), (x.size, x.size))
    return float(np.max(np.abs(dg.sparse_jacobian(f)(x).toarray() - dense)))


def processor(call: Callable[[], Any], repeats: int) -> float:
    """Return the processor's seconds for a call, the least of five runs of many."""
    runs = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(repeats):
            call()
        runs.append((time.process_time() - start) / repeats)
    return min(runs)


def measure(side: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each way of writing the Laplacian."""
    x = np.random.default_rng(1).normal(size=(2, side, side))
    rows = []
    for name, laplacian in LAPLACIANS.items():
        f = brusselator(laplacian)
        start = time.perf_counter()
        pattern = dg.sparsity(f)(x)
        found = time.perf_counter()
        coloring = dg.Coloring(pattern)
        coloured = time.perf_counter()
        again = dg.sparse_jacobian(f, coloring)
        again(x)  # the first call checks the pattern
        calls = {"f": lambda f=f: f(x), "again": lambda j=again: j(x)}
        best = {n: found["minimum"] for n, found in
                timing.summary(timing.interleaved(calls, rounds)).items()}  # fmt: skip
        rows.append({
            "laplacian": name, "unknowns": x.size, "colours": coloring.count,
            "entries": int(pattern.nnz), "f_ms": 1e3 * best["f"],
            "again": best["again"] / best["f"],
            "again_cpu": processor(calls["again"], 8) / processor(calls["f"], 80),
            "pattern_s": found - start, "colouring_s": coloured - found,
            "difference": agrees(f),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = timing.parser(__doc__, plot=False, peers=False, pinned=False)
    parser.add_argument("--side", type=timing.whole, default=224, help="of the grid (default: 224)")
    parser.add_argument("--rounds", type=timing.whole, default=15)
    options = parser.parse_args()
    rows = measure(options.side, options.rounds)
    print(timing.machine_line())
    print(f"{rows[0]['unknowns']:,} unknowns")
    head = ["Laplacian", "colours", "f, ms", "again / f", "CPU", "first, s", "difference"]
    body = [
        [r["laplacian"], r["colours"], r["f_ms"], r["again"], r["again_cpu"],
         r["pattern_s"] + r["colouring_s"] + 1e-3 * r["again"] * r["f_ms"], r["difference"]]
        for r in rows
    ]  # fmt: skip
    print(timing.table(head, body, 12))
    timing.write(options, {"rows": rows})


if __name__ == "__main__":
    main()
