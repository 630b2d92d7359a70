"""The transforms: trees, argument numbers, auxiliary results, chunks, modes, own rules, errors."""

import dataclasses
import functools
import tracemalloc
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad import testing, transforms, tree
from dualgrad.check import inner
from dualgrad.random import Key


@dataclasses.dataclass
class Model:
    weight: np.ndarray
    layers: list
    name: str = "model"
    size: int = 3


class Pair(NamedTuple):
    first: object
    second: object


def model():
    return Model(
        np.array([[1.0, 2.0], [3.0, 4.0]]), [np.array([0.5, -0.5]), {"scale": np.array(2.0)}]
    )


def energy(m, x):
    h = np.tanh(m.weight @ x + m.layers[0])
    return np.sum(h**2) * m.layers[1]["scale"] + np.sum(m.weight**3)


def close(a, b, rtol=1e-12):
    a, b = tree.leaves(a), tree.leaves(b)
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-12)


# --- jvp and pushforward


@given(args=testing.trees(), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_jvp_and_pushforward_of_trees(args, seed):
    def f(t):
        return {"sin": tree.map(np.sin, t), "sum": sum(np.sum(x * x) for x in tree.leaves(t))}

    v = testing.random_like(Key(seed), args)
    y, dy = dg.jvp(f, (args,), (v,))
    close(y, f(args))
    close(dy["sin"], tree.map(lambda x, v: np.cos(x) * v, args, v))
    close(
        dy["sum"], sum(np.sum(2 * x * v) for x, v in zip(*map(tree.leaves, (args, v)), strict=True))
    )
    stacked = tree.map(lambda v: np.stack([v, 2 * v, 0 * v]), v)
    y, rows = dg.pushforward(f, (args,), (stacked,))
    close(rows, tree.map(lambda t: np.stack([t, 2 * t, 0 * t]), dy))


def test_results_that_do_not_depend_on_the_arguments_have_zero_tangents():
    y, dy = dg.jvp(lambda x: (x, 2.0, np.arange(3), np.ones(2, np.float32)), (1.0,), (1.0,))
    assert [np.shape(t) for t in dy] == [(), (), (3,), (2,)] and [np.any(t) for t in dy] == [
        True
    ] + [False] * 3
    assert dy[3].dtype == np.float32
    _, rows = dg.pushforward(lambda x: (x, np.ones(3)), (1.0,), (np.ones(4),))
    assert rows[1].shape == (4, 3)


def test_static_leaves_pass_through_untouched():
    def f(m, activation, nothing):
        assert (m.name, m.size, activation, nothing) == ("model", 3, np.tanh, None)
        return activation(m.weight)

    v = tree.map(np.ones_like, model())
    _, dy = dg.jvp(f, (model(), np.tanh, None), (v, np.tanh, None))
    np.testing.assert_allclose(dy, 1 - np.tanh(model().weight) ** 2)


def test_tangents_are_cast_to_the_dtype_of_their_primal():
    y, dy = dg.jvp(lambda x: x * x, (np.ones(2, np.float32),), (np.ones(2),))
    assert y.dtype == dy.dtype == np.float32
    assert dg.jvp(np.sin, (0.0,), (2,))[1] == 2  # an integer tangent is a number
    y, dy = dg.jvp(lambda z: z * z, (1 + 1j,), (1.0,))
    assert (y, dy) == (2j, 2 + 2j)


def test_inputs_are_not_changed_and_results_of_no_work_are_right():
    x, v = np.arange(3.0), np.ones(3)
    y, dy = dg.jvp(lambda x: x, (x,), (v,))
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(dy, v)
    assert x.flags.writeable and v.flags.writeable
    assert dg.jvp(lambda: 3.0, (), ()) == (3.0, 0.0)


def test_auxiliary_results_come_back_without_tangents():
    def f(x):
        return x * x, {"double": 2 * x, "name": "aux", "none": None}

    y, dy, aux = dg.jvp(f, (3.0,), (1.0,), has_aux=True)
    assert (y, dy, aux) == (9, 6, {"double": 6, "name": "aux", "none": None})
    y, dy, aux = dg.pushforward(f, (3.0,), (np.ones(2),), has_aux=True)
    assert (y, dy.tolist(), aux["double"]) == (9, [6, 6], 6)
    y, pull, aux = dg.vjp(f, 3.0, has_aux=True)
    assert (y, pull(1.0), aux["double"]) == (9, (6,), 6)
    for mode in ("forward", "reverse"):
        assert dg.gradient(f, mode=mode, has_aux=True)(3.0) == (6, aux)
        assert dg.jacobian(f, mode=mode, has_aux=True)(3.0) == (6, aux)
        assert dg.value_and_gradient(f, mode=mode, has_aux=True)(3.0) == ((9, aux), 6)
        assert dg.value_and_jacobian(f, mode=mode, has_aux=True)(3.0) == ((9, aux), 6)


# --- derivative, gradient, jacobian, hessian


def test_derivative_of_any_output():
    f = dg.derivative(lambda t: {"curve": np.stack([np.cos(t), np.sin(t)]), "t": t})
    close(f(0.3), {"curve": np.array([-np.sin(0.3), np.cos(0.3)]), "t": 1.0})
    assert dg.derivative(lambda x, y: x * y**2, 1)(2.0, 3.0) == 12
    assert dg.derivative(lambda x, y: x * y**2, (1, 0))(2.0, 3.0) == (12, 9)
    assert dg.derivative(lambda x, *, power: x**power, -1)(2.0, power=3) == 12
    assert dg.derivative(np.square)(np.array(3.0, np.float32)).dtype == np.float32


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3, 100])
def test_gradient_of_trees_in_both_modes_and_any_chunks(chunk_size):
    m, x = model(), np.array([0.3, -0.2])
    forward = dg.gradient(energy, (0, 1), chunk_size=chunk_size)(m, x)
    reverse = dg.gradient(energy, (0, 1), mode="reverse")(m, x)
    close(forward, reverse)
    assert (
        isinstance(forward, tuple) and isinstance(forward[0], Model) and forward[0].name == "model"
    )
    close(dg.gradient(energy)(m, x), forward[0])
    close(dg.gradient(energy, -1, chunk_size=chunk_size)(m, x), forward[1])
    value, only = dg.value_and_gradient(energy, (1,), chunk_size=chunk_size)(m, x)
    assert isinstance(only, tuple) and value == energy(m, x)
    v = testing.random_like(Key(0), (m, x))
    np.testing.assert_allclose(
        inner(forward, v), testing.central_difference(energy, (m, x), v), rtol=1e-6
    )


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_jacobian_of_trees_has_the_shape_of_results_then_of_arguments(mode, chunk_size):
    def f(p, s):
        return {"y": p.first @ p.second * s, "z": (np.sum(p.first), p.second[:, None])}

    p, s = Pair(np.arange(6.0).reshape(2, 3), np.array([1.0, -1.0, 2.0])), np.float64(3)
    value, j = dg.value_and_jacobian(f, (0, 1), mode=mode, chunk_size=chunk_size)(p, s)
    close(value, f(p, s))
    blocks = {"y": (2,), "z0": (), "z1": (3, 1)}
    for name, block in (("y", j["y"]), ("z0", j["z"][0]), ("z1", j["z"][1])):
        assert isinstance(block[0], Pair)
        shapes = [x.shape for x in (block[0].first, block[0].second, block[1])]
        assert shapes == [(*blocks[name], 2, 3), (*blocks[name], 3), blocks[name]]
    np.testing.assert_allclose(j["y"][0].second, 3 * p.first)
    np.testing.assert_allclose(j["y"][0].first, 3 * np.einsum("ij,k->ijk", np.eye(2), p.second))
    np.testing.assert_allclose(j["y"][1], p.first @ p.second)
    assert not j["z"][0][1].any() and (j["z"][0][0].first == 1).all()


