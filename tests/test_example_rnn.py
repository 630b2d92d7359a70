"""examples/rnn.py: the task, the estimate of its gradient, its memory, runs and their resuming."""

import itertools
import signal
import tracemalloc

import numpy as np
import pytest
from example_case import (
    assert_missing_device_is_said,
    assert_same_on_the_device,
    assert_same_tensors,
    loaded,
    runner,
)

import dualgrad as dg

SMALL = ("--length", 4, "--units", 6, "--alphabet", 4, "--steps", 12, "--directions", 2)


@pytest.fixture
def script(monkeypatch):
    """The modules (rnn, trainer)."""
    with loaded("rnn", monkeypatch) as modules:
        yield modules


@pytest.fixture
def train(script, tmp_path):
    """train(*options) runs the script and returns (exit code, what --json wrote or None)."""
    return runner(script, tmp_path)


def network(rnn, length, *, symbols=2, alphabet=3, units=5):
    return rnn.Recurrent(
        alphabet, units, symbols, length, key=dg.Key(1), dtype=np.float64
    )  # fmt: skip


# --- the task and the network


def test_the_task_asks_for_the_string_after_the_blanks(script):
    tokens, answers = script[0].copy_task(dg.Key(3), 400, 2, 5, 7)
    assert tokens.shape == (400, 11) and answers.shape == (400, 2)
    for row, answer in zip(tokens.tolist(), answers.tolist(), strict=True):
        assert row == answer + [5] * 7 + [6, 6]
    seen = np.zeros((5, 5))
    np.add.at(seen, (answers[:, 0], answers[:, 1]), 1)
    assert seen.min() > 0 and abs(seen - 16).max() < 5 * 4  # 16 of each pair, deviation 4


def test_examples_follow_from_key_and_step_alone(script):
    rnn, trainer = script
    options = rnn.parse(["--length", "3"])
    run = rnn.CopyRun(options, rnn.training_step(options), None, None)
    ahead = list(itertools.islice(run.batches(0), 5))
    for a, b in zip(ahead[3:], run.batches(3), strict=False):
        np.testing.assert_array_equal(a[0], b[0])
    strings = {answers.tobytes() for _, answers in ahead} | {run.draw("test", 16)[1].tobytes()}
    assert len(strings) == 6


def test_the_network_is_the_gated_unit_that_it_says(script):
    rnn, _ = script
    tokens, _ = rnn.copy_task(dg.Key(4), 3, 2, 3, 4)
    model = network(rnn, 4)
    w, b = model.cell.weight, model.cell.bias
    logits = model(tokens)
    assert logits.shape == (3, 2, 3)
    for row, found in zip(tokens, logits, strict=True):
        h = np.zeros(5)
        for t, token in enumerate(row):
            gate = 1 / (1 + np.exp(-(w[token, :5] + h @ w[5:, :5] + b[:5])))
            new = np.tanh(w[token, 5:] + h @ w[5:, 5:] + b[5:])
            h = (1 - gate) * h + gate * new
            if t >= 6:
                expected = h @ model.output.weight + model.output.bias
                np.testing.assert_allclose(found[t - 6], expected, rtol=1e-12, atol=1e-12)
    assert np.all(w[5:, :5] == 0) and np.allclose(np.exp(b[:5]), 1 / 4)


# --- the estimate


@pytest.mark.parametrize("structure", ["dense", "rank1"])
def test_the_estimate_is_the_gradient_along_its_directions(script, structure):
    """Each derivative is <gradient, v>, the gradient by reverse mode; the estimate their sum."""
    rnn, _ = script
    batch = rnn.copy_task(dg.Key(5), 6, 2, 3, 9)
    model = network(rnn, 9)
    estimate = dg.forward_gradient(rnn.loss, directions=3, structure=structure, with_info=True)
    value, g, info = estimate(model, *batch, key=dg.Key(6))
    exact = dg.gradient(lambda m: np.mean(rnn.loss(m, *batch)), mode="reverse")(model)
    exact, directions, g = map(dg.tree.parameters, (exact, info.directions, g))
    dense = {path: v if isinstance(v, np.ndarray) else v.dense() for path, v in directions.items()}
    slopes = sum(dense[path].reshape(3, -1) @ np.ravel(true) for path, true in exact.items())
    np.testing.assert_allclose(info.derivatives, slopes, rtol=1e-9)
    for path in exact:
        expected = np.tensordot(slopes / 3, dense[path], 1)
        np.testing.assert_allclose(np.asarray(g[path]), expected, rtol=1e-8, atol=1e-12)
    assert value == pytest.approx(np.mean(rnn.loss(model, *batch)), rel=1e-12)


@pytest.mark.parametrize("perturb", ["weights", "activations"])
def test_estimates_average_to_the_gradient(script, perturb):
    """The mean of 12 x 200 draws errs by less than twice what its spread over the 12 predicts."""
    rnn, _ = script
    batch = rnn.copy_task(dg.Key(5), 4, 1, 3, 3)
    model = network(rnn, 3, symbols=1, units=3)
    estimate = dg.forward_gradient(rnn.loss, directions=200, perturb=perturb)
    exact = dg.gradient(lambda m: np.mean(rnn.loss(m, *batch)), mode="reverse")(model)

    def flat(tree):
        return np.concatenate([np.ravel(np.asarray(x)) for x in dg.tree.parameters(tree).values()])

    means = np.stack(
        [flat(estimate(model, *batch, key=key)[1]) for key in dg.Key(7).split(12)]
    )  # fmt: skip
    true = flat(exact)
    error = np.linalg.norm(means.mean(axis=0) - true)
    spread = np.sqrt(np.sum(means.var(axis=0, ddof=1)) / 12)
    assert error < 2 * spread and spread < 0.25 * np.linalg.norm(true)


