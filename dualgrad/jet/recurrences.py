"""Taylor coefficients of named functions, from the equation each of them solves.

A rule(primals, series, y, order) gets the value y and for each argument its coefficients (without
factorials, row j - 1 that of t**j; None for a constant), and returns those of y, (d, *shape), or
None where it does not hold, which leaves the function to its derivative rule. Coefficients are
arrays (d, *shape), or lists of duals of outer levels.

Source: Griewank and Walther 2008, "Evaluating Derivatives", tables 13.1 and 13.2.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..beside import as_array, beside, has_memory
from ..dual import Array, primal_of

Rows = Any  # an array (d, *shape), a list of d duals, or a Table


class Table:
    """Rows in the making: parts of one array as long as they are plain, else a list."""

    def __init__(self, first: Array, count: int) -> None:
        self.rows: Any = []
        if has_memory(first) or isinstance(first, np.generic):
            self.rows = beside(first).empty((count, *first.shape), first.dtype)
        self.filled = 0
        self.append(first)

    def append(self, row: Array) -> None:
        rows = self.rows
        if type(rows) is list:
            rows.append(row)
        elif (has_memory(row) or isinstance(row, np.generic)) and row.dtype == rows.dtype:
            rows[self.filled] = row  # which broadcasts
        else:
            self.rows = [*rows[: self.filled], row]
        self.filled += 1

    def __len__(self) -> int:
        return self.filled

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def after_first(self) -> Array:
        """Return all rows but the first as one array."""
        if type(self.rows) is list:
            return stacked(self.rows[1:])
        return self.rows[1 : self.filled]


def stacked(rows: list) -> Array:
    """Return rows, which broadcast with one another, as one array."""
    shape = np.broadcast_shapes(*(np.shape(row) for row in rows))
    return np.stack([r if np.shape(r) == shape else np.broadcast_to(r, shape) for r in rows])


def dot(a: Rows, b: Rows) -> Any:
    """Return the sum of the products of rows; 0 where there are none."""
    if type(a) is np.ndarray and type(b) is np.ndarray and len(a) > 1:
        return np.einsum("i...,i...->...", a, b)
    total: Any = 0
    for i in range(len(a)):
        total = a[i] * b[i] if i == 0 else total + a[i] * b[i]
    return total


def convolution(a: Rows, b: Rows, k: int) -> Any:
    """Return the sum of a[j] b[k - j] over the j where both exist."""
    low, high = max(0, k - len(b) + 1), min(k, len(a) - 1)
    return dot(a[low : high + 1], b[k - high : k - low + 1][::-1])


def self_convolution(a: Rows, k: int, start: int = 0) -> Any:
    """Return the sum of a[j] a[k - j] over start <= j <= k - start, each pair computed once."""
    low, half = max(start, k - len(a) + 1), (k + 1) // 2
    total = 2 * dot(a[low:half], a[k - half + 1 : k - low + 1][::-1]) if low < half else 0
    if k % 2 == 0 and low <= k // 2:
        total = total + a[k // 2] * a[k // 2]
    return total


def slopes(x: Rows, factor: float = 1) -> Rows:
    """Return the coefficients of factor * dx/dt."""
    if type(x) is not np.ndarray:
        return [(j * factor) * row for j, row in enumerate(x, 1)]
    counts = factor * np.arange(1.0, len(x) + 1)
    real = np.zeros(0, x.dtype).real.dtype
    return x * counts.astype(real).reshape(-1, *(1,) * (x.ndim - 1))


# --- arithmetic


def _multiply(primals, series, y, order):
    (a, b), (da, db) = primals, series
    if da is None or db is None:
        return stacked([a * row for row in db] if da is None else [row * b for row in da])
    table = Table(y, min(order, len(da) + len(db)) + 1)
    for k in range(1, min(order, len(da) + len(db)) + 1):
        row = convolution(da, db, k - 2) if k > 1 else 0
        row = row + a * db[k - 1] if k <= len(db) else row
        table.append(row + da[k - 1] * b if k <= len(da) else row)
    return table.after_first()


def _square(primals, series, y, order):
    (x,), (dx,) = primals, series
    table = Table(y, min(order, 2 * len(dx)) + 1)
    for k in range(1, min(order, 2 * len(dx)) + 1):
        row = self_convolution(dx, k - 2) if k > 1 else 0
        table.append(row + (2 * x) * dx[k - 1] if k <= len(dx) else row)
    return table.after_first()


def _divide(primals, series, y, order):
    """y b = a."""
    (_, b), (da, db) = primals, series
    if db is None:
        return stacked([row / b for row in da])
    return _quotient([] if da is None else da, b, db, y, order)


def _quotient(da, b, db, y, order):
    ys = Table(y, order + 1)
    for k in range(1, order + 1):
        rest = convolution(db, ys, k - 1)
        ys.append((da[k - 1] - rest if k <= len(da) else -rest) / b)
    return ys.after_first()


def _reciprocal(primals, series, y, order):
    return _quotient([], primals[0], series[0], y, order)


def _sqrt(primals, series, y, order):
    """y y = x."""
    if not np.all(primal_of(y) != 0):
        return None  # it divides; the derivative rule leaves what does not move at 0
    (dx,), ys, twice = series, Table(y, order + 1), 2 * y
    for k in range(1, order + 1):
        rest = self_convolution(ys, k, 1)
        ys.append((dx[k - 1] - rest if k <= len(dx) else -rest) / twice)
    return ys.after_first()


def _power(primals, series, y, order):
    """x y' = p y x' with a constant p; y = exp(p log x) where p moves."""
    (x, p), (dx, dp) = primals, series
    base, value = as_array(primal_of(x)), as_array(primal_of(y))
    if not (np.all(base != 0) and np.all(np.abs(value) > np.finfo(value.dtype).tiny)):
        return None  # neither divides
    if dp is not None:
        if base.dtype.kind != "c" and np.any(base < 0):
            return None  # no logarithm
        return _moving_power(x, [] if dx is None else dx, p, dp, y, order)
    ys, velocity = Table(y, order + 1), slopes(dx)
    for k in range(1, order + 1):
        turned = ((p + 1) / k) * convolution(velocity, ys, k - 1)
        ys.append((turned - convolution(dx, ys, k - 1)) / x)
    return ys.after_first()


def _moving_power(x, dx, p, dp, y, order):
    """y' = y g' with g = p l and l = log(x), x l' = x'."""
    velocity, logarithm = slopes(dx) if len(dx) else [], [np.log(x)]
    turned: list = []  # the coefficients of x' / x
    for k in range(order if len(dx) else 0):
        rest = convolution(dx, turned, k - 1) if k else 0
        turned.append(((velocity[k] if k < len(dx) else 0) - rest) / x)
        logarithm.append(turned[k] / (k + 1))
    last = order if len(dx) else len(dp)
    exponent = [convolution([p, *dp], logarithm, k) for k in range(1, last + 1)]
    return _exponential()([None], [exponent], y, order)


# --- y' = (c0 + c1 y + c2 y**2) x'


def _riccati(c0: float, c1: float, c2: float) -> Callable:
    def rule(primals, series, y, order):
        velocity, ys = slopes(series[0]), Table(y, order + 1)
        slope = Table(c0 + (c1 + c2 * y) * y, order)
        for k in range(1, order + 1):
            ys.append(convolution(velocity, slope, k - 1) / k)
            if k < order:
                square = c2 * self_convolution(ys, k) if c2 else 0
                slope.append(square + c1 * ys[k] if c1 else square)
        return ys.after_first()

    return rule


def _exponential(factor: float = 1) -> Callable:
    """y' = factor y x'."""

    def rule(primals, series, y, order):
        velocity, ys = slopes(series[0], factor), Table(y, order + 1)
        for k in range(1, order + 1):
            ys.append(convolution(velocity, ys, k - 1) / k)
        return ys.after_first()

    return rule


# --- y' = one z x', z' = other y x'


def _pair(partner: Callable, one: int, other: int) -> Callable:
    def rule(primals, series, y, order):
        forth = slopes(series[0], one)
        back = forth if one == other else slopes(series[0], other)
        ys, zs = Table(y, order + 1), Table(partner(*primals), order + 1)
        for k in range(1, order + 1):
            ys.append(convolution(forth, zs, k - 1) / k)
            zs.append(convolution(back, ys, k - 1) / k)
        return ys.after_first()

    return rule


# --- linear systems


def _solve(primals, series, y, order):
    """a y = b."""
    (a, _), (da, db) = primals, series
    da, db = [] if da is None else da, [] if db is None else db
    ys = Table(y, order + 1)
    for k in range(1, (order if len(da) else len(db)) + 1):
        right = db[k - 1] if k <= len(db) else 0
        for j in range(min(k, len(da))):
            right = right - np.matmul(da[j], ys[k - 1 - j])
        ys.append(np.linalg.solve(a, right))
    return ys.after_first()


def _inv(primals, series, y, order):
    """a y = 1."""
    ys, (da,) = Table(y, order + 1), series
    for k in range(1, order + 1):
        terms = [np.matmul(da[j], ys[k - 1 - j]) for j in range(min(k, len(da)))]
        ys.append(-np.matmul(y, sum(terms[1:], terms[0])))
    return ys.after_first()


RECURRENCES: dict[Callable, Callable] = {  # by what a primitive computes
    np.multiply: _multiply,
    np.square: _square,
    np.divide: _divide,
    np.reciprocal: _reciprocal,
    np.sqrt: _sqrt,
    np.power: _power,
    np.float_power: _power,
    np.exp: _exponential(),
    np.exp2: _exponential(math.log(2)),
    np.expm1: _riccati(1, 1, 0),
    np.tan: _riccati(1, 0, 1),
    np.tanh: _riccati(1, 0, -1),
    np.sin: _pair(np.cos, 1, -1),
    np.cos: _pair(np.sin, -1, 1),
    np.sinh: _pair(np.cosh, 1, 1),
    np.cosh: _pair(np.sinh, 1, 1),
    np.linalg.solve: _solve,
    np.linalg.inv: _inv,
}
