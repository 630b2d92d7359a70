"""Selection by a mask."""

from ..dispatch import by_array
from . import cpu

__all__ = ["select"]

select = by_array(cpu.select)
