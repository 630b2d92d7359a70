"""The dual tensor: an array (the primal) with its derivatives along k directions (the tangents).

How a dual flows through an operation: NumPy, or an operator, hands the call to `DualTensor`,
which looks the function up in `OPERATIONS`. The rule found there is a primitive (primitive.py) or a
composition of them. A primitive takes the arguments of the largest *level* apart, computes the
primal by calling itself on what is left (plain arrays, or duals of an outer transform), and pushes
the tangents through.
"""

import operator
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import foreign
from .beside import check_together, explained, has_memory, is_array, is_writeable
from .errors import ConversionError, DtypeError, MissingRuleError, ShapeError, WriteError
from .foreign import DIRECT, NUMBERS, OBJECT, plain_array_error, plain_number_error
from .level import BY_HAND, Level, new_level  # noqa: F401  (imported from here elsewhere)
from .operations import OPERATIONS, UFUNC_METHODS, WRITES, Operation, given, name_of, why_refused

Array = Any  # a NumPy or CuPy array, a NumPy scalar, or a DualTensor
TRACES: list[Any] = []  # the records that are open (trace.py); nearly always none


def trace_of(args: Any) -> Any:
    """Return the open record that a call with these arguments belongs to, or None.

    A transform that runs inside, on recorded values, is refused: its rules may take numbers out.
    """
    level = find_level(args)
    for trace in tuple(TRACES):  # another thread may close its own meanwhile
        if trace.level == level:
            return trace
    for x in args if level is not None else ():
        _refuse_inside(x)
    return None


def _refuse_inside(x: Any) -> None:
    if type(x) is DualTensor:
        if hasattr(x.carrier, "refuse"):
            x.carrier.refuse("a transform runs inside the loss")
        _refuse_inside(x.primal)
        _refuse_inside(x.carrier)
    elif type(x) in (list, tuple):
        for item in x:
            _refuse_inside(item)


def _refuse_write(args: tuple) -> None:
    for x in args:
        if type(x) is DualTensor and hasattr(x.carrier, "refuse"):
            x.carrier.refuse("out= or ufunc.at writes in place")


class Structured:
    """A tangent kept in factors; `dense()` is the (k, *shape) array that it stands for."""

    __slots__ = ()
    shape: tuple[int, ...]
    dtype: np.dtype

    def dense(self) -> Array:
        raise NotImplementedError


def find_level(args: Any) -> Level | None:
    """Return the largest level among arguments (lists and tuples included), None without a dual."""
    found = level = None
    for x in args:
        if type(x) is DualTensor:
            level = x.level
        elif type(x) in (list, tuple):
            level = find_level(x)
        else:
            continue
        if level is not None and (found is None or level > found):
            found = level
    return found


def _which_argument(args: tuple, kwargs: dict) -> str:
    for place, x in (*enumerate(args), *kwargs.items()):
        if find_level([x]) is not None:
            return f"argument {place}" if isinstance(place, int) else f"argument {place}="
    return "an argument"


def missing_rule(name: str, args: tuple, kwargs: dict, what: str = "") -> MissingRuleError:
    return MissingRuleError(
        f"{name} has no tangent rule{what}; {_which_argument(args, kwargs)} is a dual. Write the "
        f"computation with functions that have one (docs/operations.md), declare a rule with "
        f"dg.custom_jvp, or pass dg.primal(x) if this derivative is not wanted."
    )


def _check_keywords(operation: Operation, args: tuple, kwargs: dict) -> None:
    for keyword in kwargs:
        if keyword not in operation.keywords and "**" not in operation.keywords:
            what = f" for the argument {keyword}={kwargs[keyword]!r}"
            raise missing_rule(operation.name, args, kwargs, what)


WRITERS = frozenset(
    {np.copyto, np.put, np.place, np.putmask, np.fill_diagonal, np.put_along_axis}
    | {np.save, np.savetxt, np.savez, np.savez_compressed}
)


def is_foreign(x: Any) -> bool:
    """Tell whether an operator is left to the class of x; raise DtypeError where it is refused."""
    return type(x) is not DualTensor and type(x) not in DIRECT and foreign.is_foreign(x)


