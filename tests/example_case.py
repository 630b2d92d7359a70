"""What the tests of training examples share: the script as a module, and its runs."""

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import load_file

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@contextmanager
def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    """Give the modules (examples/name.py, trainer), both new."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    trainer = importlib.import_module("trainer")
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look a module up
    spec.loader.exec_module(module)
    yield module, trainer
    sys.modules.pop("trainer")


def runner(script: tuple[ModuleType, ModuleType], folder: Path, *first: object) -> Callable:
    """Return run(*options) -> (exit code, what --json wrote or None), with `first` before them."""

    def run(*options):
        module, trainer = script
        path = folder / "summary.json"
        path.unlink(missing_ok=True)
        code = trainer.run(module.main, [*map(str, (*first, *options)), "--json", str(path)])
        return code, json.loads(path.read_text()) if path.exists() else None

    return run


def assert_same_tensors(one, other):
    a, b = load_file(one), load_file(other)
    assert sorted(a) == sorted(b) and a
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], strict=True)


def assert_same_on_the_device(train: Callable, *options: object) -> None:
    """A run on the device ends as the one on the host, to rounding."""
    (code, expected), (code_there, found) = train(*options), train(*options, "--device", "gpu")
    assert code == code_there == 0
    for name in ("train_loss", "test_loss", "test_accuracy"):
        assert found[name] == pytest.approx(expected[name], rel=2e-3)


def assert_missing_device_is_said(module: ModuleType, capsys, monkeypatch) -> None:
    """Without CuPy or a device a script ends with one line that says what to install."""
    why = 'CuPy is not installed. Run: python -m pip install "cupy-cuda12x[ctk]"'
    monkeypatch.setattr("dualgrad.kernels.cuda.missing", lambda: why)
    with pytest.raises(SystemExit) as caught:
        module.main(["--device", "gpu"])
    shown = capsys.readouterr()
    assert caught.value.code == 2 and shown.out == ""
    assert shown.err == f"error: --device gpu: {why} (--help lists the options)\n"
