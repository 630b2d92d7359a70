"""Functions of neural networks: activations, softmax, losses, pooling; of arrays and duals."""

import functools
import math

import numpy as np

from ..beside import as_array, beside, is_array
from ..dual import TRACES, Array, DualTensor, primal_of, trace_of
from ..errors import OptionError, ShapeError
from ..kernels import elementwise as kernels
from ..kernels import pool, special
from ..kernels import softmax as softmax_kernels
from ..operations import implements
from ..options import choice, pair
from ..primitive import Primitive, custom, elementwise, linear, one_launch
from . import products, reductions
from .results import array


def public(function):
    """Enter a function of dg.nn into the operation table, under itself; plans record it whole."""

    @functools.wraps(function)
    def recorded(*args, **kwargs):
        if TRACES and (trace := trace_of((*args, *kwargs.values()))) is not None:
            return trace.record(recorded, args, kwargs)
        return function(*args, **kwargs)

    return implements(recorded)(recorded)


logsumexp = public(reductions.logsumexp)
conv2d = public(products.conv2d)

# --- activations

_relu = elementwise(
    lambda x: np.maximum(x, 0),
    lambda x, y: ~(x <= 0),
    name="relu",
    fused=kernels.fused("relu"),
)
_sigmoid = elementwise(
    lambda x: _logistic(x),
    lambda x, y: y * (1 - y),
    name="sigmoid",
    fused=kernels.fused("sigmoid"),
)
_erf = elementwise(
    lambda x: special.erf(x),
    lambda x, y: 2 / math.sqrt(math.pi) * np.exp(-x * x),
    name="erf",
    fused=kernels.fused("erf"),
)
_gelu_of_device_arrays = one_launch(kernels.fused("gelu").device, "gelu")


def _logistic(x):
    e = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1, e) / (1 + e)


@public
def relu(x: Array) -> Array:
    """Return max(x, 0) entry by entry; the slope at 0 is 0."""
    return _relu(array(x))


@public
def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent entry by entry."""
    return np.tanh(x)


@public
def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)) entry by entry."""
    return _sigmoid(array(x))


@public
def gelu(x: Array) -> Array:
    """Return x times the normal distribution function of x, by erf (not its tanh approximation).

    Source: Hendrycks, Gimpel 2016, arXiv 1606.08415, section 2.
    """
    x = array(x)
    y = _gelu_of_device_arrays(x)
    return 0.5 * x * (1 + _erf(x * math.sqrt(0.5))) if y is None else y


# --- softmax

# dy = y (dx - <y, dx>), its own transpose.
_softmax = custom(
    lambda x: softmax_kernels.softmax(x),
    lambda primals, active, y: y,
    lambda y, tangents: _softmax_turn(y, tangents[0]),
    lambda y, ct: [_softmax_turn(y, ct)],
    name="softmax",
)
# dy = dx - <softmax, dx>.
_log_softmax = custom(
    lambda x: softmax_kernels.log_softmax(x),
    lambda primals, active, y: np.exp(y),
    lambda p, tangents: _log_softmax_turn(p, tangents[0]),
    lambda p, ct: [ct - p * np.sum(ct, -1, keepdims=True)],
    name="log_softmax",
)


def _softmax_turn(y, t):
    if is_array(y) and is_array(t):
        return softmax_kernels.softmax_turn(y, t)
    turned = y * t
    return turned - y * np.sum(turned, -1, keepdims=True)


def _log_softmax_turn(p, t):
    if is_array(p) and is_array(t):
        return softmax_kernels.log_softmax_turn(p, t)
    return t - np.sum(p * t, -1, keepdims=True)


def _over_axis(primitive, x, axis):
    x = array(x)
    if axis in (-1, x.ndim - 1):
        return primitive(x)
    return np.moveaxis(primitive(np.moveaxis(x, axis, -1)), -1, axis)


@public
def softmax(x: Array, axis: int = -1) -> Array:
    """Return exp(x) / sum(exp(x)) over an axis, x's shape."""
    return _over_axis(_softmax, x, axis)


@public
def log_softmax(x: Array, axis: int = -1) -> Array:
    """Return x - logsumexp(x) over an axis, x's shape."""
    return _over_axis(_log_softmax, x, axis)


# --- losses


def _cross_entropy_value(logits, labels):
    try:
        return softmax_kernels.cross_entropy(logits, labels)[0]
    except ValueError as error:  # a label out of range: the kernel has checked, and says which
        raise OptionError(str(error)) from None


