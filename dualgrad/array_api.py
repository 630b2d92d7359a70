"""The names of the array API standard that `dg` offers: NumPy's functions, which take duals."""

from typing import Any

import numpy as np

from . import array_fft, array_functions, array_linalg

VERSION = "2025.12"
NAMES = frozenset(
    """
    e inf nan newaxis pi bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64
    complex64 complex128 arange empty empty_like eye from_dlpack full full_like linspace meshgrid
    ones ones_like tril triu zeros zeros_like astype can_cast finfo iinfo isdtype result_type
    abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_invert
    bitwise_or bitwise_right_shift bitwise_xor ceil clip conj copysign cos cosh divide equal exp
    expm1 floor floor_divide greater greater_equal hypot imag isfinite isinf isnan less less_equal
    log log1p log2 log10 logaddexp logical_and logical_not logical_or logical_xor maximum minimum
    multiply negative nextafter not_equal positive pow real reciprocal remainder round sign signbit
    sin sinh square sqrt subtract tan tanh trunc
    take take_along_axis matmul matrix_transpose tensordot vecdot
    broadcast_arrays broadcast_to broadcast_shapes concat expand_dims flip moveaxis permute_dims
    repeat reshape roll squeeze stack tile unstack argmax argmin count_nonzero nonzero searchsorted
    where isin unique_all unique_counts unique_inverse unique_values argsort sort
    cumulative_prod cumulative_sum max mean min prod std sum var all any diff
    linalg fft
    """.split()
)


_OWN = {
    name: function
    for name, function in vars(array_functions).items()
    if getattr(function, "__module__", None) == array_functions.__name__ and name in NAMES
} | {
    "__array_namespace_info__": array_functions.__array_namespace_info__,
    "asarray": array_functions.asarray,
    "fft": array_fft,
    "linalg": array_linalg,
}


def lookup(name: str) -> Any:
    """Return the object of a name of the standard; AttributeError for any other name.

    It is NumPy's own, unless that differs from the standard: see array_functions.py.
    """
    if name in _OWN:
        return _OWN[name]
    if name not in NAMES:
        raise AttributeError(f"module 'dualgrad' has no attribute {name!r}")
    return getattr(np, name)
