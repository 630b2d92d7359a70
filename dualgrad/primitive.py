"""Primitives: the functions that know how tangents pass through them, declared by six constructors.

A primitive splits its derivative in two. `residuals` is what the derivative keeps of the arguments
(computed once, not linear); `push` carries tangents forward and `pull` carries cotangents back,
both linear, both with k rows at once. So one declaration serves jvp, k tangents, linearize and vjp;
and because it is written with NumPy functions, which are primitives again, it serves every nesting
order.

Tangents and cotangents have shape (k, *shape of what they belong to).
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .beside import beside, dtype_of, explain_device, has_memory, is_array, is_writeable, on_device
from .dual import (
    TRACES,
    Array,
    DualTensor,
    Level,
    Structured,
    different_directions,
    primal_of,
    read_only,
    trace_of,
)
from .kernels.elementwise import Fused
from .partials import conjugate, moved, split_infinities, times


class Node:
    """One recorded primitive: the tangent of a dual while linearize runs, pushed or pulled later.

    Attributes:
        inputs: the nodes of the arguments, None where an argument is constant.
        shapes, kinds: of the arguments, dtype kinds "f" or "c".
        line: where it was recorded; set inside debug_nans alone (debugging.py).
    """

    __slots__ = ("primitive", "residuals", "params", "inputs", "shape", "dtype", "line")

    def __init__(self, primitive, residuals, params, inputs, shape, dtype):
        self.primitive = primitive
        self.residuals = residuals
        self.params = params
        self.inputs = inputs
        self.shape = shape
        self.dtype = dtype

    def __len__(self) -> int:  # stands for any number of directions
        return 0

    def __repr__(self) -> str:
        name = self.primitive.name if self.primitive else "input"
        return f"<recorded {name}, shape {self.shape}>"


class Follower:
    """A carrier that is no tangent: it follows what depends on what, by rules of its own."""

    __slots__ = ()
    first_order = False  # whether the linear part of a function alone tells it all

    def follow(self, primitive: "Primitive", primals: list, carriers: list, y: Array,
               params: dict) -> Any:  # fmt: skip
        """Return the carrier of y = primitive(*primals, **params); a carrier may be None."""
        raise NotImplementedError


class Primitive:
    """A function of arrays with its derivative.

    value(*args, **params) computes it on plain arrays. `residuals(primals, active, y, **params)`
    sees which arguments carry tangents in `active`; `push(residuals, tangents, **params)` gets None
    for the others; `pull(residuals, cotangent, **params)` returns one cotangent an argument, None
    where inactive. `structured[place, type]` is a push for a tangent in factors: rule(primals,
    tangent, **params). `fast(*args, **params)` is a short cut where tangents are plain arrays of
    one level; it returns what `general`, the definition, does, or None where it does not apply.
    `kind` names the constructor: what a carrier that follows other things than numbers goes by.
    `split(residuals)` takes infinite slopes out of the residuals, for reverse mode (tape.py).
    """

    split: Callable | None = None

    def __init__(self, name: str, value: Callable, residuals: Callable, push: Callable,
                 pull: Callable | None, views: bool = False, fast: Callable | None = None,
                 kind: str = "custom") -> None:  # fmt: skip
        self.name = name
        self.value = value
        self.residuals = residuals
        self.push = push
        self.pull = pull
        self.views = views
        self.fast = fast
        self.kind = kind
        self.structured: dict[tuple[int, type], Callable] = {}

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def __call__(self, *args: Any, **params: Any) -> Any:
        try:
            if self.fast is not None:
                y = self.fast(*args, **params)
                if y is not None:
                    return y
            return self.general(*args, **params)
        except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
            explain_device(error, self.name, args)
            raise

    def general(self, *args: Any, **params: Any) -> Any:
        """Return the value, with tangents of any kind at the largest level of the arguments."""
        level = None
        for x in args:
            if type(x) is DualTensor and (level is None or x.level > level):
                level = x.level
        if level is None:
            return self.value(*args, **params)
        level.check(self.name)
        if TRACES and (trace := trace_of(args)) is not None:
            return trace.record(self, args, params)
        return self._at_level(level, args, params)

    def _at_level(self, level: Level, args: tuple, params: dict) -> DualTensor:
        primals: list[Any] = []
        tangents: list[Any] = []
        k = None
        recording = structured = False
        follower = None
        for x in args:
            if type(x) is DualTensor and x.level == level:
                t = x.carrier
                primals.append(x.primal)
                tangents.append(t)
                if type(t) is Node:
                    recording = True
                elif isinstance(t, Structured):
                    structured = True
                elif isinstance(t, Follower):
                    follower = t
                elif k is None:
                    k = len(t)
                elif k != len(t):
                    raise different_directions(self.name, k, len(t))
            else:
                primals.append(x)
                tangents.append(None)
        y = self(*primals, **params)
        if follower is not None:
            t = follower.follow(self, primals, tangents, y, params)
            return conform_views(y, t, args[0], level) if self.views else DualTensor(y, t, level)
        if structured:
            return DualTensor(y, self._push_structured(primals, tangents, y, params), level)
        active = [t is not None for t in tangents]
        residuals = self.residuals(primals, active, y, **params)
        if recording:
            return DualTensor(y, Node(self, residuals, params, tangents, y.shape, y.dtype), level)
        t = fit(self.push(residuals, tangents, **params), y)
        return conform_views(y, t, args[0], level) if self.views else DualTensor(y, t, level)

    def _push_structured(self, primals: list, tangents: list, y: Array, params: dict) -> Any:
        """Return the tangent where arguments carry factors, consumed as they are or made dense."""
        parts = []
        for i, t in enumerate(tangents):
            if isinstance(t, Structured):
                rule = self.structured.get((i, type(t)))
                tangents[i] = t.dense() if rule is None else None
                if rule is not None:
                    parts.append(rule(primals, t, **params))
        if any(t is not None for t in tangents):
            active = [t is not None for t in tangents]
            residuals = self.residuals(primals, active, y, **params)
            parts.append(self.push(residuals, tangents, **params))
        if len(parts) == 1 and isinstance(parts[0], Structured):
            return parts[0]
        dense = [p.dense() if isinstance(p, Structured) else p for p in parts]
        return fit(dense[0] if len(dense) == 1 else sum(dense[1:], dense[0]), y)


def conform_views(y: Array, t: Array, x: DualTensor, level: Level) -> DualTensor:
    """Return the dual of y and t, a view of x or of parts of it, both aliasing alike."""
    shared = _share_memory(y, x.primal), _share_memory(t, x.carrier)
    if shared == (True, False):  # writing y would change x's primal but not its tangent
        y = np.copy(y) if on_device(primal_of(y)) else read_only(y)
    elif shared == (False, True):  # x[0] is a number, and its tangent would be a view
        t = t.copy()
    return DualTensor(y, t, level)


def _share_memory(a: Array, b: Array) -> bool:
    a, b = (primal_of(getattr(x, "coefficients", x)) for x in (a, b))  # those of a Taylor series
    return has_memory(a) and has_memory(b) and np.may_share_memory(a, b)


def fit(t: Array, y: Array) -> Array:
    """Return the tangent t broadcast and cast to shape (k, *y.shape) and y's dtype."""
    if t.shape[1:] != y.shape:
        t = np.copy(np.broadcast_to(t, (len(t), *y.shape)))
    if t.dtype != y.dtype:
        t = np.astype(t, y.dtype)
    return t


