"""Where arrays lie, in host memory or on a device, and making others beside them.

A rule makes arrays beside its argument: `beside(x).zeros(n)`, never `np.zeros(n)`. What it takes as
an array is `as_array(x)`: what lies on a device stays there, and nothing is ever moved in silence.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

import numpy as np

from .errors import DeviceError, DualgradError
from .kernels import cuda


def on_device(x: Any) -> bool:
    """Tell whether x is a CuPy array."""
    return type(x).__module__ == "cupy"


def is_array(x: Any) -> TypeGuard[Any]:
    """Tell whether x is an array of NumPy's or CuPy's own class, with no tangent."""
    kind = type(x)
    return kind is np.ndarray or kind.__module__ == "cupy"


def beside(x: Any) -> Any:
    """Return the module whose functions make arrays where x lies, numpy or cupy.

    x: an array, a dual of any depth, or a number, which lies beside everything: numpy.
    """
    while type(x) is not np.ndarray:
        if type(x).__module__ == "cupy":
            return cuda.cupy()
        x = getattr(x, "primal", None)
        if x is None:
            break
    return np


def beside_all(*args: Any) -> Any:
    """Return the module of the first argument, or part of a list, on a device; else numpy."""
    for x in args:
        module = beside_all(*x) if isinstance(x, (list, tuple)) else beside(x)
        if module is not np:
            return module
    return np


def as_array(x: Any, dtype: Any = None) -> Any:
    """Return x as an array where it lies; numbers and lists become NumPy's."""
    return beside(x).asarray(x, dtype)


def has_memory(x: Any) -> bool:
    """Tell whether x is an array of either kind, of a subclass too: what may share its memory."""
    return isinstance(x, np.ndarray) or on_device(x)


def is_writeable(x: Any) -> bool:
    """Tell whether each entry of an array has memory of its own that may be written.

    Device arrays know no protection: there, whether the entries lie one after the other, as those
    of a broadcast array do not.
    """
    return x.flags.forc if on_device(x) else x.flags.writeable


def dtype_of(x: Any) -> np.dtype:
    """Return the dtype that x, an array, dual or number, has as an array."""
    return x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype


# --- what is said where host and device meet

REFUSED = (
    "Unsupported type",
    "Implicit conversion",
    "no implementation found",
    "returned NotImplemented",
    "unexpected keyword argument",
    "Wrong arguments",
    "is not supported yet",
    "incorrect type",
    "cannot be used for",
)


def explain_device(error: Exception, name: str, args: Any) -> None:
    """Raise DeviceError where an error came of arrays on a device: mixed with others, or refused.

    Returns where it did not: the caller then raises the error itself.
    """
    if isinstance(error, DualgradError):
        return
    try:
        check_together(name, *args)
    except DeviceError as mixed:
        raise mixed from error
    if any(map(on_device, _arrays(args))) and any(words in str(error) for words in REFUSED):
        raise DeviceError(
            f"{name}: CuPy cannot do this on a device ({str(error).splitlines()[0]}). Do it on the "
            f'host: dg.to_device(x, "cpu").'
        ) from error


def explained(rule: Callable, name: str, args: tuple, kwargs: dict) -> Any:
    """Return rule(*args, **kwargs); an error that comes of a device says so."""
    try:
        return rule(*args, **kwargs)
    except (TypeError, ValueError, NotImplementedError) as error:
        explain_device(error, name, (*args, *kwargs.values()))
        raise


def check_together(name: str, *args: Any) -> None:
    """Raise DeviceError where some of the arrays lie in host memory and some on a device."""
    arrays = list(_arrays(args))
    here = next((x for x in arrays if not on_device(x)), None)
    there = next((x for x in arrays if on_device(x)), None)
    if here is not None and there is not None:
        raise DeviceError(
            f"{name}: an array in host memory ({_shown(here)}) met one on the device "
            f"({_shown(there)}), and nothing is moved in silence. Bring both to one place: "
            f'dg.to_device(x, "gpu"), or "cpu".'
        )


def _shown(x: Any) -> str:
    return f"{type(x).__module__}.{type(x).__name__} {x.shape}, {x.dtype}"


def _arrays(args: Any) -> Iterator[Any]:
    """Yield the arrays among arguments, of duals their primals; lists and dicts are searched."""
    for x in args.values() if isinstance(args, dict) else args:
        if isinstance(x, (list, tuple, dict)):
            yield from _arrays(x)
            continue
        while hasattr(x, "carrier"):
            x = x.primal
        if has_memory(x):
            yield x
