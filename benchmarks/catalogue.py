"""Every estimator of the library on one network and one batch, with what its law says it gives.

The laws are worked out from gradients by reverse mode, never from the estimators themselves.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import curves
import models
import numpy as np

import dualgrad as dg
from dualgrad import nn

KEY = models.KEY.fold_in("estimators")
Tree = Any


class Law(NamedTuple):
    """What an estimate g of t has, relative to |t|: None where there is no formula.

    along: <E g, t>. bias: |E g - t|. variance: E |g - E g|^2. spread: the standard deviation of
    <g, t>, and of |g|^2 over its mean, where a few keys in a thousand decide it, so that samples
    show too little of it.
    """

    along: float | None = None
    bias: float | None = None
    variance: float | None = None
    spread: float = 0.0


class Estimate(NamedTuple):
    """An estimator: gradient(params, key) is like params; part(gradient) is compared with t."""

    name: str
    params: Tree
    gradient: Callable[[Tree, dg.Key], Tree]
    part: Callable[[Tree], Tree]
    t: np.ndarray
    law: Law
    tangents: int = 1
    passes: str = "1"


# --- the network


def normalised(x: Any) -> Any:
    """Return each example less its mean, over its standard deviation: LayerNorm, no parameters."""
    x = x - np.mean(x, axis=-1, keepdims=True)
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-5)


def build(width: int) -> nn.LocalNetwork:
    """Return 784-width-width-10: two hidden blocks with linear heads, and an output block."""
    keys = KEY.fold_in("weights").split(5)
    hidden = [
        nn.LocalBlock(
            nn.Sequential(normalised, nn.Linear(n, width, activation="relu", key=key)),
            nn.Linear(width, 10, key=head_key),
        )
        for n, key, head_key in zip((784, width), keys[:2], keys[2:4], strict=True)
    ]
    output = nn.LocalBlock(nn.Sequential(nn.Linear(width, 10, key=keys[4])), nn.Sequential())
    return nn.LocalNetwork(*hidden, output)


def entropies(logits: Any, y: np.ndarray) -> Any:
    return nn.cross_entropy(logits, y, reduction="none")


def run(layers: Any, x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x


def train(network: nn.LocalNetwork, data: curves.Data, steps: int) -> nn.LocalNetwork:
    """Return the network after backpropagation; the heads learn without touching the blocks."""

    def loss(net: nn.LocalNetwork, x: Any, y: np.ndarray) -> Any:
        total: Any = 0.0
        for block in net.blocks[:-1]:
            x = block.block(x)
            total = total + entropies(block.aux(dg.stop_gradient(x)), y)
        return total + entropies(net.blocks[-1].block(x), y)

    step = dg.training_step(loss, dg.optim.adam(1e-3), method="backprop")
    state = step.init(network, KEY.fold_in("training"))
    for _, batch in zip(range(steps), data.batches(), strict=False):
        state, _ = step(state, *batch)
    return state.params


class Subject:
    """A network on a batch, in the forms that estimators take.

    network: a LocalNetwork, for guesses. blocks: its three blocks, parameters of its loss.
    tree, t: the gradient of the loss, as a tree and as one row.
    memory: what momentum 0.9 keeps of the gradients on other batches.
    """

    def __init__(self, network: nn.LocalNetwork, batch: tuple, others: list[tuple]) -> None:
        self.network, (self.x, self.y) = network, batch
        self.blocks = [block.block for block in network.blocks]
        self.tree = gradient(self.loss, self.blocks)
        self.t = flat(self.tree)
        earlier = [
            gradient(lambda blocks, x=x, y=y: entropies(run(blocks, x), y), self.blocks)
            for x, y in others
        ]
        self.memory = dg.tree.map(_momentum, *earlier)

    def loss(self, blocks: list) -> Any:
        return entropies(run(blocks, self.x), self.y)

    def value(self) -> float:
        return float(np.mean(self.loss(self.blocks)))

    def losses(self, network: nn.LocalNetwork) -> list:
        return network.local_losses(self.x, self.y)

    def replicated(self, size: int) -> nn.LocalNetwork:
        """Return the hidden blocks with a loss for each `size` units, the output as second head.

        The objective and its gradient are the same for every size.
        """
        heads = (self.network.blocks[0].aux, self.blocks[-1].layers[-1])
        blocks = []
        for block, linear in zip(self.blocks, heads, strict=False):
            rows, classes = linear.weight.shape
            head = nn.ReplicatedHead(rows, classes, groups=rows // size)
            head = dg.tree.unflatten(dg.tree.flatten(head)[1], [linear.weight, linear.bias])
            blocks.append(nn.LocalBlock(block, head))
        return nn.LocalNetwork(*blocks)


def _momentum(*gradients: Any) -> Any:
    """Return what momentum 0.9 keeps of one leaf's gradients, the newest first."""
    return None if gradients[0] is None else sum(0.9**i * g for i, g in enumerate(gradients))


