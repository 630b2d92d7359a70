"""Data sets as pairs of arrays, and their cutting into shuffled batches."""

from .batching import batch_at, batches, batches_per_epoch
from .mnist import mnist

__all__ = ["batch_at", "batches", "batches_per_epoch", "mnist"]
