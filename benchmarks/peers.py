"""PyTorch and JAX on dualgrad's weights and batch: forward, forward-gradient and backprop step.

A forward-gradient step draws a dense normal direction for every weight. Before anything is timed,
`check` holds each step against dualgrad's exact gradient.
"""

import importlib.util
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import models
import numpy as np
import timing

import dualgrad as dg

WHAT = ("forward", "forward gradient", "backprop")


# --- which there are, and whether they compute the same


def available(wanted: str) -> list[str]:
    """Return the peers that are wanted and installed; a line says what is left out."""
    module = {name: "torch" if name == "compile" else name for name in timing.PEERS}
    chosen = [name for name in wanted.split(",") if name in module]
    modules = dict.fromkeys(module[name] for name in chosen)
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"left out, not installed: {', '.join(missing)}; to compare: {timing.INSTALL} "
            f"{' '.join(missing)} (or the extra `benchmarks`)",
            file=sys.stderr,
        )
    return [name for name in chosen if module[name] not in missing]


def contestants(
    wanted: str, model: Any, data: tuple, keep: Callable[[str], bool] = lambda name: True
) -> tuple[timing.Calls, list[str]]:
    """Return checked calls, named "torch backprop" and so on, and notes on what failed.

    Those whose name keep(name) refuses are neither built nor checked.
    """
    weights = models.arrays(model)
    args = (weights, *data)
    names = available(wanted)
    makers: dict[str, Any] = {}
    if "jax" in names:
        from jax_peer import Jax

        makers["jax"] = partial(Jax, *args)
    if {"torch", "compile"} & set(names):
        from torch_peer import Torch

        makers["torch"] = partial(Torch, *args)
        makers["compile"] = partial(Torch, *args, compiled=True, channels_last=data[0].ndim == 4)
    if "torch" in names and data[0].ndim == 4:
        names.insert(names.index("torch") + 1, "torch channels_last")
        makers["torch channels_last"] = partial(Torch, *args, channels_last=True)
    calls, notes = {}, []
    for name in names:
        shown = "torch compiled" if name == "compile" else name
        kept = [what for what in WHAT if keep(f"{shown} {what}")]
        if not kept:
            continue
        peer = makers[name]()
        for what in kept:
            try:
                check(peer, what, model, data)
            except RuntimeError as error:  # no compiler, or something it cannot translate
                lines = str(error).strip().splitlines() or [""]
                notes.append(f"{shown} {what} left out: {type(error).__name__}: {lines[0]}")
                continue
            calls[f"{shown} {what}"] = getattr(peer, what.replace(" ", "_"))
        peer.load(weights)
    return calls, notes


def check(peer: Any, what: str, model: Any, data: tuple) -> None:
    """Raise AssertionError unless one step from the model's weights is what dualgrad's vjp says."""
    exact = dg.value_and_gradient(models.mean_loss, mode="reverse")
    value, gradient = exact(model, *data)
    g = [np.asarray(a, np.float64).ravel() for a in peer.layout(models.arrays(gradient))]
    g = np.concatenate(g)
    lr = 1e-3 if what == "forward gradient" else 0.1
    peer.load(models.arrays(model))
    before = _flat(peer.weights())
    found = peer.forward() if what == "forward" else getattr(peer, what.replace(" ", "_"))(lr)
    close = abs(found - value) <= 1e-4 * abs(value)
    assert close, f"{type(peer).__name__} {what}: loss {found}, dualgrad's {value}"
    moved = (before - _flat(peer.weights())) / lr
    if what == "backprop":
        error = np.linalg.norm(moved - g) / np.linalg.norm(g)
        assert error < 1e-3, f"{type(peer).__name__}: its gradient is {error:.1e} off"
    elif what == "forward gradient":  # moved = (g.v) v, so that g.moved = (g.v)^2
        ratio = len(g) * (g @ moved) / (moved @ moved)
        bound = 6 * math.sqrt(2 / len(g)) + 1e-2  # |v|^2 scatters about its mean, len(g)
        assert abs(ratio - 1) < bound, f"{type(peer).__name__}: (g.v)^2 |v|^2 / |moved|^2 = {ratio}"


def _flat(weights: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([w.ravel().astype(np.float64) for w in weights])
