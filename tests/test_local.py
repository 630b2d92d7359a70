"""Local losses: every block's derivative is its own, and replicated losses see their own noise."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn
from dualgrad.sections import section

KEY = dg.Key(7)
N, CLASSES, SIGMAS = 5, 3, 5
Y = np.arange(N) % CLASSES


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


X = normal(0, N, 4)


def entropies(logits):
    return nn.cross_entropy(logits, Y, reduction="none")


def linear(n_in, n_out, place, **options):
    return nn.Linear(n_in, n_out, key=KEY.fold_in(place), dtype=np.float64, **options)


def block(n_in, n_out, place):
    layer = nn.Sequential(
        linear(n_in, n_out, place), nn.LayerNorm(n_out, dtype=np.float64), nn.tanh
    )
    return nn.LocalBlock(layer, linear(n_out, CLASSES, 100 + place))


def network():
    return nn.LocalNetwork(block(4, 6, 0), block(6, 5, 1), block(5, 7, 2))


def parameters(tree):
    return {path: np.asarray(x) for path, x in dg.tree.parameters(tree).items()}


def flat(tree):
    """Return the entries of all floating leaves; gradients in factors are multiplied out."""
    leaves = [x for x in dg.tree.leaves(tree) if hasattr(x, "dtype")]
    return np.concatenate([np.ravel(np.asarray(x)) for x in leaves])


def reverse(loss, params):
    """Return the gradient of what a loss, an array or a list, stands for."""
    return dg.gradient(lambda p: dg.objective(loss(p)), mode="reverse")(params)


# --- the estimate from derivatives of each part alone


def masked(directions, i, prefixes):
    """Return direction i with zeros outside the leaves whose paths begin so."""
    leaves, structure = dg.tree.flatten(directions)
    rows = []
    for path, v in zip(dg.tree.paths(directions), leaves, strict=True):
        v = v.dense() if hasattr(v, "dense") else v
        inside = path.startswith(prefixes)
        rows.append(None if v is None else v[i] if inside else np.zeros_like(v[i]))
    return dg.tree.unflatten(structure, rows)


def expected(parts, params, info, clip=np.inf, projection=False):
    """Return sum over parts (function, moved, credited) of derivatives times directions.

    The derivative is that of the function along the directions of the leaves that are moved.
    """
    k = len(info.derivatives)
    total = 0
    for function, moved, credited in parts:
        rows = [masked(info.directions, i, moved) for i in range(k)]
        b = np.stack([flat(masked(info.directions, i, credited)) for i in range(k)], axis=1)
        d = [dg.jvp(lambda p, f=function: dg.objective(f(p)), (params,), (v,))[1] for v in rows]
        d = np.clip(d, -clip, clip)
        total = total + (b @ (np.linalg.pinv(b.T @ b) @ d) if projection else b @ d / k)
    return total


def cosines(tree):
    return dg.tree.map(lambda w: np.cos(w) if hasattr(w, "dtype") else w, tree)


def local(m):
    return lambda net: net.local_losses(X, Y)[m]


def penalty(net):
    return 0.1 * sum(np.sum(w**2) for w in dg.tree.leaves(net) if hasattr(w, "dtype"))


OPTIONS = {
    "one": {},
    "three": {"directions": 3},
    "rank1": {"directions": 3, "structure": "rank1"},
    "normal": {"directions": 2, "distribution": "normal"},
    "chunks": {"directions": 3, "chunk_size": 2},
    "clip": {"directions": 3, "clip": 0.3},
    "projection": {"directions": 3, "combine": "projection"},
    "projection-rank1": {"directions": 3, "combine": "projection", "structure": "rank1"},
    "guess": {"guess": lambda net: cosines(net)},
    "guesses": {"guess": lambda net: [cosines(net), net], "combine": "projection"},
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_block_has_the_derivative_of_its_own_loss(options):
    """One tangent a direction in one pass; the penalty, outside all blocks, moves with all."""
    net = network()
    if "guess" in options:
        options = options | {"guess": options["guess"](net)}
    fg = dg.forward_gradient(
        lambda net: [*net.local_losses(X, Y), penalty(net)], with_info=True, **options
    )
    value, gradient, info = fg(net, key=KEY)
    parts = [(local(m), *2 * (f"blocks/{m}/",)) for m in range(3)] + [(penalty, "", "")]
    want = expected(
        parts, net, info, options.get("clip", np.inf), options.get("combine") == "projection"
    )
    np.testing.assert_allclose(flat(gradient), want, rtol=1e-8, atol=1e-12)
    assert value == sum(np.mean(local(m)(net)) for m in range(3)) + penalty(net)
    first = gradient.blocks[0].block.layers[0].weight
    assert isinstance(first, dg.LowRank) == (options.get("structure") == "rank1")


def nested(p):
    """A block inside a block; its result goes on unstopped, so two levels meet."""
    inner: list = []

    @dataclasses.dataclass(frozen=True)
    class Nest:
        inside: Any
        after: Any

        def __call__(self, x):
            h, loss = self.inside(x, Y)
            inner.append(loss)
            return nn.tanh(self.after(h))

    _, loss = nn.LocalBlock(Nest(p["inside"], p["after"]), p["aux"])(X, Y)
    return [loss, inner[0]]


def residual(p):
    """What a block gives is used outside it, with no gradient stopped, and its loss is added."""
    h, loss = p["block"](X, Y)
    return loss + np.sum((h + nn.linear(h, p["w"])) ** 2, axis=1)


def out_of_order(p):
    """A section inside the first is opened after the second."""
    first = section(p["first"])
    second = section(p["second"])
    inside = section(first["inside"])
    h = np.tanh(nn.linear(X, first["w"])) + np.tanh(nn.linear(X, second))
    return entropies(nn.linear(h, inside))


PROBLEMS = {
    "nested": (
        nested,
        {"inside": block(4, 6, 3), "after": linear(6, 5, 4), "aux": linear(5, CLASSES, 5)},
        [("inside", "inside"), (("after", "aux"), "")],
    ),
    "residual": (residual, {"block": block(4, 6, 8), "w": normal(9, 6, 6)},
                 [("block", "block"), ("w", "")]),
    "out-of-order": (
        out_of_order,
        {"first": {"w": normal(10, 4, 6), "inside": normal(11, 6, 3)}, "second": normal(12, 4, 6)},
        [("first/w", "first"), ("first/inside", "first/inside"), ("second", "second")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", PROBLEMS)
def test_sections_that_meet_without_a_stopped_gradient_are_right(name, k):
    """What moves on a level is credited to all leaves that are on it, used or not."""
    loss, params, sections = PROBLEMS[name]
    fg = dg.forward_gradient(loss, directions=k, with_info=True)
    value, gradient, info = fg(params, key=KEY)
    want = expected([(loss, *each) for each in sections], params, info)
    np.testing.assert_allclose(flat(gradient), want, rtol=1e-8, atol=1e-12)
    assert type(value) is np.float64
    np.testing.assert_allclose(value, dg.objective(loss(params)), rtol=1e-12)


@dataclasses.dataclass(frozen=True)
class Weight:
    """A layer that is one weight."""

    w: Any

    def __call__(self, x):
        return nn.linear(x, self.w, activation="tanh")


def twice(p):
    h, one = p["block"](X, Y)
    return [one, p["block"](h, Y)[1]]


def tied(p):
    one = nn.LocalBlock(Weight(p["w"]), p["a"])
    h, losses = one(X, Y)
    return [losses, nn.LocalBlock(Weight(p["w"]), p["b"])(h, Y)[1]]


SHARED = {
    "twice": (twice, {"block": block(4, 4, 13)}, ["block", "block"]),
    "tied": (
        tied,
        {"w": normal(14, 4, 4), "a": linear(4, CLASSES, 15), "b": linear(4, CLASSES, 16)},
        [("w", "a"), ("w", "b")],
    ),
}


@pytest.mark.parametrize("options", [{}, {"directions": 3}, {"clip": 0.2, "directions": 2}])
@pytest.mark.parametrize("name", SHARED)
def test_shared_weights_get_the_sum_of_what_each_use_gives(name, options):
    loss, params, sections = SHARED[name]
    fg = dg.forward_gradient(loss, with_info=True, **options)
    _, gradient, info = fg(params, key=KEY)
    parts = [(lambda p, m=m: loss(p)[m], leaves, leaves) for m, leaves in enumerate(sections)]
    want = expected(parts, params, info, options.get("clip", np.inf))
    np.testing.assert_allclose(flat(gradient), want, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("perturb", ["weights", "activations"])
def test_nothing_in_one_block_disturbs_another(perturb):
    """Other weights in block 1 change no bit of the others' gradients, where h stays the same."""
    net = network()
    other = nn.LocalNetwork(net.blocks[0], block(6, 5, 50), block(5, 7, 51))
    fg = dg.forward_gradient(lambda net: net.local_losses(X, Y), perturb=perturb, directions=2)
    one, two = fg(net, key=KEY)[1], fg(other, key=KEY)[1]
    np.testing.assert_array_equal(flat(one.blocks[0]), flat(two.blocks[0]))
    assert not np.allclose(flat(one.blocks[1]), flat(two.blocks[1]))


