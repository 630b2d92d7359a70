"""The optimisers, against the textbook formulas written out entry by entry."""

import copy
import dataclasses
import math
import tracemalloc

import numpy as np
import pytest

from dualgrad import optim, tree
from dualgrad.errors import DtypeError, OptionError, ShapeError, StructureError, WriteError
from dualgrad.structured import LowRank

# --- the formulas: each turns (w, gradients of the steps) into the last w, on Python numbers


def sgd_by_hand(w, gradients, lr, momentum=0.0, nesterov=False):
    buffer = 0.0
    for g in gradients:
        buffer = momentum * buffer + g
        w = w - lr * (g + momentum * buffer if nesterov else buffer)
    return w


def adam_by_hand(w, gradients, lr, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        w = w - lr * decay * w
        w = w - lr * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + eps)
    return w


def rmsprop_by_hand(w, gradients, lr, decay=0.9, eps=1e-8):
    v = 0.0
    for g in gradients:
        v = decay * v + (1 - decay) * g**2
        w = w - lr * g / (math.sqrt(v) + eps)
    return w


RULES = {
    "sgd": (optim.sgd(0.1), lambda w, g: sgd_by_hand(w, g, 0.1)),
    "momentum": (optim.sgd(0.1, 0.9), lambda w, g: sgd_by_hand(w, g, 0.1, 0.9)),
    "nesterov": (
        optim.sgd(0.1, momentum=0.8, nesterov=True),
        lambda w, g: sgd_by_hand(w, g, 0.1, 0.8, True),
    ),
    "adam": (
        optim.adam(0.02, 0.8, 0.9, 1e-3),
        lambda w, g: adam_by_hand(w, g, 0.02, 0.8, 0.9, 1e-3),
    ),
    "adam defaults": (optim.adam(0.02), lambda w, g: adam_by_hand(w, g, 0.02)),
    "adamw": (
        optim.adamw(0.02, weight_decay=0.3),
        lambda w, g: adam_by_hand(w, g, 0.02, decay=0.3),
    ),
    "rmsprop": (optim.rmsprop(0.02), lambda w, g: rmsprop_by_hand(w, g, 0.02)),
    "rmsprop options": (
        optim.rmsprop(0.02, 0.7, 0.1),
        lambda w, g: rmsprop_by_hand(w, g, 0.02, 0.7, 0.1),
    ),
}
every_rule = pytest.mark.parametrize("name", RULES)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def low_rank(seed, shape, rank=3, dtype=np.float64):
    rows = math.prod(shape[:-1])
    left = normal(seed, rank, rows).astype(dtype)
    right = normal(seed + 1, rank, shape[-1]).astype(dtype)
    return LowRank(left, right, shape)


@every_rule
@pytest.mark.parametrize("shape", [(), (5,), (4, 3), (2, 3, 2, 4)])
def test_a_rule_is_its_formula_in_every_entry(name, shape):
    optimiser, by_hand = RULES[name]
    start = np.asarray(normal(0, *shape))
    gradients = [np.asarray(normal(step, *shape)) for step in range(1, 6)]
    params = {"w": start.copy()}
    state = optimiser.init(params)
    for g in gradients:
        params, state = optimiser.update(params, {"w": g}, state)
    for index in np.ndindex(shape):
        expected = by_hand(float(start[index]), [float(g[index]) for g in gradients])
        assert params["w"][index] == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert state["step"] == 5 and state["step"].dtype == np.int64


@every_rule
@pytest.mark.parametrize("shape", [(300, 200), (3, 3, 40, 50)])
def test_a_low_rank_gradient_does_what_its_dense_form_does(name, shape):
    optimiser, _ = RULES[name]
    factored, dense = [normal(7, *shape)], [normal(7, *shape)]
    factored_state, dense_state = optimiser.init(factored), optimiser.init(dense)
    for step in range(3):
        g = low_rank(step, shape)
        factored, factored_state = optimiser.update(factored, [g], factored_state)
        dense, dense_state = optimiser.update(dense, [g.dense()], dense_state)
    assert not np.allclose(dense[0], normal(7, *shape))
    np.testing.assert_allclose(factored[0], dense[0], rtol=1e-9, atol=1e-11)


@every_rule
def test_a_parameter_that_is_not_contiguous_is_written_all_the_same(name):
    optimiser, _ = RULES[name]
    for g in (normal(1, 6, 4), low_rank(1, (6, 4))):
        base = np.asfortranarray(normal(0, 6, 4))
        plain = np.ascontiguousarray(base)
        for w in (base, plain):
            optimiser.update([w], [g], optimiser.init([w]))
        assert not np.allclose(plain, normal(0, 6, 4))
        np.testing.assert_allclose(base, plain, rtol=1e-12)


