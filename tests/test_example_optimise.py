"""examples/optimise.py: its figures, its method against dg.forward_gradient, bad arguments."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import dualgrad as dg

SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "optimise.py"


@pytest.fixture(scope="module")
def optimise():
    spec = importlib.util.spec_from_file_location("example_optimise", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(optimise, folder, *options):
    """Return what the example writes into its JSON file."""
    paths = ["--plot", str(folder / "out.png"), "--json", str(folder / "out.json")]
    assert optimise.main([*options, *paths]) == 0
    return json.loads((folder / "out.json").read_text())


def test_both_functions_give_a_table_a_picture_and_figures(optimise, tmp_path, capsys):
    report = run(optimise, tmp_path, "--seeds", "3", "--iterations", "200", "--seed", "5")
    assert (report["seeds"], report["seed"], report["directions"]) == (3, 5, 1)
    assert report["distribution"] == "rademacher"
    assert list(report["functions"]) == ["beale", "rosenbrock"]
    for name, initial, lr in (("beale", 14.203125, 0.01), ("rosenbrock", 104.0, 5e-4)):
        figures = report["functions"][name]
        assert (figures["initial"], figures["lr"]) == (initial, lr)
        assert figures["iterations"] == 200
        forward, exact = figures["forward_gradient"], figures["gradient_descent"]
        assert (len(forward["final"]), len(exact["final"])) == (3, 1)
        assert len(set(forward["final"])) == 3  # each run has its own directions
        assert sorted(forward["final"]) == [forward["min"], forward["median"], forward["max"]]
        assert 0 < forward["max"] < initial / 10 and 0 < exact["median"] < initial / 10
        assert figures["ratio"] == pytest.approx(forward["median"] / exact["median"])
        assert forward["steps_per_second"] == pytest.approx(200 / forward["seconds"])
    out = capsys.readouterr().out
    assert "Beale: rate 0.01, 200 iterations" in out and "Rosenbrock: rate 0.0005" in out
    assert out.count("ratio of medians") == 2
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
def test_beale_gets_as_low_as_by_gradient_descent(optimise, tmp_path, distribution):
    report = run(optimise, tmp_path, "--function", "beale", "--distribution", distribution)
    figures = report["functions"]["beale"]
    assert figures["forward_gradient"]["median"] <= 1e-4
    assert 0.5 <= figures["ratio"] <= 2


@pytest.mark.slow
@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
def test_rosenbrock_gets_as_low_as_by_gradient_descent(optimise, tmp_path, distribution):
    report = run(optimise, tmp_path, "--function", "rosenbrock", "--distribution", distribution)
    figures = report["functions"]["rosenbrock"]
    assert figures["forward_gradient"]["median"] <= 1e-5
    assert 0.5 <= figures["ratio"] <= 2


@pytest.mark.parametrize("k", [1, 3])
def test_each_run_takes_the_steps_of_forward_gradient(optimise, k):
    problem = optimise.PROBLEMS["beale"]
    keys = [dg.Key(1), dg.Key(2)]
    runs = optimise.forward_gradient_descent(problem, keys, k, "normal", range(30))
    directions = optimise.random_directions(keys, k, "normal")
    points = [np.array(problem.start) for _ in keys]
    for step, v in zip(range(30), directions, strict=False):
        for i, point in enumerate(points):
            guess = [v[:, j, i] for j in range(k)]
            estimate = dg.forward_gradient(lambda p: problem.function(p[0], p[1]), guess=guess)
            value, gradient = estimate(point, key=dg.Key(0))
            assert runs.values[step, i] == pytest.approx(value, rel=1e-9)
            point -= problem.lr * gradient
            np.testing.assert_allclose(runs.points[step + 1, :, i], point, rtol=1e-9)


def test_directions_of_a_run_do_not_depend_on_the_others(optimise):
    keys = [dg.Key(seed) for seed in range(3)]
    alone = optimise.random_directions(keys[:1], 2, "rademacher")
    together = optimise.random_directions(keys, 2, "rademacher")
    steps = range(optimise.BLOCK + 5)  # into the second block
    rows = [(a, t) for _, a, t in zip(steps, alone, together, strict=False)]
    assert all(np.array_equal(a[..., 0], t[..., 0]) for a, t in rows)
    assert not np.array_equal([a for a, _ in rows[:5]], [a for a, _ in rows[-5:]])


def test_gradient_descent_follows_the_exact_gradient(optimise):
    problem = optimise.PROBLEMS["rosenbrock"]
    runs = optimise.gradient_descent(problem, range(50))
    x, y = problem.start
    for step in range(50):
        dx, dy = -2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)
        x, y = x - problem.lr * dx, y - problem.lr * dy
        np.testing.assert_allclose(runs.points[step + 1, :, 0], (x, y), rtol=1e-9)
    assert runs.values[-1, 0] == pytest.approx((1 - x) ** 2 + 100 * (y - x * x) ** 2)


def test_minima_are_where_the_picture_marks_them(optimise):
    for problem in optimise.PROBLEMS.values():
        assert problem.function(*problem.minimum) == 0


def test_more_directions_scatter_less(optimise):
    problem, keys = optimise.PROBLEMS["beale"], [dg.Key(seed) for seed in range(200)]
    spread = []
    for k in (1, 16):
        runs = optimise.forward_gradient_descent(problem, keys, k, "normal", range(1))
        spread.append(np.var(runs.points[1], axis=1).sum())
    # The variance falls as 1/k. The ratio of two variances of 200 runs is within a factor 2 of 16.
    assert 8 < spread[0] / spread[1] < 32


def test_a_rate_that_diverges_is_reported(optimise, tmp_path, capsys):
    report = run(optimise, tmp_path, "--lr", "1", "--seeds", "2", "--iterations", "300")
    for figures in report["functions"].values():
        assert figures["forward_gradient"]["median"] is None
        assert figures["ratio"] is None
    assert "nan" in capsys.readouterr().out
    assert (tmp_path / "out.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lr", "nan"], "'nan' is not a finite number above zero"),
        (["--lr", "0"], "'0' is not a finite number above zero"),
        (["--lr", "-1"], "'-1' is not a finite number above zero"),
        (["--lr", "fast"], "'fast' is not a finite number above zero"),
        (["--lr", "inf"], "'inf' is not a finite number above zero"),
        (["--seeds", "0"], "'0' is not a whole number of at least 1"),
        (["--iterations", "1.5"], "'1.5' is not a whole number of at least 1"),
        (["--directions", "-2"], "'-2' is not a whole number of at least 1"),
        (["--seed", "-1"], "-1 is not from 0 to 2**64"),
        (["--seed", str(2**64 - 1)], "is not from 0 to 2**64"),
        (["--function", "ackley"], "invalid choice: 'ackley'"),
        (["--distribution", "cauchy"], "invalid choice: 'cauchy'"),
        (["--plot", "picture.pdf"], "'picture.pdf' does not end in '.png'"),
        (["--plot", "nowhere/picture.png"], "there is no folder 'nowhere'"),
        (["--json", "."], "'.' is a folder"),
        (["--momentum", "0.9"], "unrecognized arguments: --momentum"),
    ],
)
def test_bad_arguments_end_with_code_2_and_one_line(
    optimise, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        optimise.main(options)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named_with_the_command_that_installs_it(optimise, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        optimise.main([])
    assert caught.value.code == 2
    assert "python -m pip install tqdm matplotlib" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_one_line_after_the_table(optimise, tmp_path, capsys):
    options = ["--function", "beale", "--seeds", "1", "--iterations", "2", "--json", "/dev/full"]
    assert optimise.main([*options, "--plot", str(tmp_path / "out.png")]) == 2
    captured = capsys.readouterr()
    assert "ratio of medians" in captured.out
    assert "No space left" in captured.err.splitlines()[-1]
