"""Watch what a function reads beside its arguments, so that a plan notices when it changes.

A record cannot see a Python number that the loss takes from its closure, a global, a default or an
attribute of an object. The bytecode of the function, and of the functions it calls by such names,
says which there are; comparing them takes a microsecond or two a step. What a function computes
itself from call to call (a counter it keeps) is out of reach: a plan does not call it again.
"""

import dis
import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np

Reader = Callable[[], Any]
LITERALS = (int, float, complex, str, bytes, bool, type(None), np.generic)
_OURS = frozenset({"dualgrad", "numpy", "builtins", "math"})
_MOST = 64  # entries of a container that are looked at
_BYTES = 1 << 14  # of an array that is compared by value
_MISSING = object()


class Watch:
    """What a function reads: `state()` is equal as long as none of it has changed."""

    def __init__(self, function: Callable) -> None:
        self._readers: list[Reader] = []
        self._seen: set[int] = set()
        self._add(function)

    def state(self) -> tuple:
        """Return what is read now: numbers and strings by value, other objects by identity."""
        return tuple([_fixed(reader()) for reader in self._readers])

    def _add(self, function: Any) -> None:
        if id(function) in self._seen:
            return
        self._seen.add(id(function))
        if isinstance(function, functools.partial):
            self._values((*function.args, *function.keywords.values()))
            self._add(function.func)
        elif isinstance(function, types.MethodType):
            self._code(function.__func__, function.__self__)
        else:
            owner = _MISSING if isinstance(function, types.FunctionType) else function
            self._code(function if owner is _MISSING else type(function).__call__, owner)

    def _values(self, values: tuple) -> None:
        for value in values:
            self._readers.append(functools.partial(_same, value))
            self._follow(value)

    def _follow(self, value: Any) -> None:
        """Watch a function of the user's that is called by a name."""
        module = getattr(value, "__module__", None) or ""
        if (
            callable(value)
            and module.partition(".")[0] not in _OURS
            and not isinstance(value, type)
        ):
            self._add(value)

    def _code(self, function: Any, owner: Any) -> None:
        if not isinstance(function, types.FunctionType):  # compiled: there is nothing to read
            return
        self._values((*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()))
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        first = function.__code__.co_varnames[:1]
        for code in _codes(function.__code__):
            for root, local, attributes in _reads(code):
                if local:
                    if owner is _MISSING or (root,) != first:
                        continue
                    reader = functools.partial(_same, owner)
                elif root in cells:
                    reader = functools.partial(_content, cells[root])
                elif root in function.__globals__:
                    reader = functools.partial(function.__globals__.get, root)
                else:
                    continue
                self._chain(reader, attributes)

    def large(self) -> str:
        """Return the shape of an array that is too large to watch by value, or ""."""
        values = [reader() for reader in self._readers]
        held = [x for v in values for x in (v if type(v) in (list, tuple) else [v])]
        arrays = [x for x in held if isinstance(x, np.ndarray) and x.nbytes > _BYTES]
        return str(arrays[0].shape) if arrays else ""

    def _chain(self, reader: Reader, attributes: list[str]) -> None:
        """Watch root.a.b by what it gives, or, where root is a module of ours, not at all."""
        value = reader()
        if isinstance(value, types.ModuleType) and value.__name__.partition(".")[0] in _OURS:
            return
        end = functools.partial(_get, reader, attributes) if attributes else reader
        self._readers.append(end)
        self._follow(end())


def _codes(code: types.CodeType) -> list[types.CodeType]:
    """Return a code object and those of the functions, lambdas and loops inside it."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return [code, *(found for c in inner for found in _codes(c))]


def _reads(code: types.CodeType) -> list[tuple[str, bool, list[str]]]:
    """Return (name, whether it is a local one, attributes taken of it at once) of each load."""
    found: list[tuple[str, bool, list[str]]] = []
    chain: list[str] | None = None
    for instruction in dis.get_instructions(code):
        name = instruction.opname
        if name in ("LOAD_ATTR", "LOAD_METHOD") and chain is not None:
            chain.append(instruction.argval)
        elif name in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF"):
            chain = []
            found.append((instruction.argval, False, chain))
        elif "LOAD_FAST" in name:  # from Python 3.13 on one instruction may load two
            loaded = instruction.argval
            for local in loaded if type(loaded) is tuple else (loaded,):
                chain = []
                found.append((local, True, chain))
        elif name not in ("CACHE", "PUSH_NULL", "EXTENDED_ARG"):
            chain = None
    return found


def _get(reader: Reader, attributes: list[str]) -> Any:
    value = reader()
    for name in attributes:
        value = getattr(value, name, _MISSING)
    return value


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _MISSING


def _same(value: Any) -> Any:
    return value


class Identity:
    """An object that is equal to itself alone; holding it, so that no other takes its place."""

    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.held is other.held

    def __hash__(self) -> int:
        return id(self.held)


def _fixed(x: Any, deep: bool = True) -> Any:
    """Return what tells whether x has changed: its value where that is cheap, else its identity."""
    if isinstance(x, LITERALS):
        return type(x), repr(x)
    if isinstance(x, types.MethodType):  # made anew each time it is read
        return Identity(x.__self__), Identity(x.__func__)
    if type(x) is np.ndarray and not x.dtype.hasobject and x.nbytes <= _BYTES:
        return x.shape, x.dtype, x.tobytes()
    if deep and type(x) in (tuple, list, dict) and len(x) <= _MOST:
        entries = [*x, *x.values()] if type(x) is dict else x
        return len(x), *(_fixed(entry, False) for entry in entries)
    return Identity(x)
