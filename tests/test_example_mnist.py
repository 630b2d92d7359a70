"""examples/mnist.py: every model and method, resuming, interruptions, and what users get wrong."""

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from example_case import (
    EXAMPLES,
    assert_missing_device_is_said,
    assert_same_on_the_device,
    assert_same_tensors,
    loaded,
    runner,
)
from safetensors.numpy import load_file

import dualgrad as dg

data = importlib.import_module("dualgrad.datasets.mnist")

# Runs the script on packaged images, never the network, and may stop for ever before a batch.
DRIVER = f"""
import importlib, sys, threading
sys.path.insert(0, {str(EXAMPLES)!r})
import dualgrad as dg
data = importlib.import_module("dualgrad.datasets.mnist")
(x, y), (x_test, y_test) = data.load_idx(data._SUBSET, data.SUBSET_DIGESTS)
dg.datasets.mnist = lambda folder: ((x[::20], y[::20]), (x_test[::10], y_test[::10]))
stop_before, batches = int(sys.argv.pop(1)), dg.datasets.batches

def stopping(*args, **options):
    for number, batch in enumerate(batches(*args, **options)):
        if number == stop_before:
            print("stopped", flush=True)
            threading.Event().wait()
        yield batch

dg.datasets.batches = stopping
import mnist, trainer
sys.exit(trainer.run(mnist.main))
"""


@pytest.fixture(scope="module")
def subset():
    """500 training and 150 test images that ship with the package, all digits alike."""
    (x, y), (x_test, y_test) = data.load_idx(data._SUBSET, data.SUBSET_DIGESTS)
    return (x[::20], y[::20]), (x_test[::10], y_test[::10])


@pytest.fixture
def script(monkeypatch, subset):
    """The modules (mnist, trainer), on the small data unless a folder is given."""
    monkeypatch.delenv("DUALGRAD_DATA", raising=False)
    load = dg.datasets.mnist
    monkeypatch.setattr(dg.datasets, "mnist", lambda d=None: load(d) if d else subset)
    with loaded("mnist", monkeypatch) as modules:
        yield modules


@pytest.fixture
def train(script, tmp_path):
    """train(*options) runs the script and returns (exit code, what --json wrote or None)."""
    return runner(script, tmp_path)


# --- what a run gives


def test_the_summary_says_what_was_done(train, capsys):
    code, summary = train("--model", "logreg", "--steps", 60, "--seed", 3)
    assert code == 0
    assert summary["model"] == "logreg" and summary["method"] == "forward"
    assert summary["parameters"] == 7850
    assert summary["steps"] == 60 and summary["finished"] and not summary["full_test_set"]
    assert summary["perturb"] == "activations" and summary["structure"] == "dense"
    assert summary["seed"] == 3 and summary["batch_size"] == 64 and summary["lr"] > 0
    assert summary["seconds"] > 0 and summary["diagnose"] == []
    assert summary["train_loss"] < 2.2 and summary["test_loss"] < 2.0  # log 10 = 2.30 at first
    assert 0.4 < summary["test_accuracy"] <= 1
    shown = capsys.readouterr()
    assert f"test accuracy {summary['test_accuracy']:.4f}" in shown.out
    assert "60/60" in shown.err and "loss" in shown.err  # the progress bar


def test_epochs_count_the_batches_of_the_data(train):
    _, summary = train("--model", "logreg", "--epochs", 2, "--batch-size", 100)
    assert summary["steps"] == 10


@pytest.mark.parametrize(
    "model, options",
    [
        ("mlp", ()),
        ("mlp", ("--losses", "global")),
        ("mlp", ("--losses", "local", "--method", "backprop")),
        ("localmixer", ()),
        ("localmixer", ("--method", "backprop")),
        ("mlp", ("--perturb", "weights")),
        ("mlp", ("--method", "backprop")),
        ("logreg", ("--perturb", "weights", "--structure", "dense", "--directions", "2")),
        ("logreg", ("--method", "backprop")),
    ],
)
def test_every_model_and_method_runs(train, model, options):
    code, summary = train("--model", model, "--steps", 3, *options)
    assert code == 0 and summary["steps"] == 3
    local = summary["losses"] == "local"
    what = "sum of %d local losses" if local else "the network's loss"
    blocks = {"mlp": 2, "cnn": 3, "localmixer": 2}.get(summary["model"], 0)
    assert summary["train_loss_is"] == (what % blocks if local else what)
    sizes = {"mlp": 674_836 if local else 1_863_690, "logreg": 7850, "localmixer": 429_076}
    assert summary["parameters"] == sizes[model]
    assert local == (model != "logreg" and options == () or "local" in options)
    assert np.isfinite([summary["train_loss"], summary["test_loss"]]).all()
    backprop = "backprop" in options
    assert summary["method"] == ("backprop" if backprop else "forward")
    assert (summary["directions"] is None) == backprop


