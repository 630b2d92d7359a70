"""The device of tests: CuPy's where there is one, else the stand-in of tests/standin."""

import contextlib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cuda_host
import numpy as np
import pytest

import dualgrad as dg
from dualgrad.kernels import cuda

STANDIN = Path(__file__).parent / "standin"
OF_CUPY = ("cupy", "cupyx")  # hypothesis looks into all modules, and loads those that wait for it
_kept: dict[str, ModuleType] = {}  # the stand-in's modules: loaded once, so that its class is one


def real() -> Any:
    """Return CuPy if it is installed and has a device, else None."""
    if importlib.util.find_spec("cupy") is None:
        return None
    module = importlib.import_module("cupy")
    return module if module.cuda.is_available() else None


def _of_cupy() -> dict[str, ModuleType]:
    return {name: m for name, m in sys.modules.items() if name.partition(".")[0] in OF_CUPY}


@contextlib.contextmanager
def installed() -> Iterator[Any]:
    """Put the stand-in in the place of cupy, and take it away again."""
    aside = _of_cupy()
    for name in aside:
        del sys.modules[name]
    sys.modules.update(_kept)
    sys.path.insert(0, str(STANDIN))
    try:
        module = importlib.import_module("cupy")
        _kept.update(_of_cupy())
        cuda.forget()
        yield module
    finally:
        sys.path.remove(str(STANDIN))
        for name in _of_cupy():
            del sys.modules[name]
        sys.modules.update(aside)
        cuda.forget()


@contextlib.contextmanager
def device_or_standin() -> Iterator[Any]:
    """Give CuPy, or the stand-in, or skip where kernels could not be compiled for the host."""
    if (module := real()) is not None:
        yield module
    elif cuda_host.COMPILER is None:
        pytest.skip("no CUDA device, and no g++ to compile the kernels for the host")
    else:
        with installed() as module:
            yield module


@contextlib.contextmanager
def no_transfers(device: Any) -> Iterator[None]:
    """Fail inside where anything waits for the device or copies an array to the host."""
    if not hasattr(device, "_array"):  # CuPy itself
        cupyx = importlib.import_module("cupyx")
        with contextlib.ExitStack() as guard:
            with warnings.catch_warnings(action="ignore"):  # it is deprecated, and has no successor
                guard.enter_context(cupyx.allow_synchronize(False))
            yield
        return

    def refuse(array: Any) -> Any:
        raise AssertionError(f"an array of shape {array.shape} was copied to the host")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device._array, "transfer", refuse)
        yield


def pushed(f, primals, tangents):
    """Value and tangents of f, where some of the arguments do not move (tangent None)."""
    moving = [i for i, t in enumerate(tangents) if t is not None]

    def of_moving(*args):
        every = list(primals)
        for i, x in zip(moving, args, strict=True):
            every[i] = x
        return f(*every)

    with np.errstate(all="ignore"):
        if not moving:
            return f(*primals), ()
        return dg.pushforward(
            of_moving, tuple(primals[i] for i in moving), tuple(tangents[i] for i in moving)
        )
