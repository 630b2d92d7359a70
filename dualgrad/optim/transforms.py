"""Gradient transforms for `chain`: functions (gradient, params) -> gradient that write nothing."""

import math
from typing import Any

import numpy as np

from .. import tree
from ..beside import on_device
from ..options import non_negative, positive
from ..structured import LowRank
from ..tree import Tree
from .leaf import add_to, blocks
from .optimiser import Transform


def clip_by_norm(maximum: float) -> Transform:
    """Return the transform that shortens a gradient to the Euclidean norm maximum if it is above.

    The norm is over all floating leaves together. A LowRank leaf stays one: its norm comes from its
    factors. A gradient that is not finite passes unchanged, for no factor makes it short.

    Raises:
        OptionError: maximum is not a finite number above zero.
    """
    maximum = positive("clip_by_norm", "maximum", maximum)

    def transform(gradient: Tree, params: Tree) -> Tree:
        leaves = [g for g in tree.leaves(gradient) if tree.is_floating(g)]
        if any(on_device(getattr(g, "left", g)) for g in leaves):  # a branch would wait for it
            scale = _scale_on_device(leaves, maximum)
            return tree.map(lambda g: _scaled(g, scale) if tree.is_floating(g) else g, gradient)
        norm = math.hypot(*map(_norm, leaves))
        if norm <= maximum or not math.isfinite(norm):
            return gradient
        scale = maximum / norm
        return tree.map(lambda g: g * scale if tree.is_floating(g) else g, gradient)

    return transform


def weight_decay(rate: float) -> Transform:
    """Return the transform g -> g + rate * w, the gradient of rate/2 * |w|^2 added to each leaf.

    Every floating leaf decays, biases and norms' scales too. The sum is no LowRank: such a leaf
    becomes a dense array of its parameter's size, here as in any rule after it. `adamw` decays
    without one.

    Raises:
        OptionError: rate is negative or not finite; the transform raises StructureError where
            gradient and params differ in structure.
    """
    rate = non_negative("weight_decay", "rate", rate)

    def decayed(w: Any, g: Any) -> Any:
        if not (tree.is_floating(w) and tree.is_floating(g)):
            return g
        if isinstance(g, LowRank):
            dense = g.dense()
            add_to(dense, w, rate)
            return dense
        return g + rate * w

    return lambda gradient, params: tree.map(decayed, params, gradient)


def _scale_on_device(leaves: list, maximum: float) -> Any:
    """Return what shortens the leaves to the maximum, an array of shape (); 1 for short ones."""
    norm: Any = np.sqrt(sum(map(_square_on_device, leaves)))
    return np.where(np.isfinite(norm) & (norm > maximum), maximum / norm, 1.0)


def _square_on_device(g: Any) -> Any:
    """Return the sum of squares, an array of shape ()."""
    if isinstance(g, LowRank):
        return g.square().astype(np.float64)
    wide = g.astype(np.result_type(g.dtype, np.float64)).ravel()
    return np.vdot(wide, wide).real


def _scaled(g: Any, scale: Any) -> Any:
    return g * (scale if isinstance(g, LowRank) else scale.astype(g.dtype))


def _norm(g: Any) -> float:
    if isinstance(g, LowRank):
        return float(g.norm())
    total = 0.0
    for (block,) in blocks(g if hasattr(g, "astype") else np.asarray(g)):
        wide = block.astype(np.result_type(block.dtype, np.float64)).ravel()
        total += float(np.vdot(wide, wide).real)
    return math.sqrt(total)
