"""Nested transforms never mix tangents; a case is named by its expression, worked out beside it."""

import threading

import numpy as np
import pytest

import dualgrad as dg

D = dg.derivative


def test_D_x_of_x_times_D_y_of_x_plus_y():
    # d/dy (x + y) = 1, so the outer function is x * 1 and its derivative 1 (confused: 2).
    assert D(lambda x: x * D(lambda y: x + y)(1.0))(1.0) == 1


def test_D_x_of_x_times_D_y_of_x_times_y():
    # d/dy (x y) = x, so the outer function is x**2, and 2 * 4 = 8.
    assert D(lambda x: x * D(lambda y: x * y)(1.0))(4.0) == 8


def test_D_x_of_x_times_D_y_of_y_times_D_z_of_x_y_z():
    # d/dz (x y z) = x y; y times it: x y**2, d/dy at 2: 4 x; x times it: 4 x**2, d/dx at 3: 24.
    f = D(lambda x: x * D(lambda y: y * D(lambda z: x * y * z)(5.0))(2.0))
    assert f(3.0) == 24


def test_D_x_of_D_y_of_y_cubed_at_x_squared():
    # d/dy y**3 at x**2 is 3 x**4, and its derivative 12 x**3 = 96 at 2.
    assert D(lambda x: D(lambda y: y**3)(x * x))(2.0) == 96


def test_D_x_of_D_y_of_x_at_x():
    # x does not depend on y: the inner derivative is 0 for every x.
    assert D(lambda x: D(lambda y: x)(x))(2.0) == 0


def test_four_nested_derivatives_of_sin():
    f = np.sin
    for _ in range(4):
        f = D(f)
    np.testing.assert_allclose(f(0.3), np.sin(0.3), rtol=1e-14)


def test_hessian_of_sum_of_cubes():
    # d2/dx_i dx_j sum(x**3) = 6 x_i where i = j, else 0.
    x = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(dg.hessian(lambda x: np.sum(x**3))(x), np.diag(6 * x), atol=1e-14)


def test_jacobian_of_gradient_of_gradient_of_sum_of_fourth_powers():
    # The third derivatives of sum(x**4) are 24 x_i on the diagonal.
    x = np.array([1.0, -2.0])
    third = dg.jacobian(dg.jacobian(dg.gradient(lambda x: np.sum(x**4))))(x)
    expected = np.zeros((2, 2, 2))
    expected[[0, 1], [0, 1], [0, 1]] = 24 * x
    np.testing.assert_allclose(third, expected, atol=1e-13)


def test_lagrangian_equation_of_motion_of_a_pendulum():
    # L = v**2 / 2 + cos(q). Along q(t) = t**3: d/dt dL/dv - dL/dq = q'' + sin(q) = 6 t + sin(t**3).
    def lagrangian(q, v):
        return v * v / 2 + np.cos(q)

    def path(t):
        return t**3

    def momentum(t):
        return D(lagrangian, 1)(path(t), D(path)(t))

    def residual(t):
        return D(momentum)(t) - D(lagrangian, 0)(path(t), D(path)(t))

    np.testing.assert_allclose(residual(0.7), 6 * 0.7 + np.sin(0.7**3), rtol=1e-14)


def test_hamiltonian_as_the_legendre_transform_of_a_lagrangian():
    # L = m v**2 / 2 - q**2 and p = m v, so H = p v - L = p**2 / (2 m) + q**2, whose derivatives are
    # dH/dq = 2 q and dH/dp = p / m.
    m = 2.0

    def lagrangian(q, v):
        return m * v * v / 2 - q * q

    def hamiltonian(q, p):  # one Newton step from v = 0 solves dL/dv(v) = p, which is linear in v
        slope = D(D(lagrangian, 1), 1)(q, 0.0)
        v = (p - D(lagrangian, 1)(q, 0.0)) / slope
        return p * v - lagrangian(q, v)

    np.testing.assert_allclose(D(hamiltonian, (0, 1))(3.0, 5.0), (6.0, 2.5), rtol=1e-14)


def test_closure_that_keeps_x_of_the_inner_transform_raises_when_it_is_used():
    kept = []

    def inner(y):
        kept.append(y)
        return y * y

    def outer(x):
        D(inner)(x)
        return x * kept[0]  # confused, it would give x * x and 2 for a constant kept[0]

    with pytest.raises(dg.LevelError, match="dg.derivative"):
        D(outer)(1.0)


