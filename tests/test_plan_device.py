"""A plan on a device is the eager step there, and the CPU's plan, to rounding; and what it adds."""

import numpy as np
import pytest
from device_case import no_transfers
from plan_case import (
    KEY,
    assert_close,
    assert_same_bits,
    batch,
    batches,
    cross_entropy,
    explained,
    fused,
    images,
    loss,
    network,
    normal,
    relu,
    run,
    two_layers,
)

import dualgrad as dg
from dualgrad.devices import to_device
from dualgrad.kernels import cuda
from dualgrad.kernels.fused import step as stages
from dualgrad.plan.device import DeviceStore

DENSE = {"directions": 4}
RANK1 = {"structure": "rank1", "directions": 4}
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-10}


def there(tree):
    return to_device(tree, "gpu")


def here(tree):
    return to_device(tree, "cpu")


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch):
    """Launches one by one, unless a test says otherwise."""
    monkeypatch.setenv("DUALGRAD_CUDA_GRAPH", "0")


@pytest.fixture
def captured(monkeypatch):
    monkeypatch.setenv("DUALGRAD_CUDA_GRAPH", "1")


def made(function=loss, params=None, **options):
    step = dg.training_step(function, dg.optim.sgd(0.05), **options)
    return step, step.init(there(two_layers() if params is None else params), KEY)


def trained(count, step, state, given=batch):
    values = []
    for i in range(count):
        state, value = step(state, *there(given(i)))
        values.append(here(value))
    return values, here(state.params)


def assert_planned_as_elsewhere(function, params, given, *, stages, rtol, **options):
    """Train by a plan there, eagerly there, and on the CPU: the same values and parameters."""
    moved = [there(arguments) for arguments in given]
    *planned, step, state = run(function, there(params), moved, plan=True, **options)
    *eager, _, _ = run(function, there(params), moved, plan=False, **options)
    *cpu, _, _ = run(function, params, given, plan=True, **options)
    assert isinstance(state._parts["params"], DeviceStore)
    assert fused(step, state, moved[0]) == stages
    assert_close(here(planned), here(eager), rtol)
    assert_close(here(planned), cpu, rtol)


# --- the same numbers

MLP = {
    "one layer": (lambda p, x, y: cross_entropy(x @ p["c"], y), {"c": normal(8, 4, 3)}, 2),
    "two layers": (loss, two_layers(), 3),
    "without bias": (
        lambda p, x, y: cross_entropy(relu(x @ p["w1"]) @ p["w2"], y),
        {"w1": normal(0, 4, 19) / 2, "w2": normal(2, 19, 3) / 4},
        3,
    ),
    "linear": (
        lambda p, x, y: cross_entropy(x @ p["w1"] @ p["w2"] + p["b2"], y, reduction="none"),
        {"w1": normal(0, 4, 8), "w2": normal(2, 8, 3) / 2, "b2": normal(3, 3)},
        3,
    ),
    "an unused leaf": (loss, {**two_layers(), "u": normal(9, 5, 2), "v": normal(9, 7)}, 3),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, DENSE, {"structure": "rank1"}, RANK1], ids=str)
@pytest.mark.parametrize("name", MLP)
def test_layers(device, name, options, dtype):
    function, params, stages = MLP[name]
    params = dg.tree.map(lambda w: w.astype(dtype), params)
    assert_planned_as_elsewhere(
        function, params, batches(3, dtype), stages=stages, rtol=TOLERANCE[dtype], **options
    )


def cnn(p, x, y):
    h = dg.nn.max_pool2d(relu(dg.nn.conv2d(x, p["w1"], padding=1) + p["b1"]), 2)
    h = dg.nn.max_pool2d(dg.nn.conv2d(h, p["w2"]), 2)
    h = relu(dg.nn.conv2d(h, p["w3"], stride=2, padding=1))
    return cross_entropy(h.reshape(h.shape[0], -1) @ p["w"], y)


FILTERS = {
    "w1": normal(1, 3, 3, 2, 16) / 4,
    "b1": normal(2, 16) / 5,
    "w2": normal(3, 1, 1, 16, 16) / 4,
    "w3": normal(4, 3, 3, 16, 16) / 12,
    "w": normal(5, 16, 3) / 4,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, RANK1], ids=str)