def as_operand(x: Any) -> Any:
    """Return x as NumPy takes it in arithmetic; raise DtypeError for Python objects."""
    if type(x) is np.ndarray:
        if x.dtype is OBJECT:
            foreign.check_entries(x, x)
        return x
    if type(x) is DualTensor or type(x) in DIRECT:
        return x
    if type(x) in (list, tuple):
        return np.asarray(x) if find_level(x) is None else np.stack(x)
    return foreign.operand(x)


class DualTensor:
    """An array with its tangents along k directions, made by transforms or by hand (dg.dual).

    It is used as the array it stands for: NumPy functions, operators, indexing and the methods of
    ndarray carry the tangents along; comparisons, `bool`, `len` and `argmax` see the primal alone.

    Attributes:
        primal: the value at this level, an array (or, nested, a dual of an outer level).
        tangents: shape (k, *shape), of the primal's dtype.
        tangent: the single tangent where k is 1, of the primal's shape.
        level: the transform call it belongs to; 0 for duals made by hand.
    """

    # What `carrier` holds is the tangent in any of its forms: a (k, *shape) array, a dual of an
    # outer level, factors (Structured) or, while linearize records, a Node.
    # `squared` is there only where a length is 0 (ops/lengths.py): the dual of its square.
    __slots__ = ("primal", "carrier", "level", "squared")
    squared: Array
    __array_priority__ = 1000  # for classes that know no __array_ufunc__: scipy.sparse, np.matrix
    __hash__ = None  # type: ignore[assignment]

    if TYPE_CHECKING:  # methods.py attaches the operators and ndarray's methods

        def __getattr__(self, name: str) -> Any: ...

    else:

        def __getattr__(self, name: str) -> Any:
            # The array that a symbol of dg.fuse stands for may have what a dual has not.
            own = name in DualTensor.__slots__ or name.startswith("__")
            if TRACES and not own and hasattr(self.carrier, "lacks"):
                self.carrier.lacks(name)
            raise AttributeError(
                f"'DualTensor' object has no attribute {name!r}", name=name, obj=self
            )

    def __init__(self, primal: Array, carrier: Any, level: Level) -> None:
        self.primal = primal
        self.carrier = carrier
        self.level = level

    # --- what it is

    def _alive(self, use: str) -> Array:
        self.level.check(use)
        return self.primal

    @property
    def tangents(self) -> Array:
        self.level.check("x.tangents")
        return self.carrier.dense() if hasattr(self.carrier, "dense") else self.carrier

    @property
    def tangent(self) -> Array:
        tangents = self.tangents
        if len(tangents) != 1:
            raise ShapeError(
                f"x.tangent: this dual carries k = {len(tangents)} tangents, not one. "
                f"Use x.tangents, of shape (k, *x.shape)."
            )
        return tangents[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self._alive("x.shape").shape

    @property
    def ndim(self) -> int:
        return self._alive("x.ndim").ndim

    @property
    def size(self) -> int:
        return self._alive("x.size").size

    @property
    def dtype(self) -> np.dtype:
        return self._alive("x.dtype").dtype

    @property
    def device(self) -> Any:
        return self._alive("x.device").device

    @property
    def T(self) -> "DualTensor":
        return self.transpose()

    @property
    def mT(self) -> "DualTensor":
        return self.swapaxes(-1, -2)

    @property
    def real(self) -> "DualTensor":
        return np.real(self)  # type: ignore[call-overload]

    @property
    def imag(self) -> "DualTensor":
        return np.imag(self)  # type: ignore[call-overload]

    def __format__(self, spec: str) -> str:
        """Show the primal: printing a value inside a function loses no tangent."""
        return format(primal_of(self), spec) if spec else repr(self)

    def __repr__(self) -> str:
        return f"DualTensor(primal={self.primal!r}, tangents={self.carrier!r}, level={self.level})"

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        import dualgrad

        return dualgrad

    # --- conversions: the primal decides branches, but never silently becomes a plain number

    def __len__(self) -> int:
        return len(self._alive("len(x)"))

    def __bool__(self) -> bool:
        self._not_recorded("bool(x) decides by a value")
        return bool(self._alive("bool(x)"))

    def __iter__(self) -> Iterator["DualTensor"]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d dual")
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool(np.any(self == value))

    def _not_recorded(self, what: str) -> None:
        if TRACES and hasattr(self.carrier, "refuse"):
            self.carrier.refuse(what)

    def _refuse(self, conversion: str) -> ConversionError:
        self.level.check(conversion)
        self._not_recorded(conversion)
        return plain_number_error(conversion)

    def __float__(self) -> float:
        raise self._refuse("float(x)")

    def __int__(self) -> int:
        raise self._refuse("int(x)")

    def __complex__(self) -> complex:
        raise self._refuse("complex(x)")

    def item(self, *index: Any) -> Any:
        raise self._refuse("x.item()")

    def tolist(self) -> Any:
        raise self._refuse("x.tolist()")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        self.level.check("np.array(x)")
        self._not_recorded("np.array(x)")
        raise plain_array_error(foreign.converter(sys._getframe(1)))

    def __dlpack__(self, **options: Any) -> Any:
        raise plain_array_error("x.__dlpack__()")

    # --- NumPy's protocols

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "__call__" and not kwargs and not TRACES and ufunc in OPERATIONS:
            for x in inputs:
                if type(x) is DualTensor or type(x) in NUMBERS:
                    continue
                if not is_array(x) or x.dtype is OBJECT:
                    break
            else:
                return OPERATIONS[ufunc].rule(*inputs)
        if any(is_foreign(x) for x in inputs):
            return NotImplemented
        if method == "__call__" and ufunc in OPERATIONS and OPERATIONS[ufunc].differentiable:
            inputs = tuple(x if type(x) in (list, tuple) else as_operand(x) for x in inputs)
        out = kwargs.get("out") or ()
        if TRACES and (trace := trace_of((*inputs, *out))) is not None:
            called = ufunc if method == "__call__" else getattr(ufunc, method)
            if out or method == "at":
                _refuse_write((*inputs, *out))
            return trace.record(called, inputs, kwargs)
        name = f"np.{ufunc.__name__}.{method}".removesuffix(".__call__")
        return explained(UFUNC_METHODS[method], name, (ufunc, *inputs), kwargs)

    def __array_function__(self, function: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        for t in types:
            if t is DualTensor or t is np.ndarray:
                continue
            if not issubclass(t, np.ndarray) and not t.__module__.startswith("cupy"):
                return NotImplemented
            foreign.check_class(t)
        kwargs = given(kwargs)
        writes = function in WRITERS or kwargs.get("out") is not None
        if TRACES and (trace := trace_of((*args, *kwargs.values()))) is not None:
            if writes:
                _refuse_write((*args, *kwargs.values()))
            return trace.record(function, args, kwargs)
        operation = OPERATIONS.get(function)
        if function in WRITERS:
            target = next(iter((*args, *kwargs.values())))
            if type(target) is DualTensor and function in WRITES:
                return WRITES[function](*args, **kwargs)
            raise WriteError(
                f"{name_of(function)}: it writes into a plain array or a file, where a dual would "
                "lose its tangent. Write x[index] = value into np.zeros_like(x) of a dual, or "
                f"pass dg.primal(x) if the derivative is not wanted."
            )
        if operation is None:
            raise missing_rule(name_of(function), args, kwargs, why_refused(function))
        if kwargs and operation.differentiable:
            _check_keywords(operation, args, kwargs)
        return explained(operation.rule, operation.name, args, kwargs)

    def __cupy_override_elementwise_kernel__(self, kernel: Any, *args: Any, **kwargs: Any) -> Any:
        function = getattr(np, getattr(kernel, "name", "").removeprefix("cupy_"), None)
        if function not in OPERATIONS:
            raise missing_rule(f"cupy kernel {kernel.name}", args, kwargs)
        if TRACES and (trace := trace_of(args)) is not None:
            return trace.record(function, args, kwargs)
        return OPERATIONS[function].rule(*args, **kwargs)

    # --- indexing and writing

    def __getitem__(self, index: Any) -> "DualTensor":
        if TRACES and (trace := trace_of((self,))) is not None:
            return trace.record(operator.getitem, (self, index), {})
        return OPERATIONS[operator.getitem].rule(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        write(self, index, value)


def write(x: DualTensor, index: Any, value: Any) -> None:
    """Do x[index] = value in both parts of x; raise WriteError where a tangent would be lost."""
    x.level.check("x[i] = v")
    if TRACES and hasattr(trace := trace_of((x,)), "write"):
        return trace.write(x, index, value)
    if type(value) in (list, tuple) and find_level(value) is not None:
        value = np.stack(value)
    foreign.check_class(type(value))
    if not isinstance(x.carrier, (np.ndarray, DualTensor)) and not hasattr(
        x.carrier, "__setitem__"
    ):
        raise WriteError(
            "x[i] = v: the transform that runs (linearize, vjp, mode='reverse', or a rank-1 "
            "direction) cannot follow in-place writes. Build the value with np.where, np.stack or "
            "np.concatenate, or use mode='forward'."
        )
    level = getattr(value, "level", None)
    if isinstance(level, Level) and level > x.level:
        raise WriteError(
            f"x[i] = v: v belongs to the inner level {level} ({level.name}) and x to the outer "
            f"level {x.level}; writing it would lose v's tangent. Make the array inside the inner "
            f"function: np.zeros_like(v)."
        )
    check_writeable(x)
    new, tangents = split(value, x.level)
    index = primal_of(index)
    if type(new) is DualTensor and type(x.primal) is not DualTensor:
        raise WriteError(
            f"x[i] = v: v also carries a tangent of level {new.level}, which x, made from a value "
            f"that does not depend on that level, has no room for. Make the array from such a "
            f"value: np.zeros_like(v)."
        )
    if type(tangents) is DualTensor and type(x.carrier) is not DualTensor:
        raise WriteError(
            f"x[i] = v: the tangent of v moves with level {tangents.level}, and x, the result of "
            f"an operation, has no room for that. Say x = x.copy() first, or use np.zeros_like(v)."
        )
    if np.iscomplexobj(primal_of(new)) and x.dtype.kind != "c":
        raise DtypeError(f"x[i] = v: v is complex and x of dtype {x.dtype}. Say x = x + 0j first.")
    if tangents is not None and len(tangents) != len(x.carrier):
        raise different_directions("x[i] = v", len(x.carrier), len(tangents))
    if hasattr(x, "squared"):
        del x.squared
    check_together("x[i] = v", x, new)
    x.primal[index] = new
    # One direction at a time: separated advanced indices would move the direction axis.
    for j in range(len(x.carrier)):
        x.carrier[j, ...][index] = 0 if tangents is None else tangents[j]


def check_writeable(x: Array) -> None:
    """Raise WriteError when x, or what it is made of, must not be written."""
    if type(x) is DualTensor:
        check_writeable(x.primal)
        if hasattr(x.carrier, "make_writeable"):  # a carrier with parts of its own
            x.carrier.make_writeable(x.primal)
        else:
            check_writeable(x.carrier)
    elif isinstance(x, np.generic) or (has_memory(x) and not is_writeable(x)):
        raise WriteError(
            "x[i] = v: x is read-only (an argument of the function being differentiated, a view of "
            "one, or a broadcast). Say x = x.copy() first, or use np.where."
        )


def read_only(x: Any) -> Any:
    """Return x, plain or a dual, as a view that cannot be written."""
    if type(x) is DualTensor:
        return DualTensor(read_only(x.primal), read_only(x.carrier), x.level)
    if isinstance(x, np.ndarray) and x.flags.writeable:
        x = x.view()
        x.flags.writeable = False
    return x


def different_directions(where: str, one: int, other: int) -> ShapeError:
    return ShapeError(
        f"{where}: one dual carries k = {one} tangents and another k = {other}. Duals that meet "
        f"must carry the same directions."
    )


# --- taking duals apart


def split(x: Any, level: Level) -> tuple[Any, Any]:
    """Return x as (primal, carrier) at a level; the carrier is None where x is constant there."""
    if type(x) is DualTensor and x.level == level:
        level.check("x")
        return x.primal, x.carrier
    return x, None


def primal(x: Any) -> Any:
    """Strip every level from x: the value without tangents."""
    at = x
    while TRACES and type(at) is DualTensor:
        if (trace := trace_of((at,))) is not None:
            return trace.record(primal, (at,), {})
        at = at.primal
    return primal_of(x)


def primal_of(x: Any) -> Any:
    """Strip every level from x; lists, tuples and slices are searched too."""
    while type(x) is DualTensor:
        x = x.primal
    if type(x) in (list, tuple) and find_level(x) is not None:
        return type(x)(primal_of(item) for item in x)
    return x
