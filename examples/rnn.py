"""Train a recurrent network on the copy task by forward gradient: memory flat in the length.

    python examples/rnn.py --length 100

The network reads a string of symbols, waits for --length blanks, and must repeat the string when it
is asked to. Backpropagation through time keeps what every step computed until the end; a forward
gradient with directions of weights keeps the hidden state and its tangents, whatever the length.
(Noise on activations is kept for each step; benchmarks/rnn.py measures all three.)
"""

import argparse
import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import trainer

import dualgrad as dg

# The best of three rates each at length 50: 0.03, 0.05, 0.1; 0.01, 0.02, 0.05; 0.01, 0.03, 0.1.
DEFAULTS = {  # (lr, directions, steps)
    "weights": (0.05, 32, 1500),
    "activations": (0.05, 8, 1000),
    "backprop": (0.1, 1, 400),
}
BATCH_SIZE = 16
WARM_UP = 50  # steps, at most a twentieth of all
MAXIMUM_NORM = 1.0  # of a gradient; without it a spike now and then undoes what was learned
TEST_SIZE = 1000


# --- the task


def copy_task(
    key: dg.Key, size: int, symbols: int, alphabet: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (tokens, answers) of `size` examples, a function of the key alone.

    Returns:
        tokens: (size, symbols + length + symbols), uint8: the string, of numbers below alphabet;
            blanks, alphabet; and questions, alphabet + 1, at which the string must be repeated.
        answers: (size, symbols), int64: the string.
    """
    drawn = dg.random.uniform(key, (size, symbols), np.float32)
    answers = (drawn * alphabet).astype(np.int64)
    tokens = np.full((size, symbols + length + symbols), alphabet, np.uint8)
    tokens[:, :symbols] = answers
    tokens[:, -symbols:] = alphabet + 1
    return tokens, answers


# --- the network


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class Recurrent(dg.nn.Module):
    """A minimal gated unit: h <- h + gate * (new - h), both functions of the token and h.

    Attributes:
        cell: from a token's one-hot code and h, (alphabet + 2 + units,), to gate and new, before
            their sigmoid and tanh.
        output: from h to the logits of the symbols.
        answers: how many of the last steps answer.

    The gate starts nearly shut, at 1 / length, and does not listen to h: what is there stays for
    about the time that it is needed.

    Source: Zhou, Wu, Zhang and Zhou 2016 (arXiv 1603.09420), without the gate inside `new`; the
    bias: Tallec and Ollivier 2018 (arXiv 1804.11188), section 3, with one time for all units.
    """

    cell: dg.nn.Linear
    output: dg.nn.Linear
    answers: int

    def __init__(
        self, alphabet: int, units: int, answers: int, length: int, *, key: dg.Key,
        dtype: type = np.float32,
    ) -> None:  # fmt: skip
        tokens = alphabet + 2
        cell = dg.nn.Linear(tokens + units, 2 * units, key=key.fold_in("cell"), dtype=dtype)
        for name, rows, scale in (
            ("token", slice(tokens), 1.0),
            ("state", slice(tokens, None), 1 / math.sqrt(units)),
        ):
            part = cell.weight[rows]
            part[:] = scale * dg.random.normal(key.fold_in(name), part.shape, dtype)
        cell.weight[tokens:, :units] = 0
        cell.bias[:units] = -math.log(max(length, 1))
        output = dg.nn.Linear(units, alphabet, key=key.fold_in("output"), dtype=dtype)
        self._set(cell=cell, output=output, answers=answers)

    def __call__(self, tokens: np.ndarray) -> Any:
        """Return logits, (N, answers, alphabet), for tokens of shape (N, time)."""
        units, alphabet = np.shape(self.output.weight)
        symbols = np.arange(alphabet + 2, like=tokens)  # beside the tokens, on a GPU too
        codes = np.astype(symbols[:, None] == symbols, self.output.weight.dtype)
        h = np.zeros((len(tokens), units), codes.dtype, like=tokens)
        logits = []
        for t, now in enumerate(tokens.T, start=self.answers - tokens.shape[1]):
            z = self.cell(np.concatenate([codes[now], h], axis=1))
            h = h + dg.nn.sigmoid(z[:, :units]) * (np.tanh(z[:, units:]) - h)
            if t >= 0:
                logits.append(self.output(h))
        return np.stack(logits, axis=1)


def loss(model: Recurrent, tokens: np.ndarray, answers: np.ndarray) -> Any:
    """Return one loss an example, (N,): the mean cross entropy of its answers."""
    return np.mean(dg.nn.cross_entropy(model(tokens), answers, reduction="none"), axis=1)


# --- the run


class CopyRun(trainer.Run):
    """A run that draws its examples as it goes, those of a step from the key and its number."""

    def draw(self, name: str | int, size: int) -> tuple[np.ndarray, np.ndarray]:
        options, key = self.options, self.key.fold_in("data").fold_in(name)
        drawn = copy_task(key, size, options.symbols, options.alphabet, options.length)
        return dg.to_device(drawn, options.device)

    def batches(self, first: int) -> Iterator[tuple]:
        for number in itertools.count(first):
            yield self.draw(number, self.options.batch_size)


def defaults() -> str:
    """Return the table of defaults, for --help."""
    rows = [f"defaults (batches of {BATCH_SIZE}):    --lr  --directions  --steps"]
    for what, (lr, directions, steps) in DEFAULTS.items():
        rows.append(f"  {what:18}{lr:>12g}{directions:>14}{steps:>9}")
    return "\n".join(rows)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = trainer.Parser(
        description=__doc__, epilog=defaults(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    positive = trainer.positive_int
    task = parser.add_argument_group("task and network")
    task.add_argument("--length", type=positive, default=50, metavar="N", help="blanks (50)")
    task.add_argument("--symbols", type=positive, default=1, metavar="N", help="to copy (1)")
    task.add_argument("--alphabet", type=positive, default=8, metavar="N", help="symbols (8)")
    task.add_argument("--units", type=positive, default=16, metavar="N", help="hidden units (16)")
    trainer.add_options(parser, perturb="weights", structure="dense", dataset=False)
    options = parser.parse_args(arguments)
    forward = options.method == "forward"
    if not 2 <= options.alphabet <= 64:
        parser.error(f"--alphabet {options.alphabet}: give 2 to 64")
    if not forward and (options.perturb or options.directions or options.structure):
        parser.error("--method backprop takes no --perturb, --directions or --structure")
    options.perturb = options.perturb or "weights"
    if options.structure and options.perturb != "weights":
        parser.error("--structure shapes directions of weights; --perturb activations has none")
    options.structure = options.structure or "dense"
    trainer.check_device(parser, options)
    lr, directions, steps = DEFAULTS[options.perturb if forward else "backprop"]
    options.lr = lr if options.lr is None else options.lr
    options.directions = options.directions or directions
    options.steps = options.steps or steps
    options.batch_size = options.batch_size or BATCH_SIZE
    options.model = f"copy {options.symbols} of {options.alphabet} over {options.length} blanks"
    return options


def training_step(options: argparse.Namespace) -> dg.training.TrainingStep:
    """Return the step that the options ask for."""
    falling = dg.optim.cosine(options.lr, options.steps)
    rate = dg.optim.warmup(falling, max(1, min(WARM_UP, options.steps // 20)))
    forward = forward_options(options) if options.method == "forward" else {}
    clip = dg.optim.clip_by_norm(MAXIMUM_NORM)
    optimiser = dg.optim.chain(dense, clip, dg.optim.adam(rate))
    return dg.training_step(loss, optimiser, method=options.method, **forward)


def dense(gradient: Any, params: Any) -> Any:
    """Return a gradient of arrays: noise in every step gives factors larger than the matrix."""
    return dg.tree.map(lambda g: g.dense() if isinstance(g, dg.LowRank) else g, gradient)


def forward_options(options: argparse.Namespace) -> dict:
    return {name: getattr(options, name) for name in ("directions", "structure", "perturb")}


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    trainer.check_outputs(options)
    run = CopyRun(options, training_step(options), None, None)
    model = Recurrent(
        options.alphabet, options.units, options.symbols, options.length,
        key=run.key.fold_in("model"),
    )  # fmt: skip
    diagnose = None
    if options.diagnose and options.method == "forward":
        key = run.key.fold_in("diagnose")
        diagnose = trainer.compare_with_gradient(loss, forward_options(options), key)

    start = time.perf_counter()
    state, finished = run.train(model, diagnose)
    seconds = time.perf_counter() - start
    test = trainer.evaluate(state.params, *run.draw("test", TEST_SIZE))
    result = trainer.summary(run, state, test, seconds, finished, True)
    task = {name: getattr(options, name) for name in ("length", "symbols", "alphabet", "units")}
    trainer.report(run, result | task, test)
    return 0 if finished else 130


if __name__ == "__main__":
    sys.exit(trainer.run(main))
