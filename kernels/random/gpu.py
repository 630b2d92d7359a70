"""The twins of cpu.py on the device: the same words, drawn straight into the arrays asked for.

A key may also lie on the device, as a uint32 array of shape (2,): the kernels then read it there,
so that a captured graph draws anew when it has changed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import cuda
from .cpu import Directions, _span

THREADS = 128
SIGN_BLOCKS, NORMAL_BLOCKS = 32, 128  # Philox blocks of a tile, as in random.cu

_words = cuda.Source("random/words", dtypes=None, parts=("random/philox.cuh",))
_source = cuda.Source("random", parts=("random/philox.cuh", "special/ndtri.cuh"))


def philox(counter: Any, key: Any) -> Any:
    """Return Philox4x32-10 of each counter under the key: uint32, shape (..., 4), as counter."""
    counter = cuda.contiguous(cuda.cupy().asarray(counter, np.uint32))
    words = cuda.empty(counter.shape, np.uint32)
    blocks = counter.size // 4
    grid = cuda.blocks(blocks, THREADS)
    _words.launch("philox_words", None, grid, THREADS, counter, *_key_numbers(key), words, blocks)
    return words


def sign_matrix(
    key: Any,
    rows: int,
    columns: int,
    directions: Directions,
    role: int,
    dtype: Any,
    *,
    first: tuple[int, int] = (0, 0),
) -> Any:
    """Return random signs +1 and -1 of shape (k, rows, columns); arguments as on the CPU.

    Raises:
        ValueError: first is not aligned to blocks.
        TypeError: dtype is none of float16, float32 and float64.
    """
    c0, c1 = _span(first[0], rows, 8), _span(first[1], columns, 16)
    return _matrix("draw_signs", key, (rows, columns), directions, role, dtype, first,
                   (len(c0), len(c1)), SIGN_BLOCKS)  # fmt: skip


def sign_vector(key: Any, size: int, directions: Directions, role: int, dtype: Any) -> Any:
    """Return random signs +1 and -1 of shape (k, size); arguments as on the CPU."""
    return _vector(_source.launch, "draw_vector_signs", key, size, directions, role, dtype)


def normal_matrix(
    key: Any,
    rows: int,
    columns: int,
    directions: Directions,
    role: int,
    dtype: Any,
    *,
    first: tuple[int, int] = (0, 0),
) -> Any:
    """Return standard normals of shape (k, rows, columns), the CPU's; arguments as on the CPU.

    Raises:
        ValueError: first is not aligned to blocks.
        TypeError: dtype is none of float16, float32 and float64.
    """
    _span(first[1], columns, 16)
    size = rows, -(-columns // 4)
    return _matrix("draw_normals", key, (rows, columns), directions, role, dtype, first, size,
                   NORMAL_BLOCKS, 0)  # fmt: skip


def normal_vector(key: Any, size: int, directions: Directions, role: int, dtype: Any) -> Any:
    """Return standard normals of shape (k, size), the CPU's; arguments as on the CPU."""
    drawn = _matrix("draw_normals", key, (1, size), directions, role, dtype, (0, 0),
                    (1, -(-size // 4)), NORMAL_BLOCKS, 1)  # fmt: skip
    return drawn.reshape(len(drawn), size)


def word_vector(key: Any, size: int, directions: Directions, role: int) -> Any:
    """Return uint32 words of shape (k, size); arguments as on the CPU."""
    return _vector(_words.launch, "vector_words", key, size, directions, role, None)


def _vector(
    launch: Callable, kernel: str, key: Any, size: int, directions: Directions, role: int,
    dtype: Any,
) -> Any:  # fmt: skip
    k, start, step = _direction_numbers(directions)
    y = cuda.empty((k, size), np.uint32 if dtype is None else dtype)
    grid = cuda.blocks(y.size, THREADS)
    launch(kernel, dtype, grid, THREADS, *_key_numbers(key), y, k, size, start, step, role)
    return y


def _matrix(
    kernel: str, key: Any, shape: tuple[int, int], directions: Directions, role: int, dtype: Any,
    first: tuple[int, int], blocks: tuple[int, int], tile: int, *more: int,
) -> Any:  # fmt: skip
    """Draw (k, *shape), whose matrices are blocks[0] by blocks[1] Philox blocks, by tiles of them.

    A tile is as wide as the matrix, where that is not wider than 32 Philox blocks.
    """
    k, start, step = _direction_numbers(directions)
    y = cuda.empty((k, *shape), dtype)
    wide = min(32, 1 << max(0, blocks[1] - 1).bit_length())
    down, across = -(-blocks[0] // (tile // wide)), -(-blocks[1] // wide)
    _source.launch(kernel, dtype, k * down * across, THREADS, *_key_numbers(key), y, *shape, *first,
                   start, step, role, wide, down, across, *more)  # fmt: skip
    return y


def _key_numbers(key: Any) -> tuple[Any, int, int]:
    """Return a key as a device array or None, and as two numbers that count where it is None."""
    if hasattr(key, "__cuda_array_interface__"):
        return key, 0, 0
    first, second = (int(word) for word in key)
    return None, first, second


def _direction_numbers(directions: Directions) -> tuple[int, int, int]:
    """Return k, the index of the first direction and the step to the next."""
    indices = directions if isinstance(directions, range) else range(*directions)
    return len(indices), indices.start, indices.step
