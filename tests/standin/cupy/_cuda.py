"""The namespace cupy.cuda, and kernels that the host's compiler has made."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from . import _array
from ._array import Device


class RawModule:
    """CUDA source whose kernels tests/cuda_host.py compiles for the host."""

    def __init__(self, *, code: str, options: tuple[str, ...] = (), **more: Any) -> None:
        self.code = code
        self.options = tuple(options)

    def compile(self, log_stream: Any = None) -> None:
        """Do nothing: the host's compiler runs when a kernel is asked for."""

    def get_function(self, name: str) -> Any:
        """Return the kernel f(grid, block, arguments)."""
        import cuda_host

        kernel = cuda_host.host_kernel(self.code, self.options, name)

        def launch(*given: Any) -> None:
            if _array.captured is None:
                kernel(*given)
            else:
                _array.captured.append(lambda: kernel(*given))

        return launch


class Graph:
    """The launches that were captured, to be run together."""

    def __init__(self, launches: list[Callable[[], None]]) -> None:
        self.launches = launches

    def launch(self, stream: Any = None) -> None:
        for launch in self.launches:
            launch()


class Stream:
    """A stream on which all has happened at once.

    While it captures, kernels are kept for the graph and not run, and arrays are touched by them
    alone: CuPy refuses cuBLAS then, and the rest of it may allocate memory that is not the graph's.
    """

    ptr = 0

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        self.null = null

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    use = synchronize

    def begin_capture(self, mode: Any = None) -> None:
        if self.null or _array.captured is not None:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted")
        _array.captured = []

    def end_capture(self) -> Graph:
        if _array.captured is None:
            raise RuntimeError("cudaErrorIllegalState: the operation cannot be performed")
        graph, _array.captured = Graph(_array.captured), None
        return graph


class Event:
    """A moment on a stream; get_elapsed_time(a, b) gives milliseconds."""

    def record(self, stream: Any = None) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        pass


class MemoryPool:
    """A pool that counts nothing: host memory is the interpreter's."""

    def used_bytes(self) -> int:
        return 0

    total_bytes = used_bytes

    def free_all_blocks(self) -> None:
        pass


runtime = SimpleNamespace(
    getDeviceCount=lambda: 1,
    deviceSynchronize=lambda: None,
    runtimeGetVersion=lambda: 12090,
    driverGetVersion=lambda: 12090,
    getDeviceProperties=lambda device: {
        "name": b"stand-in",
        "totalGlobalMem": 1 << 30,
        "multiProcessorCount": 1,
    },
    is_hip=False,
)
MEMBERS = {
    "is_available": lambda: True,
    "Device": Device,
    "Event": Event,
    "get_elapsed_time": lambda begin, end: 1e3 * (end.time - begin.time),
    "Graph": Graph,
    "Stream": Stream,
    "MemoryPool": MemoryPool,
    "get_current_stream": lambda device_id=-1: Stream(null=True),
    "runtime": runtime,
}