def test_closure_assignment_of_the_outer_variable_derivative_taken_twice():
    # total keeps x + x across the inner calls; both inner derivatives are x: d/dx (x + x) = 2.
    def f(x):
        total = 0.0

        def add(y):
            nonlocal total
            total = total + x
            return x * y

        first, second = D(add)(1.0), D(add)(2.0)
        assert dg.primal(total) == 2 * dg.primal(x)
        return first + second

    assert D(f)(3.0) == 2


@pytest.mark.parametrize("where", ["vjp inside jvp", "jvp inside vjp", "vjp inside vjp"])
def test_d_dx_of_x_times_d_dy_of_x_y_squared(where):
    # d/dy (x y**2) at y = x is 2 x**2; x times it is 2 x**3, whose derivative is 6 x**2 = 24 at 2.
    def forward(f):
        return lambda x: dg.jvp(f, (x,), (1.0,))[1]

    def backward(f):
        return lambda x: dg.vjp(f, x)[1](1.0)[0]

    inner = forward if where.startswith("jvp") else backward
    outer = forward if where.endswith("jvp") else backward
    assert outer(lambda x: x * inner(lambda y: x * y * y)(x))(2.0) == 24


def test_linearize_of_a_function_that_closes_over_an_outer_dual():
    # f_jvp(v) = 2 x y v at y = 3, v = x: 6 x**2, whose derivative is 12 x = 24 at 2.
    def f(x):
        _, f_jvp = dg.linearize(lambda y: x * y * y, 3.0)
        return f_jvp(x)

    assert D(f)(2.0) == 24


def test_tangents_that_are_outer_duals():
    # jvp of y**2 at 3 along x is 6 x, and its derivative 6.
    assert D(lambda x: dg.jvp(lambda y: y * y, (3.0,), (x,))[1])(2.0) == 6


def test_hessian_vector_product_four_ways():
    x, v = np.array([1.0, 2.0, 3.0]), np.array([1.0, -1.0, 0.5])

    def f(x):
        return np.prod(x) + np.sum(x**3)

    expected = dg.hessian(f)(x) @ v
    ways = [
        dg.hvp(f, (x,), (v,)),
        dg.hvp(f, (x,), (v,), mode="reverse"),
        dg.vjp(lambda x: dg.jvp(f, (x,), (v,))[1], x)[1](1.0)[0],
        dg.vjp(lambda x: np.sum(dg.vjp(f, x)[1](1.0)[0] * v), x)[1](1.0)[0],
    ]
    for way in ways:
        np.testing.assert_allclose(way, expected, rtol=1e-13)


def test_duals_made_by_hand_are_constants_to_the_transforms_inside():
    # b is by hand with tangent 1: d/dx (b x**2) at 3 is 6 b, which moves by 6 along b.
    b = dg.dual(2.0, 1.0)
    slope = D(lambda x: b * x * x)(3.0)
    assert (dg.primal(slope), dg.tangent(slope)) == (12, 6)


def test_stop_gradient_inside_an_inner_transform_stops_the_outer_too():
    # d/dx of x * d/dy (stop(x) y) at x is d/dx (x * c) with c = x: 3 at 3 (and 6 without the stop).
    assert D(lambda x: x * D(lambda y: dg.stop_gradient(x) * y)(1.0))(3.0) == 3


