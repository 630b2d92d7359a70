"""How a Taylor series passes through a primitive: four ways, of which the last always works."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from ..beside import is_array, on_device
from ..dual import Array, DualTensor, Level, check_writeable, find_level, primal_of, read_only
from ..errors import LevelError, WriteError
from ..primitive import Follower, Primitive, fit
from .recurrences import RECURRENCES


class Series(Follower):
    """The Taylor coefficients of a value along a curve x(t), as the carrier of a dual.

    x(t) = primal + coefficients[0] t + coefficients[1] t**2 + ..., without factorials. It is known
    up to `order`; coefficients between the last one kept and `order` are zero.

    Attributes:
        coefficients: (d, *shape) with d <= order, an array or a dual of an outer level.
        order: up to which power of t the value is known.
        level: of the dual that carries it.
        whole: the coefficients that these are the first of.
        found: while a derivative rule runs, what it has computed of which curves; else None.
    """

    __slots__ = ("coefficients", "order", "level", "whole", "found")

    def __init__(self, coefficients: Array, order: int, level: Level, whole: Array = None,
                 found: dict | None = None) -> None:  # fmt: skip
        self.coefficients = coefficients
        self.order = order
        self.level = level
        self.whole = coefficients if whole is None else whole
        self.found = found

    def __repr__(self) -> str:
        return f"<Taylor series of order {self.order}, shape {self.coefficients.shape[1:]}>"

    def truncated(self, order: int, found: dict | None = None) -> "Series":
        found = self.found if found is None else found
        return Series(self.coefficients[:order], order, self.level, self.whole, found)

    def follow(self, primitive: Primitive, primals: list, carriers: list, y: Array,
               params: dict) -> "Series":  # fmt: skip
        if primitive.views and _is_writeable(primals[0]):
            carriers[0].fill(primals[0])  # so that a view's coefficients are views
        order = min(len(c) for c in carriers if c is not None)
        given = [None if c is None else c.truncated(order) for c in carriers]
        moving = [None if c is None or not len(c.coefficients) else c for c in given]
        if all(c is None for c in moving):
            return constant(y, order, self.level)
        call = Call(primitive, primals, moving, y, params, order, self.level)
        return call.result()

    # --- what indexing, writing and x.tangents of a dual ask of its carrier

    def __len__(self) -> int:
        return self.order

    def __getitem__(self, index: Any) -> Any:
        """Return coefficient j + 1 for the index j or (j, ...): a view, or 0 beyond the last."""
        j = index[0] if isinstance(index, tuple) else index
        return self.coefficients[index] if j < len(self.coefficients) else 0

    def __setitem__(self, index: Any, value: Any) -> None:
        self.coefficients[index] = value

    def make_writeable(self, primal: Array) -> None:
        """Prepare for x[i] = v; raise WriteError where the coefficients are not x's alone."""
        self.fill(primal)
        check_writeable(self.coefficients)

    def fill(self, primal: Array) -> None:
        """Store all coefficients, those that are zero as well."""
        if len(self.coefficients) < self.order:
            self.coefficients = self.whole = self.room(primal).coefficients

    def copy(self) -> "Series":
        return Series(np.copy(self.coefficients), self.order, self.level)

    def zeros(self, primal: Array) -> "Series":
        """Return the series of a constant, all coefficients stored."""
        return constant(primal, self.order, self.level).room(primal)

    def room(self, primal: Array) -> "Series":
        """Return a copy with all coefficients stored, with room for outer tangents of primal."""
        zeros = np.zeros_like(primal, shape=(self.order, *primal.shape))
        d = len(self.coefficients)
        full = np.concatenate([self.coefficients + zeros[:d], zeros[d:]])
        return Series(full, self.order, self.level)

    def dense(self) -> Array:
        raise LevelError(
            "x.tangents: this dual carries a Taylor series and no tangents, as dg.jet runs. Use "
            "dg.jvp inside the function, or read the series that dg.jet returns."
        )


def constant(y: Array, order: int, level: Level) -> Series:
    """Return the series of a value that does not move."""
    return Series(np.zeros_like(primal_of(y), shape=(0, *y.shape)), order, level)


