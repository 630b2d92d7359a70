"""ResNet-18 in blocks, its auxiliary heads, and what they cost."""

import functools

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn, tree
from dualgrad.errors import OptionError, ShapeError
from dualgrad.random import Key

KEY = Key(0)
SMALL = {"width": 1 / 16, "key": KEY, "dtype": np.float64}  # 4 to 32 channels
IMAGES = np.random.default_rng(0).standard_normal((3, 8, 8, 3))
LABELS = np.array([1, 0, 4])


def small(**options):
    """Return a small network whose scales and shifts are not all ones and zeros, and a state."""
    rng = np.random.default_rng(5)

    def moved(leaf):
        return leaf + 0.1 * rng.standard_normal(leaf.shape) if np.ndim(leaf) == 1 else leaf

    network = tree.map(moved, nn.ResNet18(classes=5, **SMALL, **options))
    state = tree.map(lambda leaf: leaf + 0.1 * rng.random(leaf.shape), network.init_state())
    return network, state


# --- a network in plain NumPy


def convolution(layer, x):
    w, stride = layer.weight, layer.stride[0]
    size = w.shape[0]
    around = size // 2
    padded = np.pad(x, ((0, 0), (around, around), (around, around), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return np.einsum("nyxcij,ijco->nyxo", windows[:, ::stride, ::stride], w)


def batch_norm(layer, x, state, training):
    axes = tuple(range(x.ndim - 1))
    mean, variance = state["mean"], state["variance"]
    new = state
    if training:
        mean, variance = x.mean(axes), x.var(axes)
        unbiased = x.var(axes, ddof=1)
        new = {
            "mean": 0.9 * state["mean"] + 0.1 * mean,
            "variance": 0.9 * state["variance"] + 0.1 * unbiased,
        }
    return (x - mean) / np.sqrt(variance + 1e-5) * layer.scale + layer.shift, new


def rectified(x):
    return np.where(x > 0, x, 0)


def two_layers(conv, norm, x, state, training):
    return batch_norm(norm, convolution(conv, x), state, training)


def residual_block(layer, x, state, training):
    (c1, n1, _, c2, n2), shortcut = layer.layers[0].layers, layer.layers[1].layers
    h, new1 = two_layers(c1, n1, x, state["0"]["1"], training)
    h, new2 = two_layers(c2, n2, rectified(h), state["0"]["4"], training)
    new = {"0": {"1": new1, "4": new2}}
    if shortcut:
        x, new_shortcut = two_layers(*shortcut, x, state["1"]["1"], training)
        new["1"] = {"1": new_shortcut}
    return rectified(h + x), new


def oracle(network, x, state, training):
    """Return logits and the new state of a network of 8 blocks, without dualgrad's functions."""
    new = {place: dict(of) for place, of in state.items()}
    for place, block in enumerate(network.blocks):
        *stem, residual = block.block.layers
        of = state[str(place)]["block"]
        new[str(place)]["block"] = changed = {}
        if stem:
            conv, norm, _ = stem
            x, changed["1"] = two_layers(conv, norm, x, of["1"], training)
            x = rectified(x)
        at = str(len(stem))
        x, changed[at] = residual_block(residual, x, of[at], training)
    norm, _, linear = network.blocks[-1].aux.layers
    x, head = batch_norm(norm, x, state["7"]["aux"]["0"], training)
    new["7"]["aux"] = {"0": head}
    return x.mean((1, 2)) @ linear.weight + linear.bias, new


@pytest.mark.parametrize("training", [True, False])
def test_resnet_is_its_definition_in_plain_numpy(training):
    network, state = small(aux="linear")
    y, new = network(IMAGES, state, training=training)
    expected, expected_new = oracle(network, IMAGES, state, training)
    assert np.ptp(expected, axis=0).min() > 0.01  # not all units are off
    np.testing.assert_allclose(y, expected, rtol=1e-10)
    tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), new, expected_new)


# --- sizes


def plain_count(width):
    """Return the parameters of the plain network from its table of layers."""
    sizes = [round(c * width) for c in (64, 64, 128, 128, 256, 256, 512, 512)]
    total, before = 27 * sizes[0] + 2 * sizes[0], sizes[0]
    for c in sizes:
        total += 9 * before * c + 9 * c * c + 4 * c
        total += before * c + 2 * c if c != before else 0
        before = c
    return total + 2 * before + 10 * before + 10


def test_resnet_has_its_published_number_of_parameters():
    # 11,173,962 is what the same network has without the normalisation before its average.
    assert nn.parameter_count(nn.ResNet18(aux=None, key=KEY)) == 11_173_962 + 2 * 512
    for width in (1, 1 / 4):
        counted = nn.parameter_count(nn.ResNet18(aux=None, width=width, key=KEY))
        assert counted == plain_count(width)


def test_channels_are_rounded_and_at_least_four():
    network = nn.ResNet18(aux=None, width=0.02, channels=1, key=KEY)  # 1.3, 2.6, 5.1, 10.2
    head = network.blocks[0].aux.layers[2]
    assert head.weight.shape == (10, 10)
    assert {f"{leaf.dtype}" for leaf in tree.leaves(network) if tree.is_floating(leaf)} == {
        "float32"
    }
    assert network(np.zeros((2, 8, 8, 1), np.float32), network.init_state())[0].shape == (2, 10)


