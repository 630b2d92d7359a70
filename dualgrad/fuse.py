"""fuse: a function entry by entry as one kernel on a device, for values and all tangents.

Two designs were sketched. Symbols of a class of their own, which answer NumPy's protocols, look
like constants to all that asks "is this a dual?": relu would become the maximum that computes it,
with half a slope at 0, stop_gradient nothing, a custom_jvp the formula of its value. So here, as in
trace.py, each array becomes a dual on a level of its own, only that nothing is computed: whatever
is called on it arrives whole at `Chain.record`, and what the table there does not have is refused.
Then, and wherever a trace could be wrong, the function is called as it is.

A function is traced at every call. What it closes over, how it branches on Python values, shapes
and dtypes are those of this call; a trace that is kept would have to compare all of them, as plans
do. It takes about 20 microseconds and 5 for each operation; what is compiled is kept by its text,
in which there are no numbers. An array that comes in otherwise than as an argument is copied where
it is met: the function may write it, for its next turn, before the kernel starts.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import tree
from .beside import on_device
from .debugging import watching
from .dual import TRACES, DualTensor, Level, primal
from .errors import DualgradError
from .kernels import cuda
from .kernels.elementwise import chain, device
from .operations import name_of
from .ops import neural
from .random import Key
from .trace import LITERALS, Untraceable, refusal

# What a trace may raise where the function itself, called as it is, does something else.
REFUSED = (DualgradError, TypeError, AttributeError, ValueError, NotImplementedError)
# The operation, by NumPy's or our function.
NAMES: dict[Callable, str] = {
    getattr(np, name): name
    for name in (*device.SOURCES, *device.ALIASES, *chain.CONSTANT)
    if isinstance(getattr(np, name, None), np.ufunc)
}
NAMES |= {np.fabs: "absolute", neural.relu: "relu", neural.tanh: "tanh"}
NAMES |= {neural.sigmoid: "sigmoid", neural.gelu: "gelu"}
NAMES |= {getattr(np, f"bitwise_{word}"): f"logical_{word}" for word in ("and", "or", "xor")}
NAMES[np.invert] = "logical_not"
OF_MASKS = {name for name in chain.MASKS if name.startswith("logical_")}  # as well as of numbers
# Of some dtypes alone: the one gives float64 always, the other has no CUDA function for float16.
SOME_DTYPES = {"float_power": "d", "nextafter": "fd"}
BOOL = np.dtype(bool)
BITWISE = {np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.invert}  # of masks alone


class Form:
    """What is known of a symbol: the primal of its dual."""

    __slots__ = ("shape", "dtype", "refused")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, refused: list[str]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.refused = refused

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise refusal("entries are needed", self.refused)


class Symbol(chain.Value):
    """The carrier of a recorded value; refused is its chain's."""

    __slots__ = ("refused",)

    def __init__(self, refused: list[str], *of: Any) -> None:
        super().__init__(*of)
        self.refused = refused

    def __len__(self) -> int:
        return 0

    def refuse(self, what: str) -> None:
        raise refusal(what, self.refused)

    def lacks(self, name: str) -> None:
        raise refusal(f"x.{name} is asked for", self.refused)


