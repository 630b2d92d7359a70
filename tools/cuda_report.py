"""Compile every CUDA source with NVRTC, and show what its kernels use; this needs no device.

    python tools/cuda_report.py [--markdown] [--only WORDS] [--kernels]

For each source and architecture: kernels, instances (a source is compiled once for each dtype, and
for each way of tensor cores where it multiplies), the most registers of a thread, shared memory of
a block, and bytes of local memory that a thread's stack and spilled registers take. The compiler is
a wheel of its own, which needs no driver: pip install "dualgrad[cuda-check]".
"""

import argparse
import ctypes
import functools
import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from dualgrad.kernels import cuda

ARCHITECTURES = ("sm_80", "sm_90")
MISSING = 'NVRTC is not installed: python -m pip install "dualgrad[cuda-check]"'
# What a kernel may be declared with between __global__ and its name.
DECLARED = re.compile(r'extern "C"\s+__global__\s+void\s+(?:__launch_bounds__\([^()]*\)\s+)?(\w+)')
PROPERTIES = re.compile(
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
)


@dataclass(frozen=True)
class Usage:
    """What one kernel of an instance takes: a thread's registers, the rest in bytes."""

    registers: int = 0
    shared: int = 0
    stack: int = 0
    spills: int = 0

    def __or__(self, other: "Usage") -> "Usage":
        """Return the larger of each."""
        return Usage(*(max(pair) for pair in zip(self.tuple(), other.tuple(), strict=True)))

    def tuple(self) -> tuple[int, int, int, int]:
        return self.registers, self.shared, self.stack, self.spills


@dataclass(frozen=True)
class Instance:
    """A source compiled for a dtype (None: it has no dtypes) and an architecture.

    dtype is "tf32" or "bfloat16" where float32 is multiplied so. error is what the compiler says
    where it refuses; then there are no kernels.
    """

    source: str
    dtype: str | None
    architecture: str
    kernels: dict[str, Usage]
    error: str = ""

    def __str__(self) -> str:
        return f"{self.source}, {self.dtype or 'no dtype'}, {self.architecture}"


# --- the compiler


def wheel_folders() -> list[Path]:
    """Return the folders of NVIDIA's wheels: nvidia/cuda_nvrtc, nvidia/cu13, ..."""
    spec = importlib.util.find_spec("nvidia")
    places = () if spec is None else spec.submodule_search_locations or ()
    return [folder for place in places for folder in sorted(Path(place).iterdir())]


@functools.cache
def nvrtc() -> Any:
    """Return the compiler's library, or None where its wheel is not installed."""
    for folder in wheel_folders():
        for path in sorted((folder / "lib").glob("libnvrtc.so.*")):
            if "alt" not in path.name:
                return ctypes.CDLL(str(path))
    return None


def headers() -> tuple[str, ...]:
    """Return -I options for CUDA's own headers, which the runtime's wheel brings."""
    return tuple(
        f"-I{folder / 'include'}"
        for folder in wheel_folders()
        if (folder / "include" / "cuda_fp16.h").is_file()
    )


def compiled(code: str, options: Iterable[str]) -> tuple[bytes, str]:
    """Return the device's program, b"" where the compiler refuses, and what it says."""
    library, program = nvrtc(), ctypes.c_void_p()
    text = code.encode()
    library.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None)
    words = [option.encode() for option in options]
    array = (ctypes.c_char_p * len(words))(*words)
    refused = library.nvrtcCompileProgram(program, len(words), array)
    log = _buffer("ProgramLog", program).rstrip(b"\0").decode(errors="replace")
    cubin = b"" if refused else _buffer("CUBIN", program)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return cubin, log


