"""The process in which benchmarks/gpu.py measures: it writes what it finds line by line.

The parent starts it with a list of jobs, ends it when a job outlasts its time, and starts it again
with the jobs that are left: a device that has met an error serves no other call of that process.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gpu_cases
import gpu_contestants as contestants
import models
import numpy as np
from gpu_contestants import Contestant, Device, Reference, reason

from dualgrad.kernels import cuda

KERNELS, CEILINGS = "kernels", "ceilings"
LATE = "skipped: out of time"
ONCE = "one timing by itself: what came after it ended the round"
SHARES = {KERNELS: 6.0, CEILINGS: 4.0}
Emit = Callable[..., None]
Groups = list[list[tuple[str, Callable[[], Contestant]]]]  # to be built and timed one by one


def share(job: str) -> float:
    """Return the part of the time that a job gets, relative to the others'."""
    return SHARES[job] if job in SHARES else gpu_cases.CASES[job].share


def run(jobs: list[str], options: dict[str, Any]) -> None:
    """Do all jobs, and write a line for what begins, each figure, and what has ended.

    Args:
        jobs: KERNELS, CEILINGS and names of CASES.
        options: "seconds" for all, "device", "peer_device", "precision", "peers", "tiny", "lines"
            (the path that is written to).
    """
    end = time.monotonic() + options["seconds"]
    with Path(options["lines"]).open("a", buffering=1) as file:

        def emit(event: str, **content: Any) -> None:
            file.write(json.dumps({"event": event, **content}) + "\n")

        emit("device", **description(options["device"]))
        for place, job in enumerate(jobs):
            whole = sum(map(share, jobs[place:]))
            seconds = max(0.0, end - time.monotonic()) * share(job) / whole
            emit("begin", job=job, seconds=seconds)
            if job == KERNELS:
                kernels(options["device"], emit)
            elif job == CEILINGS:
                ceilings(Device(options["device"]), options["precision"], options["tiny"], emit)
            else:
                case(job, options, seconds, emit)
            emit("end", job=job)


def description(device: str) -> dict[str, Any]:
    """Return the device's name and the versions of what drives it."""
    if device == "cpu":
        return {"name": "cpu"}
    cupy = cuda.cupy()
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return {
        "name": properties["name"].decode(),
        "bytes": int(properties["totalGlobalMem"]),
        "multiprocessors": int(properties["multiProcessorCount"]),
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }


def kernels(device: str, emit: Emit) -> None:
    """Compile the kernels for float32, and write how long it took; CuPy keeps them on disk."""
    start, instances = time.perf_counter(), 0
    for source in cuda.sources() if device == "gpu" else []:
        dtype = None if source.dtypes is None else "float32"
        cuda.cupy().RawModule(code=source.code(), options=source.options(dtype)).compile()
        instances += 1
    emit("compiled", instances=instances, seconds=time.perf_counter() - start)


# --- ceilings


def ceilings(device: Device, precision: str, tiny: bool, emit: Emit) -> None:
    """Write what products and copies reach on this device, by the libraries that drive it."""
    module = cuda.cupy() if device.name == "gpu" else np
    sizes = {"float32": 8192, "float16": 8192, "float64": 2048}
    names = ["float32"] if precision == "tf32" else list(sizes)
    for name in names:
        n = 64 if tiny else sizes[name]
        measured(emit, "tf32" if precision == "tf32" else name, "TFLOP/s", 2 * n**3 / 1e12,
                 partial(product, module, n, name), device)  # fmt: skip
    if precision != "tf32":
        n = 1 << (16 if tiny else 28)
        measured(emit, "copy", "GB/s", 2 * 4 * n / 1e9, partial(copy, module, n), device)


def measured(emit: Emit, name: str, unit: str, work: float,
             make: Callable[[], Callable[[], Any]], device: Device) -> None:  # fmt: skip
    """Write the work a second that the call of make() does, or why there is none."""
    try:
        made = Contestant(name, make(), device.wait, device.elapsed)
        made.calibrate()
        found = contestants.timed([made], 3.0)
    except Exception as error:  # out of memory, say: a line of the table, not the end
        emit("ceiling", name=name, unit=unit, failed=reason(error))
        return
    if made.failed:
        emit("ceiling", name=name, unit=unit, failed=made.failed)
    else:
        emit("ceiling", name=name, unit=unit, value=work / found[name]["minimum"])
    device.release()


def product(module: Any, n: int, dtype: str) -> Callable[[], Any]:
    """Return a call that multiplies two matrices of random numbers into a third."""
    a, b = (module.asarray(x) for x in np.random.default_rng(0).random((2, n, n), np.float32))
    a, b = (x.astype(dtype) for x in (a, b))
    c = module.empty((n, n), dtype)
    return lambda: module.matmul(a, b, out=c)


def copy(module: Any, n: int) -> Callable[[], Any]:
    x, y = module.zeros(n, np.float32), module.empty(n, np.float32)
    return lambda: module.copyto(y, x)


# --- steps


