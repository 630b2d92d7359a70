"""Random directions in compiled code: docs/directions.md has their bits, random/cpu.py the twin.

A key is two words in int64. The 128 signs of a Philox block are eight rows of a panel, or 128
entries of a vector: panel c of a matrix is the vector of its K * 16 entries with c as counter 1.
"""

import hashlib

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..jit import jit
from ..random.cpu import LEFT, MATRIX, NORMAL, RIGHT, VECTOR
from ..special.cpu import _ndtri_loops
from .tile import PANEL, _splat, itemsize, view

FIELDS = 56  # int64 entries of a row

# How the directions of a leaf are held, and what their entries are.
NONE, RANK1, DENSE = range(3)
RADEMACHER, NORMALS = range(2)

# The entries of the words of a program.
KEY_LOW, KEY_HIGH, STEP, PENDING, ERROR = range(5)

# The fields of a row of `draw_stage`, and of a leaf in its table.
(WORDS, LEAVES) = range(2, 4)
(DIGEST, KEYS, STRUCTURE, DISTRIBUTION, K, ROWS, COLUMNS, LEFTS, RIGHTS, VECTORS) = range(10)
LEAF_FIELDS = 10

_I64 = ir.IntType(64)
_BLOCKS = 32  # Philox blocks computed at a time, on vectors
_BLOCK = 128  # signs of a block
_FOLD_INTEGER, _FOLD_STRING = 64, 65


def digest(text: str) -> int:
    """Return the 64 bits that stand for text in `Key.fold_in`, as an int64."""
    octets = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(octets, "little", signed=True)


_DIRECTIONS = digest("directions")


def leaf_draw(
    path: str,
    *,
    keys: int,
    structure: int = NONE,
    distribution: int = RADEMACHER,
    k: int,
    rows: int = 0,
    columns: int,
    lefts: int = 0,
    rights: int = 0,
    vectors: int = 0,
) -> np.ndarray:
    """Return what `draw_stage` has to know of a leaf, int64 of shape (LEAF_FIELDS,).

    Buffers hold what this step draws and after it what the previous step drew, so each is twice as
    large as k directions; leaves may share them, one after the other. P is a sixteenth of the
    columns, rounded up.

    Args:
        path: of the leaf in the parameters, such as "layers/0/weight".
        keys: address of int64 (2, 2), the leaf's key in this and in the previous step.
        structure: RANK1 for a matrix with lefts and rights, DENSE for one whose key is enough, NONE
            for a vector.
        distribution: RADEMACHER or NORMALS.
        k: number of directions.
        rows, columns: of the matrix; a vector's entries are columns.
        lefts: address of (2, k, rows), if RANK1.
        rights: address of (2, k, P * 16), zero beyond the columns, if RANK1.
        vectors: address of (2, k, P * 16), zero beyond the columns, if NONE.
    """
    leaf = np.zeros(LEAF_FIELDS, np.int64)
    leaf[DIGEST], leaf[KEYS] = digest(path), keys
    leaf[STRUCTURE], leaf[DISTRIBUTION] = structure, distribution
    leaf[K], leaf[ROWS], leaf[COLUMNS] = k, rows, columns
    leaf[LEFTS], leaf[RIGHTS], leaf[VECTORS] = lefts, rights, vectors
    return leaf


def draw_stage(kind: int, *, words: int, table: np.ndarray) -> np.ndarray:
    """Return the row that draws the directions of all leaves for the step in words, one a chunk.

    Args:
        kind: what the driver calls this stage.
        words: address of the program's words.
        table: int64 (leaves, LEAF_FIELDS), rows of `leaf_draw`; to be kept as long as the row is.

    Raises:
        ValueError: table is not such an array.
    """
    if table.dtype != np.int64 or table.shape[1:] != (LEAF_FIELDS,) or not table.flags.c_contiguous:
        raise ValueError(
            f"draw_stage: the table is {table.dtype} of shape {table.shape}. Stack the results of "
            f"leaf_draw: int64 (leaves, {LEAF_FIELDS}), C-contiguous."
        )
    row = np.zeros(FIELDS, np.int64)
    row[:4] = [kind, len(table), words, table.ctypes.data]
    return row