# --- helpers that rules share


def align(t: Array, ndim: int) -> Array:
    """Return t, of shape (k, *shape), with ones after k so that `shape` has ndim axes."""
    missing = ndim + 1 - t.ndim
    return t if missing <= 0 else np.reshape(t, (t.shape[0], *(1,) * missing, *t.shape[1:]))


def unbroadcast(ct: Array, shape: tuple[int, ...]) -> Array:
    """Return the cotangent of what was broadcast from `shape`: ct summed where axes grew."""
    extra = ct.ndim - 1 - len(shape)
    axes = tuple(range(1, extra + 1)) + tuple(
        extra + 1 + i for i, n in enumerate(shape) if n == 1 and ct.shape[extra + 1 + i] != 1
    )
    return np.reshape(np.sum(ct, axis=axes), (ct.shape[0], *shape)) if axes else ct


def _as_argument(ct: Array, kind: str) -> Array:
    """Return the cotangent of a real argument: the real part of a complex one."""
    return np.real(ct) if kind != "c" and ct.dtype.kind == "c" else ct


def _describe(primals: Sequence, active: Sequence[bool]) -> list[Any]:
    return [(x.shape, x.dtype) if a else None for x, a in zip(primals, active, strict=True)]


# --- the six constructors


def constant(function: Callable) -> Callable:
    """Return a rule for a piecewise constant function: primals in, a plain array out."""

    def rule(*args, **kwargs):
        check_levels((*args, *kwargs.values()), function.__name__)
        args, kwargs, out = _without_out(function, args, kwargs)
        args = tuple(primal_of(x) for x in args)
        y = function(*args, **{name: primal_of(x) for name, x in kwargs.items()})
        if out is None:
            return y
        out[...] = y  # its tangents become 0
        return out

    rule.__name__ = function.__name__
    return rule


