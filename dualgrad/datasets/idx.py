"""The IDX format of the MNIST family: a header of magic number and shape, then bytes."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import DataError
from . import files

Pair = tuple[np.ndarray, np.ndarray]  # images and labels

_UNSIGNED_BYTE = 0x08


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """Return the read-only uint8 array that an uncompressed IDX file holds.

    Raises:
        DataError: the header is not that of an IDX file of bytes, or the length does not fit it;
            `name` says in the message which file this was.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE:
        raise DataError(
            f"{name}: not an IDX file of unsigned bytes (it begins with {content[:4].hex(' ')!r}, "
            f"expected '00 00 08' and the number of axes). Get the official file."
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(
            f"{name}: the IDX header ends after {len(content)} of {start} bytes. "
            f"Get the file again."
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", content[3], offset=4))
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"{name}: the IDX header announces {shape} = {math.prod(shape)} bytes, "
            f"{len(content) - start} follow. Get the file again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def load_idx(folder: Path, digests: Mapping[str, str]) -> tuple[Pair, Pair]:
    """Return the training and the test pair of the MNIST family's four files, verified.

    Args:
        folder: where the files lie, gzipped or not.
        digests: the SHA-256 of each file's uncompressed content, by file name.

    Returns:
        Twice the images, float32 (N, h, w, 1) in [0, 1], and the labels, int64 (N,).

    Raises:
        DataError: a file is missing, truncated or altered.
    """
    contents = files.read_verified(folder, digests)
    arrays = {name: parse_idx(content, str(folder / name)) for name, content in contents.items()}
    train, test = (
        (
            np.divide(arrays[f"{part}-images-idx3-ubyte"][..., None], 255, dtype=np.float32),
            arrays[f"{part}-labels-idx1-ubyte"].astype(np.int64),
        )
        for part in ("train", "t10k")
    )
    return train, test
