"""The array class: host memory behind CuPy's rules of what may meet what."""

import builtins
import functools
import operator
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from ._names import METHODS_LACKING, lacking_parameters, refuse

captured: list[Any] | None = None  # the launches of a stream that captures (_cuda.py)
SCALARS = (bool, int, float, complex, np.generic)


def transfer(array: "ndarray") -> np.ndarray:
    """Return a copy in host memory: the one way out, where CuPy waits for the device."""
    check_no_capture()
    return array._host.copy()


def check_no_capture() -> None:
    if captured is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is unsupported")


def unsupported(x: Any) -> TypeError:
    return TypeError(f"Unsupported type {type(x)}")


def unwrap(x: Any) -> Any:
    """Return x with the host memory of each device array in it; refuse NumPy arrays."""
    if isinstance(x, ndarray):
        check_no_capture()
        return x._host
    if isinstance(x, np.ndarray) or hasattr(type(x), "__array_ufunc__") and not np.isscalar(x):
        raise unsupported(x)
    if isinstance(x, slice):
        return slice(*map(index_number, (x.start, x.stop, x.step)))
    if type(x) in (list, tuple):
        return type(x)(unwrap(item) for item in x)
    return x


def index_number(x: Any) -> Any:
    """Return a bound of a slice; a device array is none, as cupy.ndarray has no __index__."""
    return x if x is None else operator.index(x)


def wrap(y: Any) -> Any:
    """Return y with device arrays for NumPy's arrays and scalars, results in tuples included."""
    if isinstance(y, (np.ndarray, np.generic)):
        return ndarray._of(np.asarray(y))
    if isinstance(y, tuple) and hasattr(y, "_fields"):
        return type(y)(*map(wrap, y))
    return type(y)(map(wrap, y)) if type(y) in (list, tuple) else y


class Flags(SimpleNamespace):
    """Contiguity, as CuPy tells it: there is no `writeable`."""

    def __getitem__(self, name: str) -> bool:
        return getattr(self, name.lower())


class Device:
    """The one device."""

    compute_capability = "80"

    def __init__(self, device: int = 0) -> None:
        self.id = int(device)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    use = synchronize = lambda self: None


class ndarray:
    """An array on the stand-in's device. Its methods and operators are attached below."""

    __slots__ = ("_host", "__weakref__")
    __module__ = "cupy"
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]
    _host: np.ndarray

    def __init__(self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None,
                 order: str = "C") -> None:  # fmt: skip
        if memptr is not None or strides is not None:
            raise NotImplementedError("the stand-in makes no arrays of foreign memory")
        self._host = poisoned(np.empty(shape, dtype, order))  # type: ignore[call-overload]

    @classmethod
    def _of(cls, host: np.ndarray) -> "ndarray":
        if host.dtype.kind not in "biufc" or host.dtype.char in "gG":
            raise ValueError(f"Unsupported dtype {host.dtype}")
        array = cls.__new__(cls)
        array._host = host
        return array

    # --- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self._host.shape

    @shape.setter
    def shape(self, shape: Any) -> None:
        self._host = self._host.reshape(shape, copy=False)

    @property
    def flags(self) -> Flags:
        given = self._host.flags
        names = ("c_contiguous", "f_contiguous", "owndata", "forc", "fnc")
        return Flags(**{name: getattr(given, name) for name in names})

    @property
    def data(self) -> SimpleNamespace:
        return SimpleNamespace(ptr=self._host.ctypes.data, device=self.device)

    @property
    def device(self) -> Device:
        return Device(0)

    @property
    def base(self) -> Any:
        return None if self._host.base is None else ndarray._of(np.asarray(self._host.base))

    @property
    def __cuda_array_interface__(self) -> dict:
        return {**self._host.__array_interface__, "version": 3}

    # --- leaving the device: always by transfer

    def get(self, stream: Any = None, order: str = "C", out: Any = None,
            blocking: bool = True) -> np.ndarray:  # fmt: skip
        if out is None:
            return transfer(self)
        out[...] = transfer(self)
        return out

    def set(self, array: np.ndarray, stream: Any = None) -> None:
        if type(array) is not np.ndarray or (array.shape, array.dtype) != (self.shape, self.dtype):
            raise TypeError("only a numpy.ndarray of the same shape and dtype can be set")
        self._host[...] = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct "
            "a NumPy array explicitly."
        )

    def __reduce__(self) -> Any:
        return arrived, (transfer(self),)

    def __deepcopy__(self, memo: Any) -> "ndarray":
        return self.copy()

    # --- indexing

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> "ndarray":
        index = indices_of(index, waits=True)
        return ndarray._of(np.asarray(self._host[index]))

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        if not isinstance(value, (ndarray, *SCALARS)):
            raise unsupported(value)
        self._host[indices_of(index, waits=False)] = unwrap(value)

    def scatter_add(self, index: Any, value: Any) -> None:
        np.add.at(self._host, indices_of(index, waits=False), unwrap(value))

    # --- NumPy's protocols

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        function = getattr(sys.modules["cupy"], ufunc.__name__, None)
        if function is None:
            return NotImplemented
        out = kwargs.get("out")
        if out is not None:
            if len(out) != 1:
                raise ValueError("The 'out' parameter must have exactly one array value")
            kwargs["out"] = out[0]
        for x in (*inputs, *(out or ())):
            if not isinstance(x, (ndarray, np.ndarray, *SCALARS)):  # np.add.at(x, (0,), 1) too
                return NotImplemented
        return (function if method == "__call__" else getattr(function, method))(*inputs, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: tuple, kwargs: dict) -> Any:
        try:
            module = functools.reduce(
                getattr, function.__module__.split(".")[1:], sys.modules["cupy"]
            )
            mine = getattr(module, function.__name__)
        except AttributeError:
            return NotImplemented
        if mine is function or any(t not in (ndarray, np.ndarray) for t in types):
            return NotImplemented
        return mine(*args, **kwargs)


