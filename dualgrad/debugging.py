"""Find where a NaN or an infinity enters the derivatives: debug_nans.

While it is open, the calls that make tangents (primitives, custom rules, the replay of a record)
are replaced by ones that check what they made. When it is closed nothing of it is left, so it costs
nothing then.
"""

import functools
import linecache
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

import numpy as np

from . import tree
from .beside import as_array, has_memory
from .custom import custom_jvp
from .dual import DualTensor, primal_of
from .errors import NonFiniteError, OptionError
from .operations import OPERATIONS, name_of
from .primitive import Follower, Node, Primitive
from .structured import Outer
from .tape import Tape, with_infinities

_LIBRARIES = ("dualgrad", "numpy", "optree", "contextlib", "functools")
_names: ContextVar[tuple[str, ...] | None] = ContextVar("operations that run", default=None)
_lock = threading.Lock()
_open = 0  # contexts that are open, in all threads
_originals: dict[tuple[type, str], Any] = {}


def debug_nans(*switch: Any) -> AbstractContextManager[None]:
    """Raise at the first operation that makes a non-finite tangent, naming it and the user's line.

    It is no switch but a context: `with dg.debug_nans(): ...`; the bare call does nothing.

    It holds for whatever runs inside in this thread: jvp, any number of tangents, nested levels,
    jet, forward_gradient and training_step (which runs eagerly meanwhile). linearize and vjp are
    checked when their record is pushed or pulled; the message names the line that recorded the
    operation.

    Tangents and cotangents are watched, primals are not: a program may well mask with infinities.
    But a branch that np.where drops afterwards is watched too, though it does no harm here. Where
    the operation's own input was not finite, or came in so, the message says it.

    Raises:
        NonFiniteError: with the operation, file, line and source text, and what went in; the
            first four also as attributes `operation`, `filename`, `lineno` and `source`.
        OptionError: at once, where it is given an argument, as a switch would be.

    >>> import dualgrad as dg
    >>> with debug_nans():
    ...     try:
    ...         dg.derivative(lambda x: 2 * np.sqrt(x))(0.0)
    ...     except dg.NonFiniteError as error:
    ...         print(str(error).partition(",")[0])
    np.sqrt made a non-finite tangent from finite input
    """
    if switch:
        raise OptionError(
            f"dg.debug_nans takes no argument, and was given {', '.join(map(repr, switch))}: it is "
            f"no switch. Write `with dg.debug_nans():` around what is to be watched."
        )
    return _watched()


@contextmanager
def _watched() -> Iterator[None]:
    _install()
    token = _names.set(())
    try:
        yield
    finally:
        _names.reset(token)
        _uninstall()


def watching() -> bool:
    """Tell whether debug_nans is open in this thread."""
    return _names.get() is not None


def _install() -> None:
    global _open
    with _lock:
        _open += 1
        if _open > 1:
            return
        for owner, name, checked in _CHECKED:
            _originals[owner, name] = vars(owner)[name]
            setattr(owner, name, checked(getattr(owner, name)))


def _uninstall() -> None:
    global _open
    with _lock:
        _open -= 1
        if not _open:
            for (owner, name), original in _originals.items():
                setattr(owner, name, original)
            _originals.clear()


# --- the checked calls


def _checked_call(original: Callable) -> Callable:
    """Return Primitive.__call__ or custom_jvp.__call__ with a check of the tangent it makes."""

    @functools.wraps(original)
    def call(self, *args, **params):
        if _names.get() is None:
            return original(self, *args, **params)
        result = _named(_name(self), original, self, *args, **params)
        for y in (result,) if type(result) is DualTensor else tree.leaves(result):
            if type(y) is not DualTensor:
                continue
            if type(y.carrier) is Node:
                if not hasattr(y.carrier, "line"):
                    y.carrier.line = _place(_user_frame())
            elif not _finite(y.carrier):
                inputs = tree.leaves((args, params))
                duals = [x for x in inputs if type(x) is DualTensor and x.level == y.level]
                given = [x.carrier for x in duals]
                _raise(_name(self), "tangent", y.carrier, given, dict(enumerate(inputs)), None)
        return result

    return call


def _checked_push(original: Callable) -> Any:
    @functools.wraps(original)
    def pushed(node, tangents):
        if _names.get() is None:
            return original(node, tangents)
        t = _named(_name(node.primitive), original, node, tangents)
        if not _finite(t):
            _raise(_name(node.primitive), "tangent", t, tangents, {}, node)
        return t

    return staticmethod(pushed)


def _checked_pull(original: Callable) -> Any:
    @functools.wraps(original)
    def pulled(node, ct, far=None):
        if _names.get() is None:
            return original(node, ct, far)
        name = _name(node.primitive)
        cts, fars = _named(name, original, node, ct, far)
        for c in map(with_infinities, cts, fars):
            if c is not None and not _finite(c):
                _raise(_name(node.primitive), "cotangent", c, [ct], {}, node)
        return cts, fars

    return staticmethod(pulled)


_CHECKED: list[tuple[type, str, Callable]] = [
    (Primitive, "__call__", _checked_call),
    (custom_jvp, "__call__", _checked_call),
    (Tape, "pushed", _checked_push),
    (Tape, "pulled", _checked_pull),
]


def _named(name: str, function: Callable, *args: Any, **params: Any) -> Any:
    """Call a function while `name` is known to run; NumPy's own warnings would come too early."""
    token = _names.set((*(_names.get() or ()), name))
    try:
        with np.errstate(all="ignore"):
            return function(*args, **params)
    finally:
        _names.reset(token)


