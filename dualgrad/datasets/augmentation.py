"""Random crops and mirror images, drawn for each image from a key."""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..beside import as_array, beside, on_device
from ..errors import OptionError, ShapeError
from ..options import is_whole
from ..random import Key, check_key, uniform

Array = Any


def augment(x: Array, *, key: Key, pad: int = 4, flip: bool = True) -> Array:
    """Return each image mirrored or not, and cropped at random out of a frame of zeros around it.

    The frame is `pad` pixels wide, and each of the (2 pad + 1)**2 crops as likely as any other.
    Half of the images are mirrored, left to right. What happens to an image depends on key and its
    place in the batch alone: the same key does the same again, so fold the step into it.

    Args:
        x: images, shape (n, h, w, c), any dtype, in host memory or on a device.
        key: what the draws follow from; augmentation has a stream of its own.
        pad: the largest shift in pixels, 0 for none.
        flip: whether to mirror. The crops are the same either way.

    Returns:
        The images, a new array of x's shape and dtype.

    Raises:
        ShapeError: x does not have four axes.
        OptionError: pad is no whole number from 0 to the images' shorter side, or key no Key.

    Source: He, Zhang, Ren and Sun, "Deep residual learning for image recognition" (2016), 4.2.
    """
    check_key(key, "augment")
    x = as_array(x)
    if x.ndim != 4:
        raise ShapeError(
            f"augment: x has shape {x.shape}. Give images as (batch, height, width, channels)."
        )
    n, h, w, c = x.shape
    if not is_whole(pad) or not 0 <= pad <= min(h, w):
        raise OptionError(
            f"augment: pad is {pad!r}. Give the largest shift in pixels, a whole number from 0 to "
            f"the shorter side of the images, {min(h, w)}."
        )
    draws = uniform(key.fold_in("augment"), (n, 3))
    top, left = (draws[:, :2].T * (2 * pad + 1)).astype(np.int64)
    framed = beside(x).zeros((n, h + 2 * pad, w + 2 * pad, c), x.dtype)
    inner = framed[:, pad : pad + h, pad : pad + w]
    inner[...] = x
    if flip and not on_device(x):
        mirrored = draws[:, 2] < 0.5
        inner[mirrored] = x[mirrored][:, :, ::-1]
    elif flip:
        mirrored = beside(x).asarray(draws[:, 2] < 0.5)
        inner[...] = np.where(mirrored[:, None, None, None], x[:, :, ::-1], x)
    if on_device(x):  # which would copy the view below, (2 pad + 1)**2 times the images
        rows, columns = top[:, None] + np.arange(h), left[:, None] + np.arange(w)
        return framed[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    # A view of every crop of every image: (n, 2 pad + 1, 2 pad + 1, 1, h, w, c).
    crops = sliding_window_view(framed, (h, w, c), axis=(1, 2, 3))
    return crops[np.arange(n), top, left, 0]
