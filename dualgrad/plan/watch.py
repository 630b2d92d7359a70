"""Watch what a function reads beside its arguments, so that a plan notices when it changes.

A record cannot see a Python number that the loss takes from its closure, a global, a default or an
attribute of an object. The bytecode of the function, and of the functions it can reach, names the
roots it reads and the attributes it takes of anything (scan.py). From the roots the walk follows
containers whole, and objects by those attributes, wherever an alias may lead; what it cannot follow
it refuses. Between steps it compares by identity what it has met, in a microsecond or two.
"""

import array
import collections
import functools
import importlib.util
import itertools
import operator
import os
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..beside import on_device
from ..random import Key
from .scan import Scan, codes, scan

Check = Callable[[], bool]
LITERALS = (int, float, complex, str, bytes, bool, type(None), np.generic)
_OURS = frozenset({"dualgrad", "numpy", "cupy", "builtins", "math"})
_ENTRIES = 256  # of a container
_NODES = 512  # objects that are looked at in all
_DEPTH = 5  # of containers and objects in each other
_BYTES = 1 << 14  # of an array that is compared by value
_KNOWN = 64  # states that are told apart
_MISSING = object()
_LISTS = (list, tuple, set, frozenset, collections.deque)
_MAPPINGS = (dict, types.MappingProxyType)
_BUFFERS = (bytearray, array.array)
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)
# Special methods that no expression calls; __init__ is called where a class is.
_UNREAD = frozenset(
    "__new__ __init__ __post_init__ __repr__ __str__ __del__ __setattr__ __delattr__ __setitem__ "
    "__delitem__ __set_name__ __init_subclass__ __class_getitem__ __reduce__ __reduce_ex__ "
    "__getstate__ __setstate__ __eq__ __hash__ __replace__ __format__ __dir__".split()
)
_MADE = frozenset({"__new__", "__init__", "__post_init__"})
# Functions that read attributes whose names the code of the loss need not hold.
_BLIND = ("attrgetter", "methodcaller", "asdict", "astuple", "import_module", "_getframe")


class Unwatched(Exception):
    """The loss reads what cannot be followed; the message says what."""


class Watch:
    """What a function reads: `state()` is the same number as long as none of it has changed.

    Attributes:
        reason: why it cannot be watched, or "".
    """

    def __init__(self, function: Callable) -> None:
        self.reason = ""
        self._roots: list[Any] = [function]
        self._types: list[type] = []  # of objects among the parameters
        self._last: tuple[list[Check], int] | None = None
        self._known: dict[Any, int] = {}
        self._numbers = itertools.count()

    def include(self, params: Any) -> None:
        """Watch also what the functions and the methods of objects in a tree of parameters read."""
        found = list(_parts(params))
        functions = [x for x in found if isinstance(x, types.FunctionType)]
        kinds = {type(x) for x in found if not isinstance(x, types.FunctionType)}
        kinds = {kind for kind in kinds if _of_the_user(kind.__module__)}
        if any(f not in self._roots for f in functions) or not kinds <= set(self._types):
            self._roots += [f for f in functions if f not in self._roots]
            self._types += [kind for kind in kinds if kind not in self._types]
            self._last = None

    def state(self) -> int:
        """Return a number that stands for all that is read now; -1 where it cannot be followed."""
        if self.reason:
            return -1
        if self._last is not None:
            checks, number = self._last
            for check in checks:
                if not check():
                    break
            else:
                return number
        return self._look()

    def _look(self) -> int:
        names: frozenset[str] = frozenset()
        while True:  # each walk may meet code that takes more attributes
            walk = _Walk(names)
            try:
                for kind in self._types:
                    walk.kind(kind, made=False)
                for root in self._roots:
                    walk.visit(root, 0)
                walk.finish()
            except Unwatched as unwatched:
                self.reason = str(unwatched)
                return -1
            if walk.names == names:
                break
            names = frozenset(walk.names)
        if len(self._known) >= _KNOWN:
            self._known.clear()
        met = tuple(walk.met)
        if met not in self._known:
            self._known[met] = next(self._numbers)
        self._last = walk.checks, self._known[met]
        return self._known[met]


class Identity:
    """An object that is equal to itself alone; holding it, so that no other takes its place."""

    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.held is other.held

    def __hash__(self) -> int:
        return id(self.held)


