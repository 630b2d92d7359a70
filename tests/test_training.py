"""training_step: equal to its parts bit for bit, resumable bit for bit, small in memory."""

import tracemalloc

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.kernels import dispatch

KEY = dg.Key(5)
FLOAT64 = {"dtype": np.float64}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def batch(number):
    x = normal(100 + number, 6, 4)
    return x, np.array([0, 1, 2, 0, 1, 2])


def model(key=KEY):
    return dg.nn.MLP([4, 8, 3], key=key, **FLOAT64)


def loss(params, x, y):
    return dg.nn.cross_entropy(params(x), y, reduction="none")


def assert_same_bits(one, other):
    for a, b in zip(dg.tree.leaves(one), dg.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def copied(params):
    return dg.tree.map(lambda w: w.copy() if isinstance(w, np.ndarray) else w, params)


OPTIMISERS = {
    "sgd": lambda: dg.optim.sgd(dg.optim.cosine(0.05, 20)),
    "momentum": lambda: dg.optim.sgd(0.01, momentum=0.9),
    "adam": lambda: dg.optim.adam(0.01),
}
METHODS = {
    "dense": {"distribution": "normal", "directions": 2},
    "rank1": {"structure": "rank1", "directions": 3},
    "frog": {"combine": "projection", "directions": 3},
    "activations": {"perturb": "activations", "directions": 2},
    "chunks-and-clip": {"directions": 4, "chunk_size": 2, "clip": 0.5},
}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("plan", [False, True])
def test_a_step_is_the_estimate_and_the_update(options, optimiser, plan):
    optimiser = OPTIMISERS[optimiser]()
    step = dg.training_step(loss, optimiser, plan=plan, precision="exact", **options)
    state = step.init(model(), KEY)
    params = copied(model())
    memory = optimiser.init(params)
    fg = dg.forward_gradient(loss, **options)
    for number in range(4):
        state, value = step(state, *batch(number))
        expected, gradient = fg(params, *batch(number), key=KEY.fold_in(number))
        params, memory = optimiser.update(params, gradient, memory)
        if plan:  # plans promise the same numbers to rounding
            np.testing.assert_allclose(value, expected, rtol=1e-10)
            for a, b in zip(dg.tree.leaves(state.params), dg.tree.leaves(params), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        else:
            assert value == expected
            assert_same_bits(state.params, params)
        assert state.step == number + 1 and state.key == KEY


def test_backprop_takes_the_gradient():
    optimiser = dg.optim.sgd(0.1)
    step = dg.training_step(loss, optimiser, method="backprop")
    state, params = step.init(model(), KEY), copied(model())
    memory = optimiser.init(params)

    def mean(params, *batch):
        return np.mean(loss(params, *batch))

    for number in range(3):
        state, value = step(state, *batch(number))
        np.testing.assert_allclose(value, mean(params, *batch(number)), rtol=1e-12)
        gradient = dg.gradient(mean)(params, *batch(number))  # forward mode: one pass an entry
        params, memory = optimiser.update(params, gradient, memory)
        for a, b in zip(dg.tree.leaves(state.params), dg.tree.leaves(params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "options",
    [{"structure": "rank1", "directions": 4}, {"perturb": "activations"}, {"method": "backprop"}],
    ids=str,
)
def test_training_lowers_the_loss(options):
    x, y = batch(0)
    rate = 0.02 if options.get("structure") else 0.1
    step = dg.training_step(loss, dg.optim.sgd(rate), **options)
    state = step.init(model(), KEY)
    for _ in range(300):
        state, _ = step(state, x, y)
    assert np.mean(loss(state.params, x, y)) < 0.5 * np.mean(loss(model(), x, y))


# --- who owns what


def test_a_used_state_is_refused_whatever_is_asked_of_it():
    step = dg.training_step(loss, dg.optim.sgd(0.1))
    state = step.init(model(), KEY)
    step(state, *batch(0))
    assert repr(state) == "TrainingState(used)"
    for use in (
        lambda: step(state, *batch(0)),
        lambda: state.params,
        lambda: state.model_state,
        lambda: state.step,
        lambda: state.key,
        lambda: state.state_tree(),
    ):
        with pytest.raises(dg.LevelError, match="went into a later step"):
            use()


def test_a_step_that_fails_leaves_its_state_as_it_was():
    step = dg.training_step(loss, dg.optim.sgd(0.1))
    state = step.init(model(), KEY)
    with pytest.raises(dg.ShapeError):
        step(state, np.ones((6, 5)), batch(0)[1])
    assert_same_bits(state.params, model())
    assert state.step == 0


def test_parameters_are_copied_on_the_way_in_and_on_the_way_out():
    step = dg.training_step(loss, dg.optim.sgd(0.1))
    given = model()
    one, other = step.init(given, KEY), step.init(given, KEY)
    for number in range(3):
        read = one.params
        for leaf in dg.tree.leaves(read):
            leaf[...] = np.nan
        one, a = step(one, *batch(number))
        other, b = step(other, *batch(number))
        assert a == b
    assert_same_bits(one.params, other.params)
    assert_same_bits(given, model())


def test_integer_arrays_are_copied_too():
    params = {"w": np.ones(3), "index": np.array([0, 2])}
    step = dg.training_step(lambda p: np.sum(p["w"][p["index"]] ** 2), dg.optim.sgd(0.1))
    state = step.init(params, KEY)
    params["index"][:] = 1
    state.params["index"][:] = 1
    np.testing.assert_array_equal(state.params["index"], [0, 2])
    assert step(state)[1] == 2  # of two entries


# --- what a loss may take and give


def normalised(key=KEY):
    return dg.nn.Sequential(
        dg.nn.Linear(4, 6, key=key, **FLOAT64),
        dg.nn.BatchNorm(6, **FLOAT64),
        dg.nn.Linear(6, 3, key=key.fold_in(1), **FLOAT64),
    )


@pytest.mark.parametrize("method", ["forward", "backprop"])
@pytest.mark.parametrize("has_aux", [False, True])
def test_model_state_goes_from_step_to_step(method, has_aux):
    def stateful_loss(params, model_state, x, y):
        logits, new = params(x, model_state)
        value = np.mean(dg.nn.cross_entropy(logits, y, reduction="none"))
        return (value, new, logits) if has_aux else (value, new)

    step = dg.training_step(
        stateful_loss, dg.optim.sgd(0.0), method=method, has_state=True, has_aux=has_aux
    )
    network = normalised()
    given = network.init_state()
    state = step.init(network, KEY, given)
    running = network.init_state()
    for number in range(3):
        x, y = batch(number)
        logits, running = network(x, running)
        state, result = step(state, x, y)
        value = result[0] if has_aux else result
        np.testing.assert_allclose(value, dg.nn.cross_entropy(logits, y), rtol=1e-12)
        if has_aux:
            assert type(result[1]) is np.ndarray
            np.testing.assert_allclose(result[1], logits, rtol=1e-12)
        for a, b in zip(dg.tree.leaves(state.model_state), dg.tree.leaves(running), strict=True):
            assert type(a) is np.ndarray
            np.testing.assert_allclose(a, b, rtol=1e-12)
    for leaf in dg.tree.leaves(state.model_state):
        leaf[...] = np.nan  # a copy
    assert np.all(np.isfinite(dg.tree.leaves(state.model_state)[0]))
    assert_same_bits(given, network.init_state())


@pytest.mark.parametrize("method", ["forward", "backprop"])
def test_aux_comes_back_with_the_value(method):
    step = dg.training_step(
        lambda w, x: (np.sum((w - x) ** 2), {"w": w, "sum": np.sum(w)}),
        dg.optim.sgd(0.1),
        method=method,
        has_aux=True,
    )
    state, (value, aux) = step(step.init(np.ones(3), KEY), np.zeros(3))
    assert value == 3 and aux["sum"] == 3 and type(aux["w"]) is np.ndarray
    np.testing.assert_array_equal(aux["w"], np.ones(3))


def test_a_loss_may_keep_the_parameters_it_saw():
    """What it gives back is not written over by the steps that follow."""
    step = dg.training_step(
        lambda w, last: (np.sum((w - 1) ** 2), {"last": w}), dg.optim.sgd(0.1), has_state=True
    )
    state = step.init(np.zeros(3), KEY, {"last": np.full(3, np.nan)})
    for _ in range(3):
        before = state.params
        state, _ = step(state)
        np.testing.assert_array_equal(state.model_state["last"], before)
        assert not np.array_equal(before, state.params)


@pytest.mark.parametrize("method", ["forward", "backprop"])
def test_a_loss_that_names_a_key_gets_another_each_step(method):
    seen = []

    def dropped(w, x, *, key):
        seen.append(key)
        return np.sum(dg.nn.Dropout(0.5)(w * x, key=key))

    step = dg.training_step(dropped, dg.optim.sgd(0.1), method=method)
    for _ in range(2):
        state = step.init(np.ones(20), KEY)
        for _ in range(3):
            state, _ = step(state, np.ones(20))
    assert seen[:3] == seen[3:] and len(set(map(repr, seen))) == 3
    fg_key = KEY.fold_in(0)
    assert seen[0] == fg_key.fold_in("loss")


# --- checkpoints


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_a_run_that_is_saved_and_loaded_goes_on_bit_for_bit(options, optimiser, tmp_path):
    path = tmp_path / "state.safetensors"

    def run(first, last, state):
        step = dg.training_step(loss, OPTIMISERS[optimiser](), **options)
        state = step.init(model(dg.Key(999)), dg.Key(999)) if state is None else state(step)
        for number in range(first, last):
            state, value = step(state, *batch(number))
        return state, value

    whole, value = run(0, 6, lambda step: step.init(model(), KEY))
    half, _ = run(0, 3, lambda step: step.init(model(), KEY))
    dg.save(path, half)
    like = model(dg.Key(999))  # another key: everything comes from the file
    resumed, again = run(3, 6, lambda step: dg.load(path, like=step.init(like, dg.Key(999))))
    assert value == again and resumed.step == 6 and resumed.key == KEY
    assert_same_bits(whole.params, resumed.params)
    whole_parts, parts = whole.state_tree(), resumed.state_tree()
    assert_same_bits(whole_parts["optimiser"], parts["optimiser"])


def test_the_saved_state_itself_goes_on(tmp_path):
    step = dg.training_step(loss, dg.optim.sgd(0.1))
    one, other = (step.init(model(), KEY) for _ in range(2))
    dg.save(tmp_path / "state.safetensors", one)
    one, _ = step(one, *batch(0))
    other, _ = step(other, *batch(0))
    assert_same_bits(one.params, other.params)
    with pytest.raises(dg.CheckpointError):
        dg.load(tmp_path / "nothing.safetensors", like=one)


# --- memory


@pytest.mark.parametrize(
    "optimiser", [lambda: dg.optim.sgd(0.01), lambda: dg.optim.sgd(0.01, momentum=0.9)]
)
@pytest.mark.parametrize("k", [1, 8])
def test_a_step_along_rank_one_directions_makes_no_array_of_the_parameters_size(
    optimiser, k, monkeypatch
):
    network = dg.nn.MLP([1024, 1024, 10], key=KEY)
    x, y = normal(1, 4, 1024).astype(np.float32), np.array([1, 2, 3, 4])
    step = dg.training_step(loss, optimiser(), structure="rank1", directions=k)
    state = step.init(network, KEY)
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "numba_use", "always")
        state, _ = step(state, x, y)  # loads what is loaded once
    tracemalloc.start()
    try:
        state, _ = step(state, x, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = sum(w.nbytes for w in dg.tree.leaves(network) if isinstance(w, np.ndarray))
    assert peak < size / 4


# --- what is refused


@pytest.mark.parametrize(
    "options, said",
    [
        ({"method": "backward"}, "method='backward'"),
        ({"precision": "double"}, "precision='double'"),
        ({"direction": 3}, "['direction']"),
        ({"argnums": 1}, "['argnums']"),
        ({"with_info": True}, "['with_info']"),
        ({"method": "backprop", "directions": 3}, "backprop takes none"),
        ({"structure": "rank2"}, "structure='rank2'"),
        ({"perturb": "activations", "structure": "rank1"}, "has no meaning"),
    ],
    ids=str,
)
def test_options_are_refused_at_once(options, said):
    with pytest.raises(dg.OptionError) as caught:
        dg.training_step(loss, dg.optim.sgd(0.1), **options)
    assert said in str(caught.value)


def test_what_init_and_the_loss_must_give():
    step = dg.training_step(loss, dg.optim.sgd(0.1))
    with pytest.raises(dg.OptionError, match="key=5"):
        step.init(model(), 5)
    with pytest.raises(dg.OptionError, match="has_state=False"):
        step.init(model(), KEY, {})
    stateful = dg.training_step(loss, dg.optim.sgd(0.1), has_state=True, has_aux=True)
    with pytest.raises(dg.OptionError, match="model_state missing"):
        stateful.init(model(), KEY)
    bare = dg.training_step(
        lambda w, state: np.sum(w**2), dg.optim.sgd(0.1), has_state=True, has_aux=True
    )
    with pytest.raises(dg.StructureError, match=r"\(value, new_model_state, aux\)"):
        bare(bare.init(np.ones(3), KEY, {}))


def test_explain_says_how_a_step_runs(capsys):
    step = dg.training_step(loss, dg.optim.sgd(0.1), directions=3)
    step.explain(step.init(model(), KEY), *batch(0))
    assert "forward_gradient (directions=3)" in capsys.readouterr().out
    step = dg.training_step(loss, dg.optim.sgd(0.1), method="backprop")
    step.explain(step.init(model(), KEY), *batch(0))
    assert "vjp" in capsys.readouterr().out