def test_threads_that_differentiate_at_the_same_time():
    # Each thread nests its own derivative of x**3 over a closure of the main thread's x.
    found, barrier = {}, threading.Barrier(4)

    def work(i, x):
        barrier.wait()
        for _ in range(20):
            found[i] = D(lambda y: D(lambda z: x * z**3)(y))(float(i))

    def f(x):
        threads = [threading.Thread(target=work, args=(i, x)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(found[i] for i in range(4))

    # d/dx of sum_i 6 x i = 6 * (0 + 1 + 2 + 3) = 36.
    assert D(f)(2.0) == 36


def test_generator_that_differentiates_while_its_caller_does():
    # It yields d/dy (x y**n) at 2 = n 2**(n-1) x for n = 1, 2, 3: the sum of x times it is 17 x**2.
    def slopes(x):
        for n in (1, 2, 3):
            yield D(lambda y, n=n: x * y**n)(2.0)

    assert D(lambda x: sum(x * slope for slope in slopes(x)))(3.0) == 34 * 3


def test_generator_that_outlives_the_transform_it_started_in():
    kept = []

    def f(x):
        kept.append(x * n for n in (1, 2))
        return x * next(kept[0])

    assert D(f)(3.0) == 6
    with pytest.raises(dg.LevelError, match="dg.derivative"):
        next(kept[0])


def test_transforms_made_inside_out_are_ordered_by_their_calls():
    # The derivative functions exist before either runs: the order of making them must not matter.
    inner = D(lambda y: y**3)
    outer = D(lambda x: x * inner(x))  # x * 3 x**2, so 9 x**2
    assert (outer(2.0), inner(1.0), outer(1.0)) == (36, 3, 9)


def test_value_and_gradient_with_aux_keeps_the_outer_tangent_of_aux():
    # aux is x y**2 at y = x, so x**3, which the outer derivative sees: 3 * 2**2 = 12.
    def f(x):
        (_, aux), _ = dg.value_and_gradient(lambda y: (y * y, x * y * y), has_aux=True)(x)
        return aux

    assert D(f)(2.0) == 12
    assert D(lambda x: dg.jvp(lambda y: (y, x * y * y), (x,), (1.0,), has_aux=True)[2])(2.0) == 12
    assert D(lambda x: dg.vjp(lambda y: (y, x * y * y), x, has_aux=True)[2])(2.0) == 12


@pytest.mark.parametrize("keep", ["linearize", "vjp"])
def test_stored_closures_that_hold_an_outer_dual(keep):
    # The linear map of y -> x y**2 at 3 takes v to 6 x v: inside it is 6 x, whose derivative is 6;
    # afterwards its x means nothing any more.
    kept = []

    def f(x):
        linear = getattr(dg, keep)(lambda y: x * y * y, 3.0)[1]
        kept.append(linear)
        return linear(1.0) if keep == "linearize" else linear(1.0)[0]

    assert D(f)(2.0) == 6
    with pytest.raises(dg.LevelError, match="dg.derivative"):
        kept[0](1.0)


def test_closures_stored_before_an_inner_transform_run_inside_it():
    # Each is x y**n; the sum of their derivatives at y = x is x (1 + 2 x + 3 x**2), so its own is
    # 1 + 4 x + 9 x**2 = 45 at 2.
    def f(x):
        powers = [lambda y, n=n: x * y**n for n in (1, 2, 3)]
        return sum(D(power)(x) for power in powers)

    assert D(f)(2.0) == 45


def test_a_cache_that_keeps_a_dual_of_an_earlier_call():
    cache = {}

    def f(x):
        return x * cache.setdefault("x", x)

    assert D(f)(3.0) == 6
    with pytest.raises(dg.LevelError, match="dg.derivative"):
        D(f)(3.0)


def test_a_generator_started_outside_an_inner_transform_and_resumed_inside():
    # steps gives x, x**2, x**3; inside, d/dy (x**2 y) = x**2 and d/dy (x**3 y) = x**3: the sum
    # with x is x + x**2 + x**3, whose derivative is 1 + 4 + 12 = 17 at 2.
    def steps(x):
        power = x
        while True:
            yield power
            power = power * x

    def f(x):
        powers = steps(x)
        first = next(powers)
        return first + D(lambda y: next(powers) * y)(1.0) + D(lambda y: next(powers) * y)(5.0)

    assert D(f)(2.0) == 17


def test_a_dual_handed_to_a_thread_that_outlives_its_transform():
    go, found = threading.Event(), []

    def work(x):
        go.wait()
        try:
            x * 2
        except dg.LevelError as error:
            found.append(error)

    def f(x):
        thread = threading.Thread(target=work, args=(x,))
        thread.start()
        found.append(thread)
        return x * 1

    D(f)(1.0)
    go.set()
    found[0].join()
    assert isinstance(found[1], dg.LevelError)


def test_directions_of_two_levels_that_are_as_many_as_the_axes():
    # J_y of x_i y_j at y is x_i delta_jk, so its derivative along x_l is delta_il delta_jk: three
    # directions at both levels, and every axis of size three.
    x, y = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
    inner = dg.jacobian(lambda x: dg.jacobian(lambda y: x[:, None] * y)(y))(x)
    eye = np.eye(3)
    np.testing.assert_array_equal(inner, np.einsum("il,jk->ijkl", eye, eye))


def test_a_forward_gradient_that_closes_over_an_outer_dual():
    # With one parameter and signs for directions the estimate is exact: d/dw (x w**2) = 2 x w, and
    # its derivative by x at w = 3 is 6.
    def f(x):
        return dg.forward_gradient(lambda w: x * w * w)(3.0, key=dg.Key(0))[1]

    assert D(f)(2.0) == 6


def test_a_level_that_failed_inside_leaves_the_outer_one_right():
    def f(x):
        try:
            D(lambda y: [x * y][1])(1.0)
        except IndexError:
            return x * D(lambda y: x * y)(1.0)

    assert D(f)(3.0) == 6
