"""Filters before a convolution: the pending update, the new dense directions, their transforms."""

import numpy as np

from ..jit import jit
from .draws import DENSE, FIELDS, RANK1, sign_panel
from .linear import (
    INPUTS,
    KEYS,
    LEFTS,
    OUTPUTS,
    STRUCTURE,
    K,
    V,
    W,
    linear_scratch,
    update_panel,
)
from .tile import PANEL, itemsize, view
from .transforms import POINTS, transform_left, transform_panel

# What a row adds to one of `update_stage`.
(U, U_V, U_LEFT) = range(FIELDS - 3, FIELDS)


def filters_stage(
    kind: int, update: np.ndarray, *, u: int = 0, u_v: int = 0, u_left: int = 0
) -> np.ndarray:
    """Return the row that updates filters, draws their directions and transforms both.

    Args:
        kind: what the driver calls this stage.
        update: a row of `update_stage`: inputs = kernel height * width * channels, outputs = output
            channels, and v wherever they are DENSE.
        u, u_v, u_left: for `winograd_stage`, addresses of the transformed filters, P panels of
            filters_size(channels, 1), and of their directions: k times that if DENSE, and
            (k, 36, channels) if RANK1. 0 for none.

    Raises:
        ValueError: there are transforms to make, and the filters cannot be 3x3 of whole panels.
    """
    taps = int(update[INPUTS])
    if u and taps % (9 * PANEL):
        raise ValueError(
            f"filters_stage: filters of {taps} rows have no transforms. They need 9 * channels "
            f"rows, the channels a multiple of 16: pass u=0, and use conv_stage."
        )
    row = update.copy()
    row[0] = kind
    row[U:] = [u, u_v if row[STRUCTURE] == DENSE else 0, u_left if row[STRUCTURE] == RANK1 else 0]
    row[1] = -(-int(row[OUTPUTS]) // PANEL) + (int(row[K]) if row[U_LEFT] else 0)
    return row


def filters_scratch(row: np.ndarray, itemsize: int) -> int:
    """Return the bytes of scratch that a chunk of a row of `filters_stage` needs."""
    return linear_scratch(row, itemsize)


@jit
def filters_chunk(like, row, chunk, scratch):
    """Prepare panel `chunk`, or transform a left vector where there are no more panels."""
    size, p, taps = itemsize(like), chunk, row[INPUTS]
    panels = (row[OUTPUTS] + PANEL - 1) // PANEL
    channels = taps // 9  # if there is something to transform
    if p >= panels:
        i = p - panels
        target = row[U_LEFT] + size * i * POINTS * channels
        transform_left(like, channels, row[LEFTS] + size * i * taps, target)
        return
    update_panel(like, row, p, scratch)
    whole = POINTS * (channels + 1) * PANEL
    if row[U] != 0:
        w = row[W] + size * p * taps * PANEL
        transform_panel(like, channels, w, row[U] + size * p * whole)
    if row[V] != 0:
        keys = view(np.int64(0), row[KEYS], 2)
        for i in range(row[K]):
            at = i * panels + p
            v = row[V] + size * at * taps * PANEL
            sign_panel(like, v, taps, row[OUTPUTS], keys[0], keys[1], i, p)
            if row[U_V] != 0:
                transform_panel(like, channels, v, row[U_V] + size * at * whole)
