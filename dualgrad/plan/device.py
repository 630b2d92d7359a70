"""Plans on a device: the same record and the same fused steps, run as launches over plain arrays.

On the host a step defers its update and keeps parameters in panels, so that a panel is loaded once
for both. On a device an update is a launch of its own anyway, and products want plain matrices: so
parameters lie row by row, as the user gave them, and the last launch of a step takes the update
from all of them, drawing the directions again. What changes from step to step (step number, rate,
key) goes into the first launch as arguments, which the driver copies: a buffer in pinned memory
would be overwritten while earlier steps still wait to read it. All other launches have the same
arguments every time, so that they can be captured as one graph and started by one call. Nothing in
a step waits for the device: the loss is an array of shape (), and a label that is no class makes it
NaN instead of raising.
"""

from collections.abc import Callable
from typing import Any

from .. import tree
from ..beside import on_device
from ..dual import primal_of
from ..kernels import cuda
from ..options import cuda_graphs
from ..random import Key
from ..trace import Graph, fill, refs
from .fusion import Convolution, CrossEntropy, Linear, Plain, Step
from .launches import Launches, work_of
from .layout import Settings
from .packed import Owner
from .replay import call_plain

MOST_DIRECTIONS = 16
# Multiply-adds of a layer, on average, up to which its launches take longer to start than to run:
# then a step is captured as a graph, with products of our own, as cuBLAS through CuPy cannot be. A
# guess from peak rates, to be measured: 2**28 take about 15 us at 36 TFLOP/s, as four launches do.
GRAPH_WORK = 1 << 28
CAPTURED_AT = 2  # steps done before the one that is captured: all kernels are compiled by then


class DeviceStore(Owner):
    """The parameters of a run on a device: plain arrays, written by the last launch of each step.

    Attributes:
        steps: how many steps they have taken.
    """

    def __init__(self, params: tree.Tree, steps: int) -> None:
        """Copy params: the state before the first step may still be used."""
        super().__init__(params)
        self.leaves = [_apart(x) for x in self.leaves]
        self.steps = steps

    def is_past(self, step: int) -> bool:
        return self.steps != step

    def tree(self) -> tree.Tree:
        return tree.unflatten(self.structure, [_apart(x) for x in self.leaves])


def _apart(x: Any) -> Any:
    return x.copy() if on_device(x) else x


def why_eager(graph: Graph, steps: list[Step], params: tree.Tree, settings: Settings) -> str:
    """Return what of a recorded loss the stages of a device cannot do, or ""."""
    leaves = tree.leaves(params)
    dtypes = sorted({str(x.dtype) for x in leaves if tree.is_floating(x)})
    if len(dtypes) > 1:
        return f"a GPU's stages take parameters of one dtype, and these are {', '.join(dtypes)}"
    if settings.k > MOST_DIRECTIONS:
        return f"directions={settings.k}: a GPU's stages take up to {MOST_DIRECTIONS}"
    if not any(isinstance(step, CrossEntropy) for step in steps):
        return "on a GPU the loss must end in the cross_entropy of a fused layer"
    _, after = _around(graph, steps)
    for step in steps:
        if isinstance(step, Plain) and step.moving and step not in after:
            why = f", as {step.miss[1]}" if step.miss[1] else ""
            return f"{step.call!r} runs on duals{why}, at {step.line}, and a GPU's plan has none"
    return ""


def _around(graph: Graph, steps: list[Step]) -> tuple[list[Plain], list[Plain]]:
    """Return the plain calls before the stages, and those of which the loss needs nothing.

    The latter read what stages leave, and are done before the update.
    """
    needed = set(refs((graph.outputs[0],)))
    for step in reversed(steps):
        if isinstance(step, CrossEntropy):
            needed.update((step.source, step.labels))
        elif not isinstance(step, Plain):
            needed.add(step.source)
        elif step.result in needed:
            needed.update(refs((step.call.args, step.call.kwargs)))
    plain = [step for step in steps if isinstance(step, Plain)]
    before = [step for step in plain if not step.moving]
    return before, [step for step in plain if step.moving and step.result not in needed]