@every_rule
def test_arrays_are_written_in_place_and_keep_their_dtype(name):
    optimiser, _ = RULES[name]
    params = {
        "single": np.ones((3, 2), np.float32),
        "half": np.ones(4, np.float16),
        "zero": np.array(1.0, np.float32),
    }
    gradient = {
        "single": normal(1, 3, 2),
        "half": np.full(4, 0.1, np.float16),
        "zero": np.float32(2),
    }
    before = copy.deepcopy(params)
    state = optimiser.init(params)
    updated, new_state = optimiser.update(params, gradient, state)
    for path, array in params.items():
        assert updated[path] is array
        assert array.dtype == before[path].dtype
        assert np.all(np.isfinite(array))
        assert not np.array_equal(array, before[path])
    memories = [
        array for key, part in new_state.items() if key != "step" for array in part.values()
    ]
    assert all(array.dtype == np.float32 for array in memories)


@every_rule
def test_scalars_are_replaced_by_scalars_of_their_type(name):
    optimiser, by_hand = RULES[name]
    params = {"python": 1.5, "numpy": np.float32(1.5)}
    updated, _ = optimiser.update(params, {"python": 0.5, "numpy": 0.5}, optimiser.init(params))
    assert type(updated["python"]) is float and type(updated["numpy"]) is np.float32
    assert updated["python"] == pytest.approx(by_hand(1.5, [0.5]), rel=1e-12)
    assert float(updated["numpy"]) == pytest.approx(by_hand(1.5, [0.5]), rel=1e-6)
    assert params["python"] == 1.5


@dataclasses.dataclass
class Model:
    weight: np.ndarray
    bias: np.ndarray | None
    size: int
    function: object = np.tanh


def test_static_leaves_stay_and_need_no_gradient():
    params = {"model": Model(np.ones(2), None, 3), "name": "net", "ids": np.arange(3), "none": None}
    gradient = {"model": Model(np.ones(2), None, 3), "name": None, "ids": None, "none": None}
    optimiser = optim.sgd(0.5)
    updated, _ = optimiser.update(params, gradient, optimiser.init(params))
    np.testing.assert_array_equal(updated["model"].weight, [0.5, 0.5])
    assert updated["model"].size == 3 and updated["model"].function is np.tanh
    assert updated["name"] == "net" and updated["ids"] is params["ids"] and updated["none"] is None


@every_rule
def test_a_state_put_back_from_its_bits_goes_on_as_before(name):
    optimiser, _ = RULES[name]
    params = {"w": normal(0, 3, 2)}
    params, state = optimiser.update(params, {"w": normal(1, 3, 2)}, optimiser.init(params))
    leaves, structure = tree.flatten((params, state))
    bits = [np.frombuffer(leaf.tobytes(), leaf.dtype).reshape(leaf.shape).copy() for leaf in leaves]
    params_again, state_again = tree.unflatten(structure, bits)
    for _ in range(2):
        params, state = optimiser.update(params, {"w": normal(2, 3, 2)}, state)
        params_again, state_again = optimiser.update(
            params_again, {"w": normal(2, 3, 2)}, state_again
        )
    np.testing.assert_array_equal(params["w"], params_again["w"])


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("factored", [True, False])
def test_an_update_allocates_nothing_of_a_parameters_size(name, factored):
    optimiser, _ = RULES[name]
    shape = (2048, 1024)
    params = [np.ones(shape, np.float32)]
    g = low_rank(0, shape, rank=2, dtype=np.float32) if factored else np.ones(shape, np.float32)
    state = optimiser.init(params)
    params, state = optimiser.update(params, [g], state)  # loads what is loaded once
    tracemalloc.start()
    try:
        optimiser.update(params, [g], state)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < params[0].nbytes / 4


# --- schedules


