"""dualgrad: forward-mode automatic differentiation for NumPy, and learning by forward gradients."""

from importlib import import_module
from typing import Any

from . import array_api, datasets, directions, errors, methods, nn, ops, optim, random, tree
from .arguments import dual, tangent
from .array_api import VERSION as __array_api_version__
from .array_api import asarray
from .check import check_jvp
from .checkpoint import load, save
from .custom import custom_jvp, stop_gradient
from .dual import DualTensor, primal
from .errors import (
    CheckpointError,
    ConversionError,
    DataError,
    DeviceError,
    DtypeError,
    DualgradError,
    LevelError,
    MissingRuleError,
    OptionError,
    ShapeError,
    StructureError,
    WriteError,
)
from .estimators import forward_gradient
from .nn.guided import guided_gradient, local_gradients
from .options import num_threads, set_num_threads
from .random import Key
from .sections import objective
from .structured import LowRank
from .tape import linearize, vjp
from .training import training_step
from .transforms import (
    derivative,
    grad,
    gradient,
    hessian,
    hvp,
    jacobian,
    jvp,
    pushforward,
    value_and_gradient,
    value_and_jacobian,
)

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "testing":  # needs hypothesis, which only tests have
        return import_module(".testing", __name__)
    return array_api.lookup(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *array_api.NAMES, "testing"})


__all__ = [
    "CheckpointError",
    "ConversionError",
    "DataError",
    "DeviceError",
    "DtypeError",
    "DualTensor",
    "DualgradError",
    "Key",
    "LevelError",
    "LowRank",
    "MissingRuleError",
    "OptionError",
    "ShapeError",
    "StructureError",
    "WriteError",
    "__array_api_version__",
    "__version__",
    "array_api",
    "asarray",
    "check_jvp",
    "custom_jvp",
    "datasets",
    "derivative",
    "directions",
    "dual",
    "errors",
    "forward_gradient",
    "grad",
    "gradient",
    "guided_gradient",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "linearize",
    "load",
    "local_gradients",
    "methods",
    "nn",
    "num_threads",
    "objective",
    "ops",
    "optim",
    "primal",
    "pushforward",
    "random",
    "save",
    "set_num_threads",
    "stop_gradient",
    "tangent",
    "training_step",
    "tree",
    "value_and_gradient",
    "value_and_jacobian",
    "vjp",
]
