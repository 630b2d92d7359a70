"""The layers: shapes, parameter counts, first weights, statistics, state and randomness."""

import dataclasses
import math

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn, tree
from dualgrad.errors import DtypeError, OptionError, ShapeError
from dualgrad.random import Key

KEY = Key(0)


def normal(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# --- shapes, dtypes and parameters

LAYERS = {
    "linear": (lambda **o: nn.Linear(6, 4, key=KEY, **o), (5, 6), (5, 4), 28),
    "linear over axes": (lambda **o: nn.Linear(6, 4, key=KEY, **o), (2, 3, 6), (2, 3, 4), 28),
    "linear without bias": (
        lambda **o: nn.Linear(6, 4, bias=False, activation="tanh", key=KEY, **o),
        (5, 6),
        (5, 4),
        24,
    ),
    "conv": (lambda **o: nn.Conv2d(3, 8, 3, key=KEY, **o), (2, 7, 6, 3), (2, 7, 6, 8), 224),
    "conv stride": (
        lambda **o: nn.Conv2d(3, 8, (3, 5), stride=2, activation="relu", key=KEY, **o),
        (2, 7, 6, 3),
        (2, 4, 3, 8),
        368,
    ),
    "conv valid": (
        lambda **o: nn.Conv2d(3, 8, 3, padding="VALID", bias=False, key=KEY, **o),
        (2, 7, 6, 3),
        (2, 5, 4, 8),
        216,
    ),
    "conv groups": (
        lambda **o: nn.Conv2d(4, 8, 3, padding=((1, 0), (2, 1)), groups=4, key=KEY, **o),
        (2, 7, 6, 4),
        (2, 6, 7, 8),
        80,
    ),
    "conv dilation": (
        lambda **o: nn.Conv2d(1, 2, 3, padding=0, dilation=(2, 1), key=KEY, **o),
        (2, 7, 6, 1),
        (2, 3, 4, 2),
        20,
    ),
    "layer norm": (lambda **o: nn.LayerNorm(6, **o), (5, 3, 6), (5, 3, 6), 12),
    "layer norm over axes": (lambda **o: nn.LayerNorm((3, 6), **o), (5, 3, 6), (5, 3, 6), 36),
    "group norm": (lambda **o: nn.GroupNorm(2, 6, **o), (5, 4, 3, 6), (5, 4, 3, 6), 12),
    "mlp": (lambda **o: nn.MLP([12, 5, 3], key=KEY, **o), (4, 2, 3, 2), (4, 3), 83),
    "cnn": (lambda **o: nn.CNN(channels=2, key=KEY, **o), (2, 28, 28, 1), (2, 10), 111_760),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_has_its_shape_dtype_and_parameter_count(name, dtype):
    make, shape, expected, count = LAYERS[name]
    layer = make(dtype=dtype)
    y = layer(normal(0, *shape, dtype=dtype))
    assert y.shape == expected and y.dtype == dtype
    assert nn.parameter_count(layer) == count
    assert {leaf.dtype for leaf in tree.leaves(layer)} == {np.dtype(dtype)}


def test_parameters_default_to_float32():
    for make, *_ in LAYERS.values():
        assert {leaf.dtype for leaf in tree.leaves(make())} == {np.dtype(np.float32)}


def test_the_networks_of_the_mnist_studies_have_their_published_sizes():
    assert nn.parameter_count(nn.MLP([784, 1024, 1024, 10], key=KEY)) == 1_863_690
    assert nn.parameter_count(nn.MLP([784, 10], key=KEY)) == 7_850
    assert nn.parameter_count(nn.CNN(key=KEY)) == 3_333_962


def test_layers_without_parameters():
    x = normal(0, 2, 4, 6, 3)
    assert nn.parameter_count([nn.MaxPool2d(2), nn.AvgPool2d((2, 3)), nn.Flatten()]) == 0
    windows = x.reshape(2, 2, 2, 3, 2, 3)
    np.testing.assert_array_equal(nn.MaxPool2d(2)(x), windows.max(axis=(2, 4)))
    wide = x.reshape(2, 2, 2, 2, 3, 3)
    np.testing.assert_allclose(nn.AvgPool2d((2, 3))(x), wide.mean(axis=(2, 4)), atol=1e-6)
    np.testing.assert_array_equal(nn.Flatten()(x), x.reshape(2, 72))


def test_linear_is_its_formula():
    layer = nn.Linear(3, 2, key=KEY, dtype=np.float64)
    layer.bias[...] = [0.5, -0.5]
    x = normal(1, 4, 3, dtype=np.float64)
    expected = np.array(
        [
            [sum(row[i] * layer.weight[i, j] for i in range(3)) + layer.bias[j] for j in range(2)]
            for row in x
        ]
    )
    np.testing.assert_allclose(layer(x), expected, rtol=1e-12)
    rectified = nn.Linear(3, 2, activation="relu", key=KEY, dtype=np.float64)
    rectified.bias[...] = layer.bias
    np.testing.assert_allclose(rectified(x), np.maximum(expected, 0), rtol=1e-12)


def test_conv2d_is_its_formula_in_every_entry():
    layer = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), groups=2, key=KEY, dtype=np.float64)
    layer.bias[...] = np.arange(6)
    x = normal(1, 2, 5, 4, 4, dtype=np.float64)
    padded = np.pad(x, ((0, 0), (1, 1), (0, 1), (0, 0)))  # SAME: 3 rows of 5, 4 columns of 4
    expected = np.zeros((2, 3, 4, 6))
    for n, i, j, o in np.ndindex(expected.shape):
        channels = slice(0, 2) if o < 3 else slice(2, 4)
        window = padded[n, 2 * i : 2 * i + 3, j : j + 2, channels]
        expected[n, i, j, o] = np.sum(window * layer.weight[..., o]) + o
    np.testing.assert_allclose(layer(x), expected, rtol=1e-10, atol=1e-12)


