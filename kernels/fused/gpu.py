"""Fused stages on a GPU: step.py has them."""

from .. import cuda
from . import step  # noqa: F401  (so that its source is known)


def missing() -> str:
    """Return "" where fused stages can run, else what is missing."""
    return cuda.missing()