def _without_out(function: Callable, args: tuple, kwargs: dict) -> tuple[tuple, dict, Any]:
    """Return the arguments less a dual that the result is to be written to, and that dual."""
    if type(kwargs.get("out")) is DualTensor:
        return args, {name: x for name, x in kwargs.items() if name != "out"}, kwargs["out"]
    written = any(type(x) is DualTensor for x in args[2:])
    if written and inspect.isfunction(inspect.unwrap(function)):
        for place, name in enumerate(inspect.signature(function).parameters):
            if name == "out" and place < len(args) and type(args[place]) is DualTensor:
                return (*args[:place], None, *args[place + 1 :]), kwargs, args[place]
    return args, kwargs, None


def check_levels(args: Sequence, use: str) -> None:
    """Raise LevelError if any argument is a dual whose transform has returned."""
    for x in args:
        while type(x) is DualTensor:
            x.level.check(use)
            x = x.primal


FUSED_FROM = 1 << 12  # entries of a tangent below which no fused kernel is asked


def elementwise(function: Callable, *partials: Callable | None, name: str = "",
                fused: Fused | None = None) -> Primitive:  # fmt: skip
    """Declare an entry-by-entry function with broadcasting.

    partials: one an argument, seeing the arguments and the output; its result multiplies the
    tangent. A boolean partial selects, a `Share` selects and divides, a `Guarded` is undefined in
    places; None marks an argument that is never a dual. fused has kernels that give value and
    tangents at once, of large NumPy arrays and of CuPy arrays.
    """

    def residuals(primals, active, y):
        ps = [p(*primals, y) if a and p else None for p, a in zip(partials, active, strict=True)]
        return ps, _describe(primals, active), y.ndim

    def push(residuals, tangents):
        ps, _, ndim = residuals
        moving = [
            (p, align(t, ndim))
            for p, t in zip(ps, tangents, strict=True)
            if p is not None and t is not None
        ]
        p, t = moving[0]
        if len(moving) == 1:
            return moved(p, t)
        total = times(p, t)
        for p, t in moving[1:]:
            total = total + times(p, t)
        return total

    def pull(residuals, ct):
        ps, arguments, _ = residuals
        out = []
        for p, argument in zip(ps, arguments, strict=True):
            if p is None or argument is None:
                out.append(None)
                continue
            shape, dtype = argument
            term = times(conjugate(p), ct)
            out.append(_as_argument(unbroadcast(term, shape), dtype.kind))
        return out

    host, device = fused or (None, None)
    make = {1: _fast_unary, 2: _fast_binary}.get(len(partials))
    fast = device and one_launch(device, name or function.__name__)
    if make is not None:
        fast = make(function, partials, name or function.__name__, host, device)
    primitive = Primitive(name or function.__name__, function, residuals, push, pull, fast=fast,
                          kind="elementwise")  # fmt: skip
    primitive.split = split_infinities
    return primitive


