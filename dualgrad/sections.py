"""Passes with perturbed parameters, and sections of the loss that have a derivative of their own.

A local loss reaches one part of a network only, as the gradient stops before it. Were all parts
perturbed on one level, the derivative of the whole objective would be the sum of theirs, and each
part would be credited with the noise of the others. So a part may ask, by `section`, for a level of
its own: levels never mix, so one tangent still tells the parts' derivatives apart, and as nothing
crosses a stopped gradient, no dual ever carries two of these levels through a layer. Two designs
were tried; the other, a tangent for each part in one pass, costs as many tangents as parts.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import tree
from .arguments import dense, number
from .beside import as_array
from .dual import Array, DualTensor, Level, find_level, primal_of, split
from .errors import ShapeError

Tree = tree.Tree
WHERE = "dg.forward_gradient"


class Run:
    """A pass on a level of its own, and those of its sections."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.sections: list[Run] = []
        self.root = self  # the whole pass
        level.owner = self

    def section(self, level: Level) -> "Run":
        """Return a run for a part of the loss."""
        raise NotImplementedError

    def enter(self, x: DualTensor, run: "Run") -> DualTensor:
        """Return x as a parameter of `run`, a section, if x is one of this pass, else x."""
        raise NotImplementedError

    def everything(self) -> list["Run"]:
        """Return this run and its sections, the inner levels last."""
        sections = [each for run in self.sections for each in run.everything()]
        return [self, *sorted(sections, key=lambda run: run.level)]

    def close(self) -> None:
        """End the pass here, and let go of what makes circles: a step's arrays are not to wait for
        the garbage collector.
        """
        self.level.open = False
        self.level.owner = None
        del self.root

    def plain(self, x: Any) -> Any:
        """Return x without the levels of this pass; those of outer transforms stay."""
        for run in reversed(self.everything()):
            x = split(x, run.level)[0]
        return x


@contextmanager
def running(make: Callable[[Level], Run]) -> Iterator[Any]:
    """Open a level for the run that make(level) gives; close it and its sections' afterwards."""
    run = make(Level.fresh(WHERE))
    try:
        yield run
    finally:
        for each in run.everything():
            each.close()


def section(layer: Tree) -> Tree:
    """Return a layer whose perturbed parameters are on a level of its own.

    What is computed from it has to meet other parameters behind a stopped gradient only, which is
    what makes it cheap; where it does not, the result is right, and the derivative one of second
    order. Outside a pass of forward_gradient the layer comes back as it is.
    """
    leaves, structure = tree.flatten(layer)
    level = find_level(leaves)
    outer = None if level is None else level.owner
    if outer is None:
        for x in leaves:
            if type(x) is DualTensor and hasattr(x.carrier, "refuse"):
                x.carrier.refuse("a local loss has a derivative of its own")  # a plan has one
        return layer
    root = outer.root  # a transform inside the loss has a level above all sections', new ones too
    run = outer.section(root.level.below(len(root.everything())))
    run.root = root
    outer.sections.append(run)
    mine = [
        outer.enter(x, run) if type(x) is DualTensor and x.level == level else x for x in leaves
    ]
    return tree.unflatten(structure, mine)


class Losses:
    """What a loss gave: value, number of examples, and each run's derivatives of each array of it.

    A loss is one array, () or (N,), or a list of arrays, (), (N,) or (N, ...), whose sum counts:
    the objective is the mean over the examples of the sum of everything else.
    """

    def __init__(self, result: Any, run: Run) -> None:
        listed = type(result) is list
        runs = run.everything()
        self.examples: int | None = None  # None for a loss of shape ()
        self.rows: dict[Run, list[Array]] = {each: [] for each in runs}  # (k, *shape of the array)
        self.value: Any = None
        for leaf in tree.leaves(result) if listed else [result]:
            losses = self._take_apart(number(leaf, WHERE), runs)
            self._check(losses, listed)
            value = average(losses)
            self.value = value if self.value is None else self.value + value
        if self.value is None:
            raise ShapeError(f"{WHERE}: the loss is an empty list. Give one array or more.")

    def _take_apart(self, losses: Any, runs: list[Run]) -> Any:
        """Return an array of the loss without this pass's levels, keeping what they held."""
        for run in reversed(runs):
            losses, carrier = split(losses, run.level)
            if carrier is not None:
                self.rows[run].append(runs[0].plain(dense(carrier)))
        return losses

    def _check(self, losses: Any, listed: bool) -> None:
        plain = as_array(primal_of(losses))
        if plain.dtype.kind == "c" or (plain.ndim > 1 and not listed):
            raise ShapeError(
                f"{WHERE}: the loss has shape {plain.shape}; it must give one real number, or one "
                f"an example, shape (N,). Take a mean, or sum over the other axes."
            )
        if plain.ndim and not len(plain):
            raise ShapeError(
                f"{WHERE}: the loss has shape {plain.shape}: it is of no example. Give a batch "
                f"that is not empty."
            )
        if plain.ndim and self.examples not in (None, len(plain)):
            raise ShapeError(
                f"{WHERE}: the list of losses has {self.examples} and {len(plain)} examples. The "
                f"first axis of each must be the examples."
            )
        self.examples = len(plain) if plain.ndim else self.examples

    def totals(self, run: Run) -> Array | None:
        """Return the derivatives of the objective on a run's level, (k,); None: it has none."""
        rows = [self._mean(each) for each in self.rows[run]]
        return sum(rows[1:], start=rows[0]) if rows else None

    def _mean(self, rows: Array) -> Array:
        if rows.ndim == 1:
            return rows
        if rows.ndim > 2:
            rows = np.sum(rows, axis=tuple(range(2, rows.ndim)))
        return np.mean(rows, axis=1)

    def each(self, run: Run, whole: bool = False) -> list[Array]:
        """Return each array's derivatives on a run's level, (k, N, ...).

        A number counts in every example's sum; `whole` makes it N times that, as is due to noise of
        one example, which moves a number itself and not an example's part of the mean.
        """
        n = self.examples or 1
        return [
            np.broadcast_to(rows[:, None] * (n if whole else 1), (len(rows), n))
            if rows.ndim == 1
            else rows
            for rows in self.rows[run]
        ]

    def by_example(self, run: Run, whole: bool = False) -> Array | None:
        """Return the derivatives of each example's sum on a run's level, (k, N)."""
        rows = [
            np.sum(each, axis=tuple(range(2, each.ndim))) if each.ndim > 2 else each
            for each in self.each(run, whole)
        ]
        return sum(rows[1:], start=rows[0]) if rows else None


def average(losses: Any) -> Any:
    """Return the mean over the first axis, the examples, of the sum over the others."""
    shape = np.shape(primal_of(losses))
    if len(shape) < 2:
        return np.mean(losses) if shape else losses
    return np.sum(losses) / shape[0]


def objective(result: Any) -> Any:
    """Return the number that a loss, one array or a list of them, stands for: see `Losses`."""
    values = [average(x) for x in (tree.leaves(result) if type(result) is list else [result])]
    return sum(values[1:], start=values[0])
