"""The twins of cpu.py for CuPy arrays: names and arguments, CUDA kernels in a later release."""

from typing import Any

from ..dispatch import not_on_gpu


def softmax(x: Any) -> Any:
    """Return exp(x) / sum(exp(x)) over the last axis, x's shape and dtype."""
    raise not_on_gpu("softmax")


def log_softmax(x: Any) -> Any:
    """Return x - logsumexp(x) over the last axis, x's shape and dtype."""
    raise not_on_gpu("log_softmax")


def logsumexp(x: Any) -> Any:
    """Return log(sum(exp(x))) over the last axis, of shape x.shape[:-1] and x's dtype."""
    raise not_on_gpu("logsumexp")


def cross_entropy(logits: Any, labels: Any) -> tuple[Any, Any]:
    """Return -log_softmax(logits)[label] for each row, and softmax(logits)."""
    raise not_on_gpu("cross_entropy")
