"""Directions of a tree of parameters, random or guessed, as values that compose.

A random direction is a function of (key, path of the leaf, number of the direction), never of a
running position, so it can be drawn again instead of stored; docs/directions.md fixes which bits
make which entry.

A number before a value is how many, not how long: `3 * dg.directions.normal` are three directions.
"""

import dataclasses
import functools
import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import tree
from .beside import beside, dtype_of
from .drawing import DISTRIBUTIONS
from .dual import Array
from .errors import DtypeError, OptionError, ShapeError
from .families import FAMILIES, JOINT, Target
from .options import choice, count
from .random import Key, check_key
from .structured import LowRank

STRUCTURES = ("dense", "rank1")

Draw = Callable[[tuple[int, int]], list]  # (start, stop) -> these directions of each leaf


class Directions:
    """A family of directions, what `distribution=` takes; `a + b` are those of a, then those of b.

    Alone, a random family gives as many as `directions=` says. `3 * a` is three of a, and in a sum
    a family without a number gives one. A guess has a number of its own.

    All take one pass, which holds k tangents beside each activation. With k directions and d
    perturbed numbers, the mean estimate g = (1/k) sum_i d_i v_i has

    | value | bias | E |g|^2 / |gradient|^2 | memory of the directions |
    |---|---|---|---|
    | rademacher | none | 1 + (d - 1) / k | k d; with structure="rank1" k (m + n) a matrix |
    | normal | none | 1 + (d + 1) / k | the same |
    | orthogonal | none | d / k | k d, and in float64 k d and a leaf while made; k <= d |
    | basis | none | d / k | the same |
    | guess(...) | towards it | that of the guess | k d |
    | a + b | none if all have none | 1 + sum_p (k_p / k)^2 (that of p - 1) | all together |

    rademacher, normal: independent entries with mean 0 and variance 1 (docs/directions.md). A
    rank-1 normal direction has a larger moment: see `second_moment`.
    orthogonal: k directions with v_i . v_j = 0 over all leaves together and |v_i|^2 = d, uniformly
    distributed; the projection on their span is k/d times the mean estimate.
    basis: k different axes, times sqrt(d), each set of axes as likely as the others: with k = d and
    combine="projection" the gradient itself.
    """

    __array_ufunc__ = None  # so that NumPy's integers leave k * value to __rmul__
    number: int | None = None  # of directions, if the value says so itself

    @property
    def parts(self) -> tuple["Directions", ...]:
        return (self,)

    def prepare(self, target: Target, k: int) -> tuple[int, Draw]:
        """Return (number of directions, draw): k directions, unless the value has a number itself.

        draw((start, stop)) gives new arrays (stop - start, *shape), or Outers, in the order of the
        target's leaves; the same ones each time. A function that guesses is called here, once.

        Raises:
            OptionError: more than d directions that are orthogonal, or of the basis.
            ShapeError, StructureError, DtypeError: a guess is not like params.
        """
        raise NotImplementedError

    def __add__(self, other: Any) -> "Directions":
        if not isinstance(other, Directions):
            return self._no_arithmetic()
        return Sum(self.parts + other.parts)

    def __rmul__(self, k: Any) -> "Directions":
        raise OptionError(f"{k} * ({self!r}): only random families are repeated, as 3 * normal.")

    def __mul__(self, k: Any) -> "Directions":
        return self.__rmul__(k)

    def _no_arithmetic(self, *other: Any) -> "Directions":
        raise OptionError(
            f"{self!r} is a family of directions, not an array: 3 * normal says how many, a + b "
            f"puts one family after another, and there is nothing else (no sign, no length)."
        )

    __radd__ = __neg__ = __pos__ = __abs__ = _no_arithmetic
    __sub__ = __rsub__ = __truediv__ = __rtruediv__ = __pow__ = __matmul__ = _no_arithmetic


