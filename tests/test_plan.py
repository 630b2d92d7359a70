"""A plan is the eager step to rounding: values and parameters, layer by layer, option by option."""

import dataclasses

import numpy as np
import pytest
from plan_case import (
    KEY,
    assert_plan_is_eager,
    assert_same_bits,
    batch,
    batches,
    cross_entropy,
    explained,
    loss,
    need_plans,
    network,
    normal,
    relu,
    run,
    two_layers,
)

import dualgrad as dg

need_plans()

DENSE = {"directions": 2}
RANK1 = {"structure": "rank1", "directions": 3}
CLIPPED = {"directions": 2, "clip": 0.02}


# --- options of the step


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"directions": 2},
        {"directions": 5, "clip": 0.1},
        {"directions": 17},
        {"structure": "rank1"},
        {"structure": "rank1", "directions": 5, "distribution": "normal"},
        {"structure": "rank1", "directions": 17, "clip": 0.3},
        {"rate": dg.optim.cosine(0.1, 12)},
        {"rate": lambda step: 0.1 / (1 + step)},
        {"rate": 0.0},
    ],
    ids=str,
)
def test_two_layers_with_every_option(options, dtype):
    given = batches(20, dtype)
    assert_plan_is_eager(loss, two_layers(dtype=dtype), given, stages=3, **options)


def test_a_hundred_steps():
    given = [batch(i % 10) for i in range(100)]
    assert_plan_is_eager(loss, two_layers(), given, stages=3, directions=4)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("options", [DENSE, RANK1], ids=str)
def test_models_of_layers(options, reduction):
    def of_model(model, x, y):
        return cross_entropy(model(x), y, reduction=reduction)

    mlp = dg.nn.MLP([4, 33, 17, 3], key=KEY, dtype=np.float64)
    assert_plan_is_eager(of_model, mlp, batches(), stages=4, **options)
    logistic = dg.nn.Linear(4, 3, key=KEY, dtype=np.float64)
    assert_plan_is_eager(of_model, logistic, batches(), stages=2, **options)


# --- losses written by hand: (loss, params, stages of the plan)

W = {"w1": normal(0, 4, 8) / 2, "w2": normal(2, 8, 3) / 2}
P = two_layers()
SQUARE = {**P, "m": normal(5, 8, 8) / 4}
CLASSES = {**P, "c": normal(8, 4, 3)}


def of_hidden(function):
    return lambda p, x, y: function(p, relu(x @ p["w1"] + p["b1"]), y)


def logsumexp_loss(p, x, y):
    z = network(p, x)
    top = np.max(z, 1, keepdims=True)
    chosen = np.take_along_axis(z, y[:, None], 1)
    return np.mean(np.log(np.sum(np.exp(z - top), 1, keepdims=True)) + top - chosen)