class _Walk:
    """One walk over all that can be read.

    Attributes:
        names: of attributes that some code takes; it grows while code is met.
        met: what was found, hashable: equal walks met equal things.
        checks: functions that tell whether a thing is as it was met.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = set(names)
        self.asked: set[str] = set()  # attributes that code looks for and may not find
        self.met: list[Any] = []
        self.checks: list[Check] = []
        self._seen: dict[int, Any] = {}  # and what has this id, which so stays its own
        self._waiting: collections.deque[tuple[Any, int]] = collections.deque()

    def visit(self, x: Any, depth: int) -> None:
        """Note a value that is read; what can be read of it is noted when the walk goes on."""
        if isinstance(x, LITERALS):
            self.met.append((type(x), repr(x)))
            return
        self.met.append(Identity(x) if not isinstance(x, types.MethodType) else "method")
        if id(x) in self._seen:
            return
        self._seen[id(x)] = x
        if len(self._seen) > _NODES:
            raise Unwatched(f"it can read more than {_NODES} objects beside its arguments")
        self._waiting.append((x, depth))

    def finish(self) -> None:
        """Look into all that was met."""
        while self._waiting:
            self._inside(*self._waiting.popleft())

    def _inside(self, x: Any, depth: int) -> None:
        if on_device(x):
            raise Unwatched(f"it reads a device array of shape {x.shape} that is no argument")
        if isinstance(x, np.ndarray):
            self._array(x)
        elif isinstance(x, types.FunctionType):
            self._function(x)
        elif isinstance(x, types.MethodType):
            self.visit(x.__func__, depth)
            self.visit(x.__self__, depth)
        elif isinstance(x, functools.partial):
            self._entries([x.func, *x.args, *x.keywords.values()], depth)
        elif isinstance(x, type):
            self.kind(x, made=True)
        elif isinstance(x, types.ModuleType):
            if x.__name__.partition(".")[0] not in _OURS:
                self._attributes(x, self.names & vars(x).keys(), depth)
        else:
            self._object(x, depth)

    # --- values

    def _array(self, x: np.ndarray) -> None:
        if x.nbytes > _BYTES:
            raise Unwatched(f"it reads an array of shape {x.shape} that is no argument")
        if x.dtype.hasobject:
            raise Unwatched("it reads an array of objects that is no argument")
        shape, dtype, content = x.shape, x.dtype, x.tobytes()
        self.met.append((shape, dtype, content))
        self.checks.append(lambda: x.tobytes() == content and x.shape == shape and x.dtype == dtype)

    def _object(self, x: Any, depth: int) -> None:
        kind = type(x)
        if kind is type(os.environ):
            self._contents(x._data, depth)
            return
        if isinstance(x, (*_LISTS, *_MAPPINGS)):
            self._contents(x, depth)
        elif isinstance(x, _BUFFERS):
            content = bytes(x)
            self.met.append(content)
            self.checks.append(lambda: bytes(x) == content)
        module = kind.__module__.partition(".")[0]
        if module == "numpy" or isinstance(x, (Key, np.ufunc)):
            return
        if kind.__name__ in _BLIND and module == "operator":
            raise Unwatched(f"it reads attributes by an operator.{kind.__name__}")
        if _of_the_user(module):
            self.kind(kind, made=False)
            self._attributes(x, {name for name in self.names if _has(x, name)}, depth)
        elif hasattr(x, "__dict__"):  # its methods are not looked into, so all of it
            self._attributes(x, set(vars(x)), depth)

    def _contents(self, x: Any, depth: int) -> None:
        """Visit the entries of a container, and its keys."""
        if len(x) > _ENTRIES:
            raise Unwatched(f"it reads a {type(x).__name__} of {len(x)} entries, too many to watch")
        if isinstance(x, _MAPPINGS):
            keys, values = list(x), list(x.values())
            self.checks.append(
                lambda: (
                    len(x) == len(values)
                    and all(map(operator.is_, x.values(), values))
                    and all(map(operator.is_, x, keys))
                )
            )
            self._entries([*keys, *values], depth)
            return
        values = list(x)
        if type(x) is not tuple:
            self.checks.append(lambda: len(x) == len(values) and all(map(operator.is_, x, values)))
        self._entries(values, depth)

    def _entries(self, values: list, depth: int) -> None:
        if depth >= _DEPTH and not all(isinstance(v, LITERALS) for v in values):
            raise Unwatched(f"it reads containers or objects more than {_DEPTH} deep")
        self.met.append(len(values))
        for value in values:
            self.visit(value, depth + 1)

    def _attributes(self, x: Any, names: set[str], depth: int) -> None:
        taken = [(name, _attribute(x, name)) for name in sorted(names)]
        taken = [(name, value) for name, value in taken if not _is_method(x, name)]
        missing = [(name, _MISSING) for name in sorted(self.asked) if not _has(x, name)]
        if taken or missing:
            pairs = [*taken, *missing]
            self.checks.append(lambda: all(_same(_attribute(x, n), v) for n, v in pairs))
        self._entries([value for _, value in pairs] if taken or missing else [], depth)

    # --- code

    def kind(self, cls: type, made: bool) -> None:
        """Note the methods and other attributes of a class; made: whether it may be called."""
        for one in cls.__mro__:
            if not _of_the_user(one.__module__):
                continue
            for name, raw in list(vars(one).items()):
                special = name[:2] == "__" and callable(raw) and name not in _UNREAD
                if not (special or name in self.names or (made and name in _MADE)):
                    continue
                self.checks.append(lambda o=one, n=name, r=raw: vars(o).get(n) is r)  # type: ignore[misc]
                raw = raw.fget if isinstance(raw, property) else getattr(raw, "__func__", raw)
                self.visit(raw, 1)

    def _function(self, f: types.FunctionType) -> None:
        if not _of_the_user(f.__module__ or ""):
            if f.__name__ in _BLIND and f.__module__ in ("dataclasses", "importlib"):
                raise Unwatched(f"it calls {f.__module__}.{f.__name__}")
            if f is os.getenv:
                self.visit(os.environ, 0)
            return
        code, defaults, named = f.__code__, f.__defaults__, f.__kwdefaults__
        self.checks.append(
            lambda: f.__code__ is code and f.__defaults__ is defaults and f.__kwdefaults__ is named
        )
        self.met.append(Identity(code))
        self._entries([*(defaults or ()), *(named or {}).values()], 0)
        cells = dict(zip(code.co_freevars, f.__closure__ or (), strict=True))
        for inner in codes(code):
            found = scan(inner)
            self.names |= found.names
            self.asked |= found.asked
            self._scanned(f, found, cells)
        self._attributes(f, self.names & vars(f).keys(), 1)

    def _scanned(self, f: types.FunctionType, found: Scan, cells: dict[str, Any]) -> None:
        scope = f.__globals__
        for root, attributes, line in found.roots:
            if root in cells:
                self._chain(functools.partial(_content, cells[root]), attributes)
            elif root in scope:
                self._chain(functools.partial(scope.get, root, _MISSING), attributes)
            elif root in found.refused:
                raise Unwatched(f"it calls {root}(), which may read anything, at {line}")
        for what, line in found.unclear:
            raise Unwatched(f"{what}, at {line}")
        for name in found.imports:
            full = importlib.util.resolve_name(name, scope.get("__package__") or "")
            for part in {full, full.partition(".")[0]}:
                self._chain(functools.partial(sys.modules.get, part, _MISSING), ())

    def _chain(self, reader: Callable[[], Any], attributes: tuple[str, ...]) -> None:
        """Note root.a.b by what it gives, or, where root is a module of ours, not at all."""
        value = reader()
        if isinstance(value, types.ModuleType) and value.__name__.partition(".")[0] in _OURS:
            return
        if attributes:
            root = reader
            reader = lambda: functools.reduce(_attribute, attributes, root())  # noqa: E731
            value = reader()
        if getattr(value, "__name__", "") in _BLIND and isinstance(value, (type, *_FUNCTIONS)):
            raise Unwatched(f"it calls {value.__name__}, which reads attributes by other names")
        self.checks.append(lambda: _same(reader(), value))
        self.visit(value, 0)


def _of_the_user(module: str) -> bool:
    """Whether code of a module is looked into: it is neither ours nor the standard library's."""
    top = module.partition(".")[0]
    return top not in _OURS and top not in sys.stdlib_module_names or top == "__main__"


