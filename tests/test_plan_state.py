"""The state of a planned run: reading it changes nothing, copies are apart, files continue it."""

import copy
import pickle
import threading

import numpy as np
import pytest
from plan_case import (
    KEY,
    assert_close,
    assert_same_bits,
    batch,
    batches,
    cross_entropy,
    explained,
    loss,
    need_plans,
    network,
    normal,
    run,
    two_layers,
)

import dualgrad as dg

need_plans()

P = {**two_layers(), "v1": normal(9, 4, 5), "c": normal(10, 5), "v2": normal(11, 5, 2)}
GIVEN = batches(12)


def mixed(p, x, y):
    """A loss with plain calls between its stages, and a leaf that no stage keeps."""
    other = np.tanh(x @ p["v1"] + p["c"]) @ p["v2"]
    return loss(p, x, y) + 0.1 * np.mean(other**2) + 0.01 * np.sum(p["c"] ** 2)


@pytest.fixture(params=["fused", "mixed"])
def function(request):
    return loss if request.param == "fused" else mixed


@pytest.fixture(params=["dense", "rank1"])
def options(request):
    return {"structure": "rank1", "directions": 3} if request.param == "rank1" else {}


def make(function, options, **more):
    return dg.training_step(
        function, dg.optim.sgd(dg.optim.cosine(0.1, 20)), precision="exact", **options, **more
    )


def steps(step, state, given):
    values = []
    for one in given:
        state, value = step(state, *one)
        values.append(value)
    return state, values


@pytest.fixture
def whole(function, options):
    """The values and the parameters of a run that nothing disturbs."""
    step = make(function, options)
    state, values = steps(step, step.init(P, KEY), GIVEN)
    return values, state.params


def disturb(how, step, state, x, y):
    if how == "params":
        for leaf in dg.tree.leaves(state.params):
            leaf[...] = np.nan
    elif how == "value":
        step.value(state, x, y)
        step.value(state, x[:2], y[:2])
    elif how == "explain":
        explained(step, state, x, y)
    elif how == "tree":
        state.state_tree()
    else:
        copy.deepcopy(state)


@pytest.mark.parametrize("how", ["params", "value", "explain", "tree", "deepcopy"])
@pytest.mark.parametrize("every", [1, 3])
def test_looking_at_a_state_changes_no_bit_of_what_follows(function, options, whole, how, every):
    step = make(function, options)
    state, values = step.init(P, KEY), []
    for number, (x, y) in enumerate(GIVEN):
        if number % every == 0:
            disturb(how, step, state, x, y)
        state, value = step(state, x, y)
        values.append(value)
    assert values == whole[0]
    assert_same_bits(state.params, whole[1])


def test_the_value_is_the_loss_that_the_next_step_reports(function, options):
    step = make(function, options)
    state = step.init(P, KEY)
    for x, y in GIVEN:
        value = step.value(state, x, y)
        assert type(value) is np.float64
        np.testing.assert_allclose(value, function(state.params, x, y), rtol=1e-12)
        state, again = step(state, x, y)
        np.testing.assert_allclose(value, again, rtol=1e-12)


def test_the_value_of_a_loss_with_a_key_and_a_state():
    def keyed(p, state, x, y, *, key):
        noise = dg.random.normal(key, x.shape)
        return cross_entropy(network(p, x + state + noise), y), 0.5 * state + x.mean(0)

    step = dg.training_step(keyed, dg.optim.sgd(0.1), has_state=True, precision="exact")
    state = step.init(two_layers(), KEY, np.zeros(4))
    for x, y in GIVEN:
        value = step.value(state, x, y)
        state, expected = step(state, x, y)
        np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize("at", [0, 1, 5])
def test_a_copy_of_a_state_goes_its_own_way(function, options, whole, how, at):
    step = make(function, options)
    state, _ = steps(step, step.init(P, KEY), GIVEN[:at])
    other = how(state)
    state, _ = steps(step, state, GIVEN[at:])
    assert_same_bits(state.params, whole[1])
    other, values = steps(step, other, GIVEN[at:])
    assert values == whole[0][at:]
    assert_same_bits(other.params, whole[1])
    del state
    assert_same_bits(other.params, whole[1])