def test_schedules_have_the_values_of_their_formulas():
    exponential = optim.exponential(0.2, 1e-4)
    assert exponential(0) == 0.2
    assert exponential(10_000) == pytest.approx(0.2 / math.e)
    assert [optim.step(1.0, 2, 0.1)(i) for i in range(5)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    cosine = optim.cosine(1.0, 4, final=0.2)
    half = math.sqrt(0.5)
    expected = [1, 0.6 + 0.4 * half, 0.6, 0.6 - 0.4 * half, 0.2, 0.2]
    assert [cosine(i) for i in range(6)] == pytest.approx(expected)
    assert optim.cosine(1.0, 4)(4) == 0
    assert [optim.warmup(0.8, 4)(i) for i in range(6)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 0.8, 0.8]
    )
    warm = optim.warmup(optim.step(1.0, 1, 0.5), 2)
    assert [warm(i) for i in range(3)] == pytest.approx([0.5, 0.5, 0.25])


def test_a_schedule_sets_the_rate_of_each_step_from_step_zero():
    seen = []

    def schedule(step):
        seen.append(step)
        return [0.5, 0.25, 0.0][step]

    optimiser = optim.sgd(schedule)
    params = [np.array([1.0])]
    state = optimiser.init(params)
    values = []
    for _ in range(3):
        params, state = optimiser.update(params, [np.array([1.0])], state)
        values.append(float(params[0][0]))
    assert seen == [0, 1, 2]
    assert values == [0.5, 0.25, 0.25]


def test_a_numpy_rate_leaves_float32_parameters_float32():
    optimiser = optim.sgd(lambda step: np.float64(0.5))
    params = [np.float32(1)]
    updated, _ = optimiser.update(params, [np.float32(1)], optimiser.init(params))
    assert updated[0] == 0.5 and type(updated[0]) is np.float32


# --- chains


def test_clip_by_norm_shortens_long_gradients_only():
    clip = optim.clip_by_norm(1.0)
    gradient = {"a": np.array([3.0, 0.0]), "b": np.array(4.0), "static": None}
    clipped = clip(gradient, None)
    np.testing.assert_allclose(clipped["a"], [0.6, 0.0])
    np.testing.assert_allclose(clipped["b"], 0.8)
    np.testing.assert_array_equal(gradient["a"], [3.0, 0.0])
    short = {"a": np.array([0.3, 0.4])}
    assert clip(short, None)["a"] is short["a"]


def test_clip_by_norm_keeps_low_rank_leaves():
    g = low_rank(3, (8, 5))
    norm = math.sqrt(float(np.sum(g.dense() ** 2)) + 9.0)
    clipped = optim.clip_by_norm(0.5)([g, np.array([3.0])], None)
    assert isinstance(clipped[0], LowRank)
    np.testing.assert_allclose(clipped[0].dense(), g.dense() * (0.5 / norm), rtol=1e-12)
    np.testing.assert_allclose(clipped[1], [1.5 / norm])


@pytest.mark.parametrize("entry", [np.nan, np.inf])
def test_clip_by_norm_does_not_hide_a_gradient_that_is_not_finite(entry):
    gradient = [np.array([entry, 1.0])]
    assert optim.clip_by_norm(1.0)(gradient, None)[0] is gradient[0]


