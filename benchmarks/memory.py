"""What one step of training needs beside the parameters: table of methods, peak bytes.

    python benchmarks/memory.py [--model cnn] [--layers 784,1024,1024,10] [--json PATH]

Each method runs in a process of its own, after tiny steps that load the code and before which
nothing of the model exists. "arrays" is tracemalloc's peak over one step, beyond what was there
before it: all that NumPy allocates (torch and jax allocate elsewhere). "first" and "later" are the
peaks of the resident set in the first step and in later ones, as the operating system counts them,
less what was resident before the model was built and less one copy of the parameters: a second copy
of them, packed or otherwise, counts. "first" compiles too. The method is the same for all.
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


def peaks(build: Callable[[], dg.nn.Module], data: tuple, make: Make) -> dict[str, int]:
    """Return peak bytes of the first step and of later ones, beyond one copy of the parameters."""
    small = tuple(part[:8] for part in data)
    tiny = dg.nn.CNN(channels=4) if data[0].ndim == 4 else dg.nn.MLP([data[0].shape[1], 16, 10])
    dispatch.numba_use = "always"  # drawing a large model's weights would load numba later
    models.own_step(tiny, small, structure="rank1")()
    dispatch.numba_use = "table"
    call = make(tiny, small)
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


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one method, measured in this process."""
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


def main() -> None:
    parser = timing.parser(__doc__, pinned=False, plot=False)
    parser.add_argument("--model", choices=models.MODELS, default="mlp")
    parser.add_argument("--layers", default="784,1024,1024,10", help="widths of the MLP")
    parser.add_argument("--channels", type=int, default=64, help="of the CNN")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--one", metavar="METHOD", help="measure one method here, print JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    present = peers.available(options.peers)
    names = [f"{kind} {name}" for kind in ("planned", "eager") for name in METHODS]
    names += [name for name in PEERS if name.split()[0] in present]
    rows = []
    for name in names:
        rows.append(
            apart(__file__, "--one", name, "--model", options.model, "--layers", options.layers,
                  "--channels", str(options.channels), "--batch-size", str(options.batch_size))
        )  # fmt: skip
    size = rows[0]["parameters"]
    print(timing.machine_line())
    what = f"MLP {options.layers}" if options.model == "mlp" else options.model
    print(f"{what}, batch {options.batch_size}: {size / 1e6:.2f} MB of parameters")
    head = ["one step, MB beyond the parameters", "arrays", "of params", "first", "later"]
    body = []
    for row in rows:
        arrays = row.get("arrays")
        shown = [None, None] if arrays is None else [arrays / 1e6, arrays / size]
        body.append([row["method"], *shown, row["first"] / 1e6, row["later"] / 1e6])
    print(timing.table(head, body))
    timing.write(options, {"rows": rows})


if __name__ == "__main__":
    main()
