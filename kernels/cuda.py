"""The one place that meets CuPy: what is missing, sources compiled at first use, launches counted.

A family's CUDA source is text beside its gpu.py, compiled by NVRTC when a kernel of it is first
launched, once for each dtype. What the compiler sees is one string, common.cuh and then the
family's own files: CuPy's cache on disk knows a program by its text, and would not see that an
included file has changed.

float32 arrays are multiplied in float32, or by tensor cores where `products` says so: kernels that
multiply by tiles are then those of another instance, of the same text and names. What CuPy itself
multiplies, `a @ b` by cuBLAS, is CuPy's to choose, and its public switch is CUPY_TF32=1 in the
environment, of a whole process and for matrices alone, with nothing for bfloat16. (Its private
set_compute_type takes both by name, but its products know no more than tf32.) So that variable
begins "tf32" here too, and our own products where cuBLAS would do another are ours to do.
"""

import contextlib
import ctypes
import functools
import importlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
# REAL, what arrays hold, and ACC, what is computed in.
TYPES = {"float16": ("__half", "float"), "float32": ("float",) * 2, "float64": ("double",) * 2}
# Instances for float32 arrays that multiply on tensor cores, and the macro that makes each.
TENSOR = {"tf32": "TENSOR_TF32", "bfloat16": "TENSOR_BF16"}
TENSOR_CAPABILITY = 80  # of the oldest device that has both
OLDEST = 14, 2  # CuPy: those before hand a kernel an address where it is given None
MOST_BLOCKS = 1 << 16  # of a kernel whose threads go through the entries in strides

launches = 0  # of this module's kernels in this process: a step's launches are a difference


def missing() -> str:
    """Return "" where CuPy and a device are there, else what is missing and how to get it."""
    try:
        module = cupy()
    except ModuleNotFoundError:
        version = _driver_version()
        if not version:
            return (
                "neither CuPy nor an NVIDIA driver (libcuda.so.1) was found. Install the driver, "
                'then run: python -m pip install "cupy-cuda12x[ctk]"'
            )
        wheel = "cupy-cuda13x" if version >= 13 else "cupy-cuda12x"
        return f'CuPy is not installed. Run: python -m pip install "{wheel}[ctk]"'
    if not module.cuda.is_available():
        return "CuPy is installed, and finds no NVIDIA device. See what nvidia-smi says."
    if tuple(int(number) for number in module.__version__.split(".")[:2]) < OLDEST:
        return (
            f"CuPy {module.__version__} is installed, and kernels need 14.2 or later. Upgrade the "
            'package that pip list shows, as in: python -m pip install -U "cupy-cuda12x[ctk]"'
        )
    return ""


def _driver_version() -> int:
    """Return the newest CUDA that the driver serves, 12 or 13, or 0 without a driver."""
    version = ctypes.c_int(0)
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value // 1000


