"""Random crops and mirror images, drawn for each image from a key."""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import OptionError, ShapeError
from ..random import Key, check_key, uniform

Array = Any


def augment(x: Array, *, key: Key, pad: int = 4, flip: bool = True) -> np.ndarray:
    """Return each image mirrored or not, and cropped at random out of a frame of zeros around it.

    The frame is `pad` pixels wide, and each of the (2 pad + 1)**2 crops as likely as any other.
    Half of the images are mirrored, left to right. What happens to an image depends on key and its
    place in the batch alone: the same key does the same again, so fold the step into it.

    Args:
        x: images, shape (n, h, w, c), any dtype.
        key: what the draws follow from; augmentation has a stream of its own.
        pad: the largest shift in pixels, 0 for none.
        flip: whether to mirror. The crops are the same either way.

    Returns:
        The images, a new array of x's shape and dtype.

    Raises:
        ShapeError: x does not have four axes.
        OptionError: pad is negative, or key is no Key.

    Source: He, Zhang, Ren and Sun, "Deep residual learning for image recognition" (2016), 4.2.
    """
    check_key(key, "augment")
    x = np.asarray(x)
    if x.ndim != 4:
        raise ShapeError(
            f"augment: x has shape {x.shape}. Give images as (batch, height, width, channels)."
        )
    if pad < 0:
        raise OptionError(f"augment: pad is {pad}. Give the largest shift in pixels, at least 0.")
    n, h, w, c = x.shape
    draws = uniform(key.fold_in("augment"), (n, 3))
    top, left = (draws[:, :2].T * (2 * pad + 1)).astype(np.int64)
    framed = np.zeros((n, h + 2 * pad, w + 2 * pad, c), x.dtype)
    inner = framed[:, pad : pad + h, pad : pad + w]
    inner[...] = x
    if flip:
        mirrored = draws[:, 2] < 0.5
        inner[mirrored] = x[mirrored][:, :, ::-1]
    # A view of every crop of every image: (n, 2 pad + 1, 2 pad + 1, 1, h, w, c).
    crops = sliding_window_view(framed, (h, w, c), axis=(1, 2, 3))
    return crops[np.arange(n), top, left, 0]
