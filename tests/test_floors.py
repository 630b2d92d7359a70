"""The order of the floors: a module imports only from its own floor and those below."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the ground up; a package stands for all modules in it.
FLOORS = [
    {"kernels"},
    {"errors", "beside", "foreign", "level", "dual", "tree", "operations", "methods", "options"}
    | {"array_api", "array_fft", "array_functions", "array_linalg"},
    {"random", "partials", "primitive", "trace"},
    {"ops", "special"},
    {"structured"},
    {
        "arguments",
        "tape",
        "custom",
        "devices",
        "transforms",
        "jet",
        "laplacian",
        "sparse",
        "drawing",
        "directions",
        "families",
        "check",
        "debugging",
        "differences",
        "fuse",
        "vectorize",
    },
    {"perturbed", "sections", "activity", "estimators", "testing"},
    {"nn", "optim"},
    {"plan", "training", "checkpoint"},
    {"datasets"},
    {"__init__"},
]
FLOOR_OF = {f"dualgrad.{name}": i for i, names in enumerate(FLOORS) for name in names}
ONLY_IN_KERNELS = {"numba", "llvmlite", "cupy", "cupyx"}
ONLY_IN_FUNCTIONS = ONLY_IN_KERNELS | {
    "scipy",
    "matplotlib",
    "pooch",
    "requests",
    "safetensors",
    "threadpoolctl",
    "tqdm",
}
# Compiled code: these import numba at their top, and are imported inside functions alone.
COMPILED = ("dualgrad.kernels.fused.", "dualgrad.kernels.elementwise.loops")
LIGHT = {COMPILED[0] + name for name in ("__init__", "cpu", "gpu", "step")}
NEVER = {"torch", "jax", "autograd", "tensorflow", "casadi", "mpmath"}


def library_files():
    """Return {module name: path} of all library modules; a package's name ends in .__init__."""
    found = {}
    for folder, package in (
        (ROOT / "dualgrad", "dualgrad"),
        (ROOT / "kernels", "dualgrad.kernels"),
    ):
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder)
            if inside.parts[0] == "kernels":  # the link; its target is the other folder
                continue
            found[".".join([package, *inside.with_suffix("").parts])] = path
    return found


FILES = library_files()
MODULES = {name.removesuffix(".__init__") for name in FILES}


