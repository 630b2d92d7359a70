"""Rules of one's own: declared by hand for trees and every mode, or by finite differences."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad import testing

X = np.array([0.3, 0.7, 1.1])


@dg.custom_jvp
def softplus(x):
    return np.log1p(np.exp(x))


@softplus.defjvp
def softplus_rule(primals, tangents):
    (x,), (dx,) = primals, tangents
    return softplus(x), dx / (1 + np.exp(-x))


@dg.custom_jvp
def energy(state, power=2, *, name="energy"):
    return {"sum": np.sum(state["x"] ** power) * state["mass"], "parts": (state["x"], name)}


@dg.custom_jvp
def scaled(tree, factor=2.0, label=None):
    """A dict and a tuple out, for a dict, a number and a string in."""
    return {"y": (tree["a"] * factor, np.sum(tree["b"][0]))}


@scaled.defjvp
def scaled_rule(primals, tangents):
    (tree, factor, _), (dtree, dfactor, dlabel) = primals, tangents
    assert dlabel is None
    y = {"y": (tree["a"] * factor, np.sum(tree["b"][0]))}
    dy = {"y": (dtree["a"] * factor + tree["a"] * dfactor, np.sum(dtree["b"][0]))}
    return y, dy


def test_a_rule_serves_every_order_and_mode():
    testing.check_function(softplus, X, order=3)
    testing.check_function(lambda x: np.sum(softplus(x) * softplus(2 * x)), X, order=3)
    slope = 1 / (1 + np.exp(-X))
    np.testing.assert_allclose(dg.hessian(lambda x: np.sum(softplus(x)))(X).diagonal(),
                               slope * (1 - slope), rtol=1e-14)  # fmt: skip
    assert softplus.__name__ == "softplus" and softplus.__wrapped__ is softplus.function


def test_a_rule_that_calls_the_function_on_a_tangent_serves_forward_mode():
    @dg.custom_jvp
    def double(x):
        return 2 * np.asarray(dg.primal(x))  # what dualgrad cannot look into

    @double.defjvp
    def rule(primals, tangents):
        return double(primals[0]), double(tangents[0])

    f = lambda x: np.sum(double(x) ** 3)  # noqa: E731
    np.testing.assert_allclose(dg.gradient(f)(X), 24 * X**2)
    np.testing.assert_allclose(dg.hessian(f)(X), np.diag(48 * X), atol=1e-14)
    np.testing.assert_allclose(dg.linearize(f, X)[1](X), np.sum(24 * X**3))
    np.testing.assert_allclose(
        dg.jvp(lambda x: dg.linearize(f, x)[1](X), (X,), (X,))[1], np.sum(48 * X**3)
    )
    for wrong in (
        lambda: dg.gradient(f, mode="reverse")(X), lambda: dg.vjp(double, X)[1](X),
        lambda: dg.hvp(f, (X,), (X,), mode="reverse"),
    ):  # fmt: skip
        with pytest.raises(dg.MissingRuleError, match="double: its rule calls double on a tangent"):
            wrong()
    assert repr(double) == "<custom_jvp double>"


def test_trees_keywords_and_defaults_reach_the_rule_by_place():
    tree = {"a": X, "b": [X[:2]]}

    def f(t, c):
        return scaled(t, label="x", factor=c)["y"]

    testing.check_function(f, tree, 3.0, order=2)
    y, dy = dg.jvp(lambda t: scaled(t), (tree,), ({"a": X * 0 + 1, "b": [np.ones(2)]},))
    np.testing.assert_array_equal(dy["y"][0], [2.0, 2.0, 2.0])
    assert dy["y"][1] == 2.0 and y["y"][1] == X[:2].sum()


def test_duals_of_several_levels_meet_in_one_call():
    # d/dx [x * d/dy product(x, y)] with product(x, y) = x**2 y: d/dx x**3 = 12 at 2.
    @dg.custom_jvp
    def product(x, y):
        return x * x * y

    @product.defjvp
    def rule(primals, tangents):
        (x, y), (dx, dy) = primals, tangents
        return product(x, y), 2 * x * y * dx + x * x * dy

    D = dg.derivative
    assert D(lambda x: x * D(lambda y: product(x, y))(5.0))(2.0) == 12


def test_a_function_that_closes_over_a_dual_is_refused():
    def f(x):
        @dg.custom_jvp
        def inner(y):
            return x * y

        inner.defjvp(lambda p, t: (x * p[0], x * t[0]))
        return inner(x * 2)

    for transform in (dg.derivative(f), dg.gradient(f, mode="reverse")):
        with pytest.raises(dg.LevelError, match="uses a dual that is no argument"):
            transform(1.0)


@pytest.mark.parametrize(
    "rule, error, text",
    [
        (lambda p, t: t[0], dg.StructureError, r"must return \(y, dy\)"),
        (lambda p, t: (p[0], [t[0]]), dg.StructureError, r"expected: \*.*got: "),
        (lambda p, t: (p[0], t[0][:2]), dg.ShapeError, r"y has shape \(3,\) and dy \(2,\)"),
        (lambda p, t: (p[0], 1j * t[0]), dg.DtypeError, "dy is complex and y of dtype float64"),
        (lambda p, t: (p[0], "x"), dg.StructureError, "returned a str"),
    ],
)
def test_what_a_rule_must_not_return(rule, error, text):
    f = dg.custom_jvp(lambda x: x)
    f.defjvp(rule)
    with pytest.raises(error, match=f"(?s){text}"):
        dg.jvp(f, (X,), (X,))


def test_a_rule_that_is_not_linear_is_found_by_reverse_mode():
    f = dg.custom_jvp(lambda x: x)
    f.defjvp(lambda p, t: (p[0], t[0] + 1))
    with pytest.raises(dg.DualgradError, match="must be linear in the tangents"):
        dg.vjp(f, X)


def test_mistakes_of_the_declaration():
    f = dg.custom_jvp(lambda x: x)
    np.testing.assert_array_equal(f(X), X)  # without duals no rule is needed
    with pytest.raises(dg.MissingRuleError, match="without a rule.*finite_difference"):
        dg.jvp(f, (X,), (X,))
    with pytest.raises(dg.OptionError, match="give a function, not 3"):
        f.defjvp(3)
    with pytest.raises(dg.OptionError, match=r"\['name'\] can only be given by keyword"):
        energy({"x": X, "mass": 1.0})
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        f(X, z=1)


def test_integers_in_the_result_stay_plain():
    f = dg.custom_jvp(lambda x: (x * 2, np.argmax(x)))
    f.defjvp(lambda p, t: ((p[0] * 2, np.argmax(p[0])), (t[0] * 2, 0)))
    (y, place), (dy, none) = dg.jvp(f, (X,), (X,))
    assert place == 2 and none == 0 and (dy == 2 * X).all() and (y == 2 * X).all()


# --- finite differences


def simulate(a, b):
    """A black box: it takes numbers alone, out of NumPy's sight."""
    return np.array(
        [math.sin(p) * math.exp(q) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    )


def exact(a, b):
    return np.sin(a) * np.exp(b)


@settings(max_examples=20)
@given(a=testing.arrays(3), b=testing.arrays(3, low=-1.0, high=1.0), seed=st.integers(0, 99))
def test_differences_agree_with_the_exact_derivative_in_every_mode_of_first_order(a, b, seed):
    box = dg.finite_difference(simulate)
    v = testing.random_like(dg.Key(seed), (a, b))
    close = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(dg.jvp(box, (a, b), v)[1], dg.jvp(exact, (a, b), v)[1], **close)
    np.testing.assert_allclose(dg.linearize(box, a, b)[1](*v), dg.jvp(exact, (a, b), v)[1], **close)
    for mode in ("forward", "reverse"):
        found = dg.jacobian(lambda a: 2 * box(np.sin(a), b), mode=mode)(a)
        np.testing.assert_allclose(
            found, dg.jacobian(lambda a: 2 * exact(np.sin(a), b))(a), **close
        )
    ct = np.ones(3)
    for x, y in zip(dg.vjp(box, a, b)[1](ct), dg.vjp(exact, a, b)[1](ct), strict=True):
        np.testing.assert_allclose(x, y, **close)


def test_a_black_box_sees_plain_arrays_of_its_own():
    seen = []

    @dg.finite_difference
    def box(x, n, *, shift=0.0):
        """What it is for."""
        seen.append((type(x), x.flags.writeable, n, shift))
        x += shift
        return float(np.sum(x**n))

    x = X.copy()
    found = dg.gradient(lambda x: box(x, 2, shift=1.0))(x)
    np.testing.assert_allclose(found, 2 * (X + 1), rtol=1e-10)
    np.testing.assert_array_equal(x, X)
    assert set(seen) == {(np.ndarray, True, 2, 1.0)} and box.__doc__ == "What it is for."
    assert box(x, 3) == np.sum(X**3)


def test_differences_of_float32_and_complex_functions():
    box = dg.finite_difference(lambda z: np.sin(z))
    y, dy = dg.jvp(box, (X.astype(np.float32),), (np.ones(3, np.float32),))
    assert y.dtype == dy.dtype == np.float32
    np.testing.assert_allclose(dy, np.cos(X), rtol=1e-6)
    testing.check_transpose(box, (X + 0.5j,))
    v = np.array([1 + 1j, 1j, -2.0])
    np.testing.assert_allclose(dg.jvp(box, (X + 0.5j,), (v,))[1], np.cos(X + 0.5j) * v, rtol=1e-10)
    half = dg.finite_difference(lambda z: np.abs(z) ** 2)  # not holomorphic: linear over the reals
    np.testing.assert_allclose(dg.vjp(half, X + 0.5j)[1](np.ones(3))[0], 2 * (X + 0.5j), rtol=1e-9)


def test_the_accuracy_is_that_of_the_docstring():
    for scale in (1e-3, 1.0, 1e3):  # of the direction: the step follows it
        found = dg.jvp(dg.finite_difference(np.exp), (X,), (scale * X,))[1]
        np.testing.assert_allclose(found, np.exp(X) * scale * X, rtol=2e-12)
    noisy = dg.finite_difference(lambda x: np.round(np.exp(x), 8), step=0.05)
    np.testing.assert_allclose(dg.jvp(noisy, (X,), (np.ones(3),))[1], np.exp(X), rtol=1e-5)


@pytest.mark.parametrize(
    "second",
    [
        lambda f: dg.hessian(f)(X),
        lambda f: dg.hvp(f, (X,), (X,), mode="reverse"),
        lambda f: dg.derivative(lambda t: dg.jvp(f, (t * X,), (X,))[1])(1.0),
        lambda f: dg.jvp(lambda v: dg.linearize(f, X)[1](v), (X,), (X,)),
    ],
    ids=["hessian", "forward over reverse", "nested", "a direction that moves"],
)
def test_second_derivatives_of_differences_are_refused(second):
    box = dg.finite_difference(lambda x: np.sum(np.sin(x)))
    with pytest.raises(dg.MissingRuleError, match="by finite differences(?s:.*)dg.custom_jvp"):
        second(box)


def test_a_constant_of_an_outer_level_passes_by_stop_gradient():
    box = dg.finite_difference(lambda x: np.sum(np.sin(x)))

    def f(x):
        return dg.jvp(box, (dg.stop_gradient(x),), (X,))[1] * x[0]

    np.testing.assert_allclose(dg.gradient(f)(X)[0], np.cos(X) @ X, rtol=1e-10)


def test_options_of_differences_are_checked():
    for mistake in (lambda: dg.finite_difference(3), lambda: dg.finite_difference(np.sin, step=0)):
        with pytest.raises(dg.OptionError, match="give a function, and a step"):
            mistake()