def test_jacobians_of_empty_arguments_and_results():
    for mode in ("forward", "reverse"):
        assert dg.jacobian(lambda x: x * 2, mode=mode)(np.zeros((0, 2))).shape == (0, 2, 0, 2)
        assert dg.jacobian(lambda x: np.sum(x), mode=mode)(np.zeros(0)).shape == (0,)
        assert dg.jacobian(lambda x: x[:0], mode=mode)(np.ones(3)).shape == (0, 3)


def test_hessian_of_a_tree_is_a_tree_of_trees():
    # a**2 b with a (2,) and b (): d2/da2 = 2 b I, d2/da db = 2 a, d2/db2 = 0.
    p = {"a": np.array([1.0, 2.0]), "b": np.array(3.0)}
    for chunk_size in (None, 1):
        h = dg.hessian(lambda p: np.sum(p["a"] ** 2) * p["b"], chunk_size=chunk_size)(p)
        close(h, {"a": {"a": 6 * np.eye(2), "b": 2 * p["a"]}, "b": {"a": 2 * p["a"], "b": 0.0}})
    x, y = np.array([1.0, 2.0]), np.array([3.0])
    h = dg.hessian(lambda x, y: np.sum(x**3) * y[0], (0, 1))(x, y)
    close(h[0][1], 3 * x[:, None] ** 2)
    close(h[1][0], 3 * x[None, :] ** 2)