def gradient(losses: Callable, params: Tree) -> Tree:
    return dg.gradient(lambda p: dg.objective(losses(p)), mode="reverse")(params)


def flat(tree: Tree) -> np.ndarray:
    """Return the numbers of a gradient in one row, float64."""
    leaves = [np.asarray(leaf) for leaf in dg.tree.leaves(tree) if leaf is not None]
    return np.concatenate([np.ravel(leaf) for leaf in leaves]).astype(np.float64)


# --- laws


def squares(x: np.ndarray) -> float:
    return float(np.sum(np.square(x)))


def projected(t: np.ndarray, s: np.ndarray) -> np.ndarray:
    return s * (t @ s / squares(s))


def fixed(g: np.ndarray, t: np.ndarray) -> Law:
    """Return the law of an estimate that is always g."""
    return Law(float(g @ t) / squares(t), math.sqrt(squares(g - t) / squares(t)), 0.0)


class Site(NamedTuple):
    """Results of a block that are perturbed.

    x: the linear layer's input (n, inputs). c: each example's derivative of its loss by the
    results, (n, units). active: where the ReLU lets what arrives through to the weights.
    """

    x: np.ndarray
    c: np.ndarray
    active: np.ndarray

    def pull(self, s: np.ndarray) -> np.ndarray:
        """Return the block's gradient, for s in the place of c, as one row."""
        s = s * self.active
        return np.concatenate([np.ravel(self.x.T @ s), np.sum(s, axis=0)]) / len(s)


def sites(blocks: list, losses: Callable, x: np.ndarray, *, after: bool) -> list[Site]:
    """Return the sites of a chain of blocks, before or after their ReLU, of losses(result)."""
    inputs, active, h = [], [], x
    for block in blocks:
        linear = block.layers[-1]
        inputs.append(run(block.layers[:-1], h))
        z = inputs[-1] @ linear.weight + linear.bias
        active.append(z > 0 if linear.activation else np.full(z.shape, True))
        h = block(h)

    def total(offsets: list) -> Any:
        h = x
        for block, offset in zip(blocks, offsets, strict=True):
            linear = block.layers[-1]
            if after:
                h = block(h) + offset
                continue
            z = run(block.layers[:-1], h) @ linear.weight + linear.bias + offset
            h = nn.relu(z) if linear.activation else z
        return np.sum(losses(h))

    zeros = [np.zeros(a.shape, x.dtype) for a in active]
    found = dg.gradient(total, mode="reverse")(zeros)
    wide = [
        (a.astype(np.float64), c.astype(np.float64)) for a, c in zip(inputs, found, strict=True)
    ]
    return [Site(*pair, a) for pair, a in zip(wide, active, strict=True)]


def scatter(perturbed: list[Site], *, size: int | None = None, normal: bool = False) -> float:
    """Return E |g - t|^2 of (c . u) u pulled back, u the noise of these sites together.

    For one example, entry i of (c . u) u has variance |c|^2 - c_i^2 for signs and |c|^2 + c_i^2 for
    normal noise, |c|^2 over all sites, or with `size` over i's group of so many units.
    """
    whole = sum(np.sum(site.c**2, axis=1) for site in perturbed)[:, None]
    total = 0.0
    for site in perturbed:
        square, n = site.c**2, len(site.c)
        if size:
            groups = np.sum(square.reshape(n, -1, size), axis=2)
            whole = np.repeat(groups, size, axis=1)
        own = (whole + square if normal else whole - square) * site.active
        lengths = 1 + np.sum(site.x**2, axis=1)  # a bias has the input 1
        total += float(lengths @ np.sum(own, axis=1)) / n**2
    return total


