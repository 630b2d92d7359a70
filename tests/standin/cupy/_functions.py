"""NumPy's functions and ufuncs for device arrays, by delegation."""

import types
from typing import Any

import numpy as np

from . import _array, _names
from ._array import indices_of, ndarray, poisoned, unsupported, unwrap, wrap

AS_ARRAYS = {"allclose", "array_equal", "array_equiv"}  # NumPy gives a bool, CuPy an array
JOINING = {"concatenate", "concat", "stack", "hstack", "vstack", "dstack", "column_stack"}
FROM_HOST = {"array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray"}


class ufunc:
    """A ufunc of device arrays and scalars; lists are refused."""

    def __init__(self, function: np.ufunc) -> None:
        self._function = function
        self.__name__ = function.__name__
        self.nin, self.nout = function.nin, function.nout

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = kwargs.get("out", args[self.nin] if len(args) > self.nin else None)
        if out is not None and not isinstance(out, ndarray):
            raise TypeError(f"return arrays must be of ArrayType, not {type(out)}")
        for x in args:
            if isinstance(x, (list, tuple)):
                raise unsupported(x)
        y = _delegate(self._function, args, kwargs)
        return wrap(y) if out is None else out

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._function, name)
        if not callable(method):
            return method
        if self.__name__ not in _names.UFUNC_METHODS.get(name, [self.__name__]):
            raise NotImplementedError(f"`cupy_{self.__name__}.{name}` is not supported yet")
        if name == "at":
            return lambda a, index, *b: method(a._host, indices_of(index, waits=False), *unwrap(b))
        return lambda *args, **kwargs: wrap(_delegate(method, args, kwargs))


def _delegate(function: Any, args: tuple, kwargs: dict) -> Any:
    return function(*unwrap(args), **{name: unwrap(x) for name, x in kwargs.items()})


def delegated(module: str, name: str, function: Any) -> Any:
    """Return numpy's function for device arrays; module is "", "linalg" or "fft"."""
    lacking = _names.lacking_parameters(module, name)
    waits = not module and name in _names.SYNCHRONISING

    def call(*args: Any, **kwargs: Any) -> Any:
        _names.refuse(name, lacking, kwargs)
        if name in FROM_HOST and args and not isinstance(args[0], ndarray):
            host = _from_host(args[0])
            if isinstance(host, np.ndarray):
                return ndarray._of(np.array(host, *args[1:], **{**kwargs, "copy": True}))
        check_arguments(name, args, kwargs)
        for x in args if waits else ():
            if isinstance(x, ndarray):
                _array.transfer(x)
        y = _delegate(function, args, kwargs)
        if kwargs.get("out") is not None:
            return kwargs["out"]
        if args and isinstance(args[0], ndarray) and y is args[0]._host:
            return args[0]
        if name.startswith("empty"):
            y = poisoned(y)
        return wrap(np.bool_(y)) if name in AS_ARRAYS else wrap(y)

    call.__name__ = name
    call.__module__ = f"cupy.{module}" if module else "cupy"
    return call


def check_arguments(name: str, args: tuple, kwargs: dict) -> None:
    """Raise what CuPy raises where NumPy would take numbers, or another kind of sorting."""
    if name in JOINING:
        for x in args[0]:
            if not isinstance(x, ndarray):
                raise unsupported(x)
    if name == "broadcast_to" and not isinstance(args[0], ndarray):
        raise TypeError(f"Argument 'array' has incorrect type (expected ndarray, got {args[0]!r})")
    if name == "where" and isinstance(args[0], bool):
        raise AttributeError("'bool' object has no attribute 'astype'")
    if name in ("sort", "argsort") and kwargs.get("kind") not in (None, "stable"):
        raise ValueError("kind can only be None or 'stable'")


def _from_host(x: Any) -> Any:
    """Return numbers, lists of numbers or NumPy arrays as a NumPy array; device arrays stay."""
    if not isinstance(x, (list, tuple)):
        return x if isinstance(x, ndarray) else np.asarray(x)
    parts = [_from_host(item) for item in x]
    return np.array(x) if all(isinstance(part, np.ndarray) for part in parts) else x


def asnumpy(a: Any, stream: Any = None, order: Any = "C", out: Any = None) -> np.ndarray:
    """Return a copy in host memory, or a NumPy array as it is."""
    return a.get() if isinstance(a, ndarray) else np.asarray(a, order=order)


def fill(module: types.ModuleType, source: Any, name: str) -> None:
    """Give a module the functions, types and constants of NumPy's that CuPy has too."""
    for word in dir(source):
        thing = getattr(source, word)
        if word.startswith("_") or word in _names.LACKING[name] or hasattr(module, word):
            continue
        if isinstance(thing, np.ufunc):
            setattr(module, word, ufunc(thing))
        elif isinstance(thing, (type, float, types.NoneType)) or word in _names.SHARED:
            setattr(module, word, thing)
        elif callable(thing):
            setattr(module, word, delegated(name, word, thing))
