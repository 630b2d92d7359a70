"""Random words, signs and normals addressed by counters; docs/directions.md has the map of bits.

Every function gives the entries of the directions asked for, whole or from a row and column on; the
same entry has the same value however it is asked for.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..dispatch import loading_pays
from ..jit import jit
from ..special.cpu import ndtri

# The role word of a counter: what the numbers are for. Normals add NORMAL, so that they never share
# words with signs. Roles from 32 on belong to dualgrad.random.
MATRIX, LEFT, RIGHT, VECTOR, ACTIVITY = range(5)
NORMAL = 16

FEW = 8  # blocks up to which Python's integers are faster than arrays
CHUNK = 1 << 13  # blocks NumPy works on at a time, so that temporaries stay in the cache

Directions = range | tuple[int, int]

_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint32)
_WEYL = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint32)
_LITTLE = np.dtype("<u4")  # the byte order in which words are cut into halves and bytes


def philox(counter: Any, key: Any) -> np.ndarray:
    """Return Philox4x32-10 of each counter under the key: uint32, shape (..., 4), as counter.

    Args:
        counter: uint32 of shape (..., 4).
        key: uint32 of shape (2,).

    Source: J. K. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.
    """
    counter = np.asarray(counter, np.uint32)
    words = _philox(np.ascontiguousarray(counter.reshape(-1, 4).T), key)
    return np.ascontiguousarray(words.T).reshape(counter.shape)


def _philox(counters: np.ndarray, key: Any) -> np.ndarray:
    """Return the words of counters, both uint32 of shape (4, blocks)."""
    first, second = (int(word) for word in key)
    words = np.empty_like(counters)
    if counters.shape[1] <= FEW:
        for i, counter in enumerate(counters.T.tolist()):
            words[:, i] = _philox_integers(counter, first, second)
        return words
    if loading_pays("philox", counters.shape[1]):
        _compiled_philox()(counters, np.uint32(first), np.uint32(second), words)
        return words
    start = np.array([[first], [second]], np.uint32)
    keys = [start + _WEYL * np.uint32(i) for i in range(10)]  # modulo 2**32
    for i in range(0, counters.shape[1], CHUNK):
        _rounds(counters[:, i : i + CHUNK], keys, words[:, i : i + CHUNK])
    return words


def _philox_integers(counter: list[int], key0: int, key1: int) -> list[int]:
    """`_philox` of one counter in Python integers: fourteen times faster than one in arrays."""
    c0, c1, c2, c3 = counter
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c2 = p1 >> 32 ^ c1 ^ key0, p0 >> 32 ^ c3 ^ key1
        c1, c3 = p1 & 0xFFFFFFFF, p0 & 0xFFFFFFFF
        key0, key1 = key0 + 0x9E3779B9 & 0xFFFFFFFF, key1 + 0xBB67AE85 & 0xFFFFFFFF
    return [c0, c1, c2, c3]


def _rounds(counters: np.ndarray, keys: list[np.ndarray], words: np.ndarray) -> None:
    low, high = (slice(0, None, 2), slice(1, None, 2))[:: 1 if _LITTLE.isnative else -1]
    even, odd = counters[0::2], counters[1::2]  # (2, blocks): words 0 and 2, words 1 and 3
    for pair in keys:
        product = np.multiply(even, _MULTIPLIERS, dtype=np.uint64)[::-1]
        halves = product.view(np.uint32)
        even, odd = halves[:, high] ^ odd ^ pair, halves[:, low]
    words[0::2], words[1::2] = even, odd


def _philox_loops(counters, key0, key1, words):
    """`_philox` in numba's loops. Every operation is cast, or numba would widen it to 64 bits."""
    shift = np.uint64(32)
    for i in range(counters.shape[1]):
        c0, c1, c2, c3 = counters[0, i], counters[1, i], counters[2, i], counters[3, i]
        k0, k1 = key0, key1
        for _ in range(10):
            p0 = np.uint64(c0) * np.uint64(0xD2511F53)
            p1 = np.uint64(c2) * np.uint64(0xCD9E8D57)
            c0 = np.uint32(np.uint32(p1 >> shift) ^ c1 ^ k0)
            c2 = np.uint32(np.uint32(p0 >> shift) ^ c3 ^ k1)
            c1, c3 = np.uint32(p1), np.uint32(p0)
            k0 = np.uint32(k0 + np.uint32(0x9E3779B9))
            k1 = np.uint32(k1 + np.uint32(0xBB67AE85))
        words[0, i], words[1, i], words[2, i], words[3, i] = c0, c1, c2, c3


@functools.cache
def _compiled_philox() -> Callable[..., None]:
    import numba

    word, array = numba.types.uint32, numba.types.Array
    arrays = [array(word, 2, "C", readonly=True), word, word, array(word, 2, "C")]
    signature = numba.types.void(*arrays)
    return jit(_philox_loops, entry=True, fastmath=False, signatures=[signature])


def _blocks(key: Any, c0: range, c1: range, directions: Directions, role: int) -> np.ndarray:
    """Return the words of all counters (c0, c1, direction, role): (4, k, len(c0), len(c1))."""
    indices = directions if isinstance(directions, range) else range(*directions)
    counters = np.empty((4, len(indices), len(c0), len(c1)), np.uint32)
    counters[0] = np.arange(c0.start, c0.stop, dtype=np.uint32)[:, None]
    counters[1] = np.arange(c1.start, c1.stop, dtype=np.uint32)
    counters[2] = np.array(indices, np.uint32)[:, None, None]
    counters[3] = role
    return _philox(counters.reshape(4, -1), key).reshape(counters.shape)


