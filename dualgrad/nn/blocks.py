"""A network's blocks on one batch, and reverse mode inside one of them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import tree
from ..beside import beside
from ..random import Key
from ..tape import vjp
from .local import LocalNetwork, call
from .module import Array, kaiming_uniform

Tree = tree.Tree


class Blocks:
    """A network's blocks on one batch: each part with its state, results with the new ones."""

    def __init__(
        self, network: LocalNetwork, state: Any, x: Array, y: Array, key: Key, head_key: Key
    ) -> None:
        self.blocks = network.blocks
        self.state = state
        self.new: dict[str, Any] = {}
        self.x, self.y, self.key, self.head_key = x, y, key, head_key
        self.last = len(self.blocks) - 1

    def run(self, m: int, name: str, part: Any, h: Array, keep: bool = False) -> Array:
        """Return the result of block m's part `name`, with the parameters of `part`."""
        new: dict[str, Any] = {}
        y = call(part, h, name, (self.state or {}).get(str(m)), new, True)
        if keep and new:
            self.new.setdefault(str(m), {}).update(new)
        return y

    def loss(self, m: int, pair: Any, h: Array, keep: bool = False) -> Array:
        """Return the loss (N,) of block m's head on h, its result; pair is (block, aux)."""
        return self.blocks[m].loss(self.run(m, "aux", pair[1], h, keep), self.y)

    def pair(self, m: int) -> tuple:
        return self.blocks[m].block, self.blocks[m].aux

    def through(self, m: int, pair: Any, h: Array, keep: bool = False) -> Array:
        """Return the loss (N,) of block m and its head on h, the block's input."""
        return self.loss(m, pair, self.run(m, "block", pair[0], h, keep), keep)

    def fresh(self, m: int, guess: str) -> Any:
        """Return the auxiliary head a guess is made with: its own, or one drawn anew."""
        aux = self.blocks[m].aux
        if guess in ("ntk", "fixed-ntk"):
            source = self.key if guess == "ntk" else self.head_key
            return redrawn(aux, source.fold_in("ntk").fold_in(m))
        return aux


def redrawn(layer: Tree, key: Key) -> Tree:
    """Return a layer with its parameters drawn as new: matrices and filters by Kaiming's rule.

    What has one axis becomes ones if it is named scale, else zeros, as layers begin.
    """
    leaves, structure = tree.flatten(layer)
    drawn = []
    for path, x in zip(tree.paths(layer), leaves, strict=True):
        if not tree.is_floating(x) or not np.ndim(x):
            drawn.append(x)
        elif x.ndim > 1:
            fan_in = math.prod(x.shape[:-1])
            weight = kaiming_uniform(key.fold_in(path), x.shape, fan_in, x.dtype)
            drawn.append(beside(x).asarray(weight))
        else:
            drawn.append(np.full_like(x, float(path.endswith("scale"))))
    return tree.unflatten(structure, drawn)


def of_leaves(f: Callable, primals: tuple) -> tuple[Callable, list[list], Callable]:
    """Return (g, lists, trees): g(*lists) is f(*primals), the lists are of floating leaves.

    trees(*lists) gives such lists, of cotangents say, as trees with None for static leaves.
    """
    flat = [tree.flatten(p) for p in primals]
    moving = [[i for i, x in enumerate(leaves) if tree.is_floating(x)] for leaves, _ in flat]

    def trees(*groups: list, keep: bool = False) -> list[Tree]:
        found = []
        for (leaves, structure), places, group in zip(flat, moving, groups, strict=True):
            at = dict(zip(places, group, strict=True))
            rebuilt = [at.get(i, x if keep else None) for i, x in enumerate(leaves)]
            found.append(tree.unflatten(structure, rebuilt))
        return found

    lists = [[leaves[i] for i in where] for (leaves, _), where in zip(flat, moving, strict=True)]
    return lambda *groups: f(*trees(*groups, keep=True)), lists, trees


def pull(f: Callable, primals: tuple, cotangent: Any) -> tuple[Any, list[Tree]]:
    """Return y = f(*primals) and the cotangents of the primals, trees with None for static leaves.

    cotangent: that of y, or a function of y that gives it.
    """
    g, lists, trees = of_leaves(f, primals)
    y, f_vjp = vjp(g, *lists)
    return y, trees(*f_vjp.once(cotangent(y) if callable(cotangent) else cotangent))
