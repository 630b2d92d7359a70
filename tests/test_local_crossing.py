"""Blocks that mix what a local loss keeps apart: refused where it is known, found by the mean."""

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn
from dualgrad.testing import CheckError, check_unbiased

KEY = dg.Key(7)
N, CLASSES = 5, 3
Y = np.arange(N) % CLASSES


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


X = normal(0, N, 4)


def linear(n_in, n_out, place):
    return nn.Linear(n_in, n_out, key=KEY.fold_in(place), dtype=np.float64)


def images(layer, seed=50):
    return normal(seed, N, 6, 6, 1) if isinstance(layer, nn.Conv2d) else normal(seed, N, 4)


def conv(c_in, place):
    return nn.Conv2d(c_in, 4, 3, padding=1, activation="relu", key=KEY.fold_in(place),
                     dtype=np.float64)  # fmt: skip


def mixed(*layers, **options):
    """Return a block of these layers and a drawn ReplicatedHead on their 4 channels."""
    head = nn.ReplicatedHead(4, CLASSES, dtype=np.float64, **options)
    head = dg.tree.map(lambda w: normal(w.size, *w.shape), head)
    return nn.LocalBlock(nn.Sequential(*layers), head)


def own_loss(b, x, y):
    return b(x, y)[1]


MIXING = {
    "two linear": ((linear(4, 6, 60), linear(6, 4, 61)), {"groups": 4}),
    "two convolutions": ((conv(1, 62), conv(4, 63)), {"groups": 4}),
    "places": ((conv(1, 62), conv(4, 63)), {"groups": 1}),
}


@pytest.mark.parametrize("name", MIXING)
def test_a_layer_that_mixes_what_copies_keep_apart_is_refused(name):
    layers, options = MIXING[name]
    b, x = mixed(*layers, **options), images(layers[0])
    with pytest.raises(dg.StructureError, match="mixes what another one before it gave"):
        dg.forward_gradient(own_loss, perturb="activations")(b, x, Y, key=KEY)
    value, _ = dg.forward_gradient(own_loss, perturb="weights")(b, x, Y, key=KEY)
    np.testing.assert_allclose(value, dg.objective(own_loss(b, x, Y)))
    whole = mixed(*layers, groups=1, patches=False)
    check_unbiased(own_loss, whole, x, Y, keys=60, perturb="activations")


def test_batch_statistics_between_a_layer_and_a_replicated_head_are_refused():
    norm, layer = nn.BatchNorm(4, dtype=np.float64), linear(4, 4, 64)
    for layers, refused in (((layer, norm), True), ((norm, layer), False)):
        b = mixed(*layers, groups=2)
        state = b.init_state()
        loss = lambda b, x, y, state=state: b(x, y, state)[0][1]  # noqa: E731
        if refused:
            with pytest.raises(dg.StructureError, match="BatchNorm takes the statistics"):
                dg.forward_gradient(loss, perturb="activations")(b, X, Y, key=KEY)
        else:
            check_unbiased(loss, b, X, Y, keys=60, perturb="activations")


CROSSING = {
    "channels": (linear(4, 4, 65), lambda h: h[:, ::-1]),
    "normalised": (linear(4, 4, 65), nn.LayerNorm(4, dtype=np.float64)),
    "crop": (conv(1, 66), lambda h: h[:, :3, :3]),
}


@pytest.mark.parametrize("name", CROSSING)
def test_what_only_the_mean_can_tell_is_told_by_check_unbiased(name):
    b, x = mixed(*CROSSING[name], groups=2), images(CROSSING[name][0])
    with pytest.raises(CheckError, match="the mean of 200 estimates is not the gradie") as said:
        check_unbiased(own_loss, b, x, Y, perturb="activations")
    assert "layers/0/" in str(said.value) and "aux/" not in str(said.value)
    check_unbiased(own_loss, mixed(CROSSING[name][0], groups=2), x, Y, keys=60,
                   perturb="activations")  # fmt: skip


def test_a_wrong_estimate_of_any_kind_is_found():
    """A projection is biased; a leaf whose gradient is zero must have estimates around zero."""

    def loss(p):
        return np.sum(p["w"] ** 2) + 0.0 * np.sum(p["b"])

    params = {"w": normal(1, 3), "b": np.ones(2)}
    check_unbiased(loss, params, directions=2)
    with pytest.raises(CheckError, match="'w'"):
        check_unbiased(loss, params, combine="projection")


@pytest.mark.parametrize(
    "options, said",
    [
        ({"groups": 3}, "3 groups do not divide 4"),
        ({"groups": 4, "normalised": True}, "of 1 channels, which have no gradient"),
        ({"groups": 2, "normalised": True}, "of 2 channels, which have no gradient"),
    ],
)
def test_heads_that_would_not_train_are_refused(options, said):
    with pytest.raises(dg.OptionError, match=said):
        nn.ReplicatedHead(4, CLASSES, **options)


def test_heads_that_do_not_fit_are_refused():
    head = nn.ReplicatedHead(6, CLASSES, groups=2, dtype=np.float64)
    with pytest.raises(dg.OptionError, match="has its own loss.*Leave loss out"):
        nn.LocalBlock(linear(4, 6, 40), head, loss=np.sum)
    with pytest.raises(dg.ShapeError, match="built for 6 channels"):
        head(X)
    with pytest.raises(dg.ShapeError, match="every axis of the loss must divide"):
        b = nn.LocalBlock(nn.Sequential(linear(4, 5, 41), lambda z: z[:, :1] * np.ones(6)), head)
        dg.forward_gradient(lambda b: b(X, Y)[1], perturb="activations")(b, key=KEY)
