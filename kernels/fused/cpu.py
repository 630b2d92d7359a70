"""Where the fused stages run."""

import functools

from .. import dispatch


@functools.cache
def missing() -> str:
    """Return "" where fused stages can run, else what is missing."""
    if not dispatch.numba_available():
        return "numba is not installed (pip install numba)"
    return ""
