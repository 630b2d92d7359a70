"""Chains of operations entry by entry as one kernel, whose text is made of the operations' structs.

A thread computes all values of an entry, each operation by the `run` that its own kernel has, and
keeps their slopes; then for each direction it goes through the chain again with tangents. So every
formula and convention is that of the tables, and what lies between two operations never reaches
memory. Numbers are arguments of the kernel: the text, which a compiled kernel is kept by, does not
depend on them.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import cuda
from .device import MASKED, THREADS, grid, repeating

PARTS = ("elementwise/tangents.cuh", "elementwise/arithmetic.cu", "elementwise/smooth.cu")
LONGEST = 128  # values of a chain: arguments of a kernel take 4 KiB at most, and slopes registers
# Functions without slopes, in CUDA C; those of MASKS are true or false.
MASKS = {
    "less": "{} < {}",
    "less_equal": "{} <= {}",
    "greater": "{} > {}",
    "greater_equal": "{} >= {}",
    "equal": "{} == {}",
    "not_equal": "{} != {}",
    "logical_and": "{} != 0 && {} != 0",
    "logical_or": "{} != 0 || {} != 0",
    "logical_xor": "({} != 0) != ({} != 0)",
    "logical_not": "{} == 0",
    "isnan": "is_nan({})",
    "isinf": "is_infinite({})",
    "isfinite": "fabs({}) < infinity()",
}
STEPS = {
    "primal": "{}",
    "sign": "sign_of({})",
    "floor": "floor({})",
    "ceil": "ceil({})",
    "trunc": "trunc({})",
    "rint": "rint({})",
}
CONSTANT = MASKS | STEPS
GIVEN = ("array", "mask", "number")  # what the kernel gets


class Value:
    """A value of a chain: what the kernel gets, or an operation on other values.

    Attributes:
        name: one of GIVEN, or an operation of SOURCES or CONSTANT.
        shape: what it has as an array.
        arguments: the values that the operation is applied to.
        given, tangents: the array or number, and its tangents (k, *shape) or None.
        moves: whether it has tangents.
        is_mask: whether it is true or false.
    """

    __slots__ = ("name", "shape", "arguments", "given", "tangents", "moves", "is_mask")

    def __init__(self, name: str, shape: tuple[int, ...], arguments: Sequence["Value"] = (),
                 given: Any = None, tangents: Any = None) -> None:  # fmt: skip
        self.name = name
        self.shape = shape
        self.arguments = arguments
        self.given = given
        self.tangents = tangents
        self.is_mask = name == "mask" or name in MASKS
        self.moves: bool = tangents is not None
        if name not in CONSTANT:
            for value in arguments[1:] if name in MASKED else arguments:
                self.moves = self.moves or value.moves


# A line of a chain: the name of a value, whether it moves, and the places of its arguments.
Line = tuple[str, bool, tuple[int, ...]]


def ordered(results: Sequence[Value]) -> list[Value]:
    """Return the values that results are made of, each after its arguments, and the results."""
    order: dict[int, Value] = {}

    def enter(value: Value) -> None:
        if id(value) not in order:
            for argument in value.arguments:
                enter(argument)
            order[id(value)] = value

    for result in results:
        enter(result)
    return list(order.values())


def run(
    order: Sequence[Value],
    results: Sequence[Value],
    shape: tuple[int, ...],
    dtype: np.dtype,
    into: Sequence[Any],
) -> list[tuple[Any, Any]]:
    """Return value and tangents (None where it does not move) of each result, by one launch.

    Args:
        order: what `ordered` gives of results.
        results: of this shape, or broadcast to it.
        shape, dtype: what all arrays but masks have, and broadcast to.
        into: for each result the array that gets its value, None for a new one. It may be an array
            that the kernel gets, and shares memory with no other of them.
    """
    k = next((len(x.tangents) for x in order if x.tangents is not None), None)
    pairs = [
        (_array(shape, bool if value.is_mask else dtype, target),
         cuda.empty((k, *shape), dtype) if k is not None and value.moves else None)
        for value, target in zip(results, into, strict=True)
    ]  # fmt: skip
    size = pairs[0][0].size
    if size:
        arguments = [x for pair in pairs for x in pair if x is not None]
        for value in order:
            if value.name == "number":
                arguments.append(value.given)
            elif value.name in GIVEN:
                x, t = repeating(shape, value.given, value.tangents)
                arguments += (x, x.size) if t is None else (x, x.size, t)
        written = any(target is not None for target in into)  # by blocks of one row, that read it
        blocks = grid(size, 1 if written else k)
        source(order, results).launch("chain", dtype, blocks, THREADS, size, k or 0, *arguments)
    for (y, _), target in zip(pairs, into, strict=True):
        if target is not None and target is not y:
            target[...] = y
    return pairs


def source(order: Sequence[Value], results: Sequence[Value]) -> cuda.Source:
    """Return the source of the kernel "chain" for results and what they are made of."""
    places = {id(value): i for i, value in enumerate(order)}
    lines = tuple(
        (value.name, value.moves, tuple(places[id(x)] for x in value.arguments)) for value in order
    )
    text = _text(lines, tuple(places[id(value)] for value in results))
    return cuda.generated("elementwise/chain", text, PARTS)


def _array(shape: tuple[int, ...], dtype: Any, target: Any) -> Any:
    """Return what the kernel writes: the target, or a new array where it has strides."""
    if target is not None and target.flags.c_contiguous:
        return target
    return cuda.empty(shape, dtype)


@functools.lru_cache(maxsize=1024)
def _text(lines: tuple[Line, ...], results: tuple[int, ...]) -> str:
    """Return the kernel's text; its parameters are in the order in which `run` gives them."""
    parameters = ["i64 size", "i64 directions"]
    values, slopes, stores, moves = [], [], [], []
    for j, i in enumerate(results):
        name, moving, _ = lines[i]
        is_mask = name == "mask" or name in MASKS
        parameters.append(f"{'u8' if is_mask else 'REAL'}* y{j}")
        stores.append(f"y{j}[i] = v{i} != 0;" if is_mask else f"store(y{j}, i, v{i});")
        if moving:
            parameters.append(f"REAL* ty{j}")
            moves.append(f"store(ty{j}, k * size + i, d{i});")
    for i, (name, moving, of) in enumerate(lines):
        given = [f"v{place}" for place in of]
        if name == "number":
            parameters.append(f"double a{i}")
            values.append(f"const ACC v{i} = (ACC)a{i};")
        elif name in GIVEN:
            kind, read = (
                ("u8", f"a{i}[at{i}]") if name == "mask" else ("REAL", f"load(a{i}, at{i})")
            )
            parameters += [f"const {kind}* a{i}", f"i64 n{i}"]
            values.append(f"const i64 at{i} = n{i} == size ? i : i % n{i};")
            values.append(f"const ACC v{i} = {read};")
            if moving:
                parameters.append(f"const REAL* ta{i}")
                slopes.append(f"const ACC d{i} = load(ta{i}, k * n{i} + at{i});")
        elif name in CONSTANT:
            values.append(f"const ACC v{i} = {CONSTANT[name].format(*given)};")
        else:
            values.append(f"const ACC in{i}[] = {{{', '.join(given)}}};")
            values.append(f"ACC v{i};")
            values.append(f"Slope s{i}[{len(of)}];")
            values.append(f"{name}_operation::run(in{i}, v{i}, s{i});")
            if moving:
                terms = [
                    f"moved(s{i}[{j}], d{place})"
                    for j, place in enumerate(of)
                    if lines[place][1] and not (j == 0 and name in MASKED)
                ]
                slopes.append(f"const ACC d{i} = {' + '.join(terms)};")
    loop = ["for (i64 k = blockIdx.y; k < directions; k += gridDim.y) {", *_in(slopes + moves), "}"]
    body = [*values, "if (blockIdx.y == 0) {", *_in(stores), "}", *(loop if moves else ())]
    return "\n".join([
        f'extern "C" __global__ void chain({", ".join(parameters)}) {{',
        "  for (i64 i = thread_index(); i < size; i += thread_count()) {",
        *_in(_in(body)),
        "  }",
        "}\n",
    ])  # fmt: skip


def _in(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