class Chain:
    """A trace in the making.

    Attributes:
        level: of the symbols; outer: of the duals that came in, or None.
        dtype: of all arrays but masks.
        given: by the id of an array or dual among the arguments: itself, its symbol, and its value,
            which the symbol has until it is written.
        copies: how many arrays were none of these.
        refused: why there is no chain, whether or not the function caught it.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self.level = Level.fresh("dg.fuse")
        self.dtype = dtype
        self.outer: Level | None = None
        self.directions: int | None = None
        self.given: dict[int, tuple[Any, DualTensor, Symbol]] = {}
        self.operations = self.copies = 0
        self.refused: list[str] = []

    # --- what comes in

    def argument(self, x: Any) -> Any:
        """Return a leaf of the arguments as the function gets it: arrays and duals as symbols."""
        if isinstance(x, np.generic):
            return x
        if type(x) is DualTensor or hasattr(x, "__array__"):
            if id(x) not in self.given:
                value = self.array(x)
                self.given[id(x)] = x, self.symbol(value), value
            return self.given[id(x)][1]
        if isinstance(x, (*LITERALS, Key)) or callable(x):
            return x
        raise refusal(f"an argument is a {type(x).__name__}", self.refused)

    def array(self, x: Any, copy: bool = False) -> Symbol:
        """Return a device array or dual as a value."""
        y, t = (x.primal, x.carrier) if type(x) is DualTensor else (x, None)
        if not on_device(y) or not (t is None or on_device(t)):
            raise refusal(
                f"arrays on a device meet {type(y).__name__}, or duals are nested", self.refused
            )
        is_mask = y.dtype == bool and t is None
        if not is_mask and y.dtype != self.dtype:
            raise refusal(f"an array of {y.dtype} meets one of {self.dtype}", self.refused)
        if t is not None:
            x.level.check("dg.fuse")
            if self.outer is None:
                self.outer, self.directions = x.level, len(t)
            if (x.level, len(t), t.dtype) != (self.outer, self.directions, self.dtype):
                raise refusal(
                    "duals of two levels, or of two numbers of directions, meet", self.refused
                )
        if copy:
            self.copies += 1
            y, t = y.copy(), None if t is None else t.copy()
        return Symbol(self.refused, "mask" if is_mask else "array", y.shape, (), y, t)

    def value(self, x: Any) -> Symbol:
        """Return what an operation is applied to, a symbol, array, dual or number, as a value."""
        if type(x) is DualTensor and x.level is self.level:
            return x.carrier
        if type(x) not in (int, float, bool):
            if id(x) in self.given:
                return self.given[id(x)][1].carrier
            if not isinstance(x, np.generic):
                return self.array(x, copy=True)
            if np.result_type(self.dtype, x.dtype) != self.dtype:
                raise refusal(f"a number of {x.dtype} meets an array of {self.dtype}", self.refused)
        return Symbol(self.refused, "number", (), (), float(self.dtype.type(x)))

    # --- what is done with it

    def record(self, function: Callable, args: tuple, kwargs: dict) -> Any:
        """Return function(*args, **kwargs) as a symbol, or raise Untraceable."""
        try:
            return self._recorded(function, args, kwargs)
        except REFUSED as error:
            raise self.raised(error) from None

    def _recorded(self, function: Callable, args: tuple, kwargs: dict) -> Any:
        if function in SPECIAL:
            return SPECIAL[function](self, *args, **kwargs)
        if function not in NAMES or kwargs:
            name = getattr(function, "name", None) or name_of(function)
            more = f" with {', '.join(kwargs)}" if kwargs else ""
            raise refusal(
                f"{name}{more} is no operation entry by entry that has a kernel", self.refused
            )
        return self.operation(NAMES[function], args, function in BITWISE)

    def raised(self, error: Exception) -> Untraceable:
        """Return what an operation on symbols raised as a refusal, which stays if f catches it."""
        if isinstance(error, Untraceable):
            return error
        return refusal(f"{type(error).__name__}: {error}", self.refused)

    def check_length(self, values: int) -> None:
        if values > chain.LONGEST:
            raise refusal(f"a chain has more than {chain.LONGEST} values", self.refused)

    def operation(self, name: str, args: tuple, masks_alone: bool = False) -> DualTensor:
        """Return the symbol of an operation's result; its dtype is that of the chain, or bool."""
        values = [self.value(x) for x in args]
        if masks_alone and not all(v.is_mask for v in values):
            raise refusal(f"{name} of numbers", self.refused)
        if name not in OF_MASKS:
            first = name in device.MASKED
            if all(v.name == "number" or v.is_mask for v in values[first:]):
                raise refusal(f"{name} of masks and numbers alone", self.refused)
        if name in SOME_DTYPES and self.dtype.char not in SOME_DTYPES[name]:
            raise refusal(f"np.{name} has no kernel for {self.dtype}", self.refused)
        name = device.ALIASES.get(name, name)
        if name == "power" and type(args[1]) in (int, float) and args[1] >= 1:
            name = "power_of_number"
        shapes = {v.shape for v in values} - {()}
        shape = shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)
        return self.result(name, shape, values)

    def result(self, name: str, shape: tuple[int, ...], values: list[Symbol]) -> DualTensor:
        self.operations += 1
        self.check_length(self.operations)
        return self.symbol(Symbol(self.refused, name, shape, values))

    def symbol(self, value: Symbol) -> DualTensor:
        dtype = BOOL if value.is_mask else self.dtype
        return DualTensor(Form(value.shape, dtype, self.refused), value, self.level)

    def write(self, x: DualTensor, index: Any, value: Any) -> None:
        """Do x[...] = value: the symbol x stands for that value from now on."""
        try:
            self._write(x, index, value)
        except REFUSED as error:
            raise self.raised(error) from None

    def _write(self, x: DualTensor, index: Any, value: Any) -> None:
        new = self.value(value)
        whole = index is ... or (type(index) is slice and index == slice(None))
        if not whole or x.carrier.moves or new.moves:
            raise refusal("a part of an array, or a dual, is written", self.refused)
        if new.is_mask != x.carrier.is_mask:
            raise refusal("a mask is written into numbers, or numbers into a mask", self.refused)
        if new.shape != x.shape:
            if np.broadcast_shapes(new.shape, x.shape) != x.shape:
                raise refusal(
                    f"an array of {new.shape} is written into one of {x.shape}", self.refused
                )
            new = self.result("primal", x.shape, [new]).carrier
        x.carrier = new

    def copy(self, a: DualTensor, order: str = "K") -> DualTensor:
        return DualTensor(a.primal, a.carrier, self.level)

    def astype(self, x: DualTensor, dtype: Any, /, *, copy: bool = True) -> DualTensor:
        if x.dtype != dtype:
            raise refusal(f"a cast from {x.dtype} to {dtype}", self.refused)
        return self.copy(x) if copy else x

    def primal(self, x: DualTensor) -> DualTensor:
        return self.result("primal", x.shape, [x.carrier]) if x.carrier.moves else x

    def where(self, condition: Any, x: Any, y: Any) -> DualTensor:
        return self.operation("where", (condition, x, y))

    def clip(self, a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None,
             max: Any = None) -> DualTensor:  # fmt: skip
        low = a_min if min is None else min
        high = a_max if max is None else max
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        return self.operation("clip", (a, low, high))


