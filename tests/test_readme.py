"""README's Python blocks run as printed, and its two commands are there."""

import re
from pathlib import Path

import numpy as np
import pytest

from dualgrad.datasets import files

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = [b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "import" in b]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number, monkeypatch, capsys):
    monkeypatch.delenv("DUALGRAD_DATA", raising=False)
    monkeypatch.setattr(files, "cache_folder", lambda name: None)  # the packaged subset, no network
    names: dict = {}
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), names)
    if "test_my_function" in names:
        names["test_my_function"]()
    if "model" in names:
        assert float(capsys.readouterr().out.split()[-1]) > 0.8


def test_the_figures_in_the_first_block_are_what_it_gives():
    names: dict = {}
    exec(BLOCKS[0], names)
    shown = re.search(r"dg.gradient\(f\)\(x\)\s+# array\(\[(.*?)\]\)", README)[1]
    shown = [float(number.rstrip(".")) for number in shown.replace("...", "").split(",")]
    np.testing.assert_allclose(names["dg"].gradient(names["f"])(names["x"]), shown, atol=1e-5)


@pytest.mark.parametrize("word", ["examples/mnist.py", "pytest"])
def test_one_fenced_line_has_each_command(word):
    lines = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
             for line in block.splitlines() if word in line]  # fmt: skip
    assert len(lines) == 1
    assert "pip install" in lines[0]
