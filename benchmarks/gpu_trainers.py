"""Run the first steps of every trainer in examples/, for benchmarks/gpu.py to compare devices.

    python benchmarks/gpu_trainers.py gpu 20 lines.jsonl

Each writes its loss after each step. Images are random, so that nothing is read or downloaded. On
the CPU steps are eager, without plans: the definition of what a step does.
"""

import contextlib
import functools
import importlib
import io
import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import dualgrad as dg

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
IMAGES, TESTED = 256, 32  # of training and test
# Small batches and rates: where training is unstable, rounding grows as fast as the loss.
SMALL = ("--batch-size", "16", "--lr")
TRAINERS: dict[str, tuple[str, ...]] = {
    "mnist logreg": ("mnist", "--model", "logreg", *SMALL, "0.01"),
    "mnist mlp": ("mnist", "--model", "mlp", *SMALL, "0.01"),
    "mnist mlp, weights": ("mnist", "--model", "mlp", "--perturb", "weights", *SMALL, "1e-4"),
    "mnist mlp, backprop": ("mnist", "--model", "mlp", "--method", "backprop", *SMALL, "0.01"),
    "mnist cnn": ("mnist", "--model", "cnn", *SMALL, "0.01"),
    "mnist cnn, weights": ("mnist", "--model", "cnn", "--perturb", "weights", "--directions", "2",
                           *SMALL, "1e-5"),
    "mnist localmixer": ("mnist", "--model", "localmixer", "--directions", "2", *SMALL, "0.01"),
    "cifar10 resnet18, weight": ("cifar10", "--space", "weight", "--width", "0.125", *SMALL,
                                 "0.01"),
    "cifar10 resnet18, activation": ("cifar10", "--width", "0.125", *SMALL, "0.01"),
    "cifar10 cnn": ("cifar10", "--model", "cnn", "--width", "0.5", *SMALL, "0.01"),
    "cifar10 localmixer": ("cifar10", "--model", "localmixer", "--width", "0.125", *SMALL, "0.01"),
    "rnn": ("rnn", "--length", "10", *SMALL, "1e-3"),
}  # fmt: skip


def random_images(shape: tuple[int, ...]) -> Any:
    """Return a function like dg.datasets.mnist that gives random images and labels."""

    def part(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
        key = dg.Key(0).fold_in(name)
        labels = dg.random.permutation(key.fold_in("labels"), size) % 10
        return dg.random.uniform(key.fold_in("images"), (size, *shape), np.float32), labels

    return lambda data_dir=None: (part("train", IMAGES), part("test", TESTED))


def losses(arguments: tuple[str, ...], device: str, steps: int) -> list[float]:
    """Return the loss after each step of a trainer.

    Raises:
        RuntimeError: it ended early; the text says why.
    """
    script = importlib.import_module(arguments[0])
    trainer = importlib.import_module("trainer")
    found: list[float] = []
    keep = lambda run, result, test: found.extend(loss for _, loss in run.losses)  # noqa: E731
    said = io.StringIO()
    with (
        mock.patch.object(trainer, "report", keep),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            code = trainer.run(
                script.main, [*arguments[1:], "--steps", str(steps), "--device", device]
            )
        except SystemExit as ended:  # what the parser of the options refuses
            code = ended.code
    if code:
        lines = [line for line in said.getvalue().splitlines() if line.startswith("error")]
        raise RuntimeError(lines[-1] if lines else f"exit code {code}")
    return found


def run(device: str, steps: int, path: Path, names: list[str]) -> None:
    """Write a line for each trainer: its losses and seconds, or why there are none."""
    sys.path.insert(0, str(EXAMPLES))
    with contextlib.ExitStack() as changes, path.open("a", buffering=1) as file:
        changed = lambda *what: changes.enter_context(mock.patch.object(*what))  # noqa: E731
        changed(dg.datasets, "mnist", random_images((28, 28, 1)))
        changed(dg.datasets, "cifar10", random_images((32, 32, 3)))
        if device == "cpu":
            changed(dg, "training_step", functools.partial(dg.training_step, plan=False))
        for name in names:
            start = time.perf_counter()
            try:
                found: dict[str, Any] = {"losses": losses(TRAINERS[name], device, steps)}
            except Exception as error:  # one that fails is a line of the table, not the end
                found = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
            found["seconds"] = time.perf_counter() - start
            file.write(json.dumps({"trainer": name, **found}) + "\n")


if __name__ == "__main__":
    given = sys.argv[4:] or list(TRAINERS)
    run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), given)