@jit
def draw_chunk(like, row, chunk, scratch):
    """Draw for leaf number `chunk`: this step's directions and, again, those of the step before."""
    words = view(np.int64(0), row[WORDS], 8)
    leaf = view(np.int64(0), row[LEAVES] + 8 * LEAF_FIELDS * chunk, LEAF_FIELDS)
    keys = view(np.int64(0), leaf[KEYS], 4)
    padded = (leaf[COLUMNS] + PANEL - 1) // PANEL * PANEL
    for ago in range(2):
        low, high = fold(words[KEY_LOW], words[KEY_HIGH], words[STEP] - ago, _FOLD_INTEGER)
        low, high = fold(low, high, _DIRECTIONS, _FOLD_STRING)
        keys[2 * ago], keys[2 * ago + 1] = fold(low, high, leaf[DIGEST], _FOLD_STRING)
        if leaf[STRUCTURE] == RANK1:
            _draw(like, leaf, ago, leaf[LEFTS], leaf[ROWS], leaf[ROWS], LEFT)
            _draw(like, leaf, ago, leaf[RIGHTS], leaf[COLUMNS], padded, RIGHT)
        elif leaf[STRUCTURE] == NONE:
            _draw(like, leaf, ago, leaf[VECTORS], leaf[COLUMNS], padded, VECTOR)


@jit
def _draw(like, leaf, ago, address, n, padded, role):
    """Draw n entries of each of k vectors of `padded` entries, the others zero."""
    size, k = itemsize(like), leaf[K]
    keys = view(np.int64(0), leaf[KEYS] + 16 * ago, 2)
    for i in range(k):
        place = address + size * (ago * k + i) * padded
        if leaf[DISTRIBUTION] == RADEMACHER:
            signs(like, place, n, keys[0], keys[1], 0, i, role, 0xFFFF)
        else:
            normals(like, place, n, keys[0], keys[1], i, role + NORMAL)
        entries = view(like, place, padded)
        for j in range(n, padded):
            entries[j] = like


def _philox(builder, counter, key):
    """Emit Philox on i64 values or vectors of them, of which the low 32 bits count; four results.

    In 64 bits a product needs no widening: one instruction multiplies the low halves of all lanes.
    Source: as in random/cpu.py.
    """
    kind = counter[0].type

    def number(value):
        lanes = [value] * kind.count if isinstance(kind, ir.VectorType) else value
        return ir.Constant(kind, lanes)

    def product(x, factor):
        return builder.mul(builder.and_(x, number(0xFFFFFFFF)), number(factor))

    def high(x):
        return builder.lshr(x, number(32))

    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = product(c0, 0xD2511F53), product(c2, 0xCD9E8D57)
        c0, c1 = builder.xor(builder.xor(high(p1), c1), k0), p1
        c2, c3 = builder.xor(builder.xor(high(p0), c3), k1), p0
        k0, k1 = builder.add(k0, number(0x9E3779B9)), builder.add(k1, number(0xBB67AE85))
        k0, k1 = builder.and_(k0, number(0xFFFFFFFF)), builder.and_(k1, number(0xFFFFFFFF))
    return [builder.and_(c, number(0xFFFFFFFF)) for c in (c0, c1, c2, c3)]


@intrinsic
def fold(typing, low, high, number, role):
    """Return the two words of the key (low, high) folded with a number, the bits of an int64."""
    result = types.UniTuple(types.int64, 2)

    def emit(context, builder, signature, arguments):
        low, high, number, role = arguments
        top = builder.lshr(number, ir.Constant(_I64, 32))
        words = _philox(builder, (number, top, ir.Constant(_I64, 0), role), (low, high))
        return context.make_tuple(builder, result, words[:2])

    return result(*[types.int64] * 4), emit


@intrinsic
def _eight_blocks(typing, words, first, c1, direction, role, low, high):
    """Write the blocks of eight counters from `first` on, as `_blocks` does."""

    def emit(context, builder, signature, arguments):
        words, first, *rest = arguments
        vector = ir.VectorType(_I64, 8)
        c0, c1, c2, c3, low, high = (_splat(builder, value, vector) for value in (first, *rest))
        c0 = builder.add(c0, ir.Constant(vector, list(range(8))))
        for q, lanes in enumerate(_philox(builder, (c0, c1, c2, c3), (low, high))):
            narrow = ir.VectorType(ir.IntType(32), 8)
            place = builder.add(words, ir.Constant(_I64, 4 * _BLOCKS * q))
            place = builder.inttoptr(place, narrow.as_pointer())
            builder.store(builder.trunc(lanes, narrow), place).align = 4
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), emit


