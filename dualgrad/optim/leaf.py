"""What rules do to one parameter, whether its gradient is an array or a LowRank.

Everything runs block by block, so that no temporary has the size of a parameter.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from ..beside import on_device
from ..fuse import fuse
from ..structured import LowRank

Array = Any
BLOCK_BYTES = 1 << 18  # the temporaries of a block stay in the second-level cache


def add_to(w: Array, g: Any, scale: float) -> None:
    """Add scale * g to the array w in place; g is an array or a LowRank of w's shape."""
    if isinstance(g, LowRank) and w.flags.c_contiguous:
        g.add_to(w, scale)
        return

    def update(g, w):
        w += scale * g

    in_blocks(update, g, w)


def accumulate(buffer: Array, g: Any, decay: float) -> None:
    """Set buffer to decay * buffer + g in place; g is an array or a LowRank of its shape."""
    if isinstance(g, LowRank) and buffer.flags.c_contiguous:
        g.accumulate(buffer, decay)
        return

    def update(g, buffer):
        buffer *= decay
        buffer += g

    in_blocks(update, g, buffer)


def in_blocks(update: Callable[..., None], g: Any, *arrays: Array) -> None:
    """Call update(part of g, the same part of each array), which writes into the parts of arrays.

    Args:
        update: entry by entry; on a device it is one kernel, where dg.fuse can make it one.
        g, arrays: as for `blocks`.
    """
    update = fuse(update) if on_device(arrays[0]) else update
    for parts in blocks(g, *arrays):
        update(*parts)


def blocks(g: Any, *arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Yield (a part of g, the same part of each array), the parts of arrays as views to write into.

    Args:
        g: an array, or a LowRank, which is formed whole only if an array is not C-contiguous.
        arrays: arrays of g's shape.
    """
    contiguous = all(array.flags.c_contiguous for array in arrays)
    if on_device(arrays[0] if arrays else g):  # a block would be a launch of its own
        yield (g.dense() if isinstance(g, LowRank) else g, *arrays)
        return
    if isinstance(g, LowRank) and contiguous:
        flat = [array.reshape(-1, array.shape[-1]) for array in arrays]
        for part, block in g.row_blocks():
            yield (block, *(array[part] for array in flat))
        return
    rows = [g.dense() if isinstance(g, LowRank) else g, *arrays]
    if contiguous and rows[0].flags.c_contiguous:
        rows = [array.reshape(-1) for array in rows]
    row_bytes = max(1, math.prod(rows[0].shape[1:]) * rows[0].dtype.itemsize)
    count = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, len(rows[0]), count):
        yield tuple(array[start : start + count] for array in rows)
