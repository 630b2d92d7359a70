"""examples/cifar10.py: every model and method, resuming, and what users get wrong."""

import signal

import numpy as np
import pytest
from example_case import (
    assert_missing_device_is_said,
    assert_same_on_the_device,
    assert_same_tensors,
    loaded,
    runner,
)
from safetensors.numpy import load_file

import dualgrad as dg

SMALL = ("--width", 0.0625, "--batch-size", 4)


def pictures():
    """100 training and 10 test images, the brightness of each giving its class."""
    key = dg.Key(5)

    def drawn(name, n):
        y = np.arange(n) % 10
        noise = dg.random.uniform(key.fold_in(name), (n, 32, 32, 3), np.float32)
        return 0.2 * noise + (y / 12).astype(np.float32)[:, None, None, None], y

    return drawn("train", 100), drawn("test", 10)


@pytest.fixture
def script(monkeypatch):
    """The modules (cifar10, trainer), on the small data unless a folder is given."""
    load = dg.datasets.cifar10
    monkeypatch.setattr(dg.datasets, "cifar10", lambda d=None: load(d) if d else pictures())
    with loaded("cifar10", monkeypatch) as modules:
        yield modules


@pytest.fixture
def train(script, tmp_path):
    """train(*options) runs the script and returns (exit code, what --json wrote or None)."""
    return runner(script, tmp_path, *SMALL)


# --- what a run gives


