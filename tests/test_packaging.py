"""What pyproject.toml promises: the list of packages, the version, and what an install contains."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# What only an installed copy can tell: all families of kernels import, and the data is there.
PROBE = """
import importlib, pathlib, sys
import dualgrad, dualgrad.datasets
for name in {packages!r}:
    importlib.import_module(name)
home = pathlib.Path(dualgrad.__file__).parent
assert (home / "py.typed").is_file()
assert len(list((home / "datasets" / "mnist_subset").glob("*.gz"))) == 4
sources = {{str(path.relative_to(home / "kernels")) for path in home.glob("kernels/**/*.cu*")}}
assert sources == {sources!r}, sources
assert "kernels" not in sys.modules
print(home, dualgrad.__version__)
"""


def packages_in_tree():
    """Return the names of all folders with an __init__.py under dualgrad/, kernels/ linked in."""
    found = []
    for folder, _, files in os.walk(ROOT / "dualgrad", followlinks=True):
        if "__init__.py" in files:
            found.append(".".join(Path(folder).relative_to(ROOT).parts))
    return sorted(found)


def test_every_package_is_listed():
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == packages_in_tree()


def cuda_sources():
    """Return the files of CUDA source under kernels/."""
    return {str(path.relative_to(ROOT / "kernels")) for path in ROOT.glob("kernels/**/*.cu*")}


def test_every_file_of_cuda_is_packaged():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["dualgrad.kernels"]
    packaged = {path for pattern in patterns for path in (ROOT / "kernels").glob(pattern)}
    assert {str(path.relative_to(ROOT / "kernels")) for path in packaged} == cuda_sources()
    assert "common.cuh" in cuda_sources()


def test_kernels_is_a_link_to_the_folder_at_the_top():
    link = ROOT / "dualgrad" / "kernels"
    assert link.is_symlink() and os.readlink(link) == "../kernels"


def test_one_version():
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "dualgrad.__version__"}
    source = (ROOT / "dualgrad" / "__init__.py").read_text()
    (version,) = re.findall(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    (cited,) = re.findall(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited == version
    import dualgrad

    assert dualgrad.__version__ == version


def test_the_packaged_data_is_at_most_two_megabytes():
    folder = ROOT / "dualgrad" / "datasets"
    sizes = [path.stat().st_size for path in folder.rglob("*") if "__pycache__" not in path.parts]
    assert 1_000_000 < sum(sizes) <= 2_000_000


def run(*command, cwd):
    """Run a command outside of any checkout, its output in the error if it fails."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copied_tree(target):
    """Copy the checkout without its history and what was built in it."""
    leave_out = (".*", "__pycache__", "build", "dist", "*.egg-info", "venv", "shared")
    shutil.copytree(ROOT, target, symlinks=True, ignore=shutil.ignore_patterns(*leave_out))
    return target


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "editable", "wheel from sdist"])
def test_an_install_contains_everything(kind, tmp_path):
    tree = copied_tree(tmp_path / "dualgrad")  # a clone's name: no script beside it may import it
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [python, "-m", "pip", "install", "--quiet"]
    if kind == "plain":
        run(*install, tree, cwd=tmp_path)
    elif kind == "editable":
        run(*install, "-e", tree, cwd=tmp_path)
    else:  # build makes the sdist, and the wheel from that
        run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", tree, cwd=tmp_path)
        run(*install, *(tmp_path / "dist").glob("*.whl"), cwd=tmp_path)
    printed = run(
        python,
        "-c",
        PROBE.format(packages=packages_in_tree(), sources=cuda_sources()),
        cwd=tmp_path,
    )
    assert (str(tree) in printed) == (kind == "editable")