def test_the_mlp_is_its_layers_with_the_activation_between():
    model = nn.MLP([12, 5, 4, 3], activation="tanh", key=KEY, dtype=np.float64)
    x = normal(0, 6, 2, 3, 2, dtype=np.float64)
    h = x.reshape(6, 12)
    for i, layer in enumerate(model.layers):
        h = h @ layer.weight + layer.bias
        h = np.tanh(h) if i < 2 else h
    np.testing.assert_allclose(model(x), h, rtol=1e-12)


def test_embedding_looks_rows_up():
    table = nn.Embedding(5, 3, key=KEY)
    ids = np.array([[0, 4], [2, 2]])
    np.testing.assert_array_equal(table(ids)[1, 0], table.weight[2])
    assert table(ids).shape == (2, 2, 3) and table([1, 2]).shape == (2, 3)
    for bad in (np.array([5]), np.array([-1])):
        with pytest.raises(OptionError, match="from 0 to 4"):
            table(bad)
    with pytest.raises(DtypeError, match="float"):
        table(np.array([1.0]))


def test_float32_stays_float32_through_the_jvp_of_every_layer():
    for make, shape, *_ in LAYERS.values():
        layer = make()
        x = normal(0, *shape)
        y, dy = dg.jvp(type(layer).__call__, (layer, x), (layer, x))
        assert y.dtype == dy.dtype == np.float32


# --- first weights


def test_first_weights_are_kaiming_uniform_and_biases_zero():
    linear = nn.Linear(200, 300, key=KEY)
    conv = nn.Conv2d(32, 64, 3, groups=2, key=KEY)
    for layer, fan_in in ((linear, 200), (conv, 3 * 3 * 16)):
        weights, bound = layer.weight.astype(np.float64), math.sqrt(6 / fan_in)
        n = weights.size
        assert np.abs(weights).max() <= bound * (1 + 1e-6)
        assert np.abs(weights).max() > 0.99 * bound
        # a uniform distribution's mean and mean square, each within four standard errors
        assert abs(weights.mean()) < 4 * bound / math.sqrt(3 * n)
        assert abs(np.mean(weights**2) - 2 / fan_in) < 4 * bound**2 * math.sqrt(4 / 45 / n)
        np.testing.assert_array_equal(layer.bias, 0)


def test_relu_layers_keep_the_mean_square_of_their_inputs():
    layers = [nn.Linear(512, 512, activation="relu", key=key) for key in KEY.split(6)]
    h = normal(0, 64, 512)
    for layer in layers:
        h = layer(h)
    assert 0.6 < np.mean(h**2) < 1.7


