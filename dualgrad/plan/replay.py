"""Plans: a loss recorded once (trace.py), its layers given to fused stages (fusion.py), replayed.

What no stage does runs as it was called, on duals, between programs of stages; the arrays of both
are views of the same buffers. A plan belongs to one signature of arguments and to one `Store`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import drawing
from ..dual import DualTensor, Level, new_level, primal_of, read_only
from ..errors import DualgradError
from ..nn.functional import cross_entropy
from ..optim.leaf import add_to
from ..random import Key
from ..trace import Graph, fill, refs
from .builder import Builder
from .fusion import Convolution, CrossEntropy, Flatten, Plain, Step
from .layout import Segment, Settings
from .packed import DERIVATIVES, ERROR, LOSS, RATE, STEP, Store

# Multiply-adds of a step from which a second thread pays: about 50 us of work.
PARALLEL = 2_000_000


class Changed(DualgradError, RuntimeError):
    """A call of a plan gave another shape or dtype than when it was recorded."""


class Plan:
    """A loss over one signature, ready to run.

    Args:
        graph, steps: the record and what fusion.py made of it.
        store: the parameters.
        floating: the numbers of the inputs that are perturbed.
        schedule: step number -> rate; None for the loss alone.
    """

    def __init__(self, graph: Graph, steps: list[Step], store: Store, floating: list[int],
                 settings: Settings, schedule: Callable[[int], float] | None) -> None:  # fmt: skip
        self.graph = graph
        self.steps = steps
        self.store = store
        self.settings = settings
        self.schedule = schedule
        builder = Builder(graph, steps, store, settings)
        self.items = builder.items
        self.views = builder.views
        self.words, self.numbers = builder.words, builder.numbers
        self.headed = builder.headed
        self.parallel = builder.work >= PARALLEL
        outputs = graph.outputs[1:]
        self.constants = [] if refs(tuple(outputs)) else outputs
        self.plain = [i for i in floating if i not in store.packed]
        self.moving = any(isinstance(item, Plain) and item.moving for item in self.items)

    def run(self, inputs: list, key: Key, step: int, updates: int) -> tuple[Any, list]:
        """Return (value of the loss, leaves of the other outputs), and leave the update due."""
        if self.moving or self.plain:
            with new_level("dg.training_step") as level:
                return self._run(inputs, key, step, updates, level)
        return self._run(inputs, key, step, updates, None)

    def _run(self, inputs: list, key: Key, step: int, updates: int,
             level: Level | None) -> tuple[Any, list]:  # fmt: skip
        settings, store = self.settings, self.store
        values: list[Any] = [*inputs, *[None] * len(self.graph.calls)]
        carriers: dict[int, Any] = {}
        if level is not None and settings.k:
            under = key.fold_in(step).fold_in("directions")
            how = settings.distribution, settings.structure
            for i in self.plain:
                x = store.leaves[i]
                carriers[i] = drawing.draw_leaf(under, store.paths[i], x, (0, settings.k), *how)
                values[i] = DualTensor(read_only(x), carriers[i], level)
        self.words[STEP] = step
        if self.schedule is not None:
            self.numbers[RATE] = self.schedule(updates)
        for item in self.items:
            if isinstance(item, Plain):
                values[item.result] = call_plain(item, self.graph, values)
            else:
                self._run_segment(item, values, level)
        value = self._value(values)
        others = self.constants or [_owned(fill(x, values)) for x in self.graph.outputs[1:]]
        if settings.k:
            self._update(carriers, step)
        return value, others

    def _run_segment(self, segment: Segment, values: list, level: Level | None) -> None:
        table = segment.program.table
        kept = []
        for (ref, dtype), places in segment.patches.items():
            x = values[ref]
            if x.dtype != dtype or not x.flags.c_contiguous:
                x = np.ascontiguousarray(x, dtype)
                kept.append(x)
            address = x.ctypes.data
            for place in places:
                table[place] = address
        for ref, stack in segment.gathers:
            _gather(values[ref], stack, level)
        segment.program.run(self.parallel)
        for ref in segment.results:
            primal, tangents = self.views[ref]
            values[ref] = (
                primal
                if level is None or not self.settings.k
                else DualTensor(primal, tangents, level)
            )
        if self.words[ERROR]:
            self.words[ERROR] = 0
            self._raise_label(values)

    def _raise_label(self, values: list) -> None:
        """Raise what the eager function raises for the labels that a stage has refused."""
        head = next(step for step in self.steps if isinstance(step, CrossEntropy))
        shape = self.graph.values[head.source].shape
        cross_entropy(np.zeros(shape, np.float32), values[head.labels])
        raise AssertionError("a label was refused that the eager cross_entropy takes")

    def _value(self, values: list) -> Any:
        """Return the loss; leave derivatives and coefficients where the stages expect them."""
        k = self.settings.k
        if self.headed:
            dtype = self.graph.values[self.graph.outputs[0]].dtype
            return dtype.type(self.numbers[LOSS])
        result = fill(self.graph.outputs[0], values)
        value = np.mean(primal_of(result))
        if not k:
            return value
        rows = result.tangents if type(result) is DualTensor else np.zeros((k,))
        d = (rows if rows.ndim == 1 else np.mean(rows, axis=1)).astype(np.float64)
        clip = self.settings.clip
        clipped = d if clip is None else np.clip(d, -clip, clip)
        self.numbers[DERIVATIVES : DERIVATIVES + k] = d
        self.numbers[DERIVATIVES + k : DERIVATIVES + 2 * k] = self.numbers[RATE] * clipped / k
        return value

    def _update(self, carriers: dict[int, Any], step: int) -> None:
        """Leave the update due, by coefficients of packed leaves and as new values of others."""
        if self.headed and not carriers:
            return  # the last stage has noted it
        k = self.settings.k
        c = self.numbers[DERIVATIVES + k : DERIVATIVES + 2 * k].copy()
        coming = {i: self.store.leaves[i].copy() for i in carriers}
        for i, carrier in carriers.items():
            add_to(coming[i], drawing.combine(carrier, c), -1.0)
        self.store.due(step, coming)


def call_plain(step: Plain, graph: Graph, values: list) -> Any:
    """Do a plain call; raise Changed where its result is not of the recorded kind."""
    call, was = step.call, graph.values[step.result]
    result = call.function(*fill(call.args, values), **fill(call.kwargs, values))
    if was is not None and (result.shape, result.dtype) != was:
        raise Changed(
            f"{call!r} gave {result.dtype} of shape {result.shape}, and {was.dtype} of shape "
            f"{was.shape} when it was recorded, at {call.line}"
        )
    return result


def _owned(x: Any) -> Any:
    x = primal_of(x)
    return x.copy() if isinstance(x, np.ndarray) else x


def _gather(x: Any, stack: np.ndarray, level: Level | None) -> None:
    """Copy a value and its tangents into the blocks of a stacked buffer."""
    if type(x) is DualTensor:
        stack[0], stack[1:] = x.primal, x.tangents
    else:
        stack[0], stack[1:] = x, 0


def describe(step: Step, graph: Graph) -> str:
    """Return a line on a step: which stage does it, or which call it is."""

    def size(ref: int) -> str:
        return "x".join(map(str, graph.values[ref].shape))

    if isinstance(step, Plain):
        why = f", as {step.miss[1]}" if step.miss[1] else ""
        return f"eager   {step.call!r}{why}" if step.moving else f"batch   {step.call!r}"
    if isinstance(step, Flatten):
        return "view    flatten"
    if isinstance(step, CrossEntropy):
        return f"fused   cross_entropy, {size(step.source)} logits, with tangents"
    parts = ["conv2d" if isinstance(step, Convolution) else "linear", size(step.weight)]
    parts += ["+ bias"] * (step.bias is not None) + ["+ relu"] * step.relu
    if isinstance(step, Convolution) and step.pool:
        parts.append("+ max_pool2d")
    return "fused   " + " ".join(parts)
