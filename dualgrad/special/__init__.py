"""scipy.special for duals: every name of it, its ufuncs with tangent rules, read when first used.

`dg.special.jv` is `scipy.special.jv` itself, which hands duals to the rules kept here, one file a
family; so both spellings do the same. The functions of scipy.special that are no ufuncs, which
NumPy cannot hand over, are written for duals in functions.py. docs/special.md lists the rules.

>>> x = dg.dual(np.array([0.5, 1.0]), np.ones(2))
>>> dg.special.gamma(x).tangent.round(6)
array([-3.480231, -0.577216])
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from ..errors import MissingPackageError
from ..operations import LATER, Operation

FAMILIES = "bessel distributions elementary elliptic error gammas oscillators polynomials".split()


@cache
def scipy_special() -> Any:
    """Return the module scipy.special; MissingPackageError where scipy is not installed."""
    try:
        return import_module("scipy.special")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "dg.special needs scipy, which is not installed: python -m pip install "
            "'dualgrad[scipy]'. Everything else in dualgrad works without it."
        ) from error


@cache
def operations() -> dict[Callable, Operation]:
    """Return the operation table of scipy.special's ufuncs."""
    from .rules import rows

    table: dict[Callable, Operation] = {}
    for family in FAMILIES:
        table |= rows(import_module(f".{family}", __name__), scipy_special())
    return table


def _find(function: Callable) -> Operation | None:
    return operations().get(function)


LATER["scipy.special"] = _find


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = scipy_special()
    own = import_module(".functions", __name__)
    value = own.FUNCTIONS.get(name)
    if value is None:
        value = getattr(module, name, None)
    if value is None:
        raise AttributeError(f"neither scipy.special nor dg.special has a function {name!r}")
    globals()[name] = value  # the next look-up finds it at once
    return value


def __dir__() -> list[str]:
    own = import_module(".functions", __name__)
    return sorted({*globals(), *own.FUNCTIONS, *scipy_special().__all__})


__all__: list[str] = []
