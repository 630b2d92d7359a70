"""What benchmarks/gpu.py times: dualgrad's steps and the peers', and how they take turns.

A contestant is a call that starts one step on the device and waits for nothing. A timing is of as
many calls as take BLOCK seconds, and of one wait at the end; timing.interleaved takes turns.
"""

import gc
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import gpu_peers
import models
import numpy as np
import timing
from gpu_cases import Problem

import dualgrad as dg
from dualgrad.kernels import cuda

BLOCK = 0.03  # seconds; waiting for the device takes some 1e-5
MOST_CALLS = 1000  # of a block
ROUNDS = 7
OWN: dict[str, dict[str, Any]] = {  # options of dg.training_step; the forward pass is step.value
    "forward": {"structure": "rank1"},
    "rank-1": {"structure": "rank1"},
    "backprop": {"method": "backprop"},
    "dense": {},
    "rank-1 k=16": {"structure": "rank1", "directions": 16},
    "dense k=16": {"directions": 16},
}
THEIRS = {  # and the name of the method in gpu_peers.py
    "forward": "forward",
    "forward gradient": "forward_gradient",
    "backprop": "backprop",
    "forward gradient k=16": "forward_gradient_of_16",
}
CLOSE = {"float32": 5e-3, "tf32": 5e-2}  # relative error of a peer's loss and gradient


class Device:
    """Where dualgrad's arrays are: "gpu", or "cpu" for a rehearsal."""

    def __init__(self, name: str) -> None:
        self.name = name

    def put(self, tree: Any) -> Any:
        return dg.to_device(tree, self.name)

    def wait(self, value: Any = None) -> None:
        if self.name == "gpu":
            cuda.cupy().cuda.get_current_stream().synchronize()

    def release(self) -> None:
        """Give the memory that the pool keeps back to the device."""
        gc.collect()
        if self.name == "gpu":
            cuda.cupy().get_default_memory_pool().free_all_blocks()

    def used(self) -> int | None:
        """Return the bytes in use on the device."""
        return cuda.cupy().get_default_memory_pool().used_bytes() if self.name == "gpu" else None

    def peak(self) -> int | None:
        """Return the bytes that the pool has taken and kept since release(): the peak, rounded."""
        return cuda.cupy().get_default_memory_pool().total_bytes() if self.name == "gpu" else None

    def elapsed(self, run: Callable[[], Any]) -> float | None:
        """Return the seconds between events on the device before and after run()."""
        if self.name != "gpu":
            return None
        module = cuda.cupy().cuda
        begin, end = module.Event(), module.Event()
        begin.record()
        run()
        end.record()
        end.synchronize()
        return module.get_elapsed_time(begin, end) / 1e3


@dataclass
class Contestant:
    """A step to be timed; note says what is wrong with its numbers, failed why it is out.

    elapsed(run) gives seconds by events on the device, None where the library offers none.
    """

    name: str
    call: Callable[[], Any]
    wait: Callable[[Any], None]
    elapsed: Callable[[Callable[[], Any]], float | None]
    figures: dict[str, Any] = field(default_factory=dict)
    calls: int = 1
    note: str = ""
    failed: str = ""

    def block(self) -> None:
        """Run `calls` steps and wait for the last; a step that fails does so once."""
        if self.failed:
            return
        try:
            for _ in range(self.calls):
                value = self.call()
            self.wait(value)
        except Exception as error:  # whatever a library raises is this row's reason, not the end
            self.failed = reason(error)

    def calibrate(self) -> dict[str, float]:
        """Set how many calls make a block, and return a first figure, of no round."""
        self.block()
        taken = timing.seconds_of(self.block, 1)
        if taken < BLOCK / 10:  # of which most may be the wait
            self.calls = 10
            taken = timing.seconds_of(self.block, 1) / 10
        self.calls = max(1, min(MOST_CALLS, math.ceil(BLOCK / max(taken, 1e-7))))
        return {"minimum": taken, "median": taken, "rounds": 0}

    def by_events(self) -> None:
        """Note a step's time by events on the device, beside the clock's."""
        if not self.failed and (seconds := self.elapsed(self.block)) is not None:
            self.figures["device_seconds"] = seconds / self.calls


