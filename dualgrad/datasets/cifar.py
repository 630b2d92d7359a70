"""CIFAR-10: 50,000 training and 10,000 test colour images of ten classes of things, 32 x 32.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images" (2009).
"""

import os
from pathlib import Path

import numpy as np

from ..errors import DataError
from . import files
from .idx import Pair

FOLDER = "cifar-10-batches-bin"  # of the official archive, too
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)
RECORDS = 10_000  # in each file
SHAPE = 3, 32, 32  # of an image in the files: a plane for each colour
RECORD_BYTES = 3073  # the label, then the image

ARCHIVE = "cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
MIRRORS = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")


def cifar10(data_dir: str | os.PathLike[str] | None = None) -> tuple[Pair, Pair]:
    """Return (x_train, y_train), (x_test, y_test): float32 (N, 32, 32, 3) in [0, 1], int64 (N,).

    Looked for in this order: data_dir; the folder that the environment variable DUALGRAD_DATA
    names; the user's cache, into which the official archive (170 MB) is downloaded once and checked
    by SHA-256 (needs the extra `data`). The files themselves are checked for their size and the
    range of the labels. The two arrays of images take 740 MB.

    Args:
        data_dir: folder that holds cifar-10-batches-bin/ with the six official files
            data_batch_1.bin to data_batch_5.bin and test_batch.bin, gzipped or not.

    Raises:
        DataError: a given folder does not exist or lacks a file, a file is truncated or altered, or
            the data set cannot be downloaded.
    """
    folder = files.data_folder(data_dir, FOLDER, _download)
    return _load(folder, TRAIN), _load(folder, TEST)


def _download(folder: Path) -> str | None:
    return files.download_archive(folder, TRAIN + TEST, MIRRORS, ARCHIVE, SHA256)


def _load(folder: Path, names: tuple[str, ...]) -> Pair:
    channels, height, width = SHAPE
    x = np.empty((len(names), RECORDS, height, width, channels), np.float32)
    y = np.empty((len(names), RECORDS), np.int64)
    for name, images, labels in zip(names, x, y, strict=True):
        records = _records(files.find(folder, name))
        labels[:] = records[:, 0]
        planes = records[:, 1:].reshape(RECORDS, *SHAPE)
        np.divide(planes.transpose(0, 2, 3, 1), 255, out=images, dtype=np.float32)
    return x.reshape(-1, height, width, channels), y.ravel()


def _records(path: Path) -> np.ndarray:
    """Return the uint8 records of one file, shape (RECORDS, 3073); DataError if it holds others."""
    content = files.read(path)
    if len(content) != RECORDS * RECORD_BYTES:
        raise DataError(
            f"{path}: {len(content)} bytes, where the official file has {RECORDS * RECORD_BYTES} "
            f"({RECORDS} records of {RECORD_BYTES}). {files.AGAIN}"
        )
    records = np.frombuffer(content, np.uint8).reshape(RECORDS, RECORD_BYTES)
    wrong = np.flatnonzero(records[:, 0] > 9)
    if wrong.size:
        raise DataError(
            f"{path}: record {wrong[0]} has the label {records[wrong[0], 0]}; labels are 0 to 9, "
            f"and {wrong.size} of {RECORDS} are not. {files.AGAIN}"
        )
    return records