def test_hvp_of_trees_is_the_hessian_times_the_direction_in_both_modes():
    m, x = model(), np.array([0.3, -0.2])
    v = testing.random_like(Key(1), (m, x))
    expected = testing.central_difference(dg.gradient(energy, (0, 1)), (m, x), v)
    for mode in ("forward", "reverse"):
        found = dg.hvp(energy, (m, x), v, mode=mode)
        assert isinstance(found[0], Model)
        close(found, expected, rtol=1e-6)
        close(found, dg.hvp(energy, (m, x), v), rtol=1e-11)
    one = dg.hvp(lambda x: np.sum(x**3), [x], [np.ones(2)])
    np.testing.assert_allclose(one, 6 * x)


def test_argument_numbers_and_keyword_arguments():
    def f(x, n, y, scale=1.0):
        return scale * x**n * y

    assert dg.gradient(f)(2.0, 3, 5.0) == 60
    assert dg.gradient(f, 2)(2.0, 3, 5.0, scale=10.0) == 80
    assert dg.gradient(f, (2, 0))(2.0, 3, 5.0) == (8, 60)
    assert dg.gradient(f, -1)(2.0, 3, 5.0) == 8
    assert dg.jacobian(f, [0])(2.0, 3, 5.0) == (60,)


def test_complex_derivatives_are_the_same_in_both_modes_or_refused():
    z = np.array([1 + 2j, 0.5j])
    np.testing.assert_allclose(dg.jacobian(lambda z: z**2)(z), np.diag(2 * z))  # holomorphic
    real = dg.gradient(lambda z: np.sum(np.abs(z) ** 2), mode="reverse")(z)
    np.testing.assert_allclose(real, 2 * z)  # df/dRe + i df/dIm
    for refused in (dg.gradient(lambda z: np.sum(np.abs(z) ** 2)), dg.jacobian(np.abs),
                    dg.jacobian(lambda z: z * z, mode="reverse")):  # fmt: skip
        with pytest.raises(dg.DtypeError, match="half of its derivative"):
            refused(z)


# --- linearize and vjp


def test_linearize_runs_the_function_once():
    calls = []

    def f(x, y):
        calls.append(1)
        return {"a": np.sin(x) @ y, "b": 2.0, "c": x[0]}

    x, y = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    value, f_jvp = dg.linearize(f, x, y)
    for seed in range(3):
        v = testing.random_like(Key(seed), (x, y))
        close(f_jvp(*v), dg.jvp(f, (x, y), v)[1])
    assert len(calls) == 1 + 3
    close(value, f(x, y))


