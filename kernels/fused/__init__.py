"""Whole steps of training in compiled stages: what plans are made of.

Importing this loads no numba. `missing` says whether the stages can run here; the other modules are
imported by those who have asked.
"""

from .cpu import missing

__all__ = ["missing"]
