"""What one step of training needs beside the parameters: table of methods, peak bytes.

    python benchmarks/memory.py [--model cnn] [--layers 784,1024,1024,10] [--json PATH]

Each method runs in a process of its own, after tiny steps that load the code and before which
nothing of the model exists. "arrays" is tracemalloc's peak over one step, beyond what was there
before it: all that NumPy allocates (torch and jax allocate elsewhere). "first" and "later" are the
peaks of the resident set in the first step and in later ones, as the operating system counts them,
less what was resident before the model was built and less one copy of the parameters: a second copy
of them, packed or otherwise, counts. "first" compiles too. The method is the same for all.

--model resnet18 compares guided gradients, with the gradients of local losses as guesses, with
backprop: ResNet-18 in --blocks blocks, SGD with momentum. Momentum and directions of the weights
are left out of the figures there, a copy of the parameters each. Backprop's network has no heads.
"""

import argparse
import ctypes
import functools
import gc
import json
import os
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import peers
import timing

import dualgrad as dg
from dualgrad.kernels import dispatch

METHODS: dict[str, dict] = {
    "rank-1, k = 1": {"structure": "rank1"},
    "rank-1, k = 16": {"structure": "rank1", "directions": 16},
    "dense, k = 1": {},
    "dense, k = 16": {"directions": 16},
    "dense, k = 16 in chunks of 1": {"directions": 16, "chunk_size": 1},
    "activations, k = 1": {"perturb": "activations"},
    "activations, k = 4": {"perturb": "activations", "directions": 4},
    "backprop": {"method": "backprop"},
}
SPACES = ("weight", "module", "activation")  # of guided gradients
PEERS = ("torch backprop", "torch checkpointed backprop", "torch forward gradient",
         "jax backprop", "jax forward gradient")  # fmt: skip
Make = Callable[[dg.nn.Module, tuple], Callable[[], float]]  # model, batch -> a step


# --- the resident set


def resident(field: str) -> int:
    """Return VmRSS (now) or VmHWM (the peak) of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        found = [line.split() for line in status.read_text().splitlines()]
        return next(1024 * int(words[1]) for words in found if words[0] == f"{field}:")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # no present figure: the peak so far
    return peak if sys.platform == "darwin" else 1024 * peak


def forget_peak() -> None:
    """Give freed memory back to the system and let the peak begin again from what is in use."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
        if trim is not None:
            trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def peaks(
    build: Callable[[], dg.nn.Module], data: tuple, make: Make, likeness: Any = None
) -> dict[str, int]:
    """Return peak bytes of the first step and of later ones, beyond one copy of the parameters.

    likeness: a small model for the tiny steps, where neither a CNN nor an MLP will do.
    """
    small = tuple(part[:8] for part in data)
    plain = dg.nn.CNN(channels=4) if data[0].ndim == 4 else dg.nn.MLP([data[0].shape[1], 16, 10])
    tiny = plain if likeness is None else likeness
    dispatch.numba_use = "always"  # drawing a large model's weights would load numba later
    if likeness is None:
        models.own_step(tiny, small, structure="rank1")()
    call = make(tiny, small)
    call()
    dispatch.numba_use = "table"
    for _ in range(3):
        call()
    del call, tiny
    forget_peak()
    before = resident("VmRSS")
    model = build()
    parameters = sum(w.nbytes for w in models.arrays(model))
    call = make(model, data)
    del model  # the step has its own
    found = {"parameters": parameters}
    for name in ("first", "later"):
        forget_peak()
        for _ in range(1 if name == "first" else 3):
            call()
        found[name] = resident("VmHWM") - before - parameters
    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    call()
    return found | {"arrays": tracemalloc.get_traced_memory()[1] - start}


# --- contestants


def maker(name: str) -> Make:
    """Return make(model, batch), giving a step, for "planned rank-1, k = 1", "torch backprop"..."""
    kind, _, what = name.partition(" ")
    if kind == "torch":
        from torch_peer import Torch

        return lambda model, data: getattr(
            Torch(models.arrays(model), *data, checkpointed="checkpointed" in what),
            what.removeprefix("checkpointed ").replace(" ", "_"),
        )
    if kind == "jax":
        from jax_peer import Jax

        return lambda model, data: getattr(Jax(models.arrays(model), *data), what.replace(" ", "_"))
    return functools.partial(models.own_step, plan=kind == "planned", **METHODS[what])