def test_linearize_of_functions_that_use_a_value_often_or_never():
    def f(x, unused):
        for _ in range(50):
            x = x * x + x - x * x  # shared nodes: without an order each doubles the work
        return x

    y, f_jvp = dg.linearize(f, 0.5, np.ones(2))
    assert (y, f_jvp(2.0, np.ones(2))) == (0.5, 2.0)
    _, f_vjp = dg.vjp(f, 0.5, np.ones(2))
    close(f_vjp(3.0), (3.0, np.zeros(2)))
    assert dg.linearize(lambda x: 2.0, 1.0)[1](1.0) == 0


def test_vjp_of_trees_and_of_several_outputs():
    m, x = model(), np.array([0.3, -0.2])
    y, f_vjp = dg.vjp(lambda m, x: (energy(m, x), {"h": m.weight @ x}), m, x)
    cts = (np.array(2.0), {"h": np.array([1.0, -1.0])})
    found = f_vjp(cts)
    v = testing.random_like(Key(3), (m, x))
    _, dy = dg.jvp(lambda m, x: (energy(m, x), {"h": m.weight @ x}), (m, x), v)
    np.testing.assert_allclose(inner(cts, dy), inner(found, v), rtol=1e-12)
    np.testing.assert_allclose(f_vjp(cts)[1], found[1])  # again and again


def test_vjp_keeps_the_dtypes_of_the_arguments():
    x, z = np.ones(2, np.float32), np.ones(2, np.complex128)
    _, f_vjp = dg.vjp(lambda x, z: np.sum(x * z), x, z)
    cts = f_vjp(1.0 + 2.0j)
    assert (cts[0].dtype, cts[1].dtype) == (np.float32, np.complex128)
    np.testing.assert_allclose(cts[0], 1)  # Re((1 - 2i) dx)
    np.testing.assert_allclose(cts[1], 1 + 2j)


# --- rules of one's own

calls = []


@dg.custom_jvp
def steps(x, scale):
    """floor(x) scale, with the slope of x scale."""
    calls.append(1)
    return np.floor(x) * scale


@steps.defjvp
def steps_rule(primals, tangents):
    (x, scale), (dx, dscale) = primals, tangents
    return steps(x, scale), dx * scale + np.floor(x) * dscale


@dg.custom_jvp
def cube(x):
    return x * x * x


@cube.defjvp
def cube_rule(primals, tangents):
    return cube(primals[0]), 3 * primals[0] ** 2 * tangents[0]


def test_a_rule_replaces_the_derivative_under_every_transform():
    x, scale = np.array([1.5, -0.5]), 2.0
    np.testing.assert_array_equal(steps(x, scale), [2, -2])
    for v, dv in ((np.array([1.0, 10.0]), 0.0), (np.zeros(2), 1.0)):
        expected = v * scale + np.floor(x) * dv
        y, dy = dg.jvp(steps, (x, scale), (v, dv))
        np.testing.assert_array_equal(y, steps(x, scale))
        np.testing.assert_array_equal(dy, expected)
        np.testing.assert_array_equal(dg.linearize(steps, x, scale)[1](v, dv), expected)
    _, rows = dg.pushforward(steps, (x, scale), (np.eye(3)[:, :2], np.eye(3)[:, 2]))
    np.testing.assert_array_equal(rows, [[2, 0], [0, 2], [1, -1]])
    cts = dg.vjp(steps, x, scale)[1](np.array([1.0, 10.0]))
    close(cts, (np.array([2.0, 20.0]), -9.0))
    np.testing.assert_array_equal(dg.jacobian(lambda x: steps(x, 3))(x), 3 * np.eye(2))
    np.testing.assert_array_equal(
        dg.gradient(lambda s: np.sum(steps(x, s)), mode="reverse")(2.0), 0
    )