def _buffer(what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc(), f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc(), f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


def usages(log: str) -> dict[str, Usage]:
    """Return what each kernel takes, from what --ptxas-options=-v prints.

    A function that a kernel calls is listed after it, and counted with it.
    """
    found: dict[str, Usage] = {}
    kernel = ""
    for line in log.splitlines():
        if begin := re.search(r"Compiling entry function '(\w+)'", line):
            kernel = begin[1]
            found[kernel] = Usage()
        elif local := PROPERTIES.search(line):
            frame, stores, loads = map(int, local.groups())
            found[kernel] |= Usage(stack=frame, spills=stores + loads)
        elif used := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            stack = re.search(r"(\d+) bytes cumulative stack size", line)
            found[kernel] |= Usage(int(used[1]), int(shared[1]) if shared else 0,
                                   int(stack[1]) if stack else 0)  # fmt: skip
    return found


# --- instances


Task = tuple[
    str, str | None, str, str, tuple[str, ...]
]  # source, dtype, architecture, code, options


def tasks(architectures: Iterable[str] = ARCHITECTURES, words: Iterable[str] = ("",)) -> list[Task]:
    """Return what there is to compile: sources with one of the words in their name.

    The longest text comes first, so that processes end together.
    """
    found = [
        (source.name, dtype, architecture, source.code(), source.options(dtype))
        for source in cuda.sources()
        if any(word in source.name for word in words)
        for dtype in source.instances
        for architecture in architectures
    ]
    return sorted(found, key=lambda task: (-len(task[3]), str(task[:3])))


def instance(task: Task) -> Instance:
    """Compile one instance."""
    source, dtype, architecture, code, options = task
    more = (f"-arch={architecture}", "--ptxas-options=-v", *headers())
    cubin, log = compiled(code, (*options, *more))
    if not cubin:
        return Instance(source, dtype, architecture, {}, log)
    kernels = {name: use for name, use in usages(log).items() if _holds(cubin, name)}
    return Instance(source, dtype, architecture, kernels)


def _holds(cubin: bytes, kernel: str) -> bool:
    return f"\0.text.{kernel}\0".encode() in cubin


def instances(todo: list[Task]) -> list[Instance]:
    """Compile all, a process for each core: the compiler does one program at a time in each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = max(1, min(cores or 1, len(todo)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(instance, todo))


def declared(code: str) -> list[str]:
    """Return the names of the kernels that a text declares, but for what macros put together."""
    whole = code.replace("\\\n", " ")  # macros of several lines
    lines = [line for line in whole.splitlines() if not line.lstrip().startswith("#define")]
    return DECLARED.findall("\n".join(lines))


# --- the report


def rows(found: list[Instance]) -> list[list[Any]]:
    """Return the table's rows: one for each source and architecture, and their sum."""
    table: list[list[Any]] = []
    groups: dict[tuple[str, str], list[Instance]] = {}
    for made in sorted(found, key=str):
        groups.setdefault((made.source, made.architecture), []).append(made)
    for (source, architecture), group in groups.items():
        most = functools.reduce(
            Usage.__or__, (u for x in group for u in x.kernels.values()), Usage()
        )
        names = {name for made in group for name in made.kernels}
        count = sum(len(made.kernels) for made in group)
        table.append([source, architecture, len(names), count, *most.tuple()])
    for architecture in sorted({made.architecture for made in found}):
        part = [row for row in table if row[1] == architecture]
        sums = [sum(row[i] for row in part) for i in (2, 3)]
        most_of = [max(row[i] for row in part) for i in (4, 5, 6, 7)]
        table.append(["all", architecture, *sums, *most_of])
    return table


def of_kernels(found: list[Instance]) -> list[list[Any]]:
    """Return one row for each kernel of each instance."""
    return [
        [f"{made.source}.{name}", made.architecture, made.dtype or "-", "", *use.tuple()]
        for made in sorted(found, key=str)
        for name, use in sorted(made.kernels.items())
    ]


HEAD = ["source", "for", "kernels", "instances", "registers", "shared", "stack", "spills"]


def text(head: list[str], body: list[list[Any]], markdown: bool) -> str:
    """Return an aligned table, or one in Markdown."""
    lines = [[str(cell) for cell in row] for row in [head, *body]]
    if markdown:
        lines.insert(1, ["---"] + ["---:"] * (len(head) - 1))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        line[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--markdown", action="store_true", help="a table for a page")
    parser.add_argument("--only", default="", metavar="WORDS",
                        help="sources whose name holds one of these, with commas")  # fmt: skip
    parser.add_argument("--kernels", action="store_true", help="one row for each kernel")
    options = parser.parse_args()
    if nvrtc() is None:
        print(f"error: {MISSING}", file=sys.stderr)
        return 2
    found = instances(tasks(words=options.only.split(",")))
    refused = [made for made in found if made.error]
    for made in refused:
        print(f"{made}:\n{made.error}", file=sys.stderr)
    if found:
        body = of_kernels(found) if options.kernels else rows(found)
        print(text(HEAD, body, options.markdown))
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