# --- activities


def with_penalty(p):
    return [*p.local_losses(X, Y), penalty(p) * np.ones(N)]


NOISY = {name: (loss, params) for name, (loss, params, _) in (PROBLEMS | SHARED).items()}
NOISY |= {"network": (lambda net: net.local_losses(X, Y), network())}
NOISY |= {"penalty": (with_penalty, network())}


def draws(loss, params, count, **options):
    fg = dg.forward_gradient(loss, perturb="activations", **options)
    return np.stack([flat(fg(params, key=KEY.fold_in(i))[1]) for i in range(count)])


def assert_unbiased(drawn, exact, least=0.25):
    error = np.std(drawn, axis=0) / np.sqrt(len(drawn))
    np.testing.assert_array_less(np.abs(drawn.mean(0) - exact), SIGMAS * error + 1e-9)
    assert np.linalg.norm(error) < least * np.linalg.norm(exact)  # else much would go unnoticed


@pytest.mark.parametrize("name", NOISY)
def test_activity_perturbation_of_blocks_is_unbiased(name):
    loss, params = NOISY[name]
    assert_unbiased(draws(loss, params, 80, directions=20), flat(reverse(loss, params)))


# --- as a function of other transforms


def plainly(b):
    return entropies(b.aux(b.block(X)))


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_outside_a_pass_a_block_is_the_function_with_a_stopped_input(mode):
    b = block(4, 6, 20)
    exact = dg.jvp(plainly, (b,), (cosines(b),))[1]
    push = dg.linearize(lambda b: b(X, Y)[1], b)[1]
    np.testing.assert_allclose(push(cosines(b)), exact, rtol=1e-12)
    h, losses = b(X, Y)
    np.testing.assert_array_equal(h, b.block(X))
    np.testing.assert_array_equal(losses, plainly(b))
    both = dg.gradient(lambda x, b: np.mean(b(x, Y)[1]), (0, 1), mode=mode)(X, b)
    exact = dg.gradient(lambda b: np.mean(plainly(b)), mode=mode)(b)
    np.testing.assert_array_equal(both[0], np.zeros_like(X))
    np.testing.assert_array_equal(flat(both[1]), flat(exact))


