"""Optimisers: rules that write steps into parameters, gradient transforms, schedules."""

from .adaptive import adam, adamw, rmsprop
from .gradient_descent import sgd
from .optimiser import Optimiser, chain
from .schedules import cosine, exponential, step, warmup
from .transforms import clip_by_norm, weight_decay

__all__ = [
    "Optimiser",
    "adam",
    "adamw",
    "chain",
    "clip_by_norm",
    "cosine",
    "exponential",
    "rmsprop",
    "sgd",
    "step",
    "warmup",
    "weight_decay",
]