@dataclasses.dataclass(frozen=True, repr=False)
class Random(Directions):
    """Random directions of one family, by its name."""

    name: str
    number: int | None = None

    def prepare(self, target: Target, k: int) -> tuple[int, Draw]:
        k = self.number or k
        if self.name in JOINT and k > target.size:
            raise OptionError(
                f"{k} {self.name} directions of {target.size} perturbed numbers: there are no more "
                f"than numbers. Ask for at most {target.size}."
            )
        return k, functools.partial(FAMILIES[self.name], target)

    def __rmul__(self, k: Any) -> "Directions":
        k = count(f"dg.directions.{self.name}", "its multiple", k)
        return dataclasses.replace(self, number=k * (self.number or 1))

    def __repr__(self) -> str:
        return f"{self.number} * {self.name}" if self.number else self.name


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Guess(Directions):
    """Given directions, `dg.directions.guess(what)`: the estimate lies in their span.

    So it is biased; with combine="projection" it is the part of the gradient in that span.

    Args:
        what: a tree like params (one direction), a list of them, or a function that gives either:
            fn(*arguments of the loss, key=key).
    """

    what: Any

    def prepare(self, target: Target, k: int) -> tuple[int, Draw]:
        rows = self._rows(target)

        def draw(numbers: tuple[int, int]) -> list:
            part = rows[slice(*numbers)]
            return [
                np.stack([beside(x).asarray(row[place], x.dtype) for row in part])
                for place, (_, x) in enumerate(target.leaves)
            ]

        return len(rows), draw

    def _rows(self, target: Target) -> list[list]:
        """Return the directions, each as a list of its floating leaves."""
        what, (leaves, structure) = self.what, tree.flatten(target.params)
        found, other = tree.flatten(what)
        if callable(what) and (other != structure or found[0] is what):  # a model is no function
            if not _takes_key(what):
                raise OptionError(
                    f"guess={getattr(what, '__name__', what)!s} has no argument named key, and "
                    f"guesses are called as guess(*arguments of the loss, key=key). Add key, used "
                    f"or not."
                )
            what = what(*target.args, key=target.key.fold_in("guess"))
        listed = isinstance(what, list) and tree.flatten(what)[1] != structure
        if listed and not what:
            raise OptionError("guess=[] has no direction; give one or more.")
        rows = []
        for direction in what if listed else [what]:
            row = tree.leaves_like(direction, structure, "a guess and params")
            row = [v for x, v in zip(leaves, row, strict=True) if tree.is_floating(x)]
            for (path, x), v in zip(target.leaves, row, strict=True):
                if v is None or np.shape(v) != np.shape(x):
                    raise ShapeError(
                        f"parameter {path!r} has shape {np.shape(x)} and the guess "
                        f"{v if v is None else np.shape(v)}. Give directions like params."
                    )
                if dtype_of(v).kind == "c" and x.dtype.kind != "c":
                    raise DtypeError(
                        f"parameter {path!r} is real, and the guess has dtype {dtype_of(v)}. Give "
                        f"real directions."
                    )
            rows.append(row)
        return rows

    def __repr__(self) -> str:
        return "guess(...)"