def arrived(host: np.ndarray) -> ndarray:
    """Return a device array of what pickle or a copy has kept."""
    return ndarray._of(host)


def indices_of(index: Any, waits: bool) -> Any:
    """Return an index of host arrays; it ends in an ellipsis, so that one entry is a view too.

    waits: whether a mask makes CuPy wait for the number of entries that it selects.
    """
    entries = []
    for entry in index if type(index) is tuple else (index,):
        if isinstance(entry, ndarray):
            if entry.dtype.kind not in "biu":
                raise IndexError("arrays used as indices must be of integer or boolean type")
            entry = transfer(entry) if waits and entry.dtype == bool else entry._host
        elif isinstance(entry, slice):
            entry = unwrap(entry)
        entries.append(entry)  # lists and NumPy's arrays are sent to the device
    return (*entries, ...) if not any(entry is ... for entry in entries) else tuple(entries)


def poisoned(host: np.ndarray) -> np.ndarray:
    """Return a new array filled with what no result should show: NaN, or the largest integer."""
    if host.dtype.kind in "fc":
        host.fill(np.nan)
    elif host.dtype.kind in "iu":
        host.fill(np.iinfo(host.dtype).max)
    return host


# --- operators: NumPy's dispatch decides, as it does for CuPy

BINARY = """add sub:subtract mul:multiply truediv:true_divide floordiv:floor_divide mod:remainder
    pow:power matmul and:bitwise_and or:bitwise_or xor:bitwise_xor lshift:left_shift
    rshift:right_shift divmod""".split()
COMPARISONS = "lt:less le:less_equal eq:equal ne:not_equal gt:greater ge:greater_equal".split()
UNARY = "neg:negative pos:positive abs:absolute invert".split()


def _defers(other: Any) -> bool:
    """Whether the other operand's reflected operator is asked instead."""
    if hasattr(type(other), "__array_ufunc__"):
        return type(other).__array_ufunc__ is None
    return not isinstance(other, SCALARS)


def _attach_operators() -> None:
    for words in (*BINARY, *COMPARISONS):
        name, _, function = words.partition(":")
        ufunc = getattr(np, function or name)

        def forward(self: Any, other: Any, ufunc: Any = ufunc) -> Any:
            return NotImplemented if _defers(other) else ufunc(self, other)

        def reflected(self: Any, other: Any, ufunc: Any = ufunc) -> Any:
            return NotImplemented if _defers(other) else ufunc(other, self)

        def in_place(self: Any, other: Any, ufunc: Any = ufunc) -> Any:
            return NotImplemented if _defers(other) else ufunc(self, other, out=self)

        setattr(ndarray, f"__{name}__", forward)
        if words in BINARY:
            setattr(ndarray, f"__r{name}__", reflected)
            if name not in ("matmul", "divmod"):  # CuPy has no __imatmul__
                setattr(ndarray, f"__i{name}__", in_place)
    for words in UNARY:
        name, _, function = words.partition(":")
        ufunc = getattr(np, function or name)
        setattr(ndarray, f"__{name}__", lambda self, ufunc=ufunc: ufunc(self))
    for name in "bool int float complex str repr format bytes".split():
        built_in = getattr(builtins, name)
        setattr(ndarray, f"__{name}__",
                lambda self, *more, convert=built_in: convert(transfer(self), *more))  # fmt: skip


# --- methods and attributes: those of numpy.ndarray that CuPy has, by delegation

LEAVING = "item tolist tobytes dump dumps tofile".split()
WAITING = "nonzero compress".split()


def _method(name: str) -> Any:
    lacking = lacking_parameters("", name)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        refuse(name, lacking, kwargs)
        host = transfer(self) if name in LEAVING else self._host
        if name in WAITING:
            transfer(self)
        out = kwargs.get("out")
        y = getattr(host, name)(*unwrap(args), **{key: unwrap(x) for key, x in kwargs.items()})
        if out is not None or y is self._host:
            return self if out is None else out
        return y if name in LEAVING else wrap(y)

    call.__name__ = name
    return call


def _attach_methods() -> None:
    for name in dir(np.ndarray):
        if name.startswith("_") or name in METHODS_LACKING or hasattr(ndarray, name):
            continue
        if callable(getattr(np.ndarray, name)):
            setattr(ndarray, name, _method(name))
        else:
            setattr(
                ndarray, name, property(lambda self, name=name: wrap(getattr(self._host, name)))
            )


_attach_operators()
_attach_methods()