def test_a_rule_nests_to_any_order_in_both_modes():
    d = dg.derivative
    assert [f(2.0) for f in (cube, d(cube), d(d(cube)), d(d(d(cube))))] == [8, 12, 12, 6]
    assert (
        dg.hvp(lambda x: np.sum(cube(x)), (np.array([2.0]),), (np.array([1.0]),), mode="reverse")
        == 12
    )
    testing.check_function(lambda x: np.sin(cube(x)) * x, np.array([0.3, 0.7]))


def test_a_rule_keeps_float32_even_where_it_widens():
    @dg.custom_jvp
    def f(x):
        return x * x

    f.defjvp(
        lambda primals, tangents: (primals[0] ** 2, 2.0 * primals[0] * tangents[0] * np.float64(1))
    )
    x = np.ones(2, np.float32)
    for dy in (dg.jvp(f, (x,), (x,))[1], dg.linearize(f, x)[1](x), dg.vjp(f, x)[1](x)[0]):
        assert dy.dtype == np.float32


def test_errors_of_rules_name_the_function():
    @dg.custom_jvp
    def bare(x):
        return x

    with pytest.raises(dg.DualgradError, match="@bare.defjvp"):
        dg.jvp(bare, (1.0,), (1.0,))
    bare.defjvp(lambda primals, tangents: primals[0])
    with pytest.raises(dg.StructureError, match=r"rule of bare must return \(y, dy\)"):
        dg.jvp(bare, (1.0,), (1.0,))
    bare.defjvp(lambda primals, tangents: (primals[0], tangents[0][:1]))
    for transform in (lambda x: dg.jvp(bare, (x,), (x,)), lambda x: dg.vjp(bare, x)):
        with pytest.raises(dg.ShapeError, match=r"y has shape \(2,\) and dy \(1,\)"):
            transform(np.ones(2))
    bare.defjvp(lambda primals, tangents: (primals[0], "text"))
    with pytest.raises(dg.StructureError, match="rule of bare"):
        dg.jvp(bare, (1.0,), (1.0,))


def test_stop_gradient_makes_constants_of_trees():
    def f(x):
        stopped = dg.stop_gradient({"x": x, "n": [2, x * x]})
        assert not isinstance(stopped["x"], dg.DualTensor)
        return x * stopped["x"] * stopped["n"][1]

    assert dg.derivative(f)(2.0) == 8
    assert dg.gradient(f, mode="reverse")(2.0) == 8
    assert dg.derivative(dg.derivative(f))(2.0) == 0
    assert dg.stop_gradient(3.0) == 3.0


# --- errors

