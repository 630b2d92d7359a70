"""LocalMixer and the grouped linear layer it is made of."""

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn, tree
from dualgrad.errors import OptionError, ShapeError
from dualgrad.nn.mixer import MixerBlock, Patches
from dualgrad.random import Key
from dualgrad.sections import objective

KEY = Key(3)
DOUBLE = {"key": KEY, "dtype": np.float64}


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


# --- grouped linear


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("before", [(5,), (2, 3), ()])
def test_grouped_linear_is_linear_with_a_block_diagonal_matrix(before, activation):
    w, b, x = normal(0, 3, 2, 4), normal(1, 12), normal(2, *before, 6)
    whole = np.zeros((6, 12))
    for g in range(3):
        whole[2 * g : 2 * g + 2, 4 * g : 4 * g + 4] = w[g]
    y = nn.grouped_linear(x, w, b, activation=activation)
    z = x @ whole + b
    np.testing.assert_allclose(y, z * (z > 0) if activation else z, rtol=1e-12)


def test_the_derivatives_of_grouped_linear():
    layer = nn.GroupedLinear(6, 9, groups=3, activation="tanh", **DOUBLE)
    x, tx = normal(0, 4, 2, 6), normal(1, 4, 2, 6)
    direction = nn.GroupedLinear(6, 9, groups=3, activation="tanh", key=Key(9), dtype=np.float64)
    _, dy = dg.jvp(lambda m, x: m(x), (layer, x), (direction, tx))
    h = 1e-6
    ahead, behind = (tree.map(lambda w, v, s=s: w + s * v, layer, direction) for s in (h, -h))
    np.testing.assert_allclose(dy, (ahead(x + h * tx) - behind(x - h * tx)) / (2 * h), atol=1e-8)
    ct = normal(2, 4, 2, 9)
    _, back = dg.vjp(lambda m, x: m(x), layer, x)
    found, x_ct = back(ct)
    np.testing.assert_allclose(
        np.sum(ct * dy),
        np.sum(x_ct * tx) + sum(np.sum(a * b) for a, b in zip(
            tree.leaves(found), tree.leaves(direction), strict=True)),
    )  # fmt: skip


def test_grouped_linear_is_a_site_with_the_exact_gradient_of_independent_units():
    # One output a unit's loss: +-1 noise squared is 1, and units do not meet in the same entry.
    w, b, x = normal(0, 3, 2, 1), normal(1, 3), normal(2, 5, 6)
    target = normal(3, 5, 3)

    def losses(p):
        z = nn.grouped_linear(x, *p)
        return [np.square(z[:, i] - target[:, i]) for i in range(3)]

    exact = dg.gradient(lambda p: objective(losses(p)), mode="reverse")((w, b))
    many = dg.forward_gradient(losses, perturb="activations", directions=20_000)
    _, found = many((w, b), key=KEY)
    for a, e in zip(found, exact, strict=True):
        np.testing.assert_allclose(a, e, rtol=0.05, atol=0.03)


# --- the network


@pytest.mark.parametrize(
    "name, count",
    [("S/1/1", 271_892), ("M/1/16", 429_076), ("M/8/16", 918_770), ("L/8/64", 13_074_674)],
)
def test_local_mixers_have_their_published_sizes(name, count):
    network = nn.LocalMixer(name, key=KEY)
    assert nn.parameter_count(network) == count
    if count < 1_000_000:
        x = np.zeros((1, *network.blocks[0].block.layers[0].image), np.float32)
        assert network(x).shape == (1, 10)


def test_patches_are_cut_row_by_row_and_channels_come_last():
    x = np.random.default_rng(0).random((2, 4, 6, 3))
    mean, std = (0.1, 0.2, 0.3), (1.0, 2.0, 4.0)
    found = Patches((4, 6, 3), 2, mean, std)(x)
    assert found.shape == (2, 4, 2 * 3 * 3)
    for n, p, q, h, w, c in np.ndindex(2, 2, 2, 2, 3, 3):
        pixel = (x[n, 2 * p + h, 3 * q + w, c] - mean[c]) / std[c]
        assert found[n, 2 * p + q, (h * 3 + w) * 3 + c] == pytest.approx(pixel, rel=1e-12)