def _parts(params: Any) -> Iterable[Any]:
    """Yield the functions and the objects with attributes in a tree of parameters."""
    if isinstance(params, (list, tuple)):
        yield from itertools.chain.from_iterable(map(_parts, params))
    elif isinstance(params, dict):
        yield from _parts(list(params.values()))
    elif isinstance(params, types.FunctionType):
        yield params
    elif not isinstance(params, (np.ndarray, type)) and hasattr(params, "__dict__"):
        yield params
        yield from _parts(list(vars(params).values()))


def _has(x: Any, name: str) -> bool:
    """Whether an object has an attribute, of its own or of its class, without computing it."""
    own = getattr(x, "__dict__", ())
    return name in own or any(name in vars(one) for one in type(x).__mro__)


def _is_method(x: Any, name: str) -> bool:
    """Whether x.name is a function of x's class: it is noted there."""
    if name in getattr(x, "__dict__", ()):
        return False
    raw = next((vars(one)[name] for one in type(x).__mro__ if name in vars(one)), None)
    return isinstance(raw, (types.FunctionType, staticmethod, classmethod)) or (
        type(raw) in (types.WrapperDescriptorType, types.MethodDescriptorType)
    )


def _attribute(x: Any, name: str) -> Any:
    try:
        return getattr(x, name, _MISSING)
    except Exception:  # whatever a property raises: then the loss meets it too, or takes none
        return _MISSING


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _MISSING


def _same(x: Any, seen: Any) -> bool:
    """Whether x is what was seen; numbers and text by value, bound methods by their parts."""
    if x is seen:
        return True
    if type(x) is not type(seen):
        return False
    if isinstance(x, types.MethodType):
        return x.__self__ is seen.__self__ and x.__func__ is seen.__func__
    return isinstance(x, LITERALS) and repr(x) == repr(seen)
