"""np.emath: functions that go over to complex numbers where a real argument asks for it."""

import numpy as np

from ..dual import primal_of
from ..operations import implements
from .results import array, array_beside


def _complex_where(x, outside):
    """x, made complex if the primal of any real entry is outside the function's domain."""
    x = array(x)
    if x.dtype.kind == "c" or not np.any(outside(primal_of(x))):
        return x
    return np.astype(x, np.complex64 if x.dtype.itemsize <= 4 else np.complex128)


def _negative(x):
    return x < 0


def _beyond_one(x):
    return np.abs(x) > 1


def _wrapped(function, outside):
    return lambda x: function(_complex_where(x, outside))


DOMAINS = {
    _negative: "sqrt log log2 log10",
    _beyond_one: "arccos arcsin arctanh",
}
for _outside, _names in DOMAINS.items():
    for _name in _names.split():
        _rule = _wrapped(getattr(np, _name), _outside)
        implements(getattr(np.emath, _name), family="scimath")(_rule)


@implements(np.emath.logn)
def logn(n, x):
    return np.log(_complex_where(x, _negative)) / np.log(_complex_where(n, _negative))


@implements(np.emath.power)
def power(x, p):
    p = array_beside(p, x)
    p = p * 1.0 if p.dtype.kind in "iu" and np.any(p < 0) else p
    return np.power(_complex_where(x, _negative), p)
