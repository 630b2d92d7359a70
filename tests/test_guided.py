"""Guided gradients against projections of true gradients, found by reverse mode."""

import tracemalloc

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn

N, CLASSES = 5, 3
KEY = dg.Key(3)
Y = np.arange(N) % CLASSES


def layer(n_in, n_out, place, norm=nn.LayerNorm):
    linear = nn.Linear(n_in, n_out, key=KEY.fold_in(place), dtype=np.float64)
    return nn.Sequential(linear, norm(n_out, dtype=np.float64), nn.tanh)


def head(n_in, place):
    return nn.Linear(n_in, CLASSES, key=KEY.fold_in(100 + place), dtype=np.float64)


def network(norm=nn.LayerNorm):
    sizes = [4, 6, 5, 7]
    return nn.LocalNetwork(
        *(
            nn.LocalBlock(layer(a, b, i, norm), head(b, i))
            for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False))
        )
    )


X = dg.random.normal(KEY.fold_in("x"), (N, 4), dtype=np.float64)


def flat(tree):
    return np.concatenate([np.ravel(x) for x in dg.tree.leaves(tree) if x is not None])


def mean_gradient(f, *primals):
    """Return the gradients of the mean of f, by reverse mode."""
    chosen = tuple(range(len(primals)))
    return dg.gradient(lambda *args: np.mean(f(*args)), chosen, mode="reverse")(*primals)


def cross_entropy(logits):
    return nn.cross_entropy(logits, Y, reduction="none")


def values(net):
    """Return the input of each block, and that of the last one's head."""
    found = [X]
    for block in net.blocks:
        found.append(block.block(found[-1]))
    return found


def rest(net, first):
    """Return the network's losses as a function of block `first`'s input."""

    def losses(h):
        for block in net.blocks[first:]:
            h = block.block(h)
        return cross_entropy(net.blocks[-1].aux(h))

    return losses


def local(net, m):
    return lambda h: cross_entropy(net.blocks[m].aux(h))


def following(net, m):
    return lambda h: local(net, m + 1)(net.blocks[m + 1].block(h))


def redrawn(net, m, key):
    aux = nn.blocks.redrawn(net.blocks[m].aux, key.fold_in("ntk").fold_in(m))
    return lambda h: cross_entropy(aux(h))


def target_parts(net, target, m):
    """Return the functions of block m's result whose gradients the target projects."""
    whole, own, after = rest(net, m + 1), local(net, m), following(net, m)
    return {"global": [whole], "local": [own], "intermediate": [after], "sum": [whole, own]}[target]


def guess_of(net, guess, m, key):
    return {
        "local": lambda: local(net, m),
        "intermediate": lambda: following(net, m),
        "ntk": lambda: redrawn(net, m, key),
        "fixed-ntk": lambda: redrawn(net, m, dg.Key(0)),
    }[guess]()


GRID = [(t, g) for t in nn.guided.TARGETS for g in nn.guided.GUESSES if g != "random"]


@pytest.mark.parametrize("target, guess", GRID)
def test_scalars_of_examples_are_projections_of_true_gradients(target, guess):
    net, key = network(), dg.Key(11)
    h = values(net)
    blocks = range(len(net.blocks) - 1)
    s = [N * mean_gradient(guess_of(net, guess, m, key), h[m + 1])[0] for m in blocks]
    squares = sum(np.sum(each**2, axis=1) for each in s)
    scale = [np.zeros(N) for _ in blocks]
    whole = np.zeros(N)
    for m in blocks:
        for part, function in enumerate(target_parts(net, target, m)):
            t = N * mean_gradient(function, h[m + 1])[0]
            inner = np.sum(t * s[m], axis=1)
            if target in ("global", "sum") and part == 0:
                whole += inner / squares
            else:
                scale[m] += inner / np.sum(s[m] ** 2, axis=1)
    value, g = nn.guided_gradient(target=target, guess=guess, space="activation")(
        net, X, Y, key=key
    )
    for m in blocks:
        cotangent = (whole + scale[m])[:, None] * s[m] / N
        _, pull = dg.vjp(lambda b, m=m: b(h[m]), net.blocks[m].block)
        np.testing.assert_allclose(flat(g.blocks[m].block), flat(pull(cotangent)), rtol=1e-9)
    assert_heads_and_last_block_are_exact(net, g, value)