@pytest.mark.parametrize(
    "options",
    [(), ("--losses", "global"), ("--perturb", "weights"), ("--method", "backprop")],
)
def test_the_convolutional_model_runs(train, script, subset, monkeypatch, options):
    (x, y), (x_test, y_test) = subset
    few = [int(np.argmax(y_test == digit)) for digit in range(10)]
    tiny = (x[:32], y[:32]), (x_test[few], y_test[few])
    monkeypatch.setattr(dg.datasets, "mnist", lambda d: tiny)
    code, summary = train("--model", "cnn", "--steps", 2, "--batch-size", 4, "--lr", 1e-5, *options)
    assert code == 0 and summary["steps"] == 2
    assert summary["parameters"] == (94_942 if summary["losses"] == "local" else 3_333_962)
    assert np.isfinite(summary["test_loss"])


def test_the_same_seed_gives_the_same_run_and_another_another(train):
    runs = [train("--model", "logreg", "--steps", 5, "--seed", seed)[1] for seed in (1, 1, 2)]
    losses = [run["test_loss"] for run in runs]
    assert losses[0] == losses[1] != losses[2]


def test_the_plot_is_a_picture(train, tmp_path):
    path = tmp_path / "loss.png"
    code, _ = train("--model", "logreg", "--steps", 5, "--plot", path)
    assert code == 0
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


def test_diagnose_compares_with_the_true_gradient(train, capsys):
    code, summary = train("--model", "logreg", "--steps", 20, "--directions", 4, "--diagnose")
    assert code == 0
    rows = summary["diagnose"]
    assert [row["step"] for row in rows] == list(range(0, 20, 2))
    assert all(0.2 < row["cosine"] < 1 and 0 < row["variance"] for row in rows)
    assert capsys.readouterr().out.count("cosine") == 10
    _, same = train("--model", "logreg", "--steps", 20, "--directions", 4)
    assert same["test_loss"] == summary["test_loss"]  # looking changes nothing


# --- checkpoints and interruptions


def small(path, *options):
    return ("--model", "logreg", "--steps", 40, "--checkpoint", path, *options)


