"""benchmarks/: every script explains itself and, on tiny sizes, writes figures that agree."""

import importlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import dualgrad as dg

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
SHARED = set(
    """catalogue cells curves functions gpu_cases gpu_child gpu_contestants gpu_peers
    gpu_report gpu_trainers jax_peer models peers timing torch_peer""".split()
)
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


def run_on_packaged_images(folder, script, *arguments):
    """Return what a script prints that trains on MNIST, here on the images that ship with us."""
    driver = folder / "driver.py"
    driver.write_text(
        "import importlib, runpy, sys\n"
        "import dualgrad as dg\n"
        "data = importlib.import_module('dualgrad.datasets.mnist')\n"
        "packaged = data.load_idx(data._SUBSET, data.SUBSET_DIGESTS)\n"
        "dg.datasets.mnist = lambda: packaged\n"
        f"sys.path.insert(0, {str(FOLDER)!r})\n"
        f"runpy.run_path({str(FOLDER / (script + '.py'))!r}, run_name='__main__')\n"
    )
    command = [sys.executable, str(driver), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


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
        assert {"dualgrad forward", "planned rank-1", "backprop by vjp"} <= set(times)
        assert all(0 < row["minimum"] <= row["median"] for row in times.values())
        rows = {row["ratio"]: row for row in found["ratios"]["logreg"]}
        row = rows["R_f rank-1: step / own forward"]
        ratio = times["planned rank-1"]["minimum"] / times["dualgrad forward"]["minimum"]
        assert row[view] == pytest.approx(ratio) and row["target"] == 2.1
    assert not any("best" in name for name in rows)  # there was no peer
    assert picture.read_bytes().startswith(b"\x89PNG")


def refused(script, *arguments):
    """Return the one line in which a script says what is wrong with its options."""
    command = [sys.executable, str(FOLDER / f"{script}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == "" and line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("script", "options", "said"),
    [
        ("tangents", ["--k", "4,0"], "'0' is not a whole number of at least 1"),
        ("depth", ["--depths", "a"], "'a' is not a whole number of at least 1"),
        ("steps", ["--seconds", "nan"], "'nan' is not a finite number above zero"),
        ("steps", ["--peers", "tensorflow"], "known: torch, compile, jax, none"),
        ("steps", ["--plot", "steps.jpgg"], "does not end in '.png'"),
        ("kernels", ["--json", "nowhere/out.json"], "cannot write"),
        ("regress", ["--against", "nowhere.json"], "there is no file 'nowhere.json'"),
        ("steps", [*ALONE, "--only", "rank1"], "there are names with rank-1, dense"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_two(script, options, said):
    assert said in refused(script, *options)


def test_only_times_what_is_named(tmp_path):
    small = ("--batch", "8", "--rounds", "3", "--only", "rank-1,vjp")
    found = figures(tmp_path, "steps", *ALONE, "--model", "logreg", *small)
    assert set(found["views"]["all_cores"]["logreg"]) == {
        "planned rank-1", "eager rank-1", "planned rank-1 k=16", "eager rank-1 k=16",
        "backprop by vjp"}  # fmt: skip


def test_rows_called_planned_run_as_plans_and_the_others_do_not(monkeypatch, capsys):
    pytest.importorskip("numba")
    monkeypatch.syspath_prepend(str(FOLDER))
    models = importlib.import_module("models")
    model, data = models.build("logreg"), models.batch("logreg", 8)
    planned = models.PLANNED | models.MORE_PLANNED
    for name, given in (planned | models.EAGER | models.MORE_EAGER).items():
        step = dg.training_step(models.loss, dg.optim.sgd(models.LR), **given)
        step.explain(step.init(model, models.KEY), *data)
        assert ("eager" in capsys.readouterr().out) == (name not in planned), name


def test_a_table_keeps_its_columns(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    timing = importlib.import_module("timing")
    numbers = [0.5, 999.4, 999.7, 2360.4075700022804, 1.5e6, 4e9, float("nan"), None]
    shown = ["0.5", "999", "1,000", "2,360", "1,500,000", "4e+09", "nan", "-"]
    assert [timing.cell(x) for x in numbers] == shown
    rows = timing.table(["", "a", "b"], [[str(x), x, 1.0] for x in numbers]).splitlines()
    assert len({len(row) for row in rows}) == 1


def test_what_is_missing_for_a_comparison_is_named_once(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    peers = importlib.import_module("peers")
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert peers.available("torch,compile,jax") == []
    assert "pip install torch jax (or the extra `benchmarks`)" in capsys.readouterr().err


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


def test_estimators_keep_their_laws(tmp_path):
    lines, path = tmp_path / "cells.jsonl", tmp_path / "out.json"
    picture = tmp_path / "estimators.png"
    small = ("--width", "16", "--batch", "32", "--steps", "20", "--repeats", "20", "--rounds", "3",
             "--only", "backprop,activations,rank-1 signs,last update,local,groups", "--cells",
             str(lines), "--json", str(path), "--plot", str(picture), "--markdown")  # fmt: skip
    text = run_on_packaged_images(tmp_path, "estimators", *small)
    found = json.loads(path.read_text())
    rows = {(row["network"], row["name"]): row for row in found["rows"]}
    assert found["disagreements"] == [] and "within 4 standard errors" in text
    for network in ("untrained", "trained"):
        assert rows[network, "backprop"]["cosine"] == pytest.approx(1)
        exact = rows[network, "groups of 1, k=1"]  # u^2 = 1: one unit a group, one pass
        assert exact["bias"] < 1e-6 and exact["variance"] < 1e-12 and exact["cost"] > 0
        law = rows[network, "rank-1 signs, k=16"]["law"]
        d = 784 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10
        assert law == {"along": 1, "bias": 0, "variance": (d - 1) / 16, "spread": 0}
        groups = [rows[network, f"groups of {n}, k=1"]["law"]["variance"] for n in (16, 8, 1)]
        assert groups[0] > groups[1] > groups[2] == 0
    assert max(len(line) for line in text.splitlines() if line.startswith("| ")) <= 125
    assert picture.read_bytes().startswith(b"\x89PNG")
    first = lines.read_text().splitlines()
    changed = json.dumps(json.loads(first[-1]) | {"cosine": 0.25})
    lines.write_text("\n".join([*first[:-2], changed, first[-2][:30]]))  # stopped in mid-line
    run_on_packaged_images(tmp_path, "estimators", *small)
    again = json.loads(path.read_text())["rows"]
    assert again[-1] == found["rows"][-1] | {"cosine": 0.25}
    assert again[:-1] == found["rows"][:-1] and len(lines.read_text().splitlines()) == len(first)
    other = [line.replace(found_data(first), "of other images") for line in first]
    lines.write_text("\n".join(other) + "\n")  # nothing is taken from them
    run_on_packaged_images(tmp_path, "estimators", *small[:-3], "--only", "backprop")
    assert len(lines.read_text().splitlines()) == len(first) + 3


def found_data(lines):
    """Return what stands in the settings of cells for the images they were measured with."""
    time, *rest = (json.loads(line) for line in lines)
    name, images = time["settings"][:2]
    assert name == "time" and all("law" in cell for cell in rest)
    assert all(cell["settings"][2] == images for cell in rest)  # after network and estimator
    return images


def test_the_fingerprint_of_images_tells_data_sets_apart(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    estimators = importlib.import_module("estimators")
    x, y = np.arange(80.0).reshape(40, 2), np.arange(40)
    options = types.SimpleNamespace(batch=2)

    def of(x, y):
        return estimators.fingerprint(types.SimpleNamespace(train=(x, y)), options)

    assert of(x, y) == of(x.copy(), y)
    assert len({of(x, y), of(x[:-1], y[:-1]), of(x + 1, y), of(x, y + 1)}) == 4


def test_an_interrupt_ends_a_script_in_one_line(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    timing = importlib.import_module("timing")

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        timing.run(interrupted)
    assert ended.value.code == 130 and capsys.readouterr().err.count("\n") == 1
    for name in ("frog", "fournier", "estimators"):
        assert "timing.run(main)" in (FOLDER / f"{name}.py").read_text()


def test_frog_is_quick_where_it_is_asked_to_be(tmp_path):
    picture = tmp_path / "frog.png"
    found = figures(tmp_path, "frog", "--quick", "--plot", str(picture))["cells"]
    assert {c["steps"] for c in found} == {100} and {c["n"] for c in found} == {2, 8}
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_frog_goes_on_where_it_stopped(tmp_path):
    lines = tmp_path / "cells.jsonl"
    small = ("--functions", "sphere,rosenbrock", "--n", "1,8", "--k", "1,8", "--steps", "60",
             "--cells", str(lines))  # fmt: skip
    found = figures(tmp_path, "frog", *small)["cells"]
    cells = {(c["function"], c["n"], c["method"], c["k"]): c for c in found}
    assert len(cells) == len(found) == 3 + 5 + 5  # k <= n; Rosenbrock has two numbers or more
    assert [json.loads(line) for line in lines.read_text().splitlines()] == found
    assert all(c["median"] < c["n"] for c in found if c["function"] == "sphere")  # the start
    whole = cells["sphere", 8, "FROG", 8], cells["sphere", 8, "gradient", 0]
    assert whole[0]["rate"] == whole[1]["rate"]  # eight directions of eight: the gradient
    first = json.dumps(found[0] | {"median": 123.0})
    lines.write_text(first + "\n" + first[:20])  # as after an interruption in mid-line
    again = figures(tmp_path, "frog", *small)["cells"]
    assert again[0]["median"] == 123.0 and len(lines.read_text().splitlines()) == len(found)
    without = [{name: c[name] for name in c if name != "seconds"} for c in found[1:]]
    assert [{name: c[name] for name in c if name != "seconds"} for c in again[1:]] == without


@pytest.mark.parametrize("function", ["sphere", "rosenbrock", "styblinski"])
def test_steps_of_frog_are_those_of_forward_gradient(function, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    frog = importlib.import_module("frog")
    problem = frog.PROBLEMS[function]
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(2, 3, 6)), rng.normal(size=(4, 2, 6))  # 2 seeds, 3 rates, 4 directions
    d = frog.derivatives(problem.function, x, v)
    exact = frog.gradients(problem.function, x)
    for seed, rate in np.ndindex(2, 3):
        at, guess = x[seed, rate], list(v[:, seed])
        np.testing.assert_allclose(exact[seed, rate], dg.gradient(problem.function)(at), rtol=1e-10)
        for method, combine in (("mean", "mean"), ("FROG", "projection")):
            fg = dg.forward_gradient(problem.function, guess=guess, combine=combine)
            g = frog.ESTIMATES[method](d, v)[seed, rate]
            np.testing.assert_allclose(g, fg(at, key=dg.Key(0))[1], rtol=1e-8)


@pytest.mark.parametrize("function", ["sphere", "rosenbrock", "styblinski"])
def test_minima_of_frog_are_minima(function, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    problem = importlib.import_module("frog").PROBLEMS[function]
    at = {"sphere": 0.0, "rosenbrock": 1.0, "styblinski": -2.903534027771177}[function]
    x = np.full(5, at)
    assert problem.function(x) == pytest.approx(5 * problem.minimum, abs=1e-12)
    np.testing.assert_allclose(dg.gradient(problem.function)(x), 0, atol=1e-12)


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
    path = tmp_path / "out.json"
    options = ("--model", "logreg", "--iterations", "50", "--rounds", "3", "--json", str(path))
    run_on_packaged_images(tmp_path, "baydin", *ALONE, *options)
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
def test_rnn_has_time_and_memory_of_each_length(tmp_path):
    picture = tmp_path / "rnn.png"
    small = ("--directions", "16", "--rounds", "3")
    found = figures(tmp_path, "rnn", *small, "--lengths", "10,100", "--plot", str(picture))
    for name, rows in found["rows"].items():
        assert [row["length"] for row in rows] == [10, 100]
        assert all(0 < row["minimum"] <= row["median"] for row in rows)
        growth = rows[1]["arrays"] / rows[0]["arrays"]
        assert growth == pytest.approx(found["growth"][name])
        assert growth < 1.5 if name == "forward, weights" else growth > 4
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_memory_sees_what_a_dense_direction_stores(tmp_path):
    found = figures(tmp_path, "memory", *ALONE, "--layers", "784,512,10", "--batch-size", "8")
    rows = {row["method"]: row for row in found["rows"]}
    assert rows["eager dense, k = 1"]["arrays"] > rows["eager dense, k = 1"]["parameters"]
    assert rows["eager rank-1, k = 1"]["arrays"] < rows["eager rank-1, k = 1"]["parameters"] / 2


@pytest.mark.slow
def test_memory_of_guided_gradients_is_beside_backprops(tmp_path):
    small = ("--model", "resnet18", "--width", "0.125", "--batch-size", "32")
    found = figures(tmp_path, "memory", *ALONE, *small)
    rows = {row["method"]: row for row in found["rows"]}
    assert set(rows) == {
        "backprop",
        *(f"local guess, {s}" for s in ("weight", "module", "activation")),
    }
    arrays = [rows[f"local guess, {s}"]["arrays"] for s in ("weight", "activation")]
    assert 0 < min(arrays) and max(arrays) < 0.8 * rows["backprop"]["arrays"]
    # a tangent for each block before the one in hand
    assert max(arrays) < rows["local guess, module"]["arrays"] < rows["backprop"]["arrays"]


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
