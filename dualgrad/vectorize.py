"""vectorize: functions written for single numbers, applied to the entries of arrays and duals."""

import functools
import re
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from .array_functions import asarray
from .dual import Array
from .errors import OptionError, ShapeError

_CORE = r"\([^()]*\)"
_SIGNATURE = re.compile(rf"{_CORE}(,{_CORE})*->{_CORE}(,{_CORE})*")


def vectorize(
    f: Callable, *, signature: str | None = None, excluded: Collection[int] = ()
) -> Callable:
    """Return f applied entry by entry, over arguments that are broadcast against each other.

    As np.vectorize, for duals too: f may branch and loop on the numbers it gets, and each entry
    takes its own path. It is a loop in Python and no faster than one.

    Args:
        f: function of numbers with a number, or a tuple of them, as result.
        signature: where f takes and gives arrays, their axes: "(n),(n)->()" is an inner product.
        excluded: places of arguments that are passed as they are; so are all keyword arguments.

    Raises:
        OptionError: a signature that cannot be read, or that names another number of arguments.
        ShapeError: no entries, so that the shape of the result is unknown.

    >>> import dualgrad as dg
    >>> collatz = vectorize(lambda x: x / 2 if x % 2 < 1 else 3 * x + 1)
    >>> dg.gradient(lambda x: np.sum(collatz(x)))(np.array([1.0, 2.0, 3.0]))
    array([3. , 0.5, 3. ])
    """
    cores = None if signature is None else _core_axes(signature)

    @functools.wraps(f)
    def over_entries(*args: Any, **kwargs: Any) -> Any:
        places = [i for i in range(len(args)) if i not in excluded]
        arrays = [asarray(args[i]) for i in places]
        ndims = [0] * len(places) if cores is None else cores
        if len(ndims) != len(places):
            raise OptionError(
                f"vectorize: signature={signature!r} has {len(ndims)} arguments, and "
                f"{len(places)} were given."
            )
        shape, rows = _broadcast(arrays, ndims, signature)
        found = []
        for row in rows:
            given = list(args)
            for i, x in zip(places, row, strict=True):
                given[i] = x
            found.append(f(*given, **kwargs))
        if not found:
            raise ShapeError(
                f"vectorize: the arguments broadcast to shape {shape}, which has no entries, so "
                f"the result's dtype is unknown. Treat empty arrays apart."
            )
        if isinstance(found[0], tuple):
            return tuple(_joined(list(column), shape) for column in zip(*found, strict=True))
        return _joined(found, shape)

    return over_entries


def _core_axes(signature: str) -> list[int]:
    """Return the number of axes of each argument in a signature like "(n,m),()->(n)"."""
    text = signature.replace(" ", "")
    if not _SIGNATURE.fullmatch(text):
        raise OptionError(
            f"vectorize: signature={signature!r}; write the axes of each argument and result, as "
            f"in '(n,m),(m)->(n)'."
        )
    inputs = text.partition("->")[0]
    return [len([name for name in core[1:-1].split(",") if name])
            for core in re.findall(_CORE, inputs)]  # fmt: skip


def _broadcast(arrays: list, ndims: list[int], signature: str | None) -> tuple[tuple, list]:
    """Return (shape of the loop, for each of its entries the arguments of f)."""
    for x, n in zip(arrays, ndims, strict=True):
        if x.ndim < n:
            raise ShapeError(
                f"vectorize: an argument of shape {x.shape} has fewer axes than "
                f"signature={signature!r} says."
            )
    loops = [x.shape[: x.ndim - n] for x, n in zip(arrays, ndims, strict=True)]
    shape = np.broadcast_shapes(*loops)
    flat = []
    for x, n in zip(arrays, ndims, strict=True):
        core = x.shape[x.ndim - n :]
        flat.append(np.reshape(np.broadcast_to(x, (*shape, *core)), (-1, *core)))
    return shape, list(zip(*flat, strict=True)) if flat else [()]


def _joined(items: list, shape: tuple[int, ...]) -> Array:
    y = np.stack([asarray(item) for item in items])
    return np.reshape(y, (*shape, *y.shape[1:]))
