"""Every family's cpu.py and gpu.py have the same public functions with the same arguments."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dualgrad.kernels

FOLDER = Path(dualgrad.kernels.__file__).parent
FAMILIES = sorted(path.parent.name for path in FOLDER.glob("*/cpu.py"))


def public_functions(path: Path) -> dict[str, list[tuple[str, str | None]]]:
    """Return name -> [(argument, its default as text)] of a module's public functions."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            a = node.args
            positional = a.posonlyargs + a.args
            missing = len(positional) - len(a.defaults)
            defaults = [None] * missing + [ast.unparse(value) for value in a.defaults]
            arguments = [(x.arg, d) for x, d in zip(positional, defaults, strict=True)]
            named = zip(a.kwonlyargs, a.kw_defaults, strict=True)
            arguments += [(f"*{x.arg}", ast.unparse(d) if d else None) for x, d in named]
            found[node.name] = arguments
    return found


def test_families_are_found():
    assert {"conv", "pool", "product", "softmax"} <= set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_twins_have_the_same_names_and_arguments(family):
    cpu = public_functions(FOLDER / family / "cpu.py")
    assert cpu, f"{family}/cpu.py has no public function"
    assert public_functions(FOLDER / family / "gpu.py") == cpu


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_offers_each_public_function(family):
    package = getattr(__import__(f"dualgrad.kernels.{family}").kernels, family)
    for name in public_functions(FOLDER / family / "cpu.py"):
        assert callable(getattr(package, name))


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_kernels_are_imported_under_one_name():
    imports = "\n".join(f"import dualgrad.kernels.{family}" for family in FAMILIES)
    assert run_python(f"import sys\n{imports}\nprint('kernels' in sys.modules)") == "False"


def test_importing_and_small_calls_load_neither_numba_nor_cupy():
    imports = "\n".join(f"import dualgrad.kernels.{family}" for family in FAMILIES)
    use = "dualgrad.kernels.pool.max_pool2d(np.ones((1, 4, 4, 1)), (2, 2))"
    show = "print('numba' in sys.modules, 'cupy' in sys.modules)"
    assert run_python(f"import sys, numpy as np\n{imports}\n{use}\n{show}") == "False False"