@pytest.mark.parametrize(
    "options", [(), ("--shift", 1), ("--perturb", "weights"), ("--method", "backprop")]
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(train, script, monkeypatch, options, tmp_path):
    """Ctrl-C in the middle: checkpoint and summary are written, the code is 130."""
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    _, expected = train(*small(whole, *options))
    batches = dg.datasets.batches

    def interrupted(*args, **keywords):
        for number, batch in enumerate(batches(*args, **keywords)):
            if number == 5:
                signal.raise_signal(signal.SIGINT)
            yield batch

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(dg.datasets, "batches", interrupted)
        code, summary = train(*small(cut, *options))
    assert code == 130 and summary["steps"] == 6 and not summary["finished"]
    assert signal.getsignal(signal.SIGINT) is before
    code, summary = train(*small(cut, "--resume", *options))
    assert code == 0 and summary["steps"] == 40
    assert_same_tensors(whole, cut)
    assert summary["test_loss"] == expected["test_loss"]
    code, again = train(*small(cut, "--resume", *options))  # nothing is left to do
    assert code == 0 and again["test_loss"] == expected["test_loss"]
    assert again["train_loss"] is None and expected["train_loss"] > 0
    assert_same_tensors(whole, cut)


def test_ctrl_c_outside_the_loop_ends_without_a_traceback(train, script, monkeypatch, capsys):
    monkeypatch.setattr(script[1], "evaluate", lambda *args: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job has none
    try:
        code, _ = train("--model", "logreg", "--steps", 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130
    assert "Traceback" not in capsys.readouterr().err


def drive(stop_before, options):
    command = [sys.executable, "-c", DRIVER, str(stop_before), *map(str, options)]
    root = os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": root}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_a_killed_run_that_is_resumed_ends_as_an_uninterrupted_one(train, tmp_path):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    train(*small(whole))
    options = small(cut, "--checkpoint-every", 2)
    process = drive(5, options)
    assert process.stdout.readline() == "stopped\n", process.stderr.read()
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    saved = load_file(cut)
    assert any(not np.array_equal(a, saved[name]) for name, a in load_file(whole).items())
    resumed = drive(-1, (*options, "--resume"))
    out, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    assert "40 steps" in out
    assert_same_tensors(whole, cut)


def test_divergence_stops_and_keeps_the_last_good_checkpoint(train, capsys, tmp_path):
    path = tmp_path / "state.safetensors"
    options = ("--model", "mlp", "--perturb", "weights", "--lr", 10, "--checkpoint", path)
    code, summary = train(*options, "--steps", 50, "--checkpoint-every", 1)
    assert code == 1 and summary is None
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: training diverged") and "Lower --lr (now 10)" in line
    assert str(path) in line
    saved = load_file(path)
    assert all(np.isfinite(tensor).all() for tensor in saved.values())


# --- what users get wrong


@pytest.mark.parametrize(
    "options, said",
    [
        (("--model", "resnet"), "invalid choice: 'resnet'"),
        (("--optimiser", "adam"), "unrecognized arguments"),
        (("--steps", "0"), "--steps"),
        (("--steps", "few"), "--steps"),
        (("--steps", "3", "--epochs", "1"), "not allowed with"),
        (("--lr", "nan"), "nan is not a finite number"),
        (("--lr", "-1"), "--lr"),
        (("--directions", "-2"), "--directions"),
        (("--structure", "rank1"), "--perturb weights"),
        (("--method", "sgd"), "invalid choice"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_code_two(script, capsys, options, said):
    with pytest.raises(SystemExit) as caught:
        script[0].main(list(options))
    shown = capsys.readouterr()
    assert caught.value.code == 2 and shown.out == ""
    assert len(shown.err.splitlines()) == 1 and said in shown.err


def refused(train, capsys, *options):
    """Return the one line on stderr of a run that must fail with exit code 2."""
    capsys.readouterr()
    code, summary = train(*options)
    shown = capsys.readouterr()
    assert code == 2 and summary is None and shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    "options, said",
    [
        (("--seed", -1), "seed"),
        (("--data-dir", "/nonexistent"), "/nonexistent"),
        (("--checkpoint", "/nonexistent/a.safetensors"), "--checkpoint"),
        (("--checkpoint", os.devnull), "no ordinary file"),
        (("--plot", "/nonexistent/a.png"), "--plot"),
        (("--plot", "nowhere.jpgg"), ".png"),
        (("--resume",), "--resume needs --checkpoint"),
        (("--batch-size", 501), "501"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_exit_code_two(train, capsys, options, said):
    assert said in refused(train, capsys, "--model", "logreg", "--steps", 3, *options)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that nobody can write to")
@pytest.mark.parametrize("option", ["--checkpoint", "--plot"])
def test_a_file_that_cannot_be_written_is_refused_before_training(train, capsys, option):
    line = refused(train, capsys, "--model", "logreg", "--steps", 3, option, "/proc/a.png")
    assert f"{option} /proc/a.png: cannot be written" in line


def test_the_check_of_a_file_leaves_it_as_it_was(script, tmp_path):
    _, trainer = script
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("kept")
    trainer.check_writable("checkpoint", old)
    trainer.check_writable("checkpoint", new)
    assert old.read_text() == "kept" and list(tmp_path.iterdir()) == [old]


def test_damaged_data_is_refused_by_file(train, capsys, tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name in data.DIGESTS:
        (folder / name).write_bytes(b"\x00\x00\x08\x03 cut short")
    line = refused(train, capsys, "--model", "logreg", "--data-dir", tmp_path)
    assert str(folder) in line and "SHA-256" in line


def test_a_checkpoint_that_is_missing_damaged_or_of_another_run_is_refused(train, capsys, tmp_path):
    path = tmp_path / "state.safetensors"
    resume = small(path, "--resume")
    assert "no checkpoint there" in refused(train, capsys, *resume)
    train(*small(path))
    content = path.read_bytes()
    for other in (("--seed", 1), ("--batch-size", 32), ("--method", "backprop")):
        assert "Resume with the same options" in refused(train, capsys, *resume, *other)
    line = refused(train, capsys, *resume, "--lr", 0.25, "--shift", 2)
    assert "was made with lr 0.5, shift 0, this run has lr 0.25, shift 2." in line
    assert str(path) in refused(train, capsys, *resume, "--model", "mlp")
    path.write_bytes(content[:-10])
    assert "damaged" in refused(train, capsys, *resume)
    assert path.read_bytes() == content[:-10]  # nothing is written over what was not understood


# --- real training


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, accuracy",
    [
        (("--model", "logreg", "--epochs", 5), 0.88),
        (("--model", "logreg", "--perturb", "weights"), 0.85),
        (("--model", "mlp", "--epochs", 1, "--lr", 0.03), 0.75),
    ],
)
def test_training_on_the_packaged_images_reaches_an_accuracy(
    script, monkeypatch, tmp_path, options, accuracy
):
    mnist, trainer = script
    whole = data.load_idx(data._SUBSET, data.SUBSET_DIGESTS)
    monkeypatch.setattr(dg.datasets, "mnist", lambda d: whole)
    path = tmp_path / "summary.json"
    assert trainer.run(mnist.main, [*map(str, options), "--json", str(path)]) == 0
    assert json.loads(path.read_text())["test_accuracy"] >= accuracy


def test_a_run_on_the_device_is_that_on_the_host(train, device):
    options = ("--model", "mlp", "--units", "16,8", "--steps", 4, "--directions", 2)
    assert_same_on_the_device(train, *options)


def test_without_a_device_one_line_says_what_to_install(script, capsys, monkeypatch):
    assert_missing_device_is_said(script[0], capsys, monkeypatch)
