"""Neural-network layers (dataclasses that are trees of parameters) and the functions they call."""

from .convolution import AvgPool2d, Conv2d, MaxPool2d
from .dense import Embedding, Linear
from .dropout import Dropout
from .functional import (
    avg_pool2d,
    conv2d,
    cross_entropy,
    gelu,
    linear,
    log_softmax,
    logsumexp,
    max_pool2d,
    mse,
    relu,
    sigmoid,
    softmax,
    tanh,
)
from .guided import guided_gradient, local_gradients
from .local import LocalBlock, LocalNetwork, ReplicatedHead
from .models import CNN, MLP
from .module import Module, parameter_count
from .normalisation import BatchNorm, GroupNorm, LayerNorm
from .sequential import Flatten, Sequential

__all__ = [
    "CNN",
    "MLP",
    "AvgPool2d",
    "BatchNorm",
    "Conv2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "GroupNorm",
    "LayerNorm",
    "Linear",
    "LocalBlock",
    "LocalNetwork",
    "MaxPool2d",
    "Module",
    "ReplicatedHead",
    "Sequential",
    "avg_pool2d",
    "conv2d",
    "cross_entropy",
    "gelu",
    "guided_gradient",
    "linear",
    "local_gradients",
    "log_softmax",
    "logsumexp",
    "max_pool2d",
    "mse",
    "parameter_count",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]