def targets(node, importer):
    """Return the absolute names of the modules that an import statement of the importer reads."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parts = importer.split(".")[: -node.level]
        base = ".".join([*parts, *([node.module] if node.module else [])])
    inner = [f"{base}.{alias.name}" for alias in node.names]
    return [name if name in MODULES else base for name in inner]


def imports(source, importer):
    """Return [(line, absolute name, function around it or None)] of every import in a source."""
    rows = []

    def visit(node, function):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            rows.extend((node.lineno, name, function) for name in targets(node, importer))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node.name
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(ast.parse(source), None)
    return rows


def floor_of(module):
    """Return the number of the floor that a dualgrad module is on."""
    if module == "dualgrad":
        return FLOOR_OF["dualgrad.__init__"]
    return FLOOR_OF[".".join(module.split(".")[:2])]


def is_compiled(module):
    return module.startswith(COMPILED) and module not in LIGHT


def violations(source, importer):
    """Return a line for each import statement that breaks a rule of the floors."""
    found = []
    in_kernels = importer.startswith("dualgrad.kernels")
    for line, name, function in imports(source, importer):
        if name == "dualgrad" and function == "__array_namespace__":
            continue  # the protocol's answer is the package itself
        top = name.split(".")[0]
        if top == "kernels":
            found.append(f"{line}: kernels is imported as dualgrad.kernels")
        if top == "dualgrad" and floor_of(name) > floor_of(importer):
            found.append(f"{line}: {name} is on a floor above")
        if top in NEVER:
            found.append(f"{line}: {top} is never imported")
        if top in ONLY_IN_KERNELS and not in_kernels:
            found.append(f"{line}: {top} is imported inside kernels/ alone")
        if is_compiled(name) and not is_compiled(importer) and function is None:
            found.append(f"{line}: {name} loads numba; it is imported inside a function")
        if top in ONLY_IN_FUNCTIONS and function is None and not is_compiled(importer):
            found.append(f"{line}: {top} is imported when first needed, inside a function")
    if in_kernels:
        found += [f"{line}: kernels/ uses relative imports" for line in absolute(source)]
    return found


def absolute(source):
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Import) and any(a.name.startswith("dualgrad") for a in node.names))
        or (isinstance(node, ast.ImportFrom) and not node.level and "dualgrad" in str(node.module))
    ]


def test_every_module_has_a_floor():
    homeless = {m for m in MODULES - {"dualgrad"} if ".".join(m.split(".")[:2]) not in FLOOR_OF}
    assert not homeless, "give each a place in FLOORS"


@pytest.mark.parametrize("module", FILES)
def test_imports_point_down(module):
    assert violations(FILES[module].read_text(), module) == []


@pytest.mark.parametrize(
    "importer, source",
    [
        ("dualgrad.dual", "from .transforms import jvp"),
        ("dualgrad.dual", "def f():\n    from . import nn"),
        ("dualgrad.tree", "from . import DualTensor"),
        ("dualgrad.tree", "def f():\n    import dualgrad"),
        ("dualgrad.ops.products", "from ..transforms import jvp"),
        ("dualgrad.ops.products", "import dualgrad.estimators"),
        ("dualgrad.ops.__init__", "from ..nn import linear"),
        ("dualgrad.optim.sgd", "import dualgrad as dg"),
        ("dualgrad.ops.products", "from kernels.conv import conv2d"),
        ("dualgrad.kernels.conv.cpu", "from ...errors import ShapeError"),
        ("dualgrad.kernels.conv.cpu", "from dualgrad.kernels.conv import gpu"),
        ("dualgrad.kernels.conv.cpu", "import numba"),
        ("dualgrad.kernels.conv.cpu", "try:\n    import numba\nexcept ImportError:\n    pass"),
        ("dualgrad.ops.products", "def f():\n    import numba"),
        ("dualgrad.special", "from scipy import special"),
        ("dualgrad.special", "class A:\n    import scipy.special"),
        ("dualgrad.optim.sgd", "def f():\n    import torch"),
        ("dualgrad.plan.builder", "from ..kernels.fused import stages"),
        ("dualgrad.kernels.fused.cpu", "import numba"),
        ("dualgrad.kernels.fused.__init__", "from .program import Program"),
    ],
)
def test_a_wrong_import_is_found(importer, source):
    assert violations(source, importer) != []


@pytest.mark.parametrize(
    "importer, source",
    [
        ("dualgrad.dual", "from .errors import LevelError\nimport numpy as np"),
        ("dualgrad.ops.__init__", "from . import products\nfrom .products import matmul"),
        ("dualgrad.ops.products", "from ..kernels import conv\nfrom ..kernels.conv import conv2d"),
        ("dualgrad.kernels.conv.cpu", "from ..dispatch import pick\ndef f():\n    import numba"),
        ("dualgrad.special", "def f():\n    from scipy import special"),
        ("dualgrad.kernels.fused.tile", "import numba"),
        ("dualgrad.plan.builder", "def f():\n    from ..kernels.fused import stages"),
        ("dualgrad.dual", "def __array_namespace__():\n    import dualgrad"),
        ("dualgrad.__init__", "from .datasets import mnist\nfrom . import nn"),
    ],
)
def test_a_right_import_is_let_pass(importer, source):
    assert violations(source, importer) == []


def test_import_loads_nothing_heavy_and_no_kernel_twice():
    heavy = sorted(ONLY_IN_FUNCTIONS | NEVER | {"pytest", "hypothesis", "kernels"})
    program = (
        "import json, sys\nimport numpy\nbefore = set(sys.modules)\nimport dualgrad\n"
        f"print(json.dumps([m for m in {heavy!r} if m in set(sys.modules) - before]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert json.loads(run.stdout) == []
