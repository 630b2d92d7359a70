"""Data sets as pairs of arrays, their cutting into shuffled batches, and their augmentation."""

from .augmentation import augment
from .batching import batch_at, batches, batches_per_epoch
from .cifar import cifar10
from .fashion import fashion_mnist
from .mnist import mnist

__all__ = [
    "augment",
    "batch_at",
    "batches",
    "batches_per_epoch",
    "cifar10",
    "fashion_mnist",
    "mnist",
]