def test_a_key_fixes_the_weights_and_layers_of_one_model_differ():
    one, again = nn.MLP([8, 8, 8], key=Key(3)), nn.MLP([8, 8, 8], key=Key(3))
    np.testing.assert_array_equal(one.layers[0].weight, again.layers[0].weight)
    assert not np.array_equal(one.layers[0].weight, one.layers[1].weight)
    other = nn.MLP([8, 8, 8], key=Key(4))
    assert not np.array_equal(one.layers[0].weight, other.layers[0].weight)
    np.testing.assert_array_equal(
        nn.MLP([4, 2]).layers[0].weight, nn.MLP([4, 2], key=Key(0))(np.eye(4))
    )


# --- models are trees


def test_parameters_have_paths_and_options_belong_to_the_structure():
    model = nn.MLP([4, 3, 2], key=KEY)
    assert tree.paths(model) == [
        "layers/0/weight",
        "layers/0/bias",
        "layers/1/weight",
        "layers/1/bias",
    ]
    doubled = tree.map(lambda leaf: 2 * leaf, model)
    assert type(doubled) is nn.MLP and doubled.layers[0].activation == "relu"
    np.testing.assert_array_equal(doubled.layers[1].weight, 2 * model.layers[1].weight)
    options = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False, padding=((0, 1), (1, 0)), key=KEY),
        nn.BatchNorm(1),
        nn.LayerNorm(1),
        nn.GroupNorm(1, 1),
        nn.Dropout(0.5),
        nn.MaxPool2d(2),
    )
    assert nn.parameter_count(options) == 1 + 2 + 2 + 2
    assert len(tree.leaves(options)) == 7
    rebuilt = tree.map(lambda leaf: leaf, options)
    assert repr(rebuilt) == repr(options)


def test_layers_are_frozen_and_print_shapes():
    layer = nn.Linear(3, 2, activation="relu", key=KEY)
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer.weight = np.zeros((3, 2))
    assert repr(layer) == "Linear(weight=float32[3, 2], bias=float32[2], activation='relu')"
    shown = repr(nn.Sequential(nn.Flatten(), nn.relu, nn.Dropout(0.5)))
    assert shown == "Sequential(layers=(Flatten(), relu, Dropout(rate=0.5)))"


# --- normalisation


def test_layer_norm_normalises_the_last_axes():
    x = 3 + 2 * normal(0, 5, 4, 6, dtype=np.float64)
    for shape, axes in ((6, (2,)), ((4, 6), (1, 2))):
        layer = nn.LayerNorm(shape, eps=1e-12, dtype=np.float64)
        y = layer(x)
        np.testing.assert_allclose(y.mean(axis=axes), 0, atol=1e-12)
        np.testing.assert_allclose(y.var(axis=axes), 1, rtol=1e-9)
        layer.scale[...], layer.shift[...] = 3, -1
        np.testing.assert_allclose(layer(x), 3 * y - 1, rtol=1e-12, atol=1e-12)


def test_group_norm_normalises_each_example_and_group():
    layer = nn.GroupNorm(2, 6, eps=1e-12, dtype=np.float64)
    x = 3 + 2 * normal(0, 4, 5, 3, 6, dtype=np.float64)
    y = layer(x)
    for group in (slice(0, 3), slice(3, 6)):
        np.testing.assert_allclose(y[..., group].mean(axis=(1, 2, 3)), 0, atol=1e-12)
        np.testing.assert_allclose(y[..., group].var(axis=(1, 2, 3)), 1, rtol=1e-9)
    layer.scale[...] = np.arange(6)
    layer.shift[...] = 1
    np.testing.assert_allclose(layer(x), y * np.arange(6) + 1, rtol=1e-12, atol=1e-12)
    flat = normal(1, 4, 6, dtype=np.float64)
    np.testing.assert_allclose(
        nn.GroupNorm(3, 6, dtype=np.float64)(flat).sum(axis=1), 0, atol=1e-12
    )


def test_eps_bounds_what_normalisation_can_amplify():
    x = np.full((3, 4), 2.0)
    np.testing.assert_array_equal(nn.LayerNorm(4, dtype=np.float64)(x), 0)
    narrow = np.array([[-1e-3, 1e-3]])
    y = nn.LayerNorm(2, eps=1e-6, dtype=np.float64)(narrow)
    np.testing.assert_allclose(y, [[-math.sqrt(0.5), math.sqrt(0.5)]], rtol=1e-12)