def test_convolutions(device, options, dtype):
    params = dg.tree.map(lambda w: w.astype(dtype), FILTERS)
    given = [images(i, height=9, width=10, dtype=dtype) for i in range(2)]
    assert_planned_as_elsewhere(
        cnn, params, given, stages=6, rtol=TOLERANCE[dtype], rate=1e-4, **options
    )


@pytest.mark.parametrize(
    "options",
    [
        {"directions": 2, "clip": 0.02},
        {**RANK1, "distribution": "normal"},
        {"directions": 16, "structure": "rank1"},
        {"rate": dg.optim.cosine(0.1, 4)},
    ],
    ids=str,
)
def test_options_and_batches_of_odd_sizes(device, options):
    given = [batch(0), batch(1, n=1), batch(2, n=33), batch(3)]
    given[3] = (given[3][0], given[3][1].astype(np.uint8))
    assert_planned_as_elsewhere(loss, two_layers(), given, stages=3, rtol=1e-10, **options)


@pytest.mark.parametrize("graphs", ["0", "1"])
def test_what_the_loss_makes_of_the_batch_and_returns_beside(device, monkeypatch, graphs):
    def more(p, x, y):
        z = network(p, (x - 0.5) / 2)
        right = np.argmax(z, -1) == y
        return cross_entropy(z, y), {"logits": z, "right": right, "n": 3, "unused": p["u"]}

    monkeypatch.setenv("DUALGRAD_CUDA_GRAPH", graphs)
    params = {**two_layers(), "u": normal(9, 5)}
    options = {"stages": 3, "rtol": 1e-10, "has_aux": True}
    assert_planned_as_elsewhere(more, params, batches(5), **options)


def test_a_result_of_another_shape_makes_the_step_eager_in_time(device, captured):
    def found(p, x, y):
        z = network(p, x)
        return cross_entropy(z, y), np.flatnonzero(z[:, 0] > 0)

    given = batches(6)
    (values, params, _, _, state), (expected, ends, *_) = (
        run(found, there(two_layers()), [there(b) for b in given], plan=plan, has_aux=True)
        for plan in (True, False)
    )
    assert len({x.shape for _, x in values}) > 1
    assert_close(here((values, params)), here((expected, ends)), 1e-10)
    assert not isinstance(state._parts["params"], DeviceStore)


def test_a_key_and_a_state_of_the_model(device):
    def dropped(p, state, x, y, *, key):
        x = np.where(dg.random.bernoulli(key, x.shape, like=x), 2 * x, 0)
        return cross_entropy(network(p, x), y), {"mean": 0.9 * state["mean"] + 0.1 * x.mean(0)}

    options = {"has_state": True, "model_state": {"mean": np.zeros(4)}}
    moved = {**options, "model_state": there(options["model_state"])}
    given = batches(3)
    cpu = run(dropped, two_layers(), given, plan=True, **options)
    planned = run(dropped, there(two_layers()), [there(b) for b in given], plan=True, **moved)
    assert isinstance(planned[4]._parts["params"], DeviceStore)
    assert_close(here(planned[:3]), cpu[:3], 1e-10)


def test_a_label_that_is_no_class_makes_the_loss_nan(device):
    x, y = batch(0)
    for plan in (True, False):
        step, state = made(plan=plan)
        state, value = step(state, *there((x, np.where(np.arange(6) == 2, 3, y))))
        assert np.isnan(here(value)) and np.isnan(here(state.params)["b2"]).all()


def test_value_trains_nothing(device):
    step, state = made()
    state, _ = step(state, *there(batch(0)))
    before = here(state.params)
    expected = loss(before, *batch(1))
    for _ in range(2):
        np.testing.assert_allclose(here(step.value(state, *there(batch(1)))), expected, rtol=1e-12)
    assert_same_bits(here(state.params), before)


# --- what a step costs