def _span(first: int, size: int, step: int) -> range:
    """Return the indices of the blocks of `step` entries that hold entries first, first + 1, ..."""
    if first % step:
        raise ValueError(f"a panel begins at entry {first}; it must be a multiple of {step}.")
    return range(first // step, -(-(first + size) // step))


@functools.cache
def _signs_of_byte(dtype: np.dtype) -> np.ndarray:
    """Return (256, 8): entry (b, j) is -1 where bit j of b is set, else +1."""
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    return (1 - 2 * bits).astype(dtype)


def _signs(octets: np.ndarray, size: int, dtype: Any) -> np.ndarray:
    """Return the first `size` signs of each line of bytes: (..., bytes) to (..., size)."""
    # mode="clip" drops the test of each index, which a byte cannot fail: nine times faster.
    signs = _signs_of_byte(np.dtype(dtype)).take(octets, axis=0, mode="clip")
    signs = signs.reshape(*octets.shape[:-1], 8 * octets.shape[-1])
    return np.ascontiguousarray(signs[..., :size])


def _normals(words: np.ndarray, dtype: Any) -> np.ndarray:
    """Return ndtri((word + 1/2) / 2**32) in words' shape, computed in float64."""
    flat = np.ascontiguousarray(words).reshape(-1)
    normals = np.empty(flat.size, dtype)
    for start in range(0, flat.size, 1 << 16):  # so that no float64 copy of the whole is made
        part = flat[start : start + (1 << 16)]
        normals[start : start + (1 << 16)] = ndtri((part + 0.5) * 2.0**-32)
    return normals.reshape(words.shape)


def sign_matrix(
    key: Any,
    rows: int,
    columns: int,
    directions: Directions,
    role: int,
    dtype: Any,
    *,
    first: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Return random signs +1 and -1 of shape (k, rows, columns), one matrix for each direction.

    Args:
        key: uint32 of shape (2,), the leaf's key.
        rows, columns: size of each matrix, or of the panel of it that begins at `first`.
        directions: k direction indices, as a range or as (start, stop).
        role: MATRIX, ACTIVITY, or another role word below 2**32.
        dtype: of the result.
        first: row and column where the panel begins, multiples of 8 and of 16.

    Raises:
        ValueError: first is not aligned to blocks.
    """
    c0, c1 = _span(first[0], rows, 8), _span(first[1], columns, 16)
    words = _blocks(key, c0, c1, directions, role).astype(_LITTLE, copy=False)
    halves = words.view("<u2").reshape(*words.shape, 2)  # (4, k, c0, c1, 2)
    lines = np.ascontiguousarray(halves.transpose(1, 2, 0, 4, 3))  # (k, c0, 4, 2, c1)
    lines = lines.reshape(words.shape[1], 8 * len(c0), len(c1))[:, :rows]
    return _signs(lines.view(np.uint8), columns, dtype)


def sign_vector(key: Any, size: int, directions: Directions, role: int, dtype: Any) -> np.ndarray:
    """Return random signs +1 and -1 of shape (k, size); key, directions, dtype as in sign_matrix.

    Args:
        role: LEFT, RIGHT, VECTOR, or another role word below 2**32.
    """
    words = _blocks(key, _span(0, size, 128), range(1), directions, role)
    lines = np.ascontiguousarray(_lines(words)).astype(_LITTLE, copy=False)
    return _signs(lines.view(np.uint8), size, dtype)


def normal_matrix(
    key: Any,
    rows: int,
    columns: int,
    directions: Directions,
    role: int,
    dtype: Any,
    *,
    first: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Return standard normals of shape (k, rows, columns); arguments as in sign_matrix.

    Each is the normal quantile of one 32-bit word, so at most 6.3 in size: computed in float64 and
    then rounded to dtype. The panel's first column is a multiple of 16.

    Raises:
        ValueError: first is not aligned to blocks.
    """
    _span(first[1], columns, 16)
    c1 = _span(first[1], columns, 4)
    words = _blocks(key, _span(first[0], rows, 1), c1, directions, role + NORMAL)
    lines = words.transpose(1, 2, 3, 0).reshape(words.shape[1], rows, 4 * len(c1))
    return _normals(lines[..., :columns], dtype)


def normal_vector(key: Any, size: int, directions: Directions, role: int, dtype: Any) -> np.ndarray:
    """Return standard normals of shape (k, size), as normal_matrix; arguments as in sign_vector."""
    return _normals(word_vector(key, size, directions, role + NORMAL), dtype)


def word_vector(key: Any, size: int, directions: Directions, role: int) -> np.ndarray:
    """Return the uint32 words, shape (k, size): entry i is word i % 4 of block i // 4."""
    words = _blocks(key, _span(0, size, 4), range(1), directions, role)
    return np.ascontiguousarray(_lines(words)[:, :size])


def _lines(words: np.ndarray) -> np.ndarray:
    """Return (4, k, blocks, 1) words in the order of their entries: (k, 4 * blocks)."""
    return words[..., 0].transpose(1, 2, 0).reshape(words.shape[1], 4 * words.shape[2])
