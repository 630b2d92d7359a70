"""Neural-network layers (dataclasses that are trees of parameters) and the functions they call."""

from ..activity import credit, spread
from .auxiliary import AdaptiveAvgPool2d, cnn_head, linear_head, mlp_head
from .convolution import AvgPool2d, Conv2d, MaxPool2d
from .cost import flops
from .dense import Embedding, Linear
from .dropout import Dropout
from .functional import (
    avg_pool2d,
    conv2d,
    cross_entropy,
    gelu,
    grouped_linear,
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
from .mixer import GroupedLinear, LocalMixer
from .models import CNN, MLP
from .module import Module, parameter_count
from .normalisation import BatchNorm, GroupNorm, LayerNorm
from .resnet import Residual, ResNet18
from .sequential import Flatten, Sequential

__all__ = [
    "CNN",
    "MLP",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm",
    "Conv2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "GroupNorm",
    "GroupedLinear",
    "LayerNorm",
    "Linear",
    "LocalBlock",
    "LocalMixer",
    "LocalNetwork",
    "MaxPool2d",
    "Module",
    "ReplicatedHead",
    "ResNet18",
    "Residual",
    "Sequential",
    "avg_pool2d",
    "cnn_head",
    "conv2d",
    "credit",
    "cross_entropy",
    "flops",
    "gelu",
    "grouped_linear",
    "guided_gradient",
    "linear",
    "linear_head",
    "local_gradients",
    "log_softmax",
    "logsumexp",
    "max_pool2d",
    "mlp_head",
    "mse",
    "parameter_count",
    "relu",
    "sigmoid",
    "softmax",
    "spread",
    "tanh",
]
