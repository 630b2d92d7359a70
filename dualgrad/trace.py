"""Record what a function does to its arguments, to do it again with others: the front of a plan.

Every array argument enters as a dual on a level of its own whose carrier is a `Traced`; a random
key as a `TracedKey`. Whatever is called on them (NumPy functions, operators, primitives, functions
of dg.nn, draws) is computed once and recorded as a `Call`. Two ways were tried: an array type of
its own, which every rule that asks "is this a dual?" would take for a constant and so record
wrongly (stop_gradient as nothing at all); and this one, where such code strips the value, and what
is stripped is an array the trace does not know. Such an array, or a value used to decide a branch,
raises `Untraceable`: a trace is right or it is refused.
"""

import math
import operator
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from . import tree
from .beside import has_memory
from .dual import TRACES, DualTensor, Level
from .errors import DualgradError
from .operations import name_of
from .random import Key

STATIC = frozenset({np.shape, np.ndim, np.size, np.iscomplexobj, np.isrealobj, np.result_type})
LITERALS = (int, float, complex, str, bytes, slice, type, np.dtype, np.generic, type(None))


class Untraceable(DualgradError, RuntimeError):
    """A function cannot be replayed; the message says what stands in the way, and where."""


def refusal(what: str, refused: list[str]) -> Untraceable:
    """Return the error for a record, and enter it among those that have refused the record.

    A function that catches it goes on in another way than it would without a record, so a record
    that was refused once stays so.
    """
    refused.append(f"{what}, at {user_line()}")
    return Untraceable(refused[-1])


