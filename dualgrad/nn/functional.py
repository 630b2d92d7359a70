"""The functions that layers call. linear and conv2d are the sites of activity perturbation."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..activity import at_site, conv2d_weight_gradient, linear_weight_gradient
from ..beside import is_array
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
    "grouped_linear",
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


def _plus_bias(z: Array, b: Array | None) -> Array:
    """Return z + b; z, which is new, is written into where that gives the same array."""
    if is_array(z) and is_array(b) and z.dtype == b.dtype:
        z += b  # a temporary as large as z costs more than the sum
        return z
    return z if b is None else z + b


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
        lambda x, w, b: _plus_bias(np.matmul(x, w), b),
        lambda x, s: linear_weight_gradient(x, s, shape),
        x, w, b, activation, lambda groups, places: groups > 1,
    )  # fmt: skip
    return function(z)


def grouped_linear(
    x: Array, w: Array, b: Array | None = None, *, activation: str | None = None
) -> Array:
    """Return activation(y + b), shape (..., groups * c_out); a site of activity perturbation.

    y is x with its last axis cut into groups, each multiplied with a matrix of its own.

    Args:
        x: (..., groups * c_in). w: (groups, c_in, c_out). b: (groups * c_out,) or None.
        activation: as for linear.
    """
    function = activation_function(activation)
    shape = np.shape(w)
    if len(shape) != 3 or np.ndim(x) < 1 or np.shape(x)[-1] != shape[0] * shape[1]:
        raise ShapeError(
            f"grouped_linear: x {np.shape(x)} and w {shape} do not fit. Give w as (groups, c_in, "
            f"c_out) and x with groups * c_in entries along its last axis."
        )
    _check_bias("grouped_linear", b, (shape[0] * shape[2],))

    def groups_first(x: Array) -> Array:  # (..., groups * c) -> (groups, M, c)
        return np.swapaxes(x.reshape((-1, shape[0], x.shape[-1] // shape[0])), 0, 1)

    def affine(x: Array, w: Array, b: Array | None) -> Array:
        y = np.swapaxes(np.matmul(groups_first(x), w), 0, 1)  # one product a group
        y = y.reshape((*x.shape[:-1], shape[0] * shape[2]))
        return y if b is None else y + b

    z = at_site(
        affine,
        lambda x, s: np.matmul(np.swapaxes(groups_first(x), 1, 2), groups_first(s)),
        x, w, b, activation, lambda groups, places: shape[0] % groups > 0,
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
        lambda x, w, b: _plus_bias(products.conv2d_core(x, w, **window), b),
        lambda x, s: conv2d_weight_gradient(x, s, shape, **window),
        x, w, b, activation,
        lambda g, places: groups % g > 0 or (places > 1 and shape[:2] != (1, 1)),
    )  # fmt: skip
    return function(z)
