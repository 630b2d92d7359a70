"""What a piece of bytecode reads: names beside its own variables, and attributes of anything."""

import dis
import functools
import types
from collections.abc import Iterator
from typing import NamedTuple

# Builtins by which code reads what it does not name.
BLIND = frozenset(
    {"globals", "vars", "eval", "exec", "compile", "open", "input", "dir", "__import__"}
)
_LOADS = frozenset(
    "LOAD_GLOBAL LOAD_NAME LOAD_DEREF LOAD_CLASSDEREF LOAD_FROM_DICT_OR_DEREF "
    "LOAD_FROM_DICT_OR_GLOBALS".split()
)
_TAKES = frozenset({"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM"})
_FILLERS = frozenset({"CACHE", "PUSH_NULL", "EXTENDED_ARG", "PRECALL", "NOP", "NOT_TAKEN"})


class Scan(NamedTuple):
    """What code reads.

    Attributes:
        roots: (name of a global or of a variable around it, attributes taken of it at once, line).
        names: of all attributes it takes.
        asked: those that it takes by getattr or hasattr, and may not find.
        imports: names of modules, with leading dots where they are relative.
        refused: those of its roots that, as builtins, may read anything.
        unclear: (what it does that cannot be followed, line).
    """

    roots: list[tuple[str, tuple[str, ...], str]]
    names: frozenset[str]
    asked: frozenset[str]
    imports: frozenset[str]
    refused: frozenset[str]
    unclear: list[tuple[str, str]]


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object and those of the functions, lambdas and loops inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


@functools.lru_cache(maxsize=1024)
def scan(code: types.CodeType) -> Scan:
    """Return what a code object reads, without the functions inside it."""
    instructions = [i for i in dis.get_instructions(code) if i.opname not in _FILLERS]
    roots: list[tuple[str, tuple[str, ...], str]] = []
    names, asked, imports = set(), set(), set()
    unclear = []
    line = code.co_firstlineno
    for place, instruction in enumerate(instructions):
        line = _line(instruction) or line
        where = f"{code.co_filename}:{line}"
        name, value = instruction.opname, instruction.argval
        if name in _TAKES:
            names.add(value)
        elif name in _LOADS and value in ("getattr", "hasattr"):
            taken = _taken(instructions[place + 1 :])
            if taken is None:
                unclear.append((f"it calls {value} with a name that is computed", where))
            else:
                asked.add(taken)
        elif name in _LOADS:
            roots.append((value, tuple(_chain(instructions[place + 1 :])), where))
        elif name == "IMPORT_NAME":
            level = instructions[place - 2].argval  # the constants before it: level, names
            imports.add("." * (level if isinstance(level, int) else 0) + value)
        elif name == "MATCH_CLASS":
            unclear.append(("it matches the attributes of a class", where))
    refused = frozenset(root for root, _, _ in roots) & BLIND
    return Scan(
        roots, frozenset(names | asked), frozenset(asked), frozenset(imports), refused, unclear
    )


def _line(instruction: dis.Instruction) -> int | None:
    positions = instruction.positions
    return None if positions is None else positions.lineno


def _chain(after: list[dis.Instruction]) -> Iterator[str]:
    """Yield the attributes that are taken at once."""
    for instruction in after:
        if instruction.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            return
        yield instruction.argval


def _taken(after: list[dis.Instruction]) -> str | None:
    """Return the name in getattr(object, "name"[, default]), None unless all are plain loads."""
    pushed = []
    for instruction in after:
        if not instruction.opname.startswith("LOAD_"):
            break
        if instruction.opname not in _TAKES:
            pushed.append(instruction)
    else:
        return None
    name = pushed[1] if len(pushed) in (2, 3) else None
    if name is None or instruction.opname != "CALL" or instruction.arg != len(pushed):
        return None
    return name.argval if name.opname == "LOAD_CONST" and isinstance(name.argval, str) else None
