"""Write docs/jet.md: Taylor mode, and which operations take a series in which way.

python tools/jet_page.py
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "jet.md"
HEAD = """# Taylor mode

`dg.jet(f, primals, series)` gives derivatives of any order along a curve, in one pass:

```python
import numpy as np
import dualgrad as dg

y, (first, second, third) = dg.jet(np.sin, (0.5,), ((1.0, 0.0, 0.0),))
```

The curve is x(t) = x + series[0] t + series[1] t**2 / 2! + ...; all coefficients, in and out, are
derivatives. For derivatives along a straight line give (v, 0, 0, ...); zeros at the end cost
nothing. `series` has one sequence of n coefficients for each primal, or `None` where it does not
move. Trees are taken and given as by `dg.jvp`: the result is a list of n trees like that of f. A
jet may run inside any other transform, and any other inside it.

`dg.laplacian(f)(x)` is the trace of the Hessian by one jet of order 2 for each entry of x, and
`dg.laplacian(f, directions=m, key=key)(x)` an unbiased estimate by m of them.

## Cost

Order n takes O(n**2) where nested jvps take 2**n or more. For sum(tanh(x) x + exp(-x) sin(x)) on
10,000 numbers `python benchmarks/jet.py` prints the times over the value alone: at order 6 they
are 10.6 along a line, 19.5 along a curve, and 474 by nested jvps (two cores, 2026-11-21).

A function whose slope contains the function itself, and which has no recurrence, takes n rounds:
O(n**3). Orders are limited by n! in the dtype: 170 in float64, 34 in float32, 8 in float16.

## Where there is no derivative

docs/conventions.md holds at every order. Where a slope is not finite, neither are the coefficients
from there on; which of them are infinite and which NaN differs between ways to compute them.

## Coverage

Every operation of docs/operations.md takes a series; tests compare each with nested jvps. How, is
in the lists below, made by `python tools/jet_page.py` from runs of the operation table; a test
fails when they are stale. Where an operation is composed of others, the dearest of their ways
counts. What has no rule raises `MissingRuleError`, as everywhere.
"""
TEXTS = {
    "linear": "## Linear\n\nEach coefficient is moved as a tangent is.",
    "product rule": "## Product rule\n\nLinear in each of several arguments.",
    "recurrence": "## Recurrences\n\nEach coefficient from those before, by a formula of its own.",
    "derivative rule": "## Derivative rules\n\nThe series of the slope, by the operation's own "
    "derivative rule, integrated.",
}


def coverage() -> dict[str, str]:
    """Return for each operation of the table, by name, the dearest way that it took."""
    from jet_case import ONE_EACH, WAYS, curve, drawn, ways

    from dualgrad import jet
    from dualgrad.operations import OPERATIONS

    found = {}
    for case in ONE_EACH:
        args = drawn(case)
        with ways() as met:
            jet(case.call, args, curve(args, 2))
        way = max(met, key=WAYS.index, default=WAYS[0])
        found[OPERATIONS[case.operation].name] = way
    return found


def page(found: dict[str, str]) -> str:
    """Return the text of docs/jet.md for what `coverage` found."""
    parts = [HEAD]
    for way, text in TEXTS.items():
        names = sorted(f"`{name}`" for name, its in found.items() if its == way)
        parts.append(f"\n{text}\n\n{', '.join(names)}.\n")
    return "".join(parts)


def written() -> dict[str, str]:
    """Return the coverage that docs/jet.md says."""
    text = PAGE.read_text()
    lists = re.split(r"^## ", text, flags=re.M)[-len(TEXTS) :]
    return {
        name: way
        for way, names in zip(TEXTS, lists, strict=True)
        for name in re.findall(r"`([^`]+)`", names)
    }


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    PAGE.write_text(page(coverage()))
    print(PAGE)
