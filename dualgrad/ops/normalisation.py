"""Normalisation over some axes as one primitive: what LayerNorm, GroupNorm and BatchNorm share."""

from typing import Any

import numpy as np

from ..beside import is_array
from ..dual import TRACES, Array, DualTensor, primal_of, trace_of
from ..kernels import normalise as kernels
from ..primitive import Node, Primitive, align, unbroadcast
from .results import array
from .structural import negative_axes


def _with_tangents(x: Array, axes: tuple[int, ...], eps: float) -> Any:
    """Return (y, mean, variance) from one run of the kernel, or None for duals that need more.

    That is, for tangents that are neither plain nor recorded, and for nested duals.
    """
    if type(x) is not DualTensor:
        return kernels.normalise(x, axes, eps)
    carrier, kind = x.carrier, type(x.carrier)
    if type(x.primal) is DualTensor or not (is_array(carrier) or kind is Node):
        return None
    x.level.check("normalise")
    y, mean, variance = kernels.normalise(x.primal, axes, eps)
    if kind is not Node:
        t: Any = kernels.normalise_tangent(carrier, y, variance, axes, eps)
    else:
        params = {"axes": axes, "eps": eps}
        t = Node(_normalise, (y, variance), params, [carrier], y.shape, y.dtype)
    return DualTensor(y, t, x.level), mean, variance


def _variance(primals, active, y, axes, eps):
    (x,) = primals
    centred = x - np.mean(x, axis=axes, keepdims=True)
    return y, np.mean(centred * centred, axis=axes, keepdims=True)


def _turn(residuals, t, axes, eps):
    """dy = (dx - mean(dx) - y mean(y dx)) / sqrt(variance + eps); of reals, its own transpose."""
    y, variance = residuals
    if all(map(is_array, (y, variance, t))):
        return kernels.normalise_tangent(t, y, variance, axes, eps)
    centred = t - np.mean(t, axis=axes, keepdims=True)
    along = np.mean(y * t, axis=axes, keepdims=True)
    return (centred - y * along) / np.sqrt(variance + eps)


def _pull(residuals, ct, axes, eps):
    if ct.dtype.kind == "c":  # the transpose under Re(sum(conj(u) v))
        residuals = tuple(map(np.conj, residuals))
    return [_turn(residuals, ct, axes, eps)]


def _fast(x, axes, eps):
    found = _with_tangents(x, axes, eps)
    return None if found is None else found[0]


_normalise = Primitive(
    "normalise",
    lambda x, axes, eps: kernels.normalise(x, axes, eps)[0],
    _variance,
    lambda residuals, tangents, axes, eps: _turn(residuals, tangents[0], axes, eps),
    _pull,
    fast=_fast,
)


def normalise(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    """Return (x - mean) / sqrt(variance + eps), x's shape, statistics over some axes.

    Source: Ioffe and Szegedy 2015 (arXiv 1502.03167), section 3, for the derivative.
    """
    x = array(x)
    return _normalise(x, axes=negative_axes(axes, x.ndim), eps=eps)


def normalise_with_statistics(
    x: Array, axes: tuple[int, ...], eps: float
) -> tuple[Array, Array, Array]:
    """Return normalise(x, axes, eps), and the mean and variance without tangents.

    These have x's shape with axes of length 1; the variance is the biased one.
    """
    if TRACES and (trace := trace_of((x,))) is not None:
        return trace.record(normalise_with_statistics, (x, axes, eps), {})
    x = array(x)
    axes = negative_axes(axes, x.ndim)
    found = _with_tangents(x, axes, eps)
    if found is not None:
        return found
    _, mean, variance = kernels.normalise(primal_of(x), axes, eps)
    return _normalise(x, axes=axes, eps=eps), mean, variance


# --- what follows a normalisation: a number for each channel, and another added


def _push_scaled(residuals, tangents):
    y, scale, _ = residuals
    ty, t_scale, t_shift = tangents
    parts = [] if ty is None else [ty * scale]
    if t_scale is not None:
        parts.append(y * align(t_scale, y.ndim))
    if t_shift is not None:
        parts.append(align(t_shift, y.ndim))
    return sum(parts[1:], start=parts[0])


def _pull_scaled(residuals, ct):
    y, scale, active = residuals
    along = None
    if active[1]:
        plain = is_array(ct)
        along = kernels.sum_product(ct, y, scale.shape) if plain else ct * y
    return [
        ct * scale if active[0] else None,
        along if along is None else unbroadcast(along, scale.shape),
        unbroadcast(ct, scale.shape) if active[2] else None,
    ]


_scaled = Primitive(
    "scale_and_shift",
    lambda y, scale, shift: y * scale + shift,
    lambda primals, active, y: (*primals[:2], active),
    _push_scaled,
    _pull_scaled,
)


def scaled(y: Array, scale: Array, shift: Array) -> Array:
    """Return y * scale + shift for a y that nothing else holds: its arrays may be written into.

    Args:
        y: what normalise gave, or a view of all of it.
        scale, shift: the shape of y's last axes.
    """
    parts = y, scale, shift
    duals = [x for x in parts if type(x) is DualTensor]
    plain = [x.primal if type(x) is DualTensor else x for x in parts]
    kinds = {type(x.carrier) for x in duals}
    directions = {len(x.carrier) for x in duals}
    if (
        any(not is_array(x) or x.dtype != y.dtype for x in plain)
        or y.dtype.kind != "f"
        or not all(is_array(x.carrier) or type(x.carrier) is Node for x in duals)
        or len(kinds) > 1
        or len(directions) > 1
        or any(x.level is not duals[0].level for x in duals)
    ):
        return y * scale + shift
    if duals:
        duals[0].level.check("scale_and_shift")
    tangents = [x.carrier if type(x) is DualTensor else None for x in parts]
    y, scale, shift = plain
    if Node not in kinds:
        t = kernels.scale_and_shift(y, scale, shift, *tangents)
        return DualTensor(y, t, duals[0].level) if duals else y
    z = y * scale  # y is kept by the record
    z += shift
    residuals = y, scale, [t is not None for t in tangents]
    return DualTensor(z, Node(_scaled, residuals, {}, tangents, z.shape, z.dtype), duals[0].level)