ONE, TWO, THREE = np.float64(1), np.ones(2), np.ones(3)
REFUSED = [
    (dg.DtypeError, "dg.jvp.*int64", lambda: dg.jvp(np.sin, (np.arange(3),), (THREE,))),
    (dg.DtypeError, "dg.jvp.*int64", lambda: dg.jvp(np.sin, (1,), (1.0,))),
    (dg.DtypeError, "dg.gradient.*int64", lambda: dg.gradient(np.square)(3)),
    (dg.DtypeError, "dg.vjp.*int64", lambda: dg.vjp(np.sin, 3)),
    (dg.DtypeError, "complex tangent", lambda: dg.jvp(np.sin, (1.0,), (1j,))),
    (dg.ShapeError, r"\(2,\).*\(3,\)", lambda: dg.jvp(np.sin, (THREE,), (TWO,))),
    (dg.ShapeError, r"k = 2.*\(2, 3\)",
     lambda: dg.pushforward(np.sin, (THREE,), (np.ones((2, 2)),))),
    (dg.ShapeError, "leading axis", lambda: dg.pushforward(np.add, (ONE, ONE), (TWO, THREE))),
    (dg.ShapeError, "leading axis", lambda: dg.pushforward(np.sin, (ONE,), (ONE,))),
    (dg.StructureError, r"give a tuple.*\(x,\)", lambda: dg.jvp(np.sin, THREE, (THREE,))),
    (dg.StructureError, "one entry for each", lambda: dg.jvp(np.add, (ONE, ONE), (ONE,))),
    (dg.StructureError, "tangents must be a tuple", lambda: dg.jvp(np.sin, (ONE,), ONE)),
    (dg.StructureError, "differ in structure",
     lambda: dg.jvp(np.sin, ({"a": ONE},), ({"b": ONE},))),
    (dg.StructureError, "returned a str", lambda: dg.jvp(lambda x: "y", (ONE,), (ONE,))),
    (dg.StructureError, "returned a NoneType", lambda: dg.vjp(lambda x: None, ONE)),
    (dg.StructureError, "has_aux=True", lambda: dg.jvp(np.sin, (ONE,), (ONE,), has_aux=True)),
    (dg.StructureError, "has_aux=True", lambda: dg.vjp(lambda x: (x, x, x), ONE, has_aux=True)),
    (dg.ShapeError, "dg.gradient: the function must give one real number, and gave shape",
     lambda: dg.gradient(np.sin)(THREE)),
    (dg.ShapeError, "a complex number", lambda: dg.gradient(lambda x: x * 1j)(ONE)),
    (dg.ShapeError, "one real number", lambda: dg.hessian(np.sin)(THREE)),
    (dg.ShapeError, r"dg.derivative: x has shape \(3,\)", lambda: dg.derivative(np.sin)(THREE)),
    (dg.OptionError, "mode='sideways'", lambda: dg.gradient(np.sum, mode="sideways")),
    (dg.OptionError, "mode='sideways'", lambda: dg.jacobian(np.sum, mode="sideways")),
    (dg.OptionError, "mode='sideways'", lambda: dg.hvp(np.sum, (ONE,), (ONE,), mode="sideways")),
    (dg.OptionError, "dg.gradient: argnums=2", lambda: dg.gradient(np.sum, 2)(ONE)),
    (dg.OptionError, "dg.derivative: argnums=1", lambda: dg.derivative(np.sin, 1)(ONE)),
    (dg.OptionError, "dg.jacobian: chunk_size=0", lambda: dg.jacobian(np.sin, chunk_size=0)(THREE)),
    (dg.ShapeError, r"cotangent of shape \(2,\)", lambda: dg.vjp(np.sin, THREE)[1](TWO)),
    (dg.StructureError, "f_vjp", lambda: dg.vjp(np.sin, THREE)[1]((THREE, THREE))),
    (dg.StructureError, "dg.linearize", lambda: dg.linearize(np.add, ONE, ONE)[1](ONE)),
    (dg.ShapeError, "dg.linearize", lambda: dg.linearize(np.sin, THREE)[1](TWO)),
    (dg.MissingRuleError, "np.unravel_index",
     lambda: dg.jvp(lambda x: np.unravel_index(x, (9,)), (THREE,), (THREE,))),
    (dg.DualgradError, "dg.gradient.*dg.forward_gradient", lambda: dg.grad(np.sum)),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_misuse_is_refused_where_it_enters(number):
    error, match, misuse = REFUSED[number]
    with pytest.raises(error, match=f"(?s){match}"):
        misuse()


# --- what is refused rather than half done


@pytest.mark.parametrize("transform", [dg.gradient, dg.jacobian, dg.value_and_gradient])
@pytest.mark.parametrize("argnums", [(0, 0), (0, -2), "x", None, 1.5])
def test_argnums_name_each_argument_once_by_an_int(transform, argnums):
    with pytest.raises(dg.OptionError, match="argnums"):
        transform(lambda a, b: np.sum(a * b), argnums)(np.ones(2), np.ones(2))


def test_a_complex_cotangent_of_a_real_result_is_refused():
    with pytest.raises(dg.DtypeError, match="cotangent"):
        dg.vjp(np.sin, 2.0)[1](1j)


@pytest.mark.parametrize("tangent", [None, "3", np.array("x")])
def test_a_tangent_that_is_no_number_is_refused(tangent):
    with pytest.raises(dg.DualgradError):
        dg.jvp(np.sin, (2.0,), (tangent,))
    with pytest.raises(dg.DualgradError):
        dg.vjp(np.sin, 2.0)[1](tangent)


def test_derivative_of_a_complex_argument_to_a_real_result_is_refused():
    with pytest.raises(dg.DtypeError, match="half of its derivative"):
        dg.derivative(abs)(1 + 2j)


def test_results_can_be_written():
    x = np.ones(3)
    results = [dg.vjp(np.sum, x)[1](1.0)[0], dg.jacobian(lambda x: x)(x)]
    results += dg.jvp(lambda x: x, (x,), (x,))
    for result in results:
        result += 1
    np.testing.assert_array_equal(x, np.ones(3))  # and no result is the caller's array


def test_a_negative_base_leaves_the_other_entries_alone():
    with np.errstate(invalid="ignore"):
        g = dg.gradient(lambda p: p[0] ** p[1])(np.array([-2.0, 2.0]))
    np.testing.assert_array_equal(g, [-4.0, np.nan])  # log(-2) is not real


# --- chunks


def passes(function, shape, **options):
    """Return how many directions each pass over a function of one array carries."""
    seen = []

    def f(x):
        seen.append(len(x.tangents))
        return function(x)

    dg.jacobian(f, **options)(np.ones(shape))
    return seen


def test_the_default_chunk_is_128_directions_or_fewer_where_they_are_large():
    assert passes(np.sin, 100) == [100]
    assert passes(np.sum, 300) == [128, 128, 44]
    assert transforms.directions_at_once([np.ones(1 << 20)], None, "x") == 8
    assert transforms.directions_at_once([np.ones(1 << 25, np.float32)], None, "x") == 1


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 7])
def test_chunks_of_any_size_meet_leaves_of_any_size(chunk_size):
    p = {"a": np.arange(1.0, 3.0), "b": np.array(2.0), "c": np.ones((2, 2))}
    f = lambda p: {"u": p["a"] * p["b"], "v": np.outer(p["c"], p["a"]), "w": p["b"] ** 2}  # noqa: E731
    whole, parts = dg.jacobian(f)(p), dg.jacobian(f, chunk_size=chunk_size)(p)
    for one, other in zip(tree.leaves(whole), tree.leaves(parts), strict=True):
        assert type(one) is type(other) and one.shape == other.shape
        np.testing.assert_array_equal(one, other)


