"""What the tests of Taylor mode share with the page about it: cases drawn once, and an oracle."""

import contextlib
import zlib
from collections import Counter

import numpy as np
from ops_case import Case
from ops_table import CASES

import dualgrad as dg
from dualgrad.jet import series


def _plainness(case: Case) -> tuple:
    return case.call is not case.operation, len(case.name), case.name


ONE_EACH = list({c.operation: c for c in sorted(CASES, key=_plainness, reverse=True)}.values())
WAYS = ("linear", "product rule", "recurrence", "derivative rule")  # in order of rising cost


def drawn(case: Case, imaginary: bool = False) -> tuple:
    """Return arguments of a case, the same at every call; axes have lengths from 2 to 4."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    sizes: dict[str, int] = {}
    found = []
    for argument in case.arguments:
        shape = tuple(
            int(s) if s.isdigit() else sizes.setdefault(s, 2 + len(sizes) % 3)
            for s in argument.shape.split()
        )
        n = int(np.prod(shape))
        places = (rng.permutation(n) + rng.uniform(0.3, 0.7, n)) / max(n, 1)  # all distinct
        x = (argument.low + (argument.high - argument.low) * places).reshape(shape)
        found.append((x + 1j * rng.uniform(-0.3, 0.3, shape) if imaginary else x)[()])
    return tuple(found)


def curve(args: tuple, order: int) -> list:
    """Return for each argument coefficients of a curve through it that bends."""
    rng = np.random.default_rng(order)
    found = []
    for x in args:
        v, w = (rng.normal(size=np.shape(x)) for _ in range(2))
        found.append([0.3 * v, 0.4 * w, *[np.zeros(np.shape(x))] * order][:order])
    return found


def nested(f, args: tuple, along: list, order: int):
    """Return the derivative of f of an order along the curve, by so many nested jvps."""

    def g(t):
        moved = [
            x + sum(t**j / (j + 1) * c for j, c in enumerate(cs[:2])) * t
            for x, cs in zip(args, along, strict=True)
        ]
        return f(*moved)

    for _ in range(order):
        g = _slope(g)
    return g(0.0)


def _slope(g):
    return lambda t: dg.jvp(g, (t,), (1.0,))[1]


@contextlib.contextmanager
def ways():
    """Give a count of the ways, of WAYS, that primitives take series while the context is open."""
    met: Counter[str] = Counter()
    result = series.Call.result

    def spy(call):
        found = result(call)
        met[call.way] += 1
        return found

    series.Call.result = spy  # type: ignore[method-assign]
    try:
        yield met
    finally:
        series.Call.result = result  # type: ignore[method-assign]