BY_HAND = {
    "no bias": (lambda p, x, y: cross_entropy(relu(x @ p["w1"]) @ p["w2"], y), W, 3),
    "bias in front": (
        lambda p, x, y: cross_entropy(p["b2"] + relu(p["b1"] + x @ p["w1"]) @ p["w2"], y), P, 3,
    ),
    "bias (1, 8)": (loss, {**P, "b1": normal(1, 1, 8)}, 3),
    "bias (1,)": (loss, {**P, "b2": normal(1, 1)}, None),
    "bias for each example": (loss, {**P, "b1": normal(1, 6, 8)}, 3),
    "bias subtracted": (
        lambda p, x, y: cross_entropy(network(p, x) - p["c"], y), {**P, "c": normal(3, 3)}, None,
    ),
    "bias used again": (
        lambda p, x, y: cross_entropy(network(p, x) + p["b1"][:3], y), P, None,
    ),
    "sum of two products": (
        lambda p, x, y: cross_entropy(x @ p["a"] + x @ p["b"], y),
        {"a": normal(1, 4, 3), "b": normal(2, 4, 3)}, None,
    ),
    "a product added to itself": (
        lambda p, x, y: cross_entropy((lambda z: z + z)(x @ p["w1"]) @ p["w2"], y), W, None,
    ),
    "residual": (
        of_hidden(lambda p, h, y: cross_entropy((h + relu(h @ p["m"])) @ p["w2"], y)),
        SQUARE, None,
    ),
    "two readers": (
        of_hidden(lambda p, h, y: cross_entropy(h @ p["w2"] + np.tanh(h) @ p["v"], y)),
        {**P, "v": normal(5, 8, 3)}, None,
    ),
    "tied": (
        lambda p, x, y: cross_entropy(relu(x @ p["w"]) @ p["w"].T @ p["v"], y),
        {"w": normal(1, 4, 8) / 2, "v": normal(2, 4, 3)}, None,
    ),
    "scalar parameters": (
        lambda p, x, y: cross_entropy(network(p, x) * p["s"] + p["t"], y),
        {**P, "s": np.array(0.7), "t": normal(3, 1)}, None,
    ),
    "a Python float": (
        lambda p, x, y: cross_entropy(network(p, x) * p["s"], y), {**P, "s": 0.7}, None,
    ),
    "an unused matrix": (loss, {**P, "unused": normal(3, 5, 5)}, 3),
    "an empty one": (
        lambda p, x, y: loss(p, x, y) + np.sum(p["e"]), {**P, "e": np.zeros((0, 3))}, None,
    ),
    "3-D weight": (
        lambda p, x, y: cross_entropy(np.einsum("nd,dkc->nc", x, p["w"]), y),
        {"w": normal(3, 4, 2, 3)}, 0,
    ),
    "3-D batch": (
        lambda p, x, y: cross_entropy(np.mean(np.stack([x, 2 * x], 1) @ p["w1"], 1) @ p["w2"], y),
        W, None,
    ),
    "x.T @ w": (
        lambda p, x, y: np.mean((x.T @ p["w"] + p["b"]) ** 2),
        {"w": normal(1, 6, 3), "b": normal(2, 3)}, 1,
    ),
    "w.T": (
        lambda p, x, y: cross_entropy(relu(x @ p["w"].T) @ p["w2"], y),
        {"w": normal(1, 8, 4), "w2": normal(2, 8, 3)}, None,
    ),
    "w @ x.T": (
        lambda p, x, y: cross_entropy((p["w"] @ x.T).T @ p["w2"], y),
        {"w": normal(1, 8, 4), "w2": normal(2, 8, 3)}, None,
    ),
    "maximum": (
        lambda p, x, y: cross_entropy(np.maximum(x @ p["w1"] + p["b1"], 0) @ p["w2"], y), P, None,
    ),
    "tanh and gelu": (
        lambda p, x, y: cross_entropy(
            dg.nn.gelu(np.tanh(x @ p["w1"] + p["b1"]) @ p["m"]) @ p["w2"], y), SQUARE, None,
    ),
    "l2": (
        lambda p, x, y: loss(p, x, y) + 0.01 * sum(np.sum(w**2) for w in p.values()), P, None,
    ),
    "mse": (lambda p, x, y: dg.nn.mse(network(p, x), x[:, :3]), P, None),
    "a loss for each example": (
        lambda p, x, y: np.mean(dg.nn.mse(network(p, x), x[:, :3], reduction="none"), 1), P, None,
    ),
    "logsumexp": (logsumexp_loss, P, None),
    "label smoothing": (
        lambda p, x, y: (lambda z: 0.9 * cross_entropy(z, y)
                         - 0.1 * np.mean(dg.nn.log_softmax(z)))(network(p, x)), P, None,
    ),
    "weighted examples": (
        lambda p, x, y: cross_entropy(network(p, x), y, "none") * np.abs(x[:, 0]), P, None,
    ),
    "two heads": (
        lambda p, x, y: loss(p, x, y) + cross_entropy(x @ p["c"], y), CLASSES, None,
    ),
    "labels from the batch": (
        lambda p, x, y: cross_entropy(network(p, x), np.argmax(x[:, :3], 1)), P, 3,
    ),
    "labels from the logits": (
        lambda p, x, y: (lambda z: cross_entropy(z, np.argmax(z, 1)))(network(p, x)), P, None,
    ),
    "one class": (lambda p, x, y: cross_entropy(x @ p["w"], y * 0), {"w": normal(1, 4, 1)}, 2),
    "17 classes": (lambda p, x, y: cross_entropy(x @ p["w"], y * 5), {"w": normal(1, 4, 17)}, 2),
    "stop_gradient of a layer": (
        of_hidden(lambda p, h, y: cross_entropy(dg.stop_gradient(h) @ p["w2"], y)), P, None,
    ),
    "stop_gradient of a weight": (
        lambda p, x, y: loss(p, x, y) + np.sum(dg.stop_gradient(p["w1"]) * p["w1"]), P, None,
    ),
    "normalised batch": (
        lambda p, x, y: loss(p, (x - x.mean(0)) / (x.std(0) + 1e-3), y), P, 3,
    ),
    "rows permuted": (
        lambda p, x, y: (lambda i: loss(p, x[i], y[i]))(np.argsort(x[:, 0])), P, 3,
    ),
    "NaN": (lambda p, x, y: loss(p, x * np.nan, y), P, 3),
}  # fmt: skip


