"""Gradients of local networks projected on guesses: targets, guesses and spaces.

The gradient t of a target loss is projected on a guess s of it: (<t, s> / |s|^2) s. Published code
finds t by backpropagation; here <t, s> is one jvp along s. Guesses are gradients of a loss near by,
found by reverse mode inside one block (and its auxiliary head) at a time, whose memory is all that
reverse mode takes: the blocks before are forgotten, or computed again from their input.

Source: Fournier, Rivaud, Belilovsky, Eickenberg and Oyallon 2023, arXiv 2306.06968.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import drawing, tree
from ..custom import stop_gradient
from ..errors import OptionError
from ..estimators import forward_gradient
from ..options import choice
from ..random import Key, check_key
from ..tape import vjp
from ..transforms import jvp
from .local import LocalNetwork, call
from .module import Array, kaiming_uniform

Tree = tree.Tree
TARGETS = ("global", "local", "intermediate", "sum")
GUESSES = ("local", "ntk", "fixed-ntk", "intermediate", "random")
SPACES = ("weight", "module", "activation")


class _Options(NamedTuple):
    target: str
    guess: str
    space: str
    clip: float | None

    def check(self) -> None:
        choice("target", self.target, TARGETS)
        choice("guess", self.guess, GUESSES)
        choice("space", self.space, SPACES)
        if self.clip is not None and not (isinstance(self.clip, (int, float)) and self.clip > 0):
            raise OptionError(f"clip={self.clip!r}; give the largest |derivative| to keep, > 0.")


class _Blocks:
    """A network's blocks on one batch: each part with its state, results with the new ones."""

    def __init__(self, network: LocalNetwork, state: Any, x: Array, y: Array, key: Key) -> None:
        self.blocks = network.blocks
        self.state = state
        self.new: dict[str, Any] = {}
        self.x, self.y, self.key = x, y, key
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
            source = self.key if guess == "ntk" else Key(0)
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
            drawn.append(kaiming_uniform(key.fold_in(path), x.shape, fan_in, x.dtype))
        else:
            drawn.append(np.full_like(x, float(path.endswith("scale"))))
    return tree.unflatten(structure, drawn)


def _pull(f: Callable, primals: tuple, cotangent: Array) -> tuple[Any, list[Tree]]:
    """Return f(*primals) and the cotangents of the primals, trees with None for static leaves."""
    flat = [tree.flatten(p) for p in primals]
    moving = [[i for i, x in enumerate(leaves) if tree.is_floating(x)] for leaves, _ in flat]

    def g(*groups: list) -> Any:
        rebuilt = []
        for (leaves, structure), places, group in zip(flat, moving, groups, strict=True):
            at = dict(zip(places, group, strict=True))
            rebuilt.append(tree.unflatten(structure, [at.get(i, x) for i, x in enumerate(leaves)]))
        return f(*rebuilt)

    given = [[leaves[i] for i in where] for (leaves, _), where in zip(flat, moving, strict=True)]
    y, f_vjp = vjp(g, *given)
    found = []
    for (leaves, structure), where, group in zip(flat, moving, f_vjp(cotangent), strict=True):
        at = dict(zip(where, group, strict=True))
        found.append(tree.unflatten(structure, [at.get(i) for i in range(len(leaves))]))
    return y, found


