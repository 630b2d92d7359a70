"""Lay out a plan on a device: buffers, tables, and the launches that make a step.

Every array is made here and kept, and every launch knows its arrays, so that a step is a list of
calls without arguments: it makes nothing, decides nothing, and can be captured as a graph.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..kernels import cuda
from ..kernels.fused import step as stages
from ..kernels.product.gemm import slices_for
from ..kernels.random import LEFT, RIGHT, VECTOR
from ..random import digest
from ..trace import Graph, Ref
from .fusion import Convolution, CrossEntropy, Flatten, Linear, Plain, Step, readers_of
from .layout import Settings
from .packed import Owner


class Buffer(NamedTuple):
    """A stacked activation, (blocks, ...), in memory that is used again after its last reader."""

    array: Any
    memory: Any


class Leaf(NamedTuple):
    """A parameter as the stages take it: its number, kind, and where its vectors begin."""

    number: int
    array: Any
    kind: int
    left: int
    right: int


class Launches:
    """What a `DevicePlan` runs.

    Attributes:
        inputs: (value, buffer): what is copied at the beginning of a step.
        begin: draws the short vectors; takes key, step and rate.
        forward: calls without arguments, in order; the loss is in `loss` after them.
        update: the call that changes the parameters. begin and update are None where k is 0.
        results: of each fused step whose result is read beside it, the primal.
    """

    def __init__(self, graph: Graph, steps: list[Step], store: Owner, floating: list[int],
                 settings: Settings, own: bool) -> None:  # fmt: skip
        self.graph = graph
        self.steps = steps
        self.store = store
        self.settings = settings
        self.own = own  # products by kernels that can be captured
        self.dtype = store.leaves[floating[0]].dtype
        self.inputs: list[tuple[Ref, Any]] = []
        self.forward: list[Callable[[], None]] = []
        self.results: dict[Ref, Any] = {}
        self.begin: Callable[..., None] | None = None
        self.update: Callable[[], None] | None = None
        self.loss = cuda.empty((), self.dtype)
        self._values: dict[Ref, Buffer] = {}
        self._given: dict[Ref, Any] = {}
        self._free: list[Any] = []
        self._readers = readers_of(graph, steps)
        k = settings.k
        self._leaves = self._leaf_rows(floating, {int(s.weight) for s in steps
                                                  if isinstance(s, Convolution)})  # fmt: skip
        self.shared = stages.Shared(
            cuda.zeros((len(floating), 2), np.uint32),
            cuda.zeros((1 + k,), np.float64),
            cuda.empty((self._vectors,), self.dtype),
        )
        if k:
            self._make_tables()
        for number, step in enumerate(steps):
            self._add(step)
            self._release(number)

    # --- directions and updates

    def _leaf_rows(self, floating: list[int], filters: set[int]) -> dict[int, Leaf]:
        """Find a place for the vectors of every leaf, and the pieces that draw them."""
        k, rank1 = self.settings.k, self.settings.structure == "rank1"
        self._pieces: list[list[int]] = []
        self._lefts: dict[int, tuple[int, int, int]] = {}
        self._vectors = 0
        leaves = {}
        for number, i in enumerate(floating):
            w, name = self.store.leaves[i], digest(self.store.paths[i])
            kind = stages.VECTOR if w.ndim < 2 else stages.RANK1 if rank1 else stages.DENSE
            rows, columns = stages.matrix_of(w, kind)
            left = right = 0
            if kind == stages.DENSE:
                self._pieces.append(stages.piece(number, name))
            elif kind == stages.VECTOR:
                right = self._piece(number, name, VECTOR, columns, (columns, 1))
            else:
                # The left factors of filters are filters of k channels: entries k apart.
                strides = (1, k) if i in filters else (rows, 1)
                left = self._piece(number, name, LEFT, rows, strides)
                right = self._piece(number, name, RIGHT, columns, (columns, 1))
                self._lefts[number] = (left, *strides)
            leaves[i] = Leaf(number, w, kind, left, right)
        return leaves

    def _piece(self, number: int, name: int, role: int, size: int, strides: tuple[int, int]) -> int:
        """Let k vectors of a size be drawn; return where they begin."""
        offset = self._vectors
        self._vectors += self.settings.k * size
        self._pieces.append(stages.piece(number, name, role, size, offset, strides))
        return offset

    def _make_tables(self) -> None:
        k = self.settings.k
        largest = k * max(size for _, _, _, size, *_ in self._pieces)
        self.begin = functools.partial(
            stages.draw_vectors, self.shared,
            stages.table(self._pieces, stages.PIECE_FIELDS), digest("directions"), k=k,
            normals=self.settings.distribution == "normal", largest=largest,
        )  # fmt: skip
        rows, blocks = [], 0
        for leaf in self._leaves.values():
            left = self._lefts.get(leaf.number, (0, 0, 0))
            rows.append(stages.leaf_row(leaf.array, leaf.kind, left, leaf.right, blocks))
            blocks += stages.blocks_of(leaf.array, leaf.kind)
        table = stages.table(rows, stages.LEAF_FIELDS)
        self.update = functools.partial(stages.update, self.shared, table, blocks)

    # --- memory

    def _take(self, *shape: int) -> Buffer:
        """Return a buffer of a shape: the smallest free memory that holds it, or new memory."""
        size = int(np.prod(shape))
        enough = [memory for memory in self._free if memory.size >= size]
        if not enough:
            memory = cuda.empty((size,), self.dtype)
            return Buffer(memory.reshape(shape), memory)
        place = min(range(len(self._free)),
                    key=lambda i: (self._free[i].size < size, self._free[i].size))  # fmt: skip
        memory = self._free.pop(place)
        return Buffer(memory[:size].reshape(shape), memory)

    def _release(self, number: int) -> None:
        """Give back what no step after this one reads."""
        for ref in [r for r in self._values if max(self._readers.get(r, [number])) <= number]:
            self._free.append(self._values.pop(ref).memory)

    def _input(self, ref: Ref, dtype: Any) -> Any:
        """Return the buffer into which a value of the batch is copied at every step."""
        if ref not in self._given:
            self._given[ref] = cuda.empty(self.graph.values[ref].shape, dtype)
            self.inputs.append((ref, self._given[ref]))
        return self._given[ref]

    def _source(self, ref: Ref) -> tuple[Any, bool]:
        """Return (what a layer reads, stacked; whether it has tangents)."""
        value = self._values.get(ref)
        if value is None:
            return self._input(ref, self.dtype)[None], False
        return value.array, self.settings.k > 0

    # --- steps

    def _do(self, stage: Callable, *arguments: Any, **named: Any) -> None:
        self.forward.append(functools.partial(stage, *arguments, **named))

    def _add(self, step: Step) -> None:
        if isinstance(step, Plain):
            return
        if isinstance(step, CrossEntropy):
            self._cross_entropy(step)
            return
        if isinstance(step, Flatten):
            source = self._values.pop(step.source)
            shape = self.graph.values[step.result].shape
            made = Buffer(source.array.reshape(-1, *shape), source.memory)
        else:
            made = self._linear(step) if isinstance(step, Linear) else self._convolution(step)
        self._values[step.result] = made
        outside = len(self.steps)
        if any(n == outside or isinstance(self.steps[n], Plain)
               for n in self._readers.get(step.result, [])):  # fmt: skip
            self.results[step.result] = made.array[0]
            self._readers[step.result].append(outside)  # so that its memory stays its own

    def _linear(self, step: Linear) -> Buffer:
        x, moving = self._source(step.source)
        weight = self._leaves[step.weight]
        batch, inner = x.shape[1:]
        columns, k = weight.array.shape[1], self.settings.k
        y = self._take(1 + k, batch, columns)
        into = y.array[: len(x)].reshape(-1, columns)
        self._product(x.reshape(-1, inner), weight.array, into)
        third, scratch = stages.Third(), []
        if k and weight.kind == stages.RANK1:
            scratch = [self._take(batch, k)]
            self._do(stages.row_dots, self.shared, x[0], weight.left, scratch[0].array)
            third = stages.Third(s=scratch[0].array, right=weight.right)
        elif k:
            scratch = [self._take(inner, k, columns), self._take(batch, k, columns)]
            d, e = (buffer.array for buffer in scratch)
            self._do(stages.draw_matrix, self.shared, weight.number, d)
            self._product(x[0], d.reshape(inner, -1), e.reshape(batch, -1))
            third = stages.Third(e=e)
        third, bias = self._with_bias(step, third)
        self._do(stages.end_layer, self.shared, y.array, third, bias, moving=moving,
                 rectified=step.relu)  # fmt: skip
        self._free += [buffer.memory for buffer in scratch]
        return y

    def _product(self, a: Any, b: Any, out: Any) -> None:
        sums = slices_for(out.shape, len(b), self.dtype) if self.own else None
        self._do(stages.product, a, b, out, self.own, sums)

    def _with_bias(self, step: Linear | Convolution, third: Any) -> tuple[Any, Any]:
        if step.bias is None:
            return third, None
        bias = self._leaves[step.bias]
        return third._replace(vector=bias.right), bias.array

    def _convolution(self, step: Convolution) -> Buffer:
        x, moving = self._source(step.source)
        weight, k = self._leaves[step.weight], self.settings.k
        window = {"stride": step.stride, "padding": step.padding}
        kernel, columns = weight.array.shape[:3], weight.array.shape[3]
        height, width = output_size(x.shape[2:4], kernel, step)
        images = x.shape[1]
        y = self._take(1 + k, images, height, width, columns)
        flat = x.reshape(-1, *x.shape[2:])
        into = y.array[: len(x)].reshape(-1, height, width, columns)
        self._do(stages.convolution, flat, weight.array, into, self.own, **window)
        third, scratch = stages.Third(), []
        if k and weight.kind == stages.RANK1:
            scratch = [self._take(images, height, width, k)]
            size = k * int(np.prod(kernel))
            lefts = self.shared.vectors[weight.left : weight.left + size].reshape(*kernel, k)
            self._do(stages.convolution, x[0], lefts, scratch[0].array, self.own, **window)
            third = stages.Third(s=scratch[0].array, right=weight.right)
        elif k:
            inner = int(np.prod(kernel))
            scratch = [self._take(inner, k, columns),
                       self._take(images, height, width, k * columns)]  # fmt: skip
            d, e = (buffer.array for buffer in scratch)
            self._do(stages.draw_matrix, self.shared, weight.number, d)
            self._do(stages.convolution, x[0], d.reshape(*kernel, -1), e, self.own, **window)
            third = stages.Third(e=e)
        third, bias = self._with_bias(step, third)
        how = {"moving": moving, "rectified": step.relu}
        result = y
        if step.pool:
            result = self._take(1 + k, images, height // 2, width // 2, columns)
            self._do(
                stages.end_pooled_layer, self.shared, y.array, result.array, third, bias, **how
            )
            self._free.append(y.memory)
        else:
            rows = y.array.reshape(1 + k, -1, columns)
            self._do(stages.end_layer, self.shared, rows, third, bias, **how)
        self._free += [buffer.memory for buffer in scratch]
        return result

    def _cross_entropy(self, step: CrossEntropy) -> None:
        z = self._values[step.source].array
        losses = self._take(*z.shape[:2]).array
        labels = self._input(step.labels, np.int64)
        self._do(stages.cross_entropy, z, labels, losses)
        clip = np.inf if self.settings.clip is None else self.settings.clip
        self._do(stages.end_step, self.shared, losses, self.loss, clip)


def output_size(size: tuple[int, int], kernel: tuple[int, ...], step: Convolution) -> list[int]:
    """Return height and width of a convolution's result, before it is pooled."""
    window = zip(size, kernel[:2], step.padding, step.stride, strict=True)
    return [(n + sum(padding) - m) // stride + 1 for n, m, padding, stride in window]


def work_of(graph: Graph, steps: list[Step], settings: Settings) -> int:
    """Return how many multiply-adds a step takes."""
    total, moved = 0, set()
    dense = settings.k if settings.structure == "dense" else 0
    for step in steps:
        if isinstance(step, (Linear, Convolution)):
            w, x = graph.values[step.weight], graph.values[step.source]
            places = x.shape[0]
            if isinstance(step, Convolution):
                height, width = output_size(x.shape[1:3], w.shape, step)
                places *= height * width
            total += (1 + settings.k * (step.source in moved) + dense) * places * w.size
        if not isinstance(step, Plain):
            moved.add(step.result)
    return total
