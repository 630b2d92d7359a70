"""The launch of a kernel on rows, by a warp or a block for each, as the row is long."""

import math
from typing import Any

from .. import cuda

WARP_COLUMNS = 1024  # up to here a warp takes a row, beyond a block
TOGETHER = 4  # directions that cross_entropy_tangents takes at once

_source = cuda.Source("softmax", parts=("rows.cuh",))


def launch(name: str, x: Any, groups: int, *arguments: Any, last: tuple[int, ...] = ()) -> None:
    columns = x.shape[-1]
    rows = math.prod(x.shape[:-1])
    warp = columns <= WARP_COLUMNS
    kind, block, together = ("warp", (32, 8), 8) if warp else ("block", (256, 1), 1)
    grid = cuda.blocks(rows, together), groups
    _source.launch(
        f"{name}_{kind}", x.dtype, grid, block, cuda.contiguous(x), *arguments, rows, columns, *last
    )
