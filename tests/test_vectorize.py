"""vectorize over duals, and derivatives through root finding and time steps in plain NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings

import dualgrad as dg
from dualgrad import testing


def bump(x, width):
    """Branches, loops and a plain result of an integer: what np.vectorize is for."""
    if abs(x) >= width:
        return 0.0
    total = 0.0
    for power in range(3):
        total = total + (x / width) ** power
    return total * np.exp(-x * x)


def smooth_bump(x, width):
    inside = np.abs(x) < width
    r = np.where(inside, x, 0) / width
    return np.where(inside, (1 + r + r**2) * np.exp(-x * x), 0)


@settings(max_examples=8)
@given(x=testing.arrays((3, 1)), width=testing.arrays((2,), low=2.5, high=3.0))
def test_each_entry_takes_its_own_branch_with_its_derivatives(x, width):
    f = dg.vectorize(bump)
    np.testing.assert_allclose(f(x, width), np.vectorize(bump)(x, width), rtol=1e-14)
    testing.check_function(f, x, width, order=2)
    wide = np.array([-5.0, 0.5, 5.0])
    np.testing.assert_allclose(
        dg.jacobian(f)(wide, 2.0), dg.jacobian(smooth_bump)(wide, 2.0), rtol=1e-13
    )


def test_arguments_that_are_excluded_or_named_pass_as_they_are():
    seen = []

    def f(x, table, *, scale):
        seen.append((np.ndim(x), table, scale))
        return x * table["a"] * scale, x

    product, same = dg.vectorize(f, excluded={1})(np.ones((2, 1)), {"a": 3.0}, scale=2.0)
    assert product.shape == same.shape == (2, 1) and (product == 6).all()
    assert seen[0] == (0, {"a": 3.0}, 2.0) and len(seen) == 2
    assert dg.derivative(lambda t: dg.vectorize(lambda a: a * t)(np.ones(2)))(3.0).shape == (2,)
    assert dg.vectorize(lambda: 2.0)() == 2.0


def test_a_signature_gives_axes_to_the_arguments():
    a = np.arange(1.0, 13.0).reshape(2, 2, 3)
    v = np.arange(3.0)
    f = dg.vectorize(lambda m, x: (m @ x, np.sum(x)), signature="(n, m),(m)->(n),()")
    y, s = f(a, v)
    np.testing.assert_array_equal(y, a @ v)
    np.testing.assert_array_equal(s, [3, 3])
    testing.check_function(lambda a, v: f(a, v)[0], a, v)


def test_mistakes_are_told():
    for signature in ("n->n", "(n)", "(n))->()"):
        with pytest.raises(dg.OptionError, match="write the axes"):
            dg.vectorize(np.sum, signature=signature)
    with pytest.raises(dg.OptionError, match="has 1 arguments, and 2 were given"):
        dg.vectorize(np.sum, signature="(n)->()")(np.ones(2), np.ones(2))
    with pytest.raises(dg.ShapeError, match=r"shape \(\) has fewer axes"):
        dg.vectorize(np.sum, signature="(n)->()")(1.0)
    with pytest.raises(dg.ShapeError, match=r"shape \(0, 2\), which has no entries"):
        dg.vectorize(bump)(np.ones((0, 2)), 1.0)
    with pytest.raises(ValueError, match="shape mismatch"):
        dg.vectorize(bump)(np.ones(2), np.ones(3))


# --- plain Python loops


def newton(f, x, steps=30):
    """Return the root of f near x, by steps until they no longer move it."""
    for _ in range(steps):
        step = f(x) / dg.derivative(f)(x)
        x = x - step
        if abs(step) < 1e-15:
            break
    return x


def test_roots_have_the_derivatives_of_the_implicit_function_theorem():
    # E - e sin(E) = M: dE/dM = 1 / (1 - e cos E), d2E/dM2 = -e sin(E) / (1 - e cos E)**3.
    e = 0.3

    def anomaly(m):
        return newton(lambda E: E - e * np.sin(E) - m, m)

    E = anomaly(1.0)
    assert E - e * np.sin(E) == pytest.approx(1.0, abs=1e-14)
    slope = 1 / (1 - e * np.cos(E))
    assert dg.derivative(anomaly)(1.0) == pytest.approx(slope, rel=1e-12)
    second = dg.derivative(dg.derivative(anomaly))(1.0)
    assert second == pytest.approx(-e * np.sin(E) * slope**3, rel=1e-11)
    over = dg.vectorize(anomaly)(np.array([0.5, 1.0, 2.0]))
    assert over[1] == pytest.approx(E, rel=1e-14)


def test_runge_kutta_steps_have_the_derivatives_of_the_flow():
    # y' = a y from y0: y(1) = y0 exp(a); dy/da = y, d2y/da2 = y, dy/dy0 = exp(a).
    def at_one(y, a, n=200):
        h = 1.0 / n
        for _ in range(n):
            k1 = a * y
            k2 = a * (y + h / 2 * k1)
            k3 = a * (y + h / 2 * k2)
            k4 = a * (y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y

    y0, a = np.array([1.0, 2.0]), np.float64(-0.7)
    exact = y0 * np.exp(a)
    dy0, da = dg.jacobian(at_one, (0, 1))(y0, a)
    np.testing.assert_allclose(dy0, np.exp(a) * np.eye(2), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(da, exact, rtol=1e-10)
    np.testing.assert_allclose(dg.derivative(dg.derivative(at_one, 1), 1)(y0, a), exact, rtol=1e-9)
