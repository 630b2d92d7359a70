"""A stand-in of CuPy over NumPy, for machines without a GPU: strict where CuPy is.

Arrays lie in host memory, and obey CuPy's rules: NumPy arrays may not be mixed in, nothing becomes
a NumPy array or a number but by `transfer`, a reduction or one entry is an array of shape (), and
what CuPy lacks is lacking here. Kernels are compiled for the host by tests/cuda_host.py.
"""

import sys as _sys
import types as _types

import numpy as _numpy

from . import _array as _array
from . import _cuda, _functions
from ._array import ndarray  # noqa: F401
from ._cuda import RawModule  # noqa: F401
from ._functions import asnumpy, ufunc  # noqa: F401

__version__ = "14.2.0"


def get_array_module(*args):
    """Return this module where an argument is a device array, else numpy."""
    given = [x for x in args if isinstance(x, ndarray)]
    return _sys.modules["cupy"] if given else _numpy


def get_default_memory_pool():
    """Return the pool; it counts nothing."""
    return _pool


def _submodule(path):
    module = _types.ModuleType(f"{__name__}.{path}")
    _sys.modules[module.__name__] = module
    return module


_pool = _cuda.MemoryPool()
_functions.fill(_sys.modules[__name__], _numpy, "")
linalg, fft, cuda, lib = (_submodule(path) for path in ("linalg", "fft", "cuda", "lib"))
_functions.fill(linalg, _numpy.linalg, "linalg")
_functions.fill(fft, _numpy.fft, "fft")
cuda.__dict__.update(_cuda.MEMBERS)
lib.stride_tricks = _types.SimpleNamespace()
for _name in ("as_strided", "sliding_window_view"):
    _function = getattr(_numpy.lib.stride_tricks, _name)
    setattr(lib.stride_tricks, _name, _functions.delegated("", _name, _function))
