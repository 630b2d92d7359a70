"""benchmarks/: every script explains itself and, on tiny sizes, writes figures that agree."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dualgrad as dg

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
SHARED = {"curves", "functions", "jax_peer", "models", "peers", "timing", "torch_peer"}
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in SHARED)
ALONE = ("--peers", "none")


def run(script, *arguments):
    """Return what a script prints."""
    command = [sys.executable, str(FOLDER / f"{script}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def figures(folder, script, *arguments):
    """Return what a script writes as JSON, after a look at what every file must have."""
    path = folder / "out.json"
    run(script, *arguments, "--json", str(path))
    found = json.loads(path.read_text())
    assert found["machine"]["cores"] >= 1 and "numpy" in found["machine"]["versions"]
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_how_to_run_it(script):
    text = run(script, "--help")
    assert "--json" in text and len(text.splitlines()) > 5


def test_steps_gives_ratios_of_its_own_minima_in_both_views(tmp_path):
    picture = tmp_path / "steps.png"
    found = figures(tmp_path, "steps", *ALONE, "--model", "logreg", "--batch", "8", "--rounds", "3",
                    "--no-eager", "--pinned", "--plot", str(picture))  # fmt: skip
    assert set(found["views"]) == {"all_cores", "one_thread"}
    for view, by_model in found["views"].items():
        times = by_model["logreg"]
        assert {"dualgrad forward", "planned rank-1", "planned backprop"} <= set(times)
        assert all(0 < row["minimum"] <= row["median"] for row in times.values())
        rows = {row["ratio"]: row for row in found["ratios"]["logreg"]}
        row = rows["R_f rank-1: step / own forward"]
        ratio = times["planned rank-1"]["minimum"] / times["dualgrad forward"]["minimum"]
        assert row[view] == pytest.approx(ratio) and row["target"] == 2.1
    assert not any("best" in name for name in rows)  # there was no peer
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_tangents_divides_by_the_directions(tmp_path):
    small = ("--width", "16", "--batch", "8", "--rounds", "3")
    found = figures(tmp_path, "tangents", *ALONE, *small, "--k", "1,3")
    times = found["views"]["all_cores"]
    assert [(row["structure"], row["k"]) for row in found["ratios"]] == [
        ("rank1", 1), ("rank1", 3), ("dense", 1), ("dense", 3)]  # fmt: skip
    for row in found["ratios"]:
        step = times[f"{row['structure']} k={row['k']}"]["minimum"]
        assert row["all_cores"]["ms"] == pytest.approx(1e3 * step / row["k"])


def test_elementwise_has_every_chain_in_both_dtypes(tmp_path):
    found = figures(tmp_path, "elementwise", "--size", "1000", "--rounds", "3")
    names = list(found["views"]["all_cores"])
    assert len(names) == 12 and names[0].startswith("float64") and names[-1].startswith("float32")


def test_functions_of_baydin_go_down(tmp_path):
    found = figures(tmp_path, "baydin", *ALONE, "--model", "functions", "--iterations", "300")
    for name, start in (("Beale", 14.203125), ("Rosenbrock", 104.0)):
        row = found["functions"][name]
        assert row["forward"]["final"] < start / 2 and row["backprop"]["final"] < start / 2
        assert row["ratio"] == pytest.approx(
            row["forward"]["microseconds"] / row["backprop"]["microseconds"]
        )


@pytest.mark.parametrize("peer", ["torch", "jax"])
def test_a_peer_that_is_there_is_timed(tmp_path, peer):
    pytest.importorskip(peer)
    small = ("--model", "cnn", "--channels", "4", "--batch", "8", "--rounds", "3", "--no-eager")
    found = figures(tmp_path, "steps", "--peers", peer, *small)
    assert f"{peer} backprop" in found["views"]["all_cores"]["cnn"]  # its checks held
    assert "rank-1 step / best backprop step" in {row["ratio"] for row in found["ratios"]["cnn"]}


class Stand:
    """A peer that takes the steps of logistic regression by dualgrad, some of them wrongly."""

    def __init__(self, model, data, scale):
        self.model, self.data, self.scale = model, data, scale

    layout = staticmethod(list)

    def load(self, weights):
        self.params = [w.copy() for w in weights]

    def weights(self):
        return self.params

    def _tree(self):
        return dg.tree.unflatten(dg.tree.flatten(self.model)[1], self.params)

    def _loss(self, model):
        return np.mean(dg.nn.cross_entropy(model(self.data[0]), self.data[1]))

    def backprop(self, lr):
        value, gradient = dg.value_and_gradient(self._loss, mode="reverse")(self._tree())
        gradient = [g for g in dg.tree.leaves(gradient) if g is not None]
        pairs = zip(self.params, gradient, strict=True)
        self.params = [w - self.scale * lr * g for w, g in pairs]
        return value

    def forward_gradient(self, lr):
        estimate = dg.forward_gradient(self._loss, distribution="normal")
        value, gradient = estimate(self._tree(), key=dg.Key(3))
        pairs = zip(self.params, dg.tree.leaves(gradient), strict=True)
        self.params = [w - self.scale * lr * g for w, g in pairs]
        return value

    def forward(self):
        return self.scale * self._loss(self._tree())


@pytest.mark.parametrize("what", ["forward", "forward gradient", "backprop"])
def test_a_wrong_peer_is_refused(what, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    models, peers = (importlib.import_module(name) for name in ("models", "peers"))
    model, data = models.build("logreg"), models.batch("logreg", 16)
    peers.check(Stand(model, data, 1.0), what, model, data)
    with pytest.raises(AssertionError):
        peers.check(
            Stand(model, data, 1.1 if what != "forward gradient" else 1.3), what, model, data
        )


@pytest.mark.slow
def test_baydin_compares_curves_that_begin_at_one_point(tmp_path):
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import importlib, runpy, sys\n"
        "import dualgrad as dg\n"
        "data = importlib.import_module('dualgrad.datasets.mnist')\n"
        "packaged = data._load(data._SUBSET, data.SUBSET_DIGESTS)\n"
        "dg.datasets.mnist = lambda: packaged\n"
        f"sys.path.insert(0, {str(FOLDER)!r})\n"
        f"runpy.run_path({str(FOLDER / 'baydin.py')!r}, run_name='__main__')\n"
    )
    path = tmp_path / "out.json"
    options = ("--model", "logreg", "--iterations", "50", "--rounds", "3", "--json", str(path))
    command = [sys.executable, str(driver), *ALONE, *options]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    found = json.loads(path.read_text())["experiments"]["logreg"]
    for table in ("paper", "tuned"):
        curves = [row["curve"] for row in found[table].values()]
        assert len(curves) == 3 and len({curve[0][1] for curve in curves}) == 1
    backward = found["tuned"]["backprop (vjp)"]
    assert backward["T"]["backprop (vjp)"]["T_f"] == backward["T"]["backprop (vjp)"]["T_b"]
    assert backward["test"]["accuracy"] > 0.5


@pytest.mark.slow
def test_depth_has_time_and_memory_of_each_depth(tmp_path):
    found = figures(tmp_path, "depth", *ALONE, "--depths", "1,2", "--width", "32", "--rounds", "3")
    for depth in ("1", "2"):
        assert set(found["memory"][depth]) == set(found["views"]["all_cores"][depth])


@pytest.mark.slow
def test_memory_sees_what_a_dense_direction_stores(tmp_path):
    found = figures(tmp_path, "memory", *ALONE, "--layers", "784,512,10", "--batch-size", "8")
    rows = {row["method"]: row for row in found["rows"]}
    assert rows["eager dense, k = 1"]["arrays"] > rows["eager dense, k = 1"]["parameters"]
    assert rows["eager rank-1, k = 1"]["arrays"] < rows["eager rank-1, k = 1"]["parameters"] / 2


@pytest.mark.slow
def test_regress_compares_with_an_older_file(tmp_path):
    small = ("--width", "32", "--batch", "8", "--rounds", "3")
    found = figures(tmp_path, "regress", *small)
    assert found["rows"]["np.matmul 64x1024x1024"]["ratio"] == 1
    text = run("regress", *small, "--against", str(tmp_path / "out.json"))
    assert "over older" in text


@pytest.mark.slow
def test_overhead_has_the_first_step(tmp_path):
    found = figures(tmp_path, "overhead", "--rounds", "1", "--width", "32")
    assert 0 < found["first_step"]["warm"] and set(found["import"]) == {"numpy", "dualgrad"}