# --- what is finite


def _numbers(t: Any) -> Any:
    """Return the array that a carrier stands for, or the carrier itself where there is none yet."""
    if isinstance(t, Outer):
        return t.dense()
    return t.coefficients if isinstance(t, Follower) and hasattr(t, "coefficients") else t


def _finite(t: Any) -> bool:
    """Tell whether a tangent holds finite numbers; one that is not made yet does."""
    if type(t) is DualTensor:
        return _finite(t.primal) and _finite(t.carrier)
    t = _numbers(t)
    if not isinstance(t, (float, complex)):
        dtype = getattr(t, "dtype", None)
        if dtype is None or dtype.kind not in "fc" or not hasattr(t, "__array_ufunc__"):
            return True
    return bool(np.all(np.isfinite(t)))


# --- the message


def _name(operation: Any) -> str:
    if isinstance(operation, custom_jvp):
        return operation.__name__
    for row in OPERATIONS.values():
        if row.rule is operation:
            return row.name
    return f"np.{operation.name}" if hasattr(np, operation.name) else operation.name


def _user_frame() -> FrameType | None:
    """Return the innermost frame outside dualgrad and NumPy."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in _LIBRARIES:
            return frame
        frame = frame.f_back
    return None


def _called() -> str:
    """Return the NumPy function that the user's line called, "" where it cannot be told."""
    name, frame, last = "", sys._getframe(1), _user_frame()
    while frame is not None and frame is not last:
        if frame.f_code.co_name in ("__array_function__", "__array_ufunc__"):
            function = frame.f_locals.get("function", frame.f_locals.get("ufunc"))
            if callable(function):
                name = name_of(function)
                method = frame.f_locals.get("method", "__call__")
                name += f".{method}" if method != "__call__" else ""
        frame = frame.f_back  # type: ignore[assignment]
    return name


def _place(frame: FrameType | None) -> tuple[str, int, str, str]:
    """Return (file, line, function, source text) of a frame."""
    if frame is None:
        return "an unknown file", 0, "?", ""
    code = frame.f_code
    source = linecache.getline(code.co_filename, frame.f_lineno).strip()
    return code.co_filename, frame.f_lineno, code.co_name, source


def _raise(
    name: str, what: str, made: Any, given: list, args: dict[int, Any], node: Node | None
) -> None:
    place = getattr(node, "line", None) or _place(_user_frame())
    filename, lineno, function, source = place
    running = _names.get() or ()
    outer = next(iter(running), name) if node is None else name
    subject, part = name, ""
    if outer != name:  # the derivative of a derivative: `name` is a step of outer's rule
        subject, part = outer, f" (in its derivative, by {name})"
    else:
        public = _called() if node is None else ""
        if public and public != name:
            inside = public.rpartition(".")[2] != name.rpartition(".")[2]
            subject, part = public, f" (in it, {name})" if inside else ""
    came = all(_finite(t) for t in given if t is not None)
    plain = {i: x for i, x in args.items() if not _finite(primal_of(x))}
    if not came:
        how = f"was given a non-finite {what}, which came in with the arguments"
    elif plain:
        how = f"made a non-finite {what} from a finite one and an argument that is not finite"
    else:
        how = f"made a non-finite {what} from finite input"
    lines = [f"{subject}{part} {how}, at {filename}:{lineno}, in {function}:"]
    lines += [f"    {source}"] if source else []
    lines += [f"  {what}: {_summary(made)}{_first(made)}"]
    lines += [f"  argument {i}: {_summary(x)}{_there(x, made)}" for i, x in args.items()]
    lines.append(_ADVICE if came else "Look at the tangents that the transform was given.")
    error = NonFiniteError("\n".join(lines))
    error.operation, error.filename, error.lineno, error.source = subject, filename, lineno, source
    raise error


_ADVICE = (
    "The function has no derivative at this point, or a number overflows. Keep the argument away "
    "from it (np.where before the operation, not after), or give a rule by dg.custom_jvp."
)


def _summary(x: Any) -> str:
    """Return what an array holds, in a few words."""
    kind = "a dual, " if type(x) is DualTensor else ""
    x = primal_of(_numbers(x))
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        return repr(x)[:60]
    bad = as_array(x)[~np.isfinite(x)] if x.dtype.kind in "fc" else np.zeros(0)
    text = f"{kind}shape {x.shape}, {x.dtype}"
    if bad.size:
        return f"{text}, not finite in {bad.size} of {x.size} entries"
    if x.size and x.dtype.kind in "fiu":
        text += f", between {np.min(x):.6g} and {np.max(x):.6g}"
    return text


def _index(made: Any) -> tuple[int, ...] | None:
    """Return the place of the first non-finite entry, the direction first."""
    made = _numbers(made)
    while type(made) is DualTensor:
        made = made.primal if not _finite(made.primal) else made.carrier
    if not has_memory(made):
        return None
    return tuple(int(i) for i in np.argwhere(~np.isfinite(made))[0])


def _first(made: Any) -> str:
    index = _index(made)
    if index is None:
        return ""
    place = "direction" if not isinstance(made, Follower) else "coefficient"
    return f", the first at {place} {index[0]}, index {index[1:]}"


def _there(x: Any, made: Any) -> str:
    """Return the value of an argument where the first non-finite entry is, if shapes agree."""
    x, index = primal_of(x), _index(made)
    shape = getattr(primal_of(_numbers(made)), "shape", ())
    if index is None or not hasattr(x, "shape") or not x.shape or x.shape != shape[1:]:
        return ""
    return f", {x[index[-x.ndim :]]:.6g} there"