def _is_plain(x: DualTensor) -> bool:
    """Whether a dual holds arrays alone: no outer level, no factors, no record."""
    return is_array(x.carrier) and type(x.primal) is not DualTensor


def one_launch(kernel: Callable, name: str) -> Callable:
    """Return a short cut for duals of CuPy arrays of one level: value and tangents by one kernel.

    kernel(primals, tangents) gives both, or None where it does not serve them; then, and for other
    arguments, the short cut gives None.
    """

    def fast(*args):
        level = k = None
        primals, tangents = [], []
        for x in args:
            t = None
            if type(x) is DualTensor:
                if not (on_device(x.carrier) and on_device(x.primal)):
                    return None
                if level is not None and (x.level is not level or len(x.carrier) != k):
                    return None
                level, x, t = x.level, x.primal, x.carrier
                k = len(t)
            primals.append(x)
            tangents.append(t)
        if level is None:
            return None
        level.check(name)
        pair = kernel(primals, tangents)
        return None if pair is None else DualTensor(*pair, level)

    return fast


def _fast_unary(function: Callable, partials: Sequence[Any], name: str,
                host: Callable | None, device: Callable | None) -> Callable:  # fmt: skip
    (partial,) = partials

    def fast(x):
        if type(x) is not DualTensor or not _is_plain(x):
            return None
        level, primal, t = x.level, x.primal, x.carrier
        level.check(name)
        pair = None
        if type(t) is not np.ndarray:
            pair = device and device((primal,), (t,))
        elif host is not None and t.size >= FUSED_FROM:
            pair = host(primal, t)
        if pair is not None:
            return DualTensor(*pair, level)
        y = function(primal)
        return DualTensor(y, fit(moved(partial(primal, y), t), y), level)

    return fast


def _fast_binary(function: Callable, partials: Sequence[Any], name: str,
                 host: Callable | None, device: Callable | None) -> Callable:  # fmt: skip
    left, right = partials

    def fast(a, b):
        level, ta, tb = None, None, None
        if type(a) is DualTensor:
            if not _is_plain(a):
                return None
            level, a, ta = a.level, a.primal, a.carrier
        if type(b) is DualTensor:
            if not _is_plain(b) or (level is not None and b.level is not level):
                return None
            level, b, tb = b.level, b.primal, b.carrier
        if level is None or (ta is not None and tb is not None and len(ta) != len(tb)):
            return None
        level.check(name)
        pair = None
        if type(ta if tb is None else tb) is not np.ndarray:
            pair = device and device((a, b), (ta, tb))
        elif host is not None and ta is not None and tb is not None and ta.size >= FUSED_FROM:
            pair = host(a, b, ta, tb)
        if pair is not None:
            return DualTensor(*pair, level)
        y = function(a, b)
        if tb is None:
            t = moved(left(a, b, y), align(ta, y.ndim))
        elif ta is None:
            t = moved(right(a, b, y), align(tb, y.ndim))
        else:
            p, q = left(a, b, y), right(a, b, y)
            ta, tb = align(ta, y.ndim), align(tb, y.ndim)
            t = times(p, ta) - tb if type(q) is int and q == -1 else times(p, ta) + times(q, tb)
        return DualTensor(y, fit(t, y), level)

    return fast