class Ref(int):
    """The number of a recorded value: an input, or the result of a call."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"%{int(self)}"


class Call(NamedTuple):
    """One recorded call; args and kwargs hold a Ref wherever a recorded value stood."""

    function: Callable
    args: tuple
    kwargs: dict
    line: str  # of the caller's file, for explain()

    def __repr__(self) -> str:
        given = [repr(a) for a in self.args] + [f"{n}={a!r}" for n, a in self.kwargs.items()]
        return f"{_name(self.function)}({', '.join(given)})"


def _name(function: Callable) -> str:
    name = getattr(function, "name", None)  # a primitive
    if isinstance(name, str):
        return name
    named = getattr(function, "__module__", None) and hasattr(function, "__name__")
    return name_of(function) if named or isinstance(function, np.ufunc) else repr(function)


class Traced:
    """The carrier of a recorded value: its trace and number."""

    __slots__ = ("trace", "ref")

    def __init__(self, trace: "Trace", ref: Ref) -> None:
        self.trace = trace
        self.ref = ref

    def __len__(self) -> int:
        return 0

    def refuse(self, what: str) -> None:
        raise refusal(what, self.trace.refused)


class TracedKey(Key):
    """A random key whose draws and descendants are recorded."""

    __slots__ = ("trace", "ref", "plain")
    trace: "Trace"
    ref: "Ref"
    plain: Key

    def __init__(self, trace: "Trace", ref: Ref, plain: Key) -> None:
        for name, value in (("trace", trace), ("ref", ref), ("plain", plain)):
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        raise refusal("a key is compared", self.trace.refused)

    def __hash__(self) -> int:
        raise refusal("a key is looked up", self.trace.refused)

    def __repr__(self) -> str:
        raise refusal("a key is printed", self.trace.refused)

    @property
    def words(self) -> np.ndarray:
        raise refusal("key.words is read", self.trace.refused)

    def record(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        return self.trace.record(function, (self, *args), kwargs)

    def split(self, n: int = 2) -> Any:
        return self.record(Key.split, n)

    def fold_in(self, value: int | str) -> Any:
        return self.record(Key.fold_in, value)


class Trace:
    """A record in the making.

    Attributes:
        values: what each number stood for in this run: the inputs, then the results of calls.
        calls: in the order they were made; call i gave value number `inputs + i`.
        refused: why there is no record, whether or not the function caught it.
    """

    def __init__(self, level: Level) -> None:
        self.level = level
        self.values: list[Any] = []
        self.calls: list[Call] = []
        self.inputs = 0
        self.refused: list[str] = []

    def input(self, value: Any) -> Any:
        """Return a leaf of the arguments as a recorded value if it is an array or a key."""
        self.inputs += 1
        if has_memory(value) or isinstance(value, (np.generic, Key)):
            return self._wrapped(value)
        self.values.append(value)
        return value

    def record(self, function: Callable, args: Any, kwargs: dict) -> Any:
        """Call a function of recorded values and literals, and return its result as recorded."""
        call = Call(function, self.template(tuple(args)), self.template(kwargs), user_line())
        result = function(*fill(call.args, self.values), **fill(call.kwargs, self.values))
        if function in STATIC:
            return result
        self.calls.append(call)
        return self._wrapped(result)

    def _wrapped(self, value: Any) -> Any:
        ref = Ref(len(self.values))
        self.values.append(value)
        if isinstance(value, Key):
            return TracedKey(self, ref, value)
        if has_memory(value) or isinstance(value, np.generic):
            return DualTensor(value, Traced(self, ref), self.level)
        if isinstance(value, (tuple, list)):
            holder = Traced(self, ref)
            items = [self.record(operator.getitem, (holder, i), {}) for i in range(len(value))]
            return getattr(type(value), "_make", type(value))(items)  # _make: of a NamedTuple
        raise refusal(f"{type(value).__name__} {value!r} was computed", self.refused)

    def template(self, x: Any) -> Any:
        """Return x with a Ref in the place of each recorded value."""
        if type(x) is DualTensor and type(x.carrier) is Traced and x.carrier.trace is self:
            return x.carrier.ref
        if type(x) is Traced or type(x) is TracedKey:
            return x.ref
        if type(x) in (tuple, list):
            return type(x)(self.template(item) for item in x)
        if type(x) is dict:
            return {name: self.template(item) for name, item in x.items()}
        if type(x) is slice:
            return slice(*(self.template(i) for i in (x.start, x.stop, x.step)))
        if isinstance(x, LITERALS) or x is Ellipsis or callable(x):
            return x
        what = f"{_described(x)} comes from neither the parameters, the batch nor the key"
        raise refusal(what, self.refused)


def _described(x: Any) -> str:
    if has_memory(x):
        return f"an array of shape {x.shape} and dtype {x.dtype}"
    return f"a {type(x).__name__}"


def fill(x: Any, values: list) -> Any:
    """Return a template with the values its Refs stand for."""
    kind = type(x)
    if kind is Ref:
        return values[x]
    if kind in (tuple, list):
        return kind([fill(item, values) for item in x])
    if kind is dict:
        return {name: fill(item, values) for name, item in x.items()}
    if kind is slice:
        return slice(*(fill(i, values) for i in (x.start, x.stop, x.step)))
    return x


def refs(x: Any) -> list[Ref]:
    """Return the Refs of a template in order."""
    if type(x) is Ref:
        return [x]
    if type(x) is dict:
        x = tuple(x.values())
    if type(x) is slice:
        x = (x.start, x.stop, x.step)
    return [ref for item in x for ref in refs(item)] if type(x) in (tuple, list) else []


def user_line() -> str:
    """Return "file:line" of the innermost frame outside dualgrad and NumPy."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in ("dualgrad", "numpy", "optree"):
            return sys.intern(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    return "an unknown line"


class Spec(NamedTuple):
    """The shape and dtype of a recorded array; the array itself is not kept."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Graph(NamedTuple):
    """A finished trace: inputs are the numbers 0 to inputs - 1, call i is number inputs + i."""

    inputs: int
    calls: list[Call]
    outputs: list  # templates: a Ref, or a literal
    structure: Any  # of the tree of outputs
    values: list  # a Spec for each array, None for what is none


def trace(function: Callable, arguments: tree.Tree) -> tuple[Graph, list]:
    """Return the record of function(*arguments), whose leaves are the inputs, and its outputs.

    Leaves that are neither arrays nor keys enter as they are: literals.

    Raises:
        Untraceable: the function does what a record cannot repeat. Errors of the function itself
            pass.
    """
    level = Level.fresh("a plan (dg.training_step(..., plan=False) makes none)")
    record = Trace(level)
    leaves, structure = tree.flatten(arguments)
    duals = [record.input(x) for x in leaves]
    TRACES.append(record)
    try:
        result = function(*tree.unflatten(structure, duals))
        if record.refused:
            raise Untraceable(record.refused[0])
        found, where = tree.flatten(result)
        outputs = [record.template(x) for x in found]
    finally:
        TRACES.remove(record)
        level.open = False
    check = [fill(x, record.values) for x in outputs]
    specs = [Spec(x.shape, x.dtype) if hasattr(x, "dtype") else None for x in record.values]
    return Graph(record.inputs, record.calls, outputs, where, specs), check
