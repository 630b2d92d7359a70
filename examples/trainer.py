"""What the training examples share: options, the loop with progress bar, checkpoints, reports."""

import argparse
import contextlib
import json
import math
import signal
import sys
from pathlib import Path

import numpy as np

import dualgrad as dg

EVALUATION_BATCH = 1000
WINDOW = 200  # steps that the shown training loss is a mean of
FETCH = 50  # steps on a GPU between two looks at the losses: each look waits for it


class DivergedError(ArithmeticError):
    """The loss or a parameter is no longer a finite number."""


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, without the list of all options."""

    def error(self, message: str):
        self.exit(2, f"error: {message} (--help lists the options)\n")


def positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return value


def learning_rate(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number of at least 0")
    return value


def fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0 and below 1")
    return value


def add_options(
    parser: argparse.ArgumentParser, *, perturb: str = "activations", structure: str = "rank1",
    dataset: bool = True, folder: str = "mnist/",
) -> None:  # fmt: skip
    """Add the options that every trainer has. None as default: the table of defaults decides.

    perturb and structure are the defaults that --help names, folder is where a dataset lies;
    without one, examples are drawn as they are needed, and there are no epochs.
    """
    train = parser.add_argument_group("training")
    train.add_argument("--method", choices=("forward", "backprop"), default="forward",
                       help="forward gradient, or reverse mode as the baseline")  # fmt: skip
    train.add_argument("--perturb", choices=("activations", "weights"),
                       help=f"what directions perturb (default: {perturb})")  # fmt: skip
    length = train.add_mutually_exclusive_group()
    length.add_argument("--steps", type=positive_int, metavar="N", help="how many steps")
    if dataset:
        length.add_argument("--epochs", type=positive_int, metavar="N",
                            help="passes over the training set, instead of steps")  # fmt: skip
        train.add_argument("--data-dir", metavar="DIR", help=f"folder that holds {folder} "
                           "(default: DUALGRAD_DATA, else a download; MNIST: else a packaged "
                           "subset)")  # fmt: skip
    train.add_argument("--batch-size", type=positive_int, metavar="N", help="examples a step")
    train.add_argument(
        "--lr", type=learning_rate, help="first learning rate; it falls to 0 as a cosine"
    )
    train.add_argument("--directions", type=positive_int, metavar="K", help="tangents in one pass")
    train.add_argument("--structure", choices=("dense", "rank1"),
                       help=f"of directions of weights (default: {structure})")  # fmt: skip
    train.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    train.add_argument("--device", choices=("cpu", "gpu"), default="cpu",
                       help="gpu needs CuPy and an NVIDIA GPU (default: cpu)")  # fmt: skip
    output = parser.add_argument_group("output")
    output.add_argument("--checkpoint", type=Path, metavar="PATH", help="where to save the state")
    output.add_argument("--checkpoint-every", type=positive_int, default=1000, metavar="STEPS",
                        help="how often (default: 1000), and after the last step")  # fmt: skip
    output.add_argument(
        "--resume", action="store_true", help="go on from --checkpoint, bit for bit"
    )
    output.add_argument(
        "--json", type=Path, metavar="PATH", help="write the summary as one JSON object"
    )
    output.add_argument("--plot", type=Path, metavar="PATH", help="draw the loss curve as a PNG")
    output.add_argument("--diagnose", action="store_true", help="ten times a run, compare the "
                        "estimate with the true gradient: cosine and variance")  # fmt: skip


def run(main, arguments: list[str] | None = None) -> int:
    """Call main(arguments) and return the exit code.

    It is 2, with one line, for what a user can mend; 1 for training that diverged; 130 for Ctrl-C.
    """
    try:
        return main(arguments)
    except (dg.DualgradError, OSError, DivergedError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1 if isinstance(error, DivergedError) else 2
    except KeyboardInterrupt:  # outside the training loop, which finishes its step first
        print("error: interrupted", file=sys.stderr)
        return 130


def check_device(parser: Parser, options: argparse.Namespace) -> None:
    """End with one line where the device that --device asks for is not there."""
    try:
        dg.to_device((), options.device)
    except dg.DeviceError as error:
        parser.error(f"--device gpu: {str(error).removeprefix('dg.to_device: ')}")


def check_outputs(options: argparse.Namespace) -> None:
    """Raise OptionError for a file that could not be written at the end, and the run be lost."""
    for name in ("checkpoint", "json", "plot"):
        path = getattr(options, name)
        if path is None:
            continue
        if path.is_dir() or not path.parent.is_dir():
            raise dg.OptionError(f"--{name} {path}: give a file in a folder that exists.")
        if name == "checkpoint" and path.exists() and not path.is_file():  # it would be replaced
            raise dg.OptionError(f"--checkpoint {path}: that is no ordinary file; name another.")
        check_writable(name, path)
    if options.plot:
        need("matplotlib")
        from matplotlib.backend_bases import FigureCanvasBase

        formats = FigureCanvasBase.get_supported_filetypes()
        if options.plot.suffix.lower().removeprefix(".") not in formats:
            raise dg.OptionError(f"--plot {options.plot}: give it the ending .png, or another of "
                                 f"{', '.join(sorted(formats))}.")  # fmt: skip


def check_writable(name: str, path: Path) -> None:
    """Raise OptionError unless a file can be written there; it is as it was afterwards."""
    path = path.resolve()  # where a link leads to
    new = not path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise dg.OptionError(
            f"--{name} {path}: cannot be written ({error.strerror}). Name another file."
        ) from error
    if new:
        path.unlink()


def need(module: str):
    """Import what the `examples` extra brings, or say how to install it."""
    try:
        return __import__(module)
    except ModuleNotFoundError as error:
        raise dg.OptionError(
            f"{module} is not installed, and the examples need it: python -m pip install {module}"
        ) from error


# --- the loop


class Run:
    """One training run: the step function, its data, and what is reported of it."""

    def __init__(self, options: argparse.Namespace, step: dg.training.TrainingStep, x, y) -> None:
        self.options = options
        self.step = step
        self.x, self.y = dg.to_device((x, y), options.device)
        self.key = dg.Key(options.seed)
        self.losses: list[tuple[int, float]] = []
        self.pending: list = []  # the last steps' numbers and losses, these still on the device
        self.diagnoses: list[dict] = []
        self.evaluations: list[dict] = []  # of images held out, where a script has them

    def settings(self) -> dict:
        """Say what a run must share with the checkpoint it resumes from."""
        named = vars(self.options)
        shown = (
            "model",
            "method",
            "perturb",
            "steps",
            "batch_size",
            "lr",
            "directions",
            "structure",
            "losses",
            "units",
            "target",
            "guess",
            "space",
            "aux",
            "blocks",
            "width",
            "examples",
            "augment",
            "schedule",
            "momentum",
            "shift",
            "weight_decay",
            "seed",
        )
        return {name: named[name] for name in shown if name in named}

    def save(self, state) -> None:
        """Write the checkpoint, if asked for; DivergedError for a state that is not finite."""
        parts = state.state_tree()
        if not all(np.isfinite(x).all() for x in dg.tree.parameters(parts["params"]).values()):
            raise self.diverged("a parameter", state.step)
        if self.options.checkpoint:
            settings = json.dumps(self.settings())
            dg.save(self.options.checkpoint, {"state": parts, "settings": settings})

    def diverged(self, what: str, step: int) -> DivergedError:
        path = self.options.checkpoint
        kept = f" {path} holds the last state saved before." if path and path.exists() else ""
        return DivergedError(
            f"training diverged: {what} is not finite at step {step}.{kept} "
            f"Lower --lr (now {self.options.lr:g})."
        )

    def load(self, state):
        """Return the state that the checkpoint holds; the fresh state gives its structure."""
        path = self.options.checkpoint
        if path is None:
            raise dg.OptionError("--resume needs --checkpoint PATH, the file to go on from.")
        if not path.exists():
            raise dg.CheckpointError(
                f"{path}: no checkpoint there. Leave out --resume to begin one."
            )
        saved = dg.load(path, like={"state": state.state_tree(), "settings": ""})
        theirs, own = json.loads(saved["settings"]), self.settings()
        names = [name for name in {**theirs, **own} if theirs.get(name) != own.get(name)]
        if names:
            was, now = (
                ", ".join(f"{name} {settings.get(name)}" for name in names)
                for settings in (theirs, own)
            )
            raise dg.OptionError(
                f"{path} was made with {was}, this run has {now}. Resume with the same options."
            )
        return state.with_state_tree(saved["state"])

    def batches(self, first: int):
        """Yield the batches from step `first` on, for ever."""
        size = self.options.batch_size
        epoch, start = divmod(first, dg.datasets.batches_per_epoch(len(self.x), size))
        while True:
            yield from dg.datasets.batches(
                self.x, self.y, size, key=self.key, epoch=epoch, start=start
            )
            epoch, start = epoch + 1, 0

    def look(self, state) -> None:
        """Look at the state after a step: here not at all."""

    def train(self, params, diagnose=None, model_state=None):
        """Return (state, finished) after all steps, or after Ctrl-C; both are saved."""
        params, model_state = dg.to_device((params, model_state), self.options.device)
        state = self.step.init(params, self.key.fold_in("train"), model_state)
        if self.options.resume:
            state = self.load(state)
        total, first = self.options.steps, state.step
        every = max(1, total // 10)
        with _interruptible() as stopped, np.errstate(all="ignore"), need("tqdm").tqdm(
            total=total, initial=first, unit="step", dynamic_ncols=True, mininterval=0.5,
        ) as bar:  # fmt: skip
            for number, batch in zip(range(first, total), self.batches(first), strict=False):
                if diagnose and number % every == 0:
                    self.diagnoses.append({"step": number, **diagnose(state, *batch)})
                state, value = self.step(state, *batch)
                self.pending.append((number + 1, value))
                shown = number % FETCH == FETCH - 1 or number + 1 == total
                if shown or self.options.device == "cpu":
                    self.fetch()
                self.look(state)
                bar.update()
                if shown:
                    bar.set_postfix_str(f"loss {self.recent_loss():.4f}")
                if stopped:
                    break
                if self.options.checkpoint and (number + 1) % self.options.checkpoint_every == 0:
                    self.fetch()
                    self.save(state)
            self.fetch()
            self.save(state)
        return state, state.step == total

    def fetch(self) -> None:
        """Bring the pending losses to the host, in one copy; DivergedError for one that is NaN."""
        steps = [number for number, _ in self.pending]
        values = np.stack([value for _, value in self.pending]) if steps else np.zeros(0)
        self.pending.clear()
        for number, value in zip(steps, dg.to_device(values, "cpu"), strict=True):
            if not math.isfinite(value):
                raise self.diverged("the loss", number)
            self.losses.append((number, float(value)))

    def recent_loss(self) -> float | None:
        """Return the mean of the last losses, None where this run made no step."""
        recent = [loss for _, loss in self.losses[-WINDOW:]]
        return sum(recent) / len(recent) if recent else None


@contextlib.contextmanager
def _interruptible():
    """Give a list that Ctrl-C fills, so that a step amid its writes is finished first."""
    stopped: list[int] = []
    try:
        previous = signal.signal(signal.SIGINT, lambda number, frame: stopped.append(number))
    except ValueError:  # not the main thread: Ctrl-C does not come here
        yield stopped
        return
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, previous)


# --- reports


def evaluate(predict, x, y) -> dict:
    """Return loss and accuracy of predict(x), logits, over a whole set, and those of each class.

    x and y lie where the model does.
    """
    losses, hits = [], []
    for start in range(0, len(y), EVALUATION_BATCH):
        rows = slice(start, start + EVALUATION_BATCH)
        logits = predict(x[rows])
        losses.append(np.sum(dg.nn.cross_entropy(logits, y[rows], reduction="none")))
        hits.append(np.argmax(logits, axis=-1) == y[rows])
    losses, hits, y = dg.to_device((np.stack(losses), hits, y), "cpu")
    loss, right = sum(map(float, losses)), np.concatenate(hits)
    by_class = [float(np.mean(right[y == c])) for c in range(int(y.max()) + 1)]
    return {"loss": loss / y.size, "accuracy": float(np.mean(right)), "by_class": by_class}


def compare_with_gradient(loss, options: dict, key: dg.Key, samples: int = 8):
    """Return diagnose(state, *batch): cosine and relative variance of the estimate on one batch."""
    estimate = dg.forward_gradient(loss, **options)
    exact = dg.gradient(lambda *args: dg.objective(loss(*args)), mode="reverse")

    def flat(tree) -> np.ndarray:
        leaves = dg.tree.leaves(dg.to_device(tree, "cpu"))
        return np.concatenate([np.ravel(np.asarray(g)) for g in leaves if g is not None])

    def diagnose(state, *batch) -> dict:
        params = state.params
        true = flat(exact(params, *batch)).astype(float)
        cosines, squares = [], []
        for i in range(samples):
            g = flat(estimate(params, *batch, key=key.fold_in(state.step).fold_in(i))[1]).astype(
                float
            )
            cosines.append(g @ true / math.sqrt((g @ g) * (true @ true)))
            squares.append((g - true) @ (g - true) / (true @ true))
        return {"cosine": float(np.mean(cosines)), "variance": float(np.mean(squares))}

    return diagnose


def predictor(options: argparse.Namespace, params):
    """Return predict(images) -> logits: of local losses the mean of the heads, but in a cnn.

    A cnn's first heads see little of an image: on MNIST's validation images the mean with them has
    1.7 % of errors where the last head has 1.3 %.
    """
    averaged = options.losses == "local" and options.model != "cnn"
    return params.average if averaged else params


def summary(
    run: Run, state, test: dict, seconds: float, finished: bool, full_test_set: bool
) -> dict:
    """Return what --json writes."""
    options = run.options
    forward = options.method == "forward"
    losses = getattr(options, "losses", None) or "global"
    terms = len(state.params.blocks) if losses == "local" else 0
    return {
        **run.settings(),
        "perturb": options.perturb if forward else None,
        "directions": options.directions if forward else None,
        "structure": options.structure if forward else None,
        "losses": losses,
        "parameters": dg.nn.parameter_count(state.params),
        "steps": state.step,
        "seconds": seconds,
        "train_loss": run.recent_loss(),
        "train_loss_is": f"sum of {terms} local losses" if terms else "the network's loss",
        "test_loss": test["loss"],
        "test_accuracy": test["accuracy"],
        "full_test_set": full_test_set,
        "finished": finished,
        "diagnose": run.diagnoses,
    }


def report(run: Run, result: dict, test: dict) -> None:
    """Print the summary, and write the files that were asked for."""
    if not result["finished"]:
        print(f"interrupted after step {result['steps']} of {run.options.steps}")
    train = result["train_loss"]
    trained = "none in this run" if train is None else f"{train:.4f} ({result['train_loss_is']})"
    print(
        f"{result['model']}, {result['method']}: {result['steps']} steps in "
        f"{result['seconds']:.1f} s, train loss {trained}, test loss {result['test_loss']:.4f}, "
        f"test accuracy {result['test_accuracy']:.4f}"
    )
    for row in run.diagnoses:
        print(f"step {row['step']:>7}: cosine {row['cosine']:+.4f}, "
              f"variance {row['variance']:.4g} |gradient|^2")  # fmt: skip
    if run.options.json:
        run.options.json.write_text(json.dumps(result) + "\n")
    if run.options.plot:
        plot(run, test, result["train_loss_is"])


def plot(run: Run, test: dict, what: str) -> None:
    """Draw the training loss, raw and smoothed, and the accuracy: over the run, or by class."""
    need("matplotlib").use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), width_ratios=(2, 1))
    steps, losses = np.array(run.losses or [(0, math.nan)]).T
    width = max(1, min(WINDOW, len(losses) // 10))
    smooth = np.convolve(losses, np.ones(width) / width, "valid")
    left.plot(steps, losses, color="0.8", linewidth=0.5, label=f"each batch, {what}")
    left.plot(steps[width - 1 :], smooth, color="C0", label=f"mean of {width}")
    test_label = f"test, the network's, {test['loss']:.3f}"
    left.axhline(test["loss"], color="C1", linestyle="--", label=test_label)
    left.set(
        xlabel="step",
        ylabel="loss",
        yscale="log",
        title=f"{run.options.model}, {run.options.method}",
    )
    left.legend()
    if run.evaluations:
        points = [(row["step"], row["accuracy"]) for row in run.evaluations]
        right.plot(*zip(*points, strict=True), marker=".", label="held out")
        right.axhline(test["accuracy"], color="C1", linestyle="--", label="test, at the end")
        right.set(xlabel="step", ylabel="accuracy")
        right.legend()
    else:
        right.bar(range(len(test["by_class"])), test["by_class"], color="C0")
        low = min(test["by_class"])
        limits = max(0.0, 2 * low - 1.01), 1
        right.set(xlabel="class", ylabel="test accuracy", ylim=limits)
        right.set_xticks(range(len(test["by_class"])))
    right.set(title=f"test accuracy {test['accuracy']:.4f}")
    figure.tight_layout()
    figure.savefig(run.options.plot, dpi=120)
    pyplot.close(figure)
