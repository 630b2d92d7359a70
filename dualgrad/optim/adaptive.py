"""Rules that scale each coordinate's step by its gradient's recent size: Adam, AdamW, RMSprop."""

import numpy as np

from ..options import fraction, non_negative, positive
from .leaf import in_blocks
from .optimiser import Optimiser, rule
from .schedules import Rate


def adam(lr: Rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimiser:
    """Return Adam: w <- w - lr m' / (sqrt(v') + eps).

    m <- b1 m + (1 - b1) g and v <- b2 v + (1 - b2) g^2 start at zero; m' = m / (1 - b1^t) and
    v' = v / (1 - b2^t) at the t-th step correct for that. Two arrays of memory a parameter; a
    LowRank gradient is formed a block of rows at a time.

    Args:
        lr: learning rate, a number or a schedule.
        b1, b2: how much of the running means of g and g^2 stays at a step, in [0, 1).
        eps: bounds the step where the gradient is tiny, above zero.

    Raises:
        OptionError: an argument is outside its range.

    Source: Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1.
    """
    return _adam("adam", lr, b1, b2, eps, 0.0)


def adamw(
    lr: Rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.01
) -> Optimiser:
    """Return AdamW: Adam after w <- (1 - lr weight_decay) w, a decay that is not rescaled by v.

    Every floating leaf decays, biases and norms' scales too. It decays in place and so costs
    nothing beside `adam`, whatever the kind of the gradient.

    Args:
        lr, b1, b2, eps: as for `adam`.
        weight_decay: not negative.

    Raises:
        OptionError: an argument is outside its range.

    Source: Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2, the decay scaled by lr.
    """
    return _adam("adamw", lr, b1, b2, eps, non_negative("adamw", "weight_decay", weight_decay))


def rmsprop(lr: Rate, decay: float = 0.9, eps: float = 1e-8) -> Optimiser:
    """Return RMSprop: v <- decay v + (1 - decay) g^2 from zero, w <- w - lr g / (sqrt(v) + eps).

    One array of memory a parameter; a LowRank gradient is formed a block of rows at a time.

    Args:
        lr: learning rate, a number or a schedule.
        decay: how much of the running mean of g^2 stays at a step, in [0, 1).
        eps: bounds the step where the gradient is tiny, above zero.

    Raises:
        OptionError: an argument is outside its range.

    Source: Tieleman and Hinton 2012, lecture 6.5 of Neural Networks for Machine Learning.
    """
    decay = fraction("rmsprop", "decay", decay)
    eps = positive("rmsprop", "eps", eps)

    def write(w, g, rate, step, square):
        def update(g, w, v):
            g = g.astype(v.dtype, copy=False)
            v += (1 - decay) * (g * g - v)
            w -= rate * g / (np.sqrt(v) + eps)

        in_blocks(update, g, w, square)

    return rule("rmsprop", lr, ("square",), write)


def _adam(name, lr, b1, b2, eps, weight_decay):
    b1, b2 = fraction(name, "b1", b1), fraction(name, "b2", b2)
    eps = positive(name, "eps", eps)

    def write(w, g, rate, step, mean, square):
        mean_scale, square_scale = 1 / (1 - b1 ** (step + 1)), 1 / (1 - b2 ** (step + 1))

        def update(g, w, m, v):
            g = g.astype(m.dtype, copy=False)  # the memories are never narrower than float32
            m += (1 - b1) * (g - m)
            v += (1 - b2) * (g * g - v)
            if weight_decay:
                w *= 1 - rate * weight_decay
            w -= rate * mean_scale * m / (np.sqrt(square_scale * v) + eps)

        in_blocks(update, g, w, mean, square)

    return rule(name, lr, ("mean", "square"), write)
