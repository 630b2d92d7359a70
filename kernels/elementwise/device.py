"""Value and tangents of functions entry by entry: one launch, for any k, strides and broadcasting.

Where all arrays are contiguous, and each is the result's last axes, a kernel takes entry i % period
of each argument; otherwise another one takes strides. Arguments of other dtypes than the result's
are cast first.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import cuda

THREADS = 256
BUSY = 1 << 17  # threads from which directions are no longer shared among rows of the grid
AXES = 6  # of a strided kernel
PARTS = ("elementwise/tangents.cuh", "elementwise/kernels.cuh")

ARITHMETIC = """add subtract multiply divide remainder fmod power power_of_number hypot copysign
    heaviside maximum minimum fmax fmin nextafter negative positive absolute reciprocal square sqrt
    cbrt deg2rad rad2deg clip where select""".split()
SMOOTH = """exp exp2 expm1 log log2 log10 log1p logaddexp logaddexp2 sin cos tan arcsin arccos
    arctan arctan2 sinh cosh tanh arcsinh arccosh arctanh relu sigmoid erf gelu""".split()
SOURCES = {
    name: source
    for source, names in (
        (cuda.Source("elementwise/arithmetic", parts=PARTS), ARITHMETIC),
        (cuda.Source("elementwise/smooth", parts=PARTS), SMOOTH),
    )
    for name in names
}
ALIASES = {"float_power": "power", "radians": "deg2rad", "degrees": "rad2deg"}
MASKED = ("where", "select")  # their first argument is a mask
BOOL = np.dtype(bool)


def value_and_tangents(name: str, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """Return an operation's value and its k tangents, or None where there is no kernel for them.

    Args:
        name: NumPy's name of the function, or one of SOURCES.
        primals: CuPy arrays that broadcast together, and numbers.
        tangents: of each primal (k, *its shape), or None where it does not move.

    Returns:
        The value, and tangents (k, *its shape), both of NumPy's result dtype; the tangents are None
        where nothing moves.
    """
    masks = 1 if name in MASKED else 0
    dtype = _result_type(name, primals[masks:])
    name = ALIASES.get(name, name)
    if name not in SOURCES or dtype is None or (name == "nextafter" and dtype.char == "e"):
        return None
    if name == "power" and type(primals[1]) in (int, float) and primals[1] >= 1:
        name = "power_of_number"
    primals = [_argument(x, dtype if i >= masks else BOOL) for i, x in enumerate(primals)]
    tangents = [t if t is None or t.dtype == dtype else t.astype(dtype) for t in tangents]
    shape = _broadcast(primals)
    k = next((len(t) for t in tangents if t is not None), None)
    y = cuda.empty(shape, dtype)
    ty = None if k is None else cuda.empty((k, *shape), dtype)
    if y.size:
        found = _flat(shape, primals, tangents) or _strided(shape, primals, tangents)
        if found is None:  # very many unlike axes
            pairs = zip(primals, tangents, strict=True)
            found = _flat(shape, *zip(*(repeating(shape, x, t) for x, t in pairs), strict=True))
        kind, arguments = found
        SOURCES[name].launch(
            f"{name}_{kind}", dtype, grid(y.size, k), THREADS, y, ty, y.size, k or 0, *arguments
        )
    return y, ty


def grid(size: int, k: int | None) -> tuple[int, int]:
    """Return the blocks for results of a size with k tangents: rows of them share directions."""
    groups = cuda.blocks(size, THREADS)
    return groups, min(k or 1, max(1, BUSY // (groups * THREADS)))


def _result_type(name: str, primals: Sequence[Any]) -> np.dtype | None:
    """Return NumPy's dtype of the result, or None where no kernel serves it."""
    given: list[Any] = []
    for x in primals:
        if type(x) in (int, float, bool):
            given.append(x)
        elif isinstance(x, np.generic) or type(x).__module__.startswith("cupy"):
            given.append(x.dtype)
        else:
            return None
    first = given[0]
    if any(x is not first for x in given):
        first = np.result_type(*given)
    if name == "float_power":
        first = np.result_type(first, np.float64)
    return first if isinstance(first, np.dtype) and first.name in cuda.TYPES else None