def linear(function: Callable, transpose: Callable, lift: Callable | None = None, *,
           views: bool = False, name: str = "") -> Primitive:  # fmt: skip
    """Declare a function linear in all its array arguments together.

    Parameters count axes from the end, so that most functions apply to (k, *shape) as they are;
    lift(k, **params) returns the parameters where they must change. transpose(ct, shapes, **params)
    returns the cotangents: a list, one an argument, or the array of a single one.
    """

    def residuals(primals, active, y, **params):
        return [(np.shape(x), dtype_of(x)) for x in primals], active

    def push(residuals, tangents, **params):
        arguments, _ = residuals
        moving = next(t for t in tangents if t is not None)
        k = len(moving)
        full = [beside(moving).zeros((k, *shape), dtype) if t is None else t
                for t, (shape, dtype) in zip(tangents, arguments, strict=True)]  # fmt: skip
        return primitive(*full, **(lift(k, **params) if lift else params))

    def pull(residuals, ct, **params):
        arguments, active = residuals
        cts = transpose(ct, [shape for shape, _ in arguments], **params)
        cts = cts if isinstance(cts, list) else [cts]
        return [_as_argument(c, dtype.kind) if a else None
                for c, a, (_, dtype) in zip(cts, active, arguments, strict=True)]  # fmt: skip

    def fast(x, *others, **params):
        if others or type(x) is not DualTensor or not _is_plain(x):
            return None
        level, t = x.level, x.carrier
        level.check(primitive.name)
        y = function(x.primal, **params)
        t = fit(function(t, **(lift(len(t), **params) if lift else params)), y)
        return conform_views(y, t, x, level) if views else DualTensor(y, t, level)

    primitive = Primitive(
        name or function.__name__, function, residuals, push, pull, views, fast, "linear"
    )
    return primitive


def bilinear(function: Callable, left: Callable, right: Callable, left_t: Callable,
             right_t: Callable, *, name: str = "") -> Primitive:  # fmt: skip
    """Declare a function of two arrays, linear in each.

    left(ta, b) and right(a, tb) push k tangents of one argument; left_t(ct, b, shape of a) and
    right_t(a, ct, shape of b) pull k cotangents. All take the function's parameters too.
    """

    def residuals(primals, active, y, **params):
        a, b = primals  # each is needed only by the other's derivative, but its shape always
        return (a if active[1] else None, b if active[0] else None, active,
                a.shape, b.shape, a.dtype.kind, b.dtype.kind)  # fmt: skip

    def push(residuals, tangents, **params):
        a, b, *_ = residuals
        ta, tb = tangents
        if tb is None:
            return left(ta, b, **params)
        if ta is None:
            return right(a, tb, **params)
        t, other = left(ta, b, **params), right(a, tb, **params)
        fresh = is_array(t) and is_array(other) and (t.shape, t.dtype) == (other.shape, other.dtype)
        if not fresh or not is_writeable(t) or np.may_share_memory(t, ta):
            return t + other
        t += other  # a third array of that size costs more than the sum
        return t

    def pull(residuals, ct, **params):
        a, b, active, a_shape, b_shape, a_kind, b_kind = residuals
        cta = ctb = None
        if active[0]:
            cta = _as_argument(left_t(ct, conjugate(b), a_shape, **params), a_kind)
        if active[1]:
            ctb = _as_argument(right_t(conjugate(a), ct, b_shape, **params), b_kind)
        return [cta, ctb]

    return Primitive(name or function.__name__, function, residuals, push, pull, kind="bilinear")


def reduction(function: Callable, weight: Callable, *, name: str = "") -> Primitive:
    """Declare a function whose derivative is a weighted sum: dy = sum(w * dx) over some axes.

    function(x, axis=negative ints, keepdims=bool); weight(x, y with kept axes, axis) gives w.
    """

    def residuals(primals, active, y, axis, keepdims):
        (x,) = primals
        kept = y if keepdims else np.expand_dims(y, axis)
        return weight(x, kept, axis), x.shape, x.dtype.kind

    def push(residuals, tangents, axis, keepdims):
        return np.sum(times(residuals[0], tangents[0]), axis=axis, keepdims=keepdims)

    def pull(residuals, ct, axis, keepdims):
        w, shape, kind = residuals
        wide = np.broadcast_to(ct if keepdims else np.expand_dims(ct, axis), (len(ct), *shape))
        return [_as_argument(times(conjugate(w), wide), kind)]

    return Primitive(name or function.__name__, function, residuals, push, pull, kind="reduction")


def custom(function: Callable, residuals: Callable, push: Callable, pull: Callable | None = None, *,
           name: str = "") -> Primitive:  # fmt: skip
    """Declare a function by its two linear maps; see `Primitive` for their arguments."""
    return Primitive(name or function.__name__, function, residuals, push, pull)
