"""Gradients of local networks projected on guesses: targets, guesses and spaces.

The gradient t of a target loss is projected on a guess s of it: (<t, s> / |s|^2) s. Published code
finds t by backpropagation; here <t, s> is one jvp along s. Guesses are gradients of a loss near by,
found by reverse mode inside one block (and its auxiliary head) at a time, whose memory is all that
reverse mode takes: a block is forgotten once the next one has its result.

Source: Fournier, Rivaud, Belilovsky, Eickenberg and Oyallon 2023, arXiv 2306.06968.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import drawing, tree
from ..beside import beside
from ..custom import stop_gradient
from ..errors import OptionError
from ..estimators import forward_gradient
from ..options import choice, largest_derivative
from ..random import Key, check_key
from ..tape import linearize
from ..transforms import jvp
from .blocks import Blocks, of_leaves, pull
from .local import LocalNetwork
from .module import Array

Tree = tree.Tree
TARGETS = ("global", "local", "intermediate", "sum")
GUESSES = ("local", "ntk", "fixed-ntk", "intermediate", "random")
SPACES = ("weight", "module", "activation")
FIXED = Key(0)  # of heads that are the same in all steps


class _Options(NamedTuple):
    target: str
    guess: str
    space: str
    clip: float | None

    def check(self) -> None:
        choice("target", self.target, TARGETS)
        choice("guess", self.guess, GUESSES)
        choice("space", self.space, SPACES)


def guided_gradient(
    *, target: str = "global", guess: str = "local", space: str = "activation",
    clip: float | None = None, has_state: bool = False, head_key: Key = FIXED,
) -> Callable:  # fmt: skip
    """Return fg: (value, gradient) = fg(network, [state,] x, y, key=key) of a LocalNetwork.

    Each block but the last has the projection of the target's gradient on its guess for a gradient;
    the auxiliary heads have the gradients of their own losses, and the last block that of the
    network's loss. Nothing is propagated backward from one block to the one before.

    Args:
        target: whose derivative along the guesses is taken. "global": the network's loss; "local":
            a block's own auxiliary loss; "intermediate": the next block's; "sum": global and local,
            their two projections added.
        guess: "local": the gradient of the block's own auxiliary loss; "ntk", "fixed-ntk": of an
            auxiliary head drawn anew for each batch, from the step's key, or the same in all steps,
            from head_key; "intermediate": of the next block's
            auxiliary loss; "random": +-1, for which g = <t, s> s, unbiased, with second moment d,
            the number of perturbed numbers. The others are biased: what of t is not along s is lost
            (|g| <= |t|), and the estimate improves the better the guess points.
        space: "weight": one scalar a step, for the blocks' weights together; "module": one a block,
            by one tangent each in one pass; "activation": one an example, for the blocks' results,
            g_n = (<t_n, s_n> / |s_n|^2) s_n, then pulled back through each block alone.
        clip: bound on each |<t, s>|.
        has_state: whether a state (BatchNorm's statistics) is taken and returned:
            ((value, new state), gradient).
        head_key: where the heads of "fixed-ntk" come from: give the run's key, so that other seeds
            have other heads. By default all runs have the same.

    Blocks run in training mode: BatchNorm takes the statistics of the batch.

    Examples must not interact for <t_n, s_n> to be what the jvp gives. Behind batch statistics it
    gives sum_m <dl_n/da_m, s_m> instead, the effect of all examples' guesses on example n: another
    quantity, whose use is biased. Published re-implementations train with it.

    Passes: a forward pass with one tangent (module: one for each block that came before), the
    heads' short reverse passes (twice for "activation"), and one forward and reverse pass of each
    block. Memory: one block's reverse pass, or its forward pass with a tangent; beside it two
    copies of the weights ("weight", "module"), a tangent of each block before ("module"), or the
    guesses (those of the next block for "activation"; others are found again).

    Raises:
        OptionError: an unknown option; or a network that is no LocalNetwork, or of one block.
    """
    options = _Options(target, guess, space, largest_derivative(clip))
    options.check()
    check_key(head_key, "dg.nn.guided_gradient: head_key")

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
        blocks = Blocks(network, state, x, y, key, head_key)
        estimate = _activations if space == "activation" else _weights
        losses, gradients = estimate(blocks, options)
        leaves = [leaf for pair in gradients for part in pair for leaf in tree.leaves(part)]
        gradient = tree.unflatten(tree.flatten(network)[1], leaves)
        value = np.mean(losses)
        return ((value, blocks.new) if has_state else value), gradient

    return guided


def _activations(blocks: Blocks, options: _Options) -> tuple[Array, list[tuple]]:
    """Return the losses (N,) and the gradients of each (block, aux), scalars by example."""
    n = len(blocks.x)
    d, near, squares, guesses = _along_results(blocks, options)
    everywhere = sum(squares)
    gradients: list[tuple] = []
    h = blocks.x
    for m in range(blocks.last):
        heads: list[Tree] = []

        def cotangent(h: Array, m: int = m, heads: list = heads) -> Array:
            head, s = _head(blocks, m, h)
            heads.append(head)
            if options.guess != "local":
                s = (guesses.pop(0) if guesses else _guess(blocks, options, m, h)) / n
            scale = beside(s).zeros(n, s.dtype)
            for derivative, square in ((d, everywhere), (near[m], squares[m])):
                if derivative is not None:
                    scale += _coefficients(derivative, square, options)
            return s * scale.reshape(-1, *(1,) * (s.ndim - 1))

        def result(block: Any, m: int = m, h: Array = h) -> Array:
            return blocks.run(m, "block", block, h, keep=True)

        h, (g,) = pull(result, (blocks.blocks[m].block,), cotangent)
        gradients.append((g, heads[0]))
    losses, gradient = _last(blocks, h)
    return losses, [*gradients, gradient]


def _along_results(blocks: Blocks, options: _Options) -> tuple:
    """Return (d, near, squares, guesses): d, (N,) or None, are the network's losses' along all.

    near: those of each block's own target along its guess. squares: of each guess, by example.
    guesses: empty where they are cheap to find again, which takes less memory than to keep them.
    """
    squares, near, guesses = [], [], []
    h, t = blocks.x, None
    for m in range(blocks.last):
        block = blocks.blocks[m].block

        def push(h: Array, m: int = m, block: Any = block) -> Array:
            return blocks.run(m, "block", block, h)

        h, t = (push(h), None) if t is None else jvp(push, (h,), (t,))
        s = _guess(blocks, options, m, h)
        squares.append(_by_example(s * s))
        near.append(_near(blocks, options.target, m, h, s))
        t = s if t is None else t + s
        if options.guess == "intermediate":
            guesses.append(s)
        del s
    d = None
    if options.target in ("global", "sum"):
        pair, last = blocks.pair(blocks.last), blocks.last
        _, d = jvp(lambda h: blocks.through(last, pair, h), (h,), (t,))
    return d, near, squares, guesses


def _last(blocks: Blocks, h: Array) -> tuple[Array, tuple]:
    """Return the network's losses (N,), and the gradient of the last block and its head."""
    losses, (gradient,) = pull(
        lambda pair: blocks.through(blocks.last, pair, h, keep=True), (blocks.pair(blocks.last),),
        beside(h).full(len(h), 1 / len(h), h.dtype),
    )  # fmt: skip
    return losses, gradient


def _by_example(x: Array) -> Array:
    return np.sum(x.reshape(len(x), -1), axis=1)


def _coefficients(d: Array, square: Array, options: _Options) -> Array:
    """Return what multiplies the guesses: d, or d / |s|^2, zero where the guess is zero."""
    d = d if options.clip is None else np.clip(d, -options.clip, options.clip)
    if options.guess == "random":
        return d
    known = square > 0
    return np.where(known, d / np.where(known, square, 1), 0)


def _head(blocks: Blocks, m: int, h: Array) -> tuple[Tree, Array]:
    """Return the gradients of the mean of block m's loss, with respect to its head and to h."""
    aux = blocks.blocks[m].aux
    _, (head, s) = pull(
        lambda aux, h: blocks.loss(m, (None, aux), h, keep=True), (aux, h),
        beside(h).full(len(h), 1 / len(h), h.dtype),
    )  # fmt: skip
    return head, s


def _guess(blocks: Blocks, options: _Options, m: int, h: Array) -> Array:
    """Return the guess of the examples' gradients of the loss at h, the result of block m."""
    if options.guess == "random":
        key = blocks.key.fold_in("directions")
        return drawing.draw_noise(key, f"block/{m}", h, (0, 1), "rademacher")[0]
    ones = beside(h).ones(len(h), h.dtype)
    if options.guess == "intermediate":
        following = blocks.pair(m + 1)
        return pull(lambda h: blocks.through(m + 1, following, h), (h,), ones)[1][0]
    aux = blocks.fresh(m, options.guess)
    return pull(lambda h: blocks.loss(m, (None, aux), h), (h,), ones)[1][0]


def _near(blocks: Blocks, target: str, m: int, h: Array, s: Array) -> Array | None:
    """Return the derivatives along s of block m's own target, (N,), None if it has none."""
    if target in ("local", "sum"):
        pair = blocks.pair(m)
        return jvp(lambda h: blocks.loss(m, pair, h), (h,), (s,))[1]
    if target == "intermediate":
        following = blocks.pair(m + 1)
        return jvp(lambda h: blocks.through(m + 1, following, h), (h,), (s,))[1]
    return None


def _weights(blocks: Blocks, options: _Options) -> tuple[Array, list[tuple]]:
    """Return the losses (N,) and the gradients of each (block, aux), scalars for all or a block."""
    guesses, heads = [], []
    h = blocks.x
    for m in range(blocks.last):
        head, s, h = _guess_weights(blocks, options, m, h)
        heads.append(head)
        guesses.append(s)
    losses, gradient = _last(blocks, h)
    del h
    estimate = _by_block if options.space == "module" else _together
    found = estimate(blocks, options, guesses)
    return losses, [*zip(found, heads, strict=True), gradient]


def _together(blocks: Blocks, options: _Options, guesses: list) -> list:
    """Return the gradients of the blocks before the last, one scalar for all."""
    known = options.guess != "random"
    estimate = forward_gradient(
        lambda parts: _target_loss(blocks, options.target, parts),
        guess=(lambda parts, key: guesses) if known else None,
        combine="projection" if known else "mean",
        clip=options.clip,
    )
    parts = [block.block for block in blocks.blocks[:-1]]
    return estimate(parts, key=blocks.key)[1]


def _by_block(blocks: Blocks, options: _Options, guesses: list) -> list:
    """Return the gradients of the blocks before the last, one scalar each."""
    if options.guess == "random":
        guesses = _drawn(blocks)
    derivatives = _along_blocks(blocks, options.target, guesses)
    found = []
    for s, d in zip(guesses, derivatives, strict=True):
        parts = (np.vdot(v, v).astype(np.float64) for v in tree.leaves(s) if v is not None)
        scale = _coefficients(d, sum(parts, start=np.float64(0)), options)
        found.append(tree.map(lambda v, c=scale: None if v is None else v * c.astype(v.dtype), s))
    return found


def _drawn(blocks: Blocks) -> list:
    """Return random directions of the blocks before the last, as forward_gradient draws them."""
    parts = [block.block for block in blocks.blocks[:-1]]
    leaves, structure = tree.flatten(parts)
    key = blocks.key.fold_in("directions")
    found: list[Any] = [None] * len(leaves)
    for place, (path, x) in enumerate(zip(tree.paths(parts), leaves, strict=True)):
        if tree.is_floating(x):
            drawn: Any = drawing.draw_leaf(key, path, x, (0, 1), "rademacher", "dense")
            found[place] = drawn[0]
    return tree.unflatten(structure, found)


def _along_blocks(blocks: Blocks, target: str, guesses: list) -> list:
    """Return the derivative of the target's mean along each block's guess.

    A tangent is pushed through the blocks after its own only: as k tangents of one pass, each would
    be carried as zeros by those before, and all would be held at once.
    """
    h, last = blocks.x, blocks.last
    derivatives: list[Any] = [np.float64(0)] * last
    whole = target in ("global", "sum")
    moved: list[Array] = []  # the derivatives of h along the guesses so far
    for m in range(last):
        block = blocks.blocks[m].block

        def run(block: Any, h: Array = h, m: int = m) -> Array:
            return blocks.run(m, "block", block, h)

        if moved:
            _push_all(lambda h, run=run, block=block: run(block, h), h, moved)
        g, lists, _ = of_leaves(run, (block,))
        s = [v for v in tree.leaves(guesses[m]) if v is not None]
        h, t = jvp(g, lists, [s])
        near = _near(blocks, target, m, h, t)
        if near is not None:
            derivatives[m] = np.mean(near).astype(np.float64)
        if whole:
            moved.append(t)
    if whole:
        _push_all(lambda h: blocks.through(last, blocks.pair(last), h), h, moved)
        derivatives = [
            d + np.mean(t).astype(np.float64) for d, t in zip(derivatives, moved, strict=True)
        ]
    return derivatives


def _push_all(f: Callable, h: Array, tangents: list[Array]) -> None:
    """Replace tangents of h by those of f(h), one after the other."""
    _, push = linearize(f, h)
    for place, t in enumerate(tangents):
        tangents[place] = push(t)


def _guess_weights(blocks: Blocks, options: _Options, m: int, h: Array) -> tuple[Tree, Tree, Array]:
    """Return the gradient of block m's head, the guess for the block's weights, and its result."""
    ones = beside(h).full(len(h), 1 / len(h), h.dtype)
    pair = blocks.pair(m)
    if options.guess == "random":  # drawn later, where the derivative is taken
        h = blocks.run(m, "block", pair[0], h, keep=True)
        return _head(blocks, m, h)[0], None, h
    after: list[Array] = []

    def own(pair: tuple) -> Array:
        following = blocks.run(m, "block", pair[0], h, keep=True)
        after.append(stop_gradient(following))
        return blocks.loss(m, pair, following, keep=True)

    _, ((s, head),) = pull(own, (pair,), ones)
    if options.guess in ("ntk", "fixed-ntk"):
        drawn = blocks.fresh(m, options.guess)
        _, (s,) = pull(lambda b: blocks.through(m, (b, drawn), h), (pair[0],), ones)
    elif options.guess == "intermediate":
        following = blocks.pair(m + 1)
        _, (s,) = pull(
            lambda b: blocks.through(m + 1, following, blocks.run(m, "block", b, h)),
            (pair[0],), ones,
        )  # fmt: skip
    return head, s, after[0]


def _target_loss(blocks: Blocks, target: str, parts: list) -> Array:
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
        blocks = Blocks(used, state, x, y, key, FIXED)
        options = _Options("local", "local", "weight", None)
        h, leaves = x, []
        for m in range(len(used.blocks)):
            head, s, h = _guess_weights(blocks, options, m, h)
            leaves += tree.leaves(s) + tree.leaves(head)
        return tree.unflatten(tree.flatten(used)[1], leaves)

    return guess