SPECIAL: dict[Callable, Callable] = {
    np.shape: lambda trace, a: a.shape,
    np.ndim: lambda trace, a: a.ndim,
    np.copy: Chain.copy,
    np.astype: Chain.astype,
    np.where: Chain.where,
    np.clip: Chain.clip,
    primal: Chain.primal,
}


class Traced:
    """A function's call as a chain: what is given back, and what is written.

    Raises, when it is made:
        REFUSED: the function cannot be fused, or not with these arguments.
    """

    def __init__(self, f: Callable, leaves: list, structure: Any, dtype: np.dtype) -> None:
        self.chain = Chain(dtype)
        given = [self.chain.argument(x) for x in leaves]
        self.arguments = {
            id(symbol): x for x, symbol in zip(leaves, given, strict=True) if symbol is not x
        }
        TRACES.append(self.chain)
        try:
            args, kwargs = tree.unflatten(structure, given)
            result = f(*args, **kwargs)
            if self.chain.refused:
                raise Untraceable(self.chain.refused[0])
        finally:
            TRACES.remove(self.chain)
            self.chain.level.open = False
        after, same = tree.flatten((args, kwargs))
        if same != structure or any(a is not b for a, b in zip(after, given, strict=True)):
            raise refusal("a container among the arguments is changed", self.chain.refused)
        self.found, self.structure = tree.flatten(result)
        self.results: dict[int, tuple[DualTensor, Any]] = {}  # symbols, and where they are written
        for x in self.found:
            if self._is_symbol(x):
                if id(x) not in self.arguments:
                    self.results[id(x)] = x, None
            elif callable(x) or not (hasattr(x, "dtype") or isinstance(x, (*LITERALS, Key))):
                raise refusal(f"the result has a {type(x).__name__}", self.chain.refused)
        for leaf, symbol, value in self.chain.given.values():
            if symbol.carrier is not value:
                self._check_alone(leaf)
                self.results[id(symbol)] = symbol, leaf
        if len({symbol.primal.shape for symbol, _ in self.results.values()}) > 1:
            raise refusal("results have several shapes", self.chain.refused)
        self.order = chain.ordered([symbol.carrier for symbol, _ in self.results.values()])
        self.chain.check_length(len(self.order))

    def _outer(self) -> Level:
        assert self.chain.outer is not None, "a result moves, so a dual came in"
        return self.chain.outer

    def _is_symbol(self, x: Any) -> bool:
        return type(x) is DualTensor and x.level == self.chain.level

    def _check_alone(self, leaf: Any) -> None:
        """Refuse an array that is written where another one that is read shares its memory."""
        for x, _, value in self.chain.given.values():
            for y in (value.given, value.tangents):
                if x is not leaf and y is not None and np.may_share_memory(y, leaf):
                    raise refusal(
                        "an array is written whose memory another one shares", self.chain.refused
                    )

    def launch(self) -> Any:
        """Run the kernel, and return what the function does."""
        made: dict[int, Any] = dict(self.arguments)
        if self.results:
            symbols, into = zip(*self.results.values(), strict=True)
            pairs = chain.run(self.order, [x.carrier for x in symbols], symbols[0].primal.shape,
                              self.chain.dtype, into)  # fmt: skip
            for key, target, (y, ty) in zip(self.results, into, pairs, strict=True):
                if target is None:
                    made[key] = y if ty is None else DualTensor(y, ty, self._outer())
        found = [made[id(x)] if self._is_symbol(x) else x for x in self.found]
        return tree.unflatten(self.structure, found)


