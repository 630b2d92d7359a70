"""Softmax, logsumexp and cross-entropy over the last axis."""

from ..dispatch import by_array
from . import cpu

__all__ = ["softmax", "log_softmax", "logsumexp", "cross_entropy"]

softmax = by_array(cpu.softmax)
log_softmax = by_array(cpu.log_softmax)
logsumexp = by_array(cpu.logsumexp)
cross_entropy = by_array(cpu.cross_entropy)
