"""Find in a recorded loss the runs of calls that one fused stage does: the middle of a plan.

A step of a plan is a `Linear`, a `Convolution`, a `CrossEntropy`, a `Flatten` or a plain `Call`
that stays as it is. Recognition goes by what was called, so a layer of dg.nn and the same thing
written with operators are one.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..nn.functional import cross_entropy, max_pool2d, relu
from ..ops.products import conv2d_core, matmul_core
from ..options import pair
from ..trace import Call, Graph, Ref, refs

PANEL = 16  # output channels that a convolution stage takes at a time
PRODUCTS = (np.matmul, matmul_core)
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Linear(NamedTuple):
    """result = activation(source @ weight + bias); weight and bias are numbers of inputs."""

    source: Ref
    weight: Ref
    bias: Ref | None
    relu: bool
    result: Ref
    line: str


class Convolution(NamedTuple):
    """result = pool(activation(conv2d(source, weight) + bias)), NHWC, of one group."""

    source: Ref
    weight: Ref
    bias: Ref | None
    relu: bool
    pool: bool
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    result: Ref
    line: str


class Flatten(NamedTuple):
    """result = source with the axes after the first as one."""

    source: Ref
    result: Ref
    line: str


class CrossEntropy(NamedTuple):
    """The value of the loss: cross-entropies of the rows of source, which integer labels choose."""

    source: Ref
    labels: Ref
    result: Ref
    line: str


class Plain(NamedTuple):
    """A call that runs as it is; moving: on duals, as it depends on the parameters.

    miss: of a product that is not fused, (how many conditions it meets, the one that it fails).
    """

    call: Call
    result: Ref
    moving: bool
    miss: tuple[int, str] = (0, "")

    @property
    def line(self) -> str:
        return self.call.line


Step = Linear | Convolution | Flatten | CrossEntropy | Plain


class _Matcher:
    def __init__(self, graph: Graph, parameters: set[int]) -> None:
        self.graph = graph
        self.parameters = parameters
        self.uses: dict[int, list[int]] = {}  # value -> calls that read it; -1 for an output
        for i, call in enumerate(graph.calls):
            for ref in refs((call.args, call.kwargs)):
                self.uses.setdefault(ref, []).append(i)
        for output in graph.outputs:
            for ref in refs((output,)):
                self.uses.setdefault(ref, []).append(-1)
        self.moving = set(parameters)
        for i, call in enumerate(graph.calls):
            if any(ref in self.moving for ref in refs((call.args, call.kwargs))):
                self.moving.add(graph.inputs + i)
        self.taken: set[int] = set()  # calls that belong to a step already
        dtypes = [self.value(x).dtype for x in parameters if self.value(x).ndim > 1]
        self.dtype = next((dtype for dtype in FLOATS if dtype in dtypes), None)  # of all stages

    def value(self, ref: int) -> Any:
        return self.graph.values[ref]

    def parameter(self, x: Any, ndim: int) -> bool:
        """Whether x is a parameter of so many axes that nothing else reads."""
        return not any(failed for failed, _ in self._of_parameter(x, ndim, ""))

    def _of_parameter(self, x: Any, ndim: int, line: str) -> Iterator[tuple[bool, str]]:
        """Yield (whether a parameter fails a condition of the stages, how) in order."""
        yield type(x) is not Ref or x not in self.parameters, "its second argument is no parameter"
        w = self.value(x)
        yield w.ndim != ndim, f"its weight has shape {w.shape}, {ndim} axes are fused"
        yield w.dtype != self.dtype, f"its weight is {w.dtype}, others are {self.dtype}"
        lines = [self.graph.calls[i].line for i in self.uses[x] if i >= 0]
        others = ", ".join(sorted({f"at {other}" for other in lines if other != line}))
        yield (
            len(self.uses[x]) != 1,
            f"its weight of shape {w.shape} is read {len(self.uses[x])} times"
            + (f", also {others}" if others else "")
            + " (a penalty on weights, or tied ones)",
        )

    def following(self, ref: int) -> tuple[int, Call] | None:
        """Return the number of the only call that reads a value, and the call."""
        uses = self.uses.get(ref, [])
        if len(uses) != 1 or uses[0] < 0:
            return None
        return uses[0], self.graph.calls[uses[0]]

    def epilogue(self, number: int) -> tuple[Ref | None, bool, int]:
        """Return (bias, relu or not, last call) of what follows the product of call `number`."""
        bias = None
        columns = self.value(self.graph.inputs + number).shape[-1]
        after = self.following(self.graph.inputs + number)
        if after is not None and after[1].function is np.add and not after[1].kwargs:
            product = Ref(self.graph.inputs + number)
            others = [x for x in after[1].args if type(x) is not Ref or x != product]
            if len(others) == 1 and self.parameter(others[0], 1):
                if self.value(others[0]).shape == (columns,):
                    bias, number = others[0], after[0]
                    after = self.following(self.graph.inputs + number)
        if after is not None and after[1].function is relu:
            return bias, True, after[0]
        return bias, False, number

    def miss(self, number: int, call: Call) -> tuple[int, str]:
        """Return (conditions met, the first that fails or "") of a product as a fused layer."""
        for met, (failed, how) in enumerate(self._conditions(number, call)):
            if failed:
                return met, how
        return 0, ""

    def _conditions(self, number: int, call: Call) -> Iterator[tuple[bool, str]]:
        convolves = call.function is conv2d_core
        ndim = 4 if convolves else 2
        extra = len(call.args) != 2 or (bool(call.kwargs) and not convolves)
        yield extra, "it has further arguments"
        x, weight = call.args
        yield from self._of_parameter(weight, ndim, call.line)
        w = self.value(weight)
        yield type(x) is not Ref or x in self.parameters, "its first argument is a parameter"
        value = self.value(x)
        yield value.ndim != ndim, f"its input has shape {value.shape}, {ndim} axes are fused"
        yield value.dtype != w.dtype, f"its input is {value.dtype} and its weight {w.dtype}"
        yield value.size == 0, f"its input has shape {value.shape}"
        if not convolves:
            return
        groups, dilation = call.kwargs["groups"], call.kwargs["dilation"]
        yield groups != 1, f"it has {groups} groups"
        yield dilation != (1, 1), f"it has dilation {dilation}"
        yield w.shape[-1] % PANEL != 0, f"it has c_out {w.shape[-1]}, no multiple of {PANEL}"
        size = self.value(self.graph.inputs + number).size
        yield size == 0, "its result is empty"

    def linear(self, number: int, call: Call) -> Linear:
        source, weight = call.args
        bias, rectified, last = self.epilogue(number)
        self.take(number, last)
        return Linear(source, weight, bias, rectified, Ref(self.graph.inputs + last), call.line)

    def convolution(self, number: int, call: Call) -> Convolution:
        source, weight = call.args
        window = call.kwargs
        bias, rectified, last = self.epilogue(number)
        after = self.following(self.graph.inputs + last)
        pooled = after is not None and after[1].function is max_pool2d and _is_pair(after[1])
        if after is not None and pooled:
            last = after[0]
        self.take(number, last)
        result = Ref(self.graph.inputs + last)
        return Convolution(source, weight, bias, rectified, pooled, window["stride"],
                           window["padding"], result, call.line)  # fmt: skip

    def take(self, first: int, last: int) -> None:
        number = first
        while number != last:
            self.taken.add(number)
            number = self.uses[self.graph.inputs + number][0]
        self.taken.add(last)

    def flatten(self, number: int, call: Call, fused: set[int]) -> Flatten | None:
        source, result = call.args[0], Ref(self.graph.inputs + number)
        if type(source) is not Ref or source not in fused or len(self.uses[source]) != 1:
            return None
        x, y = self.value(source), self.value(result)
        if x.ndim != 4 or y.ndim != 2 or x.shape[0] != y.shape[0] or call.args[2:] or call.kwargs:
            return None
        after = self.following(result)
        read = after is not None and after[1].function in PRODUCTS
        return Flatten(source, result, call.line) if read else None

    def cross_entropy(self, number: int, call: Call, fused: set[int]) -> CrossEntropy | None:
        given = [*call.args, *call.kwargs.values()]
        result = Ref(self.graph.inputs + number)
        if len(call.args) < 2 or self.graph.outputs[0] != result or len(self.uses[result]) != 1:
            return None
        source, labels = given[:2]
        if source not in fused or type(labels) is not Ref or labels in self.moving:
            return None
        ok = self.value(labels).dtype.kind in "iu" and self.value(source).ndim == 2
        return CrossEntropy(source, labels, result, call.line) if ok else None


def _is_pair(call: Call) -> bool:
    size = call.args[1] if len(call.args) > 1 else call.kwargs.get("size")
    return pair("max_pool2d", "size", size) == (2, 2)


def steps_of(graph: Graph, parameters: set[int]) -> list[Step]:
    """Return the steps that compute the outputs of a graph, in an order that can be run.

    Args:
        graph: a recorded loss whose first output is its value.
        parameters: the numbers of the inputs that are perturbed.
    """
    match = _Matcher(graph, parameters)
    steps: list[Step] = []
    fused: set[int] = set()
    for number, call in enumerate(graph.calls):
        if number in match.taken:
            continue
        step: Step | None = None
        miss = (0, "")
        if call.function in PRODUCTS or call.function is conv2d_core:
            miss = match.miss(number, call)
            if not miss[1] and call.function is conv2d_core:
                step = match.convolution(number, call)
            elif not miss[1]:
                step = match.linear(number, call)
        elif call.function is np.reshape:
            step = match.flatten(number, call, fused)
        elif call.function is cross_entropy:
            step = match.cross_entropy(number, call, fused)
        if step is None:
            ref = Ref(graph.inputs + number)
            step = Plain(call, ref, ref in match.moving, miss)
        else:
            fused.add(step.result)
        steps.append(step)
    return _ordered(steps)


def readers_of(graph: Graph, steps: list[Step]) -> dict[int, list[int]]:
    """Return the numbers of the steps that read each value; one past the end for an output."""
    readers: dict[int, list[int]] = {}
    for number, step in enumerate(steps):
        if isinstance(step, Plain):
            read = refs((step.call.args, step.call.kwargs))
        elif isinstance(step, CrossEntropy):
            read = [step.source, step.labels]
        else:
            read = [step.source]
        for ref in read:
            readers.setdefault(ref, []).append(number)
    for ref in refs(tuple(graph.outputs)):
        readers.setdefault(ref, []).append(len(steps))
    return readers


def nearest(steps: list[Step]) -> str:
    """Return which product of a loss comes nearest to a fused layer, and what it lacks."""
    products = [step for step in steps if isinstance(step, Plain) and step.miss[1]]
    if not products:
        return "it has no x @ w and no conv2d"
    best = max(products, key=lambda step: step.miss[0])
    name = "conv2d" if best.call.function is conv2d_core else "matmul"
    return f"of {name} at {best.line}, {best.miss[1]}"


def _ordered(steps: list[Step]) -> list[Step]:
    """Return what does not move first, so that it does not come between fused stages, and the head,
    which ends the step, last."""

    def place(step: Step) -> int:
        if isinstance(step, Plain) and not step.moving:
            return 0
        return 2 if isinstance(step, CrossEntropy) else 1

    return sorted(steps, key=place)
