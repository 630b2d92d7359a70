"""Chains of elementwise functions: value, and value with tangent, over NumPy's value alone.

    python benchmarks/elementwise.py [--size 100000] [--pinned] [--json PATH] [--plot PATH]

"plain" is the expression on arrays as NumPy runs it, "jvp" is dg.jvp along one direction; beside
them torch.func.jvp and the compiled jax.jvp, where installed. "alone" is NumPy in a process without
dualgrad: with dualgrad the allocator keeps the memory of large temporaries, and NumPy gains too.
overhead.py has the cost of an operation on a single number.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import peers
import timing

import dualgrad as dg

CHAINS: dict[str, Callable[[Any, Any], Any]] = {
    "sum(tanh(x) x + exp(-x))": lambda m, x: m.sum(m.tanh(x) * x + m.exp(-x)),
    "sum(exp(x))": lambda m, x: m.sum(m.exp(x)),
    "sum(tanh(x))": lambda m, x: m.sum(m.tanh(x)),
    "sum(log(x x + 1))": lambda m, x: m.sum(m.log(x * x + 1)),
    "sum(x x x)": lambda m, x: m.sum(x * x * x),
    "sum(sin(x) exp(-x x))": lambda m, x: m.sum(m.sin(x) * m.exp(-(x * x))),
}
TARGET = 1.3  # value and tangent of the first chain, float64, 100,000 numbers
PEERS = ("torch", "jax")
ALONE = """
import timeit, numpy as np
x = np.random.default_rng(0).standard_normal({size}).astype("{dtype}")
call = lambda: np.sum(np.tanh(x) * x + np.exp(-x))
number = 1 + 2_000_000 // {size}
print(min(timeit.repeat(call, number=number, repeat=15)) / number)
"""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return for each dtype and chain the times of plain value and jvp."""
    found, names = {}, peers.available(options.peers)
    for dtype in (np.float64, np.float32):
        key = dg.Key(0)
        x = dg.random.normal(key, (options.size,), dtype)
        v = dg.random.rademacher(key.fold_in("v"), (options.size,), dtype)
        for name, written in CHAINS.items():
            chain = partial(written, np)
            check(chain, x, v)
            calls = {"plain": partial(chain, x), "jvp": partial(dg.jvp, chain, (x,), (v,))}
            calls |= peer_calls(names, written, x, v)
            times = timing.interleaved(calls, options.rounds, options.seconds)
            found[f"{np.dtype(dtype).name} {name}"] = timing.summary(times)
    return found


def peer_calls(names: list[str], written: Callable, x: Any, v: Any) -> timing.Calls:
    """Return the same jvp by those of torch and jax that are named."""
    calls: timing.Calls = {}
    if "torch" in names:
        import torch

        f, at, along = partial(written, torch), torch.from_numpy(x), torch.from_numpy(v)
        calls["torch"] = lambda: torch.func.jvp(f, (at,), (along,))
    if "jax" in names:
        import jax

        jax.config.update("jax_enable_x64", True)
        jvp = jax.jit(lambda x, v: jax.jvp(partial(written, jax.numpy), (x,), (v,)))
        arguments = jax.numpy.asarray(x), jax.numpy.asarray(v)
        calls["jax"] = lambda: jax.block_until_ready(jvp(*arguments))
    return calls


def alone(size: int, dtype: str) -> float:
    """Return the seconds that the first chain's value takes NumPy in a process of its own."""
    command = [sys.executable, "-c", ALONE.format(size=size, dtype=dtype)]
    return float(subprocess.check_output(command))


def check(chain: Callable[[Any], Any], x: np.ndarray, v: np.ndarray) -> None:
    """Raise AssertionError unless jvp gives the plain value, and the difference along v."""
    value, tangent = dg.jvp(chain, (x,), (v,))
    assert abs(value - chain(x)) <= 1e-4 * np.sum(np.abs(x)), (value, chain(x))
    wide, h = x.astype(np.float64), 1e-5
    expected = (chain(wide + h * v) - chain(wide - h * v)) / (2 * h)
    assert abs(tangent - expected) <= 1e-4 * (abs(expected) + len(x) ** 0.5), (tangent, expected)


def draw(figure: Any, views: dict[str, Any]) -> None:
    """Draw the ratio jvp over plain value of each chain as bars."""
    axes = figure.subplots()
    names = list(next(iter(views.values())))[::-1]
    height = 0.8 / len(views)
    for i, (view, found) in enumerate(views.items()):
        ratios = [found[n]["jvp"]["minimum"] / found[n]["plain"]["minimum"] for n in names]
        at = [j + i * height for j in range(len(names))]
        axes.barh(at, ratios, height, label=timing.VIEWS[view])
    axes.axvline(TARGET, color="0.3", lw=1)
    axes.set(xlabel="value and tangent, over NumPy's value alone")
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.legend(fontsize=7)


def main() -> None:
    parser = timing.parser(__doc__, rounds=40)
    parser.set_defaults(seconds=5.0, peers="torch,jax")
    parser.add_argument(
        "--size", type=timing.whole, default=100_000, help="numbers (default: 100,000)"
    )
    options = parser.parse_args()
    by_itself = {dtype: alone(options.size, dtype) for dtype in ("float64", "float32")}
    views = timing.views(options, lambda: measure(options))
    print(timing.machine_line())
    for view, found in views.items():
        rows = []
        for name, by_call in found.items():
            plain, jvp = by_call["plain"], by_call["jvp"]
            times = [1e3 * plain["minimum"], 1e3 * jvp["minimum"]]
            others = [1e3 * by_call[n]["minimum"] if n in by_call else None for n in PEERS]
            ratio = jvp["minimum"] / plain["minimum"]
            rows.append([name, *times, ratio, jvp["spread"], *others])
        print(f"{timing.VIEWS[view]}; aim {TARGET} for the first")
        print(timing.table(["ms, least", "plain", "jvp", "jvp/plain", "spread", *PEERS], rows))
        for dtype, seconds in by_itself.items():
            ratio = next(v for n, v in found.items() if dtype in n)["jvp"]["minimum"] / seconds
            print(f"the first, {dtype}, plain alone: {1e3 * seconds:.3g} ms, jvp/alone {ratio:.3g}")
    timing.write(options, {"views": views, "alone": by_itself})
    timing.figure(options.plot, lambda figure: draw(figure, views), (8, 5))


if __name__ == "__main__":
    main()
