"""Fashion-MNIST: 60,000 training and 10,000 test images of articles of clothing, 28 x 28.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking
machine learning algorithms" (2017). Zalando SE publishes the data under the MIT licence.
"""

import os
from pathlib import Path

from . import files
from .idx import Pair, load_idx

# SHA-256 of the uncompressed content: archives of the same content differ.
DIGESTS = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)


def fashion_mnist(data_dir: str | os.PathLike[str] | None = None) -> tuple[Pair, Pair]:
    """Return (x_train, y_train), (x_test, y_test): float32 (N, 28, 28, 1) in [0, 1], int64 (N,).

    Looked for in this order: data_dir; the folder that the environment variable DUALGRAD_DATA
    names; the user's cache, into which the files are downloaded once (needs the extra `data`).

    Args:
        data_dir: folder that holds fashion-mnist/ with the four official files, gzipped or not.

    Raises:
        DataError: a given folder does not exist or lacks a file, a file is truncated or altered, or
            the data set cannot be downloaded.
    """
    return load_idx(files.data_folder(data_dir, "fashion-mnist", _download), DIGESTS)


def _download(folder: Path) -> str | None:
    return files.download(folder, DIGESTS, MIRRORS)
