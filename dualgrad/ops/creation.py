"""Arrays made with like=dual, and grids between two ends.

NumPy hands `np.zeros(3, like=x)` to the class of x without x itself: what is made of constants is a
plain array, what is made of duals a dual.
"""

import numpy as np

from ..beside import beside, beside_all, on_device
from ..dual import primal_of
from ..operations import implements
from ..primitive import constant
from .results import array, is_dual, together

CONSTANTS = """
    empty zeros ones eye identity tri frombuffer fromfile fromiter fromstring fromfunction
    loadtxt genfromtxt
""".split()
for _name in CONSTANTS:
    implements(getattr(np, _name), differentiable=False)(constant(getattr(np, _name)))

_ones = np._core.umath._ones_like  # type: ignore[attr-defined]
implements(_ones, differentiable=False)(constant(_ones))


@implements(np.asarray, np.asanyarray, np.ascontiguousarray, np.asfortranarray, np.require)
def asarray(a, dtype=None, order=None, *, requirements=None, device=None, copy=None, ndmin=0,
            subok=False):  # fmt: skip
    """A dual as it is; nested lists that hold duals, stacked."""
    y = array(a)
    y = y if dtype is None else np.astype(y, dtype, copy=False)
    y = np.copy(y) if copy else y
    return np.reshape(y, (*(1,) * (ndmin - y.ndim), *y.shape)) if y.ndim < ndmin else y


@implements(np.array)
def array_of(a, dtype=None, *, copy=True, order="K", subok=False, ndmin=0):
    return asarray(a, dtype, copy=copy, ndmin=ndmin)


@implements(np.full)
def full(shape, fill_value, dtype=None, order="C", *, device=None):
    if not is_dual(fill_value):
        return np.full(shape, fill_value, dtype, order)
    y = np.copy(np.broadcast_to(array(fill_value), shape))
    return y if dtype is None else np.astype(y, dtype)


def _number(x):
    """An end or step of arange as a number; one on a device is fetched, for it decides the size."""
    x = primal_of(x)
    return x.item() if on_device(x) else x


@implements(np.arange)
def arange(start, stop=None, step=1, dtype=None, *, device=None):
    """Numbers from start by step; how many there are is decided by the primals."""
    if stop is None:
        start, stop = 0, start
    plain = np.arange(*map(_number, (start, stop, step)), dtype=dtype)
    if not is_dual(start) and not is_dual(step):
        return plain
    y = start + step * beside_all(start, step).arange(plain.size)
    return np.astype(y, plain.dtype, copy=False)


# --- grids between two ends


@implements(np.linspace)
def linspace(start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0, *, device=None):
    """num numbers from start to stop, both of which may be arrays that broadcast."""
    steps = num - 1 if endpoint else num
    kind = np.result_type(*(_weak(x) for x in (start, stop)), float(num))
    start, stop = (np.astype(x, kind, copy=False) for x in together((start, stop)))
    width = stop - start
    step = width / steps if steps > 0 else beside(width).asarray(np.nan)
    place = np.reshape(beside(width).arange(num, dtype=kind), (-1, *(1,) * width.ndim))
    if steps > 0:
        y = np.where(primal_of(step) == 0, place / steps * width, place * step) + start
        if endpoint:
            y = np.where(place == steps, stop, y)
    else:
        y = place * width + start
    y = y if axis == 0 else np.moveaxis(y, 0, axis)
    dtype = kind if dtype is None else np.dtype(dtype)
    if dtype.kind in "iu":
        y = np.floor(y)
    y = np.astype(y, dtype, copy=False)
    return (y, step) if retstep else y


def _weak(x):
    """What a number has a say in the dtype by: Python's do not have much."""
    return x if isinstance(x, (int, float, complex)) else array(x).dtype


@implements(np.logspace)
def logspace(start, stop, num=50, endpoint=True, base=10.0, dtype=None, axis=0):
    if np.ndim(base):  # it broadcasts with the ends before the new axis is put in
        ends = together((start, stop, base))
        ndim = max(x.ndim for x in ends)
        start, stop, base = (np.reshape(x, (*(1,) * (ndim - x.ndim), *x.shape)) for x in ends)
        base = np.expand_dims(base, axis)
    exponents = np.linspace(start, stop, num, endpoint, axis=axis)
    y = np.power(base, exponents)
    return y if dtype is None else np.astype(y, dtype, copy=False)


@implements(np.geomspace)
def geomspace(start, stop, num=50, endpoint=True, dtype=None, axis=0):
    """num numbers with a constant ratio; the ends are exactly start and stop."""
    start, stop = together((start, stop))
    if np.any(primal_of(start) == 0) or np.any(primal_of(stop) == 0):
        raise ValueError("Geometric sequence cannot include zero")
    kind = np.result_type(start.dtype, stop.dtype, float(num), np.dtype(dtype))
    start, stop = np.broadcast_arrays(np.astype(start, kind), np.astype(stop, kind))
    sign = np.sign(start)  # of a complex start, its direction
    exponents = np.linspace(np.log10(start / sign), np.log10(stop / sign), num, endpoint)
    y = np.power(10.0, exponents) * sign
    place = np.reshape(beside(start).arange(num), (-1, *(1,) * start.ndim))
    y = np.where(place == 0, start, y)
    if endpoint and num > 1:
        y = np.where(place == num - 1, stop, y)
    y = y if axis == 0 else np.moveaxis(y, 0, axis)
    return y if dtype is None else np.astype(y, dtype, copy=False)
