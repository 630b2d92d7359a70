"""Where the fused stages run."""

import sys

from .. import dispatch


def missing() -> str:
    """Return "" where fused stages can run and were measured to be faster, else what is missing."""
    if dispatch.numba_use == "table" and dispatch.threshold("plan") == sys.maxsize:
        return "fused stages were not measured on a CPU without AVX2"
    if dispatch.numba_use == "never" or not dispatch.numba_available():
        return "numba is not installed (pip install numba)"
    return ""