@pytest.mark.parametrize("options", [{}, {"structure": "rank1"}, RANK1], ids=str)
def test_launches_of_an_mlp_of_three_layers(device, options, monkeypatch):
    products = []

    def counted(a, b, out, own, sums):
        products.append(a.shape)
        a.dot(b, out)

    monkeypatch.setattr(stages, "product", counted)
    step = dg.training_step(lambda m, x, y: cross_entropy(m(x), y), dg.optim.sgd(0.1), **options)
    state = step.init(there(dg.nn.MLP([6, 40, 33, 3], key=KEY)), KEY)
    x, y = there((normal(1, 7, 6, dtype=np.float32), np.arange(7) % 3))
    state, _ = step(state, x, y)
    before = cuda.launches
    products.clear()
    state, _ = step(state, x, y)
    copies = 3  # of the batch into the plan's buffers, and of the loss that is handed out
    assert cuda.launches - before + len(products) + copies <= 20
    dense = "structure" not in options
    assert len(products) == (6 if dense else 3)


def test_nothing_waits_for_the_device(device):
    step, state = made(**RANK1)
    given = [there(batch(i)) for i in range(3)]
    state, _ = step(state, *given[0])
    step.value(state, *given[0])
    with no_transfers(device):
        for arguments in given[1:]:
            state, value = step(state, *arguments)
        assert value.shape == step.value(state, *given[0]).shape == ()
    before = here(value)
    state, later = step(state, *given[0])
    assert here(value) == before != here(later)  # each step hands out an array of its own


# --- graphs


@pytest.mark.parametrize("options", [DENSE, RANK1], ids=str)
def test_a_captured_step_gives_the_same_bits(device, captured, monkeypatch, options):
    step, state = made(**options)
    assert "a CUDA graph from the third step on (DUALGRAD_CUDA_GRAPH=1)" in explained(
        step, state, *there(batch(0))
    )
    replayed, after = trained(6, step, state)
    monkeypatch.setattr("dualgrad.plan.device.CAPTURED_AT", -1)  # never
    launched, expected = trained(6, *made(**options))
    assert_same_bits((replayed, after), (launched, expected))


def test_a_captured_step_launches_two_kernels(device, captured):
    step, state = made(**RANK1)
    for i in range(3):
        state, _ = step(state, *there(batch(i)))
    before, (x, y) = cuda.launches, there(batch(4))
    with no_transfers(device):
        state, _ = step(state, x, y)
    assert cuda.launches - before == 1  # that which draws; the graph is the other


def test_where_capturing_fails_the_launches_go_on(device, captured, monkeypatch):
    values, params = trained(4, *made(**RANK1))
    monkeypatch.setattr(stages, "gemm", lambda a, b, out, sums: a.dot(b, out))  # refused by CuPy
    step, state = made(**RANK1)
    kept = []
    for i in range(4):
        state, value = step(state, *there(batch(i)))
        kept.append(here(value))
    assert_close((kept, here(state.params)), (values, params), 1e-10)
    text = explained(step, state, *there(batch(0)))
    assert "launched one by one, as capturing a graph raised: " in text
    assert "cuBLAS" in text


def test_steps_of_many_small_layers_are_captured(device, monkeypatch):
    monkeypatch.delenv("DUALGRAD_CUDA_GRAPH")
    monkeypatch.setattr("dualgrad.plan.device.GRAPH_WORK", 600)
    model = dg.nn.MLP([4, *[5] * 8, 3], key=KEY)  # some 1e4 multiply-adds
    step, state = made(lambda m, x, y: cross_entropy(m(x), y), model)
    x, y = there((normal(1, 6, 4, dtype=np.float32), np.arange(6) % 3))
    assert "a CUDA graph from the third step on" in explained(step, state, x, y)


def test_large_steps_are_not_captured(device, monkeypatch):
    monkeypatch.delenv("DUALGRAD_CUDA_GRAPH")
    step, state = made()
    assert "a CUDA graph from the third step on (4.1e+02 multiply-adds a layer" in explained(
        step, state, *there(batch(0))
    )
    monkeypatch.setattr("dualgrad.plan.device.GRAPH_WORK", 300)
    step, state = made()
    assert "launched one by one (4.1e+02 multiply-adds" in explained(step, state, *there(batch(0)))
    monkeypatch.setenv("DUALGRAD_CUDA_GRAPH", "yes")
    with pytest.raises(dg.OptionError, match="DUALGRAD_CUDA_GRAPH is 'yes'"):
        made()


# --- who owns the parameters