def test_sixteen_blocks_hold_one_convolution_each():
    network = nn.ResNet18(aux="cnn", blocks=16, **SMALL)
    counts = [
        sum(type(layer) is nn.Conv2d for layer in block.block.layers) for block in network.blocks
    ]
    assert counts == [2, *[1] * 15]  # the stem belongs to the first
    hidden = [block.aux.layers[0].weight.shape[-1] for block in network.blocks[:-1]]
    assert hidden == [4] * 15
    y, state = network(IMAGES, network.init_state())
    assert y.shape == (3, 10) and tree.flatten(state)[1] == tree.flatten(network.init_state())[1]


def test_blocks_are_drawn_the_same_whatever_the_heads():
    state = nn.ResNet18(aux=None, **SMALL).init_state()
    expected, _ = nn.ResNet18(aux=None, **SMALL)(IMAGES, state)
    for aux in ("cnn", "mlp", "linear"):
        network = nn.ResNet18(aux=aux, **SMALL)
        y, _ = network(IMAGES, network.init_state())
        np.testing.assert_array_equal(y, expected)


@functools.cache
def costs(blocks, width):
    """Return the multiply-adds of each block, and the shape of its result."""
    network = nn.ResNet18(aux="linear", blocks=blocks, width=width, key=KEY)
    found, shape = [], (32, 32, 3)
    for place, block in enumerate(network.blocks):
        level = place // (blocks // 4)  # sizes change at every second residual block
        after = (32 >> level, 32 >> level, round(64 * width) << level)
        found.append((nn.flops(block.block, shape), after))
        shape = after
    return found


@pytest.mark.parametrize("blocks", [8, 16])
@pytest.mark.parametrize("width", [1, 1 / 4])
@pytest.mark.parametrize("aux", ["cnn", "mlp", "linear"])
def test_an_auxiliary_head_costs_under_a_tenth_of_its_block(aux, width, blocks):
    network = nn.ResNet18(aux=aux, blocks=blocks, width=width, key=KEY)
    shares = [
        nn.flops(block.aux, shape) / cost
        for block, (cost, shape) in zip(network.blocks[:-1], costs(blocks, width), strict=False)
    ]
    print(f"{aux} heads, {blocks} blocks, width {width}: {', '.join(f'{s:.1%}' for s in shares)}")
    assert 0 < max(shares) < 0.1


def test_flops_are_the_products_of_the_layers():
    network = nn.ResNet18(aux="cnn", key=KEY)
    first, third = network.blocks[0], network.blocks[2]
    assert nn.flops(first.block, (32, 32, 3)) == 32 * 32 * 9 * 64 * (3 + 64 + 64)
    shortcut, body = 64 * 128, 9 * 128 * (64 + 128)
    assert nn.flops(third.block, (32, 32, 64)) == 16 * 16 * (shortcut + body)
    head = 1024 * 64 * 32 + (256 + 64 + 16) * 9 * 32 * 32 + 4 * 32 * 10
    assert nn.flops(first.aux, (32, 32, 64)) == head
    assert sum(cost for cost, _ in costs(8, 1)) == 555_417_600
    assert nn.flops(nn.linear_head(8, 3, key=KEY), (5, 7, 8)) == 4 * 8 * 3


# --- heads