@pytest.mark.parametrize(
    "options",
    [
        ("--model", "resnet18"),
        ("--model", "resnet18", "--space", "weight", "--blocks", 16, "--schedule", "steps"),
        ("--model", "resnet18", "--space", "module", "--aux", "linear", "--target", "sum"),
        ("--model", "resnet18", "--guess", "random", "--aux", "mlp"),
        ("--model", "resnet18", "--method", "backprop"),
        ("--model", "cnn"),
        ("--model", "cnn", "--losses", "global", "--weight-decay", 0),
        ("--model", "cnn", "--perturb", "weights", "--losses", "local"),
        ("--model", "cnn", "--method", "backprop", "--no-augment"),
        ("--model", "localmixer"),
        ("--model", "localmixer", "--method", "backprop", "--losses", "local"),
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_every_model_and_method_runs(train, options):
    code, summary = train(*options, "--steps", 2)
    assert code == 0 and summary["steps"] == 2 and summary["finished"]
    assert summary["examples"] == 90 and not summary["full_test_set"]
    assert np.isfinite([summary["train_loss"], summary["test_loss"]]).all()
    given = {
        name.removeprefix("--").replace("-", "_"): value
        for name, value in zip(options, options[1:], strict=False)
        if name in ("--model", "--method", "--space", "--blocks", "--aux", "--losses", "--target")
    }
    assert {name: summary[name] for name in given} == given


def test_images_held_out_are_looked_at_after_each_epoch(train, tmp_path):
    picture = tmp_path / "curve.png"
    code, summary = train("--model", "cnn", "--epochs", 3, "--examples", 12, "--plot", picture)
    assert code == 0 and summary["steps"] == 9 and summary["examples"] == 12
    assert [row["step"] for row in summary["held_out"]] == [3, 6, 9]
    assert len({row["loss"] for row in summary["held_out"]}) == 3
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000


def test_classes_that_differ_in_brightness_are_learnt(train):
    _, summary = train(
        "--model", "cnn", "--no-augment", "--epochs", 30, "--lr", 0.05, "--batch-size", 12
    )
    assert summary["train_loss"] < 6 and summary["test_accuracy"] >= 0.3  # 6.9 and 0.1 at first


def test_images_are_moved_by_the_step_alone(script):
    cifar10, _ = script
    options = cifar10.parse(["--model", "cnn", "--steps", "1", "--batch-size", "4"])
    (x, y), held_out = pictures()
    run = cifar10.CifarRun(options, cifar10.training_step(options), x, y, held_out)
    first = [batch for batch, _ in zip(run.batches(0), range(25), strict=False)]
    later = [batch for batch, _ in zip(run.batches(22), range(3), strict=False)]
    for (a, labels), (b, same) in zip(first[22:], later, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(labels, same)
    options.augment = False
    plain, _ = next(run.batches(0))
    assert any(np.array_equal(plain[0], image) for image in x)
    assert not any(np.array_equal(first[0][0][0], image) for image in x)


# --- checkpoints


@pytest.mark.parametrize(
    "options",
    [("--model", "resnet18", "--space", "activation"), ("--model", "cnn")],
    ids=["resnet18", "cnn"],
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(train, script, monkeypatch, options, tmp_path):
    """Weights, momentum and running statistics, bit for bit."""
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    options = (*options, "--steps", 5, "--examples", 12)
    _, expected = train(*options, "--checkpoint", whole)
    batches = dg.datasets.batches

    def interrupted(*args, **keywords):
        for number, batch in enumerate(batches(*args, **keywords)):
            if number == 1:
                signal.raise_signal(signal.SIGINT)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(dg.datasets, "batches", interrupted)
        code, summary = train(*options, "--checkpoint", cut)
    assert code == 130 and summary["steps"] == 2 and not summary["finished"]
    code, summary = train(*options, "--checkpoint", cut, "--resume")
    assert code == 0 and summary["steps"] == 5
    assert_same_tensors(whole, cut)
    assert summary["test_loss"] == expected["test_loss"]
    assert any("model_state" in name for name in load_file(cut)) == ("resnet18" in options)


# --- what users get wrong


@pytest.mark.parametrize(
    "options, said",
    [
        (("--model", "vgg"), "invalid choice: 'vgg'"),
        (("--width", "0"), "--width"),
        (("--blocks", "9"), "invalid choice: 9"),
        (("--momentum", "1"), "--momentum"),
        (("--weight-decay", "-1"), "--weight-decay"),
        (("--space", "units"), "invalid choice: 'units'"),
        (("--steps", "3", "--epochs", "1"), "not allowed with"),
        (("--model", "cnn", "--guess", "local"), "--guess does not go with --model cnn"),
        (("--model", "resnet18", "--losses", "local"), "--losses does not go with"),
        (("--perturb", "weights"), "--perturb does not go with --model resnet18"),
        (("--method", "backprop", "--target", "local"), "--target does not go with --method"),
        (("--method", "backprop", "--model", "cnn", "--directions", "2"), "--directions"),
        (("--model", "cnn", "--structure", "rank1"), "--perturb weights"),
        (("--diagnose",), "--diagnose"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_code_two(script, capsys, options, said):
    with pytest.raises(SystemExit) as caught:
        script[0].main(list(options))
    shown = capsys.readouterr()
    assert caught.value.code == 2 and shown.out == ""
    assert len(shown.err.splitlines()) == 1 and said in shown.err


@pytest.mark.parametrize(
    "options, said",
    [
        (("--examples", 91), "there are 90, as 10 of 100 are held out"),
        (("--data-dir", "/nonexistent"), "/nonexistent"),
        (("--plot", "/nonexistent/a.png"), "--plot"),
        (("--resume",), "--resume needs --checkpoint"),
        (("--batch-size", 95), "95"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_exit_code_two(train, capsys, options, said):
    code, summary = train("--steps", 2, *options)
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert code == 2 and summary is None and shown.out == ""
    assert line.startswith("error: ") and said in line


def test_a_checkpoint_of_another_run_is_refused(train, capsys, tmp_path):
    path = tmp_path / "state.safetensors"
    options = ("--model", "cnn", "--steps", 1, "--checkpoint", path)
    train(*options)
    for other in (
        ("--no-augment",),
        ("--momentum", 0.5),
        ("--examples", 12),
        ("--losses", "global"),
    ):
        code, _ = train(*options, "--resume", *other)
        assert code == 2 and "Resume with the same options" in capsys.readouterr().err


def test_a_run_on_the_device_is_that_on_the_host(train, device):
    options = (
        "--model",
        "cnn",
        "--steps",
        2,
        "--width",
        0.25,
        "--batch-size",
        4,
        "--directions",
        1,
    )
    assert_same_on_the_device(train, *options)


def test_without_a_device_one_line_says_what_to_install(script, capsys, monkeypatch):
    assert_missing_device_is_said(script[0], capsys, monkeypatch)