def guided_gradient(
    *, target: str = "global", guess: str = "local", space: str = "activation",
    clip: float | None = None, has_state: bool = False,
) -> Callable:  # fmt: skip
    """Return fg: (value, gradient) = fg(network, [state,] x, y, key=key) of a LocalNetwork.

    Each block but the last has the projection of the target's gradient on its guess for a gradient;
    the auxiliary heads have the gradients of their own losses, and the last block that of the
    network's loss. Nothing is propagated backward from one block to the one before.

    Args:
        target: whose derivative along the guesses is taken. "global": the network's loss; "local":
            a block's own auxiliary loss; "intermediate": the next block's; "sum": global and local.
        guess: "local": the gradient of the block's own auxiliary loss; "ntk", "fixed-ntk": of an
            auxiliary head drawn anew for each batch, or once; "intermediate": of the next block's
            auxiliary loss; "random": +-1, for which g = <t, s> s, unbiased, with second moment d,
            the number of perturbed numbers. The others are biased: what of t is not along s is lost
            (|g| <= |t|), and the estimate improves the better the guess points.
        space: "weight": one scalar a step, for the blocks' weights together; "module": one a block,
            by one tangent each in one pass; "activation": one an example, for the blocks' results,
            g_n = (<t_n, s_n> / |s_n|^2) s_n, then pulled back through each block alone.
        clip: bound on each |<t, s>|.
        has_state: whether a state (BatchNorm's statistics) is taken and returned:
            ((value, new state), gradient).

    Examples must not interact for <t_n, s_n> to be what the jvp gives. Behind batch statistics it
    gives sum_m <dl_n/da_m, s_m> instead, the effect of all examples' guesses on example n: another
    quantity, whose use is biased. Published re-implementations train with it.

    Passes: a forward pass with one tangent (module: one for each block), the heads' short reverse
    passes (twice for "activation"), and one forward and reverse pass of each block. Memory: the
    results of the blocks and one block's reverse pass ("activation"); two copies of the weights and
    one block's ("weight"); for "module" a tangent for each block.

    Raises:
        OptionError: an unknown option; or a network that is no LocalNetwork, or of one block.
    """
    options = _Options(target, guess, space, clip)
    options.check()

    def guided(network: LocalNetwork, *args: Any, key: Key) -> tuple:
        check_key(key, "dg.nn.guided_gradient")
        if not isinstance(network, LocalNetwork) or len(network.blocks) < 2:
            raise OptionError(
                f"dg.nn.guided_gradient: params is {network!r}; give a LocalNetwork of two blocks "
                f"or more."
            )
        if len(args) != 2 + has_state:
            raise OptionError(
                f"dg.nn.guided_gradient: {len(args)} arguments after the network; give "
                f"({'state, ' if has_state else ''}x, y), as has_state={has_state}."
            )
        state, (x, y) = (args[0] if has_state else None), args[-2:]
        blocks = _Blocks(network, state, x, y, key)
        estimate = _activations if space == "activation" else _weights
        losses, gradients = estimate(blocks, options)
        leaves = [leaf for pair in gradients for part in pair for leaf in tree.leaves(part)]
        gradient = tree.unflatten(tree.flatten(network)[1], leaves)
        value = np.mean(losses)
        return ((value, blocks.new) if has_state else value), gradient

    return guided


def _activations(blocks: _Blocks, options: _Options) -> tuple[Array, list[tuple]]:
    """Return the losses (N,) and the gradients of each (block, aux), scalars by example."""
    n = len(blocks.x)
    inputs, guesses, squares, heads, own = [], [], [], [], []
    cheap = options.guess != "intermediate"  # to find again: results are large, and so are guesses
    h, t = blocks.x, None
    for m in range(blocks.last):
        inputs.append(h)
        block = blocks.blocks[m].block

        def push(h: Array, m: int = m, block: Any = block) -> Array:
            return blocks.run(m, "block", block, h, keep=True)

        h, t = (push(h), None) if t is None else jvp(push, (h,), (t,))
        head, s = _head(blocks, m, h)
        s = s if options.guess == "local" else _guess(blocks, options, m, h)
        heads.append(head)
        guesses.append(None if cheap else s)
        squares.append(_by_example(s * s))
        own.append(_near(blocks, options.target, m, h, s))
        t = s if t is None else t + s

    pair, last = blocks.pair(blocks.last), blocks.last
    d = None
    if options.target in ("global", "sum"):
        _, d = jvp(lambda h: blocks.through(last, pair, h), (h,), (t,))
    losses, (gradient,) = _pull(
        lambda pair: blocks.through(last, pair, h, keep=True), (pair,),
        np.full(n, 1 / n, h.dtype),
    )  # fmt: skip

    everywhere = sum(squares)
    gradients: list[tuple] = []
    for m in reversed(range(last)):  # the first blocks have the largest results: others go before
        x, s = inputs.pop(), guesses.pop()
        s = _guess(blocks, options, m, h) if s is None else s
        scale = np.zeros(n, s.dtype)
        for derivative, square in ((d, everywhere), (own[m], squares[m])):
            if derivative is not None:
                scale += _coefficients(derivative, square, options)
        s = s * (scale / n).reshape(-1, *(1,) * (s.ndim - 1))
        h = x  # the block's own result would only take memory

        def along(block: Any, m: int = m, x: Array = x, s: Array = s) -> Array:
            return np.sum(blocks.run(m, "block", block, x) * s)

        _, (g,) = _pull(along, (blocks.blocks[m].block,), np.ones((), s.dtype))
        gradients.append((g, heads[m]))
    return losses, [*reversed(gradients), gradient]


