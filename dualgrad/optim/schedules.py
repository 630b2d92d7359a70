"""Learning-rate schedules: functions from the number of steps taken so far to a rate.

Any function step -> number is a schedule; the first update is step 0.
"""

import math
from collections.abc import Callable
from typing import Any

from ..options import count, non_negative, positive

Schedule = Callable[[int], float]
Rate = float | Schedule


def as_schedule(where: str, lr: Any) -> Schedule:
    """Return lr as a schedule whose every value is checked; a number is the constant schedule.

    Raises:
        OptionError: lr, or later a value of the schedule, is NaN, infinite, negative or no number.
    """
    if not callable(lr):
        constant = non_negative(where, "the learning rate", lr)
        return lambda step: constant
    return lambda step: non_negative(where, f"the learning rate at step {step}", lr(step))


def exponential(lr: float, rate: float) -> Schedule:
    """Return lr * exp(-rate * step).

    Raises:
        OptionError: lr or rate is negative or not finite.

    Source: Baydin et al. 2022, section 5 (rate 1e-4).
    """
    start = non_negative("exponential", "lr", lr)
    rate = non_negative("exponential", "rate", rate)
    return lambda step: start * math.exp(-rate * step)


def step(lr: float, every: int, factor: float) -> Schedule:
    """Return lr * factor ** (step // every): after each `every` steps, factor times the rate.

    Raises:
        OptionError: lr is negative, every is below 1, or factor is not above zero.
    """
    start = non_negative("step", "lr", lr)
    every = count("step", "every", every)
    factor = positive("step", "factor", factor)
    return lambda step: start * factor ** (step // every)


def cosine(lr: float, steps: int, final: float = 0.0) -> Schedule:
    """Return half a cosine wave from lr at step 0 to final at `steps`, then final.

    Raises:
        OptionError: lr or final is negative, or steps is below 1.

    Source: Loshchilov and Hutter 2017 (arXiv 1608.03983), equation 5, without restarts.
    """
    start = non_negative("cosine", "lr", lr)
    steps = count("cosine", "steps", steps)
    end = non_negative("cosine", "final", final)

    def schedule(step: int) -> float:
        progress = min(step, steps) / steps
        return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2

    return schedule


def warmup(lr: Rate, steps: int) -> Schedule:
    """Return the schedule lr, its first `steps` values scaled by 1/steps, 2/steps, ..., 1.

    The schedule inside counts all steps, those of the warm-up included: warmup(cosine(0.1, 1000),
    50) reaches its end at step 1,000.

    Raises:
        OptionError: lr is a bad number, or steps is below 1.
    """
    schedule = as_schedule("warmup", lr)
    steps = count("warmup", "steps", steps)
    return lambda step: schedule(step) * min(1.0, (step + 1) / steps)
