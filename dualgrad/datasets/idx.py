"""The IDX format of the MNIST family: a header of magic number and shape, then bytes."""

import math

import numpy as np

from ..errors import DataError

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