@functools.cache
def cupy() -> Any:
    """Return CuPy, imported at the first call.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    return importlib.import_module("cupy")


def empty(shape: Sequence[int], dtype: Any) -> Any:
    """Return a device array of a shape and dtype, its entries not set."""
    return cupy().empty(tuple(shape), dtype)


def zeros(shape: Sequence[int], dtype: Any) -> Any:
    """Return a device array of zeros."""
    return cupy().zeros(tuple(shape), dtype)


def contiguous(x: Any) -> Any:
    """Return x, or a copy of it whose rows follow one another in memory."""
    return x if x.flags.c_contiguous else cupy().ascontiguousarray(x)


def blocks(n: int, threads: int) -> int:
    """Return how many blocks cover n entries, at most MOST_BLOCKS: then threads go in strides."""
    return min(-(-n // threads), MOST_BLOCKS)


_chosen: list[list[str]] = []  # by the `products` that are open, the last one decides


@contextlib.contextmanager
def products(name: str) -> Iterator[None]:
    """Multiply float32 arrays in another way inside: in convolutions, and in products of plans.

    "float32" is the default, or "tf32" with CUPY_TF32=1 in the environment. "tf32" and "bfloat16"
    round each factor to 11 or 8 bits and add in float32, on tensor cores of devices from compute
    capability 8.0 on. Arrays of other dtypes stay with their own, and a CUDA graph that has been
    captured stays with what it was captured with. It holds for all threads.

    Raises:
        ValueError: there is no such name.
    """
    if name not in ("float32", *TENSOR):
        raise ValueError(
            f"cuda.products({name!r}): there are {', '.join(map(repr, ('float32', *TENSOR)))}."
        )
    own = [name]  # another thread may have begun one later, and end it later
    _chosen.append(own)
    try:
        yield
    finally:
        _chosen[:] = [chosen for chosen in _chosen if chosen is not own]


def product_of(dtype: Any) -> str:
    """Return what arrays of a dtype are multiplied in: its name, "tf32" or "bfloat16"."""
    own = np.dtype(dtype).name
    if own != "float32":
        return own
    return _chosen[-1][0] if _chosen else _product_of_cublas()


def cublas_serves(dtype: Any) -> bool:
    """Whether `a @ b` of two matrices, which CuPy leaves to cuBLAS, is in `product_of` a dtype."""
    return np.dtype(dtype) != np.float32 or product_of(dtype) == _product_of_cublas()


def _product_of_cublas() -> str:
    """Return what CuPy has cuBLAS multiply float32 matrices in."""
    return "tf32" if os.environ.get("CUPY_TF32") == "1" else "float32"


class Source:
    """The CUDA source of a family, and its kernels.

    Args:
        name: of the family: kernels/name/name.cu; or "family/file" for kernels/family/file.cu.
        dtypes: what an instance is compiled for; None for a source that has no REAL.
        parts: files under kernels/ whose text comes between common.cuh and the source.
        tensor: whether it has instances of TENSOR too.
        text: of the source, where it is generated and in no file; then `sources` leaves it out.

    Attributes:
        instances: what it is compiled for: dtypes, then names of TENSOR; (None,) without dtypes.
    """

    def __init__(self, name: str, *, dtypes: Sequence[str] | None = tuple(TYPES),
                 parts: Sequence[str] = (), tensor: bool = False,
                 text: str | None = None) -> None:  # fmt: skip
        self.name = name
        self.dtypes = dtypes
        self.parts = parts
        self.text = text
        self.instances = (*(dtypes or (None,)), *(TENSOR if tensor else ()))
        self._modules: dict[str | None, Any] = {}
        self._kernels: dict[tuple[str, str | None], Any] = {}
        if text is None:
            SOURCES.append(self)

    def code(self) -> str:
        """Return the text that is compiled."""
        family, _, file = self.name.partition("/")
        own = () if self.text else (f"{family}/{file or family}.cu",)
        files = ("common.cuh", *self.parts, *own)
        given = [f'#line 1 "{name}"\n{(FOLDER / name).read_text()}\n' for name in files]
        return "".join([*given, self.text or ""])

    def options(self, instance: str | None) -> tuple[str, ...]:
        """Return the compiler's options for an instance."""
        if instance is None:
            return ("-std=c++17",)
        real, accumulator = TYPES["float32" if instance in TENSOR else instance]
        half = ("-DHALF",) if real == "__half" else ()
        tensor = (f"-D{TENSOR[instance]}",) if instance in TENSOR else ()
        return ("-std=c++17", f"-DREAL={real}", f"-DACC={accumulator}", *half, *tensor)

    def launch(
        self, kernel: str, dtype: Any, grid: int | tuple[int, ...], block: int | tuple[int, ...],
        *arguments: Any,
    ) -> None:  # fmt: skip
        """Start a kernel on the current stream; nothing where the grid is empty.

        Args:
            kernel: its name in the source.
            dtype: of the arrays, None for a source without REAL.
            grid, block: blocks and threads, up to three numbers each.
            arguments: C-contiguous CuPy arrays, None for a null pointer, ints (i64 in the source)
                and floats (double).

        Raises:
            TypeError: no instance has this dtype.
            ValueError: an array is not contiguous, which a kernel would not notice.
            RuntimeError: the device has no tensor cores for what `products` asks.
        """
        global launches
        grid, block = ((n,) if isinstance(n, int) else n for n in (grid, block))
        if not math.prod(grid):
            return
        for i, x in enumerate(arguments):
            if hasattr(x, "flags") and not isinstance(x, np.generic) and not x.flags.c_contiguous:
                raise ValueError(f"{kernel}: argument {i} of shape {x.shape} is not C-contiguous")
        self._kernel(kernel, dtype)(grid, block, arguments)
        launches += 1

    def _kernel(self, name: str, dtype: Any) -> Any:
        key = None if dtype is None else np.dtype(dtype).name
        if key == "float32" and self.instances[-1] in TENSOR:
            key = product_of(key)
        if (name, key) not in self._kernels:
            if key not in self._modules:
                self._modules[key] = self._compile(name, key)
            self._kernels[name, key] = self._modules[key].get_function(name)
        return self._kernels[name, key]

    def _compile(self, kernel: str, instance: str | None) -> Any:
        if instance not in self.instances:
            raise TypeError(
                f"{kernel}: there is no CUDA kernel for {instance}. Use one of "
                f"{', '.join(self.dtypes or ())}: x.astype(np.float32), for example."
            )
        if instance in TENSOR:
            capability = int(cupy().cuda.Device().compute_capability)
            if capability < TENSOR_CAPABILITY:
                raise RuntimeError(
                    f"{kernel}: products in {instance} need a device of compute capability "
                    f"{TENSOR_CAPABILITY / 10} or later, and this one has {capability / 10}. Leave "
                    f"out cuda.products({instance!r}), or CUPY_TF32=1 in the environment."
                )
        return cupy().RawModule(code=self.code(), options=self.options(instance))


SOURCES: list[Source] = []  # all there are, for those who compile or check them beforehand


@functools.lru_cache(maxsize=1024)
def generated(name: str, text: str, parts: Sequence[str]) -> Source:
    """Return the source of a text made at run time, the same one for the same text."""
    return Source(name, parts=parts, text=text)


def sources() -> list[Source]:
    """Return the sources of all families."""
    for path in sorted(FOLDER.glob("*/gpu.py")):
        importlib.import_module(f"{__package__}.{path.parent.name}.gpu")
    return SOURCES


def forget() -> None:
    """Forget CuPy and all that was compiled: for tests that put another module in its place."""
    cupy.cache_clear()
    generated.cache_clear()
    for source in SOURCES:
        source._modules.clear()
        source._kernels.clear()
