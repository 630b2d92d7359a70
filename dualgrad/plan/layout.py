"""What a plan is made of: its settings, stacked buffers, and segments of stages."""

from typing import Any, NamedTuple

import numpy as np

from ..trace import Ref


class Settings(NamedTuple):
    """What of a training step's options a plan has to know; k = 0 gives the loss alone."""

    k: int
    distribution: str
    structure: str
    clip: float | None
    precision: str


class Rows(NamedTuple):
    """A stacked activation (1 + k, n, ld), of which the first `columns` of a row count."""

    array: np.ndarray
    columns: int

    def views(self) -> tuple[np.ndarray, np.ndarray]:
        return self.array[0, :, : self.columns], self.array[1:, :, : self.columns]


class Images(NamedTuple):
    """A stacked activation (1 + k, n, h, w, c), inside a zero border that begins at `corner`."""

    array: np.ndarray
    corner: tuple[int, int]
    height: int
    width: int

    def inside(self) -> np.ndarray:
        top, left = self.corner
        return self.array[:, :, top : top + self.height, left : left + self.width]

    def views(self) -> tuple[np.ndarray, np.ndarray]:
        return self.inside()[0], self.inside()[1:]

    def strides(self) -> tuple[int, ...]:
        """Return the strides in elements: block, image, row, pixel."""
        return tuple(s // self.array.itemsize for s in self.array.strides[:4])

    def address(self, inside: bool) -> int:
        return (self.inside() if inside else self.array).ctypes.data


class Segment(NamedTuple):
    """Stages that run without Python between them."""

    program: Any
    patches: dict[tuple[Ref, np.dtype], list[tuple[int, int]]]  # where addresses of values go
    gathers: list[tuple[Ref, np.ndarray]]  # values of plain steps, to be stacked
    results: list[Ref]  # of which plain steps or the outputs read views
