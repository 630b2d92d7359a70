"""Everything on a device: to_device, every operation of the table, the first steps of trainers.

The device is CuPy's, or the stand-in (device_case.py): what is computed there is compared with what
the same functions give in host memory.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from device_case import no_transfers, real
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ops_table import CASES

import dualgrad as dg
from dualgrad import nn, optim, testing
from dualgrad.kernels import cuda
from dualgrad.operations import OPERATIONS
from dualgrad.random import Key
from dualgrad.structured import LowRank, Outer

ONE_EACH = list({case.operation: case for case in CASES}.values())
# What CuPy has no function for, or none with these arguments: a DeviceError says so.
LACKING = {
    **dict.fromkeys([np.nanquantile, np.nanpercentile], "CuPy has no nanquantile"),
    np.quantile: "CuPy's quantile takes no weights",
    **dict.fromkeys(
        [np.histogram_bin_edges, np.histogram, np.histogram2d, np.histogramdd],
        "CuPy has no histogram_bin_edges",
    ),
    **dict.fromkeys(
        ["np.maximum accumulate", "np.fmin accumulate"], "CuPy accumulates sums and products alone"
    ),
}


def host(x):
    return x.get() if hasattr(x, "get") else np.asarray(x)


def there(arrays):
    return dg.to_device(arrays, "gpu")


def assert_same(found, expected, device, rtol=1e-9, atol=1e-9):
    """Leaves on the device, of the shapes, dtypes and values of those in host memory."""
    pairs = list(zip(dg.tree.leaves(found), dg.tree.leaves(expected), strict=True))
    for a, b in pairs:
        if hasattr(b, "dtype"):
            assert type(a) is device.ndarray and (a.shape, a.dtype) == (np.shape(b), b.dtype)
            np.testing.assert_allclose(host(a), b, rtol=rtol, atol=atol)
    assert pairs


# --- moving


def test_to_device_moves_arrays_and_leaves_the_rest(device):
    w = np.arange(6.0).reshape(2, 3)
    given = {"w": w, "again": w, "labels": np.arange(3), "step": np.array(7), "n": 3, "rate": 0.5,
             "key": Key(1), "name": "x", "none": None, "f": np.sin}  # fmt: skip
    moved = there(given)
    assert type(moved["w"]) is device.ndarray is type(moved["labels"])
    assert moved["again"] is moved["w"] and there(moved)["w"] is moved["w"]
    for name in ("step", "n", "rate", "key", "name", "none", "f"):
        assert moved[name] is given[name]
    back = dg.to_device(moved, "cpu")
    assert type(back["w"]) is np.ndarray and np.array_equal(back["w"], w)
    assert dg.to_device(given, "cpu")["w"] is w


def test_to_device_moves_all_parts_of_duals_and_factors(device):
    x = dg.dual(np.arange(3.0), np.ones(3))
    moved = x.to_device("gpu")
    assert type(moved.primal) is type(moved.tangents) is device.ndarray
    assert moved.device == moved.primal.device and moved.level == x.level
    assert np.array_equal(dg.to_device(moved, "cpu").tangent, np.ones(3))
    assert moved.to_device(moved.device) is moved
    factors = Outer(np.ones((2, 3)), np.ones((2, 4))), LowRank(np.ones((2, 3)), np.ones((2, 4)))
    for x, y in zip(factors, there(factors), strict=True):
        assert type(y) is type(x) and type(y.left) is device.ndarray and y.shape == x.shape
        assert np.array_equal(host(y.dense()), x.dense())


def test_inside_a_transform_both_levels_move(device):
    def f(x):
        y = dg.derivative(lambda z: np.sin(dg.to_device(z, "gpu")) * z)(x)
        return dg.to_device(y, "cpu")

    with pytest.raises(dg.DeviceError):  # z itself stayed
        dg.derivative(f)(np.array(0.3))
    g = lambda x: dg.to_device(dg.derivative(np.sin)(dg.to_device(x, "gpu")), "cpu")  # noqa: E731
    np.testing.assert_allclose(dg.derivative(g)(np.array(0.3)), -np.sin(0.3))


def test_errors_name_both_places_and_the_way_out(device):
    x = there(dg.dual(np.ones(3), np.ones(3)))
    for mix in (
        lambda: x * np.ones(3),
        lambda: np.ones(3) + x,
        lambda: np.concatenate([x, np.ones(2)]),
        lambda: np.where(np.ones(3, bool), x, 0),
        lambda: x @ np.ones(3),
        lambda: nn.linear(x, np.ones((3, 2))),
        lambda: dg.dual(np.ones(3), there(np.ones(3))),
        lambda: dg.dual(there(np.ones(3)), np.ones(3)),
        lambda: x.__setitem__(slice(0, 2), np.zeros(2)),
    ):
        with pytest.raises(dg.DeviceError, match="host memory.*on the device.*dg.to_device"):
            mix()
    with pytest.raises(dg.DeviceError, match="dtype float128|longdouble|complex256|object"):
        there(np.ones(2, np.longdouble))
    with pytest.raises(dg.OptionError, match='"cpu" or "gpu"'):
        dg.to_device(np.ones(2), "tpu")
    with pytest.raises(dg.DeviceError, match="CuPy cannot do this on a device.*the host"):
        np.nanquantile(x, 0.5)


def test_without_cupy_one_line_says_what_to_install(monkeypatch):
    why = 'CuPy is not installed. Run: python -m pip install "cupy-cuda12x[ctk]"'
    monkeypatch.setattr("dualgrad.kernels.cuda.missing", lambda: why)
    with pytest.raises(dg.DeviceError) as caught:
        dg.to_device(np.ones(2), "gpu")
    assert str(caught.value) == f"dg.to_device: {why}"
    assert np.array_equal(dg.to_device(np.ones(2), "cpu"), np.ones(2))


@pytest.mark.parametrize(
    "version, why",
    [("13.6.0", "CuPy 13.6.0 is installed"), ("14.1.0rc1", "CuPy 14.1"), ("14.2.0", ""),
     ("15.0.0b1", "")],
)  # fmt: skip
def test_a_cupy_too_old_is_refused(monkeypatch, version, why):
    """It hands kernels an address for None, and they would read what lies there."""
    present = SimpleNamespace(is_available=lambda: True)
    module = SimpleNamespace(__version__=version, cuda=present)
    monkeypatch.setattr(cuda, "cupy", lambda: module)
    assert cuda.missing().startswith(why) and bool(cuda.missing()) == bool(why)


# --- the table


# All cases where there is a device, one of each operation where the stand-in takes its place.
@pytest.mark.parametrize("case", CASES if real() else ONE_EACH, ids=str)
@settings(max_examples=1, phases=[Phase.generate],
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(data=st.data())
def test_every_operation_gives_the_same_on_the_device(case, device, data):
    args = data.draw(case.draw())
    vs = [testing.random_like(Key(i), args) for i in range(2)]
    tangents = tuple(np.stack(rows) for rows in zip(*vs, strict=True))
    run = lambda *given: dg.pushforward(case.call, *given)  # noqa: E731
    try:
        found = run(there(args), there(tangents))
    except (dg.DeviceError, dg.MissingRuleError):
        assert case.operation in LACKING or case.name in LACKING
        return
    assert_same(found, run(args, tangents), device)
    y, pull = dg.vjp(case.call, *args)
    ct = testing.random_like(Key(9), y)
    found, pull_there = dg.vjp(case.call, *there(args))
    assert_same((found, pull_there(there(ct))), (y, pull(ct)), device)


def test_the_list_of_what_is_lacking_is_of_the_table():
    assert set(LACKING) <= {part for case in CASES for part in (case.operation, case.name)}
    assert len(LACKING) < len(OPERATIONS) / 40


# --- directions, optimisers, layers


@pytest.mark.parametrize(
    "options",
    [
        {"distribution": "rademacher"},
        {"distribution": "normal", "structure": "rank1"},
        {"distribution": dg.directions.orthogonal},
        {"distribution": dg.directions.basis},
        {"distribution": 2 * dg.directions.normal + dg.directions.basis},
    ],
    ids=str,
)
def test_directions_are_drawn_on_the_device_with_the_same_words(device, options):
    params = {"w": np.zeros((4, 5), np.float32), "b": np.zeros(7), "n": 2}
    k = () if "+" in str(options["distribution"]) else (3,)
    expected = dg.directions.draw(Key(5), params, *k, **options)
    params = there(params)
    with no_transfers(device):
        found = dg.directions.draw(Key(5), params, *k, **options)
    for a, b in zip(dg.tree.leaves(found), dg.tree.leaves(expected), strict=True):
        pairs = [(a.left, b.left), (a.right, b.right)] if isinstance(b, Outer) else [(a, b)]
        for x, y in pairs if b is not None else ():
            assert type(x) is device.ndarray and x.dtype == y.dtype
            np.testing.assert_allclose(host(x), y, rtol=1e-6)


RULES = {
    "sgd": optim.sgd(0.1),
    "nesterov": optim.sgd(0.1, momentum=0.9, nesterov=True),
    "adamw": optim.adamw(0.01),
    "rmsprop": optim.rmsprop(0.01),
    "clipped": optim.chain(optim.clip_by_norm(0.5), optim.weight_decay(0.1), optim.sgd(0.1)),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("factors", [False, True], ids=["dense", "low rank"])
def test_optimisers_step_on_the_device(device, name, factors):
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}
    g = LowRank(rng.normal(size=(2, 3)), rng.normal(size=(2, 4))) if factors else params["w"] ** 2
    gradient = {"w": g, "b": np.ones(4)}
    there_params, there_gradient = there(params), there(gradient)
    state, there_state = RULES[name].init(params), RULES[name].init(there_params)
    for _ in range(3):
        params, state = RULES[name].update(params, gradient, state)
        with no_transfers(device):
            found = RULES[name].update(there_params, there_gradient, there_state)
        there_params, there_state = found
    assert_same(there_params, params, device)


LAYERS = {
    "batch norm": lambda: nn.BatchNorm(4),
    "layer norm": lambda: nn.LayerNorm(4),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "dropout": lambda: nn.Dropout(0.4),
    "embedding": lambda: nn.Embedding(6, 3, key=Key(1)),
}


def called(name, layer, x):
    if name == "batch norm":
        return layer(x, layer.init_state())[0]
    return layer(x, key=Key(3)) if name == "dropout" else layer(x)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_give_the_same_on_the_device(device, name):
    layer = LAYERS[name]()
    x = np.random.default_rng(0).normal(size=(3, 2, 2, 4)).astype(np.float32)
    x = np.array([[5, 0], [2, 2]]) if name == "embedding" else x
    v = testing.random_like(Key(2), layer)
    f = lambda layer: called(name, layer, x)  # noqa: E731
    g = lambda layer: called(name, layer, moved)  # noqa: E731
    moved = there(x)
    expected = dg.jvp(f, (layer,), (v,)) if name != "dropout" else f(layer)
    layer, v = there(layer), there(v)
    with no_transfers(device):
        found = dg.jvp(g, (layer,), (v,)) if name != "dropout" else g(layer)
    assert_same(found, expected, device, rtol=1e-5, atol=1e-5)


# --- transforms, and what is beside them


def smooth(x):
    return np.sum(np.tanh(x[:, None] * x) @ np.cos(x)) * np.exp(-x[0])


TRANSFORMS = {
    "gradient": dg.gradient(smooth),
    "gradient in reverse": dg.gradient(smooth, mode="reverse"),
    "hessian": dg.hessian(smooth),
    "reverse over forward": dg.jacobian(dg.gradient(smooth), mode="reverse"),
    "hvp": lambda x: dg.hvp(smooth, (x,), (np.ones_like(x),)),
    "laplacian": dg.laplacian(smooth),
    "linearize": lambda x: dg.linearize(dg.gradient(smooth), x)[1](x),
    "jet": lambda x: dg.jet(smooth, (x,), ((x, x * x, x),)),
    "third derivative": lambda x: dg.derivative(dg.derivative(dg.derivative(np.sin)))(x[0]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_every_nesting_give_the_same(device, name):
    x = np.array([0.3, -0.7, 1.1])
    assert_same(TRANSFORMS[name](there(x)), TRANSFORMS[name](x), device)


def test_results_have_memory_of_their_own(device):
    """What protects NumPy's arrays, that they are read-only, does not exist on a device."""
    x = there(np.ones(3))
    y, ty = dg.jvp(lambda x: x, (x,), (x,))
    (ct,) = dg.vjp(lambda x: x * 1.0 + 0.0 * x[::-1], x)[1](x)
    for part in (y, ty, ct):
        part[...] = 9
    assert np.array_equal(host(x), np.ones(3))


def test_writing_follows_both_parts(device):
    def f(x):
        y = np.zeros_like(x)
        y[1:] = x[:-1] ** 2
        y[np.array([0])] = 3.0
        return y * x

    x = np.array([0.5, 2.0, -1.0])
    assert_same(dg.jacobian(f)(there(x)), dg.jacobian(f)(x), device)
    with pytest.raises(dg.WriteError, match="broadcast"):
        dg.jvp(lambda x: np.broadcast_to(x, (2, 3)).__setitem__(0, 1.0), (there(x),), (there(x),))


@pytest.mark.parametrize("flip", [False, True])
def test_images_are_augmented_where_they_lie(device, flip):
    x = np.random.default_rng(0).random((5, 6, 7, 3)).astype(np.float32)
    expected = dg.datasets.augment(x, key=Key(3), pad=2, flip=flip)
    moved = there(x)
    with no_transfers(device):
        found = dg.datasets.augment(moved, key=Key(3), pad=2, flip=flip)
    assert type(found) is device.ndarray and np.array_equal(host(found), expected)