def apart(script: str, *arguments: str) -> Any:
    """Return the JSON that a script prints in a fresh process.

    There glibc gives each large array pages of its own, so that what is freed leaves at once and
    the figures do not depend on how its heap happens to be cut.
    """
    command = [sys.executable, script, *arguments]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def guided_step(model: Any, data: tuple, method: Any) -> Callable[[], float]:
    """Return a call that trains a ResNet18 once, and gives the loss."""

    def loss(model: Any, state: dict, x: Any, labels: np.ndarray) -> tuple:
        logits, state = model(x, state)
        return dg.nn.cross_entropy(logits, labels, reduction="none"), state

    optimiser = dg.optim.sgd(models.LR, momentum=0.9)
    step = dg.training_step(loss, optimiser, method=method, has_state=True)
    state = step.init(model, models.KEY, model.init_state())

    def call() -> float:
        nonlocal state
        state, value = step(state, *data)
        return float(value)

    return call


def measure_guided(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of a ResNet-18 trained by backprop or guided in some space."""
    backprop = name == "backprop"
    method = "backprop" if backprop else dg.guided_gradient(space=name, has_state=True)
    shape = (options.batch_size, 32, 32, 3)
    x = dg.random.uniform(models.KEY.fold_in("x"), shape, np.float32)
    labels = np.arange(len(x)) % 10
    aux = None if backprop else "cnn"
    build = functools.partial(dg.nn.ResNet18, blocks=options.blocks, aux=aux, key=models.KEY)
    make = functools.partial(guided_step, method=method)
    found = peaks(functools.partial(build, width=options.width), (x, labels), make,
                  build(width=1 / 16))  # fmt: skip
    copies = 2 if name in ("weight", "module") else 1  # of the parameters: momentum, directions
    for what in ("first", "later", "arrays"):
        held = copies if what != "arrays" else copies - 1  # momentum was there before the step
        found[what] -= held * found["parameters"]
    return {"method": name if backprop else f"local guess, {name}", **found}


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one method, measured in this process."""
    if options.model == "resnet18":
        return measure_guided(name, options)
    layers = [int(width) for width in options.layers.split(",")]
    build: Callable[[], dg.nn.Module] = functools.partial(dg.nn.MLP, layers, key=models.KEY)
    x, labels = models.batch(options.model, options.batch_size)
    if options.model == "mlp" and layers[0] != x.shape[1]:
        x = dg.random.uniform(models.KEY, (len(x), layers[0]), np.float32)
    if options.model != "mlp":
        build = functools.partial(models.build, options.model, channels=options.channels)
    found = peaks(build, (x, labels), maker(name))
    if not name.startswith(("planned", "eager")):
        del found["arrays"]
    return {"method": name, **found}


def names(options: argparse.Namespace) -> list[str]:
    """Return what is measured, each in a process of its own."""
    if options.model == "resnet18":
        return ["backprop", *SPACES]
    present = peers.available(options.peers)
    own = [f"{kind} {name}" for kind in ("planned", "eager") for name in METHODS]
    return own + [name for name in PEERS if name.split()[0] in present]


def show(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Print the table; for a ResNet-18 with each peak over backprop's."""
    size = rows[0]["parameters"]
    print(timing.machine_line())
    what = f"MLP {options.layers}" if options.model == "mlp" else options.model
    guided = options.model == "resnet18"
    what += f" of width {options.width:g} in {options.blocks} blocks" if guided else ""
    print(f"{what}, batch {options.batch_size}: {size / 1e6:.2f} MB of parameters")
    head = ["one step, MB beyond the parameters", "arrays", "of params", "first", "later"]
    head += ["/ backprop"] * guided
    body = []
    for row in rows:
        arrays = row.get("arrays")
        shown = [None, None] if arrays is None else [arrays / 1e6, arrays / size]
        body.append([row["method"], *shown, row["first"] / 1e6, row["later"] / 1e6])
        if guided:
            row["ratio"] = row["later"] / rows[0]["later"]
            body[-1].append(row["ratio"])
    print(timing.table(head, body))


def main() -> None:
    parser = timing.parser(__doc__, pinned=False, plot=False)
    parser.add_argument("--model", choices=(*models.MODELS, "resnet18"), default="mlp")
    parser.add_argument("--layers", default="784,1024,1024,10", help="widths of the MLP")
    parser.add_argument("--channels", type=int, default=64, help="of the CNN")
    parser.add_argument("--blocks", type=int, default=16, help="of the ResNet-18, 8 or 16")
    parser.add_argument("--width", type=float, default=0.25, help="of the ResNet-18")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--one", metavar="METHOD", help="measure one method here, print JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    given = ("model", "layers", "channels", "blocks", "width", "batch_size")
    same = [str(x) for name in given
            for x in (f"--{name.replace('_', '-')}", getattr(options, name))]  # fmt: skip
    rows = [apart(__file__, "--one", name, *same) for name in names(options)]
    show(options, rows)
    timing.write(options, {"rows": rows})


if __name__ == "__main__":
    main()