def fuse(f: Callable) -> Callable:
    """Return f with its operations run as one kernel, where its arguments are on a device.

    One launch gives all results with their k tangents, and nothing in between goes to memory. On
    NumPy arrays the result calls f, and that is all; so it does on a device where it cannot fuse:
    results are those of f, whether fused or not, up to the rounding of fused multiply-adds. Of
    float16 arrays the values in between are kept in float32.

    Fused are arithmetic, comparisons, NumPy's functions entry by entry, np.where, np.clip, dg.nn's
    activations and dg.stop_gradient, of arrays of one dtype (float16, float32 or float64), bool
    masks and numbers, plain or duals of one level, with results of one shape. Writing into a plain
    argument as a whole, as `w -= rate * g` does, is one of the results. With all else f is called
    as it is: reductions, indexing, a branch on an entry, mixed dtypes, nested derivatives, reverse
    mode.

    Args:
        f: a function of trees of arrays and of anything else, with a tree of arrays. It may be
            called twice, so it should do nothing but compute its result and write its arguments
            (these stay as they are where it raises), not ask of what type they are, and reach an
            array that it writes by one argument alone. It may close over anything, which is looked
            at in every call; arrays are better given as arguments, for others are copied.

    The result has an attribute explain: explain(*args) says what a call does, and if it calls f,
    why.

    >>> silu = fuse(lambda x: x / (1 + np.exp(-x)))
    >>> silu(np.array([0.0, 1.0])).round(6)
    array([0.      , 0.731059])
    >>> silu.explain(np.array([0.0, 1.0]))
    'f itself: no argument is a floating array on a device'
    """

    def trace(args: tuple, kwargs: dict) -> Traced | None:
        leaves, structure = tree.flatten((args, kwargs))
        dtype = _dtype(leaves)
        return None if dtype is None or watching() else Traced(f, leaves, structure, dtype)

    @functools.wraps(f)
    def fused(*args: Any, **kwargs: Any) -> Any:
        try:
            traced = trace(args, kwargs)
        except REFUSED:
            traced = None
        return f(*args, **kwargs) if traced is None else traced.launch()

    def explain(*args: Any, **kwargs: Any) -> str:
        """Say in a line whether a call with these arguments is one kernel."""
        try:
            traced = trace(args, kwargs)
        except REFUSED as error:
            return f"f itself: {error}"
        if traced is None:
            return "f itself: " + (
                "dg.debug_nans is open" if watching() else
                "no argument is a floating array on a device"
            )  # fmt: skip
        if not traced.results:
            return "no kernel: nothing is computed"
        counts = {
            "operation": sum(bool(value.arguments) for value in traced.order),
            "result": len(traced.results),
        }
        parts = [f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items()]
        if traced.chain.copies:
            parts.append(f"arrays copied because they are no arguments: {traced.chain.copies}")
        return f"one kernel: {', '.join(parts)}"

    fused.explain = explain  # type: ignore[attr-defined]
    return fused


def _dtype(leaves: list) -> np.dtype | None:
    """Return the dtype of the first floating array on a device, None where there is none."""
    for x in leaves:
        x = x.primal if type(x) is DualTensor else x
        if on_device(x) and x.dtype.name in cuda.TYPES:
            return x.dtype
    return None
