"""Fused stages on a GPU."""


def missing() -> str:
    """Return "" where fused stages can run, else what is missing."""
    return "the fused stages have no CUDA kernels yet"