def test_clip_by_norm_survives_squares_beyond_float32():
    (clipped,) = optim.clip_by_norm(1.0)([np.array([3e30, 4e30], np.float32)], None)
    assert clipped.dtype == np.float32
    np.testing.assert_allclose(clipped, [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("factored", [True, False])
def test_weight_decay_adds_the_gradient_of_the_squared_norm(factored):
    w = normal(0, 6, 4)
    g = low_rank(1, (6, 4)) if factored else normal(1, 6, 4)
    dense = g.dense() if factored else g.copy()
    (decayed,) = optim.weight_decay(0.3)([g], [w])
    np.testing.assert_allclose(decayed, dense + 0.3 * w, rtol=1e-12)
    np.testing.assert_array_equal(w, normal(0, 6, 4))
    np.testing.assert_array_equal(g.dense() if factored else g, dense)


def test_a_chain_runs_left_to_right_and_the_rule_writes():
    def double(gradient, params):
        return tree.map(lambda g: 2 * g, gradient)

    def train(*transforms):
        optimiser = optim.chain(*transforms, optim.sgd(0.5))
        params = [np.array([3.0, 4.0])]
        state = optimiser.init(params)
        params, state = optimiser.update(params, [np.array([3.0, 4.0])], state)
        assert state["step"] == 1
        return params[0]

    np.testing.assert_allclose(train(), [1.5, 2.0])
    np.testing.assert_allclose(train(optim.clip_by_norm(1.0), double), [2.4, 3.2])
    np.testing.assert_allclose(train(double, optim.clip_by_norm(1.0)), [2.7, 3.6])
    # the gradient (0.6, 0.8) and half the parameters, times 0.5
    decayed = train(optim.clip_by_norm(1.0), optim.weight_decay(0.5))
    np.testing.assert_allclose(decayed, [3 - 0.5 * 2.1, 4 - 0.5 * 2.8])


def test_a_chain_without_a_rule_at_the_end_is_refused():
    for parts in (
        (),
        (optim.clip_by_norm(1.0),),
        (optim.sgd(0.1), optim.sgd(0.1)),
        (3, optim.sgd(0.1)),
    ):
        with pytest.raises(OptionError, match="chain"):
            optim.chain(*parts)


# --- bad arguments


@pytest.mark.parametrize("make", [optim.sgd, optim.adam, optim.adamw, optim.rmsprop])
@pytest.mark.parametrize("lr", [math.nan, math.inf, -0.1, "0.1", None, True])
def test_a_bad_learning_rate_is_refused_at_once(make, lr):
    with pytest.raises(OptionError, match="learning rate"):
        make(lr)


def test_a_schedule_with_a_bad_value_is_refused_at_its_step_and_nothing_is_written():
    optimiser = optim.sgd(lambda step: 0.1 if step == 0 else math.nan)
    params = [np.ones(2)]
    params, state = optimiser.update(params, [np.ones(2)], optimiser.init(params))
    before = params[0].copy()
    with pytest.raises(OptionError, match="at step 1 is nan"):
        optimiser.update(params, [np.ones(2)], state)
    np.testing.assert_array_equal(params[0], before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.sgd(0.1, momentum=1.0),
        lambda: optim.sgd(0.1, momentum=-0.1),
        lambda: optim.sgd(0.1, nesterov=True),
        lambda: optim.adam(0.1, b1=1.0),
        lambda: optim.adam(0.1, b2=-1),
        lambda: optim.adam(0.1, eps=0),
        lambda: optim.adamw(0.1, weight_decay=-1),
        lambda: optim.rmsprop(0.1, decay=math.nan),
        lambda: optim.rmsprop(0.1, eps=-1),
        lambda: optim.clip_by_norm(0),
        lambda: optim.clip_by_norm(math.inf),
        lambda: optim.weight_decay(-1e-4),
        lambda: optim.exponential(-1, 1e-4),
        lambda: optim.exponential(1, math.nan),
        lambda: optim.step(0.1, 0, 0.5),
        lambda: optim.step(0.1, 1.5, 0.5),
        lambda: optim.step(0.1, 10, 0),
        lambda: optim.cosine(0.1, 0),
        lambda: optim.cosine(0.1, 10, final=-1),
        lambda: optim.warmup(math.nan, 10),
        lambda: optim.warmup(0.1, 0),
    ],
)
def test_options_outside_their_range_are_refused(make):
    with pytest.raises(OptionError, match="Give"):
        make()


@every_rule
def test_a_gradient_or_state_of_something_else_is_refused_before_anything_is_written(name):
    optimiser, _ = RULES[name]
    params = {"a": np.ones(3), "b": np.ones((2, 2))}
    state = optimiser.init(params)
    good = np.ones(3)
    with pytest.raises(StructureError, match="structure"):
        optimiser.update(params, {"a": good}, state)
    with pytest.raises(StructureError, match="'b' is None"):
        optimiser.update(params, {"a": good, "b": None}, state)
    with pytest.raises(ShapeError, match=r"'b' has shape \(2, 2\) and its gradient \(2,\)"):
        optimiser.update(params, {"a": good, "b": np.ones(2)}, state)
    with pytest.raises(StructureError, match="init"):
        optimiser.update(params, {"a": good, "b": np.ones((2, 2))}, {})
    locked = {"a": np.ones(3), "b": np.ones((2, 2))}
    locked["b"].flags.writeable = False
    with pytest.raises(WriteError, match="'b' is a read-only array"):
        optimiser.update(locked, {"a": good, "b": np.ones((2, 2))}, state)
    for written in (params, locked):
        np.testing.assert_array_equal(written["a"], np.ones(3))
    if len(state) > 1:
        with pytest.raises(StructureError, match="init"):
            optimiser.update({"a": np.ones(2)}, {"a": np.ones(2)}, state)


def test_complex_parameters_and_paths_that_coincide_are_refused():
    with pytest.raises(DtypeError, match="'w' is complex"):
        optim.adam(0.1).init({"w": np.ones(2, np.complex64)})
    with pytest.raises(StructureError, match="same path"):
        optim.sgd(0.1).init({"a/b": np.ones(2), "a": {"b": np.ones(2)}})
