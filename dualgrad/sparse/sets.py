"""Sets of inputs: which entries of the arguments an entry of a result may depend on.

A set has a number, and an array of such numbers is the carrier of a dual: where entries only move
(reshape, indexing, concatenation, writing, views of views) so do the numbers, by the very calls
that move the entries. Only where entries meet is a new set made, the union of theirs.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import MissingRuleError
from ..primitive import Follower
from .rules import pattern_of

PAIRS_AT_ONCE = 1 << 22  # of a row and an input, while unions are made: bounds the memory


class Table:
    """The sets by number: 0 is empty, 1 to n are the single inputs, unions follow as they come.

    Attributes:
        inputs: n, the number of entries of the arguments.
    """

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self._starts = np.maximum(np.arange(-1, inputs + 1), 0)  # of each set in _members
        self._members = np.arange(inputs)
        self._count, self._filled = inputs + 1, inputs

    def carrier(self, ids: np.ndarray) -> "Sets":
        """Return numbers of sets, of an array's shape, as its carrier; the memory is shared."""
        carrier = ids[None].view(Sets)
        carrier.table = self
        return carrier

    def read(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sets of many entries end to end, in order, and the size of each."""
        ids = np.ravel(ids)
        first, sizes = self._starts[ids], self._starts[ids + 1] - self._starts[ids]
        before = np.cumsum(sizes) - sizes
        return self._members[np.repeat(first - before, sizes) + np.arange(sizes.sum())], sizes

    def union(self, ids: np.ndarray) -> np.ndarray:
        """Return the union of each row of numbers: (..., m) to (...)."""
        shape, m = ids.shape[:-1], ids.shape[-1]
        if m == 1:
            return ids[..., 0]
        rows = np.reshape(ids, (math.prod(shape), m))
        if m == 2:
            out = np.maximum(rows[:, 0], rows[:, 1])
            met = np.flatnonzero((rows[:, 0] != rows[:, 1]) & (rows[:, 0] != 0) & (rows[:, 1] != 0))
            if len(met):
                out[met] = self._unite(np.ravel(rows[met]), np.full(len(met), 2))
            return np.reshape(out, shape)
        rows = np.sort(rows, axis=1)
        distinct = rows != 0
        distinct[:, 1:] &= rows[:, 1:] != rows[:, :-1]
        counts = np.sum(distinct, axis=1)
        out = np.max(rows, axis=1, initial=0)
        met = np.flatnonzero(counts > 1)
        if len(met):
            out[met] = self._unite(rows[met][distinct[met]], counts[met])
        return np.reshape(out, shape)

    def gather(self, places: np.ndarray, ids: np.ndarray, size: int) -> np.ndarray:
        """Return for each of `size` places the union of the ids that were sent there, (size,)."""
        places, ids = np.ravel(places), np.ravel(ids)
        keys = np.unique((places * np.int64(self._count) + ids)[ids != 0])
        places, ids = keys // self._count, keys % self._count
        counts = np.bincount(places, minlength=size)
        out = np.zeros(size, np.intp)
        out[places] = ids
        met = counts > 1
        if np.any(met):
            out[met] = self._unite(ids[met[places]], counts[met])
        return out

    def _unite(self, ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the number of each union; ids lie end to end, at least two distinct ones each."""
        starts = np.cumsum(counts) - counts
        sizes = self._starts[ids + 1] - self._starts[ids]
        largest = np.maximum.reduceat(sizes * self._count + ids, starts)  # of each, and its number
        out = largest % self._count
        rest = np.flatnonzero(largest // self._count < self.inputs)  # a full set stays what it is
        work = np.cumsum(np.add.reduceat(sizes, starts)[rest])
        cuts = np.searchsorted(work, np.arange(PAIRS_AT_ONCE, work.max(initial=0), PAIRS_AT_ONCE))
        for some in np.split(rest, cuts):
            if len(some):
                out[some] = self._append(ids, starts[some], counts[some], out[some])
        return out

    def _append(self, ids, starts, counts, largest):
        before = np.cumsum(counts) - counts
        picked = ids[np.repeat(starts - before, counts) + np.arange(counts.sum())]
        members, sizes = self.read(picked)
        row = np.repeat(np.repeat(np.arange(len(counts)), counts), sizes)
        keys = np.sort(row * np.int64(self.inputs) + members)
        keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
        row, members = keys // self.inputs, keys % self.inputs
        sizes = np.bincount(row, minlength=len(counts))
        # A union no larger than one of its parts is that part: no new number.
        new = sizes > self._starts[largest + 1] - self._starts[largest]
        members, sizes = members[new[row]], sizes[new]
        numbers = self._count + np.arange(len(sizes))
        ends = self._filled + np.cumsum(sizes)
        self._members = _stored(self._members, self._filled, members)
        self._starts = _stored(self._starts, self._count + 1, ends)
        self._filled += len(members)
        self._count += len(sizes)
        out = largest.copy()
        out[new] = numbers
        return out


def _stored(array: np.ndarray, used: int, more: np.ndarray) -> np.ndarray:
    """Return the array with `more` after the entries in use, in twice the room where it is full."""
    need = used + len(more)
    if need > len(array):
        array = np.concatenate([array[:used], np.empty(max(need, 2 * used) - used, array.dtype)])
    array[used:need] = more
    return array


def _kept(array, *args, **kwargs):
    return array.copy()


def _zeros_like(array, dtype=None, order="K", subok=True, shape=None):
    return array.table.carrier(np.zeros(array.shape[1:] if shape is None else shape[1:], np.intp))


class Sets(np.ndarray, Follower):
    """Numbers of sets as the carrier of a dual, shape (1, *shape): views of it are views of both.

    What would compute with the numbers raises.
    """

    table: Table
    first_order = True

    def __array_finalize__(self, obj: Any) -> None:
        self.table = getattr(obj, "table", None)  # type: ignore[assignment]

    @property
    def ids(self) -> np.ndarray:
        """The numbers as a plain array of the primal's shape, in the same memory."""
        return np.asarray(self)[0, ...]

    def __repr__(self) -> str:
        return f"<sets of inputs, shape {self.shape[1:]}>"

    __str__ = __repr__  # type: ignore[assignment]

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        raise _no_number(ufunc)

    def __array_function__(self, function: Callable, types: Any, args: Any, kwargs: Any) -> Any:
        if function in _OF_CARRIERS:
            return _OF_CARRIERS[function](*args, **kwargs)
        if function in _MOVES:
            return super().__array_function__(function, types, args, kwargs)
        raise _no_number(function)

    def follow(self, primitive: Any, primals: list, carriers: list, y: Any, params: dict) -> "Sets":
        ids = [None if t is None else t.ids for t in carriers]
        return self.table.carrier(pattern_of(primitive, self.table, ids, primals, y, params))


_OF_CARRIERS = {np.copy: _kept, np.zeros_like: _zeros_like, np.empty_like: _zeros_like}
_MOVES = {np.may_share_memory, np.reshape, np.broadcast_to, np.shape, np.ndim}


def _no_number(function: Any) -> MissingRuleError:
    return MissingRuleError(
        f"dg.sparsity: {getattr(function, '__name__', function)} of tangents cannot be followed, "
        "only operations on the values of the function. Give the pattern: "
        "dg.sparse_jacobian(f, sparsity=pattern)."
    )