def test_a_jacobian_in_chunks_is_differentiated_in_both_modes():
    x = np.array([0.5, 1.5, -1.0])
    f = lambda x: np.sin(x) * x[::-1]  # noqa: E731
    g = lambda x: np.sum(dg.jacobian(f, chunk_size=2)(x) ** 2)  # noqa: E731
    expected = dg.gradient(lambda x: np.sum(dg.jacobian(f)(x) ** 2))(x)
    np.testing.assert_allclose(dg.gradient(g)(x), expected, rtol=1e-13)
    np.testing.assert_allclose(dg.gradient(g, mode="reverse")(x), expected, rtol=1e-13)


def test_the_memory_of_a_jacobian_is_the_output_and_the_tangents_of_a_pass():
    x, n, m, chunk = np.linspace(0, 1, 2000), 2000, 500, 16
    f = lambda x: np.sum(np.reshape(x * np.sin(x), (m, n // m)), 1)  # noqa: E731
    jacobian = dg.jacobian(f, chunk_size=chunk)
    jacobian(x)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    j = jacobian(x)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert j.nbytes <= peak <= 1.3 * (j.nbytes + chunk * x.nbytes)


def test_what_a_transform_returns_says_what_it_is():
    def area(x):
        return np.sum(x * x)

    for transform in (dg.gradient, dg.jacobian, dg.hessian, dg.derivative):
        name = f"{transform.__name__} of area"
        d = transform(area)
        assert d.__name__ == name and name in repr(d) and f"dg.{transform.__name__}" in d.__doc__
    assert dg.gradient(functools.partial(area)).__name__ == "gradient of partial"
