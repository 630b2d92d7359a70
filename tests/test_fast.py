"""The short cut of the primitives returns the bits of the general path, wherever it applies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_table import CASES

import dualgrad as dg
from dualgrad.operations import OPERATIONS
from dualgrad.primitive import Primitive

FAST = [o.rule for o in OPERATIONS.values() if isinstance(o.rule, Primitive)]


def in_general(call):
    """Return call() with every short cut left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Primitive, "__call__", Primitive.general)
        return call()


def assert_same_bits(one, other):
    one, other = dg.tree.leaves(one), dg.tree.leaves(other)
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert type(a) is type(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=2)
@given(data=st.data(), seed=st.integers(0, 99))
def test_fast_is_general_bit_for_bit(case, data, seed):
    draw = np.random.default_rng(seed).standard_normal
    for dtype in (np.float32, np.float64):
        args = data.draw(case.draw(dtype))
        for k in (1, 5):
            tangents = tuple(draw((k, *np.shape(x))).astype(dtype) for x in args)
            call = lambda a=args, v=tangents: dg.pushforward(case.call, a, v)  # noqa: E731
            assert_same_bits(call(), in_general(call))


@pytest.mark.parametrize("operation", FAST, ids=str)
def test_every_elementwise_function_of_one_or_two_arguments_has_a_short_cut(operation):
    assert operation.fast is not None


SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 1e308, -1.5])


@pytest.mark.parametrize("other", [2, 2.5, True, np.int32(3), np.arange(3), np.float64(2),
                                   np.arange(6.0).reshape(2, 3), np.ones((2, 1), np.float32)],
                         ids=repr)  # fmt: skip
@pytest.mark.parametrize("function", [np.add, np.subtract, np.multiply, np.divide, np.power,
                                      np.maximum, np.copysign], ids=str)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (3,), (2, 1)])
def test_other_operands_widen_and_broadcast_alike(other, function, dtype, shape):
    rng = np.random.default_rng(1)
    x, t = rng.uniform(0.5, 2, shape).astype(dtype), rng.standard_normal((5, *shape)).astype(dtype)
    for f in (lambda x: function(x, other), lambda x: function(other, x)):
        call = lambda f=f: dg.pushforward(f, (x,), (t,))  # noqa: E731
        with np.errstate(all="ignore"):
            assert_same_bits(call(), in_general(call))


@pytest.mark.parametrize("operation", FAST, ids=str)
def test_nan_infinities_and_zeros_come_out_alike(operation):
    arguments = len(SPECIAL) ** 2
    a, b = (m.ravel() for m in np.meshgrid(SPECIAL, SPECIAL))
    t = np.resize(SPECIAL, (3, arguments))
    function = operation.value
    f = function if getattr(function, "nin", 2) == 1 else lambda x: function(x, b)
    call = lambda: dg.pushforward(f, (a,), (t,))  # noqa: E731
    with np.errstate(all="ignore"):
        assert_same_bits(call(), in_general(call))


def test_results_never_share_a_tangent_that_may_be_written():
    def f(x):
        y = np.copy(x)
        for z in (y + 1, 1 + y, y - 0, +y, np.remainder(y, 7)):
            z[0] = 0
        return y

    assert np.array_equal(dg.jvp(f, (np.ones(3),), (np.ones(3),))[1], np.ones(3))


def test_views_write_through_in_both_parts():
    def f(x):
        y = np.copy(x)
        y.reshape(2, 2)[0, 1] = 5 * x[0]
        y.T[0] = 7.0
        return y

    x, t = np.ones(4), np.arange(1.0, 5)
    call = lambda: dg.jvp(f, (x,), (t,))  # noqa: E731
    assert_same_bits(call(), in_general(call))
    assert call()[1].tolist() == [0, 5, 3, 4]


@pytest.mark.parametrize("call", [np.exp, np.sum, lambda x: x * 2, lambda x: 2 - x,
                                  lambda x: x + x, lambda x: x.reshape(1)])  # fmt: skip
def test_a_closed_level_still_raises(call):
    kept = []
    dg.jvp(lambda x: kept.append(x) or x, (1.0,), (1.0,))
    with pytest.raises(dg.LevelError, match="dg.jvp that has returned"):
        call(kept[0])


def test_different_numbers_of_directions_still_raise():
    x, y = (dg.dual(np.ones(2), np.ones(2)) for _ in range(2))
    y.carrier = np.ones((3, 2))
    with pytest.raises(dg.ShapeError, match="k = 1 tangents and another k = 3"):
        x * y


def test_levels_that_meet_take_the_general_path():
    def f(x):
        return dg.derivative(lambda y: x * y + np.exp(y) * x)(2.0)  # x + exp(2) x

    assert dg.derivative(f)(3.0) == pytest.approx(1 + np.exp(2.0))
