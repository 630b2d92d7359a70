"""Find in a recorded loss the runs of calls that one fused stage does: the middle of a plan.

A step of a plan is a `Linear`, a `Convolution`, a `CrossEntropy`, a `Flatten` or a plain `Call`
that stays as it is. Recognition goes by what was called, so a layer of dg.nn and the same thing
written with operators are one.
"""

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
    """A call that runs as it is; moving: on duals, as it depends on the parameters."""

    call: Call
    result: Ref
    moving: bool

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
        return (
            type(x) is Ref
            and x in self.parameters
            and len(self.uses[x]) == 1
            and self.value(x).ndim == ndim
            and self.value(x).dtype == self.dtype
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

    def linear(self, number: int, call: Call) -> Linear | None:
        source, weight = call.args
        if not self.parameter(weight, 2) or not self.activation(source, 2, weight):
            return None
        bias, rectified, last = self.epilogue(number)
        self.take(number, last)
        return Linear(source, weight, bias, rectified, Ref(self.graph.inputs + last), call.line)

    def activation(self, x: Any, ndim: int, weight: Ref) -> bool:
        """Whether x is a recorded value, no parameter, that a stage can read beside a weight."""
        if type(x) is not Ref or x in self.parameters:
            return False
        value = self.value(x)
        return value.ndim == ndim and value.size > 0 and value.dtype == self.value(weight).dtype

    def convolution(self, number: int, call: Call) -> Convolution | None:
        source, weight = call.args
        window = call.kwargs
        if not self.parameter(weight, 4) or not self.activation(source, 4, weight):
            return None
        if window["groups"] != 1 or window["dilation"] != (1, 1):
            return None
        if self.value(weight).shape[-1] % PANEL or not self.value(self.graph.inputs + number).size:
            return None
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
        if call.function in PRODUCTS and len(call.args) == 2 and not call.kwargs:
            step = match.linear(number, call)
        elif call.function is conv2d_core:
            step = match.convolution(number, call)
        elif call.function is np.reshape:
            step = match.flatten(number, call, fused)
        elif call.function is cross_entropy:
            step = match.cross_entropy(number, call, fused)
        if step is None:
            ref = Ref(graph.inputs + number)
            step = Plain(call, ref, ref in match.moving)
        else:
            fused.add(step.result)
        steps.append(step)
    return _ordered(steps)


def _ordered(steps: list[Step]) -> list[Step]:
    """Return what does not move first, so that it does not come between fused stages."""
    still = [step for step in steps if isinstance(step, Plain) and not step.moving]
    return still + [step for step in steps if not (isinstance(step, Plain) and not step.moving)]