class Call:
    """A call of a primitive on series, of which at least one moves."""

    def __init__(self, primitive: Primitive, primals: list, series: list, y: Array, params: dict,
                 order: int, level: Level) -> None:  # fmt: skip
        self.primitive = primitive
        self.primals = primals
        self.series = series
        self.active = [c is not None for c in series]
        self.y = y
        self.params = params
        self.order = order
        self.level = level
        self.way = "derivative rule"  # or another of those below, for the page of coverage

    def result(self) -> Series:
        """Return the series of the value, in the cheapest way that holds."""
        rows = self._rows()
        return self._remembered() if rows is None else self._series(rows)

    def _series(self, rows: Array) -> Series:
        return Series(fit(rows, self.y), self.order, self.level)

    def _rows(self) -> Array | None:
        """Return the coefficients of the value, or None where only `_integral` gives them."""
        primitive = self.primitive
        if primitive.kind == "linear":
            return self._pushed(self._residuals(self.primals, self.y))
        if primitive.kind in ("bilinear", "multilinear"):
            return self._multilinear()
        recurrence = RECURRENCES.get(primitive.value)
        if recurrence is None:
            return None
        given = [None if c is None else _listed(c.coefficients) for c in self.series]
        rows = recurrence(self.primals, given, self.y, self.order)
        self.way = self.way if rows is None else "recurrence"
        return rows

    def _residuals(self, primals: Sequence, y: Array) -> Any:
        return self.primitive.residuals(primals, self.active, y, **self.params)

    def _pushed(self, residuals: Any) -> Array:
        """A constant Jacobian takes the coefficients as so many directions."""
        self.way = "linear"
        d = max(len(c.coefficients) for c in self.series if c is not None)
        given = [None if c is None else _padded(c.coefficients, d) for c in self.series]
        return self.primitive.push(residuals, given, **self.params)

    def _multilinear(self) -> Array:
        """The product rule: all of one argument's coefficients at once, for each of the others'."""
        self.way = "product rule"
        first, *others = [i for i, c in enumerate(self.series) if c is not None]
        full = np.concatenate([self.primals[first][None], self.series[first].coefficients])
        terms: list[list] = [[] for _ in range(self.order + 1)]
        choices = [range(len(self.series[i].coefficients) + 1) for i in others]
        flags = [i == first for i in range(len(self.series))]
        for powers in product(*choices):
            power = sum(powers)
            if power > self.order:
                continue
            at = list(self.primals)
            for i, j in zip(others, powers, strict=True):
                at[i] = self.series[i].coefficients[j - 1] if j else at[i]
            residuals = self.primitive.residuals(at, flags, self.y, **self.params)
            start = 0 if power else 1
            given = [full[start : self.order - power + 1] if f else None for f in flags]
            part = self.primitive.push(residuals, given, **self.params)
            for i in range(len(part)):
                terms[start + power + i].append(part[i])
        rows = [sum(row[1:], row[0]) for row in terms[1:] if row]
        return np.stack(rows)

    def _remembered(self) -> Series:
        """Return `_integral`, computed once for each curve that a derivative rule meets.

        Slopes of Bessel functions are Bessel functions of both neighbouring orders, whose slopes
        are again two: without a memory, 2**n calls of few functions.
        """
        found = next((c.found for c in self.series if c is not None and c.found is not None), None)
        key = self._key()
        if found is None or key is None:
            return self._integral({} if found is None else found)
        known = found.get(key)
        if known is None or known[0].order < self.order:
            y = self._integral(found)
            shared = Series(read_only(y.coefficients), y.order, self.level)
            known = found[key] = shared, self.primals, self.series  # kept for their identities
        return known[0].truncated(self.order)

    def _key(self) -> tuple | None:
        if self.primitive.kind != "elementwise" or self.params:
            return None
        parts: list = [self.primitive]
        for x, c in zip(self.primals, self.series, strict=True):
            plain = isinstance(x, (int, float, complex, np.generic))
            parts.append(repr(x) if plain and c is None else id(x))
            parts.append(None if c is None else id(c.whole))
        return tuple(parts)

    def _integral(self, found: dict) -> Series:
        """Return the series of y from dy/dt = J(x(t)) dx/dt, with the derivative rule's own J.

        Order n needs J to order n - 1. Where J sees y too, each round makes one order known.
        """
        known, at = constant(self.y, 0, self.level), self.order - 1
        while True:
            xs = [
                x if c is None or at == 0 else DualTensor(x, c.truncated(at, found), self.level)
                for x, c in zip(self.primals, self.series, strict=True)
            ]
            y = self.y if at == 0 else DualTensor(self.y, known, self.level)
            residuals = self._residuals(xs, y)
            if known.order == 0 and self.primitive.kind == "elementwise" and _fixed(residuals):
                return self._series(self._pushed(residuals))
            velocities = [self._velocity(c, at) for c in self.series]
            slope = fit(self.primitive.push(residuals, velocities, **self.params), self.y)
            known = self._integrated(slope, at)
            if known.order == self.order:
                return known
            at = known.order

    def _velocity(self, c: Series | None, order: int) -> Array | None:
        """Return dx/dt, shape (1, *shape), known to an order."""
        if c is None:
            return None
        rows = _scaled(c.coefficients[: order + 1], 1)[:, None]
        if order == 0:
            return rows[0]
        return DualTensor(rows[0], Series(rows[1:], order, self.level), self.level)

    def _integrated(self, slope: Array, order: int) -> Series:
        """Return the series with the given derivative, shape (1, *shape of y)."""
        rows = slope
        if type(slope) is DualTensor and slope.level == self.level:
            order = len(slope.carrier)
            rows = np.concatenate([slope.primal, slope.carrier.coefficients[:, 0]])
        return Series(_scaled(rows, -1), order + 1, self.level)


def _is_writeable(x: Array) -> bool:
    try:
        check_writeable(x)
    except WriteError:
        return False
    return True


def _fixed(residuals: Any) -> bool:
    """Tell whether an elementwise function's partials are known not to move along the curve."""
    partials = residuals[0] if isinstance(residuals, tuple) else None
    return type(partials) is list and all(
        p is None
        or isinstance(p, (int, float, complex, np.ndarray, np.generic))
        or on_device(p)
        or (isinstance(p, tuple) and find_level(p) is None)
        for p in partials
    )


def _listed(coefficients: Array) -> Any:
    return coefficients if is_array(coefficients) else list(coefficients)


def _padded(rows: Array, d: int) -> Array:
    if len(rows) == d:
        return rows
    missing = np.zeros_like(primal_of(rows), shape=(d - len(rows), *rows.shape[1:]))
    return np.concatenate([rows, missing])


def _scaled(rows: Array, power: int) -> Array:
    """Return row i times (i + 1) ** power, for power 1 (differentiate) or -1 (integrate)."""
    counts = np.arange(1, len(rows) + 1, like=primal_of(rows))
    counts = np.astype(counts, np.real(primal_of(rows)).dtype)
    counts = np.reshape(counts, (-1, *(1,) * (rows.ndim - 1)))
    return rows * counts if power > 0 else rows / counts