@pytest.mark.parametrize("options", [DENSE, RANK1, CLIPPED], ids=str)
@pytest.mark.parametrize("case", BY_HAND.values(), ids=BY_HAND)
def test_losses_written_by_hand(case, options):
    function, params, stages = case
    assert_plan_is_eager(function, params, batches(5), stages=stages, **options)


def test_parameters_in_lists_and_dataclasses():
    @dataclasses.dataclass
    class Layer:
        weight: np.ndarray
        bias: np.ndarray
        name: str = "layer"

    params = [Layer(P["w1"], P["b1"]), (Layer(P["w2"], P["b2"]), 3)]

    def nested(params, x, y):
        first, (second, _) = params
        return cross_entropy(relu(x @ first.weight + first.bias) @ second.weight + second.bias, y)

    assert_plan_is_eager(nested, params, batches(), stages=3, **RANK1)


@pytest.mark.parametrize(
    "params, stages",
    [
        (
            {**two_layers(), **{k: v for k, v in two_layers(dtype=np.float32).items() if "b" in k}},
            None,
        ),
        ({**two_layers(dtype=np.float32), "b1": P["b1"]}, None),
        ({**two_layers(dtype=np.float32), "w2": P["w2"]}, None),
        (two_layers(dtype=np.float16), 0),
        (two_layers(dtype=np.longdouble), 0),
        ({k: v.astype(">f8") for k, v in P.items()}, 0),
        ({k: np.asfortranarray(v) for k, v in P.items()}, 3),
        ({k: np.repeat(v, 2, 0)[::2] for k, v in P.items()}, 3),
    ],
    ids=range(8),
)
def test_parameters_of_other_types_and_layouts(params, stages):
    dtype = params["w1"].dtype.newbyteorder("=")
    rtol = {"e": 2e-2, "f": 2e-5}.get(dtype.char, 1e-5 if params["b1"].dtype == "f4" else 1e-9)
    assert_plan_is_eager(loss, params, batches(5, dtype), stages=stages, rtol=rtol)


# --- batches


