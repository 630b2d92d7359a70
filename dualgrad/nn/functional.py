"""The functions that layers call. linear and conv2d are the sites of activity perturbation."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..activity import at_site, conv2d_weight_gradient, linear_weight_gradient
from ..errors import OptionError, ShapeError
from ..ops import products
from ..ops.neural import (
    avg_pool2d,
    cross_entropy,
    gelu,
    log_softmax,
    logsumexp,
    max_pool2d,
    mse,
    relu,
    sigmoid,
    softmax,
    tanh,
)

__all__ = [
    "ACTIVATIONS",
    "avg_pool2d",
    "conv2d",
    "cross_entropy",
    "gelu",
    "linear",
    "log_softmax",
    "logsumexp",
    "max_pool2d",
    "mse",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]

Array = Any
ACTIVATIONS: dict[str | None, Callable[[Array], Array]] = {
    None: lambda x: x,
    "relu": relu,
    "gelu": gelu,
    "tanh": tanh,
    "sigmoid": sigmoid,
}


def activation_function(name: str | None) -> Callable[[Array], Array]:
    """Return the activation of that name; raise OptionError where there is none."""
    if name not in ACTIVATIONS:
        raise OptionError(f"activation={name!r}; give one of {', '.join(map(repr, ACTIVATIONS))}.")
    return ACTIVATIONS[name]


def _check_bias(name: str, b: Array | None, shape: tuple[int, ...]) -> None:
    """Refuse a bias that only broadcasting would fit: a site's gradient has one entry a unit."""
    if b is not None and np.shape(b) != shape[-1:]:
        raise ShapeError(
            f"{name}: b has shape {np.shape(b)}, and w {shape}. Give b as {shape[-1:]}, a number "
            f"for each output."
        )


def linear(x: Array, w: Array, b: Array | None = None, *, activation: str | None = None) -> Array:
    """Return activation(x @ w + b), shape (..., n_out); a site of activity perturbation.

    Args:
        x: (..., n_in). w: (n_in, n_out). b: (n_out,) or None.
        activation: None, "relu", "gelu", "tanh" or "sigmoid"; given here rather than applied after,
            "relu" lets activity perturbation leave inactive units alone.
    """
    function = activation_function(activation)
    if np.ndim(w) != 2 or np.ndim(x) < 1 or np.shape(x)[-1] != np.shape(w)[0]:
        raise ShapeError(
            f"linear: x {np.shape(x)} and w {np.shape(w)} do not fit. Give w as (n_in, n_out) and "
            f"x with n_in entries along its last axis."
        )
    shape = np.shape(w)
    _check_bias("linear", b, shape)
    z = at_site(
        lambda x, w, b: np.matmul(x, w) if b is None else np.matmul(x, w) + b,
        lambda x, s: linear_weight_gradient(x, s, shape),
        x, w, b, activation,
    )  # fmt: skip
    return function(z)


def conv2d(
    x: Array, w: Array, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    b: Array | None = None, activation: str | None = None,
) -> Array:  # fmt: skip
    """Return activation(conv(x, w) + b), shape (N, H', W', C_out); a site of activity perturbation.

    Args:
        x: images (N, H, W, C_in). w: filters (height, width, C_in // groups, C_out).
        stride, dilation: int or pair. padding: int, "VALID", "SAME", or ((top, bottom), (left,
            right)).
        groups: channels are cut into this many groups. b: (C_out,) or None.
        activation: as for linear.
    """
    function = activation_function(activation)
    window = products.canonical_window(x, w, stride, padding, dilation, groups)
    shape = np.shape(w)
    _check_bias("conv2d", b, shape)
    z = at_site(
        lambda x, w, b: products.conv2d_core(x, w, **window)
        if b is None
        else products.conv2d_core(x, w, **window) + b,
        lambda x, s: conv2d_weight_gradient(x, s, shape, **window),
        x, w, b, activation,
    )  # fmt: skip
    return function(z)
