"""Parameters as a plan keeps them: in panels of 16 columns, with an update that may still be due.

A step writes no parameter. It leaves coefficients c, and the next step subtracts c_i v_i from each
panel as it loads it, drawing the direction v_i again; whoever reads the parameters flushes first,
by the same compiled function, so reading changes no bit of what follows.

An interrupt (Ctrl-C) may come between any two calls. So what is due is noted by the compiled call
that leaves or applies it, as 1 + the number of the step; and what a step has left is dropped where
its state turns out to be still in use: nothing has been written for it yet.
"""

from typing import Any

import numpy as np

from .. import tree
from ..beside import is_array
from ..dual import Array
from ..random import Key

PANEL = 16
KEY_LOW, KEY_HIGH, STEP, PENDING, ERROR = range(5)  # of a program's words
RATE, CLIP, LOSS, SHARE = range(4)  # of its numbers
DERIVATIVES = 8


def words() -> np.ndarray:
    """Return the integers that the stages of a program share: see kernels/fused/draws.py."""
    return np.zeros(8, np.int64)


def numbers(k: int, clip: float | None) -> np.ndarray:
    """Return the numbers that stages share: rate, clip, loss, 1 / k, then d and c, k of each."""
    shared = np.zeros(DERIVATIVES + 3 * max(k, 1))
    shared[CLIP] = np.inf if clip is None else clip
    shared[SHARE] = 1 / max(k, 1)
    return shared


