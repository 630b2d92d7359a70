"""Levels: which transform call a dual belongs to."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import LevelError


class Level(int):
    """The identity of one transform call: an integer, larger for inner calls, closed on return."""

    name: str
    open: bool
    owner: Any  # the pass of forward_gradient whose level it is (sections.py), else None

    def __new__(cls, number: int, name: str) -> "Level":
        level = super().__new__(cls, number)
        level.name = name
        level.open = True
        level.owner = None
        return level

    @classmethod
    def fresh(cls, name: str) -> "Level":
        """Return an open level above all others, for one call of the transform `name`."""
        return cls(next(_numbers), name)

    def below(self, place: int) -> "Level":
        """Return an open level above this one and below all that `fresh` gives afterwards."""
        return Level(self + place, self.name)

    def __copy__(self) -> "Level":  # a level is an identity: a copied dual stays on it
        return self

    def __deepcopy__(self, memo: dict) -> "Level":
        return self

    def __reduce__(self) -> Any:
        raise LevelError(
            "pickle: a dual belongs to a transform call of this process; it cannot be stored. Keep "
            "dg.primal(x) and x.tangents."
        )

    def check(self, use: str) -> None:
        """Raise LevelError when the transform of this level has returned."""
        if not self.open:
            raise LevelError(
                f"{use}: this dual belongs to level {int(self)}, a call of {self.name} that has "
                f"returned, so its tangent means nothing any more. Return the value from the "
                f"function that {self.name} calls, or keep dg.primal(x) (only repr and dg.primal "
                f"still work)."
            )


ROOM = 1 << 20  # of numbers above each fresh level, for `below`
_numbers = itertools.count(ROOM, ROOM)  # next() on it is atomic: threads never share a level
BY_HAND = Level(0, "dg.dual")


@contextmanager
def new_level(name: str) -> Iterator[Level]:
    """Open a fresh level for one call of the transform `name`, and close it on the way out."""
    level = Level.fresh(name)
    try:
        yield level
    finally:
        level.open = False
