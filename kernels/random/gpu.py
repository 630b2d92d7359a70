"""The twins of cpu.py that draw on the device: names and arguments, CUDA kernels come later."""

from typing import Any

Directions = range | tuple[int, int]


def _not_on_gpu(name: str) -> NotImplementedError:
    return NotImplementedError(
        f"{name} has no CUDA kernel: they come in a later release. Draw on the CPU, with the same "
        "bits, and move the result."
    )


def philox(counter: Any, key: Any) -> Any:
    """Return Philox4x32-10 of each counter under the key: uint32, shape (..., 4), as counter."""
    raise _not_on_gpu("philox")


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
    """Return random signs +1 and -1 of shape (k, rows, columns)."""
    raise _not_on_gpu("sign_matrix")


def sign_vector(key: Any, size: int, directions: Directions, role: int, dtype: Any) -> Any:
    """Return random signs +1 and -1 of shape (k, size)."""
    raise _not_on_gpu("sign_vector")


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
    """Return standard normals of shape (k, rows, columns)."""
    raise _not_on_gpu("normal_matrix")


def normal_vector(key: Any, size: int, directions: Directions, role: int, dtype: Any) -> Any:
    """Return standard normals of shape (k, size)."""
    raise _not_on_gpu("normal_vector")


def word_vector(key: Any, size: int, directions: Directions, role: int) -> Any:
    """Return uint32 words of shape (k, size)."""
    raise _not_on_gpu("word_vector")