class Leaf:
    """One parameter in panels: (P, rows, 16), rows is 1 for a vector.

    Attributes:
        pending: 1 + the step whose update is due, or 0; int64 of shape (1,).
        keys: int64 (2, 2): the leaf's key in this and in the previous step.
    """

    __slots__ = ("path", "shape", "rows", "columns", "panels", "pending", "keys", "array")

    def __init__(self, path: str, x: np.ndarray, memory: np.ndarray, shared: np.ndarray) -> None:
        """Pack x into memory, zeros of `packed_size(x)` entries; shared is int64 of shape (5,).

        Where that is 0, x itself is taken.
        """
        self.path = path
        self.shape = x.shape
        self.rows = x.size // x.shape[-1]
        self.columns = x.shape[-1]
        self.panels = -(-self.columns // PANEL)
        self.pending, self.keys = shared[:1], shared[1:].reshape(2, 2)
        self.array = (memory if memory.size else x).reshape(self.panels, self.rows, PANEL)
        if not memory.size:
            return
        matrix = x.reshape(self.rows, self.columns)
        for p in range(self.panels):
            part = matrix[:, p * PANEL : (p + 1) * PANEL]
            self.array[p, :, : part.shape[1]] = part

    def read(self) -> np.ndarray:
        """Return the values as an array of their own, of `shape`."""
        matrix = self.array.transpose(1, 0, 2).reshape(self.rows, -1)
        return np.array(matrix[:, : self.columns]).reshape(self.shape)

    @property
    def address(self) -> int:
        return self.array.ctypes.data


def kind_of(params: tree.Tree) -> tuple:
    """Return what of parameters a plan depends on: structure, shapes, dtypes, static leaves."""
    leaves, structure = tree.flatten(params)
    return structure, tuple(
        (type(x), x.shape, x.dtype) if is_array(x) else (type(x), repr(x)) for x in leaves
    )


def packed_size(x: np.ndarray) -> int:
    """Return the entries that packing x takes: none for a vector that is in panels as it is."""
    if x.ndim == 1 and x.size % PANEL == 0 and x.flags.c_contiguous:
        return 0
    return x.size // x.shape[-1] * -(-x.shape[-1] // PANEL) * PANEL


class Owner:
    """The parameters of a run between its steps: a `Store`, or on a device a `DeviceStore`.

    Attributes:
        leaves: of the tree; None where a leaf is packed.
        kind: what `kind_of` says of the tree.
        packed: the leaves in panels, by their number.
        plans: what was made for this owner, by signature.
        maker: the planner whose plans these are.
    """

    maker: Any = None

    def __init__(self, params: tree.Tree) -> None:
        self.leaves, self.structure = tree.flatten(params)
        self.kind = kind_of(params)
        self.paths = tree.paths(params)
        self.packed: dict[int, Leaf] = {}
        self.plans: dict[Any, Any] = {}

    def is_past(self, step: int) -> bool:
        """Tell whether parameters that took `step` steps have been written over."""
        return False

    def settle(self) -> None:
        """Take what a step has left, now that the state before it is used."""

    def restore(self, step: int) -> None:
        """Drop what an interrupted call has left for a state that has taken `step` steps."""

    def flush(self) -> None:
        """Apply the update that is due."""

    def tree(self) -> tree.Tree:
        """Return the parameters as they are now, as arrays of their own."""
        raise NotImplementedError


class Store(Owner):
    """The parameters in host memory, with an update that may be due."""

    def __init__(self, params: tree.Tree, key: Key, k: int, clip: float | None) -> None:
        super().__init__(params)
        self.words = words()
        self.words[[KEY_LOW, KEY_HIGH]] = key.words
        self.numbers = numbers(k, clip)
        self.coming: tuple[int, dict[int, Array]] | None = None
        self._flush: Any = None
        self._shared = np.zeros((0, 5), np.int64)  # of each leaf: pending, then its keys

    @property
    def marks(self) -> np.ndarray:
        """What is due of each packed leaf, int64 (leaves,): a view."""
        return self._shared[:, 0]

    def pack(self, wanted: set[int]) -> None:
        """Hold these leaves, and no others, in panels."""
        from ..kernels.fused.program import aligned

        if set(self.packed) == wanted:
            return
        self.flush()
        leaves, packed = list(self.leaves), {}
        for i, leaf in self.packed.items():  # of another plan: into the new memory with them all
            leaves[i] = leaf.read()
        shared = np.zeros((len(wanted), 5), np.int64)
        chosen = sorted(wanted)
        # One piece: its pages are touched as leaves move in, and there is no slack around each.
        sizes = [packed_size(leaves[i]) for i in chosen]
        memory = aligned((sum(sizes),), leaves[chosen[0]].dtype)
        start = 0
        for i, size, part in zip(chosen, sizes, shared, strict=True):
            packed[i] = Leaf(self.paths[i], leaves[i], memory[start : start + size], part)
            leaves[i] = None
            start += size
        # In one call, so that an interrupt finds all of it or nothing.
        vars(self).update(leaves=leaves, packed=packed, plans={}, _flush=None, _shared=shared)

    def leave(self, program: Any) -> None:
        """Take the program that applies what is due."""
        self._flush = self._flush or program

    def due(self, step: int, coming: dict[int, Array]) -> None:
        """Note that a step has left an update of all packed leaves, and new values of others."""
        self.coming = (step, coming)
        self.marks[:] = step + 1

    def settle(self) -> None:
        """Take the new values of leaves that are not packed: the state before them is used."""
        if self.coming is not None:
            for i, x in self.coming[1].items():
                self.leaves[i] = x
            self.coming = None

    def restore(self, step: int) -> None:
        """Drop what an interrupted call has left for a state that has taken `step` steps."""
        if self.coming is not None and self.coming[0] == step:
            self.coming = None
        if self._shared.size and self._shared.item(0) == step + 1:
            self.marks[:] = 0

    def flush(self) -> None:
        """Apply the update that is due."""
        due = int(self.marks.max(initial=0))
        if due:
            self.words[STEP] = due  # the directions due are those of the step before it
            self._flush.run(parallel=True)

    def tree(self) -> tree.Tree:
        """Return the parameters as they are now; packed leaves as arrays of their own."""
        self.flush()
        leaves: list[Array] = list(self.leaves)
        for i, leaf in self.packed.items():
            leaves[i] = leaf.read()
        return tree.unflatten(self.structure, leaves)
