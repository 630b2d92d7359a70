"""Why a step is no plan: what `explain` says is what happens, and says what to do about it."""

import itertools
import re

import numpy as np
import pytest
from plan_case import (
    KEY,
    batch,
    cross_entropy,
    explained,
    loss,
    need_plans,
    network,
    normal,
    relu,
    two_layers,
)

import dualgrad as dg
from dualgrad.plan.packed import Store

need_plans()

P = two_layers()
X, Y = batch(0)
BAD = np.where(np.arange(6) == 2, 7, Y)


def made(function=loss, params=P, **options):
    step = dg.training_step(function, dg.optim.sgd(0.05), **options)
    return step, step.init(params, KEY)


def planned(state):
    return isinstance(state._parts["params"], Store)


# --- what is decided, and for how long


def test_a_bad_first_batch_decides_nothing():
    step, state = made()
    assert "OptionError" in explained(step, state, X, BAD)
    with pytest.raises(dg.OptionError, match="labels go from 0 to 7"):
        step(state, X, BAD)
    state, _ = step(state, X, Y)
    assert planned(state)
    assert explained(step, state, X, Y).startswith("a plan of: ")


def test_a_loss_that_cannot_be_recorded_is_tried_once():
    calls = itertools.count()  # an object whose state is not compared

    def picky(p, x, y):
        next(calls)
        if not isinstance(x, np.ndarray):
            raise RuntimeError("arrays only")
        return loss(p, x, y)

    step, state = made(picky)
    for _ in range(3):
        state, _ = step(state, X, Y)
    assert not planned(state)
    before = next(calls)
    text = explained(step, state, X, Y)
    assert "recording it raised RuntimeError: arrays only" in text
    assert next(calls) == before + 1  # the decision, and not another recording


def test_a_python_number_that_changes_with_every_step():
    def annealed(p, x, y, beta):
        return loss(p, x, y) * beta

    step, state = made(annealed)
    for i in range(20):
        state, _ = step(state, X, Y, 1 - 0.01 * i)
        assert planned(state) == (i < 16)
        text = explained(step, state, X, Y, 1 - 0.01 * (i + 1))
        assert text.startswith("a plan of" if i < 15 else "eager, as 16 signatures")
    assert "argument 3 of the batch is a Python float" in text
    assert "pass np.asarray(x, dtype)" in text
    step, state = made(annealed)
    for i in range(40):
        state, _ = step(state, X, Y, np.asarray(1 - 0.01 * i))
    assert planned(state)


# --- the product that came nearest

NEAREST = {
    "float64 batch": (
        lambda p, x, y: loss(p, x, y),
        dg.tree.map(lambda w: w.astype(np.float32), P),
        "of matmul at {file}:{line}, its input is float64 and its weight float32",
    ),
    "penalty": (
        lambda p, x, y: cross_entropy(x @ p["c"], y) + 0.01 * np.sum(p["c"] ** 2),
        {"c": normal(1, 4, 3)},
        "its weight of shape (4, 3) is read 2 times",
    ),
    "tied": (
        lambda p, x, y: cross_entropy(np.tanh(x @ p["w"]) @ p["w"][:3].T, y),
        {"w": normal(1, 4, 8)},
        "its weight of shape (4, 8) is read 2 times",
    ),
    "three axes": (
        lambda p, x, y: np.mean((x[:, None, :] @ p["w"]) ** 2),
        {"w": normal(1, 4, 3)},
        "its input has shape (6, 1, 4), 2 axes are fused",
    ),
    "transposed": (
        lambda p, x, y: cross_entropy(x @ p["w"].T, y),
        {"w": normal(1, 3, 4)},
        "its second argument is no parameter",
    ),
    "no product": (
        lambda p, x, y: np.sum(p["w"] ** 2),
        {"w": normal(1, 3, 4)},
        "it has no x @ w and no conv2d",
    ),
}


