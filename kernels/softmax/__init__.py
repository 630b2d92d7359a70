"""Softmax, logsumexp and cross-entropy over the last axis."""

from ..dispatch import by_array
from . import cpu

__all__ = [
    "cross_entropy",
    "cross_entropy_tangents",
    "log_softmax",
    "log_softmax_turn",
    "logsumexp",
    "softmax",
    "softmax_turn",
]

softmax = by_array(cpu.softmax)
log_softmax = by_array(cpu.log_softmax)
logsumexp = by_array(cpu.logsumexp)
cross_entropy = by_array(cpu.cross_entropy)
cross_entropy_tangents = by_array(cpu.cross_entropy_tangents)
softmax_turn = by_array(cpu.softmax_turn)
log_softmax_turn = by_array(cpu.log_softmax_turn)
