"""Sums of outer products added to a matrix in place."""

from ..dispatch import by_array
from . import cpu

__all__ = ["outer_add", "outer_accumulate", "outer_rows"]

outer_add = by_array(cpu.outer_add)
outer_accumulate = by_array(cpu.outer_accumulate)
outer_rows = by_array(cpu.outer_rows)
