"""What forward_gradient refuses, and what it says then."""

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn

KEY = dg.Key(11)
X = np.random.default_rng(0).normal(size=(5, 3))


def sum_of_squares(w):
    return np.sum(w**2)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"distribution": "gauss"}, "distribution='gauss'"),
        ({"structure": "rank2"}, "structure='rank2'"),
        ({"perturb": "outputs"}, "perturb='outputs'"),
        ({"combine": "sum"}, "combine='sum'"),
        ({"scope": "layer"}, "scope='layer'"),
        ({"directions": 0}, "directions=0"),
        ({"directions": 2.0}, "directions=2.0"),
        ({"chunk_size": -1}, "chunk_size=-1"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"clip": float("nan")}, "clip=nan"),
        ({"clip": "1"}, "clip='1'"),
        ({"clip": True}, "clip=True"),
        ({"directions": True}, "directions=True"),
        (
            {"perturb": "activations", "distribution": dg.directions.orthogonal},
            "distribution=orthogonal has no meaning",
        ),
        ({"perturb": "activations", "structure": "rank1"}, "structure='rank1' has no meaning"),
        ({"perturb": "activations", "combine": "projection"}, "combine='projection' has no"),
        ({"perturb": "activations", "guess": np.ones(3)}, "guess="),
        ({"guess": np.ones(3), "directions": 7}, "directions=7 has no meaning with guess="),
        ({"guess": np.ones(3), "structure": "rank1"}, "structure='rank1' has no meaning"),
        ({"directions": None}, "directions=None"),
    ],
    ids=str,
)
def test_options_are_refused_before_the_loss_runs(options, said):
    with pytest.raises(dg.OptionError) as caught:
        dg.forward_gradient(sum_of_squares, **options)
    assert said in str(caught.value)


TWO_AXES = np.ones((3, 4))


@pytest.mark.parametrize(
    "loss, params, options, error, said",
    [
        (sum_of_squares, np.arange(3), {}, dg.StructureError, "no floating leaf"),
        (sum_of_squares, np.ones(3) + 0j, {}, dg.DtypeError, "is complex"),
        (sum_of_squares, np.ones(3), {"argnums": 1}, dg.OptionError, "1 arguments were given"),
        (lambda w: w[None], np.ones(3), {}, dg.ShapeError, "has shape (1, 3)"),
        (lambda w: (np.sum(w), 1), np.ones(3), {}, dg.StructureError, "has_aux=True"),
        (lambda w: np.sum(w), np.ones(3), {"has_aux": True}, dg.StructureError, "aux"),
        (sum_of_squares, np.ones(3), {"guess": np.ones(4)}, dg.ShapeError, "the guess (4,)"),
        (sum_of_squares, np.ones(3), {"guess": {"w": np.ones(3)}}, dg.StructureError, "guess"),
        (sum_of_squares, np.ones(3), {"guess": []}, dg.OptionError, "guess=[]"),
        (sum_of_squares, np.ones(3), {"guess": np.ones(3) * 1j}, dg.DtypeError, "is real, and"),
        (
            lambda p: np.sum(p["w"]),
            {"w": np.ones(2)},
            {"guess": {"w": np.array([1.0, np.nan])}, "combine": "projection"},
            dg.OptionError,
            "the guess for parameter 'w' is not finite",
        ),
        (
            sum_of_squares,
            np.ones(3),
            {"guess": lambda w: w},
            dg.OptionError,
            "has no argument named key",
        ),
        (lambda w: w[:0], np.ones(3), {}, dg.ShapeError, "it is of no example"),
        (
            lambda w: X @ w,
            np.ones(3),
            {"perturb": "activations"},
            dg.StructureError,
            "reached no site",
        ),
        (
            lambda w: np.mean(dg.nn.linear(X, w)),
            TWO_AXES,
            {"perturb": "activations"},
            dg.ShapeError,
            "one number an example",
        ),
        (
            lambda w: np.sum(dg.nn.linear(X, w), axis=1)[:4],
            TWO_AXES,
            {"perturb": "activations"},
            dg.ShapeError,
            "has 4 examples, and site 0 gave shape (5, 4)",
        ),
        (
            lambda w: dg.nn.linear(X[0], w),  # four losses, of one example
            TWO_AXES,
            {"perturb": "activations"},
            dg.ShapeError,
            "site 0 gave shape (4,)",
        ),
        (
            lambda b: np.sum(dg.nn.linear(X, TWO_AXES, b), axis=1),
            np.ones(1),  # would broadcast; its gradient would have four entries
            {"perturb": "activations"},
            dg.ShapeError,
            "b has shape (1,)",
        ),
    ],
)
def test_losses_and_parameters_that_do_not_fit_are_refused(loss, params, options, error, said):
    with pytest.raises(error) as caught:
        dg.forward_gradient(loss, **options)(params, key=KEY)
    assert said in str(caught.value)


def test_a_key_must_be_given_and_be_one():
    fg = dg.forward_gradient(sum_of_squares)
    with pytest.raises(TypeError, match="key"):
        fg(np.ones(3))
    with pytest.raises(dg.OptionError, match="key=3"):
        fg(np.ones(3), key=3)


def test_an_outlived_level_does_not_take_noise():
    kept = []

    def loss(w):
        kept.append(w)
        return np.sum(dg.nn.linear(X, w), axis=1)

    dg.forward_gradient(loss, perturb="activations")(TWO_AXES, key=KEY)
    with pytest.raises(dg.LevelError, match="has returned"):
        dg.nn.linear(X, kept[0])


def test_numbers_of_numpy_bound_derivatives_as_python_s_do():
    found = [
        dg.forward_gradient(sum_of_squares, clip=clip)(np.ones(3, np.float32), key=KEY)[1]
        for clip in (1, np.float32(1), np.float64(1))
    ]
    assert all(g.dtype == np.float32 and g.tobytes() == found[0].tobytes() for g in found)


@pytest.mark.parametrize("value, options", [
    (dg.directions.normal, {"distribution": "normal"}),
    (3 * dg.directions.normal, {"distribution": "normal", "directions": 3}),
    (dg.directions.rademacher, {}),
])  # fmt: skip
def test_noise_takes_a_distribution_by_value_as_by_name(value, options):
    def loss(w):
        return nn.linear(X, w)[:, 0] ** 2

    params = np.ones((3, 1))
    by_value = dg.forward_gradient(loss, perturb="activations", distribution=value)
    by_name = dg.forward_gradient(loss, perturb="activations", **options)
    a, b = (np.asarray(fg(params, key=KEY)[1]) for fg in (by_value, by_name))
    np.testing.assert_array_equal(a, b)
