"""Train a classifier of handwritten digits by forward gradient: no backward pass.

    python examples/mnist.py --model mlp

One forward pass gives the loss and its derivative along random directions; their product estimates
the gradient. By default the directions perturb activations (dg.forward_gradient has the options);
--perturb weights perturbs the weights, --method backprop is the baseline.
"""

import argparse
import sys
import time

import numpy as np
import trainer

import dualgrad as dg

MODELS = {
    "logreg": lambda key: dg.tree.map(np.zeros_like, dg.nn.MLP([784, 10], key=key)),
    "mlp": lambda key: dg.nn.MLP([784, 1024, 1024, 10], key=key),
    "cnn": lambda key: dg.nn.CNN(key=key),
}
# What gave the best accuracy on the last 10,000 training images for the time it took.
DEFAULTS = {  # (lr, directions, epochs)
    ("logreg", "activations"): (0.5, 4, 20),
    ("logreg", "weights"): (0.012, 16, 25),
    ("logreg", "backprop"): (0.5, 1, 20),
    ("mlp", "activations"): (0.08, 8, 12),
    ("mlp", "weights"): (1.5e-3, 16, 10),
    ("mlp", "backprop"): (0.5, 1, 10),
    ("cnn", "activations"): (1e-3, 4, 1),
    ("cnn", "weights"): (5e-4, 8, 1),
    ("cnn", "backprop"): (0.2, 1, 2),
}
WARM_UP = 200  # steps, at most a twentieth of all: the first steps are the ones that diverge


def defaults() -> str:
    """Return the table of defaults, for --help."""
    rows = ["defaults (batches of 64):    --lr  --directions  --epochs"]
    for (model, what), (lr, directions, epochs) in DEFAULTS.items():
        rows.append(f"  {model:8}{what:14}{lr:>11g}{directions:>14}{epochs:>10}")
    return "\n".join(rows)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = trainer.Parser(
        description=__doc__, epilog=defaults(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        choices=MODELS,
        default="mlp",
        help="784-10, 784-1024-1024-10, or convolutions (default: mlp)",
    )
    trainer.add_options(parser)
    options = parser.parse_args(arguments)
    forward = options.method == "forward"
    if not forward and (options.perturb or options.directions or options.structure):
        parser.error("--method backprop takes no --perturb, --directions or --structure")
    options.perturb = options.perturb or "activations"
    lr, directions, epochs = DEFAULTS[options.model, options.perturb if forward else "backprop"]
    options.lr = lr if options.lr is None else options.lr
    options.directions = options.directions or directions
    options.batch_size = options.batch_size or 64
    options.epochs = options.epochs or epochs
    if options.structure and options.perturb != "weights":
        parser.error("--structure shapes directions of weights; add --perturb weights")
    options.structure = options.structure or ("rank1" if options.perturb == "weights" else "dense")
    if options.device == "gpu":
        parser.error("--device gpu: this version has no GPU kernels yet; leave it out")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    trainer.check_outputs(options)
    (x, y), (x_test, y_test) = dg.datasets.mnist(options.data_dir)
    per_epoch = dg.datasets.batches_per_epoch(len(x), options.batch_size)
    options.steps = options.steps or options.epochs * per_epoch

    def loss(model, images, labels):
        """One loss an example: activity perturbation credits each example with its own noise."""
        return dg.nn.cross_entropy(model(images), labels, reduction="none")

    forward = {
        "directions": options.directions,
        "structure": options.structure,
        "perturb": options.perturb,
    }
    falling = dg.optim.cosine(options.lr, options.steps)
    rate = dg.optim.warmup(falling, max(1, min(WARM_UP, options.steps // 20)))
    optimiser = dg.optim.sgd(rate)
    step = dg.training_step(
        loss, optimiser, method=options.method, **(forward if options.method == "forward" else {})
    )
    run = trainer.Run(options, step, x, y)
    model = MODELS[options.model](run.key.fold_in("model"))
    diagnose = None
    if options.diagnose and options.method == "forward":
        diagnose = trainer.compare_with_gradient(loss, forward, run.key.fold_in("diagnose"))

    start = time.perf_counter()
    state, finished = run.train(model, diagnose)
    seconds = time.perf_counter() - start
    test = trainer.evaluate(state.params, x_test, y_test)
    result = trainer.summary(run, state, test, seconds, finished, len(y_test) == 10_000)
    trainer.report(run, result, test)
    return 0 if finished else 130


if __name__ == "__main__":
    sys.exit(trainer.run(main))