def _by_example(x: Array) -> Array:
    return np.sum(x.reshape(len(x), -1), axis=1)


def _coefficients(d: Array, square: Array, options: _Options) -> Array:
    """Return what multiplies the guesses: d, or d / |s|^2, zero where the guess is zero."""
    d = d if options.clip is None else np.clip(d, -options.clip, options.clip)
    if options.guess == "random":
        return d
    return np.divide(d, square, out=np.zeros_like(d), where=square > 0)


def _head(blocks: _Blocks, m: int, h: Array) -> tuple[Tree, Array]:
    """Return the gradient of block m's head on h, and the examples' gradients of its loss at h."""
    n = len(h)
    aux = blocks.blocks[m].aux
    _, (head, s) = _pull(
        lambda aux, h: blocks.loss(m, (None, aux), h, keep=True), (aux, h),
        np.full(n, 1 / n, h.dtype),
    )  # fmt: skip
    return head, s * h.dtype.type(n)


def _guess(blocks: _Blocks, options: _Options, m: int, h: Array) -> Array:
    """Return the guess of the examples' gradients of the loss at h, the result of block m."""
    if options.guess == "random":
        key = blocks.key.fold_in("directions")
        return drawing.draw_noise(key, f"block/{m}", h.shape, h.dtype, (0, 1), "rademacher")[0]
    ones = np.ones(len(h), h.dtype)
    if options.guess == "intermediate":
        following = blocks.pair(m + 1)
        return _pull(lambda h: blocks.through(m + 1, following, h), (h,), ones)[1][0]
    aux = blocks.fresh(m, options.guess)
    return _pull(lambda h: blocks.loss(m, (None, aux), h), (h,), ones)[1][0]


def _near(blocks: _Blocks, target: str, m: int, h: Array, s: Array) -> Array | None:
    """Return the derivatives along s of block m's own target, (N,), None if it has none."""
    if target in ("local", "sum"):
        pair = blocks.pair(m)
        return jvp(lambda h: blocks.loss(m, pair, h), (h,), (s,))[1]
    if target == "intermediate":
        following = blocks.pair(m + 1)
        return jvp(lambda h: blocks.through(m + 1, following, h), (h,), (s,))[1]
    return None


def _weights(blocks: _Blocks, options: _Options) -> tuple[Array, list[tuple]]:
    """Return the losses (N,) and the gradients of each (block, aux), scalars for all or a block."""
    n, last = len(blocks.x), blocks.last
    guesses, heads = [], []
    h = blocks.x
    for m in range(last):
        head, s, h = _guess_weights(blocks, options, m, h)
        heads.append(head)
        guesses.append(s)
    losses, (gradient,) = _pull(
        lambda pair: blocks.through(last, pair, h, keep=True), (blocks.pair(last),),
        np.full(n, 1 / n, h.dtype),
    )  # fmt: skip
    known = options.guess != "random"
    estimate = forward_gradient(
        lambda parts: _target_loss(blocks, options.target, parts),
        guess=(lambda parts, key: guesses) if known else None,
        combine="projection" if known else "mean",
        scope="module" if options.space == "module" else "global",
        clip=options.clip,
    )
    parts = [blocks.blocks[m].block for m in range(last)]
    _, found = estimate(parts, key=blocks.key)
    return losses, [*zip(found, heads, strict=True), gradient]