def case(name: str, options: dict[str, Any], seconds: float, emit: Emit) -> None:
    """Build and time the contestants of a case, one group after the other.

    What takes long to compile comes last, and then all are timed again beside it: its row is of the
    same rounds as the others'. Until then there are the figures of the first rounds.
    """
    end = time.monotonic() + seconds
    chosen = gpu_cases.CASES[name]
    problem = chosen.tiny() if options["tiny"] else chosen.build()
    given = {"case": name, "precision": options["precision"]}
    alive: list[Contestant] = []
    both = groups(problem, chosen, options, alive)
    emit("case", **given, parameters=problem.parameters, compute_bound=chosen.compute_bound,
         flops={what: gpu_cases.flops(problem, what) for what in contestants.OWN},
         names=[title for group in both for title, _ in group])  # fmt: skip
    for part, group in zip((0.35, 0.25), both, strict=True):
        before = len(alive)
        for title, make in group:
            if end - time.monotonic() < part * seconds:
                emit("row", **given, name=title, failed=LATE)
                continue
            try:
                made = make()
            except Exception as error:  # a peer that fails is a row with its reason
                emit("row", **given, name=title, failed=reason(error))
                continue
            first = made.calibrate()
            alive.append(made)
            emit("row", **given, name=title, **made.figures, note=made.note or ONCE, **first)
        if len(alive) > before:
            times = contestants.timed(alive, 0.4 * max(0.0, end - time.monotonic()))
            for c in alive:
                found = {"failed": c.failed} if c.failed else times[c.name]
                emit("row", **given, name=c.name, note=c.note, **c.figures, **found)
            alive[:] = [c for c in alive if not c.failed]


def groups(problem: gpu_cases.Problem, chosen: gpu_cases.Case, options: dict[str, Any],
           alive: list[Contestant]) -> Groups:  # fmt: skip
    """Return what is built in turn: dualgrad and what starts fast, and what is compiled long.

    alive: those already built; the first gives the loss that peers are held against.
    """
    device = Device(options["device"])
    fast: list = [
        (f"dualgrad {what}", partial(contestants.own, problem, what, device))
        for what in contestants.OWN
    ]
    wanted = options["peers"]
    kinds: dict[str, dict[str, bool]] = {}
    if "torch" in wanted:
        kinds["torch"] = {}
        if problem.data[0].ndim == 4:
            kinds["torch channels_last"] = {"channels_last": True}
        if options["peer_device"] == "cuda":
            kinds["torch captured"] = {"captured": True}
    if "jax" in wanted:
        kinds["jax"] = {}
    slow = {"torch compiled": {"compiled": True}} if "compile" in wanted else {}
    if slow and options["peer_device"] == "cuda" and not chosen.compute_bound:
        slow["torch compiled and captured"] = {"compiled": True, "captured": True}
    compare = comparison(problem, device, options["precision"], alive)
    peers = Peers(problem, options)
    tasks = ("backprop", "forward gradient", "forward")

    def rows(kinds: dict[str, dict[str, bool]], tasks: tuple[str, ...]) -> list:
        return [(f"{kind} {what}", lambda kind=kind, what=what: contestants.theirs(
                    kind, what, partial(peers.make, kind, kinds[kind]), compare()))
                for what in tasks for kind in kinds]  # fmt: skip

    plain = {kind: kinds[kind] for kind in ("torch", "jax") if kind in kinds}
    return [fast + rows(kinds, tasks) + rows(plain, ("forward gradient k=16",)), rows(slow, tasks)]


class Peers:
    """Makes peers on one network's weights and batch."""

    def __init__(self, problem: gpu_cases.Problem, options: dict[str, Any]) -> None:
        self.arguments = (models.arrays(problem.model), *problem.data)
        self.options = {
            "device": options["peer_device"],
            "precision": options["precision"],
            "residual": problem.state is not None,
        }

    def make(self, kind: str, more: dict[str, bool]) -> Any:
        import gpu_peers

        made = gpu_peers.Jax if kind == "jax" else gpu_peers.Torch
        return made(*self.arguments, **self.options, **more)


def comparison(problem: gpu_cases.Problem, device: Device, precision: str,
               alive: list[Contestant]) -> Callable[[], Reference]:  # fmt: skip
    """Return reference(): what peers are held against, computed when first asked for."""
    kept: list[Reference] = []

    def reference() -> Reference:
        if not kept:
            losses = [c.figures["loss"] for c in alive if c.name.startswith("dualgrad")]
            loss = losses[0] if losses and math.isfinite(losses[0]) else None
            try:
                gradient = contestants.exact(problem, device)
            except Exception:  # its own row has said why: peers are held against the loss alone
                gradient = None
            kept.append(Reference(loss, gradient, contestants.CLOSE[precision]))
        return kept[0]

    return reference


def environment(options: dict[str, Any]) -> dict[str, str]:
    """Return the environment of the process, in which the libraries choose as options say.

    CUPY_TF32 is CuPy's, and dualgrad's own kernels follow it.
    """
    tf32 = options["precision"] == "tf32"
    return {
        **os.environ,
        **({"CUPY_TF32": "1"} if tf32 else {"CUPY_TF32": "0", "NVIDIA_TF32_OVERRIDE": "0"}),
        "JAX_PLATFORMS": options["peer_device"],
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the others need memory too
    }


if __name__ == "__main__":
    run(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
