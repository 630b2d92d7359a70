"""examples/science.py: its figures, its picture, and bad arguments."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import dualgrad as dg

SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "science.py"
pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def science():
    spec = importlib.util.spec_from_file_location("example_science", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def short(science, monkeypatch):
    """The example with a shorter stiff run and a shorter orbit."""
    monkeypatch.setattr(science, "END", 10.0)
    monkeypatch.setattr(science, "STEPS", 60)
    return science


def test_every_problem_gives_figures_a_table_and_a_picture(short, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / "science.json"
    assert short.main(["--plot", str(tmp_path / "s.png"), "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert list(report) == ["root", "fit", "stiff", "orbit"]
    for figures in report.values():
        exact, differences = figures["rows"]
        assert (exact["jacobian"], differences["jacobian"]) == ("dg.jacobian", "differences")
        assert exact["error"] < 1e-9 and differences["error"] >= exact["error"]
        assert 0 < exact["calls"] < differences["calls"]
    measures = {name: figures["rows"][0]["measure"] for name, figures in report.items()}
    assert measures["root"] < 1e-10 and measures["fit"] < 1e-5 and measures["stiff"] < 1e-12
    assert report["orbit"]["rows"][0]["calls"] == 1
    out = capsys.readouterr().out
    assert out.count("dg.jacobian") == 4 and "mass that is lost" in out and "s.png" in out
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_formulas_by_hand_are_the_derivatives(science):
    dg.check_jvp(science.bratu, (np.linspace(0.1, 0.2, science.POINTS),), order=2)
    dg.check_jvp(science.oscillation, (science.TRUE,), order=2)
    dg.check_jvp(lambda y: science.robertson(0.0, y) / 1e4, (np.array([0.5, 0.3, 0.4]),), order=2)
    y = np.array([0.5, 1e-5, 0.5])
    np.testing.assert_allclose(
        dg.jacobian(lambda y: science.robertson(0.0, y))(y), science.robertson_by_hand(y)
    )
    np.testing.assert_allclose(
        dg.jacobian(science.oscillation)(science.TRUE), science.oscillation_by_hand(science.TRUE),
        rtol=1e-12, atol=1e-14,
    )  # fmt: skip


def test_one_problem_without_a_picture_writes_nothing(short, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert short.main(["--problem", "fit"]) == 0
    assert "80 data" in capsys.readouterr().out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options, words",
    [
        (["--problem", "chaos"], "invalid choice"),
        (["--plot", "picture.pdf"], "does not end in '.png'"),
        (["--plot", "/nowhere/at/all.png"], "is no file in a folder that exists"),
        (["--json", "."], "is no file in a folder that exists"),
    ],
)
def test_bad_arguments_end_with_code_2_and_say_why(science, options, words, capsys):
    with pytest.raises(SystemExit) as caught:
        science.main(options)
    assert caught.value.code == 2 and words in capsys.readouterr().err


def test_a_missing_package_is_named(science, monkeypatch, capsys):
    monkeypatch.setattr(science.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        science.main(["--plot", "x.png"])
    assert caught.value.code == 2
    assert "pip install scipy matplotlib" in capsys.readouterr().err


def test_help_names_the_problems(science, capsys):
    with pytest.raises(SystemExit) as caught:
        science.main(["--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0 and all(f"    {name} " in out for name in science.PROBLEMS)
