"""Taylor mode to some order: dg.jet over NumPy's value alone, beside nested jvps and JAX's jet.

    python benchmarks/jet.py [--size 10000] [--order 6] [--pinned] [--json PATH] [--plot PATH]

The function is sum(tanh(x) x + exp(-x) sin(x)). "line" has x(t) = x + t v, as derivatives along a
direction need; "curve" has all coefficients of x(t) non-zero. "nested" is dg.jvp in dg.jvp, along
the same line; it grows by 2 to 3 with each order, so few rounds are taken. "jax" is the compiled
jax.experimental.jet on the curve, and "jax value" JAX's own value alone, where installed.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import peers
import timing

import dualgrad as dg

TARGET = 25.0  # a jet of order 6 over the value alone, 10,000 float64 numbers
NAMES = ("line", "curve", "nested", "jax")


def function(m: Any, x: Any) -> Any:
    return m.sum(m.tanh(x) * x + m.exp(-x) * m.sin(x))


def nested(x: np.ndarray, v: np.ndarray, order: int) -> Any:
    """Return the derivative of the given order along v, by jvp in jvp."""
    g: Callable = lambda t: function(np, x + t * v)  # noqa: E731
    for _ in range(order):
        g = partial(_slope, g)
    return g(0.0)


def _slope(g: Callable, t: Any) -> Any:
    return dg.jvp(g, (t,), (1.0,))[1]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return for each order up to the asked one the times of each contestant."""
    key, found = dg.Key(0), {}
    x = dg.random.normal(key, (options.size,))
    curve = [dg.random.normal(key.fold_in(j), x.shape) for j in range(1, options.order + 1)]
    f = partial(function, np)
    for order in range(1, options.order + 1):
        line = (curve[0], *[np.zeros_like(x)] * (order - 1))
        check(x, line)
        calls: timing.Calls = {
            "value": partial(f, x),
            "line": partial(dg.jet, f, (x,), (line,)),
            "curve": partial(dg.jet, f, (x,), (curve[:order],)),
        }
        if "jax" in peers.available(options.peers):
            calls |= jax_calls(x, curve[:order])
        times = timing.interleaved(calls, options.rounds, options.seconds)
        slow: timing.Calls = {"nested": partial(nested, x, curve[0], order)}
        times |= timing.interleaved(slow, max(3, options.rounds // 10), options.seconds)
        found[str(order)] = timing.summary(times)
    return found


def jax_calls(x: np.ndarray, curve: list[np.ndarray]) -> timing.Calls:
    """Return JAX's jet and value, compiled, in double precision."""
    import jax
    from jax.experimental.jet import jet

    jax.config.update("jax_enable_x64", True)
    f = partial(function, jax.numpy)
    at, along = jax.numpy.asarray(x), [jax.numpy.asarray(c) for c in curve]
    value, compiled = jax.jit(f), jax.jit(lambda x, series: jet(f, (x,), (series,)))
    return {
        "jax value": lambda: jax.block_until_ready(value(at)),
        "jax": lambda: jax.block_until_ready(compiled(at, along)),
    }


def check(x: np.ndarray, line: tuple) -> None:
    """Raise AssertionError unless the highest derivative is that of nested jvps."""
    few = slice(100)
    found = dg.jet(partial(function, np), (x[few],), ([c[few] for c in line],))[1][-1]
    expected = nested(x[few], line[0][few], len(line))
    assert abs(found - expected) <= 1e-9 * abs(expected), (found, expected)


def over_value(by_call: dict[str, Any], name: str) -> float | None:
    base = by_call["value" if name != "jax" or "jax value" not in by_call else "jax value"]
    return by_call[name]["minimum"] / base["minimum"] if name in by_call else None


def draw(figure: Any, views: dict[str, Any]) -> None:
    """Draw each contestant's ratio to the value alone against the order."""
    axes = figure.subplots()
    found = next(iter(views.values()))
    for name in NAMES:
        points = [(int(order), over_value(by_call, name)) for order, by_call in found.items()]
        if points[0][1] is not None:
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.axhline(TARGET, color="0.3", lw=1)
    axes.set(xlabel="order", ylabel="over the value alone", yscale="log")
    axes.legend()


def main() -> None:
    parser = timing.parser(__doc__, rounds=40)
    parser.set_defaults(seconds=5.0, peers="jax")
    parser.add_argument("--size", type=timing.whole, default=10_000, help="(default: 10,000)")
    parser.add_argument("--order", type=timing.whole, default=6, help="(default: 6)")
    options = parser.parse_args()
    views = timing.views(options, lambda: measure(options))
    print(timing.machine_line())
    for view, found in views.items():
        print(f"{timing.VIEWS[view]}; times the value alone (jax: JAX's); aim {TARGET:g} at 6")
        rows = [
            [f"order {order}", 1e3 * by_call["value"]["minimum"],
             *(over_value(by_call, name) for name in NAMES)]
            for order, by_call in found.items()
        ]  # fmt: skip
        print(timing.table(["", "value, ms", *NAMES], rows))
    timing.write(options, {"views": views})
    timing.figure(options.plot, lambda figure: draw(figure, views), (6, 4))


if __name__ == "__main__":
    sys.exit(main())
