"""The error function and the normal quantile, entry by entry."""

from ..dispatch import by_array
from . import cpu

__all__ = ["erf", "ndtri"]

erf = by_array(cpu.erf)
ndtri = by_array(cpu.ndtri)
