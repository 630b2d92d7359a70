"""Softmax and its relatives over the last axis, shifted by the maximum so that exp cannot overflow.

An entry of -inf has probability 0. A row that is all -inf, or that holds +inf or NaN, has no
softmax: its probabilities, log-probabilities and loss are NaN, without a warning. logsumexp keeps
its limits there: -inf, +inf and NaN.
"""

import numpy as np

FEW_CLASSES = 32  # up to here a copy with the classes first makes reductions over them faster


def softmax(x: np.ndarray) -> np.ndarray:
    """Return exp(x) / sum(exp(x)) over the last axis, x's shape and dtype."""
    work, axis, _ = _shifted(x)
    np.exp(work, out=work)
    work /= np.add.reduce(work, axis=axis, keepdims=True)
    return _restored(work, axis, x.shape)


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Return x - logsumexp(x) over the last axis, x's shape and dtype."""
    work, axis, _ = _shifted(x)
    work -= np.log(np.add.reduce(np.exp(work), axis=axis, keepdims=True))
    return _restored(work, axis, x.shape)


def softmax_turn(y: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return y * t - y * sum(y * t) over the last axis, the derivative of softmax along t.

    The map is its own transpose, so that it takes cotangents as well.

    Args:
        y: as softmax gives it. t: (k, *shape of y).
    """
    turned = y * t
    return turned - y * np.sum(turned, -1, keepdims=True)


def log_softmax_turn(y: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return t - sum(y * t) over the last axis, the derivative of log_softmax along t.

    Args:
        y: as softmax gives it. t: (k, *shape of y).
    """
    return t - np.sum(y * t, -1, keepdims=True)


def logsumexp(x: np.ndarray) -> np.ndarray:
    """Return log(sum(exp(x))) over the last axis, of shape x.shape[:-1] and x's dtype."""
    work, axis, top = _shifted(x)
    np.exp(work, out=work)
    result = np.log(np.add.reduce(work, axis=axis, keepdims=True))
    result += top
    finite = np.isfinite(top)
    if not finite.all():
        np.copyto(result, top, where=~finite)
    return result.reshape(x.shape[:-1])


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return -log_softmax(logits)[label] for each row, and softmax(logits).

    Args:
        logits: (..., C).
        labels: (...), integers from 0 to C - 1.

    Returns:
        losses: (...), the dtype of logits; +inf where the label's logit is -inf.
        probabilities: (..., C).

    Raises:
        ValueError: a label outside 0 .. C - 1.
    """
    classes = logits.shape[-1]
    flat = np.ascontiguousarray(labels, np.int64).reshape(-1)
    # seen as unsigned, a negative label is a large one: one reduction finds both
    if np.maximum.reduce(flat.view(np.uint64), initial=0) >= classes:
        raise ValueError(
            f"cross_entropy: labels go from {flat.min()} to {flat.max()}, but logits have "
            f"{classes} classes. Give labels from 0 to {classes - 1}."
        )
    work, axis, _ = _shifted(logits)
    rows = np.arange(flat.size)
    chosen = work[flat, rows] if axis == 0 else work[rows, flat]
    np.exp(work, out=work)
    total = np.add.reduce(work, axis=axis, keepdims=True)
    losses = np.log(total.reshape(-1))
    losses -= chosen
    work /= total
    return losses.reshape(labels.shape), _restored(work, axis, logits.shape)


def cross_entropy_tangents(
    logits: np.ndarray, labels: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses of cross_entropy, and their k tangents for tangents t of the logits.

    Args:
        logits, labels: as for cross_entropy.
        t: (k, *shape of logits).

    Returns:
        losses: (...). tangents: (k, ...).

    Raises:
        ValueError: as cross_entropy.
    """
    losses, _ = cross_entropy(logits, labels)
    chosen = np.take_along_axis(logits, labels[..., None], -1)
    hot = labels[..., None] == np.arange(logits.shape[-1])
    weight = np.exp(logits - (losses[..., None] + chosen)) - hot  # softmax, by way of the loss
    return losses, np.sum(weight * t, -1)


def _shifted(x: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    """Return x less its maxima as a new matrix, the axis of the classes in it, and the maxima."""
    matrix = x.reshape(-1, x.shape[-1]) if x.size else x.reshape(-1, max(1, x.shape[-1]))
    axis = 1
    if x.shape[-1] <= FEW_CLASSES:
        matrix, axis = np.ascontiguousarray(matrix.T), 0
    top = np.maximum.reduce(matrix, axis=axis, keepdims=True)
    with np.errstate(invalid="ignore"):  # inf - inf, the NaN that the module's first lines promise
        return matrix - top, axis, top


def _restored(work: np.ndarray, axis: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the work matrix of _shifted as a C-contiguous array of the given shape."""
    return np.ascontiguousarray(work.T if axis == 0 else work).reshape(shape)
