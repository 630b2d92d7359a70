"""debug_nans names the operation, the line and the input under every transform; off, it is gone."""

import inspect
import threading

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.primitive import Primitive
from dualgrad.tape import Tape

X = np.array([1.0, 0.0, 4.0])
V = np.ones(3)


def bad(x):
    y = np.exp(x)
    z = np.sqrt(x)  # at 0 its slope is infinite
    return np.sum(y + z)


SOURCE = "z = np.sqrt(x)  # at 0 its slope is infinite"
LINE = inspect.getsourcelines(bad)[1] + 2

TRANSFORMS = {
    "jvp": lambda f: dg.jvp(f, (X,), (V,)),
    "k tangents": lambda f: dg.pushforward(f, (X,), (np.eye(3),)),
    "gradient": lambda f: dg.gradient(f)(X),
    "jacobian in chunks": lambda f: dg.jacobian(f, chunk_size=1)(X),
    "reverse": lambda f: dg.gradient(f, mode="reverse")(X),
    "linearize": lambda f: dg.linearize(f, X)[1](V),
    "vjp": lambda f: dg.vjp(f, X)[1](1.0),
    "forward over reverse": lambda f: dg.hvp(f, (X,), (V,), mode="reverse"),
    "hessian": lambda f: dg.hessian(f)(X),
    "forward_gradient": lambda f: dg.forward_gradient(f)(X, key=dg.Key(0)),
    "rank-1": lambda f: dg.forward_gradient(f, structure="rank1")(X, key=dg.Key(0)),
    "by hand": lambda f: f(dg.dual(X, V)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_operation_and_the_line_are_named_under(transform):
    with dg.debug_nans(), pytest.raises(dg.NonFiniteError) as caught:
        TRANSFORMS[transform](bad)
    error, message = caught.value, str(caught.value)
    assert (error.operation, error.source, error.lineno) == ("np.sqrt", SOURCE, LINE)
    assert error.filename == __file__
    assert f"{__file__}:{LINE}, in bad:\n    {SOURCE}\n" in message
    assert "np.sqrt made a non-finite" in message and "from finite input" in message


def test_the_message_in_full():
    with dg.debug_nans(), pytest.raises(FloatingPointError) as caught:
        dg.jvp(bad, (X,), (V,))
    assert str(caught.value) == (
        f"np.sqrt made a non-finite tangent from finite input, at {__file__}:{LINE}, in bad:\n"
        f"    {SOURCE}\n"
        f"  tangent: shape (1, 3), float64, not finite in 1 of 3 entries, the first at direction "
        f"0, index (1,)\n"
        f"  argument 0: a dual, shape (3,), float64, between 0 and 4, 0 there\n"
        f"The function has no derivative at this point, or a number overflows. Keep the argument "
        f"away from it (np.where before the operation, not after), or give a rule by "
        f"dg.custom_jvp."
    )


def test_the_second_derivative_alone_is_infinite():
    def f(x):
        return np.sum(x**1.5)

    with dg.debug_nans():
        np.testing.assert_allclose(dg.gradient(f)(X), 1.5 * np.sqrt(X))
        with pytest.raises(dg.NonFiniteError, match=r"np.power .*(?s:.*)x\*\*1.5"):
            dg.hessian(f)(X)


def test_what_is_inside_a_composite_is_named_with_it():
    with dg.debug_nans(), pytest.raises(dg.NonFiniteError) as caught:
        dg.jvp(lambda x: np.var(x * 1e200), (X,), (np.arange(3.0),))
    assert str(caught.value).startswith("np.var (in it, ")


def test_layers_losses_and_training_steps_are_checked():
    model = dg.nn.MLP([3, 4, 2], key=dg.Key(0))

    def loss(model, x, y):
        p = dg.nn.softmax(model(x) * 1e6)
        return -np.log(p[np.arange(len(y)), y])  # at 0

    x, y = np.ones((4, 3), np.float32), np.array([0, 1, 0, 1])
    for options in ({}, {"plan": False}, {"method": "backprop"}, {"perturb": "activations"}):
        step = dg.training_step(loss, dg.optim.sgd(0.1), **options)
        state = step.init(model, dg.Key(1))
        with dg.debug_nans(), pytest.raises(dg.NonFiniteError) as caught:
            step(state, x, y)
        assert caught.value.operation == "np.log"
        assert caught.value.source == "return -np.log(p[np.arange(len(y)), y])  # at 0"


def test_a_training_step_goes_on_alike_inside_and_outside():
    model = dg.nn.MLP([3, 4, 2], key=dg.Key(0))
    x, y = np.ones((4, 3), np.float32), np.array([0, 1, 0, 1])

    def loss(model, x, y):
        return dg.nn.cross_entropy(model(x), y)

    step = dg.training_step(loss, dg.optim.sgd(0.1), precision="exact")
    watched, plain = step.init(model, dg.Key(1)), step.init(model, dg.Key(1))
    for number in range(3):
        plain, expected = step(plain, x, y)
        if number == 1:
            with dg.debug_nans():
                watched, value = step(watched, x, y)
        else:
            watched, value = step(watched, x, y)
        assert value == pytest.approx(expected, rel=1e-5)
    for a, b in zip(dg.tree.leaves(watched.params), dg.tree.leaves(plain.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_rules_of_ones_own_are_checked():
    @dg.custom_jvp
    def half(x):
        return x / 2

    @half.defjvp
    def rule(primals, tangents):
        return primals[0] / 2, tangents[0] * np.inf

    with dg.debug_nans(), pytest.raises(dg.NonFiniteError, match="^half made a non-finite tangent"):
        dg.jvp(lambda x: half(x) + 1, (X,), (V,))


def test_what_was_not_finite_before_is_said():
    for f, v, text in (
        (lambda x: x * np.array([1.0, np.inf, 1.0]), V, "an argument that is not finite"),
        (np.sin, V * np.nan, "was given a non-finite tangent, which came in with the arguments"),
    ):
        with dg.debug_nans(), pytest.raises(dg.NonFiniteError, match=text):
            dg.jvp(f, (X,), (v,))


def test_infinite_primals_with_finite_tangents_pass():
    with dg.debug_nans():
        y, dy = dg.jvp(lambda x: dg.nn.logsumexp(np.where(X > 0, x, -np.inf)), (X,), (V,))
        assert np.isfinite(y) and dy == pytest.approx(1.0)
        assert dg.derivative(lambda x: x + np.inf)(1.0) == 1


def test_a_branch_that_is_dropped_is_watched_and_a_guarded_one_is_right():
    with dg.debug_nans():
        with pytest.raises(dg.NonFiniteError):
            dg.gradient(lambda x: np.sum(np.where(x > 0, np.log(x), 0)))(X)
        guarded = dg.gradient(lambda x: np.sum(np.log(np.where(x > 0, x, 1.0))))(X)
    np.testing.assert_array_equal(guarded, [1, 0, 0.25])


def test_off_nothing_is_left_of_it():
    originals = Primitive.__call__, dg.custom_jvp.__call__, Tape.__dict__["pushed"]
    with dg.debug_nans():
        with dg.debug_nans():
            assert Primitive.__call__ is not originals[0]
        assert Primitive.__call__ is not originals[0]
        with pytest.raises(dg.NonFiniteError):
            dg.jvp(bad, (X,), (V,))
    with pytest.raises(ZeroDivisionError), dg.debug_nans():
        1 / 0  # noqa: B018
    assert (Primitive.__call__, dg.custom_jvp.__call__, Tape.__dict__["pushed"]) == originals
    with np.errstate(divide="ignore"):
        assert np.isinf(dg.jvp(bad, (X,), (V,))[1])


def test_it_is_no_switch():
    for given in (True, False, bad):
        with pytest.raises(dg.OptionError, match=r"with dg\.debug_nans\(\):"):
            dg.debug_nans(given)


def test_other_threads_are_not_watched():
    found = []

    def run():
        with np.errstate(divide="ignore"):
            found.append(dg.jvp(bad, (X,), (V,))[1])

    with dg.debug_nans():
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert np.isinf(found[0])


def test_a_record_made_before_is_named_without_its_line():
    _, f_jvp = dg.linearize(bad, np.array([1.0, 1.0, 0.5]))
    with np.errstate(divide="ignore"):
        _, later = dg.linearize(bad, X)
    with dg.debug_nans():
        assert np.isfinite(f_jvp(V))
        with pytest.raises(dg.NonFiniteError, match=r"np.sqrt made .*test_debugging.py"):
            later(V)


def test_taylor_series_and_sparse_jacobians_are_checked():
    with dg.debug_nans():
        with pytest.raises(
            dg.NonFiniteError, match="np.sqrt .*(?s:.*)at coefficient 0, index"
        ) as e:
            dg.jet(bad, (X,), ([V, V],))
        assert e.value.source == SOURCE
        y, series = dg.jet(np.sin, (X,), ([V, V],))
        assert np.isfinite(series).all()
        pytest.importorskip("scipy")
        with pytest.raises(dg.NonFiniteError, match="np.sqrt"):
            dg.sparse_jacobian(np.sqrt)(X)
        assert dg.sparse_jacobian(np.square)(X).nnz == 3


def test_a_division_by_the_number_zero_is_numpys():
    for zero, sign in ((0.0, 1), (-0.0, -1), (0, 1)):
        with np.errstate(divide="ignore", invalid="ignore"):
            _, dy = dg.jvp(lambda x, zero=zero: x / zero, (X.astype(np.float32),), (V,))
        assert dy.dtype == np.float32 and (dy == sign * np.inf).all()
        with dg.debug_nans(), pytest.raises(dg.NonFiniteError, match="^np.divide made"):
            dg.jvp(lambda x, zero=zero: x / zero, (X,), (V,))


def test_trees_of_custom_rules_are_checked():
    @dg.custom_jvp
    def parts(t):
        return {"y": t["x"] * 2, "z": (t["x"],)}

    @parts.defjvp
    def rule(primals, tangents):
        (dt,) = tangents
        return parts.function(*primals), {"y": dt["x"] * 2, "z": (dt["x"] * np.nan,)}

    with dg.debug_nans(), pytest.raises(dg.NonFiniteError) as caught:
        dg.jvp(lambda x: parts({"x": x})["y"], (X,), (V,))
    assert caught.value.operation == "parts"