@pytest.mark.parametrize("shape", [(4, 4), (5, 7), (1, 1), (3, 2)])
def test_adaptive_pooling_averages_its_windows(shape):
    x = np.random.default_rng(1).standard_normal((2, *shape, 3))
    y = nn.AdaptiveAvgPool2d(2)(x)
    height, width = shape
    rows = [slice(0, -(-height // 2)), slice(height // 2, height)]
    columns = [slice(0, -(-width // 2)), slice(width // 2, width)]
    for i, j in np.ndindex(2, 2):
        np.testing.assert_allclose(y[:, i, j], x[:, rows[i], columns[j]].mean((1, 2)), rtol=1e-12)


def test_adaptive_pooling_to_the_same_size_changes_nothing():
    np.testing.assert_array_equal(nn.AdaptiveAvgPool2d(8)(IMAGES), IMAGES)


@pytest.mark.parametrize("make", [nn.cnn_head, nn.mlp_head, nn.linear_head])
def test_a_head_takes_images_of_any_size(make):
    options = {} if make is nn.linear_head else {"hidden": 6}
    head = make(5, 7, key=KEY, dtype=np.float64, **options)
    for size in (1, 4, 9):
        x = np.random.default_rng(2).standard_normal((3, size, size, 5))
        y, state = head(x, head.init_state())
        assert y.shape == (3, 7) and y.dtype == np.float64
        assert tree.flatten(state)[1] == tree.flatten(head.init_state())[1]


# --- derivatives


def loss_of(network, state, training=True):
    y = network(IMAGES, state, training=training)
    return nn.cross_entropy(y[0] if state else y, LABELS)


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("blocks", [8, 16])
def test_the_jvp_of_the_loss_is_its_central_difference_and_the_vjp_s(blocks, norm):
    network, state = small(aux=None, blocks=blocks, norm=norm)
    rng = np.random.default_rng(3)
    direction = tree.map(
        lambda w: rng.standard_normal(w.shape) if tree.is_floating(w) else w, network
    )

    def moved(step):
        return tree.map(lambda w, v: w + step * v if tree.is_floating(w) else w, network, direction)

    _, d = dg.jvp(lambda n: loss_of(n, state), (network,), (direction,))
    h = 1e-7
    numeric = (loss_of(moved(h), state) - loss_of(moved(-h), state)) / (2 * h)
    np.testing.assert_allclose(d, numeric, rtol=2e-5)
    gradient = dg.gradient(lambda n: loss_of(n, state), mode="reverse")(network)
    pairs = zip(tree.leaves(gradient), tree.leaves(direction), strict=True)
    np.testing.assert_allclose(d, sum(np.sum(g * v) for g, v in pairs if g is not None), rtol=1e-9)


def reach(network, state, training):
    """Return how far the logits of each example move with the pixels of the first one."""
    tangent = np.zeros_like(IMAGES)
    tangent[0] = 1 + IMAGES[0]

    def logits(x):
        y = network(x, state, training=training)
        return y[0] if state else y

    return np.abs(dg.jvp(logits, (IMAGES,), (tangent,))[1]).max(axis=1)


def test_batch_statistics_carry_tangents_from_one_example_to_others():
    network, state = small(aux=None)
    assert np.all(reach(network, state, True) > 1e-6)


def test_frozen_statistics_and_groups_keep_examples_apart():
    for network, state, training in (
        (*small(aux=None), False),
        (*small(aux=None, norm="group"), True),
    ):
        moved = reach(network, state, training)
        assert moved[0] > 1e-6 and np.all(moved[1:] == 0)


def test_running_statistics_carry_no_tangents():
    network, state = small()
    seen = []

    def losses(network):
        values, new = network.local_losses(IMAGES, LABELS, state)
        seen.append(new)
        return np.mean(values[-1])

    direction = tree.map(lambda w: np.ones_like(w) if tree.is_floating(w) else w, network)
    _, d = dg.jvp(losses, (network,), (direction,))
    assert d != 0 and all(type(leaf) is np.ndarray for leaf in tree.leaves(seen[0]))
    assert tree.flatten(seen[0])[1] == tree.flatten(state)[1]


@pytest.mark.parametrize("aux", ["cnn", "mlp", "linear"])
def test_a_local_loss_reaches_its_own_block_and_head_only(aux):
    network, state = small(aux=aux)
    for place in (0, 3, 7):
        gradient = dg.gradient(
            lambda n, place=place: np.mean(n.local_losses(IMAGES, LABELS, state)[0][place]),
            mode="reverse",
        )(network)
        sizes = [
            max(np.abs(g).max() for g in tree.leaves(block) if g is not None)
            for block in gradient.blocks
        ]
        assert [i for i, size in enumerate(sizes) if size > 0] == [place]


def test_the_last_local_loss_is_the_network_s():
    network, state = small()
    losses, _ = network.local_losses(IMAGES, LABELS, state)
    assert len(losses) == 8 and all(loss.shape == (3,) for loss in losses)
    logits, _ = network(IMAGES, state)
    expected = nn.cross_entropy(logits, LABELS, reduction="none")
    np.testing.assert_allclose(losses[-1], expected, rtol=1e-12)


# --- what is refused


@pytest.mark.parametrize(
    "options, words",
    [
        ({"blocks": 4}, "Give 8 or 16"),
        ({"aux": "conv"}, "'cnn', 'mlp', 'linear', None"),
        ({"norm": "layer"}, "'batch', 'group'"),
        ({"width": 0}, "above zero"),
        ({"classes": 0}, "at least 1"),
    ],
)
def test_an_unknown_option_is_refused(options, words):
    with pytest.raises(OptionError, match="ResNet18") as error:
        nn.ResNet18(key=KEY, **options)
    assert words in str(error.value)


def test_adaptive_pooling_refuses_what_is_no_image():
    with pytest.raises(ShapeError, match=r"\(3, 8\)"):
        nn.AdaptiveAvgPool2d(2)(np.zeros((3, 8)))
    with pytest.raises(OptionError, match="at least 1"):
        nn.AdaptiveAvgPool2d(0)


def test_a_missing_state_is_refused():
    with pytest.raises(OptionError, match="init_state"):
        nn.ResNet18(**SMALL)(IMAGES)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("state", [None, {}, 3, {"mean": np.zeros(4), "variance": np.ones(4)}])
def test_batch_norm_asks_for_its_state(state, training):
    layer = nn.BatchNorm(3, dtype=np.float64)
    with pytest.raises(dg.OptionError, match=r"BatchNorm: state is.*layer\.init_state\(\)"):
        layer(np.ones((5, 3)), state, training=training)
