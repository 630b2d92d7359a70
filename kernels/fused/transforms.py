"""Winograd's transforms F(4x4, 3x3) of tiles of vectors, a vector the channels in a register.

Source: A. Lavin and S. Gray, Fast algorithms for convolutional neural networks, CVPR 2016, section
4.3: points 0, 1, -1, 2, -2 and infinity.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..jit import jit
from .conv import _store
from .tile import PANEL, _load, _multiply_add, _offset, _width, itemsize

TILE = 4  # outputs along a side of a tile
SIDE = TILE + 2  # inputs along it
POINTS = SIDE * SIDE


def filters_size(channels: int, panels: int) -> int:
    """Return the entries of transformed filters, panels as `transform_panel` writes them."""
    return panels * POINTS * (channels + 1) * PANEL


@jit
def transform_panel(like, channels, panel, target):
    """Transform one panel of filters (9 * channels, 16) to 36 matrices of (channels, 16).

    They lie (channels + 1) * 16 apart, for the caches' sake.
    """
    size = itemsize(like)
    tap, pitch = channels * PANEL, (channels + 1) * PANEL
    for c in range(0, tap, width_of(like)):
        _filter(like, panel + size * c, 3 * tap, tap, target + size * c, SIDE * pitch, pitch)


@jit
def transform_left(like, channels, left, target):
    """Transform one left vector, a single filter (9, channels), to (36, channels)."""
    size = itemsize(like)
    for c in range(0, channels, width_of(like)):
        place = target + size * c
        _filter(like, left + size * c, 3 * channels, channels, place, SIDE * channels, channels)


@intrinsic
def width_of(typing, like):
    """Return the lanes of the vectors that a transform works on."""
    return types.int64(like), lambda context, builder, signature, arguments: ir.Constant(
        ir.IntType(64), _width(like)
    )


@intrinsic
def transform_input(typing, like, a, row, pixel, c, c_row, c_pixel):
    """Write B^T A B, 6x6, of the 6x6 tile at a into c; addresses, strides of rows and pixels."""

    def emit(context, builder, signature, arguments):
        _, a, row, pixel, c, c_row, c_pixel = arguments
        target = (c, c_row, c_pixel)
        _emit(context, builder, like, _input_line, SIDE, (a, row, pixel), target, None)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 6), emit


@intrinsic
def transform_output(typing, like, a, row, pixel, bias, c, c_row, c_pixel):
    """Write A^T M A, 4x4, of the 6x6 products M at a into c, plus the vector `bias`."""

    def emit(context, builder, signature, arguments):
        _, a, row, pixel, bias, c, c_row, c_pixel = arguments
        target = (c, c_row, c_pixel)
        _emit(context, builder, like, _output_line, SIDE, (a, row, pixel), target, bias)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 7), emit


@intrinsic
def _filter(typing, like, a, row, pixel, c, c_row, c_pixel):
    """Write G A G^T, 6x6, of the 3x3 filter A into c; arguments as for `transform_input`."""

    def emit(context, builder, signature, arguments):
        _, a, row, pixel, c, c_row, c_pixel = arguments
        target = (c, c_row, c_pixel)
        _emit(context, builder, like, _filter_line, 3, (a, row, pixel), target, None)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 6), emit


class _Lines:
    """Arithmetic on vectors of one register, for transforms of one line of a tile."""

    def __init__(self, builder: ir.IRBuilder, kind: ir.VectorType) -> None:
        self.builder = builder
        self.kind = kind
        self.add, self.subtract = builder.fadd, builder.fsub

    def times(self, number: float, a: Any) -> Any:
        return self.builder.fmul(self._constant(number), a)

    def plus(self, number: float, a: Any, b: Any) -> Any:
        """Return number * a + b."""
        return _multiply_add(self.builder, self._constant(number), a, b)

    def _constant(self, number: float) -> ir.Constant:
        return ir.Constant(self.kind, [number] * self.kind.count)


def _emit(
    context: Any,
    builder: ir.IRBuilder,
    like: Any,
    line: Callable[[_Lines, Sequence[Any]], list[Any]],
    side: int,
    source: tuple[Any, Any, Any],
    target: tuple[Any, Any, Any],
    bias: Any,
) -> None:
    """Transform the columns, then the rows, of a square of vectors from source into target."""
    size = like.bitwidth // 8
    kind = ir.VectorType(context.get_value_type(like), _width(like))
    lines = _Lines(builder, kind)

    def place(where, i, j):
        address, row, pixel = where
        i, j = ir.Constant(ir.IntType(64), i), ir.Constant(ir.IntType(64), j)
        return _offset(
            builder, address, builder.add(builder.mul(row, i), builder.mul(pixel, j)), like
        )

    columns = [
        line(lines, [_load(builder, place(source, i, j), kind, size) for i in range(side)])
        for j in range(side)
    ]
    offset = None if bias is None else _load(builder, bias, kind, size)
    for i in range(len(columns[0])):
        for j, value in enumerate(line(lines, [column[i] for column in columns])):
            value = value if offset is None else builder.fadd(value, offset)
            _store(builder, value, place(target, i, j), size)


def _input_line(lines: _Lines, x: Sequence[Any]) -> list[Any]:
    even, odd = lines.plus(-4, x[2], x[4]), lines.plus(-4, x[1], x[3])
    far, twice = lines.subtract(x[4], x[2]), lines.times(2, lines.subtract(x[3], x[1]))
    return [
        lines.plus(-5, x[2], lines.plus(4, x[0], x[4])),
        lines.add(even, odd),
        lines.subtract(even, odd),
        lines.add(far, twice),
        lines.subtract(far, twice),
        lines.plus(-5, x[3], lines.plus(4, x[1], x[5])),
    ]


def _output_line(lines: _Lines, x: Sequence[Any]) -> list[Any]:
    near, apart = lines.add(x[1], x[2]), lines.subtract(x[1], x[2])
    far, wide = lines.add(x[3], x[4]), lines.subtract(x[3], x[4])
    return [
        lines.add(lines.add(x[0], near), far),
        lines.plus(2, wide, apart),
        lines.plus(4, far, near),
        lines.add(lines.plus(8, wide, apart), x[5]),
    ]


def _filter_line(lines: _Lines, x: Sequence[Any]) -> list[Any]:
    ends, middle = lines.times(-1 / 6, lines.add(x[0], x[2])), lines.times(-1 / 6, x[1])
    far, half = lines.plus(1 / 6, x[2], lines.times(1 / 24, x[0])), lines.times(1 / 12, x[1])
    return [
        lines.times(1 / 4, x[0]),
        lines.add(ends, middle),
        lines.subtract(ends, middle),
        lines.add(far, half),
        lines.subtract(far, half),
        x[2],
    ]
