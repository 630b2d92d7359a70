"""What a step computed goes when it returns: nothing waits in circles for the garbage collector."""

import gc

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn

KEY = dg.Key(3)
X = np.random.default_rng(0).normal(size=(6, 4))
Y = np.arange(6) % 3


def local():
    return nn.LocalNetwork(
        *(
            nn.LocalBlock(nn.Linear(m, 8, activation="relu", key=key, dtype=np.float64),
                          nn.ReplicatedHead(8, 3, groups=4, dtype=np.float64))
            for m, key in ((4, KEY.fold_in(0)), (8, KEY.fold_in(1)))
        )
    )  # fmt: skip


def local_losses(model, x, y):
    return model.local_losses(x, y)


def losses(model, x, y):
    return nn.cross_entropy(model(x), y, reduction="none")


def scalar(x):
    return np.sum(np.tanh(x) ** 2 * x)


def estimate(loss, **options):
    return lambda: dg.forward_gradient(loss, **options)(local(), X, Y, key=KEY)


CALLS = {
    "jvp": lambda: dg.jvp(scalar, (X,), (X,)),
    "gradient": lambda: dg.gradient(scalar)(X),
    "reverse": lambda: dg.gradient(scalar, mode="reverse")(X),
    "hessian": lambda: dg.hessian(scalar)(X[0]),
    "linearize": lambda: dg.linearize(scalar, X)[1](X),
    "vjp": lambda: dg.vjp(np.tanh, X)[1](X),
    "hvp": lambda: dg.hvp(scalar, (X,), (X,), mode="reverse"),
    "jet": lambda: dg.jet(scalar, (X,), ((X, X),)),
    "sparse jacobian": lambda: dg.sparse_jacobian(np.tanh)(X[0]),
    "weights": estimate(losses),
    "rank one": estimate(losses, structure="rank1", directions=2),
    "modules": estimate(local_losses, scope="module"),
    "examples": estimate(losses, scope="example"),
    "projection": estimate(losses, combine="projection", directions=2),
    "activations": estimate(losses, perturb="activations", directions=2),
    "local losses": estimate(local_losses, perturb="activations"),
    "weights of local losses": estimate(local_losses),
    "guided": lambda: dg.guided_gradient()(local(), X, Y, key=KEY),
}


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_left_for_the_garbage_collector(name):
    call = CALLS[name]
    call()  # what is made once may stay
    gc.collect()
    flags, enabled = gc.get_debug(), gc.isenabled()
    gc.disable()
    try:
        call()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = sorted({type(x).__name__ for x in gc.garbage})
    finally:
        gc.set_debug(flags)
        gc.garbage.clear()
        if enabled:
            gc.enable()
    assert left == []
