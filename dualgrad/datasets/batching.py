"""Shuffled batches whose order depends on a key and the epoch alone."""

from collections.abc import Iterator
from typing import Any

from ..errors import OptionError, ShapeError
from ..options import is_whole
from ..random import Key, check_key, permutation

Array = Any


def batches_per_epoch(examples: int, size: int) -> int:
    """Return how many whole batches of a size an epoch has; OptionError if there is not one."""
    if not is_whole(size):
        raise OptionError(f"batches: size is {size!r}. Give a whole number of examples.")
    if not 1 <= size <= examples:
        raise OptionError(
            f"batches: a batch of {size} cannot be cut from {examples} examples. "
            f"Give a size from 1 to {examples}."
        )
    return examples // size


def batches(
    x: Array, y: Array, size: int, *, key: Key, epoch: int, start: int = 0
) -> Iterator[tuple[Array, Array]]:
    """Yield the batches (x of a batch, y of a batch) of one epoch in their shuffled order.

    The order is a function of key and epoch, so it can be replayed, and entered in the middle.
    Every batch has `size` examples: the last len(x) % size of the permutation are left out, other
    ones each epoch.

    Args:
        x: array of examples, shape (n, ...).
        y: array of labels, shape (n, ...).
        size: examples in a batch, from 1 to n.
        key: the run's key; shuffling has a stream of its own.
        epoch: 0, 1, ...
        start: number of the epoch's batch to begin with.

    Raises:
        OptionError: size, epoch or start out of range or not whole; x or y is no array.
        ShapeError: x and y have different lengths.
    """
    check_key(key, "batches")
    for name, given in (("x", x), ("y", y)):
        if not hasattr(given, "shape"):
            raise OptionError(
                f"batches: {name} is a {type(given).__name__}, which no permutation can cut. Give "
                f"an array: np.asarray({name})."
            )
    if len(x) != len(y):
        raise ShapeError(
            f"batches: x has {len(x)} examples and y {len(y)}. Give one label for each example."
        )
    count = batches_per_epoch(len(x), size)
    if not (is_whole(epoch) and is_whole(start)) or epoch < 0 or not 0 <= start <= count:
        raise OptionError(
            f"batches: there is no batch {start} of epoch {epoch} (an epoch has {count}). "
            f"Give an epoch from 0 and a start from 0 to {count}."
        )
    return _cut(
        x, y, size, permutation(key.fold_in("batches").fold_in(epoch), len(x)), start, count
    )


def _cut(x, y, size, order, start, count):
    for number in range(start, count):
        rows = order[number * size : (number + 1) * size]
        yield x[rows], y[rows]


def batch_at(x: Array, y: Array, size: int, step: int, *, key: Key) -> tuple[Array, Array]:
    """Return the batch that a run through all epochs meets at step 0, 1, ...: what resuming needs.

    Each call draws the epoch's permutation; to go on from a step, use `batches` with its start.
    """
    epoch, start = divmod(step, batches_per_epoch(len(x), size))
    return next(batches(x, y, size, key=key, epoch=epoch, start=start))
