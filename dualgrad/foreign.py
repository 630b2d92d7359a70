"""What is no array of NumPy's own kind: taken as NumPy takes it, left to its class, or refused.

A class whose operators differ, or whose entries are hidden, would change the function without a
word; it is refused by its name, beside a dual and as an argument of a transform.
"""

from types import FrameType
from typing import Any

import numpy as np

from .errors import ConversionError, DtypeError

OBJECT = np.dtype(object)
NUMBERS = frozenset({np.float64, np.float32, int, float, bool})
# What a rule takes as it is: neither foreign nor a list to convert.
DIRECT = NUMBERS | {np.ndarray}
_FAMILIAR = (np.ndarray, np.generic, int, float, complex, list, tuple)


def is_foreign(x: Any) -> bool:
    """Tell whether an operator is left to the class of x, which is not in DIRECT and no dual.

    Raises:
        DtypeError: x is of a class that is refused.
    """
    check_class(type(x))
    if isinstance(x, str):  # NumPy compares numbers with text as unequal, and adds neither
        return True
    if isinstance(x, _FAMILIAR) or type(x).__module__.startswith("cupy"):
        return False
    return hasattr(x, "__array_ufunc__")


def check_class(kind: type, where: Any = "an operation on a dual") -> None:
    """Raise DtypeError for the class of an np.matrix, a masked array or a scipy.sparse array."""
    if kind is np.ndarray:
        return
    if issubclass(kind, np.ndarray):
        if issubclass(kind, np.matrix):
            raise DtypeError(
                f"{where}: x is an np.matrix, whose operators are not an array's (* is its matrix "
                f"product), so the result would be another function's. Give np.asarray(x)."
            )
        if issubclass(kind, np.ma.MaskedArray):
            raise DtypeError(
                f"{where}: x is a masked array, and its mask would be ignored. Give x.filled(0), "
                f"and the mask as an array of its own, as in np.where(mask, 0, y)."
            )
    elif kind.__module__.startswith("scipy.sparse"):
        raise DtypeError(
            f"{where}: x is a {kind.__name__} of scipy.sparse, which no rule takes. Give "
            f"x.toarray(), or declare the product with dg.custom_jvp."
        )


def check_is_array(x: Any, where: Any) -> None:
    """Raise DtypeError for a class that is refused, or that stands for an array and is none."""
    check_class(type(x), where)
    if not isinstance(x, (np.ndarray, np.generic)) and hasattr(x, "__array__"):
        if not type(x).__module__.startswith(("cupy", "dualgrad")):
            raise DtypeError(
                f"{where}: x is a {type(x).__name__} of {type(x).__module__.partition('.')[0]}, "
                f"no array of NumPy. Give np.asarray(x)."
            )


def operand(x: Any) -> Any:
    """Return x, of no class in DIRECT, as NumPy would take it in arithmetic: an array or a number.

    Raises:
        DtypeError: NumPy would compute with Python objects.
    """
    if x is None or isinstance(x, (np.generic, complex)) or type(x).__module__.startswith("cupy"):
        return x
    array = x if isinstance(x, np.ndarray) else np.asarray(x)
    check_entries(array, x)
    return array


def check_entries(array: np.ndarray, x: Any) -> None:
    """Raise DtypeError where the entries of x, as an array, are Python objects."""
    if array.dtype.hasobject:
        what = "an array of dtype object" if array is x else f"a {type(x).__name__}"
        fix = "x.astype(float)" if array is x else "float(x) or np.asarray(x, float)"
        raise DtypeError(
            f"an operation on a dual: x is {what}, which NumPy would compute with as Python "
            f"objects, and they have no derivative. Give {fix}."
        )


# --- conversions of a dual


def plain_array_error(what: str) -> ConversionError:
    return ConversionError(
        f"{what} is a conversion to a plain array, which would lose the tangent. Stay with the "
        f"dual: np.stack joins several (np.concatenate for np.r_, np.column_stack for np.c_), "
        f"np.zeros_like(x) of a dual can be written to, A @ x does A.dot(x), dg.special has "
        f"logsumexp, and A.toarray() or dg.custom_jvp serves a sparse A. Or say dg.primal(x) if "
        f"the derivative is not wanted."
    )


def plain_number_error(what: str) -> ConversionError:
    return ConversionError(
        f"{what}: turning a dual into a plain number would lose the tangent. Compute with NumPy "
        f"functions instead (np.sin, not math.sin); write it into an array made by "
        f"np.zeros_like(x) of a dual, or join several with np.stack; or say dg.primal(x) if the "
        f"derivative is not wanted."
    )


def converter(caller: FrameType) -> str:
    """Return how a message names what converts a dual, from the frame that asked for it.

    It may be a function of a package that does not dispatch on this argument.
    """
    function, module = caller.f_code.co_name, caller.f_globals.get("__name__", "")
    for package, name in (("numpy.ma", "np.ma"), ("scipy.sparse", "scipy.sparse")):
        if f"{module}.".startswith(f"{package}."):
            return f"what {name} does with a dual"
    if module.startswith("numpy.") and hasattr(np, function) and not function.startswith("_"):
        return f"what np.{function} does with a dual"
    return "np.array(x), or writing a dual into an array,"
