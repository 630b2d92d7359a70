"""The first steps of small trainers on a device against those in host memory; none waits for it."""

import numpy as np
import pytest
from device_case import no_transfers

import dualgrad as dg
from dualgrad import nn, optim
from dualgrad.random import Key

IMAGE = (2, 8, 8, 3)  # (N, height, width, channels)


def data(shape):
    rng = np.random.default_rng(0)
    return rng.random(shape).astype(np.float32), rng.integers(0, 3, shape[0])


def cnn():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding="SAME", activation="relu", key=Key(1)),
        lambda x: nn.max_pool2d(x, 2),
        nn.Conv2d(4, 4, 3, stride=2, key=Key(2)),
        lambda x: x.reshape((len(x), -1)),
        nn.Linear(16, 3, key=Key(3)),
    )


def mixer():
    mean = (0.5, 0.4, 0.3)
    return nn.LocalMixer(patches=2, channels=12, groups=2, blocks=2, image=IMAGE[1:], classes=3,
                         mean=mean, std=mean, key=Key(1))  # fmt: skip


def resnet():
    return nn.ResNet18(classes=3, width=4 / 64, norm="batch", aux="linear", key=Key(1),
                       dtype=np.float64)  # fmt: skip


def cross_entropy(model, x, y):
    return nn.cross_entropy(model(x), y, reduction="none")


def local(model, x, y):
    return model.local_losses(x, y)


def stateful(model, state, x, y):
    logits, state = model(x, state)
    return nn.cross_entropy(logits, y), state


# name: (model, shape of the batch, loss)
TRAINERS = {
    "logreg": (lambda: nn.Linear(5, 3, key=Key(1)), (4, 5), cross_entropy),
    "mlp": (lambda: nn.MLP([5, 7, 3], key=Key(1)), (4, 5), cross_entropy),
    "cnn": (cnn, IMAGE, cross_entropy),
    "local mixer": (mixer, IMAGE, local),
    "resnet": (resnet, IMAGE, stateful),  # in float64: few examples normalise badly
}
METHODS = {
    "rank 1": {"structure": "rank1", "directions": 2},
    "activations": {"perturb": "activations"},
    "backprop": {"method": "backprop"},
}


def first_steps(loss, options, model, state, x, y, guard=None):
    """Two steps; the second within guard, as what is compiled or loaded once has been then."""
    rule = optim.sgd(0.05, momentum=0.9)
    step = dg.training_step(loss, rule, plan=False, has_state=state is not None, **options)
    trained = step.init(model, Key(7), *(() if state is None else (state,)))
    trained, first = step(trained, x, y)
    if guard is None:
        trained, second = step(trained, x, y)
    else:
        with guard:
            trained, second = step(trained, x, y)
    return trained, [first, second]


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize("method", METHODS)
def test_first_steps_are_those_of_the_host(device, name, method):
    make, shape, loss = TRAINERS[name]
    if name == "resnet" and method == "activations":
        pytest.skip("batch statistics let examples interact: activations take no such loss")
    if name == "local mixer" and method == "backprop":
        loss = lambda model, x, y: dg.objective(model.local_losses(x, y))  # noqa: E731
    model, (x, y) = make(), data(shape)
    x = x.astype(dg.tree.leaves(model)[0].dtype)
    state = model.init_state() if name == "resnet" else None
    expected, values = first_steps(loss, METHODS[method], model, state, x, y)
    given = dg.to_device((model, state, x, y), "gpu")
    found, there = first_steps(loss, METHODS[method], *given, guard=no_transfers(device))
    assert all(type(value) is device.ndarray for value in there)
    np.testing.assert_allclose([float(v) for v in there], [float(v) for v in values], rtol=2e-4)
    parts = (found.params, found.model_state), (expected.params, expected.model_state)
    for a, b in zip(*map(dg.tree.leaves, parts), strict=True):
        if dg.tree.is_floating(b):
            assert type(a) is device.ndarray and a.dtype == b.dtype
            np.testing.assert_allclose(a.get(), b, rtol=1e-3, atol=2e-5)


def test_a_state_is_saved_on_the_host_and_goes_on_on_the_device(device, tmp_path):
    model, (x, y) = dg.to_device((nn.MLP([5, 7, 3], key=Key(1)), data((4, 5))), "gpu")
    step = dg.training_step(cross_entropy, optim.adam(0.01), plan=False)
    state, _ = step(step.init(model, Key(7)), x, y)
    dg.save(tmp_path / "state", state)
    loaded = dg.load(tmp_path / "state", state)
    for a, b in zip(*(dg.tree.leaves(s.state_tree()) for s in (loaded, state)), strict=True):
        assert type(a) is type(b)
    one, other = (step(each, x, y)[0].params for each in (state, loaded))
    for a, b in zip(dg.tree.leaves(one), dg.tree.leaves(other), strict=True):
        assert not hasattr(a, "get") or np.array_equal(a.get(), b.get())


def test_a_plan_that_is_allowed_gives_the_numbers_of_the_eager_step(device):
    given = dg.to_device((nn.MLP([5, 7, 3], key=Key(1)), *data((4, 5))), "gpu")
    values = []
    for plan in (True, False):
        step = dg.training_step(cross_entropy, optim.sgd(0.1), plan=plan)
        state, _ = step(step.init(given[0], Key(7)), *given[1:])
        values.append(float(step(state, *given[1:])[1]))
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)


@pytest.mark.parametrize(
    "space, target, guess",
    [
        ("activation", "global", "local"),
        ("module", "sum", "random"),
        ("weight", "global", "ntk"),
    ],
)
def test_guided_gradients_are_those_of_the_host(device, space, target, guess):
    estimate = dg.guided_gradient(target=target, guess=guess, space=space, has_state=True)
    model, (x, y) = resnet(), data(IMAGE)
    given = model, model.init_state(), x.astype(np.float64), y
    expected = estimate(*given, key=Key(2))
    given = dg.to_device(given, "gpu")
    with no_transfers(device):
        found = estimate(*given, key=Key(2))
    for a, b in zip(*map(dg.tree.leaves, (found, expected)), strict=True):
        if dg.tree.is_floating(b):
            assert type(a) is device.ndarray
            np.testing.assert_allclose(a.get(), b, rtol=1e-6, atol=1e-9)
