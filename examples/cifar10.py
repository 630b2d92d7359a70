"""Train a classifier of small colour images without backpropagation through the network.

    python examples/cifar10.py --model resnet18 --space weight

resnet18 is cut into blocks with auxiliary heads. The gradient of a target loss is projected on a
guess of it (dg.guided_gradient has the options): by default the gradient of each block's own loss,
from a reverse pass inside the block; the derivative of the network's loss along it comes from one
forward pass. cnn and localmixer learn by noise on their activations, with a loss for each place and
group of units (--losses local) or the network's alone. --method backprop is the baseline.

The last 5,000 training images are held out and looked at after each epoch, the test set once, at
the end. Small products are fastest on one thread: set OPENBLAS_NUM_THREADS=1 on a busy machine.
"""

import argparse
import itertools
import math
import sys
import time

import numpy as np
import trainer

import dualgrad as dg
from dualgrad import nn

MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the channels
HELD_OUT = 5000  # images, at most a tenth of the training set
GROUP = 8  # units that share a copy of a local loss; each is disturbed by the noise of the others
BATCH_SIZE = 128
WARM_UP = 200  # steps, at most a twentieth of all
DEFAULTS = {  # (lr, directions, epochs)
    ("resnet18", "guess", "weight"): (0.05, 1, 10),
    ("resnet18", "guess", "module"): (0.05, 1, 10),
    ("resnet18", "guess", "activation"): (0.05, 1, 10),
    ("resnet18", "random", "weight"): (1e-4, 1, 10),
    ("resnet18", "random", "module"): (1e-4, 1, 10),
    ("resnet18", "random", "activation"): (1e-3, 1, 10),
    ("resnet18", "global", "backprop"): (0.05, 1, 10),
    ("cnn", "local", "activations"): (0.15, 1, 10),
    ("cnn", "local", "weights"): (1e-4, 16, 2),
    ("cnn", "local", "backprop"): (0.02, 1, 10),
    ("cnn", "global", "activations"): (2e-3, 4, 10),
    ("cnn", "global", "weights"): (1e-4, 16, 2),
    ("cnn", "global", "backprop"): (0.05, 1, 10),
    ("localmixer", "local", "activations"): (0.05, 1, 10),
    ("localmixer", "local", "weights"): (1e-4, 16, 2),
    ("localmixer", "local", "backprop"): (0.02, 1, 10),
    ("localmixer", "global", "activations"): (2e-3, 8, 10),
    ("localmixer", "global", "weights"): (1e-4, 16, 2),
    ("localmixer", "global", "backprop"): (0.02, 1, 10),
}
GUIDED = {"target": "global", "guess": "local", "space": "activation"}
RESNET = {**GUIDED, "aux": "cnn", "blocks": 8}  # what is for resnet18 only, and its default


# --- networks


def scaled(channels: int, width: float) -> int:
    """Return a number of channels times width, in whole groups."""
    return GROUP * max(1, round(channels * width / GROUP))