# --- the estimators


def everything(subject: Subject) -> dict[str, list[Estimate]]:
    """Return the estimators by what they are compared with."""
    size = sum(block.layers[-1].weight.size for block in subject.blocks[:-1])
    return {
        f"the gradient of the network's loss, {len(subject.t):,} parameters": [
            *random_weights(subject), *activations(subject), *last_update(subject)],
        f"the same, hidden layers, {size:,} weights": list(guesses(subject)),
        "the gradient of the local losses, hidden layers": list(local(subject)),
    }  # fmt: skip


def perturbing(subject: Subject, name: str, k: int, law: Law, *, tangents: int | None = None,
               **options: Any) -> Estimate:  # fmt: skip
    """Return forward_gradient of the network's loss."""
    fg = dg.forward_gradient(subject.loss, **options)
    name = f"{name}, k={k}"
    return Estimate(name, subject.blocks, lambda blocks, key: fg(blocks, key=key)[1],
                    lambda g: g, subject.t, law, tangents or k)  # fmt: skip


def random_weights(subject: Subject) -> Iterator[Estimate]:
    yield Estimate("backprop", subject.blocks, lambda p, key: gradient(subject.loss, p),
                   lambda g: g, subject.t, Law(1.0, 0.0, 0.0), 0, "1+r")  # fmt: skip
    make = functools.partial(perturbing, subject)
    d, whole = len(subject.t), squares(subject.t)
    leaves = [leaf for leaf in dg.tree.leaves(subject.tree) if leaf is not None]
    rank1 = sum(squares(x) / whole * (d + 2 if x.ndim < 2 else
                d - x.size + (x.shape[0] + 2) * (x.shape[1] + 2)) for x in leaves)  # fmt: skip
    rows = [flat(block) for block in subject.tree]
    sizes, shares = np.array([(len(t), squares(t) / whole) for t in rows]).T
    values = dg.directions
    for k in (1, 16):
        for name, moment, options in (
            ("signs", d, {}),
            ("normal", d + 2, {"distribution": "normal"}),
            ("rank-1 signs", d, {"structure": "rank1"}),
            ("rank-1 normal", rank1, {"structure": "rank1", "distribution": "normal"}),
        ):  # fmt: skip
            yield make(name, k, Law(1.0, 0.0, (moment - 1) / k), directions=k, **options)
        peaks = d * float(np.sum(np.square(np.square(subject.t) / whole)))  # 1 for equal entries
        for name, family, spread in (
            ("orthogonal", values.orthogonal, 0.0),
            ("axes", values.basis, math.sqrt((peaks - 1) / k)),
        ):
            law = Law(1.0, 0.0, d / k - 1, spread)
            yield make(name, k, law, directions=k, distribution=family)
        law = Law(1.0, 0.0, float(shares @ (sizes - 1)) / k)
        yield make("signs, modules", k, law, tangents=3 * k, directions=k, scope="module")
        p = k / d
        projection = {"directions": k, "distribution": "normal", "combine": "projection"}
        yield make("projection", k, Law(p, 1 - p, p - p * p), **projection)
        p = k / sizes
        law = Law(float(shares @ p), math.sqrt(shares @ (1 - p) ** 2), float(shares @ (p - p * p)))
        yield make("projection, modules", k, law, tangents=3 * k, scope="module", **projection)


def activations(subject: Subject) -> Iterator[Estimate]:
    met = sites(subject.blocks, lambda h: entropies(h, subject.y), subject.x, after=False)
    for distribution in ("rademacher", "normal"):
        variance = scatter(met, normal=distribution == "normal") / squares(subject.t)
        name = "activations" + ", normal" * (distribution == "normal")
        for k in (1, 16):
            yield perturbing(subject, name, k, Law(1.0, 0.0, variance / k), directions=k,
                             perturb="activations", distribution=distribution)  # fmt: skip