def test_the_hessian_of_a_loss_with_a_block_is_that_of_the_function():
    w = normal(22, 4, 3)

    def blocked(w):
        return np.mean(nn.LocalBlock(Weight(w), lambda h: h)(X, Y)[1])

    exact = dg.hessian(lambda w: np.mean(entropies(np.tanh(X @ w))))(w)
    np.testing.assert_allclose(dg.hessian(blocked)(w), exact, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("perturb", ["weights", "activations"])
def test_an_estimate_with_a_block_has_a_derivative(perturb):
    b = block(4, 6, 23)
    v = cosines(b)
    fg = dg.forward_gradient(lambda b: b(X, Y)[1], perturb=perturb, directions=2)

    def at(s):
        moved = dg.tree.map(lambda w, v: w + s * v if hasattr(w, "dtype") else w, b, v)
        return flat(fg(moved, key=KEY)[1])

    _, push = dg.jvp(
        lambda b: [g for g in dg.tree.leaves(fg(b, key=KEY)[1]) if g is not None], (b,), (v,)
    )
    np.testing.assert_allclose(flat(push), (at(1e-5) - at(-1e-5)) / 2e-5, rtol=1e-5, atol=1e-6)


def test_a_derivative_of_a_block_inside_the_loss_is_differentiated():
    b = block(4, 6, 24)
    v = cosines(b)

    def slope(b):
        return dg.jvp(lambda b: b(X, Y)[1], (b,), (v,))[1]

    _, gradient, info = dg.forward_gradient(slope, with_info=True)(b, key=KEY)
    want = expected([(slope, "", "")], b, info)
    assert np.max(np.abs(want)) > 1e-3
    np.testing.assert_allclose(flat(gradient), want, rtol=1e-9)


@pytest.mark.parametrize("perturb", ["weights", "activations"])
@pytest.mark.parametrize("name", ["nested", "residual", "out-of-order"])
def test_aux_loses_the_levels_of_all_sections(name, perturb):
    loss, params, _ = PROBLEMS[name]

    def with_aux(p):
        losses = loss(p)
        return losses, {"losses": losses, "note": "kept"}

    fg = dg.forward_gradient(with_aux, has_aux=True, perturb=perturb)
    (_, aux), _ = fg(params, key=KEY)
    for got, want in zip(dg.tree.leaves(aux["losses"]), dg.tree.leaves(loss(params)), strict=True):
        assert type(got) is np.ndarray
        np.testing.assert_allclose(got, want, rtol=1e-12)
    assert aux["note"] == "kept"


@pytest.mark.parametrize("perturb", ["weights", "activations"])
def test_an_exception_closes_the_levels_of_all_sections(perturb):
    kept = []

    def loss(net):
        kept.extend([*net.local_losses(X, Y), penalty(net)])
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        dg.forward_gradient(loss, perturb=perturb)(network(), key=KEY)
    assert len({x.level for x in kept}) == 4
    for x in kept:
        with pytest.raises(dg.LevelError, match=r"dg\.forward_gradient that has returned"):
            x + 1


@pytest.mark.parametrize("perturb", ["weights", "activations"])
def test_threads_do_not_share_sections(perturb):
    barrier = threading.Barrier(2, timeout=20)

    def loss(net, wait):
        h, found = X, []
        for b in net.blocks:
            wait()
            h, losses = b(h, Y)
            found.append(losses)
        return found

    fg = dg.forward_gradient(loss, perturb=perturb, directions=2)
    nets = [network(), dg.tree.map(lambda w: w * 1.1 if hasattr(w, "dtype") else w, network())]
    alone = [flat(fg(net, lambda: None, key=KEY)[1]) for net in nets]
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda net: flat(fg(net, barrier.wait, key=KEY)[1]), nets))
    for one, other in zip(alone, both, strict=True):
        np.testing.assert_array_equal(one, other)