@pytest.mark.parametrize("at", [1, 5])
def test_a_file_in_the_middle_continues_bit_for_bit(function, options, whole, tmp_path, at):
    pytest.importorskip("safetensors")
    step = make(function, options)
    state, _ = steps(step, step.init(P, KEY), GIVEN[:at])
    dg.save(tmp_path / "state.safetensors", state)
    state, _ = steps(step, state, GIVEN[at:])
    assert_same_bits(state.params, whole[1])
    for again in (step, make(function, options)):
        like = again.init(dg.tree.map(np.zeros_like, P), dg.Key(99))
        loaded = dg.load(tmp_path / "state.safetensors", like=like)
        loaded, values = steps(again, loaded, GIVEN[at:])
        assert values == whole[0][at:]
        assert_same_bits(loaded.params, whole[1])


def test_a_used_state_is_refused(function, options):
    step = make(function, options)
    state = step.init(P, KEY)
    for x, y in GIVEN[:4]:
        following, _ = step(state, x, y)
        for use in (lambda s=state: step(s, *batch(0)), lambda s=state: s.params,
                    lambda s=state: step.value(s, *batch(0))):  # fmt: skip
            with pytest.raises(dg.LevelError, match="went into a later step"):
                use()
        state = following


def test_states_of_one_step_take_turns(function, options, whole):
    """Also with parameters of other shapes, types and structures, and other keys."""
    step = make(function, options)
    narrow = {**P, "w1": P["w1"][:, :5], "b1": P["b1"][:5], "w2": P["w2"][:5]}
    half = dg.tree.map(lambda w: w.astype(np.float32), P)
    starts = [(P, KEY), (narrow, KEY), (P, dg.Key(8)), (half, KEY), ({**P, "z": np.ones(3)}, KEY)]
    alone = [steps(step, step.init(*start), GIVEN) for start in starts]
    states = [step.init(*start) for start in starts]
    values = [[] for _ in starts]
    for x, y in GIVEN:
        for i, state in enumerate(states):
            states[i], value = step(state, x, y)
            values[i].append(value)
    for (expected, seen), state, found in zip(alone, states, values, strict=True):
        assert found == seen
        assert_same_bits(state.params, expected.params)
    assert values[0] == whole[0]
    for (start, key), (expected, seen) in zip(starts, alone, strict=True):
        again = make(function, options, plan=False)
        state, found = steps(again, again.init(start, key), GIVEN)
        rtol = 1e-10 if start is not half else 1e-4
        np.testing.assert_allclose(seen, found, rtol=rtol)
        assert_close(expected.params, state.params, rtol)


def test_eager_and_planned_calls_take_turns(function, options):
    """Batches that no plan can do (other dtypes) come between those that one does."""
    given = [(x.astype(np.float32) if i % 3 == 1 else x, y) for i, (x, y) in enumerate(GIVEN)]
    planned, eager = (run(function, P, given, plan=plan, **options) for plan in (True, False))
    np.testing.assert_allclose(planned[0], eager[0], rtol=1e-6)
    assert_close(planned[1], eager[1], 1e-6)


def test_a_state_goes_from_one_step_to_another(function, options):
    """As where a rate is lowered half-way, by a step with other directions and another loss."""
    more = {**options, "directions": 5, "clip": 0.1}
    ends = []
    for plan in (True, False):
        first = make(function, options, plan=plan)
        second = dg.training_step(
            lambda p, x, y: 2 * function(p, x, y), dg.optim.sgd(0.02), plan=plan, **more
        )
        third = dg.training_step(function, dg.optim.sgd(0.5), plan=plan, **options)
        state, values = steps(first, first.init(P, KEY), GIVEN[:3])
        for step, given in ((second, GIVEN[3:5]), (first, GIVEN[5:7]), (third, GIVEN[7:9])):
            values.append(step.value(state, *given[0]))
            state, found = steps(step, state, given)
            values += found
        ends.append((values, state.params))
    assert_close(*ends, 1e-10)


def test_threads_that_train_their_own_states_get_the_bits_of_one(function, options):
    shared = make(function, options)
    keys = [dg.Key(i) for i in range(4)]
    alone = [steps(shared, shared.init(P, key), GIVEN * 3) for key in keys]
    found = {}
    fresh = make(function, options)

    def work(i):
        step = fresh if i % 2 else make(function, options)
        found[i] = steps(step, step.init(P, keys[i]), GIVEN * 3)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, (state, values) in enumerate(alone):
        assert found[i][1] == values
        assert_same_bits(found[i][0].params, state.params)
