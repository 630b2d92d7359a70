"""Choose between cpu and gpu by array type, and between NumPy and numba by a committed table."""

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from .jit import jit

Function = TypeVar("Function", bound=Callable[..., Any])

# From how many elements a numba loop replaces its NumPy form: where it measurably wins, and never
# so small that a short script would pay numba's import. The rows come from
#     OPENBLAS_NUM_THREADS=1 python benchmarks/kernels.py
# on one core of an AMD EPYC (Zen 4, AVX-512), numpy 2.4, numba 0.68.
# A row may depend on the vector unit, as NumPy's own loops do.
THRESHOLDS: dict[str, int | dict[str, int]] = {
    "max_pool2d": 8192,  # elements of x
    "max_pool2d_gather": 8192,  # elements of the result
    "max_pool2d_scatter": 8192,  # elements of ct
    "outer_add": 16384,  # elements of w; ranks above product.cpu.LOOP_RANK stay with BLAS
    "normalise": 16384,  # elements of x
    "normalise_tangent": 16384,  # elements of t
    "exp": {"avx512": 1 << 16, "avx2": 1 << 15, "other": 1 << 16},  # elements of x, these four
    "tanh": {"avx512": 1 << 16, "avx2": 1 << 15, "other": 1 << 16},
    "log": {"avx512": 1 << 16, "avx2": 1 << 15, "other": 1 << 16},
    "multiply": 1 << 16,
    # Parameters of a training step from which it runs as a plan of fused stages; on other vectors
    # than these nothing was measured.
    "plan": {"avx512": 0, "avx2": 0, "other": sys.maxsize},
}

# Kernels whose numba form wins at every size: how much work to do in NumPy, all calls added up,
# before half a second for loading numba is worth it. Both forms give the same bits.
LOADING = {
    "philox": 1 << 20,  # blocks of four words; a call counts as LEAST_CALL at least
    "ndtri": 1 << 23,  # entries
}
LEAST_CALL = 64
_work_so_far = dict.fromkeys(LOADING, 0)

# "table": as THRESHOLDS says; "never", "always": for tests and benchmarks of one form alone.
numba_use = "table"


def by_array(function: Function) -> Function:
    """Return function, or its gpu twin when the first argument, given by position, is a CuPy array.

    function is defined in some family's cpu.py; the twin has the same name in gpu.py beside it,
    which is imported when the first CuPy array arrives.
    """
    gpu_module = function.__module__.removesuffix("cpu") + "gpu"
    name = function.__name__

    @functools.wraps(function)
    def choose(first: Any, *rest: Any, **named: Any) -> Any:
        kind = type(first)
        if kind is np.ndarray or not kind.__module__.startswith("cupy"):
            return function(first, *rest, **named)
        return getattr(importlib.import_module(gpu_module), name)(first, *rest, **named)

    return choose  # type: ignore[return-value]


@functools.cache
def _numba() -> ModuleType | None:
    """Return numba, imported at the first call, or None where it is not installed."""
    try:
        return importlib.import_module("numba")
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        return None


@functools.cache
def vector_unit() -> str:
    """Return "avx512", "avx2" or "other": what NumPy uses, as NPY_DISABLE_CPU_FEATURES says."""
    module = importlib.import_module("numpy._core._multiarray_umath")
    found = getattr(module, "__cpu_features__", {})
    units = {"avx512": "AVX512_SKX", "avx2": "AVX2"}
    return next((unit for unit, feature in units.items() if found.get(feature)), "other")


def threshold(name: str) -> int:
    """Return from how many elements a kernel's numba form is used on this processor."""
    row = THRESHOLDS[name]
    return row if isinstance(row, int) else row[vector_unit()]


def wins(name: str, size: int, *arrays: np.ndarray) -> bool:
    """Whether to run a numba loop: a size of at least threshold(name), and dtypes it can take."""
    if numba_use == "never" or (numba_use == "table" and size < threshold(name)):
        return False
    dtype = arrays[0].dtype
    if dtype.char not in "fd" or not dtype.isnative:
        return False
    return all(array.dtype == dtype for array in arrays[1:]) and _numba() is not None


LOOPS: list["Loop"] = []  # all there are, for those who compile beforehand


class Loop:
    """A loop for numba, compiled for float32 or float64 at its first call with that dtype.

    Args:
        function: plain loops over C-contiguous arrays.
        arguments: one word for each argument: "r3" an array of 3 axes that is read, "w3" one that
            is written, "w3:int8" the same with a dtype of its own, "i" an integer, "f" a number of
            the kernel's dtype. The first argument is an array of that dtype.
        fastmath: allow the flags of SAFE_FASTMATH.

    One signature a dtype keeps compilation short: read-only and writable arrays share it.
    """

    def __init__(self, function: Callable[..., None], arguments: str, fastmath: bool) -> None:
        self.function = function
        self.arguments = arguments
        self.fastmath = fastmath
        self.compiled: dict[str, Callable[..., None]] = {}
        LOOPS.append(self)

    def wins(self, name: str, size: int, *arrays: np.ndarray) -> bool:
        """Whether to run this loop: a size of at least THRESHOLDS[name], and dtypes it can take."""
        return wins(name, size, *arrays)

    def __call__(self, first: np.ndarray, *rest: Any) -> None:
        self.prepare(first.dtype.char)(first, *rest)

    def prepare(self, char: str) -> Callable[..., None]:
        """Return the compiled loop for a dtype: "f" or "d"."""
        if char not in self.compiled:
            self.compiled[char] = self._compile(char)
        return self.compiled[char]

    def _compile(self, char: str) -> Callable[..., None]:
        numba = _numba()
        assert numba is not None, "ask Loop.wins first: numba is not installed"
        types = numba.types
        number = {"f": types.float32, "d": types.float64}[char]

        def numba_type(word: str) -> Any:
            if word in ("i", "f"):
                return types.int64 if word == "i" else number
            word, _, dtype = word.partition(":")
            entry = getattr(types, dtype) if dtype else number
            return types.Array(entry, int(word[1:]), "C", readonly=word[0] == "r")

        signature = types.void(*map(numba_type, self.arguments.split()))
        return jit(self.function, entry=True, fastmath=self.fastmath, signatures=[signature])


def loop(arguments: str, *, fastmath: bool = True) -> Callable[[Callable[..., None]], Loop]:
    """Return a decorator that turns a function into a Loop."""
    return lambda function: Loop(function, arguments, fastmath)


def loading_pays(name: str, size: int) -> bool:
    """Whether to run the numba form of a kernel of LOADING, now asked for work of a size."""
    if numba_use == "never":
        return False
    _work_so_far[name] += max(size, LEAST_CALL)
    wanted = numba_loaded() or numba_use == "always" or _work_so_far[name] > LOADING[name]
    return wanted and numba_available()


def numba_available() -> bool:
    """Whether numba is installed. Imports it."""
    return _numba() is not None


def numba_loaded() -> bool:
    """Whether numba has been imported, by anyone, without importing it."""
    return "numba" in sys.modules
