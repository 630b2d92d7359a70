"""CUDA sources compiled for the host: their kernels as functions on memory of the host.

host/host.hpp gives g++ the words of CUDA; here the kernels of a text are found, each gets a
function that calls it with pointers to its arguments, as a driver's launch does, and the library is
kept by the hash of all it was made from. With DUALGRAD_SANITIZE=1 it is built with AddressSanitizer
and UBSan; Python must then run with their libraries preloaded.
"""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HEADERS = Path(__file__).parent / "host"
COMPILER = shutil.which("g++")
SANITIZE = os.environ.get("DUALGRAD_SANITIZE") == "1"
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-ffp-contract=off", f"-I{HEADERS}"]
# A template's __shared__ arrays are static: without this all libraries would have the first one's.
FLAGS += ["-fno-gnu-unique"]
if SANITIZE:
    FLAGS += ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)'
)


def kernels(code: str, options: Sequence[str]) -> dict[str, list[str]]:
    """Return the kernels of a CUDA text, those of macros too, with their parameters' types."""
    text = _preprocessed(code, tuple(options))
    found = {}
    for name, parameters in KERNEL.findall(text):
        parts = [part.strip() for part in parameters.split(",") if part.strip()]
        found[name] = [re.sub(r"\w+$", "", part).strip() for part in parts]
    return found


def host_kernel(
    code: str, options: Sequence[str], name: str
) -> Callable[[tuple[int, ...], tuple[int, ...], Sequence[Any]], None]:
    """Return a kernel as a function of (grid, block, arguments), as CuPy's kernels are called."""
    types = kernels(code, options)[name]
    function = getattr(_library(code, tuple(options)), f"host_{name}")
    function.restype = ctypes.c_char_p

    def call(grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any]) -> None:
        assert len(arguments) == len(types), f"{name} takes {types}, got {len(arguments)} arguments"
        values = [_word(name, *pair) for pair in zip(arguments, types, strict=True)]
        pointers = [ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in values]
        sizes = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
        failure = function(sizes, (ctypes.c_void_p * max(1, len(pointers)))(*pointers))
        if failure:
            raise RuntimeError(f"{name}, grid {grid}, block {block}: {failure.decode()}")

    return call


def _word(name: str, value: Any, kind: str) -> Any:
    """Return an argument as CuPy hands it over; a kernel that reads it as another type is wrong."""
    pointer = "*" in kind
    if value is None or hasattr(value, "data") and not isinstance(value, np.generic):
        assert pointer, f"{name}: an array for {kind}"
        return ctypes.c_void_p(None if value is None else value.data.ptr)
    assert not pointer, f"{name}: {value!r} for {kind}"
    if isinstance(value, int) and not isinstance(value, bool):
        assert kind in ("i64", "long long"), f"{name}: an int for {kind}"
        return ctypes.c_longlong(value)
    assert isinstance(value, float) and kind == "double", f"{name}: {value!r} for {kind}"
    return ctypes.c_double(value)


@functools.cache
def _preprocessed(code: str, options: tuple[str, ...]) -> str:
    """Return the text without macros; CUDA's own words are left for the header."""
    kept = re.sub(r"#include <cuda_fp16.h>", "HOST_HALF", code)
    command = [COMPILER, "-E", "-x", "c++", *options, "-"]
    result = subprocess.run(command, input=kept, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.replace("HOST_HALF", "\n#include <cuda_fp16.h>\n")


@functools.cache
def _library(code: str, options: tuple[str, ...]) -> ctypes.CDLL:
    calls, flush = [], int("-DACC=float" in options)
    for name, types in kernels(code, options).items():
        given = ", ".join(f"*({kind}*)a[{i}]" for i, kind in enumerate(types))
        calls.append(f"static void call_{name}(void** a) {{ {name}({given}); }}")
        calls.append(
            f'extern "C" const char* host_{name}(const unsigned* sizes, void** a) '
            f"{{ return host::launch(call_{name}, sizes, a, {flush}); }}"
        )
    text = "\n".join(['#include "host.hpp"', _preprocessed(code, options), *calls, ""])
    folder = _folder()
    path = folder / f"{_digest(text)}.so"
    if not path.exists():
        source = path.with_suffix(f".{os.getpid()}.cpp")
        source.write_text(text)
        built = source.with_suffix(".so")
        _compile(f"-I{folder}", str(source), "-o", str(built))
        built.rename(path)
        source.unlink()
    return ctypes.CDLL(str(path))


@functools.cache
def _folder() -> Path:
    """Return the folder of libraries made with this host.hpp, which lies there compiled.

    Most of the time that a short text takes is the header's.
    """
    headers = [path.read_text() for path in sorted(HEADERS.iterdir())]
    parent = Path(tempfile.gettempdir()) / f"dualgrad-cuda-host-{os.getuid()}"
    folder = parent / _digest(*headers, *FLAGS)
    compiled = folder / "host.hpp.gch"  # which g++ takes, where it comes before the header's folder
    if not compiled.exists():
        folder.mkdir(parents=True, exist_ok=True)
        built = folder / f"{os.getpid()}.gch"
        _compile("-x", "c++-header", str(HEADERS / "host.hpp"), "-o", str(built))
        built.rename(compiled)
    return folder


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]


def _compile(*words: str) -> None:
    result = subprocess.run([str(COMPILER), *words, *FLAGS], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