@pytest.mark.parametrize("shape", [(8, 3), (4, 5, 6, 3)])
def test_batch_norm_normalises_the_batch_and_keeps_running_statistics(shape):
    layer = nn.BatchNorm(3, momentum=0.8, eps=1e-12, dtype=np.float64)
    state = first = layer.init_state()
    axes, size = tuple(range(len(shape) - 1)), math.prod(shape[:-1])
    mean, variance = np.zeros(3), np.ones(3)
    for seed in range(3):
        x = 3 + 2 * normal(seed, *shape, dtype=np.float64)
        y, state = layer(x, state)
        np.testing.assert_allclose(y.mean(axis=axes), 0, atol=1e-12)
        np.testing.assert_allclose(y.var(axis=axes), 1, rtol=1e-9)
        mean = 0.8 * mean + 0.2 * x.mean(axis=axes)
        variance = 0.8 * variance + 0.2 * x.var(axis=axes) * size / (size - 1)
    np.testing.assert_allclose(state["mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(state["variance"], variance, rtol=1e-12)
    np.testing.assert_array_equal(first["mean"], 0)
    layer.scale[...], layer.shift[...] = 2, 1
    y, same = layer(x, state, training=False)
    np.testing.assert_allclose(
        y, 2 * (x - mean) / np.sqrt(variance + 1e-12) + 1, rtol=1e-9, atol=1e-9
    )
    assert same is state


def test_batch_norm_keeps_float32_and_refuses_a_batch_of_one():
    layer = nn.BatchNorm(3)
    y, state = layer(normal(0, 4, 3), layer.init_state())
    assert y.dtype == state["mean"].dtype == state["variance"].dtype == np.float32
    with pytest.raises(ShapeError, match="1 value a channel"):
        layer(normal(0, 1, 3), state)
    y, _ = layer(normal(0, 1, 3), state, training=False)
    assert np.all(np.isfinite(y))


# --- dropout


def test_dropout_drops_at_its_rate_and_keeps_the_mean():
    layer = nn.Dropout(0.3)
    x = np.ones((200, 300), np.float32)
    y = layer(x, key=KEY)
    assert y.dtype == np.float32
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7], rtol=1e-6)
    dropped = np.mean(y == 0)
    assert abs(dropped - 0.3) < 4 * math.sqrt(0.3 * 0.7 / x.size)
    np.testing.assert_array_equal(layer(x, key=KEY), y)
    assert not np.array_equal(layer(x, key=Key(1)), y)
    assert layer(x) is x and nn.Dropout(0)(x, key=KEY) is x


def test_dropout_selects_rather_than_multiplies():
    x = np.full(100, np.inf)
    assert set(nn.Dropout(0.5)(x, key=KEY)) == {0.0, np.inf}


# --- sequential


def test_a_sequential_without_state_is_its_layers_one_after_the_other():
    first, second = nn.Linear(6, 5, key=KEY), nn.Linear(5, 2, key=Key(1))
    model = nn.Sequential(nn.Flatten(), first, np.tanh, second)
    x = normal(0, 4, 3, 2)
    np.testing.assert_array_equal(model(x), second(np.tanh(first(x.reshape(4, 6)))))
    assert model.init_state() == {}
    assert nn.parameter_count(model) == 47
    with pytest.raises(OptionError, match="stateful layers are"):
        model(x, {"0": {}})


def test_a_sequential_gives_each_layer_that_draws_its_own_key():
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    x = np.ones((40, 50), np.float32)
    y = model(x, key=KEY)
    np.testing.assert_array_equal(y, model(x, key=KEY))
    one = nn.Dropout(0.5)(x, key=KEY.fold_in(0))
    np.testing.assert_array_equal(y, nn.Dropout(0.5)(one, key=KEY.fold_in(1)))
    assert abs(np.mean(y == 0) - 0.75) < 4 * math.sqrt(0.75 * 0.25 / x.size)
    np.testing.assert_array_equal(model(x), x)
    np.testing.assert_array_equal(model(x, key=KEY, training=False), x)


