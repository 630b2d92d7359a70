"""Train a classifier of handwritten digits by forward gradient: no backward pass.

    python examples/mnist.py --model mlp

One forward pass gives the loss and its derivative along random directions; their product estimates
the gradient. By default the directions perturb activations (dg.forward_gradient has the options),
and in the networks that have them every layer learns from a loss of its own (--losses local);
--perturb weights perturbs the weights, --method backprop is the baseline.
"""

import argparse
import itertools
import sys
import time

import numpy as np
import trainer

import dualgrad as dg
from dualgrad import nn

GROUP = 8  # units that share a copy of a local loss; each is disturbed by the noise of the others


def local_block(layer, units: int) -> nn.LocalBlock:
    """Return a layer with a linear head, its loss copied for each place and group of units."""
    return nn.LocalBlock(layer, nn.ReplicatedHead(units, 10, groups=units // GROUP))


def local_mlp(key: dg.Key, units: list[int]) -> nn.LocalNetwork:
    sizes = [784, *units]
    layers = [
        dense(*pair, key=k)
        for *pair, k in zip(sizes[:-1], units, key.split(len(units)), strict=True)
    ]
    layers[0] = nn.Sequential(nn.Flatten(), layers[0])
    return nn.LocalNetwork(*map(local_block, layers, units))


def dense(n_in: int, n_out: int, *, key: dg.Key) -> nn.Linear:
    return nn.Linear(n_in, n_out, activation="relu", key=key)


def local_cnn(key: dg.Key, units: list[int]) -> nn.LocalNetwork:
    first, second, third = key.split(3)
    return nn.LocalNetwork(
        local_block(nn.Sequential(convolution(1, 32, first), nn.MaxPool2d(2)), 32),
        local_block(nn.Sequential(convolution(32, 64, second), nn.MaxPool2d(2)), 64),
        local_block(convolution(64, 128, third), 128),
    )


def convolution(c_in: int, c_out: int, key: dg.Key) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1, activation="relu", key=key)


def local_mixer(key: dg.Key, units: list[int]) -> nn.LocalNetwork:
    return nn.LocalMixer("M/1/16", key=key)


def regression(key: dg.Key, units: list[int]) -> nn.MLP:
    return dg.tree.map(np.zeros_like, nn.MLP([784, 10], key=key))


MODELS = {
    ("logreg", "global"): regression,
    ("mlp", "global"): lambda key, units: nn.MLP([784, *units, 10], key=key),
    ("mlp", "local"): local_mlp,
    ("cnn", "global"): lambda key, units: nn.CNN(key=key),
    ("cnn", "local"): local_cnn,
    ("localmixer", "local"): local_mixer,
    ("localmixer", "global"): local_mixer,
}
UNITS = {"local": [512, 512], "global": [1024, 1024]}
# What gave the best accuracy on the last 10,000 training images for the time it took.
DEFAULTS = {  # (lr, directions, epochs); momentum is 0.9 for the local losses of cnn, else 0
    ("logreg", "global", "activations"): (0.5, 4, 20),
    ("logreg", "global", "weights"): (0.012, 16, 25),
    ("logreg", "global", "backprop"): (0.5, 1, 20),
    ("mlp", "local", "activations"): (0.5, 1, 30),
    ("mlp", "local", "weights"): (1.5e-3, 16, 10),
    ("mlp", "local", "backprop"): (0.3, 1, 20),
    ("mlp", "global", "activations"): (0.08, 8, 12),
    ("mlp", "global", "weights"): (1.5e-3, 16, 10),
    ("mlp", "global", "backprop"): (0.5, 1, 10),
    ("cnn", "local", "activations"): (0.3, 1, 12),
    ("cnn", "local", "weights"): (5e-4, 8, 1),
    ("cnn", "local", "backprop"): (0.3, 1, 12),
    ("cnn", "global", "activations"): (1e-3, 4, 1),
    ("cnn", "global", "weights"): (5e-4, 8, 1),
    ("cnn", "global", "backprop"): (0.2, 1, 2),
    ("localmixer", "local", "activations"): (0.03, 8, 40),
    ("localmixer", "local", "weights"): (1e-3, 16, 10),
    ("localmixer", "local", "backprop"): (0.1, 1, 30),
    ("localmixer", "global", "activations"): (0.02, 8, 30),
    ("localmixer", "global", "weights"): (1e-3, 16, 10),
    ("localmixer", "global", "backprop"): (0.3, 1, 30),
}
SHIFT = {"mlp": 1, "cnn": 1}  # pixels
WARM_UP = 200  # steps, at most a twentieth of all: the first steps are the ones that diverge


def defaults() -> str:
    """Return the table of defaults, for --help."""
    rows = ["defaults (batches of 64):              --lr  --directions  --epochs"]
    for (model, losses, what), (lr, directions, epochs) in DEFAULTS.items():
        rows.append(f"  {model:11}{losses:8}{what:13}{lr:>9g}{directions:>14}{epochs:>10}")
    return "\n".join(rows)


def sizes(text: str) -> list[int]:
    return [trainer.positive_int(part) for part in text.split(",")]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = trainer.Parser(
        description=__doc__, epilog=defaults(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        choices=sorted({model for model, _ in MODELS}),
        default="mlp",
        help="softmax regression; 784-512-512, or 784-1024-1024-10 with the network's loss alone; "
        "convolutions; LocalMixer M/1/16 (default: mlp)",
    )
    trainer.add_options(parser)
    parser.add_argument(
        "--losses",
        choices=("local", "global"),
        help="a loss for each layer, group of units and place, or the network's alone (default: "
        "local for noise on the activations of mlp, cnn and localmixer). With local ones the mean "
        "of all heads predicts, in a cnn the last",
    )
    parser.add_argument(
        "--units",
        type=sizes,
        metavar="N,N",
        help="units of the mlp's hidden layers (default: 512,512 with local losses, else "
        "1024,1024)",
    )
    parser.add_argument(
        "--momentum", type=trainer.fraction, help="of SGD (default: 0.9 for a cnn's local losses)"
    )
    parser.add_argument(
        "--shift",
        type=int,
        choices=range(5),
        help="move each training image by up to so many pixels, anew each time (default: 1 for "
        "mlp and cnn, else 0)",
    )
    options = parser.parse_args(arguments)
    forward = options.method == "forward"
    if not forward and (options.perturb or options.directions or options.structure):
        parser.error("--method backprop takes no --perturb, --directions or --structure")
    if not forward and options.diagnose:
        parser.error("--diagnose compares an estimate with the gradient, which backprop is")
    options.perturb = options.perturb or "activations"
    noisy = forward and options.perturb == "activations"
    has_local = (options.model, "local") in MODELS
    options.losses = options.losses or ("local" if noisy and has_local else "global")
    if (options.model, options.losses) not in MODELS:
        parser.error(f"--losses {options.losses}: {options.model} has one layer, whose loss it is")
    if options.units and options.model != "mlp":
        parser.error(f"--units are the mlp's; the layers of {options.model} are given")
    if options.model == "mlp":
        options.units = options.units or UNITS[options.losses]
    if options.losses == "local" and any(n % GROUP for n in options.units or ()):
        parser.error(
            f"--units {options.units}: local losses have groups of {GROUP}; give multiples"
        )
    convolutional = (options.model, options.losses) == ("cnn", "local")
    options.momentum = (0.9 * convolutional) if options.momentum is None else options.momentum
    options.shift = SHIFT.get(options.model, 0) if options.shift is None else options.shift
    how = options.perturb if forward else "backprop"
    lr, directions, epochs = DEFAULTS[options.model, options.losses, how]
    options.lr = lr if options.lr is None else options.lr
    options.directions = options.directions or directions
    options.batch_size = options.batch_size or 64
    options.epochs = options.epochs or epochs
    if options.structure and options.perturb != "weights":
        parser.error("--structure shapes directions of weights; add --perturb weights")
    options.structure = options.structure or ("rank1" if options.perturb == "weights" else "dense")
    trainer.check_device(parser, options)
    return options


class MnistRun(trainer.Run):
    """A run on images that are moved anew at each step, if --shift says so."""

    def batches(self, first: int):
        key, pad = self.key.fold_in("images"), self.options.shift
        for number, (x, y) in zip(itertools.count(first), super().batches(first), strict=False):
            draw = key.fold_in(number)
            yield (dg.datasets.augment(x, key=draw, pad=pad, flip=False) if pad else x), y


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    trainer.check_outputs(options)
    (x, y), (x_test, y_test) = dg.datasets.mnist(options.data_dir)
    per_epoch = dg.datasets.batches_per_epoch(len(x), options.batch_size)
    options.steps = options.steps or options.epochs * per_epoch

    def loss(model, images, labels):
        """One loss an example: activity perturbation credits each example with its own noise."""
        if options.losses == "local":
            return model.local_losses(images, labels)
        return nn.cross_entropy(model(images), labels, reduction="none")

    forward = {
        "directions": options.directions,
        "structure": options.structure,
        "perturb": options.perturb,
    }
    falling = dg.optim.cosine(options.lr, options.steps)
    rate = dg.optim.warmup(falling, max(1, min(WARM_UP, options.steps // 20)))
    optimiser = dg.optim.sgd(rate, momentum=options.momentum)
    step = dg.training_step(
        loss, optimiser, method=options.method, **(forward if options.method == "forward" else {})
    )
    run = MnistRun(options, step, x, y)
    model = MODELS[options.model, options.losses](run.key.fold_in("model"), options.units)
    diagnose = None
    if options.diagnose and options.method == "forward":
        diagnose = trainer.compare_with_gradient(loss, forward, run.key.fold_in("diagnose"))

    start = time.perf_counter()
    state, finished = run.train(model, diagnose)
    seconds = time.perf_counter() - start
    predict = trainer.predictor(options, state.params)
    test = trainer.evaluate(predict, *dg.to_device((x_test, y_test), options.device))
    result = trainer.summary(run, state, test, seconds, finished, len(y_test) == 10_000)
    trainer.report(run, result, test)
    return 0 if finished else 130


if __name__ == "__main__":
    sys.exit(trainer.run(main))