# --- parts and errors


def test_local_networks_average_their_heads_and_end_with_their_loss():
    net = network()
    np.testing.assert_allclose(net.local_losses(X, Y)[-1], entropies(net(X)), rtol=1e-12)
    h, logs = X, []
    for b in net.blocks:
        h = b.block(h)
        z = b.aux(h)
        logs.append(z - np.log(np.sum(np.exp(z), axis=1, keepdims=True)))
    np.testing.assert_allclose(net.average(X), np.mean(logs, axis=0), rtol=1e-10)


def test_a_stateful_block_asks_for_its_state():
    layer = nn.Sequential(linear(4, 6, 30), nn.BatchNorm(6, dtype=np.float64))
    net = nn.LocalNetwork(nn.LocalBlock(layer, linear(6, CLASSES, 31)), block(6, 5, 32))
    with pytest.raises(dg.OptionError, match=r"state is missing.*network.init_state"):
        net.local_losses(X, Y)
    state = net.init_state()
    losses, new = net.local_losses(X, Y, state)
    assert len(losses) == 2 and set(new) == set(state) == {"0"}
    z = layer.layers[0](X)
    want = 0.1 * np.mean(z, axis=0)
    np.testing.assert_allclose(new["0"]["block"]["1"]["mean"], want, rtol=1e-10)


def test_local_losses_have_a_derivative_each_and_no_scale_of_one_block():
    """mean(d^2) / |g|^2 holds for one derivative: of a block alone, not of the sum over blocks."""
    net, k = nn.LocalNetwork(block(4, 6, 0), block(6, 5, 1)), 2
    fg = dg.forward_gradient(lambda net: net.local_losses(X, Y), directions=k, with_info=True)
    _, g, info = fg(net, key=KEY)
    assert info.derivatives.shape == (k, 2)
    for m in range(2):
        for i in range(k):
            v = masked(info.directions, i, f"blocks/{m}/")
            d = dg.jvp(lambda n, m=m: np.mean(local(m)(n)), (net,), (v,))[1]
            np.testing.assert_allclose(info.derivatives[i, m], d, rtol=1e-9)
    with pytest.raises(dg.ShapeError, match=r"\(2, 2\), not \(k,\).*one block alone"):
        dg.directions.estimated_scale(info.derivatives, g)
    fg = dg.forward_gradient(lambda b: b(X, Y)[1], directions=k, with_info=True)
    _, g, info = fg(net.blocks[0], key=KEY)
    t = flat(reverse(lambda b: b(X, Y)[1], net.blocks[0]))
    c = dg.directions.estimated_scale(info.derivatives, g)
    np.testing.assert_allclose(c, flat(g) @ t / (flat(g) @ flat(g)), rtol=1e-9)


@pytest.mark.parametrize("blocks", [(), (linear(4, 4, 0),), ([block(4, 4, 0)],)])
def test_a_local_network_is_made_of_blocks(blocks):
    with pytest.raises(dg.OptionError, match="give LocalBlocks, one by one"):
        nn.LocalNetwork(*blocks)
