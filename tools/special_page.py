"""Write docs/special.md, what has a rule in dg.special, by trying every argument of every function.

python tools/special_page.py
"""

import re
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np

import dualgrad as dg
from dualgrad import special
from dualgrad.special import rules

PAGE = Path(__file__).parent.parent / "docs" / "special.md"
HEAD = """# scipy.special for duals

Made from the tables of `dualgrad/special/` by `python tools/special_page.py`; a test compares the
two. scipy is an extra: `pip install 'dualgrad[scipy]'`. It is imported when first used.

`dg.special.f` and `scipy.special.f` are the same for every ufunc: scipy's function hands duals to
the rule. The functions of scipy.special that are no ufuncs cannot be handed over by NumPy; those in
the last list exist in `dg.special` for duals, with scipy's arguments.

Real arguments and, where scipy takes them, complex ones; any order of differentiation; forward and
reverse mode; float32 where scipy returns it (some of its functions compute in double whenever a
parameter is a Python number, as `xlogy(2.0, x)` and `hyp2f1` do). "Not in v" means that the
derivative in that argument is not known in closed form: a dual there raises `MissingRuleError`,
which names the argument. A ufunc of scipy that is not listed raises it for any dual.

First derivatives agree with mpmath to 1e-10 and second ones to 1e-8 (relative, in float64, away
from zeros of the derivative), where scipy's own function is that exact: the slope of `hyperu` is as
exact as `hyperu`, near 1e-8.

## At the edges

* A pole, or an infinite slope, gives what the formula gives: inf or NaN, as the function itself.
  `gamma'` at 0, -1, ... is NaN; `erfinv'(1)`, `ndtri'(0)`, `entr'(0)` are inf.
* Removable singularities are removed, at every order: `rgamma` at 0, -1, ...; `sinc`, `exprel`,
  Bessel, Kelvin, spherical Bessel functions and `sici` at 0; `ellipk`, `ellipe` at 0; `agm` of
  equal numbers; `spence` at 1; `boxcox` and its inverses at exponent 0; polynomials at -1 and 1.
  `lpmv` is not: NaN at -1 and 1.
* No cancellation far out: `erfcx`, `dawsn`, `wofz`, `log_ndtr`, `expit`, `log_expit`.
* `i0e`, `i1e`, `ive` have a kink at 0 and follow abs: the slope of |z| is 0 there. For complex z
  `jve`, `yve`, `ive` and the third and fourth result of `airye` are not analytic; they move with
  both parts of z.
* `xlogy(x, y)` with x = y = 0 does not move with y, so `xlogy(x, x)` has slope -inf at 0.
* `huber` at its corner keeps the quadratic side. Outside a bounded support `tklmbda` has slope 0.
* `elliprj` is NaN for p < 0 and its slope too near 0; `elliprc` has its slope for y < 0 too.
* k and n of counting distributions, which scipy rounds down, have no rule.
"""
TITLES = {
    "error": "Error functions",
    "gammas": "Gamma and beta",
    "oscillators": "Mathieu and Weber",
}


def page() -> str:
    """Return the text of docs/special.md."""
    parts = [HEAD]
    table, module = special.operations(), special.scipy_special()
    constant = sorted(row.name for row in table.values() if not row.differentiable)
    for family in special.FAMILIES:
        rows = rules.rows(import_module(f"dualgrad.special.{family}"), module)
        ordered = sorted(rows.items(), key=lambda item: item[1].name)
        entries = [_entry(f, row) for f, row in ordered if row.differentiable]
        title = TITLES.get(family, family.capitalize())
        parts.append(f"\n## {title}\n\n{', '.join(e for e in entries if e)}.\n")
    own = import_module("dualgrad.special.functions")
    names = sorted(f"`{name}`" for name in own.FUNCTIONS if name not in own.NO_RULE)
    parts.append(f"\n## In dg.special alone\n\n{', '.join(names)}.\n")
    plain = ", ".join(f"`{name.rpartition('.')[2]}`" for name in constant)
    parts.append(f"\n## Piecewise constant\n\nPlain arrays: {plain}.\n")
    return "".join(parts)


def _entry(function: np.ufunc, row) -> str:
    """Return a function's name and the arguments without a rule; "" where none has one."""
    unknown = []
    for place in range(function.nin):
        args: list = [np.array([1])] * function.nin
        args[place] = dg.dual(np.array([0.5]), np.ones(1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                function(*args)
            except dg.MissingRuleError as error:
                found = re.search(r"argument (.*?)(, [^,]*)?, which is a dual", str(error))
                assert found is not None, error
                unknown.append(found[1])
            except TypeError:  # scipy has no loop of floating numbers for it: an integer
                unknown.append("k" if row.name.endswith("lambertw") else "n")
    if len(unknown) == function.nin:
        return ""
    name = f"`{row.name.rpartition('.')[2]}`"
    return f"{name} (not in {', '.join(unknown)})" if unknown else name


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"dualgrad {dg.__version__}: {len(special.operations())} functions in {PAGE}")
