"""MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28.

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits" (1998).
The copyright is Yann LeCun's and Corinna Cortes'; MNIST derives from NIST's Special Databases 1 and
3 and is available under CC BY-SA 3.0, which therefore also covers the subset in mnist_subset/
(selected and recompressed, pixels unchanged).
"""

import os
import sys
from pathlib import Path

from . import files
from .idx import Pair, load_idx

# SHA-256 of the uncompressed content: archives of the same content differ.
DIGESTS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SUBSET_DIGESTS = {
    "train-images-idx3-ubyte": "96defee2ab685483b9a3e40d749565b36760c0072a8b8a3f6d989614bd22ff4d",
    "train-labels-idx1-ubyte": "306eb44c58c72aea6431270542616c67dd483edc08e92917cd180d90aad4772c",
    "t10k-images-idx3-ubyte": "3b985f17e39cc20d7d90c3020b7b5f7fb2ed194a4b1c4b404198355e60268559",
    "t10k-labels-idx1-ubyte": "48bf61f60f17089ae9dd4575372c2eddac9ee593e574b008e3bb4b9570e0b0a5",
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_SUBSET = Path(__file__).parent / "mnist_subset"


def mnist(data_dir: str | os.PathLike[str] | None = None) -> tuple[Pair, Pair]:
    """Return (x_train, y_train), (x_test, y_test): float32 (N, 28, 28, 1) in [0, 1], int64 (N,).

    Looked for in this order: data_dir; the folder that the environment variable DUALGRAD_DATA
    names; the user's cache, into which the files are downloaded once (needs the extra `data`). When
    they cannot be downloaded, the 10,000 + 1,500 real images that ship with the package are
    returned, 1,000 and 150 of each digit, and one line on stderr says so.

    Args:
        data_dir: folder that holds mnist/ with the four official files, gzipped or not.

    Raises:
        DataError: a given folder does not exist or lacks a file, or a file is truncated or altered.
    """
    folder = files.local_folder(data_dir, "mnist")
    if folder is not None:
        return load_idx(folder, DIGESTS)
    folder, reason = files.cached_folder("mnist", _download)
    if folder is not None:
        return load_idx(folder, DIGESTS)
    print(
        f"mnist: using the packaged subset (10,000 training and 1,500 test images), the full set "
        f"could not be downloaded ({reason}). To get it, go online, or set {files.ENVIRONMENT} to "
        f"the folder that holds mnist/ with the official files.",
        file=sys.stderr,
    )
    return load_idx(_SUBSET, SUBSET_DIGESTS)


def _download(folder: Path) -> str | None:
    return files.download(folder, DIGESTS, MIRRORS)