@pytest.mark.parametrize("name", NEAREST)
def test_explain_names_the_condition_that_fails(name):
    function, params, reason = NEAREST[name]
    text = explained(*made(function, params), X, Y)
    assert text.startswith("eager, as no layer of it is one that is fused: ")
    assert not re.search("a plan of", text)
    assert reason.partition(", ")[2] in text if "{" in reason else reason in text
    if name != "no product":
        assert re.search(r"of matmul at \S*\.py:\d+, ", text)


@pytest.mark.parametrize(
    ("channels", "options", "reason"),
    [
        (8, {}, "c_out 8, no multiple of 16"),
        (16, {"dilation": 2}, "dilation (2, 2)"),
        (16, {"groups": 2}, "2 groups"),
    ],
)
def test_convolutions_say_what_they_lack(channels, options, reason):
    weight = normal(1, 3, 3, 2 // options.get("groups", 1), channels)

    def of_images(p, x, y):
        return np.mean(dg.nn.conv2d(x, p["w"], padding=2, **options) ** 2)

    text = explained(*made(of_images, {"w": weight}), normal(2, 3, 8, 8, 2), Y[:3])
    assert re.search(rf"of conv2d at \S*\.py:\d+, it has {re.escape(reason)}", text)


def test_a_layer_that_is_not_fused_beside_one_that_is():
    def tied(p, x, y):
        return cross_entropy(relu(x @ p["w1"]) @ p["w2"], y) + 0.01 * np.sum(p["w2"] ** 2)

    text = explained(*made(tied), X, Y)
    assert "fused   linear 4x8" in text and "its weight of shape (8, 3) is read 2 times" in text


def test_the_head_comes_last_where_another_layer_follows_it():
    """The update of a layer that is computed after the loss is not mixed up with the next one."""

    def with_aux(p, x, y):
        value = cross_entropy(network(p, x), y)
        return value, np.tanh(x @ p["v"]) @ p["u"]

    params = {**P, "v": normal(7, 4, 5), "u": normal(8, 5, 2)}
    results = []
    for plan in (True, False):
        step = dg.training_step(
            with_aux, dg.optim.sgd(0.05), has_aux=True, plan=plan, precision="exact"
        )
        state, values = step.init(params, KEY), []
        for i in range(6):
            state, (value, aux) = step(state, *batch(i))
            values += [value, *aux.ravel()]
        results.append([*values, *(w for x in dg.tree.leaves(state.params) for w in x.ravel())])
        assert planned(state) == plan
    np.testing.assert_allclose(*results, rtol=1e-9)


# --- batches that are a mistake


@pytest.mark.parametrize("plan", [True, False])
def test_mistakes_in_the_batch_say_what_to_give(plan):
    step, state = made(plan=plan)
    for call in (step, step.value, step.explain):
        with pytest.raises(dg.ShapeError, match=r"shape \(0, 4\): a loss over no example"):
            call(state, X[:0], Y[:0])
        with pytest.raises(dg.OptionError, match="argument 1 of the batch is a masked array"):
            call(state, np.ma.masked_array(X, X > 0), Y)
    of_model, start = made(
        lambda model, x, y: cross_entropy(model(x.reshape(len(y), -1)), y),
        dg.nn.Linear(4, 3, key=KEY),
        plan=plan,
    )
    for given, what in ((None, "None"), (X.tolist(), "a list")):
        for call in (of_model, of_model.value):
            with pytest.raises((AttributeError, TypeError, ValueError)) as raised:
                call(start, given, Y)
            assert f"Argument 1 of the batch is {what}" in raised.value.__notes__[0]
    with pytest.raises(dg.DtypeError, match="the loss is complex128 .*; it must be real"):
        step(state, X + 1j, Y)
    of_none = dg.training_step(lambda p, x: network(p, x)[:0, 0], dg.optim.sgd(0.1), plan=plan)
    with pytest.raises(dg.ShapeError, match=r"the loss has shape \(0,\)"):
        of_none(of_none.init(P, KEY), X)
    following, _ = step(state, X, Y)
    with pytest.raises(dg.LevelError, match=r"step\(state, ...\): this state went into a later"):
        step(state, X, Y)
    assert following.step == 1