LAYOUTS = {
    "strided": lambda x, y: (np.repeat(x, 2, 1)[:, ::2], y[::-1]),
    "Fortran": lambda x, y: (np.asfortranarray(x), y.astype(np.uint8)),
    "reversed": lambda x, y: (x[::-1], y.astype(">i4")),
    "big-endian": lambda x, y: (x.astype(">f8"), y.astype(np.uint64)),
    "another dtype": lambda x, y: (x.astype(np.float32), y),
    "integers": lambda x, y: ((np.abs(x) * 50).astype(np.uint8), y),
    "nested": lambda x, y: (x, y.tolist()),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_batches_of_any_layout(layout):
    given = [layout(*b) for b in batches(5)]
    assert_plan_is_eager(loss, P, given, rtol=1e-6 if given[0][0].dtype == "f4" else 1e-10)


def test_images_of_bytes():
    given = [((np.abs(x) * 50).astype(np.uint8), y) for x, y in batches()]
    params = two_layers(dtype=np.float32)
    assert_plan_is_eager(lambda p, x, y: loss(p, x.astype(np.float32) / 255, y), params, given,
                         stages=3)  # fmt: skip
    assert_plan_is_eager(lambda p, x, y: loss(p, x / 255, y), P, given, stages=3)


def test_batch_sizes_alternate():
    sizes = [6, 6, 3, 6, 3, 1, 6, 1, 6, 17, 6]
    for options in (DENSE, RANK1):
        given = [batch(i, n) for i, n in enumerate(sizes)]
        assert_plan_is_eager(loss, P, given, stages=3, **options)
    assert_plan_is_eager(loss, P, [batch(i, 1 + i % 19) for i in range(40)])


def test_a_batch_may_be_a_tree_with_numbers():
    def of_tree(p, data, scale, mode):
        x = data["x"] * (2 if mode == "double" else 1)
        return loss(p, x * scale, data["y"])

    given = [
        ({"x": x, "y": y}, scale, mode)
        for (x, y), scale, mode in zip(
            batches(8), [1.0, 1.0, 2.0, np.float64(3), np.array(0.5), np.array(2.5), True, 1],
            ["double", "single"] * 4, strict=True)
    ]  # fmt: skip
    assert_plan_is_eager(of_tree, P, given, stages=3)


def test_the_caller_may_use_the_memory_of_a_batch_again():
    x, y = (a.copy() for a in batch(0))

    def filled(number):
        def fill():
            x[...], y[...] = batch(number)
            return x, y

        return fill

    assert_plan_is_eager(loss, P, [filled(i) for i in range(6)])


# --- state, aux and keys


def test_model_state_goes_in_and_out():
    def running(p, state, x, y):
        new = {"mean": 0.9 * state["mean"] + 0.1 * x.mean(0), "steps": state["steps"] + 1}
        return loss(p, x - state["mean"], y), new, x.max()

    assert_plan_is_eager(
        running, P, batches(), stages=3, has_state=True, has_aux=True,
        model_state={"mean": np.zeros(4), "steps": np.zeros(1, int)},
    )  # fmt: skip


@pytest.mark.parametrize("k", [1, 3])
def test_aux_is_what_the_eager_step_gives_and_stays_as_it_was(k):
    def with_aux(p, x, y):
        h = relu(x @ p["w1"] + p["b1"])
        z = h @ p["w2"] + p["b2"]
        aux = {"h": h, "logits": z, "right": np.mean(np.argmax(z, 1) == y), "n": len(x), "x": x,
               "first": x[0, 0], "none": None, "unused": p["u"], "bias": p["b2"][::-1]}  # fmt: skip
        return cross_entropy(z, y), aux

    params = {**P, "u": normal(4, 2, 2)}
    assert_plan_is_eager(with_aux, params, batches(), has_aux=True, directions=k)
    values = run(with_aux, params, batches(), plan=True, has_aux=True, directions=k)[0]
    copies = run(with_aux, params, batches(), plan=False, has_aux=True, directions=k)[0]
    np.testing.assert_allclose(values[0][1]["h"], copies[0][1]["h"], rtol=1e-10)  # long ago


def test_what_is_handed_out_may_be_written():
    def with_aux(p, x, y):
        z = network(p, x)
        return cross_entropy(z, y), (z, p["b1"])

    expected = run(with_aux, P, batches(), plan=True, has_aux=True)[1]
    step = dg.training_step(with_aux, dg.optim.sgd(0.05), has_aux=True, precision="exact")
    given = dg.tree.map(np.copy, P)
    state = step.init(given, KEY)
    for x, y in batches():
        state, (_, aux) = step(state, x, y)
        for array in (*dg.tree.leaves(aux), *dg.tree.leaves(given), *dg.tree.leaves(state.params)):
            array[...] = np.nan
    assert_same_bits(state.params, expected)


KEYED = {
    "dropout": lambda p, x, y, *, key: cross_entropy(
        dg.nn.Dropout(0.5)(relu(x @ p["w1"] + p["b1"]), key=key) @ p["w2"], y),
    "noise": lambda p, x, y, key: loss(p, x + dg.random.normal(key, x.shape), y),
    "split": lambda p, x, y, key: (lambda a, b: loss(
        p, x + dg.random.uniform(a, x.shape) * dg.random.bernoulli(b, x.shape, 0.3), y))(
            *key.split()),
    "crop": lambda p, x, y, key: loss(
        p, np.take(x, dg.random.permutation(key.fold_in("crop").fold_in(1), 4), 1), y),
    "shuffle": lambda p, x, y, key: (lambda i: loss(p, x[i], y[i]))(
        dg.random.permutation(key, 6)),
    "branch": lambda p, x, y, key: loss(p, x if dg.random.uniform(key) < 0.5 else -x, y),
    "number": lambda p, x, y, key: loss(p, x * float(dg.random.uniform(key)), y),
    "words": lambda p, x, y, key: loss(p, x * (1 + int(key.words[0]) % 3), y),
}  # fmt: skip


@pytest.mark.parametrize("function", KEYED.values(), ids=KEYED)
def test_losses_with_a_key(function):
    assert_plan_is_eager(function, P, batches(), **DENSE)


# --- explain


def test_explain_says_what_is_fused_and_why_not():
    def step_of(function, **options):
        step = dg.training_step(function, dg.optim.sgd(0.1), **options)
        return step, step.init(P, KEY)

    text = explained(*step_of(loss), *batch(0))
    assert "fused   linear 4x8 + bias + relu" in text and "cross_entropy, 6x3" in text
    assert "plan_case.py:" in text
    closed = np.arange(4.0)
    text = explained(*step_of(lambda p, x, y: loss(p, x + closed, y)), *batch(0))
    assert "eager, as an array of shape (4,)" in text and "test_plan.py:" in text
    assert "eager (plan=False)" in explained(*step_of(loss, plan=False), *batch(0))
    assert "backprop" in explained(*step_of(loss, method="backprop"), *batch(0))
    text = explained(*step_of(lambda p, x, y: loss(p, np.tanh(x), y)), *batch(0))
    assert "batch   np.tanh" in text
    text = explained(*step_of(lambda p, x, y: np.sum(network(p, x) ** 2)), *batch(0))
    assert "eager   np.sum" in text
    assert "no layer" in explained(*step_of(lambda p, x, y: np.sum(p["b1"] ** 2)), *batch(0))
