"""Max pooling of NHWC images by an index of the winner."""

from ..dispatch import by_array
from . import cpu

__all__ = ["max_pool2d", "max_pool2d_gather", "max_pool2d_scatter"]

max_pool2d = by_array(cpu.max_pool2d)
max_pool2d_gather = by_array(cpu.max_pool2d_gather)
max_pool2d_scatter = by_array(cpu.max_pool2d_scatter)