def last_update(subject: Subject) -> Iterator[Estimate]:
    """The last update as a guess, as if the parameters had been the same at other batches."""
    t, s = subject.t, flat(subject.memory)
    law = fixed(projected(t, s), t)
    yield perturbing(subject, "last update", 1, law, guess=subject.memory, combine="projection")
    rest, d = law.bias**2, len(t)  # of |t|^2, not along s; a direction across s finds 1/(d - 1)
    with_signs = Law(law.along + rest / (d - 1), law.bias * (1 - 1 / (d - 1)), rest / (d - 1))
    both = dg.directions.guess(subject.memory) + dg.directions.rademacher
    yield perturbing(subject, "last update + signs", 2, with_signs, distribution=both,
                     combine="projection")  # fmt: skip


def guesses(subject: Subject) -> Iterator[Estimate]:
    """guided_gradient of the network's loss."""
    hidden, output = subject.blocks[:-1], subject.blocks[-1]
    y, t = subject.y, flat(subject.tree[:-1])
    met = sites(hidden, lambda h: entropies(output(h), y), subject.x, after=True)
    own, h = [], subject.x
    for block, local_block in zip(hidden, subject.network.blocks, strict=False):
        own += sites([block], lambda h, b=local_block: entropies(b.aux(h), y), h, after=True)
        h = block(h)
    ts, ss = ([site.pull(site.c) for site in each] for each in (met, own))
    dots = sum(np.sum(a.c * b.c, axis=1) for a, b in zip(met, own, strict=True))
    scale = dots / sum(np.sum(site.c**2, axis=1) for site in own)
    found = {
        "weight": projected(t, np.concatenate(ss)),
        "module": np.concatenate([projected(*pair) for pair in zip(ts, ss, strict=True)]),
        "activation": np.concatenate([site.pull(site.c * scale[:, None]) for site in own]),
    }
    random = {"weight": len(t) - 1.0, "activation": scatter(met) / squares(t)}
    rows = [("local", space, fixed(g, t), "2+r") for space, g in found.items()]
    rows += [("ntk", "activation", Law(), "2+r"), ("ntk", "weight", Law(), "3+r")]
    rows += [("fixed-ntk", "activation", Law(), "2+r"), ("intermediate", "weight", Law(), "3+r"),
             ("intermediate", "activation", Law(), "3+r")]  # fmt: skip
    rows += [("random", s, Law(1.0, 0.0, variance), "2+r") for s, variance in random.items()]
    for guess, space, law, passes in rows:
        options = {"guess": guess, "space": space}
        tangents = len(hidden) if space == "module" else 1
        yield _guided(subject, f"{guess}, {space}", t, law, tangents, passes, options)
    law = fixed(np.concatenate(ss), t)
    yield _guided(subject, "local gradient itself", t, law, 1, "2+r", {"target": "local"})


def _guided(subject: Subject, name: str, t: np.ndarray, law: Law, tangents: int, passes: str,
            options: dict[str, Any]) -> Estimate:  # fmt: skip
    fg = dg.guided_gradient(**options)
    return Estimate(
        name, subject.network, lambda net, key: fg(net, subject.x, subject.y, key=key)[1],
        lambda g: [block.block for block in g.blocks[:-1]], t, law, tangents, passes,
    )  # fmt: skip


def local(subject: Subject) -> Iterator[Estimate]:
    """forward_gradient of the local losses, with copies for groups of units."""
    width = subject.network.blocks[0].aux.weight.shape[0]
    wanted = [("weights", width, 1), ("activations", width, 1), ("activations", 8, 1),
              ("activations", 8, 16), ("activations", 1, 1)]  # fmt: skip
    for perturb, size, k in wanted:
        network = subject.replicated(size)
        ts = [flat(b.block) for b in gradient(subject.losses, network).blocks]
        t, h, variance = np.concatenate(ts), subject.x, 0.0
        for block, own in zip(network.blocks, ts, strict=True):
            if perturb == "weights":
                variance += (len(own) - 1) * squares(own)
            else:
                losses = lambda h, head=block.aux: entropies(head(h), subject.y)  # noqa: E731
                variance += scatter(sites([block.block], losses, h, after=False), size=size)
            h = block.block(h)
        fg = dg.forward_gradient(subject.losses, perturb=perturb, directions=k)
        name = perturb if perturb == "weights" else f"groups of {size}, k={k}"
        yield Estimate(
            name, network, lambda net, key, fg=fg: fg(net, key=key)[1],
            lambda g: [block.block for block in g.blocks], t,
            Law(1.0, 0.0, variance / squares(t) / k), k,
        )  # fmt: skip
