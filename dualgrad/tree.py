"""Trees of arrays: tuples, lists, dicts, dataclasses and registered types, over optree.

A leaf is *floating* (an array or number that can carry a tangent) or *static* (an integer, a
string, a callable, None): static leaves stay as they are wherever parameters are perturbed, updated
or counted. A dataclass needs no registration. Its fields are children, except those declared with
`dataclasses.field(metadata={"static": True})` and those that hold an int, str, bool, callable or
None: these belong to the structure, so two models that differ in them are different trees. What an
instance holds beside its fields (a cache that __post_init__ made) does not come back.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import optree

from .beside import has_memory
from .errors import StructureError

Tree = Any  # a nesting of containers with arrays as leaves
NAMESPACE = "dualgrad"
_OPTIONS: dict[str, Any] = {"none_is_leaf": True, "namespace": NAMESPACE}
_registered: set[type] = set()


def _is_static_value(value: Any) -> bool:
    if value is None or isinstance(value, (bool, int, str, bytes, np.dtype, type)):
        return True
    return callable(value) and not dataclasses.is_dataclass(value)


class _Static:
    """The static fields of a dataclass; arrays among them are equal where their entries are."""

    __slots__ = ("fields",)

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Static):
            return NotImplemented
        pairs = zip(self.fields.items(), other.fields.items(), strict=False)
        return len(self.fields) == len(other.fields) and all(
            n == m and _same(x, y) for (n, x), (m, y) in pairs
        )

    def __hash__(self) -> int:
        return hash(tuple(self.fields))

    def __repr__(self) -> str:
        return repr(tuple(self.fields.items()))


def _same(x: Any, y: Any) -> bool:
    """Tell whether two static values are equal; arrays in them are compared entry by entry."""
    if x is y:
        return True
    if has_memory(x) or has_memory(y):
        alike = type(x) is type(y) and x.dtype == y.dtype and x.shape == y.shape
        return alike and bool(np.all((x == y) | ((x != x) & (y != y))))
    if type(x) is not type(y):
        return False
    if isinstance(x, (tuple, list)):
        return len(x) == len(y) and all(_same(a, b) for a, b in zip(x, y, strict=True))
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(_same(v, y[name]) for name, v in x.items())
    return bool(x == y)


def _register_dataclass(cls: type) -> None:
    names = tuple(field.name for field in dataclasses.fields(cls))
    declared = {field.name for field in dataclasses.fields(cls) if field.metadata.get("static")}

    def flatten(node):
        values = {name: getattr(node, name) for name in names if hasattr(node, name)}
        static = {n: v for n, v in values.items() if n in declared or _is_static_value(v)}
        children = tuple(name for name in values if name not in static)
        return [values[name] for name in children], (children, _Static(static)), children

    def unflatten(metadata, leaves):
        children, static = metadata
        node = object.__new__(cls)  # __init__ may draw parameters; the fields are already known
        for name, value in (*zip(children, leaves, strict=True), *static.fields.items()):
            object.__setattr__(node, name, value)
        return node

    optree.register_pytree_node(cls, flatten, unflatten, namespace=NAMESPACE)
    _registered.add(cls)


def _is_new_dataclass(node: Any) -> bool:
    """Register a dataclass on first sight; always False, so that flattening goes on."""
    cls = type(node)
    if cls not in _registered and dataclasses.is_dataclass(cls):
        _register_dataclass(cls)
    return False


def register(cls: type, flatten: Callable, unflatten: Callable) -> None:
    """Declare a container: flatten(node) -> (children, metadata), unflatten(metadata, children)."""
    optree.register_pytree_node(cls, flatten, unflatten, namespace=NAMESPACE)
    _registered.add(cls)


def flatten(tree: Tree) -> tuple[list, Any]:
    """Return the leaves of a tree, and the structure that `unflatten` puts them back into."""
    return optree.tree_flatten(tree, is_leaf=_is_new_dataclass, **_OPTIONS)


def unflatten(structure: Any, leaves: Iterable) -> Tree:
    """Return the tree with this structure and these leaves."""
    return optree.tree_unflatten(structure, leaves)


def leaves(tree: Tree) -> list:
    """Return the leaves of a tree in order."""
    return flatten(tree)[0]


def paths(tree: Tree) -> list[str]:
    """Return the path of each leaf, its keys joined by "/": {"a": [x, y]} has "a/0" and "a/1"."""
    return ["/".join(map(str, path)) for path in key_paths(tree)]


def key_paths(tree: Tree) -> list[tuple]:
    """Return the path of each leaf, a tuple of keys, places and names of fields."""
    return optree.tree_paths(tree, is_leaf=_is_new_dataclass, **_OPTIONS)


def map(function: Callable, tree: Tree, *others: Tree) -> Tree:
    """Return the tree of function(leaf, *other leaves); StructureError where structures differ."""
    first, structure = flatten(tree)
    rest = [leaves_like(other, structure, "tree.map") for other in others]
    return unflatten(structure, [function(*row) for row in zip(first, *rest, strict=True)])


def leaves_like(tree: Tree, structure: Any, where: str) -> list:
    """Return the leaves of a tree that must have the given structure, else raise StructureError."""
    found, other = flatten(tree)
    if other != structure:
        raise StructureError(
            f"{where}: two trees differ in structure.\n  expected: {_show(structure)}\n"
            f"  got:      {_show(other)}\n{_first_difference(structure, other)}Give both the same "
            f"containers, keys and static fields."
        )
    return found


SHOWN = 300  # characters of a structure in a message


def _show(structure: Any) -> str:
    text = str(structure).removeprefix("PyTreeSpec(").rpartition(", NoneIsLeaf")[0]
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ... ({structure.num_leaves} leaves)"


def _first_difference(structure: Any, other: Any) -> str:
    """Return a line on the first leaf that one structure has and the other has not, if any."""
    ours, theirs = (["/".join(map(str, p)) for p in s.paths()] for s in (structure, other))
    for name, these, those in (("expected", ours, theirs), ("got", theirs, ours)):
        missing = [path for path in these if path not in set(those)]
        if missing and len(ours) > 8:
            return f"  the first leaf that only the {name} one has: {missing[0]!r}\n"
    return ""


def is_floating(leaf: Any) -> bool:
    """Tell whether a leaf can carry a tangent: a real or complex floating array or number."""
    if isinstance(leaf, (bool, int, str)):
        return False
    if isinstance(leaf, (float, complex)):
        return True
    dtype = getattr(leaf, "dtype", None)
    return getattr(dtype, "kind", "") in "fc" and dtype is not None


def parameters(tree: Tree) -> dict[str, Any]:
    """Return the floating leaves of a tree by path: what a model trains."""
    return {p: x for p, x in zip(paths(tree), leaves(tree), strict=True) if is_floating(x)}