def _cross_entropy_fast(logits, labels):
    """The loss and its tangents from one kernel, for tangents that are a plain array."""
    if type(logits) is not DualTensor or not (is_array(logits.primal) and is_array(logits.carrier)):
        return None
    logits.level.check("cross_entropy")
    try:
        pair = softmax_kernels.cross_entropy_tangents(logits.primal, labels, logits.carrier)
    except ValueError as error:
        raise OptionError(str(error)) from None
    return DualTensor(*pair, logits.level)


def _cross_entropy_weight(primals, active, y, labels):
    """d loss / d logits: softmax less the one-hot label, the softmax by way of the loss itself."""
    (logits,) = primals
    chosen = np.take_along_axis(logits, labels[..., None], -1)
    hot = labels[..., None] == beside(logits).arange(logits.shape[-1])
    return np.exp(logits - (y[..., None] + chosen)) - hot


_cross_entropy = custom(
    _cross_entropy_value,
    _cross_entropy_weight,
    lambda w, tangents, labels: np.sum(w * tangents[0], -1),
    lambda w, ct, labels: [ct[..., None] * w],
    name="cross_entropy",
)
_cross_entropy.fast = _cross_entropy_fast


@public
def cross_entropy(logits: Array, labels: Array, reduction: str = "mean") -> Array:
    """Return the mean of -log softmax(logits)[label], or with reduction="none" one loss an example.

    Args:
        logits: (..., classes), floating.
        labels: (...), integers in [0, classes). On a device, where others cannot be refused without
            waiting for it, their losses are NaN.

    Raises:
        ShapeError: shapes do not fit. OptionError: labels are not integers or out of range, or an
            unknown reduction.
    """
    logits, labels = array(logits), as_array(primal_of(labels))
    if labels.dtype.kind not in "iu":
        raise OptionError(f"cross_entropy: labels of dtype {labels.dtype}; give integer classes.")
    if labels.shape != logits.shape[:-1] or logits.ndim == 0:
        raise ShapeError(
            f"cross_entropy: labels {labels.shape} for logits {logits.shape}. Give one integer for "
            f"each row of logits: labels of shape {logits.shape[:-1]}."
        )
    return _reduced(_cross_entropy(logits, labels=labels), reduction, "cross_entropy")


@public
def mse(prediction: Array, target: Array, reduction: str = "mean") -> Array:
    """Return the mean of (prediction - target)**2, or with reduction="none" the squares."""
    prediction, target = array(prediction), array(target)
    if prediction.shape != target.shape:
        raise ShapeError(
            f"mse: prediction {prediction.shape} and target {target.shape} differ. Reshape one of "
            "them."
        )
    return _reduced(np.square(prediction - target), reduction, "mse")


def _reduced(losses, reduction, name):
    choice(f"{name}: reduction", reduction, ("mean", "none"))
    return np.mean(losses) if reduction == "mean" else losses


# --- pooling


def _windows(x, size, name):
    x, size = array(x), pair(name, "size", size)
    if x.ndim != 4 or x.shape[1] < size[0] or x.shape[2] < size[1]:
        raise ShapeError(
            f"{name}: x {x.shape} with windows {size}. Give images (N, height, width, channels) at "
            f"least as large as a window."
        )
    return x, size


# The maxima are entries of x at an index that the primal decides, so they are linear in x.
_gather: Primitive = linear(
    lambda x, index, size: pool.max_pool2d_gather(x, index, size),
    lambda ct, shapes, index, size: _scatter(ct, index=index, size=size, x_shape=shapes[0]),
    lambda k, index, size: {"index": index, "size": size},
    name="max_pool2d",
)
_scatter: Primitive = linear(
    lambda ct, index, size, x_shape: pool.max_pool2d_scatter(ct, index, size, x_shape),
    lambda ct, shapes, index, size, x_shape: _gather(ct, index=index, size=size),
    name="max_pool2d_scatter",
)


@public
def max_pool2d(x: Array, size: int | tuple[int, int]) -> Array:
    """Return the maximum of each window; windows do not overlap, the remainder is cut off.

    Args:
        x: images (N, height, width, channels).
        size: int or (height, width) of a window.

    At a tie the first maximum in row-major order takes the tangent.
    """
    x, window = _windows(x, size, "max_pool2d")
    y, index = pool.max_pool2d(primal_of(x), window)
    return y if primal_of(x) is x else _gather(x, index=index, size=window)


@public
def avg_pool2d(x: Array, size: int | tuple[int, int]) -> Array:
    """Return the mean of each window; windows do not overlap, the remainder is cut off.

    Args: as for max_pool2d.
    """
    x, (h, w) = _windows(x, size, "avg_pool2d")
    n, height, width, c = x.shape
    x = x[:, : height // h * h, : width // w * w]
    return np.mean(np.reshape(x, (n, height // h, h, width // w, w, c)), (2, 4))
