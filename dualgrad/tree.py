"""Trees of arrays: tuples, lists, dicts, dataclasses and registered types, over optree.

A leaf is *floating* (an array or number that can carry a tangent) or *static* (an integer, a
string, a callable, None): static leaves stay as they are wherever parameters are perturbed, updated
or counted. A dataclass needs no registration. Its fields are children, except those declared with
`dataclasses.field(metadata={"static": True})` and those that hold an int, str, bool, callable or
None: these belong to the structure, so two models that differ in them are different trees.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import optree

from .errors import StructureError

Tree = Any  # a nesting of containers with arrays as leaves
NAMESPACE = "dualgrad"
_OPTIONS: dict[str, Any] = {"none_is_leaf": True, "namespace": NAMESPACE}
_registered: set[type] = set()


def _is_static_value(value: Any) -> bool:
    if value is None or isinstance(value, (bool, int, str, bytes, np.dtype, type)):
        return True
    return callable(value) and not dataclasses.is_dataclass(value)


def _register_dataclass(cls: type) -> None:
    names = tuple(field.name for field in dataclasses.fields(cls))
    declared = {field.name for field in dataclasses.fields(cls) if field.metadata.get("static")}

    def flatten(node):
        values = {name: getattr(node, name) for name in names}
        static = {n: v for n, v in values.items() if n in declared or _is_static_value(v)}
        children = tuple(name for name in names if name not in static)
        return [values[name] for name in children], (children, tuple(static.items())), children

    def unflatten(metadata, leaves):
        children, static = metadata
        node = object.__new__(cls)  # __init__ may draw parameters; the fields are already known
        for name, value in (*zip(children, leaves, strict=True), *static):
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
            f"  got:      {_show(other)}\nGive both the same containers, keys and static fields."
        )
    return found


def _show(structure: Any) -> str:
    return str(structure).removeprefix("PyTreeSpec(").rpartition(", NoneIsLeaf")[0]


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