def small(**options):
    """Return a network of 4 patches and 2 groups with no parameter zero, and a batch."""
    sizes = {"patches": 2, "channels": 8, "groups": 2, "blocks": 2, **options}
    network = nn.LocalMixer(image=(4, 4, 3), classes=3, **sizes, **DOUBLE)
    rng = np.random.default_rng(1)
    network = tree.map(
        lambda a: a + (0.5 * rng.standard_normal(a.shape) if not a.any() else 0), network
    )
    return network, rng.random((3, 4, 4, 3)), np.array([0, 2, 1])


def layer_norm(x, axis=-1):
    return (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + 1e-5)


def group_norm(x, groups):
    return layer_norm(x.reshape(*x.shape[:-1], groups, -1)).reshape(x.shape)


def rectified(x):
    return np.where(x > 0, x, 0)


def test_local_mixer_is_its_definition_in_plain_numpy():
    network, x, _ = small()
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    h = ((x - mean) / std).reshape(3, 2, 2, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(3, 4, 12)
    for place in range(2):
        block = network.blocks[place].block
        block = block if place else block.layers[1]
        before, h = h, layer_norm(h)
        if place:
            t = np.einsum("npc,pq->ncq", h, block.tokens.weight) + block.tokens.bias
            h = layer_norm(rectified(layer_norm(t, 1)).transpose(0, 2, 1))
        h = rectified(group_norm(h @ block.dense.weight + block.dense.bias, 2))
        cut = h.reshape(3, 4, 2, 4)
        h = np.einsum("npgc,gcd->npgd", cut, block.grouped.weight).reshape(3, 4, 8)
        h = group_norm(h + block.grouped.bias, 2)
        h = rectified(h + before if place else h)
    head = network.blocks[2].aux
    expected = layer_norm(h).mean(1) @ head.weight + head.bias
    np.testing.assert_allclose(network(x), expected, rtol=1e-10)


def test_there_is_a_loss_after_each_block_and_one_of_the_read_out():
    network, x, y = small(blocks=3)
    losses = network.local_losses(x, y)
    assert [tuple(part.shape for part in pair) for pair in losses] == [
        *[((3, 4, 2), (3, 3))] * 3,
        ((3, 4, 1), (3, 3)),
    ]
    logits = network(x)
    chosen = np.log(np.exp(logits).sum(1)) - logits[np.arange(3), y]
    np.testing.assert_allclose(objective(losses[-1]), chosen.mean(), rtol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_do_not_meet_after_the_dense_layer_nor_places_after_the_token_layer(groups):
    block = MixerBlock(8, 8, groups=groups, places=4, **DOUBLE)
    x = normal(0, 3, 4, 8)
    for layer in ("dense", "grouped"):
        tangent = tree.map(np.zeros_like, block)
        getattr(tangent, layer).bias[: 8 // groups] = normal(1, 8 // groups)
        _, dy = dg.jvp(lambda b: b(x), (block,), (tangent,))
        moved = np.abs(dy).reshape(3, 4, groups, -1).max((0, 1, 3))
        assert moved[0] > 0 and np.all(moved[1:] == 0)
    tangent = tree.map(np.zeros_like, block)
    tangent.tokens.weight[:, 1] = normal(2, 4)  # what place 1 takes from all places
    _, dy = dg.jvp(lambda b: b(x), (block,), (tangent,))
    moved = np.abs(dy).max((0, 2))
    assert moved[1] > 0 and np.all(moved[[0, 2, 3]] == 0)


@pytest.mark.parametrize("groups", [2, 4])
def test_activity_perturbation_of_the_local_losses_is_unbiased(groups):
    network, x, y = small(groups=groups, channels=4 * groups)
    exact = dg.gradient(lambda n: objective(n.local_losses(x, y)), mode="reverse")(network)
    estimate = dg.forward_gradient(
        lambda n, x, y: n.local_losses(x, y), perturb="activations", directions=400
    )
    runs = [tree.leaves(estimate(network, x, y, key=KEY.fold_in(i))[1]) for i in range(30)]
    for path, e, *found in zip(tree.paths(network), tree.leaves(exact), *runs, strict=True):
        found = np.array([np.asarray(g) for g in found])
        error = found.std(0, ddof=1) / np.sqrt(len(found))
        difference = np.abs(found.mean(0) - e)
        if "/aux/" in path:  # each logit is a group of its own: exact
            np.testing.assert_allclose(found, e[None].repeat(30, 0), rtol=1e-9, atol=1e-12)
            continue
        assert np.all(difference <= 5 * error + 1e-12), path
        # Not only because the standard errors are large: half of the gradient would show.
        if not path.endswith("tokens/bias"):
            assert np.linalg.norm(error) < 0.5 * np.linalg.norm(e), path
            assert np.mean(np.square(difference / error)) < 3, path


def test_the_bias_of_token_mixing_has_no_effect():
    network, x, y = small()
    exact = dg.gradient(lambda n: objective(n.local_losses(x, y)), mode="reverse")(network)
    np.testing.assert_allclose(exact.blocks[1].block.tokens.bias, 0, atol=1e-12)


def test_groups_of_one_unit_need_one_direction_only():
    # A group of one channel would be normalised away, so this block has no normalisation.
    layer = nn.GroupedLinear(6, 6, groups=6, activation="relu", **DOUBLE)
    head = nn.ReplicatedHead(6, 3, groups=6, dtype=np.float64)
    head.weight[...] = normal(0, 6, 3)
    network = nn.LocalNetwork(nn.LocalBlock(layer, head))
    x, y = normal(1, 5, 4, 6), np.arange(5) % 3
    exact = dg.gradient(lambda n: objective(n.local_losses(x, y)), mode="reverse")(network)
    estimate = dg.forward_gradient(lambda n: n.local_losses(x, y), perturb="activations")
    _, found = estimate(network, key=KEY)
    for g, e in zip(tree.leaves(found), tree.leaves(exact), strict=True):
        np.testing.assert_allclose(np.asarray(g), e, rtol=1e-10, atol=1e-14)


# --- what is refused


@pytest.mark.parametrize(
    "args, options, words",
    [
        (("M/8/17",), {}, "'M/8/17'"),
        ((), {"patches": 2, "channels": 8}, "groups, blocks missing"),
        (("S/1/1",), {"patches": 3}, "3 patches a side do not divide"),
        (("S/1/1",), {"groups": 3}, "3 groups do not divide"),
        (("S/1/1",), {"groups": 128}, "groups of 2 channels"),
        (("S/1/1",), {"mean": (0.1, 0.2)}, "one number a channel"),
        (("S/1/1",), {"image": (28, 28, 2)}, "mean is None"),
        (("S/1/1",), {"image": (28, 28)}, "(height, width, channels)"),
        (("S/1/1",), {"blocks": 0}, "at least 1"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(args, options, words):
    with pytest.raises(OptionError) as error:
        nn.LocalMixer(*args, **options, key=KEY)
    assert words in str(error.value)


def test_a_shape_that_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match=r"images of shape \(28, 28, 1\)"):
        nn.LocalMixer("S/1/1", key=KEY)(np.zeros((2, 784)))
    with pytest.raises(ShapeError, match=r"grouped_linear: x \(5, 6\) and w \(2, 2, 3\)"):
        nn.grouped_linear(normal(0, 5, 6), normal(1, 2, 2, 3))
    with pytest.raises(ShapeError, match=r"b has shape \(3,\)"):
        nn.grouped_linear(normal(0, 5, 6), normal(1, 2, 3, 3), normal(2, 3))
