"""Stochastic gradient descent, with momentum and Nesterov's variant of it."""

from ..errors import OptionError
from ..options import fraction
from .leaf import accumulate, add_to
from .optimiser import Optimiser, rule
from .schedules import Rate


def sgd(lr: Rate, momentum: float = 0.0, nesterov: bool = False) -> Optimiser:
    """Return stochastic gradient descent: w <- w - lr d.

    d = g without momentum. With it m <- momentum m + g and d = m, or with nesterov
    d = g + momentum m. Memory: none without momentum, with it one array a parameter. A LowRank
    gradient is never formed: no temporary has the size of a parameter.

    Args:
        lr: learning rate, a number or a schedule.
        momentum: in [0, 1).
        nesterov: look ahead by one step of momentum; needs momentum.

    Raises:
        OptionError: lr is NaN, infinite or negative, momentum is outside [0, 1), or nesterov
            lacks it.

    Source: Sutskever, Martens, Dahl and Hinton 2013, equations 1-4, with the rate outside the
    buffer.
    """
    momentum = fraction("sgd", "momentum", momentum)
    if nesterov and momentum == 0:
        raise OptionError(
            "sgd: nesterov looks ahead along momentum, which is 0. Give momentum=0.9."
        )

    def write(w, g, rate, step, *memory):
        if not memory:
            add_to(w, g, -rate)
            return
        (m,) = memory
        accumulate(m, g, momentum)
        if nesterov:
            add_to(w, g, -rate)
            add_to(w, m, -rate * momentum)
        else:
            add_to(w, m, -rate)

    return rule("sgd", lr, ("momentum",) if momentum else (), write, plain=not momentum)