def _guess_weights(
    blocks: _Blocks, options: _Options, m: int, h: Array
) -> tuple[Tree, Tree, Array]:
    """Return the gradient of block m's head, the guess for the block's weights, and its result."""
    ones = np.full(len(h), 1 / len(h), h.dtype)
    pair = blocks.pair(m)
    if options.guess == "random":  # drawn later, where the derivative is taken
        h = blocks.run(m, "block", pair[0], h, keep=True)
        return _head(blocks, m, h)[0], None, h
    after: list[Array] = []

    def own(pair: tuple) -> Array:
        following = blocks.run(m, "block", pair[0], h, keep=True)
        after.append(stop_gradient(following))
        return blocks.loss(m, pair, following, keep=True)

    _, ((s, head),) = _pull(own, (pair,), ones)
    if options.guess in ("ntk", "fixed-ntk"):
        drawn = blocks.fresh(m, options.guess)
        _, (s,) = _pull(lambda b: blocks.through(m, (b, drawn), h), (pair[0],), ones)
    elif options.guess == "intermediate":
        following = blocks.pair(m + 1)
        _, (s,) = _pull(
            lambda b: blocks.through(m + 1, following, blocks.run(m, "block", b, h)),
            (pair[0],), ones,
        )  # fmt: skip
    return head, s, after[0]


def _target_loss(blocks: _Blocks, target: str, parts: list) -> Array:
    """Return the target's losses (N,) as a function of the blocks before the last."""
    total: Any = 0.0
    h = blocks.x
    cut = target in ("local", "intermediate")
    for m, part in enumerate(parts):
        h = blocks.run(m, "block", part, stop_gradient(h) if cut else h)
        if target == "local":
            total = total + blocks.loss(m, blocks.pair(m), h)
        elif target == "intermediate":
            total = total + blocks.through(m + 1, blocks.pair(m + 1), h)
    if target == "sum":
        separate = _target_loss(blocks, "local", parts)
        return separate + blocks.through(blocks.last, blocks.pair(blocks.last), h)
    return total if cut else blocks.through(blocks.last, blocks.pair(blocks.last), h)


def local_gradients(network: LocalNetwork | None = None, *, has_state: bool = False) -> Callable:
    """Return a guess for dg.forward_gradient: each block's gradient of its own local loss.

    fg = dg.forward_gradient(loss, guess=dg.local_gradients(model), combine="projection") projects
    the gradient of loss(model, [state,] x, y) on it: one derivative, one pass beside the local
    reverse passes. What of the gradient is not along the guess is lost; a network's own loss has no
    gradient for the auxiliary heads, so give the sum of both, or see `guided_gradient`.

    Args:
        network: a LocalNetwork; the one that is trained is taken where None is given.
        has_state: whether the arguments after the network begin with its state.
    """

    def guess(params: LocalNetwork, *args: Any, key: Key) -> Tree:
        used = params if network is None or isinstance(params, LocalNetwork) else network
        state, (x, y) = (args[0] if has_state else None), args[-2:]
        blocks = _Blocks(used, state, x, y, key)
        options = _Options("local", "local", "weight", None)
        h, leaves = x, []
        for m in range(len(used.blocks)):
            head, s, h = _guess_weights(blocks, options, m, h)
            leaves += tree.leaves(s) + tree.leaves(head)
        return tree.unflatten(tree.flatten(used)[1], leaves)

    return guess