def _argument(x: Any, dtype: np.dtype) -> Any:
    """Return an array of a dtype, or a number rounded to it."""
    if type(x) in (int, float, bool) or isinstance(x, np.generic):
        return float(dtype.type(x))
    return x if x.dtype == dtype else x.astype(dtype)


def _broadcast(primals: Sequence[Any]) -> tuple[int, ...]:
    shapes = [() if type(x) is float else x.shape for x in primals]
    wide = max(shapes, key=len)
    if all(shape in (wide, ()) for shape in shapes):
        return wide
    return np.broadcast_shapes(*shapes)


def _flat(shape: tuple[int, ...], primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """Return "flat" and the kernel's arguments, or None where strides are needed."""
    arguments: list[Any] = []
    for x, t in zip(primals, tangents, strict=True):
        if type(x) is float:
            arguments += (None, None, x, 1)
            continue
        if not x.flags.c_contiguous or (t is not None and not t.flags.c_contiguous):
            return None
        if not _repeats(x.shape, shape):
            return None
        arguments += (x, t, 0.0, x.size)
    return "flat", arguments


def _repeats(lengths: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether entry i of a shape takes entry i % size of an array of these lengths."""
    if lengths == shape:
        return True
    while lengths and lengths[0] == 1:
        lengths = lengths[1:]
    return lengths == shape[len(shape) - len(lengths) :]


def _strided(shape: tuple[int, ...], primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """Return "strided" and the kernel's arguments, or None where it would need more than AXES."""
    table = []  # the strides of each array, in entries, along the result's axes
    for x, t in zip(primals, tangents, strict=True):
        table += [_strides(x, 0, shape), _strides(t, 1, shape)]
    lengths, columns = _joined(shape, table)
    if len(lengths) > AXES:
        return None
    missing = AXES - len(lengths)
    arguments: list[Any] = [1] * missing + lengths
    for i, (x, t) in enumerate(zip(primals, tangents, strict=True)):
        number = x if type(x) is float else 0.0
        arguments += (_start(x), _start(t), number)
        for j in (2 * i, 2 * i + 1):
            arguments += [0] * missing + [column[j] for column in columns]
        arguments.append(0 if t is None else t.strides[0] // t.itemsize)
    return "strided", arguments


def _strides(x: Any, lead: int, shape: tuple[int, ...]) -> list[int]:
    """Return x's strides along the axes of shape, in entries; 0 where x repeats."""
    if x is None or type(x) is float:
        return [0] * len(shape)
    lengths, steps = x.shape[lead:], x.strides[lead:]
    own = [0 if n == 1 else step // x.itemsize for n, step in zip(lengths, steps, strict=True)]
    return [0] * (len(shape) - len(own)) + own


def _joined(shape: tuple[int, ...], table: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """Return the lengths of axes, neighbours joined where all arrays allow it, and the strides.

    table has a row of strides for each array; the result has a list for each axis that is left.
    """
    lengths: list[int] = []
    columns: list[list[int]] = []
    for n, *strides in zip(shape, *table, strict=True):
        if n == 1:
            continue
        if columns and all(a == b * n for a, b in zip(columns[-1], strides, strict=True)):
            lengths[-1] *= n
            columns[-1] = strides
        else:
            lengths.append(n)
            columns.append(strides)
    return lengths, columns


def _start(x: Any) -> Any:
    """Return x's first entry: a kernel's argument is contiguous, and its strides go with it."""
    return None if x is None or type(x) is float else x[(slice(0, 1),) * x.ndim]


def repeating(shape: tuple[int, ...], x: Any, t: Any = None) -> tuple[Any, Any]:
    """Return x and its tangents as contiguous arrays that repeat along a shape, or a number x.

    Copies are made where they have other strides, or repeat in another way.
    """
    if type(x) is float:
        return x, t
    if not _repeats(x.shape, shape):
        spread = cuda.cupy().broadcast_to
        if t is not None:
            lengths = (len(t), *(1,) * (len(shape) + 1 - t.ndim), *t.shape[1:])
            t = spread(t.reshape(lengths), (len(t), *shape))
        x = spread(x, shape)
    return cuda.contiguous(x), None if t is None else cuda.contiguous(t)
