"""dualgrad: forward-mode automatic differentiation for NumPy, and learning by forward gradients."""

from importlib import import_module
from typing import Any

from . import (
    array_api,
    datasets,
    directions,
    errors,
    methods,
    nn,
    ops,
    optim,
    random,
    special,
    tree,
)
from .arguments import dual, tangent
from .array_api import VERSION as __array_api_version__
from .array_functions import asarray
from .check import check_jvp
from .checkpoint import load, save
from .custom import custom_jvp, stop_gradient
from .debugging import debug_nans
from .devices import to_device
from .differences import finite_difference
from .dual import DualTensor, primal
from .errors import (
    CheckpointError,
    ConversionError,
    DataError,
    DeviceError,
    DtypeError,
    DualgradError,
    LevelError,
    MissingPackageError,
    MissingRuleError,
    NonFiniteError,
    OptionError,
    ShapeError,
    StructureError,
    WriteError,
)
from .estimators import forward_gradient
from .fuse import fuse
from .jet import jet
from .laplacian import laplacian
from .nn.guided import guided_gradient, local_gradients
from .options import num_threads, set_num_threads
from .random import Key
from .sections import objective
from .sparse import Coloring, sparse_hessian, sparse_jacobian, sparsity
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
from .vectorize import vectorize

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "testing":  # needs hypothesis, which only tests have
        return import_module(".testing", __name__)
    return array_api.lookup(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *array_api.NAMES, "testing"})


__all__ = [
    "CheckpointError",
    "Coloring",
    "ConversionError",
    "DataError",
    "DeviceError",
    "DtypeError",
    "DualTensor",
    "DualgradError",
    "Key",
    "LevelError",
    "LowRank",
    "MissingPackageError",
    "MissingRuleError",
    "NonFiniteError",
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
    "debug_nans",
    "derivative",
    "directions",
    "dual",
    "errors",
    "finite_difference",
    "forward_gradient",
    "fuse",
    "grad",
    "gradient",
    "guided_gradient",
    "hessian",
    "hvp",
    "jacobian",
    "jet",
    "jvp",
    "laplacian",
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
    "sparse_hessian",
    "sparse_jacobian",
    "sparsity",
    "special",
    "stop_gradient",
    "tangent",
    "to_device",
    "training_step",
    "tree",
    "value_and_gradient",
    "value_and_jacobian",
    "vectorize",
    "vjp",
]
