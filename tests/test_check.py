"""The checks themselves: they pass what is right and find what is wrong, order by order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad import testing, tree
from dualgrad.random import Key

X = np.array([0.3, 0.7])


def wrong(rule, function=lambda x: x**3):
    f = dg.custom_jvp(function)
    f.defjvp(lambda primals, tangents: (function(primals[0]), rule(primals[0], tangents[0])))
    return f


def test_a_right_function_passes_every_check():
    testing.check_function(
        lambda x, y: {"s": np.sin(x) * y, "t": np.sum(x)}, X, X + 1, order=3, k=4
    )
    dg.check_jvp(lambda t: t["w"] @ X, ({"w": np.eye(2), "name": "x", "f": np.sin},))
    dg.check_jvp(np.exp, (X.astype(np.float32),), order=2)
    dg.check_jvp(np.exp, (X.astype(np.float16),))
    dg.check_jvp(np.exp, (X * 1j,))


def test_a_wrong_first_derivative_is_found():
    with pytest.raises(testing.CheckError, match=r"(?s)order 1.*largest difference.*got.*expected"):
        dg.check_jvp(wrong(lambda x, dx: 3.001 * x**2 * dx), (X,))


def test_a_wrong_second_derivative_is_found_at_order_two_alone():
    f = wrong(lambda x, dx: 3 * np.array(dg.stop_gradient(x)) ** 2 * dx)  # the slope does not move
    dg.check_jvp(f, (X,))
    with pytest.raises(testing.CheckError, match="^jvp, derivative of order 2: largest"):
        dg.check_jvp(f, (X,), order=2)


def test_a_wrong_first_derivative_is_named_so_at_order_two():
    with pytest.raises(testing.CheckError, match="^jvp, derivative of order 1: largest"):
        dg.check_jvp(wrong(lambda x, dx: 3.001 * x**2 * dx), (X,), order=2)


def test_a_kink_is_found():
    with pytest.raises(testing.CheckError, match="not smooth"):
        dg.check_jvp(lambda x: dg.nn.relu(x - 0.3), (X,))


def test_a_wrong_dtype_is_found():
    def f(x):
        y = x * 2
        return dg.DualTensor(y.primal, y.tangents.astype(np.float64), y.level)

    with pytest.raises(testing.CheckError, match="float64 of a primal .* float32"):
        testing.check_directions(f, (X.astype(np.float32),))


def test_a_rule_that_mixes_directions_is_found():
    seen = []

    def rule(x, dx):  # the second direction of the first pass is given the first's tangent
        seen.append(dx)
        return 3 * x**2 * seen[0 if len(seen) == 2 else -1]

    testing.check_directions(wrong(lambda x, dx: 3 * x**2 * dx), (X,))
    with pytest.raises(testing.CheckError, match="direction 1 of 3"):
        testing.check_directions(wrong(rule), (X,))


def test_a_wrong_transpose_is_found():
    from dualgrad.primitive import linear

    bad = linear(lambda x: x * 2, lambda ct, shapes: ct * 3, name="bad")
    testing.check_jvp(bad, (X,))
    with pytest.raises(testing.CheckError, match="transpose: <u, J v>"):
        testing.check_transpose(bad, (X,))


def test_orders_and_dtypes_that_do_not_exist_are_refused():
    with pytest.raises(dg.OptionError, match="order=0"):
        dg.check_jvp(np.sin, (X,), order=0)
    with pytest.raises(dg.DtypeError):
        dg.check_jvp(np.sin, (np.arange(2),))


def test_arguments_that_are_no_tuple_are_refused():
    for check in (dg.check_jvp, testing.check_transpose, testing.check_directions):
        with pytest.raises(dg.StructureError, match=r"args is a ndarray.*\(x,\)"):
            check(np.sin, X)


@settings(max_examples=20)
@given(data=st.data(), k=st.integers(1, 3))
def test_drawn_tangents_of_k_directions_fit_pushforward(data, k):
    t = data.draw(testing.trees())
    v = data.draw(testing.tangents(t, k))
    y, dy = dg.pushforward(lambda t: tree.map(np.sin, t), (t,), (v,))
    for a, b, slope in zip(tree.leaves(t), tree.leaves(v), tree.leaves(dy), strict=True):
        np.testing.assert_allclose(slope, np.cos(a) * b, rtol=1e-12)
    static = data.draw(testing.tangents({"n": 3, "x": X}, k))
    assert static["n"] == 3 and static["x"].shape == (k, 2)


@given(shape=testing.shapes(min_side=0, max_side=1))
def test_shapes_may_be_empty(shape):
    assert set(shape) <= {0, 1}


def test_central_differences_are_accurate_to_the_fourth_order():
    v = np.array([1.0, -2.0])
    for scale in (1.0, 1e-3, 100.0):  # of the argument and of the direction
        found = testing.central_difference(lambda x: x**4, (X * scale,), (v * scale,))
        np.testing.assert_allclose(found, 4 * (X * scale) ** 3 * v * scale, rtol=1e-6, atol=1e-9)


@given(data=st.data())
def test_drawn_arrays_stay_in_their_range_and_apart(data):
    shape = data.draw(testing.shapes(max_dims=3))
    dtype = data.draw(st.sampled_from([np.float16, np.float32, np.float64, np.complex128]))
    x = data.draw(testing.arrays(shape, low=0.25, high=0.75, dtype=dtype))
    assert x.shape == shape and x.dtype == dtype
    assert ((x.real >= 0.25) & (x.real <= 0.75)).all()
    y = data.draw(testing.arrays(shape, distinct=True))
    gaps = np.diff(np.sort(y.ravel()))
    assert (gaps > 4 / (2 * y.size) - 1e-12).all()
    trees = data.draw(testing.trees())
    tangent = data.draw(testing.tangents(trees))
    for a, b in zip(tree.leaves(trees), tree.leaves(tangent), strict=True):
        assert np.shape(a) == np.shape(b) and np.asarray(a).dtype == np.asarray(b).dtype


def test_drawn_arrays_come_in_every_layout():
    found = {"plain": False, "transposed": False, "strided": False}

    @given(testing.arrays((3, 4)))
    def draw(x):
        kind = (
            "plain" if x.flags.c_contiguous else "transposed" if x.flags.f_contiguous else "strided"
        )
        found[kind] = True

    draw()
    assert all(found.values())


def test_random_like_draws_what_moves_and_leaves_the_rest():
    args = {
        "w": np.ones((2, 2), np.float32),
        "z": np.ones(2, complex),
        "n": 3,
        "name": "x",
        "s": 1.0,
    }
    v = testing.random_like(Key(0), args)
    assert (v["n"], v["name"]) == (3, "x") and v["w"].dtype == np.float32 and v["z"].imag.any()
    assert np.shape(v["s"]) == () and tree.paths(v) == tree.paths(args)
    again = testing.random_like(Key(0), args)
    np.testing.assert_array_equal(v["w"], again["w"])
