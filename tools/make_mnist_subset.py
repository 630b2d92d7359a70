"""Write the MNIST subset that ships in the package, from the full set in DUALGRAD_DATA.

usage: DUALGRAD_DATA=FOLDER python tools/make_mnist_subset.py

Keeps 1,000 training and 150 test images of each digit, evenly spaced in the official order (the
later test images come from other writers than the earlier ones), and prints the SHA-256 sums that
dualgrad/datasets/mnist.py holds. The same input gives the same files, byte for byte.
"""

import gzip
import hashlib
import sys
from pathlib import Path

import numpy as np

from dualgrad.datasets.files import local_folder, read_verified
from dualgrad.datasets.idx import parse_idx
from dualgrad.datasets.mnist import DIGESTS

TARGET = Path(__file__).resolve().parent.parent / "dualgrad" / "datasets" / "mnist_subset"
PER_DIGIT = {"train": 1000, "t10k": 150}


def evenly_spaced(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the sorted indices of count examples of each digit."""
    chosen = []
    for digit in range(10):
        where = np.flatnonzero(labels == digit)
        chosen.append(where[np.arange(count) * len(where) // count])
    return np.sort(np.concatenate(chosen))


def write_idx(name: str, array: np.ndarray) -> None:
    """Write a uint8 array as gzipped IDX and print its name and SHA-256."""
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    content = header + array.tobytes()
    (TARGET / f"{name}.gz").write_bytes(gzip.compress(content, 9, mtime=0))
    print(f'    "{name}": "{hashlib.sha256(content).hexdigest()}",')


def main() -> None:
    folder = local_folder(None, "mnist")
    if folder is None:
        sys.exit("set DUALGRAD_DATA to the folder that holds mnist/ with the official files")
    arrays = {name: parse_idx(c, name) for name, c in read_verified(folder, DIGESTS).items()}
    for part, count in PER_DIGIT.items():
        labels = arrays[f"{part}-labels-idx1-ubyte"]
        keep = evenly_spaced(labels, count)
        write_idx(f"{part}-images-idx3-ubyte", arrays[f"{part}-images-idx3-ubyte"][keep])
        write_idx(f"{part}-labels-idx1-ubyte", labels[keep])


if __name__ == "__main__":
    main()
