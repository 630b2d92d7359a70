"""How the rules of scipy.special's ufuncs are written, and made into rows of an operation table.

A family's module holds any of these, by the ufunc's name:
    SMOOTH: the partials, one an argument, seeing the arguments and the value; a string in place of
        one names an argument in which no derivative is known: a dual there raises.
    WHOLE: a rule written as a function of duals, for ufuncs with several results and the like.
    CONSTANT: names of ufuncs whose result does not move.
Partials are written with functions of dg.special, which take duals, so that every order follows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import special as sp
from ..dual import Array, DualTensor, new_level
from ..errors import MissingRuleError
from ..operations import Operation
from ..partials import Guarded
from ..primitive import Primitive, constant, elementwise


def rows(family: Any, scipy_special: Any) -> dict[Callable, Operation]:
    """Return the rows of a family's module; a ufunc that an older scipy lacks has none."""
    found = {}
    for name, partials in getattr(family, "SMOOTH", {}).items():
        if (ufunc := _ufunc(name, scipy_special)) is not None:
            found[ufunc] = _row(name, smooth(ufunc, name, *partials))
    for name, rule in getattr(family, "WHOLE", {}).items():
        if (ufunc := _ufunc(name, scipy_special)) is not None:
            found[ufunc] = _row(name, rule)
    for name in getattr(family, "CONSTANT", ()):
        ufunc = _ufunc(name, scipy_special)
        found[ufunc] = _row(name, constant(ufunc), differentiable=False)
    return found


PUBLIC = {"_zeta": "zeta", "_riemann_zeta": "zeta", "_lambertw": "lambertw"}  # ufuncs behind them


def _ufunc(name: str, scipy_special: Any) -> Any:
    home = scipy_special._ufuncs if name in PUBLIC else scipy_special
    return getattr(home, name, None)


def _row(name: str, rule: Callable, differentiable: bool = True) -> Operation:
    public = f"scipy.special.{PUBLIC.get(name, name)}"
    return Operation(public, rule, "special", differentiable, frozenset())


def smooth(function: Callable, name: str, *partials: Any) -> Primitive:
    """Declare an elementwise function of scipy.special, as `elementwise` does."""
    name = PUBLIC.get(name, name)
    known = [unknown(name, p) if isinstance(p, str) else _widened(p) for p in partials]
    return elementwise(function, *known, name=f"scipy.special.{name}")


def _widened(partial: Callable) -> Callable:
    """Return the partial of arguments as wide as the value: np.log of an int8 has 11 bits."""

    def wide(*values):
        y = values[-1]
        return _steep(partial(*(_as_wide_as(x, y) for x in values)), y)

    return wide


def _steep(slope: Any, y: Array) -> Any:
    """The slope; where it is infinite and y is finite, as in entr at 0, a tangent of 0 stays 0."""
    if getattr(slope, "dtype", None) is None or slope.dtype.kind not in "fc":
        return slope
    infinite = np.isinf(slope) & np.isfinite(y)
    return Guarded(slope, infinite) if np.count_nonzero(infinite) else slope


def _as_wide_as(x: Any, y: Array) -> Any:
    dtype = getattr(x, "dtype", None)
    if dtype is None or dtype == y.dtype:
        return x
    if dtype.kind in "biu":  # an integer stays one: orders of polynomials must
        return np.astype(x, np.int64) if dtype.itemsize < 4 else x
    if dtype.kind == "f" and dtype.itemsize < np.finfo(y.dtype).dtype.itemsize:
        return np.astype(x, np.finfo(y.dtype).dtype)
    return x


def unknown(name: str, argument: str) -> Callable:
    """Return a partial that raises: the derivative in this argument is not known."""

    def partial(*values):
        raise MissingRuleError(
            f"scipy.special.{name} has no tangent rule for its argument {argument}, which is a "
            f"dual: that derivative is not known in closed form. Pass dg.primal(x) there if it is "
            f"not wanted, or declare a rule with dg.custom_jvp."
        )

    return partial


def component(name: str, index: int, *partials: Any) -> Primitive:
    """Declare one of the results of a ufunc that returns several."""

    def value(*args):
        return getattr(sp, name)(*args)[index]

    return smooth(value, name, *partials)


def together(*components: Callable) -> Callable:
    """Return the rule of a ufunc from the rules of its results."""

    def rule(*args):
        return tuple(part(*args) for part in components)

    return rule


def through(function: Callable, place: int) -> Callable:
    """Return the partial of `function`, a composition of primitives, in one of its arguments.

    It runs the function on a dual of its own level: the derivative of a stable algorithm where no
    stable formula is at hand.
    """

    def partial(*values):
        args = list(values[:-1])  # the last is the function's value
        x = args[place]
        with new_level("a partial") as level:
            args[place] = DualTensor(x, np.ones((1, *np.shape(x)), x.dtype), level)
            return function(*args).tangent

    return partial


def is_complex(x: Array) -> bool:
    """Whether x, plain or a dual, holds complex numbers."""
    return x.dtype.kind == "c" if hasattr(x, "dtype") else isinstance(x, complex)