def test_a_sequential_threads_state_and_key_through_nested_layers():
    inner = nn.Sequential(nn.BatchNorm(4, dtype=np.float64), nn.Dropout(0.5))
    model = nn.Sequential(nn.Linear(3, 4, key=KEY, dtype=np.float64), inner, nn.relu)
    x = normal(0, 50, 3, dtype=np.float64)
    state = model.init_state()
    assert tree.paths(state) == ["1/0/mean", "1/0/variance"]
    y, new = model(x, state, key=KEY)
    h, expected = model.layers[1].layers[0](model.layers[0](x), state["1"]["0"])
    h = nn.Dropout(0.5)(h, key=KEY.fold_in(1).fold_in(1))
    np.testing.assert_array_equal(y, np.maximum(h, 0))
    np.testing.assert_array_equal(new["1"]["0"]["mean"], expected["mean"])
    assert not np.array_equal(new["1"]["0"]["mean"], state["1"]["0"]["mean"])
    evaluated, same = model(x, new, training=False, key=KEY)
    assert same["1"]["0"] is new["1"]["0"]
    np.testing.assert_array_equal(evaluated, model(x, new, training=False)[0])
    with pytest.raises(OptionError, match="init_state"):
        model(x)


# --- bad arguments


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(0, 3, key=KEY),
        lambda: nn.Linear(3, 2.5, key=KEY),
        lambda: nn.Linear(3, 2, activation="swish", key=KEY),
        lambda: nn.Conv2d(4, 6, 3, groups=3, key=KEY),
        lambda: nn.Conv2d(3, 6, (3, 3, 3), key=KEY),
        lambda: nn.Conv2d(3, 6, 3, stride=0, key=KEY),
        lambda: nn.Conv2d(3, 6, 3, padding="FULL", key=KEY),
        lambda: nn.Conv2d(3, 6, 3, padding=-1, key=KEY),
        lambda: nn.Conv2d(3, 6, 3, padding=(1, 1), key=KEY),
        lambda: nn.Conv2d(3, 6, 3, padding=((0.5, 1), (1, 1)), key=KEY),
        lambda: nn.Conv2d(3, 6, 3, dilation=True, key=KEY),
        lambda: nn.MaxPool2d(0),
        lambda: nn.AvgPool2d((2, 2, 2)),
        lambda: nn.Embedding(3, 0, key=KEY),
        lambda: nn.LayerNorm(()),
        lambda: nn.LayerNorm((3, 0)),
        lambda: nn.LayerNorm(3, eps=0),
        lambda: nn.GroupNorm(4, 6),
        lambda: nn.BatchNorm(3, momentum=1.0),
        lambda: nn.BatchNorm(3, eps=math.nan),
        lambda: nn.Dropout(1.0),
        lambda: nn.Dropout(-0.1),
        lambda: nn.Dropout(math.nan),
        lambda: nn.MLP([784]),
        lambda: nn.MLP(784),
        lambda: nn.MLP([784, 0, 10]),
        lambda: nn.CNN(channels=0),
        lambda: nn.Sequential([nn.Flatten()]),
        lambda: nn.Sequential(nn.Flatten),
    ],
)
def test_options_outside_their_range_are_refused(make):
    with pytest.raises(OptionError, match="(?i)give"):
        make()


def test_parameters_of_integers_are_refused():
    for make in (
        lambda: nn.Linear(3, 2, key=KEY, dtype=int),
        lambda: nn.BatchNorm(3, dtype=np.int32),
    ):
        with pytest.raises(DtypeError, match="cannot train"):
            make()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 4, key=KEY), (5, 7)),
        (nn.Conv2d(3, 4, 3, key=KEY), (2, 8, 8, 4)),
        (nn.Conv2d(3, 4, 3, key=KEY), (8, 8, 3)),
        (nn.MaxPool2d(2), (8, 8)),
        (nn.LayerNorm(6), (5, 7)),
        (nn.LayerNorm((2, 6)), (6,)),
        (nn.GroupNorm(2, 6), (5, 8)),
        (nn.GroupNorm(2, 6), (6,)),
        (nn.Flatten(), (6,)),
        (nn.MLP([6, 2], key=KEY), (6,)),
        (nn.MLP([6, 2], key=KEY), (5, 7)),
        (nn.CNN(channels=1, key=KEY), (5, 784)),
    ],
    ids=repr,
)
def test_inputs_of_the_wrong_shape_are_refused_with_their_shape(layer, shape):
    with pytest.raises(ShapeError) as raised:
        layer(np.zeros(shape, np.float32))
    assert str(tuple(shape)) in str(raised.value)


def test_batch_norm_refuses_another_number_of_channels():
    layer = nn.BatchNorm(3)
    with pytest.raises(ShapeError, match=r"\(4, 5\)"):
        layer(np.zeros((4, 5)), layer.init_state())