def test_a_used_state_is_refused_and_reading_gives_copies(device):
    step, first = made()
    second, _ = step(first, *there(batch(0)))
    with pytest.raises(dg.LevelError, match="went into a later step"):
        step(first, *there(batch(0)))
    read = second.params
    read["w1"][...] = 0
    third, _ = step(second, *there(batch(1)))
    with pytest.raises(dg.LevelError, match="went into a later step"):
        _ = second.params
    expected = run(loss, two_layers(), batches(2), plan=True)[1]
    assert_close(here(third.params), expected, 1e-10)


def test_a_state_goes_from_one_step_to_another(device):
    ends = []
    for move in (there, here):
        first = dg.training_step(loss, dg.optim.sgd(0.05), **RANK1)
        second = dg.training_step(loss, dg.optim.sgd(0.5), directions=2)
        state, values = first.init(move(two_layers()), KEY), []
        for i, step in enumerate((first, second, second, first)):
            state, value = step(state, *move(batch(i)))
            values.append(here(value))
        ends.append((values, here(state.params)))
    assert_close(*ends, 1e-10)


@pytest.mark.parametrize("graphs", ["0", "1"])
def test_an_interrupt_finds_a_step_done_or_not_begun(device, monkeypatch, graphs):
    monkeypatch.setenv("DUALGRAD_CUDA_GRAPH", graphs)
    step, state = made(**RANK1)
    for i in range(3):
        state, _ = step(state, *there(batch(i)))
    start = here(state.params)
    launch = cuda.Source.launch
    for stop in range(20):
        left = [stop]

        def interrupted(self, *arguments, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            launch(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(cuda.Source, "launch", interrupted)
            try:
                state, _ = step(state, *there(batch(3)))
                break
            except KeyboardInterrupt:
                pass
        if graphs == "0" and left == [0] and state._parts["params"].steps != 3:
            break  # at the update itself: the state says that it is used
        assert_same_bits(here(state.params), start)
    assert stop == (1 if graphs == "1" else 7)


def test_a_state_is_saved_and_loaded(device, tmp_path):
    step, state = made(**RANK1)
    for i in range(2):
        state, _ = step(state, *there(batch(i)))
    dg.save(tmp_path / "state", state)
    again = dg.load(tmp_path / "state", like=made(**RANK1)[1])
    state, _ = step(state, *there(batch(2)))
    again, _ = step(again, *there(batch(2)))
    assert_same_bits(here(again.params), here(state.params))


# --- what is not planned


@pytest.mark.parametrize(
    ("function", "params", "options", "reason"),
    [
        (loss, two_layers(), {"directions": 17}, "directions=17: a GPU's stages take up to 16"),
        (
            loss,
            {**two_layers(), "b2": np.zeros(3, np.float32)},
            {},
            "one dtype, and these are float32, float64",
        ),
        (lambda p, x, y: np.mean((x @ p["w"]) ** 2), {"w": normal(1, 4, 3)}, {}, "cross_entropy"),
        (
            lambda p, x, y: cross_entropy(np.tanh(x @ p["w1"]) @ p["w2"], y),
            {"w1": normal(1, 4, 8), "w2": normal(1, 8, 3)},
            {},
            "tanh(%6) runs on duals, at ",
        ),
    ],
)
def test_other_losses_run_eagerly_and_say_why(device, function, params, options, reason):
    step, state = made(function, params, **options)
    text = explained(step, state, *there(batch(0)))
    assert text.startswith("eager, as ")
    assert reason in text
    state, value = step(state, *there(batch(0)))
    assert not isinstance(state._parts["params"], DeviceStore)


def test_a_device_array_that_is_no_argument_is_not_recorded(device):
    scale = there(np.ones(4))
    step, state = made(lambda p, x, y: loss(p, x * scale, y))
    text = explained(step, state, *there(batch(0)))
    assert "it reads a device array of shape (4,) that is no argument" in text


def test_a_batch_in_host_memory_is_refused(device):
    step, state = made()
    with pytest.raises(dg.DeviceError, match="nothing is moved in silence"):
        step(state, *batch(0))
    state, _ = step(state, *there(batch(0)))
    with pytest.raises(dg.DeviceError, match="nothing is moved in silence"):
        step(state, *batch(0))