class DevicePlan:
    """A loss over one signature, ready to run on a device; arguments as for `Plan`."""

    def __init__(self, graph: Graph, steps: list[Step], store: DeviceStore, floating: list[int],
                 settings: Settings, schedule: Callable[[int], float] | None) -> None:  # fmt: skip
        self.graph = graph
        self.store = store
        self.schedule = schedule
        self.before, self.after = _around(graph, steps)
        self.how, wanted = graph_use(graph, steps, settings)
        self.launches = Launches(graph, steps, store, floating, settings, own=wanted)
        outputs = graph.outputs[1:]
        self.constants = [] if refs(tuple(outputs)) else outputs
        self._whole = not self.after and bool(self.constants or not outputs)
        self._wanted = wanted  # as a graph
        self._captured: Any = None
        self._runs = 0

    def run(self, inputs: list, key: Key, step: int, updates: int) -> tuple[Any, list]:
        """Return (value of the loss, leaves of the other outputs), and train the parameters."""
        values: list[Any] = [*inputs, *[None] * len(self.graph.calls)]
        for call in self.before:
            values[call.result] = call_plain(call, self.graph, values)
        for ref, buffer in self.launches.inputs:
            buffer[...] = values[ref]
        if self.launches.begin is not None:
            assert self.schedule is not None
            low, high = (int(word) for word in key.words)
            self.launches.begin(key=(low, high), step=step, rate=self.schedule(updates))
        trained = self._launch(step)
        value = self.launches.loss.copy()
        for ref, array in self.launches.results.items():
            values[ref] = array
        for call in self.after:
            values[call.result] = call_plain(call, self.graph, values)
        others = self.constants or [_apart(primal_of(fill(x, values))) for x in
                                    self.graph.outputs[1:]]  # fmt: skip
        if self.launches.update is not None and not trained:
            self.store.steps = step + 1  # first: an interrupt between the two finds it used
            self.launches.update()
        return value, others

    def _launch(self, step: int) -> bool:
        """Start the stages up to the loss; return whether the update was among them."""
        if self._wanted and self._captured is None and self._runs == CAPTURED_AT:
            self._capture()
        self._runs += 1
        if self._captured is None:
            for stage in self.launches.forward:
                stage()
            return False
        if self._whole:
            self.store.steps = step + 1
        self._captured.launch()
        return self._whole

    def _capture(self) -> None:
        """Record the launches of a step as a graph; say so where that cannot be done.

        The update is one of them where nothing that the loss returns is computed before it.
        """
        update = [self.launches.update] if self._whole and self.launches.update else []
        stream = cuda.cupy().cuda.Stream(non_blocking=True)
        try:
            with stream:
                stream.begin_capture()
                try:
                    for stage in (*self.launches.forward, *update):
                        stage()
                finally:
                    captured = stream.end_capture()
        except RuntimeError as error:  # of CUDA, or CuPy's NotImplementedError
            self._wanted = False
            self.how = f"launched one by one, as capturing a graph raised: {error}"
            return
        self._captured = captured


def graph_use(graph: Graph, steps: list[Step], settings: Settings) -> tuple[str, bool]:
    """Return how the launches of a step are started, in words, and whether as a CUDA graph."""
    if not settings.k:
        return "launched one by one", False
    captured = cuda_graphs()
    why = f"DUALGRAD_CUDA_GRAPH={int(bool(captured))}"
    if captured is None:
        layers = sum(isinstance(step, (Linear, Convolution)) for step in steps)
        work = work_of(graph, steps, settings) / layers
        captured = work <= GRAPH_WORK
        why = f"{work:.2g} multiply-adds a layer, {'up to' if captured else 'more than'} 2**28"
    how = "a CUDA graph from the third step on" if captured else "launched one by one"
    return f"{how} ({why})", captured