def assert_heads_and_last_block_are_exact(net, g, value):
    h = values(net)
    for m in range(len(net.blocks) - 1):
        (exact,) = mean_gradient(lambda aux, m=m: cross_entropy(aux(h[m + 1])), net.blocks[m].aux)
        np.testing.assert_allclose(flat(g.blocks[m].aux), flat(exact), rtol=1e-9, atol=1e-14)
    (exact,) = mean_gradient(lambda b: cross_entropy(b.aux(b.block(h[-2]))), net.blocks[-1])
    np.testing.assert_allclose(flat(g.blocks[-1]), flat(exact), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(value, np.mean(cross_entropy(net(X))), rtol=1e-12)


def weight_functions(net, target, m):
    """Return the losses as functions of block m alone."""
    h = values(net)
    return [
        lambda b, function=function: function(b(h[m])) for function in target_parts(net, target, m)
    ]


@pytest.mark.parametrize("space", ["weight", "module"])
@pytest.mark.parametrize("target, guess", GRID)
def test_scalars_of_weights_are_projections_of_true_gradients(target, guess, space):
    net, key = network(), dg.Key(11)
    h = values(net)
    blocks = range(len(net.blocks) - 1)
    s, t = [], []
    for m in blocks:
        guessed = guess_of(net, guess, m, key)
        (found,) = mean_gradient(lambda b, m=m, f=guessed: f(b(h[m])), net.blocks[m].block)
        s.append(flat(found))
        t.append(
            sum(
                flat(mean_gradient(f, net.blocks[m].block)[0])
                for f in weight_functions(net, target, m)
            )
        )
    value, g = nn.guided_gradient(target=target, guess=guess, space=space)(net, X, Y, key=key)
    common = sum(a @ b for a, b in zip(t, s, strict=True)) / sum(b @ b for b in s)
    for m in blocks:
        scalar = common if space == "weight" else t[m] @ s[m] / (s[m] @ s[m])
        np.testing.assert_allclose(flat(g.blocks[m].block), scalar * s[m], rtol=1e-8, atol=1e-14)
    assert_heads_and_last_block_are_exact(net, g, value)


@pytest.mark.parametrize("space", nn.guided.SPACES)
def test_random_guesses_are_unbiased(space):
    net = network()
    fg = nn.guided_gradient(guess="random", space=space)
    draws = np.stack([flat(fg(net, X, Y, key=dg.Key(i))[1].blocks[0].block) for i in range(600)])
    (exact,) = mean_gradient(lambda n: cross_entropy(n(X)), net)
    error = np.mean(draws, axis=0) - flat(exact.blocks[0].block)
    assert np.all(np.abs(error) < 5 * np.std(draws, axis=0) / np.sqrt(len(draws)) + 1e-12)
    assert np.linalg.norm(error) < 0.7 * np.linalg.norm(flat(exact.blocks[0].block))


def test_behind_batch_statistics_the_scalar_is_the_effect_of_all_guesses():
    """One jvp then gives sum_m <dl_n/da_m, s_m>, which is not <t_n, s_n>."""
    net = network(nn.BatchNorm)
    state = net.init_state()
    fg = nn.guided_gradient(space="activation", has_state=True)
    (_, new), g = fg(net, state, X, Y, key=dg.Key(0))
    assert set(new) == set(state)

    def run(m, b, h):
        return b(h, state[str(m)]["block"])[0]

    h = [X]
    for m, block in enumerate(net.blocks):
        h.append(run(m, block.block, h[-1]))
    s = [N * mean_gradient(local(net, m), h[m + 1])[0] for m in range(2)]

    def losses(*moves):
        x = X
        for m, block in enumerate(net.blocks):
            x = run(m, block.block, x) + (moves[m] if m < 2 else 0)
        return cross_entropy(net.blocks[-1].aux(x))

    zeros = tuple(np.zeros_like(each) for each in s)
    _, d = dg.jvp(losses, zeros, tuple(s))
    whole = dg.jacobian(losses, (0, 1))(*zeros)  # (N, N, units): how each example moves each loss
    effect = sum(np.einsum("nmu,mu->n", j, each) for j, each in zip(whole, s, strict=True))
    np.testing.assert_allclose(d, effect, rtol=1e-9)
    alone = sum(
        N * np.sum(np.mean(j, axis=0) * each, axis=1) for j, each in zip(whole, s, strict=True)
    )
    assert np.max(np.abs(d - alone)) > 1e-3
    scale = d / sum(np.sum(each**2, axis=1) for each in s)
    _, pull = dg.vjp(lambda b: run(0, b, X), net.blocks[0].block)
    np.testing.assert_allclose(
        flat(g.blocks[0].block), flat(pull(scale[:, None] * s[0] / N)), rtol=1e-8, atol=1e-13
    )


def test_local_gradients_are_a_guess_of_forward_gradient():
    net = network()

    def loss(net, x, y):
        return nn.cross_entropy(net(x), y, reduction="none")

    fg = dg.forward_gradient(
        loss, guess=dg.local_gradients(net), combine="projection", with_info=True
    )
    _, g, info = fg(net, X, Y, key=KEY)
    (exact,) = mean_gradient(lambda n: cross_entropy(n(X)), net)
    s = flat(dg.local_gradients()(net, X, Y, key=KEY))
    (own,) = mean_gradient(lambda n: sum(n.local_losses(X, Y)), net)
    np.testing.assert_allclose(s, flat(own), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(info.derivatives, [flat(exact) @ s], rtol=1e-9)
    np.testing.assert_allclose(flat(g), flat(exact) @ s / (s @ s) * s, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("space", nn.guided.SPACES)
def test_fixed_heads_come_from_the_head_key_whatever_the_step_s(space):
    """Equal in all steps of a run, and others in another run."""

    def estimate(key, **options):
        fg = dg.guided_gradient(guess="fixed-ntk", space=space, **options)
        return flat(fg(network(), X, Y, key=key)[1])

    one, two = dg.Key(1), dg.Key(2)
    np.testing.assert_array_equal(estimate(one), estimate(two))
    mine = estimate(one, head_key=two)
    np.testing.assert_array_equal(mine, estimate(two, head_key=two))
    assert not np.allclose(mine, estimate(one))
    with pytest.raises(dg.OptionError, match="head_key: key=3"):
        dg.guided_gradient(head_key=3)


@pytest.mark.parametrize(
    "options", [{"target": "far"}, {"guess": "best"}, {"space": "time"}, {"clip": 0}]
)
def test_unknown_options_are_refused(options):
    with pytest.raises(dg.OptionError, match=next(iter(options))):
        nn.guided_gradient(**options)


def test_what_is_no_local_network_is_refused():
    with pytest.raises(dg.OptionError, match="LocalNetwork of two blocks"):
        nn.guided_gradient()(nn.MLP([4, 3]), X, Y, key=KEY)
    with pytest.raises(dg.OptionError, match="has_state=False"):
        nn.guided_gradient()(network(), {}, X, Y, key=KEY)


@pytest.mark.parametrize("perturb", ["weights", "activations"])
def test_a_block_inside_another_transform_keeps_its_derivative(perturb):
    """That transform opens its level before the block's section, and returns before it."""
    block = network().blocks[0]

    def loss(b):
        return dg.jvp(lambda t: b(X, Y)[1] * t**2, (1.5,), (1.0,))[1]

    (exact,) = mean_gradient(lambda b: 3 * b(X, Y)[1], block)
    fg = dg.forward_gradient(loss, perturb=perturb, directions=40)
    draws = np.stack([flat(fg(block, key=dg.Key(i))[1]) for i in range(60)])
    error = np.mean(draws, axis=0) - flat(exact)
    assert np.all(np.abs(error) < 5 * np.std(draws, axis=0) / np.sqrt(len(draws)) + 1e-12)
    assert np.linalg.norm(error) < 0.5 * np.linalg.norm(flat(exact))


def test_random_guesses_by_block_are_the_directions_of_forward_gradient():
    net = network()

    def loss(parts):
        h = X
        for part in parts:
            h = part(h)
        return rest(net, len(parts))(h)

    parts = [block.block for block in net.blocks[:-1]]
    _, expected = dg.forward_gradient(loss, scope="module")(parts, key=KEY)
    _, g = nn.guided_gradient(guess="random", space="module")(net, X, Y, key=KEY)
    found = [block.block for block in g.blocks[:-1]]
    np.testing.assert_allclose(flat(found), flat(expected), rtol=1e-9)


@pytest.mark.parametrize("space", ["weight", "activation"])
def test_a_network_four_times_as_deep_takes_no_more_memory(space):
    width, examples = 8, 4000
    x = dg.random.normal(KEY, (examples, width), np.float64)
    labels = np.arange(examples) % CLASSES
    fg, peaks = nn.guided_gradient(space=space), []
    for depth in (4, 16):
        blocks = [nn.LocalBlock(layer(width, width, m), head(width, m)) for m in range(depth)]
        net = nn.LocalNetwork(*blocks)
        fg(net, x, labels, key=KEY)  # what is loaded once
        tracemalloc.start()
        fg(net, x, labels, key=KEY)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 2 * x.nbytes  # not twelve results of blocks
