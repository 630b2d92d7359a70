"""Plans of convolutions are the eager step to rounding, whatever their window and what follows."""

import numpy as np
import pytest
from plan_case import (
    KEY,
    assert_plan_is_eager,
    cross_entropy,
    images,
    need_plans,
    normal,
    relu,
    run,
)

import dualgrad as dg

need_plans()

DENSE = {"directions": 2}
RANK1 = {"structure": "rank1", "directions": 3}


def convolution_parameters(features, kernel=(3, 3), channels=2, filters=16, dtype=np.float64):
    return {
        "c": normal(0, *kernel, channels, filters, dtype=dtype) / 4,
        "d": normal(1, filters, dtype=dtype) / 8,
        "w": normal(2, features, 3, dtype=dtype) / 8,
        "b": normal(3, 3, dtype=dtype),
    }


def convolved(p, x, pool=2, activation=relu, **window):
    h = activation(dg.nn.conv2d(x, p["c"], **window) + p["d"])
    h = h if pool is None else dg.nn.max_pool2d(h, pool)
    return h.reshape(len(x), -1)


CONVOLUTIONS = {
    "3x3": ({"padding": 1}, {}, {}),
    "VALID, 32 filters": ({"padding": "VALID"}, {"filters": 32}, {}),
    "SAME, stride 2, odd": ({"padding": "SAME", "stride": 2}, {}, {"height": 7, "width": 9}),
    "stride (1, 2)": ({"stride": (1, 2)}, {}, {}),
    "uneven padding": ({"padding": ((0, 2), (1, 0))}, {}, {}),
    "1x1": ({}, {"kernel": (1, 1)}, {}),
    "5x5": ({"padding": 2}, {"kernel": (5, 5)}, {}),
    "1x3": ({"padding": ((0, 0), (1, 1))}, {"kernel": (1, 3)}, {}),
    "no pool": ({"padding": 1, "pool": None}, {}, {}),
    "pool of 3": ({"padding": 1, "pool": 3}, {}, {"height": 9, "width": 10}),
    "odd pool": ({"padding": 1}, {}, {"height": 7, "width": 5}),
    "17 channels": ({"padding": 1}, {"channels": 17}, {}),
    "24 filters": ({"padding": 1}, {"filters": 24}, {}),
    "groups": ({"padding": 1, "groups": 2}, {"channels": 1}, {}),
    "dilation": ({"padding": 2, "dilation": 2}, {}, {}),
    "gelu": ({"padding": 1, "activation": dg.nn.gelu}, {}, {}),
    "one image": ({"padding": 1}, {}, {"n": 1}),
}


@pytest.mark.parametrize("options", [DENSE, RANK1], ids=str)
@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions(case, options):
    window, shapes, size = case
    channels = shapes.get("channels", 2) * window.get("groups", 1)
    given = [images(i, channels=channels, **size) for i in range(4)]
    features = convolved(convolution_parameters(1, **shapes), given[0][0], **window).shape[1]

    def of_images(p, x, y):
        return cross_entropy(convolved(p, x, **window) @ p["w"] + p["b"], y)

    params = convolution_parameters(features, **shapes)
    fusible = shapes.get("filters", 16) % 16 == 0 and not {"groups", "dilation"} & set(window)
    plain = "activation" in window or window.get("pool") == 3
    stages = 2 if not fusible else 3 if plain else 4
    assert_plan_is_eager(of_images, params, given, rate=0.01, stages=stages, **options)


@pytest.mark.parametrize("options", [DENSE, RANK1], ids=str)
def test_fast_is_within_a_ten_thousandth_of_exact_a_step(options):
    def of_images(p, x, y):
        return cross_entropy(convolved(p, x, padding=1) @ p["w"] + p["b"], y)

    params = convolution_parameters(256, channels=16, dtype=np.float32)
    given = [images(0, channels=16, dtype=np.float32)]
    fast, exact = (
        run(of_images, params, given, plan=True, rate=0.01, precision=precision, **options)
        for precision in ("fast", "exact")
    )
    np.testing.assert_allclose(fast[0], exact[0], rtol=1e-4)
    for a, b in zip(dg.tree.leaves(fast[1]), dg.tree.leaves(exact[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.max(np.abs(b)))


BETWEEN = {
    "nothing": lambda h: h,
    "tanh": np.tanh,
    "layer norm": lambda h: (h - h.mean((1, 2, 3), keepdims=True)) / (1 + h.std()),
    "batch norm": lambda h: (h - h.mean((0, 1, 2))) / np.sqrt(h.var((0, 1, 2)) + 1e-3),
    "residual": lambda h: h + np.sin(h),
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
@pytest.mark.parametrize("options", [DENSE, RANK1], ids=str)
def test_what_comes_between_convolutions(between, options):
    def of_images(p, x, y):
        h = between(relu(dg.nn.conv2d(x, p["c"], padding=1) + p["d"]))
        h = h + relu(dg.nn.conv2d(h, p["c2"], padding=1) + p["d"][::-1])
        h = dg.nn.max_pool2d(relu(dg.nn.conv2d(h, p["c3"], padding=2)), 2)
        return cross_entropy(h.reshape(len(x), -1) @ p["w"] + p["b"], y), h

    params = convolution_parameters(400) | {
        "c2": normal(8, 3, 3, 16, 16) / 9, "c3": normal(9, 3, 3, 16, 16) / 9
    }  # fmt: skip
    given = [images(i) for i in range(3)]
    assert_plan_is_eager(of_images, params, given, rate=0.001, has_aux=True, **options)


@pytest.mark.parametrize("order", [("F",), ("C",), ()], ids=str)
def test_an_order_of_flattening(order):
    def of_images(p, x, y):
        h = relu(dg.nn.conv2d(x, p["c"], padding=1) + p["d"])
        return cross_entropy(np.reshape(h, (len(x), -1), *order) @ p["w"] + p["b"], y)

    given = [images(i) for i in range(3)]
    assert_plan_is_eager(of_images, convolution_parameters(1024), given, rate=0.001)


def test_a_convolutional_model_with_batch_statistics():
    model = dg.nn.Sequential(
        dg.nn.Conv2d(2, 16, 3, padding=1, key=KEY, dtype=np.float64),
        dg.nn.BatchNorm(16, dtype=np.float64),
        dg.nn.relu,
        lambda x: np.reshape(x, (len(x), -1)),
        dg.nn.Linear(1024, 3, key=KEY, dtype=np.float64),
    )

    def stateful(model, state, x, y):
        logits, state = model(x, state)
        return cross_entropy(logits, y), state

    given = [images(i) for i in range(4)]
    assert_plan_is_eager(stateful, model, given, rate=0.01, has_state=True,
                         model_state=model.init_state(), **DENSE)  # fmt: skip
