"""The micro-kernel under every fused product, views of memory and atomics: LLVM IR through numba.

The functions take byte addresses; strides and sizes count elements. `like`, np.float32(0) or
np.float64(0), gives the element type. Vectors are as wide as the registers of the host.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import carray, types
from numba.extending import intrinsic

from ..jit import jit

PANEL = 16  # columns of a panel
UNROLL = 4  # rows of a panel that one turn of the inner loop takes
# Tallest block of rows. Taller ones would fit 32 registers, but rows whose stride is a multiple of
# 4096 bytes share one set of an L1 cache, which has 8 lines on many CPUs.
TALLEST = 6

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _registers() -> tuple[int, int]:
    """Return the bytes of a vector register of this CPU, and how many registers it has."""
    features = get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 32
    if features.get("avx2") and features.get("fma"):
        return 32, 16
    return 16, 32 if features.get("neon") else 16


_BYTES, _NUMBER = _registers()


def _width(element: Any) -> int:
    """Return the lanes of a register for numba's type of an element."""
    return min(PANEL, _BYTES * 8 // element.bitwidth)


def _tallest(element: Any) -> int:
    """Return how many rows of a panel to accumulate in registers, three left for operands."""
    return max(1, min(TALLEST, (_NUMBER - 3) * _width(element) // PANEL))


def _count(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def _offset(builder: ir.IRBuilder, address: Any, elements: Any, element: Any) -> Any:
    """Return address + elements * the size of one."""
    return builder.add(address, builder.mul(elements, _count(element.bitwidth // 8)))


def _load(builder: ir.IRBuilder, address: Any, kind: ir.Type, align: int) -> Any:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = align
    return value


def _splat(builder: ir.IRBuilder, value: Any, kind: ir.VectorType) -> Any:
    """Return a vector with value in every lane."""
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, undefined, zeros)


def _multiply_add(builder: ir.IRBuilder, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, of vectors or numbers, in one rounding where the CPU has it."""
    kind = a.type
    vector = isinstance(kind, ir.VectorType)
    suffix = f"v{kind.count}{kind.element.intrinsic_name}" if vector else kind.intrinsic_name
    name = f"llvm.fmuladd.{suffix}"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(function, [a, b, c])


def _repeat(
    builder: ir.IRBuilder,
    times: Any,
    carried: Sequence[Any],
    body: Callable[[list[Any]], Sequence[Any]],
) -> list[Any]:
    """Emit a loop of `times` turns, 0 among them; body maps the carried values to the next ones."""
    before = builder.block
    head, inside, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    turn = builder.phi(_I64)
    values = [builder.phi(value.type) for value in carried]
    builder.cbranch(builder.icmp_signed("<", turn, times), inside, after)
    builder.position_at_end(inside)
    results = [builder.add(turn, _count(1)), *body(values)]
    for phi, start, result in zip([turn, *values], [_count(0), *carried], results, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(result, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return values


@intrinsic
def _pointer(typing, like, address):
    """Return the address as a pointer to elements of like's type."""

    def emit(context, builder, signature, arguments):
        kind = context.get_value_type(signature.return_type)
        return builder.inttoptr(arguments[1], kind)

    return types.CPointer(like)(like, types.int64), emit


@jit
def view(like, address, n):
    """Return the n entries of like's type (any number type) at an address, as an array (n,)."""
    return carray(_pointer(like, address), n)


@intrinsic
def itemsize(typing, like):
    """Return the bytes of like as an int64 constant."""
    return types.int64(like), lambda context, builder, signature, arguments: _count(
        signature.args[0].bitwidth // 8
    )


@intrinsic
def _height(typing, like):
    """Return the rows of the tallest block for like's type."""
    return types.int64(like), lambda context, builder, signature, arguments: _count(
        _tallest(signature.args[0])
    )


@intrinsic(prefer_literal=True)
def _block(typing, like, height, a, lda, segment_a, segments, segment_k, b, initial, ldi, c, ldc):
    """`rows` for `height` rows, a literal; none where the registers cannot hold so many."""
    element = types.unliteral(like)
    result = types.void(element, height, *[types.int64] * 10)
    most = _tallest(element)
    return result, lambda context, builder, signature, arguments: _emit_block(
        context, builder, element, min(height.literal_value, most), arguments[2:]
    )


def _emit_block(context, builder, element, height, arguments):
    a, lda, segment_a, segments, segment_k, b, initial, ldi, c, ldc = arguments
    size, width = element.bitwidth // 8, _width(element)
    lane = context.get_value_type(element)
    vector = ir.VectorType(lane, width)
    registers = range(PANEL // width)  # of one row

    def places(address, stride):
        """Return the addresses of all registers' places in `height` rows, row by row."""
        for i in range(height):
            row = _offset(builder, address, builder.mul(stride, _count(i)), element)
            for j in registers:
                yield builder.add(row, _count(j * width * size))

    def several(depth):
        """Return the loop body that adds `depth` rows of the panel, unrolled."""

        def body(values):
            a, b, *sums = values
            for d in range(depth):
                columns = [
                    _load(
                        builder,
                        builder.add(b, _count((d * PANEL + j * width) * size)),
                        vector,
                        size,
                    )
                    for j in registers
                ]
                for i in range(height):
                    entry = builder.add(builder.add(a, skips[i]), _count(d * size))
                    entry = _splat(builder, _load(builder, entry, lane, size), vector)
                    for j in registers:
                        at = i * len(registers) + j
                        sums[at] = _multiply_add(builder, entry, columns[j], sums[at])
            a = builder.add(a, _count(depth * size))
            return [a, builder.add(b, _count(depth * PANEL * size)), *sums]

        return body

    def segment(values):
        start, *rest = values
        rest = _repeat(builder, whole, [start, *rest], several(UNROLL))
        rest = _repeat(builder, left, rest, several(1))
        return [_offset(builder, start, segment_a, element), *rest[1:]]

    skips = [
        _offset(builder, _count(0), builder.mul(lda, _count(i)), element) for i in range(height)
    ]
    whole = builder.sdiv(segment_k, _count(UNROLL))
    left = builder.srem(segment_k, _count(UNROLL))
    sums = [_load(builder, place, vector, size) for place in places(initial, ldi)]
    sums = _repeat(builder, segments, [a, b, *sums], segment)[2:]
    for value, place in zip(sums, places(c, ldc), strict=True):
        builder.store(value, builder.inttoptr(place, vector.as_pointer())).align = size
    return context.get_dummy_value()


@jit
def rows(like, m, a, lda, segment_a, segments, segment_k, b, initial, ldi, c, ldc):
    """Add the product of m rows of A with a panel B of 16 columns to I, into C, which may be I.

    For i < m and j < 16, C[i, j] = I[i * ldi + j] + the sum over s < segments, r < segment_k of
    A[s * segment_a + i * lda + r] * B[(s * segment_k + r) * 16 + j]. a, b, initial, c: addresses.
    """
    size = itemsize(like)
    tallest = _height(like)
    i = 0
    while i < m:
        x, start, y = a + size * i * lda, initial + size * i * ldi, c + size * i * ldc
        n = m - i
        if n >= 6 and tallest >= 6:
            _block(like, 6, x, lda, segment_a, segments, segment_k, b, start, ldi, y, ldc)
            i += 6
        elif n >= 4 and tallest >= 4:
            _block(like, 4, x, lda, segment_a, segments, segment_k, b, start, ldi, y, ldc)
            i += 4
        elif n >= 3 and tallest == 3:
            _block(like, 3, x, lda, segment_a, segments, segment_k, b, start, ldi, y, ldc)
            i += 3
        elif n >= 2 and tallest >= 2:
            _block(like, 2, x, lda, segment_a, segments, segment_k, b, start, ldi, y, ldc)
            i += 2
        else:
            _block(like, 1, x, lda, segment_a, segments, segment_k, b, start, ldi, y, ldc)
            i += 1


@intrinsic(prefer_literal=True)
def _dots_block(typing, like, height, a, lda, segment_a, segments, segment_k, b, s):
    """`dots` for `height` rows, a literal."""
    element = types.unliteral(like)
    result = types.void(element, height, *[types.int64] * 7)
    return result, lambda context, builder, signature, arguments: _emit_dots(
        context, builder, element, height.literal_value, arguments[2:]
    )


def _emit_dots(context, builder, element, height, arguments):
    a, lda, segment_a, segments, segment_k, b, s = arguments
    size, width = element.bitwidth // 8, _width(element)
    lane = context.get_value_type(element)
    vector = ir.VectorType(lane, width)
    skips = [
        _offset(builder, _count(0), builder.mul(lda, _count(i)), element) for i in range(height)
    ]

    def step(kind):
        """Return the loop body that takes one entry, or a vector of them, of b and every row."""
        bytes = size * (width if kind is vector else 1)

        def body(values):
            a, b, *sums = values
            weight = _load(builder, b, kind, size)
            for i in range(height):
                entry = _load(builder, builder.add(a, skips[i]), kind, size)
                sums[i] = _multiply_add(builder, entry, weight, sums[i])
            return [builder.add(a, _count(bytes)), builder.add(b, _count(bytes)), *sums]

        return body

    def segment(values):
        start, b, *sums = values
        x, b, *vectors = _repeat(builder, whole, [start, b, *sums[:height]], step(vector))
        x, b, *singles = _repeat(builder, left, [x, b, *sums[height:]], step(lane))
        return [_offset(builder, start, segment_a, element), b, *vectors, *singles]

    whole = builder.sdiv(segment_k, _count(width))
    left = builder.srem(segment_k, _count(width))
    zeros = [ir.Constant(vector, None)] * height + [ir.Constant(lane, 0.0)] * height
    sums = _repeat(builder, segments, [a, b, *zeros], segment)[2:]
    for i in range(height):
        lanes = [builder.extract_element(sums[i], ir.Constant(_I32, j)) for j in range(width)]
        while len(lanes) > 1:  # by halves, which the compiler turns into vector additions
            half = len(lanes) // 2
            lanes = [builder.fadd(lanes[j], lanes[j + half]) for j in range(half)]
        total = builder.fadd(lanes[0], sums[height + i])
        place = builder.add(s, _count(i * size))
        builder.store(total, builder.inttoptr(place, lane.as_pointer())).align = size
    return context.get_dummy_value()


@jit
def dots(like, m, a, lda, segment_a, segments, segment_k, b, s):
    """Write, for i < m, the product of row i of A with the vector b into s[i].

    s[i] = the sum over t < segments, r < segment_k of A[t * segment_a + i * lda + r] *
    b[t * segment_k + r]. a, b, s: addresses.
    """
    size = itemsize(like)
    i = 0
    while m - i >= 4:  # rows that share the loads of b
        x, y = a + size * i * lda, s + size * i
        _dots_block(like, 4, x, lda, segment_a, segments, segment_k, b, y)
        i += 4
    while i < m:
        x, y = a + size * i * lda, s + size * i
        _dots_block(like, 1, x, lda, segment_a, segments, segment_k, b, y)
        i += 1


@jit
def fill(like, address, n):
    """Write n zeros."""
    entries = view(like, address, n)
    for i in range(n):
        entries[i] = like


@jit
def interleave(like, k, n, vectors, panel):
    """Write k <= 16 vectors as the columns of a panel, (k, n) to (n, 16), and zeros beyond them."""
    entries, places = view(like, vectors, k * n), view(like, panel, n * PANEL)
    if k < PANEL:
        fill(like, panel, n * PANEL)
    for r in range(n):
        for i in range(k):
            places[r * PANEL + i] = entries[i * n + r]


@intrinsic
def fetch_add(typing, address, value):
    """Add value to the int64 at an address, atomically, and return what was there."""

    def emit(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), emit


@intrinsic
def load(typing, address):
    """Return the int64 at an address, atomically."""

    def emit(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(types.int64), emit


@intrinsic
def store(typing, address, value):
    """Write value into the int64 at an address, atomically."""

    def emit(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], _I64.as_pointer())
        builder.store_atomic(arguments[1], place, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def pause(typing):
    """Let another thread of this machine have the CPU."""

    def emit(context, builder, signature, arguments):
        name = "sched_yield"
        function = builder.module.globals.get(name)
        if function is None:
            function = ir.Function(builder.module, ir.FunctionType(_I32, []), name)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), emit