# --- memory


def peak(rnn, length, *options):
    """Return the peak of what a training step allocates beside what it is given, in bytes."""
    options = rnn.parse(["--length", str(length), "--units", "8", "--batch-size", "8", *options])
    step = rnn.training_step(options)
    state = step.init(rnn.Recurrent(8, 8, 1, length, key=dg.Key(0)), dg.Key(0))
    batch = rnn.copy_task(dg.Key(1), 8, 1, 8, length)
    state, _ = step(state, *batch)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        step(state, *batch)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_memory_is_flat_in_the_length_where_backprop_needs_more_for_every_step(script):
    rnn, _ = script
    directions = ("--directions", "8")
    assert peak(rnn, 200, *directions) < 1.5 * peak(rnn, 20, *directions)
    backprop = ("--method", "backprop")
    assert peak(rnn, 200, *backprop) > 4 * peak(rnn, 20, *backprop)


# --- runs


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--structure", "rank1", "--symbols", 2),
        ("--perturb", "activations"),
        ("--method", "backprop"),
    ],
)
def test_every_method_runs_and_says_what_it_did(train, tmp_path, capsys, options):
    picture = tmp_path / "loss.png"
    small = SMALL[:-2] if "backprop" in options else SMALL
    code, summary = train(*small, *options, "--plot", picture)
    assert code == 0 and summary["steps"] == 12 and summary["finished"]
    assert summary["length"] == 4 and summary["units"] == 6 and summary["alphabet"] == 4
    assert summary["parameters"] == (6 + 6 + 1) * 12 + (6 + 1) * 4
    assert np.isfinite([summary["train_loss"], summary["test_loss"]]).all()
    assert 0 <= summary["test_accuracy"] <= 1
    assert "over 4 blanks" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_it_learns_a_short_copy(train):
    task = ("--length", 3, "--alphabet", 2, "--units", 8)
    code, summary = train(*task, "--steps", 300, "--directions", 16)
    assert (
        code == 0 and summary["test_accuracy"] == 1 and summary["test_loss"] < 0.35
    )  # log 2: 0.69


@pytest.mark.parametrize("options", [(), ("--perturb", "activations"), ("--method", "backprop")])
def test_a_resumed_run_ends_as_an_uninterrupted_one(train, script, monkeypatch, options, tmp_path):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    small = SMALL[:-2] if "backprop" in options else SMALL
    _, expected = train(*small, *options, "--checkpoint", whole)
    draw = script[0].copy_task
    drawn = itertools.count()

    def interrupted(*args):
        if next(drawn) == 5:
            signal.raise_signal(signal.SIGINT)
        return draw(*args)

    with monkeypatch.context() as patch:
        patch.setattr(script[0], "copy_task", interrupted)
        code, summary = train(*small, *options, "--checkpoint", cut)
    assert code == 130 and summary["steps"] == 6 and not summary["finished"]
    code, summary = train(*small, *options, "--checkpoint", cut, "--resume")
    assert code == 0 and summary["steps"] == 12
    assert summary["test_loss"] == expected["test_loss"]
    assert_same_tensors(whole, cut)


@pytest.mark.parametrize(
    "options, said",
    [
        (("--length", "0"), "--length"),
        (("--alphabet", "1"), "--alphabet 1: give 2 to 64"),
        (("--alphabet", "65"), "--alphabet 65: give 2 to 64"),
        (("--epochs", "2"), "unrecognized arguments"),
        (("--method", "backprop", "--directions", "2"), "takes no"),
        (("--perturb", "activations", "--structure", "rank1"), "--structure"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_code_two(script, capsys, options, said):
    with pytest.raises(SystemExit) as caught:
        script[0].main(list(options))
    shown = capsys.readouterr()
    assert caught.value.code == 2 and shown.out == ""
    assert len(shown.err.splitlines()) == 1 and said in shown.err


def test_a_checkpoint_of_another_task_or_network_is_refused(train, capsys, tmp_path):
    path = tmp_path / "state.safetensors"
    assert train("--resume", *SMALL)[0] == 2
    train(*SMALL, "--checkpoint", path)
    for other in (("--length", 5), ("--alphabet", 5), ("--units", 7), ("--seed", 1)):
        capsys.readouterr()
        code, summary = train(*SMALL, *other, "--checkpoint", path, "--resume")
        assert code == 2 and summary is None
        assert capsys.readouterr().err.startswith("error: ")


def test_a_run_on_the_device_is_that_on_the_host(train, device):
    assert_same_on_the_device(train, *SMALL)


def test_without_a_device_one_line_says_what_to_install(script, capsys, monkeypatch):
    assert_missing_device_is_said(script[0], capsys, monkeypatch)
