"""benchmarks/fournier.py: its search, intervals and counts, and that it resumes."""

import argparse
import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dualgrad as dg

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def fournier(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.syspath_prepend(str(FOLDER.parent / "examples"))
    yield importlib.import_module("fournier")
    for name in ("fournier", "cifar10", "trainer"):
        sys.modules.pop(name, None)


def test_fournier_intervals_are_students(fournier):
    stats = pytest.importorskip("scipy.stats")
    cell = {"target": "global", "guess": "local", "space": "weight", "rate": 0.1}
    run = {"loss": 1.0, "ms": 2.0, "bytes": 3}
    accuracies = [0.5, 0.4, 0.45, 0.47]
    rows = [{**cell, **run, "seed": i, "accuracy": a} for i, a in enumerate(accuracies)]
    rows.append({**cell, "seed": None, "tried": {}})
    (found,) = fournier.summaries(rows, 8)
    low, high = stats.t.interval(0.95, 3, np.mean(accuracies), stats.sem(accuracies))
    assert found["accuracy"] == pytest.approx((low + high) / 2)
    assert found["interval"] == pytest.approx((high - low) / 2, rel=1e-3)
    assert found["spread"] == pytest.approx(np.std(accuracies, ddof=1))
    for n, t in enumerate(fournier.T95, start=2):
        assert t == pytest.approx(stats.t.ppf(0.975, n - 1), abs=1e-3)


@pytest.mark.parametrize(
    "best, tried",
    [
        (0, {0, 1, -1}),
        (1, {0, 1, 2}),
        (5, {0, 1, 2, 3, 4}),
        (-2, {0, 1, -1, -2, -3}),
        (-9, {0, -1, -2, -3, -4}),
    ],
)
def test_fournier_searches_until_the_best_rate_is_between_two_others(
    fournier, monkeypatch, best, tried
):
    """The loss is a parabola in the logarithm of the rate; above nine times the best it is none."""

    def train(given, data, held_out):
        power = round(math.log(given.lr / 0.05, 3))
        loss = None if power > best + 2 else float((power - best) ** 2)
        return {"other_loss": loss}

    monkeypatch.setattr(fournier, "train", train)
    options = argparse.Namespace(
        width=1, blocks=8, batch_size=4, aux="cnn", examples=8, epochs=1, search=1
    )
    found = fournier.search(fournier.LOCAL, options, {})
    assert set(found["tried"]) == {f"{0.05 * 3.0**power:.3g}" for power in tried}
    nearest = min(tried, key=lambda power: abs(power - best))
    assert found["rate"] == pytest.approx(0.05 * 3.0**nearest)


@pytest.mark.parametrize(
    "target, guess, space",
    [
        ("global", "local", "activation"),
        ("intermediate", "intermediate", "activation"),
        ("global", "ntk", "weight"),
        ("sum", "random", "weight"),
        ("intermediate", "intermediate", "weight"),
        ("global", "local", "module"),
    ],
)
def test_fournier_counts_the_forward_passes(fournier, monkeypatch, target, guess, space):
    blocks = importlib.import_module("dualgrad.nn.blocks")
    runs, run = [], blocks.Blocks.run

    def counted(self, m, name, *rest, **more):
        runs.append(name)
        return run(self, m, name, *rest, **more)

    monkeypatch.setattr(blocks.Blocks, "run", counted)
    network = dg.nn.ResNet18(blocks=16, width=1 / 16, aux="linear", key=dg.Key(0))
    x = dg.random.uniform(dg.Key(1), (2, 16, 16, 3), np.float32)
    estimate = dg.guided_gradient(target=target, guess=guess, space=space, has_state=True)
    estimate(network, network.init_state(), x, np.arange(2), key=dg.Key(2))
    expected = fournier.passes({"target": target, "guess": guess, "space": space}, 16)[0]
    assert round(runs.count("block") / 16) == expected


@pytest.mark.slow
def test_fournier_goes_on_where_it_stopped(tmp_path):
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import runpy, sys\n"
        "import numpy as np\n"
        "import dualgrad as dg\n"
        "def pictures(folder=None):\n"
        "    x = dg.random.uniform(dg.Key(1), (110, 32, 32, 3), np.float32)\n"
        "    y = np.arange(110) % 10\n"
        "    return (x[:100], y[:100]), (x[100:], y[100:])\n"
        "dg.datasets.cifar10 = pictures\n"
        f"sys.path.insert(0, {str(FOLDER)!r})\n"
        f"runpy.run_path({str(FOLDER / 'fournier.py')!r}, run_name='__main__')\n"
    )
    cells, page, path = (tmp_path / name for name in ("cells.jsonl", "page.md", "out.json"))
    options = ("--width", "0.0625", "--examples", "16", "--batch-size", "8", "--epochs", "1",
               "--seeds", "2", "--guesses", "local", "--spaces", "activation",
               "--cells", str(cells), "--markdown", str(page), "--json", str(path))  # fmt: skip
    command = [sys.executable, str(driver), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    lines = cells.read_text().splitlines()
    assert len(lines) == 9  # backprop, local losses, the grid's cell: a search and two seeds each
    assert page.read_text().count("\n| ") == 5
    cells.write_text("\n".join([*lines[:4], lines[4][:30]]))  # cut off while it wrote a line
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    again = cells.read_text().splitlines()
    assert again[:4] == lines[:4] and len(again) == 9

    def plain(text):
        return {name: x for name, x in json.loads(text).items()
                if name not in ("seconds", "ms", "bytes")}  # fmt: skip

    assert [plain(line) for line in again] == [plain(line) for line in lines]
    assert len(json.loads(path.read_text())["cells"]) == 3
