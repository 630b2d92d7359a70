"""The device's twin of cpu.py: the same names and arguments."""

from typing import Any

from ..dispatch import not_on_gpu


def select(mask: Any, t: Any) -> Any:
    """Return t where the mask holds and 0 elsewhere."""
    raise not_on_gpu("select")
