"""Lay out a plan: buffers, rows of stages, and the order in which plain calls come between them.

Buffers are reused as soon as the last step that reads them has run, and all layers draw their
directions into the same vectors, so a deep network needs little more than a shallow one.
"""

from typing import Any

import numpy as np

from ..trace import Graph, Ref
from .fusion import Convolution, CrossEntropy, Flatten, Linear, Plain, Step, readers_of
from .layout import Images, Rows, Segment, Settings
from .packed import PENDING, Leaf, Store, numbers, words

PANEL = 16
DISTRIBUTIONS = {"rademacher": 0, "normal": 1}  # as in kernels/fused/draws.py


class Builder:
    """What a `Plan` runs; see there.

    Attributes:
        items: segments and plain calls in order.
        views: of each buffer that plain calls or outputs read, (primal, tangents).
        headed: whether the value comes from a fused cross-entropy.
        work: multiply-adds of a step.
    """

    def __init__(self, graph: Graph, steps: list[Step], store: Store, settings: Settings) -> None:
        from ..kernels.fused import stages

        self.stages = stages
        self.graph = graph
        self.steps = steps
        self.store = store
        self.settings = settings
        self.blocks = 1 + settings.k
        layers = [s for s in steps if isinstance(s, (Linear, Convolution))]
        self.dtype = graph.values[layers[0].weight].dtype
        store.pack({int(r) for s in layers for r in (s.weight, s.bias) if r is not None})
        train = settings.k > 0
        self.words = store.words if train else words()
        self.numbers = store.numbers if train else numbers(0, None)
        self.items: list[Segment | Plain] = []
        self.views: dict[Ref, tuple[np.ndarray, np.ndarray]] = {}
        self.headed = False
        self.work = 0
        self._values: dict[int, Rows | Images] = {}
        self._free: dict[tuple, list[np.ndarray]] = {}
        self._vectors: dict[str, np.ndarray] = {}
        self._kept: list[np.ndarray] = []  # memory that rows point into
        self._readers = readers_of(graph, steps)
        self._begin()
        for number, step in enumerate(steps):
            self._add(number, step)
            self._release(number)
        self._end()
        if train:
            self._leave_flush(layers)

    # --- order

    def _begin(self) -> None:
        self._rows: list[np.ndarray] = []
        self._patches: dict[tuple[Ref, np.dtype], list[tuple[int, int]]] = {}
        self._gathers: list[tuple[Ref, np.ndarray]] = []
        self._leaves: list[Leaf] = []
        self._results: list[Ref] = []

    def _end(self) -> None:
        if self._rows:
            if self.settings.k:
                every = list(self.store.packed.values())
                self._mark(every if self.headed else self._leaves, left=self.headed)
            program = self.stages.Program(self._rows, self.dtype, self._kept)
            self.items.append(Segment(program, self._patches, self._gathers, self._results))
        self._begin()

    def _mark(self, leaves: list[Leaf], left: bool) -> None:
        """Let a program note that nothing is due of these leaves after it, or what it has left."""
        marks = np.array([leaf.pending.ctypes.data for leaf in leaves], np.int64)
        self._kept.append(marks)
        self._rows.append(self.stages.mark_stage(self.words.ctypes.data, marks, left))

    def _patch(self, field: int, ref: Ref, dtype: np.dtype) -> None:
        """Let a field of the row that comes next hold the address of a value."""
        self._patches.setdefault((ref, dtype), []).append((len(self._rows), field))

    def _add(self, number: int, step: Step) -> None:
        if isinstance(step, Plain):
            if step.moving:
                self._end()
            self.items.append(step)
        elif isinstance(step, Flatten):
            self._flatten(step)
        elif isinstance(step, CrossEntropy):
            self._cross_entropy(step)
        elif isinstance(step, Linear):
            self._linear(step)
        else:
            self._convolution(step)
        if not isinstance(step, Plain) and self._is_read_outside(step.result):
            self.views[step.result] = self._values[step.result].views()
            self._results.append(step.result)

    def _is_read_outside(self, ref: Ref) -> bool:
        outside = len(self.steps)
        return not isinstance(self._producer(ref), CrossEntropy) and any(
            n == outside or isinstance(self.steps[n], Plain) for n in self._readers.get(ref, [])
        )

    def _producer(self, ref: int) -> Step | None:
        return next((step for step in self.steps if step.result == ref), None)

    # --- memory

    def _buffer(self, shape: tuple[int, ...], mark: tuple = ()) -> np.ndarray:
        """Return zeros of a shape, or a free buffer of the same shape and border."""
        free = self._free.get((shape, mark))
        if free:
            return free.pop()
        self._kept.append(self.stages.aligned(shape, self.dtype))
        return self._kept[-1]

    def _release(self, number: int) -> None:
        """Give back the buffers that no step after this one reads, and no plain call can view."""
        for ref in [r for r in self._values if max(self._readers.get(r, [number])) <= number]:
            value = self._values.pop(ref)
            if ref in self.views or isinstance(self._producer(ref), Flatten):
                continue
            mark = (value.corner, value.height, value.width) if isinstance(value, Images) else ()
            self._free.setdefault((value.array.shape, mark), []).append(value.array)

    def _shared(self, name: str, size: int) -> int:
        """Return the address of a buffer that layers use one after the other."""
        have = self._vectors.get(name)
        if have is None or have.size < size:
            have = self.stages.aligned((size,), self.dtype)
            self._vectors[name] = have
            self._kept.append(have)  # an earlier layer may point into the smaller one before
        return have.ctypes.data

    # --- layers

    def _source(self, step: Linear | Convolution, ndim: int) -> tuple[Rows | Images | None, bool]:
        """Return (the buffer that a step reads, None for an array of each step; has tangents)."""
        value = self._values.get(step.source)
        if value is not None:
            return value, True
        producer = self._producer(step.source)
        if not (isinstance(producer, Plain) and producer.moving):
            return None, False
        shape = self.graph.values[step.source].shape
        stack = self.stages.aligned((self.blocks, *shape), self.dtype)
        self._gathers.append((step.source, stack))
        self._kept.append(stack)
        if ndim == 2:
            return Rows(stack, shape[1]), True
        return Images(stack, (0, 0), *shape[1:3]), True

    def _leaf(self, ref: Ref | None) -> Leaf | None:
        return None if ref is None else self.store.packed[int(ref)]

    def _directions(self, step: Linear | Convolution) -> dict[str, Any]:
        """Add the stage that draws a layer's directions; return where they are, and its leaves."""
        weight, bias = self._leaf(step.weight), self._leaf(step.bias)
        assert weight is not None
        k, s = self.settings.k, self.stages
        rank1 = self.settings.structure == "rank1"
        structure = (s.RANK1 if rank1 else s.DENSE) if k else s.NONE
        padded = weight.panels * PANEL
        where: dict[str, Any] = {"weight": weight, "bias": bias, "structure": structure,
                                 "lefts": 0, "rights": 0, "vectors": 0}  # fmt: skip
        self._leaves += [leaf for leaf in (weight, bias) if leaf is not None]
        if not k:
            return where
        if rank1:
            where["lefts"] = self._shared("lefts", 2 * k * weight.rows)
            where["rights"] = self._shared("rights", 2 * k * padded)
        common = {"k": k, "distribution": DISTRIBUTIONS[self.settings.distribution]}
        drawn = [s.leaf_draw(weight.path, keys=weight.keys.ctypes.data, structure=structure,
                             rows=weight.rows, columns=weight.columns, lefts=where["lefts"],
                             rights=where["rights"], **common)]  # fmt: skip
        if bias is not None:
            where["vectors"] = self._shared("vectors", 2 * k * padded)
            drawn.append(s.leaf_draw(bias.path, keys=bias.keys.ctypes.data, columns=bias.columns,
                                     vectors=where["vectors"], **common))  # fmt: skip
        table = np.stack(drawn)
        self._kept.append(table)
        self._rows.append(s.draw_stage(s.DRAW, words=self.words.ctypes.data, table=table))
        return where

    def _update(self, where: dict[str, Any], v: int = 0) -> np.ndarray:
        """Return the row that applies a layer's pending update; v is for its dense directions."""
        weight, bias = where["weight"], where["bias"]
        return self.stages.update_stage(
            self.stages.UPDATE,
            w=weight.address,
            bias=0 if bias is None else bias.address,
            inputs=weight.rows,
            outputs=weight.columns,
            k=self.settings.k,
            structure=where["structure"],
            lefts=where["lefts"],
            rights=where["rights"],
            vectors=where["vectors"],
            keys=weight.keys.ctypes.data,
            words=weight.pending.ctypes.data - 8 * PENDING,
            numbers=self.numbers.ctypes.data,
            v=v,
        )

    def _linear(self, step: Linear) -> None:
        source, tangents = self._source(step, 2)
        batch, inputs = self.graph.values[step.source].shape
        where = self._directions(step)
        weight, s = where["weight"], self.stages
        y = self._buffer((self.blocks, batch, weight.panels * PANEL))
        rank1 = where["structure"] == s.RANK1
        row = s.linear_stage(
            s.LINEAR,
            self._update(where),
            x=0 if source is None else source.array.ctypes.data,
            ldx=inputs if source is None else source.array.shape[-1],
            x_tangents=tangents and self.settings.k > 0,
            batch=batch,
            y=y.ctypes.data,
            ldy=y.shape[-1],
            relu=step.relu,
            sums=self._shared("sums", s.sums_size(batch, self.settings.k)) if rank1 else 0,
        )
        rows = [s.dot_stage(s.DOT, row), row] if rank1 else [row]
        for row in rows:
            if source is None:
                self._patch(s.LINEAR_X, step.source, self.dtype)
            self._rows.append(row)
        products = 1 + (self.settings.k if tangents else 0)
        products += self.settings.k * (where["structure"] == s.DENSE)
        self.work += products * batch * inputs * weight.columns
        self._values[step.result] = Rows(y, weight.columns)

    def _flatten(self, step: Flatten) -> None:
        source = self._values.pop(step.source)
        blocks, n = source.array.shape[:2]
        columns = self.graph.values[step.result].shape[1]
        self._values[step.result] = Rows(source.array.reshape(blocks, n, columns), columns)

    def _cross_entropy(self, step: CrossEntropy) -> None:
        source, s, k = self._values[step.source], self.stages, self.settings.k
        batch, classes = self.graph.values[step.source].shape
        losses = self.stages.aligned((self.blocks, batch), self.dtype)
        self._kept.append(losses)
        head = s.cross_entropy_stage(
            s.CROSS_ENTROPY,
            z=source.array.ctypes.data,
            ldz=source.array.shape[-1],
            batch=batch,
            classes=classes,
            k=k,
            labels=0,
            losses=losses.ctypes.data,
            tangents=losses.ctypes.data + batch * self.dtype.itemsize,
            words=self.words.ctypes.data,
            numbers=self.numbers.ctypes.data,
        )
        finish = s.finish_stage(s.FINISH, head)
        for row in (head, finish):
            self._patch(s.LABELS, step.labels, np.dtype(np.int64))
            self._rows.append(row)
        self.headed = True

    # --- convolutions

    def _convolution(self, step: Convolution) -> None:
        where = self._directions(step)
        weight, bias, s, k = where["weight"], where["bias"], self.stages, self.settings.k
        n, in_height, in_width, channels = self.graph.values[step.source].shape
        geometry = self._geometry(step)
        x, tangents = self._padded_source(step, geometry)
        fast, (height, width) = geometry["fast"], geometry["size"]
        dense, rank1 = where["structure"] == s.DENSE, where["structure"] == s.RANK1
        taps, panels = weight.rows, weight.panels
        filters = self._filters(where, fast, channels)
        block, image, row, _ = x.strides()
        y, inside = self._image_buffer(step, n, height, width, weight.columns)
        y_block, y_image, y_row, y_pixel = y.strides()
        stage = s.winograd_stage if fast else s.conv_stage
        self._rows.append(
            stage(
                s.WINOGRAD if fast else s.CONV,
                x=x.address(False), x_image=image, x_row=row, x_block=block, channels=channels,
                kernel=weight.shape[:2], stride=step.stride, images=n, height=height, width=width,
                panels=panels, k=k, input_tangents=tangents and k > 0,
                directions=where["structure"],
                w=filters["u"] if fast else weight.address,
                v=(filters["u_v"] if fast else filters["v"]) if dense else 0,
                left=(filters["u_left"] if fast else where["lefts"]) if rank1 else 0,
                right=where["rights"], bias=0 if bias is None else bias.address,
                vector=where["vectors"], relu=step.relu, pool=step.pool,
                y=y.address(inside), y_block=y_block, y_image=y_image, y_row=y_row,
                y_pixel=y_pixel,
            )
        )  # fmt: skip
        self.work += (1 + k * tangents + k * dense) * n * height * width * taps * weight.columns
        self._values[step.result] = y

    def _geometry(self, step: Convolution) -> dict[str, Any]:
        """Return how a convolution's input lies in its border: corner, padded and result size."""
        _, height, width, channels = self.graph.values[step.source].shape
        kh, kw = self.graph.values[step.weight].shape[:2]
        (top, bottom), (left, right) = step.padding
        size = (
            (height + top + bottom - kh) // step.stride[0] + 1,
            (width + left + right - kw) // step.stride[1] + 1,
        )
        fast = (
            self.settings.precision == "fast"
            and self.dtype == np.float32
            and (kh, kw) == (3, 3)
            and step.stride == (1, 1)
            and channels % PANEL == 0
        )
        padded = (height + top + bottom, width + left + right)
        if fast:
            padded = self.stages.padded_size(*size)
        return {"corner": (top, left), "padded": padded, "size": size, "fast": fast}

    def _padded_source(self, step: Convolution, geometry: dict) -> tuple[Images, bool]:
        """Return the input of a convolution inside its border, copied there where it is not."""
        n, height, width, channels = self.graph.values[step.source].shape
        value, tangents = self._source(step, 4)
        if isinstance(value, Images) and self._is_padded_for(value, geometry):
            return value, True
        blocks = self.blocks if tangents else 1
        shape = (blocks, n, *geometry["padded"], channels)
        x = Images(self._buffer(shape, (geometry["corner"], height, width)),
                   geometry["corner"], height, width)  # fmt: skip
        _, image, row, pixel = x.strides()
        s = self.stages
        if value is None:
            self._patch(s.SOURCE, step.source, self.dtype)
        assert value is None or isinstance(value, Images)
        self._rows.append(
            s.pad_stage(
                s.PAD, images=blocks * n, height=height, width=width, channels=channels,
                source=0 if value is None else value.address(False), target=x.address(True),
                target_image=image, target_row=row, target_pixel=pixel,
            )
        )  # fmt: skip
        return x, tangents

    @staticmethod
    def _is_padded_for(value: Images, geometry: dict) -> bool:
        return value.corner == geometry["corner"] and value.array.shape[2:4] == geometry["padded"]

    def _image_buffer(self, step: Convolution, n: int, height: int, width: int,
                      channels: int) -> tuple[Images, bool]:  # fmt: skip
        """Return a buffer for a convolution's result, bordered if only a convolution reads it."""
        if step.pool:
            height, width = height // 2, width // 2
        readers = self._readers.get(step.result, [])
        following = self.steps[readers[0]] if readers and readers[0] < len(self.steps) else None
        corner, padded = (0, 0), (height, width)
        if len(readers) == 1 and isinstance(following, Convolution):
            geometry = self._geometry(following)
            corner, padded = geometry["corner"], geometry["padded"]
        array = self._buffer((self.blocks, n, *padded, channels), (corner, height, width))
        return Images(array, corner, height, width), padded != (height, width)

    def _filters(self, where: dict[str, Any], fast: bool, channels: int) -> dict[str, int]:
        """Add the stage that updates, draws and transforms filters; return where they are then."""
        weight, s, k = where["weight"], self.stages, self.settings.k
        dense, rank1 = where["structure"] == s.DENSE, where["structure"] == s.RANK1
        v = self._shared("v", k * weight.array.size) if dense else 0
        made = dict.fromkeys(("u", "u_v", "u_left"), 0)
        if fast:
            size = s.filters_size(channels, weight.panels)
            made["u"] = self._shared("u", size)
            made["u_v"] = self._shared("u_v", k * size) if dense else 0
            made["u_left"] = self._shared("u_left", k * s.POINTS * channels) if rank1 else 0
        self._rows.append(s.filters_stage(s.FILTERS, self._update(where, v), **made))
        return {"v": v, **made}

    # --- reading the parameters

    def _leave_flush(self, layers: list[Linear | Convolution]) -> None:
        """Give the store a program that applies what is due, by the stages that steps use."""
        self._begin()
        for step in layers:
            self._rows.append(self._update(self._directions(step)))
        self._mark(self._leaves, left=False)
        self.store.leave(self.stages.Program(self._rows, self.dtype, self._kept))
