"""Walk a table of stages on any number of threads, without Python between them.

A table has a row of int64 for each stage: what it is, how many chunks it has, then what its module
declares. Threads take chunks from an atomic counter and go on to the next stage when all chunks of
this one are done; what a chunk computes does not depend on who does it.
"""

import numpy as np

from .. import threads
from ..jit import jit
from .conv import FIELDS, conv_chunk, conv_scratch, pad_chunk
from .draws import PENDING, STEP, draw_chunk
from .filters import filters_chunk, filters_scratch
from .head import cross_entropy_chunk, finish_chunk, head_scratch
from .linear import dot_chunk, linear_chunk, linear_scratch, update_chunk
from .tile import fetch_add, load, pause, store, view
from .winograd import winograd_chunk, winograd_scratch

(DRAW, DOT, LINEAR, UPDATE, CROSS_ENTROPY, FINISH, PAD, FILTERS, CONV, WINOGRAD, MARK) = range(11)

# The fields of a row of `mark_stage`.
(WORDS, COUNT, MARKS, LEAVES) = range(2, 6)

SPINS = 256  # looks at a counter before the CPU is offered to others
LINE = 64  # bytes of a cache line: counters of different stages do not share one

# Bytes of scratch that a chunk of a row needs, given the size of an element; others need none.
SCRATCH = {
    DOT: linear_scratch,
    LINEAR: linear_scratch,
    UPDATE: linear_scratch,
    CROSS_ENTROPY: head_scratch,
    FINISH: head_scratch,
    FILTERS: filters_scratch,
    CONV: conv_scratch,
    WINOGRAD: winograd_scratch,
}


@jit
def _chunk(like, row, chunk, scratch):
    kind = row[0]
    if kind == DRAW:
        draw_chunk(like, row, chunk, scratch)
    elif kind == DOT:
        dot_chunk(like, row, chunk, scratch)
    elif kind == LINEAR:
        linear_chunk(like, row, chunk, scratch)
    elif kind == UPDATE:
        update_chunk(like, row, chunk, scratch)
    elif kind == CROSS_ENTROPY:
        cross_entropy_chunk(like, row, chunk, scratch)
    elif kind == FINISH:
        finish_chunk(like, row, chunk, scratch)
    elif kind == PAD:
        pad_chunk(like, row, chunk, scratch)
    elif kind == FILTERS:
        filters_chunk(like, row, chunk, scratch)
    elif kind == CONV:
        conv_chunk(like, row, chunk, scratch)
    elif kind == WINOGRAD:
        winograd_chunk(like, row, chunk, scratch)
    elif kind == MARK:
        _mark_chunk(row)


def mark_stage(words: int, marks: np.ndarray, leaves: bool) -> np.ndarray:
    """Return the row that ends a program: it notes what is due of each leaf, 1 + a step or 0.

    The stages before it have applied what was due. It runs in the same compiled call, so that an
    interrupt, which Python raises between calls, finds both done or neither.

    Args:
        words: address of the program's words.
        marks: int64 (n,), the address of each leaf's mark; to be kept as long as the row is.
        leaves: whether the step of this program leaves an update, unless words[PENDING] is 0.
    """
    row = np.zeros(FIELDS, np.int64)
    row[: LEAVES + 1] = [MARK, 1, words, len(marks), marks.ctypes.data, leaves]
    return row


@jit
def _mark_chunk(row):
    words = view(np.int64(0), row[WORDS], 8)
    due = words[STEP] + 1 if row[LEAVES] and words[PENDING] else 0
    marks = view(np.int64(0), row[MARKS], row[COUNT])
    for i in range(row[COUNT]):
        view(np.int64(0), marks[i], 1)[0] = due


@jit
def _wait(address, value):
    """Return when the counter at an address has reached a value."""
    looks = 0
    while load(address) != value:
        looks += 1
        if looks > SPINS:
            pause()


@jit(entry=True)
def _run(like, table, sync, base, run, places, scratch, scratch_bytes, leader):
    """Work on a run of a table until all is done; base is the address of the array sync.

    sync: [number of the run that is open or 0, threads inside, places taken], then a line for each
    stage: chunks claimed, chunks done. The leader opens a run and ends it inside this call, so that
    an interrupt, which Python raises between calls, finds a run done or not begun. A helper that
    comes before waits a little; one that comes after its run is over touches nothing else.
    """
    fetch_add(base + 8, 1)
    if leader:
        store(base, run)
    looks = 0
    while looks < SPINS and load(base) != run:
        looks += 1
    if load(base) == run:
        place = fetch_add(base + 16, 1)
        if place < places:
            for stage in range(table.shape[0]):
                row = table[stage]
                counter = base + LINE * (stage + 1)
                while True:
                    chunk = fetch_add(counter, 1)
                    if chunk >= row[1]:
                        break
                    _chunk(like, row, chunk, scratch + place * scratch_bytes)
                    fetch_add(counter + 8, 1)
                _wait(counter + 8, row[1])
    if leader:
        store(base, 0)
        _wait(base + 8, 1)
        sync[2:] = 0
    fetch_add(base + 8, -1)


class Program:
    """A table of stages with the memory to run it.

    Args:
        rows: what the builders of the stages return.
        dtype: of the numbers, float32 or float64.
        kept: arrays that the rows point into.

    Attributes:
        table: int64 (stages, FIELDS); addresses in it may be changed between runs.
    """

    def __init__(self, rows: list[np.ndarray], dtype: np.dtype, kept: list[np.ndarray]) -> None:
        self._kept = kept
        self.table = np.ascontiguousarray(np.stack(rows), np.int64)
        assert self.table.shape[1] == FIELDS
        self.like = dtype.type(0)
        needed = [SCRATCH[row[0]](row, dtype.itemsize) for row in rows if row[0] in SCRATCH]
        self._bytes = max([LINE, *needed]) + LINE & -LINE
        self._places = 0
        self._sync = aligned((len(rows) + 1, LINE // 8), np.int64).reshape(-1)
        self._base = self._sync.ctypes.data
        self._run = 0
        self._forks = threads.forks

    def run(self, parallel: bool) -> None:
        """Run all stages, on the threads of threads.num_threads() or on this one alone."""
        if self._forks != threads.forks:  # a helper may have been inside, and is no more
            self._forks, self._sync[:] = threads.forks, 0
        places = threads.num_threads() if parallel else 1
        if places > self._places:
            self._scratch = aligned((places, self._bytes), np.int8)
            self._places = places
        self._run += 1  # a number of its own, also if an interrupt keeps this run from beginning
        given = (self.like, self.table, self._sync, self._base, self._run, places,
                 self._scratch.ctypes.data, self._bytes)  # fmt: skip
        if places > 1:
            threads.help_with(_run, *given, False)
        _run(*given, True)


def aligned(shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """Return zeros that begin at a cache line."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    room = np.zeros(size + LINE, np.int8)
    start = -room.ctypes.data % LINE
    return room[start : start + size].view(dtype).reshape(shape)


def warm(dtype: np.dtype) -> str | None:
    """Compile the stages for a dtype; return the folder that keeps them, None if there is none."""
    Program([np.zeros(FIELDS, np.int64)], dtype, []).run(parallel=False)
    return _run.stats.cache_path
