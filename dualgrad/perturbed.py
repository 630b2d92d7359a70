"""The parameters of an estimate: which leaves are perturbed, and how to put leaves back."""

from collections.abc import Callable
from typing import Any

import numpy as np

from . import tree
from .dual import DualTensor, Level, read_only
from .errors import DtypeError, StructureError
from .foreign import check_is_array

Tree = tree.Tree


class Parameters:
    """The leaves of params, which of them are perturbed, and how to put leaves back."""

    def __init__(self, params: Tree) -> None:
        self.leaves, self.structure = tree.flatten(params)
        self.paths = tree.paths(params)
        self.leaves = [
            np.asarray(x)[()] if isinstance(x, (float, complex)) and not hasattr(x, "dtype") else x
            for x in self.leaves
        ]
        self.floating = [i for i, x in enumerate(self.leaves) if tree.is_floating(x)]
        if not self.floating:
            raise StructureError(
                "dg.forward_gradient: params has no floating leaf. Give floating arrays "
                "(x.astype(float))."
            )
        for i in self.floating:
            check_is_array(self.leaves[i], "dg.forward_gradient")
            if self.leaves[i].dtype.kind == "c":
                raise DtypeError(
                    f"dg.forward_gradient: parameter {self.paths[i]!r} is complex, and directions "
                    f"are real. Keep the real and the imaginary part as two parameters."
                )

    def tree(self, at: dict[int, Any], otherwise: Callable[[Any], Any]) -> Tree:
        leaves = [at[i] if i in at else otherwise(x) for i, x in enumerate(self.leaves)]
        return tree.unflatten(self.structure, leaves)

    def duals(self, carriers: dict[int, Any], level: Level) -> Tree:
        at = {i: DualTensor(read_only(self.leaves[i]), t, level) for i, t in carriers.items()}
        return self.tree(at, lambda x: x)

    def gradient(self, at: dict[int, Any]) -> Tree:
        return self.tree(at, lambda x: None)

    def modules(self) -> list[list[int]]:
        """Return the leaves of each top-level child of params; below a single child, of its own."""
        paths = tree.key_paths(tree.unflatten(self.structure, self.leaves))
        names = [paths[i] for i in self.floating]
        depth = 1
        while len({name[:depth] for name in names}) == 1 and len(names[0]) > depth:
            depth += 1
        found: dict[tuple, list[int]] = {}
        for i, name in zip(self.floating, names, strict=True):
            found.setdefault(name[:depth], []).append(i)
        return list(found.values())