def _takes_key(function: Callable) -> bool:
    """Tell whether key= may be given; of functions written in C it is not known."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return "key" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


@dataclasses.dataclass(frozen=True, repr=False)
class Sum(Directions):
    """The directions of each part in turn; each part has a key of its own."""

    terms: tuple[Directions, ...]

    @property
    def parts(self) -> tuple[Directions, ...]:
        return self.terms

    def prepare(self, target: Target, k: int) -> tuple[int, Draw]:
        prepared = [
            part.prepare(target._replace(key=target.key.fold_in(place)), 1)
            for place, part in enumerate(self.terms)
        ]
        ends = list(itertools.accumulate(number for number, _ in prepared))

        def draw(numbers: tuple[int, int]) -> list:
            pieces = []
            for (number, draw_part), end in zip(prepared, ends, strict=True):
                first = max(numbers[0] - (end - number), 0)
                last = min(numbers[1] - (end - number), number)
                if first < last:
                    pieces.append(draw_part((first, last)))
            return [np.concatenate(column) for column in zip(*pieces, strict=True)]

        return ends[-1], draw

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms))


rademacher, normal, orthogonal, basis = (Random(name) for name in FAMILIES)
guess = Guess


def check(distribution: Any, directions: int = 1, structure: str = "dense") -> Directions:
    """Return a distribution, a name or a value, as a value that goes with the other two options.

    Raises:
        OptionError: no such name; or the value has a number and so has `directions`; or it has no
        directions in factors, and structure is "rank1".
    """
    if isinstance(distribution, Directions):
        value = distribution
    else:
        if isinstance(distribution, str) and distribution in (*JOINT, "guess"):
            call = "guess(...)" if distribution == "guess" else distribution
            raise OptionError(
                f"distribution={distribution!r}: by name there are {' and '.join(DISTRIBUTIONS)} "
                f"alone. Give the value dg.directions.{call}."
            )
        choice("distribution", distribution, DISTRIBUTIONS)
        value = Random(distribution)
    choice("structure", structure, STRUCTURES)
    own = value.number or not isinstance(value, Random)
    if own and directions != 1:
        raise OptionError(
            f"directions={directions!r} and distribution={value!r} both say how many directions. "
            f"Leave directions out: a sum has the numbers of its parts (one where a part says "
            f"none), as 3 * normal + 2 * basis."
        )
    if structure == "rank1" and getattr(value, "name", None) not in DISTRIBUTIONS:
        raise OptionError(
            f'structure="rank1" goes with rademacher or normal alone, not with distribution='
            f"{value!r}. Leave structure out."
        )
    return value


def draw(
    key: Key, params: tree.Tree, directions: int | tuple[int, int] = 1, *,
    distribution: str | Directions = "rademacher", structure: str = "dense",
) -> tree.Tree:  # fmt: skip
    """Return k directions of a tree: its leaves are (k, *shape), the same each time they are drawn.

    Entries are independent with mean 0 and variance 1: +-1 ("rademacher") or "normal"; or what a
    value of this module says. With structure="rank1" a leaf of two or more axes gets an `Outer`,
    whose factors are such entries; its entries have mean 0, variance 1 and are uncorrelated. Static
    leaves get None.

    Args:
        key: the key of this step.
        params: tree; leaves decide shapes and dtypes.
        directions: k, or the range (start, stop) of the directions to draw; left out where the
            value has a number.

    Raises:
        OptionError: an unknown distribution or structure, less than one direction, or more than
        there are.
    """
    check_key(key, "dg.directions.draw")
    ends = directions if isinstance(directions, tuple) else (0, directions)
    whole = all(isinstance(end, (int, np.integer)) for end in ends)
    if not whole or len(ends) != 2 or not 0 <= ends[0] < ends[1]:
        raise OptionError(f"directions={directions!r}; give an int >= 1, or a range (start, stop).")
    numbers = int(ends[0]), int(ends[1])
    value = check(distribution, 1 if isinstance(directions, tuple) else directions, structure)
    leaves, where = tree.flatten(params)
    target = Target(key, floating(params), structure, params, (params,))
    k, drawn = value.prepare(target, numbers[1])
    if not isinstance(directions, tuple):
        numbers = 0, k
    elif numbers[1] > k:
        raise OptionError(f"directions={directions!r}: there are {k} of {value!r}.")
    pieces = iter(drawn(numbers))
    return tree.unflatten(where, [next(pieces) if tree.is_floating(x) else None for x in leaves])


def floating(params: tree.Tree) -> list[tuple[str, Array]]:
    """Return path and array of every floating leaf, in order."""
    return [
        (path, np.asarray(x) if isinstance(x, (float, complex)) else x)
        for path, x in zip(tree.paths(params), tree.leaves(params), strict=True)
        if tree.is_floating(x)
    ]


def second_moment(
    params: tree.Tree, directions: int = 1, *, distribution: str | Directions = "rademacher",
    structure: str = "dense",
) -> float:  # fmt: skip
    """Return E |g|^2 / |gradient|^2 of the mean estimate g: 1 would be the gradient itself.

    It is the same for every gradient, but for rank-1 normal directions of several leaves, where a
    gradient with entries of equal size in all leaves is meant. From that of one direction, m:
    1 + (m - 1) / k if directions are independent. m = d for signs, and normal entries add 2, or for
    a rank-1 leaf of r rows and c columns 2 r + 2 c + 4, weighted by the leaf's share of d.

    That is the moment where one derivative is taken along all of params (scope="global"). Of local
    losses each section has its own: ask for the parameters of a section, a LocalBlock say, alone.
    What they give together is less, and depends on the gradients' lengths.

    Raises:
        OptionError: as `draw`; a guess, whose moment depends on the gradient.
    """
    value = check(distribution, directions, structure)
    target = Target(Key(0), floating(params), structure, params, ())
    total = excess = 0.0
    for part in value.parts:
        if not isinstance(part, Random):
            raise OptionError(f"{value!r}: the second moment of a guess depends on the gradient.")
        k, _ = part.prepare(target, directions)
        single = target.size + _excess(part.name, target)
        moment = target.size / k if part.name in JOINT else 1 + (single - 1) / k
        total, excess = total + k, excess + k**2 * (moment - 1)
    return 1 + excess / total**2


def _excess(name: str, target: Target) -> float:
    """Return E |v|^2 (v . G)^2 / |G|^2 less d, for one direction."""
    if name != "normal":
        return 0.0
    shapes = [x.shape for _, x in target.leaves]
    rank1 = [s for s in shapes if target.structure == "rank1" and len(s) > 1]
    more = sum(math.prod(s) * (2 * math.prod(s[:-1]) + 2 * s[-1] + 2) for s in rank1)
    return 2 + more / target.size


def optimal_scale(
    params: tree.Tree, directions: int = 1, *, distribution: str | Directions = "rademacher",
    structure: str = "dense",
) -> float:  # fmt: skip
    """Return the fixed c for which E |c g - gradient|^2 is least, for the mean estimate g.

    As E[g] is the gradient, it is 1 / second_moment(...), and the error it leaves, relative to
    |gradient|^2, is 1 - c instead of 1/c - 1. On |x - a|^2 / 2 a step c g takes the share c of the
    loss away, and no other fixed size more. Arguments, errors and what it holds for as
    `second_moment`.

    >>> optimal_scale(np.zeros((3, 4)), 2) == 2 / (2 + 12 - 1)  # k / (k + d - 1)
    True
    """
    return 1 / second_moment(params, directions, distribution=distribution, structure=structure)


def estimated_scale(derivatives: np.ndarray, gradient: tree.Tree) -> float:
    """Return the c for which this very c g is nearest to the gradient: mean(d_i^2) / |g|^2.

    No further pass: g = (1/k) sum_i d_i v_i has <g, gradient> = (1/k) sum_i d_i^2. So c g is the
    projection of the gradient on g: for one direction that of combine="projection". Like it, biased
    towards 0: about k/d of the gradient on average.

    Args:
        derivatives: info.derivatives of forward_gradient, (k,): scope="global", no clip, and not of
            local losses, where each section has its own and no number of them is <g, gradient>.
        gradient: its mean estimate g.

    Raises:
        ShapeError: derivatives have other axes than one, as those of local losses.
    """
    if np.ndim(derivatives) != 1:
        shape = np.shape(derivatives)
        raise ShapeError(
            f'derivatives are {shape}, not (k,). Give those of scope="global"; of local losses, '
            f"which have one a section, those of an estimate for one block alone."
        )
    found = [g for g in tree.leaves(gradient) if g is not None]
    norms = [g.norm() if isinstance(g, LowRank) else np.linalg.norm(np.ravel(g)) for g in found]
    square = sum(float(norm) ** 2 for norm in norms)
    return float(np.mean(np.square(derivatives))) / square if square else 0.0