def local_cnn(width: float, key: dg.Key) -> nn.LocalNetwork:
    """Return 3x3 convolutions of 32, 64 and 128 channels, ReLU and pooling, each a local block."""
    sizes = [3, *(scaled(channels, width) for channels in (32, 64, 128))]
    blocks = []
    for c_in, c_out, each in zip(sizes, sizes[1:], key.split(3), strict=False):
        convolution = nn.Conv2d(c_in, c_out, 3, padding=1, activation="relu", key=each)
        head = nn.ReplicatedHead(c_out, 10, groups=c_out // GROUP)
        blocks.append(nn.LocalBlock(nn.Sequential(convolution, nn.MaxPool2d(2)), head))
    return nn.LocalNetwork(*blocks)


def network(options: argparse.Namespace, key: dg.Key) -> nn.LocalNetwork:
    """Return the network that the options ask for; for backprop a resnet18 has no heads."""
    if options.model == "cnn":
        return local_cnn(options.width, key)
    if options.model == "localmixer":
        channels = 16 * max(3, round(32 * options.width))  # in 16 groups
        return nn.LocalMixer("M/8/16", channels=channels, key=key)
    aux = options.aux if options.method == "forward" else None
    return nn.ResNet18(blocks=options.blocks, width=options.width, aux=aux, key=key)


# --- the step


def training_step(options: argparse.Namespace) -> dg.training.TrainingStep:
    """Return the step that the options ask for."""
    optimiser = dg.optim.sgd(learning_rate(options), momentum=options.momentum)
    if options.weight_decay:
        optimiser = dg.optim.chain(dg.optim.weight_decay(options.weight_decay), optimiser)
    forward = options.method == "forward"
    if options.model == "resnet18":
        method = "backprop"
        if forward:
            given = {name: getattr(options, name) for name in GUIDED}
            heads = dg.Key(options.seed).fold_in("heads")
            method = dg.guided_gradient(**given, has_state=True, head_key=heads)
        return dg.training_step(network_loss, optimiser, method=method, has_state=True)
    more = forward_options(options) if forward else {}
    return dg.training_step(loss_of(options), optimiser, method=options.method, **more)


def learning_rate(options: argparse.Namespace):
    """Return the schedule: up in a few steps, then down as a cosine or in steps."""
    if options.schedule == "cosine":
        falling = dg.optim.cosine(options.lr, options.steps)
    else:
        falling = dg.optim.step(options.lr, max(1, math.ceil(0.3 * options.steps)), 0.2)
    return dg.optim.warmup(falling, max(1, min(WARM_UP, options.steps // 20)))


def network_loss(model: nn.ResNet18, state: dict, images, labels) -> tuple:
    """Return one loss an example and the new statistics of the batch normalisation."""
    logits, state = model(images, state)
    return nn.cross_entropy(logits, labels, reduction="none"), state


def loss_of(options: argparse.Namespace):
    """Return the loss of cnn and localmixer: a list of local ones, or one an example."""
    if options.losses == "local":
        return lambda model, images, labels: model.local_losses(images, labels)
    return lambda model, images, labels: nn.cross_entropy(model(images), labels, reduction="none")


def forward_options(options: argparse.Namespace) -> dict:
    return {name: getattr(options, name) for name in ("directions", "structure", "perturb")}


def predictor(options: argparse.Namespace, state: dg.training.TrainingState):
    """Return predict(images) -> logits, of the network in evaluation."""
    params, statistics = state.params, state.model_state
    if options.model == "resnet18":
        return lambda images: params(images, statistics, training=False)[0]
    return trainer.predictor(options, params)


# --- data and the run


def load(options: argparse.Namespace) -> dict:
    """Return the pairs of images and labels named "train", "held out" and "test".

    Only LocalMixer takes images as they are; for the others channels are centred and scaled.
    """
    (x, y), (x_test, y_test) = dg.datasets.cifar10(options.data_dir)
    if options.model != "localmixer":
        for images in (x, x_test):
            images -= np.array(MEAN, images.dtype)
            images /= np.array(DEVIATION, images.dtype)
    held = min(HELD_OUT, len(x) // 10)
    rest = len(x) - held
    examples = options.examples or rest
    if examples > rest:
        raise dg.OptionError(
            f"--examples {examples}: there are {rest}, as {held} of {len(x)} are held out."
        )
    return {
        "train": (x[:examples], y[:examples]),
        "held out": (x[rest:], y[rest:]),
        "test": (x_test, y_test),
    }


class CifarRun(trainer.Run):
    """A run on images that are moved and mirrored anew at each step, with images held out."""

    def __init__(self, options, step, x, y, held_out) -> None:
        super().__init__(options, step, x, y)
        self.held_out = held_out

    def batches(self, first: int):
        key = self.key.fold_in("images")
        for number, (x, y) in zip(itertools.count(first), super().batches(first), strict=False):
            yield (
                (dg.datasets.augment(x, key=key.fold_in(number)) if self.options.augment else x),
                y,
            )

    def look(self, state) -> None:
        """Note what the network makes of the images held out, after each epoch."""
        if state.step % dg.datasets.batches_per_epoch(len(self.x), self.options.batch_size) == 0:
            found = trainer.evaluate(predictor(self.options, state), *self.held_out)
            row = {name: found[name] for name in ("loss", "accuracy")}
            self.evaluations.append({"step": state.step, **row})


# --- options


def defaults() -> str:
    """Return the table of defaults, for --help."""
    rows = [f"defaults (batches of {BATCH_SIZE}):                --lr  --directions  --epochs"]
    for (model, losses, how), (lr, directions, epochs) in DEFAULTS.items():
        rows.append(f"  {model:12}{losses:10}{how:14}{lr:>9g}{directions:>14}{epochs:>10}")
    return "\n".join(rows)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=("resnet18", "cnn", "localmixer"), default="resnet18",
                        help="ResNet-18; 32, 64 and 128 channels of 3x3 convolutions; LocalMixer "
                        "M/8/16 (default: resnet18)")  # fmt: skip
    parser.add_argument("--width", type=positive, metavar="FACTOR",
                        help="of the numbers of channels (resnet18: 0.25, else 1)")  # fmt: skip
    parser.add_argument("--losses", choices=("local", "global"),
                        help="of cnn and localmixer: a loss for each block, group of units and "
                        "place, or the network's alone (default: local for noise on activations, "
                        "else global)")  # fmt: skip
    guided = parser.add_argument_group("resnet18")
    guided.add_argument("--target", choices=nn.guided.TARGETS,
                        help="the loss whose gradient is projected (default: global)")  # fmt: skip
    guided.add_argument("--guess", choices=nn.guided.GUESSES,
                        help="what it is projected on (default: local)")  # fmt: skip
    guided.add_argument("--space", choices=nn.guided.SPACES,
                        help="a scalar a step, a block, or an example (activation)")  # fmt: skip
    guided.add_argument("--aux", choices=("cnn", "mlp", "linear"), help="heads (default: cnn)")
    guided.add_argument("--blocks", type=int, choices=(8, 16),
                        help="residual ones, or 16 without shortcuts (8)")  # fmt: skip
    trainer.add_options(parser, folder="cifar-10-batches-bin/")
    more = parser.add_argument_group("images and optimiser")
    more.add_argument("--examples", type=trainer.positive_int, metavar="N",
                      help="train on the first N images (all but those held out)")  # fmt: skip
    more.add_argument("--augment", action=argparse.BooleanOptionalAction, default=True,
                      help="move images by up to 4 pixels, mirror half (default)")  # fmt: skip
    more.add_argument("--schedule", choices=("cosine", "steps"), default="cosine",
                      help="how --lr falls: to 0, or by 0.2 after each 0.3 of the run")  # fmt: skip
    more.add_argument("--momentum", type=trainer.fraction, default=0.9, help="(default: 0.9)")
    more.add_argument("--weight-decay", type=trainer.learning_rate, default=5e-4, metavar="RATE",
                      help="(default: 5e-4)")  # fmt: skip


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return value


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse options that are not of the model or the method."""
    resnet = options.model == "resnet18"
    backprop = options.method == "backprop"
    noise = ("perturb", "directions", "structure")
    mine = (*(() if resnet else RESNET), *(("losses",) if resnet else ()))
    refused = [(name, f"--model {options.model}") for name in mine]
    refused += [(name, "--method backprop") for name in (*GUIDED, "aux", *noise) if backprop]
    refused += [(name, "--model resnet18, whose guesses it has") for name in noise if resnet]
    for name, where in refused:
        if getattr(options, name) is not None:
            parser.error(f"--{name} does not go with {where}")
    if resnet and options.diagnose:
        parser.error("--diagnose does not go with --model resnet18; cnn and localmixer have it")
    if options.structure and options.perturb != "weights":
        parser.error("--structure shapes directions of weights; add --perturb weights")
    trainer.check_device(parser, options)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = trainer.Parser(
        description=__doc__, epilog=defaults(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    options = parser.parse_args(arguments)
    check(parser, options)
    forward = options.method == "forward"
    if options.model == "resnet18":
        for name, value in RESNET.items():
            setattr(options, name, getattr(options, name) or value)
        kind = "random" if options.guess == "random" else "guess"
        row = (kind, options.space) if forward else ("global", "backprop")
    else:
        options.perturb = options.perturb or "activations"
        noisy = forward and options.perturb == "activations"
        options.losses = options.losses or ("local" if noisy else "global")
        options.structure = options.structure or (
            "rank1" if options.perturb == "weights" else "dense"
        )
        row = options.losses, (options.perturb if forward else "backprop")
    lr, directions, epochs = DEFAULTS[options.model, *row]
    options.lr = lr if options.lr is None else options.lr
    options.directions = options.directions or directions
    options.epochs = options.epochs or epochs
    options.batch_size = options.batch_size or BATCH_SIZE
    options.width = options.width or (0.25 if options.model == "resnet18" else 1.0)
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    trainer.check_outputs(options)
    data = dg.to_device(load(options), options.device)
    x, y = data["train"]
    options.examples = len(x)
    per_epoch = dg.datasets.batches_per_epoch(len(x), options.batch_size)
    options.steps = options.steps or options.epochs * per_epoch

    run = CifarRun(options, training_step(options), x, y, data["held out"])
    model = network(options, run.key.fold_in("model"))
    diagnose = None
    if options.diagnose and options.method == "forward":
        key = run.key.fold_in("diagnose")
        diagnose = trainer.compare_with_gradient(loss_of(options), forward_options(options), key)

    start = time.perf_counter()
    state, finished = run.train(model, diagnose, model.init_state() or None)
    seconds = time.perf_counter() - start
    test = trainer.evaluate(predictor(options, state), *data["test"])
    full = len(data["test"][1]) == 10_000
    result = trainer.summary(run, state, test, seconds, finished, full)
    trainer.report(run, result | {"held_out": run.evaluations}, test)
    return 0 if finished else 130


if __name__ == "__main__":
    sys.exit(trainer.run(main))
