"""Softmax and its relatives on CuPy arrays: one launch each, a warp or a block for each row.

Two things differ from cpu.py. A label that is no class cannot be refused without waiting for the
device: the loss of its row is NaN, and so are its tangents. And where cpu.py refuses rows without
columns, logsumexp is -inf.
"""

from typing import Any

import numpy as np

from .. import cuda
from .device import TOGETHER, launch

MOST_GROUPS = 65535  # of a grid, along its second axis


def softmax(x: Any) -> Any:
    """Return exp(x) / sum(exp(x)) over the last axis, x's shape and dtype."""
    y = cuda.empty(x.shape, x.dtype)
    launch("softmax", x, 1, y)
    return y


def log_softmax(x: Any) -> Any:
    """Return x - logsumexp(x) over the last axis, x's shape and dtype."""
    y = cuda.empty(x.shape, x.dtype)
    launch("log_softmax", x, 1, y)
    return y


def softmax_turn(y: Any, t: Any) -> Any:
    """Return y * t - y * sum(y * t) over the last axis, the derivative of softmax along t."""
    return _turned("softmax_turn", y, t)


def log_softmax_turn(y: Any, t: Any) -> Any:
    """Return t - sum(y * t) over the last axis, the derivative of log_softmax along t."""
    return _turned("log_softmax_turn", y, t)


def logsumexp(x: Any) -> Any:
    """Return log(sum(exp(x))) over the last axis, of shape x.shape[:-1] and x's dtype."""
    y = cuda.empty(x.shape[:-1], x.dtype)
    launch("logsumexp", x, 1, y)
    return y


def cross_entropy(logits: Any, labels: Any) -> tuple[Any, Any]:
    """Return -log_softmax(logits)[label] for each row, and softmax(logits)."""
    losses = cuda.empty(labels.shape, logits.dtype)
    probabilities = cuda.empty(logits.shape, logits.dtype)
    launch("cross_entropy", logits, 1, _classes(labels), losses, probabilities)
    return losses, probabilities


def cross_entropy_tangents(logits: Any, labels: Any, t: Any) -> tuple[Any, Any]:
    """Return the losses of cross_entropy, and their k tangents for tangents t of the logits."""
    losses = cuda.empty(labels.shape, logits.dtype)
    tangents = cuda.empty((len(t), *labels.shape), logits.dtype)
    t = cuda.contiguous(t.astype(logits.dtype, copy=False))
    groups = min(max(1, -(-len(t) // TOGETHER)), MOST_GROUPS)
    arguments = _classes(labels), t, losses, tangents
    launch("cross_entropy_tangents", logits, groups, *arguments, last=(len(t),))
    return losses, tangents


def _turned(name: str, y: Any, t: Any) -> Any:
    t = cuda.contiguous(t.astype(y.dtype, copy=False))
    turned = cuda.empty(t.shape, t.dtype)
    launch(name, y, min(len(t), MOST_GROUPS), t, turned, last=(len(t),))
    return turned


def _classes(labels: Any) -> Any:
    if isinstance(labels, np.ndarray):
        raise TypeError(
            f"cross_entropy: the logits lie on the device and the labels, {labels.shape}, in host "
            f'memory. Move them once, before the loop: dg.to_device(labels, "gpu").'
        )
    return cuda.contiguous(labels.astype(np.int64, copy=False))