def reason(error: BaseException) -> str:
    """Return an error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def timed(contestants: list[Contestant], seconds: float) -> dict[str, dict[str, float]]:
    """Return for each calibrated contestant minimum, median and spread of a step, taken in turns.

    Those that fail are left out, and say why.
    """
    running = [c for c in contestants if not c.failed]
    if not running:
        return {}
    times = timing.interleaved({c.name: c.block for c in running}, ROUNDS, seconds)
    for contestant in running:
        contestant.by_events()
    per_step = {c.name: [t / c.calls for t in times[c.name]] for c in running if not c.failed}
    return timing.summary(per_step)


# --- dualgrad


def own_call(problem: Problem, what: str, device: Device) -> Callable[[], Any]:
    """Return a call that takes one of dualgrad's steps, or the forward pass alone.

    A rehearsal takes eager steps: compiling plans for the CPU would take longer than all the rest.
    """
    step = dg.training_step(problem.loss, dg.optim.sgd(gpu_peers.RATE),
                            has_state=problem.state is not None, plan=device.name == "gpu",
                            **OWN[what])  # fmt: skip
    model, statistics = device.put(problem.model), device.put(problem.state)
    state, data = step.init(model, models.KEY, statistics), device.put(problem.data)
    if what == "forward":
        return lambda: step.value(state, *data)

    def call() -> Any:
        nonlocal state
        state, value = step(state, *data)
        return value

    return call


def own(problem: Problem, what: str, device: Device) -> Contestant:
    """Return one of dualgrad's contestants after its first steps, with memory and launches."""
    made = Contestant(
        f"dualgrad {what}", own_call(problem, what, device), device.wait, device.elapsed
    )
    device.release()
    before = device.used()
    value = made.call()  # compiles; at the network's own weights, like every peer's
    made.call()
    device.wait()
    peak, launches = device.peak(), cuda.launches
    made.call()
    device.wait()
    made.figures = {"loss": float(device_number(value))}
    if before is not None and peak is not None:
        made.figures |= {"bytes": peak - before, "launches": cuda.launches - launches}
    return made


def device_number(value: Any) -> float:
    """Return a number that may lie on the device."""
    return float(dg.to_device(value, "cpu"))


def exact(problem: Problem, device: Device) -> list[np.ndarray]:
    """Return the gradient of the mean loss by dualgrad's reverse mode, in host memory."""

    def mean(model: Any, *rest: Any) -> Any:
        found = problem.loss(model, *rest)
        return np.mean(found if problem.state is None else found[0])

    given = problem.data if problem.state is None else (problem.state, *problem.data)
    model, *rest = device.put((problem.model, *given))
    return models.arrays(dg.to_device(dg.gradient(mean, mode="reverse")(model, *rest), "cpu"))


# --- peers


@dataclass
class Reference:
    """What peers are held against: dualgrad's loss and gradient, and how close they must be."""

    loss: float | None
    gradient: list[np.ndarray] | None
    close: float


def theirs(kind: str, what: str, make: Callable[[], Any], reference: Reference) -> Contestant:
    """Return a peer's contestant, held against the reference, after its first steps.

    Args:
        kind: what the peer is called, such as "torch compiled".
        what: of THEIRS.
        make: gives the peer, at the network's own weights.
        reference: see there.
    """
    peer = make()
    step = getattr(peer, THEIRS[what])
    loss = float(step() if what == "forward" else step(0.0))
    note = difference(peer, what, loss, reference)
    made = Contestant(f"{kind} {what}", step, peer.wait, peer.elapsed, {"loss": loss}, note=note)
    peer.release()
    before = peer.used()
    made.call = peer.call(THEIRS[what])
    for _ in range(3):
        value = made.call()
    peer.wait(value)
    peak = peer.peak(THEIRS[what])
    if before is not None and peak is not None:
        made.figures["bytes"] = peak - before
    return made


def difference(peer: Any, what: str, loss: float, reference: Reference) -> str:
    """Return "" where a peer's loss, and its step, are dualgrad's, else how far they are off."""
    if reference.loss is None:
        return "dualgrad gives no loss to compare with"
    if not abs(loss - reference.loss) <= reference.close * abs(reference.loss):
        return f"its loss is {loss:.6g}, dualgrad's {reference.loss:.6g}"
    if reference.gradient is None or what not in ("backprop", "forward gradient"):
        return ""
    found, weights = "", peer.weights()
    for _ in range(3):  # where g.v happens to be next to nothing, rounding is all that is seen
        found = step_difference(peer, what, reference)
        if not found:
            break
        peer.load(peer.own_layout(weights, reference.gradient))
    return found


def step_difference(peer: Any, what: str, reference: Reference) -> str:
    """Return "" where a step of a peer moves its weights as the gradient says, else how far off."""
    start = peer.weights()
    gradient = [np.ascontiguousarray(g) for g in peer.layout(reference.gradient)]
    size, square = sum(g.size for g in gradient), _dot(gradient, gradient)
    lr = 0.1 * math.sqrt(_dot(start, start) / square)  # so large that rounding does not show
    if what == "forward gradient":
        lr /= math.sqrt(size)
    getattr(peer, THEIRS[what])(lr)
    moved = [(a - b) / lr for a, b in zip(start, peer.weights(), strict=True)]
    if what == "backprop":
        rest = [a - b for a, b in zip(moved, gradient, strict=True)]
        error = math.sqrt(_dot(rest, rest) / square)
        return "" if error <= reference.close else f"its gradient is {error:.1e} off dualgrad's"
    # moved = (g.v) v, so that g.moved = (g.v)^2, and |v|^2 scatters about its mean, size
    ratio = size * _dot(gradient, moved) / _dot(moved, moved)
    bound = 6 * math.sqrt(2 / size) + reference.close
    return "" if abs(ratio - 1) <= bound else f"(g.v)^2 |v|^2 / |moved|^2 = {ratio:.3g}, not 1"


def _dot(a: Iterable[np.ndarray], b: Iterable[np.ndarray]) -> float:
    return sum(float(np.vdot(x, y)) for x, y in zip(a, b, strict=True))