@jit
def _blocks(words, n, first, c1, direction, role, low, high):
    """Write n <= _BLOCKS blocks, or up to 7 more, of the counters from `first` on.

    words: address of uint32 (4, _BLOCKS), the words of a block in a column.
    """
    for i in range(0, n, 8):
        _eight_blocks(words + 4 * i, first + i, c1, direction, role, low, high)


@intrinsic
def _stack(typing):
    """Return the address of 1024 bytes of the stack, which live as long as the caller."""

    def emit(context, builder, signature, arguments):
        place = cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(8), 1024))
        place.align = 64
        return builder.ptrtoint(place, ir.IntType(64))

    return types.int64(), emit


@intrinsic
def _store_signs(typing, like, address, bits, mask):
    """Write 16 entries: -1 where the bit is 1, else +1, and 0 where the bit of mask is 0."""

    def emit(context, builder, signature, arguments):
        _, address, bits, mask = arguments
        lane = context.get_value_type(like)
        vector, flags = ir.VectorType(lane, PANEL), ir.VectorType(ir.IntType(1), PANEL)

        def flag(value):
            return builder.bitcast(builder.trunc(value, ir.IntType(PANEL)), flags)

        plus, minus = (ir.Constant(vector, [x] * PANEL) for x in (1.0, -1.0))
        entries = builder.select(flag(bits), minus, plus)
        entries = builder.select(flag(mask), entries, ir.Constant(vector, None))
        place = builder.inttoptr(address, vector.as_pointer())
        builder.store(entries, place).align = like.bitwidth // 8
        return context.get_dummy_value()

    return types.void(like, types.int64, types.int64, types.int64), emit


@jit
def signs(like, address, n, low, high, c1, direction, role, mask):
    """Write n signs under a key; each run of 16 is 0 where the bit of mask is."""
    size = itemsize(like)
    place = _stack()
    words = view(np.uint32(0), place, 4 * _BLOCKS)
    for first in range(0, n, _BLOCK * _BLOCKS):
        here = min(n - first, _BLOCK * _BLOCKS)
        blocks = (here + _BLOCK - 1) // _BLOCK
        _blocks(place, blocks, first // _BLOCK, c1, direction, role, low, high)
        for i in range(here // PANEL):  # eight runs in a block, two in a word
            bits = np.int64(words[(i >> 1 & 3) * _BLOCKS + (i >> 3)]) >> (16 * (i & 1))
            _store_signs(like, address + size * (first + i * PANEL), bits, mask)
        left = here % PANEL
        if left:
            i = here // PANEL
            bits = np.int64(words[(i >> 1 & 3) * _BLOCKS + (i >> 3)]) >> (16 * (i & 1))
            run = _stack()
            _store_signs(like, run, bits, mask)
            entries = view(like, address + size * (first + i * PANEL), left)
            for j in range(left):
                entries[j] = view(like, run, PANEL)[j]


@jit
def sign_panel(like, v, n, columns, low, high, direction, panel):
    """Write rows 0 .. n - 1 of a panel of a dense direction: (n, 16), 0 beyond the columns.

    Args:
        v: address.
        columns: of the whole matrix.
        low, high: the leaf's key.
        direction, panel: indices.
    """
    here = min(columns - panel * PANEL, PANEL)
    signs(like, v, n * PANEL, low, high, panel, direction, MATRIX, (1 << here) - 1)


_ndtri = jit(_ndtri_loops.function, fastmath=False)  # reassociated sums would give other bits


@jit
def normals(like, address, n, low, high, direction, role):
    """Write n standard normals under a key, role among them: those of `normal_vector`."""
    place = _stack()
    words = view(np.uint32(0), place, 4 * _BLOCKS)
    u = view(np.float64(0), _stack(), 4 * _BLOCKS)
    z = view(np.float64(0), _stack(), 4 * _BLOCKS)
    entries = view(like, address, n)
    for first in range(0, n, 4 * _BLOCKS):
        here = min(n - first, 4 * _BLOCKS)
        _blocks(place, (here + 3) // 4, first // 4, 0, direction, role, low, high)
        for i in range(here):
            u[i] = (np.float64(words[(i & 3) * _BLOCKS + (i >> 2)]) + 0.5) * 2.0**-32
        _ndtri(u[:here], z[:here])
        for i in range(here):
            entries[first + i] = z[i]
