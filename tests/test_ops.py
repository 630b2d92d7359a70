"""Every rule of the operation table, by the cases of ops_table.py, and conventions at kinks.

test_device.py has the same cases on a device.
"""

import numpy as np
import ops_table_functions
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_table import CASES

import dualgrad as dg
from dualgrad import nn, testing
from dualgrad.operations import OPERATIONS
from dualgrad.ops.elementwise import INTEGERS_ALONE
from dualgrad.random import Key

every_case = pytest.mark.parametrize("case", CASES, ids=str)
few = settings(max_examples=3)
seeds = st.integers(0, 2**32 - 1).map(Key)
ONE_EACH = list({case.operation: case for case in CASES}.values())


def leaves(y):
    return [np.asarray(leaf) for leaf in dg.tree.leaves(y)]


def stacked(vs):
    return tuple(np.stack(rows) for rows in zip(*vs, strict=True))


# --- the table itself


def test_every_differentiable_operation_has_a_case():
    missing = {o.name for f, o in OPERATIONS.items() if o.differentiable} - {
        OPERATIONS[case.operation].name for case in CASES
    }
    assert not missing
    assert {case.operation for case in CASES} == {
        f for f, o in OPERATIONS.items() if o.differentiable
    }
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    "case", [c for c in ONE_EACH if OPERATIONS[c.operation].name[:3] != "dg."], ids=str
)
@few
@given(st.data())
def test_case_reaches_the_rule_of_its_operation(case, data):
    entry, called = OPERATIONS[case.operation], []

    def spy(*args, **kwargs):
        called.append(args)
        return entry.rule(*args, **kwargs)

    args = data.draw(case.draw())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPERATIONS, case.operation, entry._replace(rule=spy))
        dg.jvp(case.call, args, args)
    assert called


# --- values and derivatives


@every_case
@few
@given(data=st.data(), key=seeds)
def test_values_are_numpys_and_k_directions_are_k_passes(case, data, key):
    args = data.draw(case.draw())
    plain = leaves(case.call(*args))
    vs = [testing.random_like(key.fold_in(i), args) for i in range(3)]
    y, single = dg.jvp(case.call, args, vs[0])
    for a, b in zip(leaves(y), plain, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)
    for k in (1, 3):
        y, ty = dg.pushforward(case.call, args, stacked(vs[:k]))
        for a, b in zip(leaves(y), plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)
        for i, v in enumerate(vs[:k]):
            expected = leaves(dg.jvp(case.call, args, v)[1])
            for a, b in zip(leaves(ty), expected, strict=True):
                assert a.shape == (k, *b.shape)
                np.testing.assert_allclose(a[i], b, rtol=1e-11, atol=1e-11)


@every_case
@few
@given(data=st.data(), key=seeds)
def test_jvp_matches_finite_differences_to_second_order(case, data, key):
    testing.check_jvp(case.call, data.draw(case.draw()), order=2, key=key)


@every_case
@few
@given(data=st.data(), key=seeds)
def test_linearize_replays_jvp_and_vjp_is_its_transpose(case, data, key):
    testing.check_transpose(case.call, data.draw(case.draw()), key=key)


@every_case
@settings(max_examples=1)
@given(data=st.data(), key=seeds)
def test_reverse_mode_nests(case, data, key):
    args = data.draw(case.draw())
    v = testing.random_like(key.fold_in("v"), args)
    testing.check_transpose(lambda *xs: dg.jvp(case.call, xs, v)[1], args, key=key)
    u = testing.random_like(key.fold_in("u"), case.call(*args))
    testing.check_jvp(lambda *xs: dg.vjp(case.call, *xs)[1](u), args, key=key)


@pytest.mark.parametrize("case", [c for c in CASES if c.complex], ids=str)
@few
@given(data=st.data(), key=seeds)
def test_complex_arguments_move_in_both_directions(case, data, key):
    args = data.draw(case.draw(np.complex128))
    testing.check_function(case.call, *args, order=2, k=2, seed=int(key.fold_in("seed").words[0]))


@every_case
@settings(max_examples=2)
@given(data=st.data(), key=seeds)
def test_float32_is_kept_and_near(case, data, key):
    args = data.draw(case.draw(np.float32))
    plain = leaves(case.call(*args))
    y, ty = dg.jvp(case.call, args, testing.random_like(key, args))
    for a, b, t in zip(plain, leaves(y), leaves(ty), strict=True):
        assert a.dtype == b.dtype == t.dtype
        if a.dtype != np.complex128 and not case.widens:
            assert a.real.dtype == np.float32
    testing.check_jvp(case.call, args, key=key)


@pytest.mark.parametrize("case", [c for c in CASES if c.narrow], ids=str)
@settings(max_examples=1)
@given(data=st.data(), key=seeds)
def test_float16_is_kept(case, data, key):
    args = data.draw(case.draw(np.float16))
    plain = leaves(case.call(*args))
    y, ty = dg.jvp(case.call, args, testing.random_like(key, args))
    for a, b, t in zip(plain, leaves(y), leaves(ty), strict=True):
        assert a.dtype == b.dtype == t.dtype
        np.testing.assert_allclose(b, a, rtol=2e-2, atol=2e-2)


# --- functions whose result does not move

TWO = (
    "heaviside floor_divide greater greater_equal less less_equal equal not_equal isclose allclose"
)
TWO += " array_equal array_equiv logical_and logical_or logical_xor"
CONSTANT_CALLS = {
    **{
        getattr(np, name): (lambda f: lambda x: f(x, 0.25))(getattr(np, name))
        for name in TWO.split()
    },
    np.searchsorted: lambda x: np.searchsorted(np.array([-1.0, 0.0, 1.0]), x),
    np.digitize: lambda x: np.digitize(x, [-1.0, 0.0, 1.0]),
    np.lexsort: lambda x: np.lexsort((x[0], x[1])),
    np.can_cast: lambda x: np.can_cast(x.dtype, np.float32) and np.can_cast(np.float32, float),
    np.result_type: lambda x: np.result_type(x, np.float32),
    **ops_table_functions.CALLS,
}


@pytest.mark.parametrize(
    "function",
    [f for f, o in OPERATIONS.items() if not o.differentiable and f.__name__ not in INTEGERS_ALONE],
    ids=lambda f: f.__name__,
)
@given(x=testing.arrays(st.sampled_from([(2, 3), (3, 3)])))
@few
def test_piecewise_constant_functions_see_the_primal_and_give_plain_results(function, x):
    call, seen = CONSTANT_CALLS.get(function, function), []

    def f(x):
        seen.append(call(x * 1))
        return x

    dg.jvp(lambda x: dg.jvp(f, (x,), (x,))[0], (x,), (x,))
    assert not any(isinstance(leaf, dg.DualTensor) for leaf in dg.tree.leaves(seen))
    assert np.array_equal(np.asarray(seen[0]), np.asarray(call(x)))
    assert type(seen[0]) is type(call(x))


# --- conventions where there is no derivative, to third order


def three_derivatives(f, x):
    found = []
    for _ in range(3):
        f = dg.derivative(f)
        found.append(f(x))
    return np.stack(found).tolist()


def row(*functions):
    return lambda x: np.stack([f(x) for f in functions])


TIE = row(lambda x: x, lambda x: 3 * x, lambda x: 2 * x + x * x)  # all 0 at 0; slopes 1, 3, 2
NOT_SMOOTH = {
    "abs at 0": (np.abs, 0.0, [0, 0, 0]),
    "fabs at 0": (np.fabs, 0.0, [0, 0, 0]),
    "abs of a square at 0": (lambda x: np.abs(x * x), 0.0, [0, 0, 0]),
    "relu at 0": (nn.relu, 0.0, [0, 0, 0]),
    "maximum(x, 0) at 0 is half": (lambda x: np.maximum(x, 0), 0.0, [0.5, 0, 0]),
    "maximum(x, x**2) at 0": (lambda x: np.maximum(x, x**2), 0.0, [0.5, 1, 0]),
    "minimum(3x, x**3) at 0": (lambda x: np.minimum(3 * x, x**3), 0.0, [1.5, 0, 3]),
    "fmax(x, -2x) at 0": (lambda x: np.fmax(x, -2 * x), 0.0, [-0.5, 0, 0]),
    "fmin(x, -2x) at 0": (lambda x: np.fmin(x, -2 * x), 0.0, [-0.5, 0, 0]),
    "fmax(x, nan)": (lambda x: np.fmax(x * x, np.nan), 1.0, [2, 2, 0]),
    "fmin(nan, x)": (lambda x: np.fmin(np.nan, x * x), 1.0, [2, 2, 0]),
    "max shares among ties": (lambda x: np.max(TIE(x)), 0.0, [2, 2 / 3, 0]),
    "min shares among ties": (lambda x: np.min(TIE(x)), 0.0, [2, 2 / 3, 0]),
    "ptp at a tie": (lambda x: np.ptp(TIE(x)), 0.0, [0, 0, 0]),
    "sort is stable at 0": (lambda x: np.sort(TIE(x)), 0.0, [[1, 3, 2], [0, 0, 2], [0, 0, 0]]),
    "median follows the stable order": (lambda x: np.median(TIE(x)), 0.0, [3, 0, 0]),
    "max_pool2d takes the first": (
        lambda x: nn.max_pool2d(TIE(x)[[1, 0, 2, 2]].reshape(1, 2, 2, 1), 2)[0, 0, 0, 0],
        0.0, [3, 0, 0],
    ),
    "clip at the lower edge": (lambda x: np.clip(x, 0, 1), 0.0, [1, 0, 0]),
    "clip at the upper edge": (lambda x: np.clip(x, 0, 1), 1.0, [1, 0, 0]),
    "clip at an edge that moves": (lambda x: np.clip(x, 2 * x, 1), 0.0, [1, 0, 0]),
    "clip outside": (lambda x: np.clip(x, 0, 1), 2.0, [0, 0, 0]),
    "clip with crossed limits": (lambda x: np.clip(x, 3 * x, 2 * x), 1.0, [2, 0, 0]),
    "norm at 0": (lambda x: np.linalg.norm(row(np.positive, np.positive)(x)), 0.0, [0, 0, 0]),
    "norm of order 3 at 0": (lambda x: np.linalg.norm(TIE(x), 3), 0.0, [0, 0, 0]),
    "vector_norm of order 3 at 0": (lambda x: np.linalg.vector_norm(TIE(x), ord=3), 0.0, [0] * 3),
    "std of equal entries": (lambda x: np.std(TIE(x)), 0.0, [0, 0, 0]),
    "hypot at 0": (lambda x: np.hypot(x, 2 * x), 0.0, [0, 0, 0]),
    "abs of a complex 0": (lambda x: np.abs(x * (1 + 2j)), 0.0, [0, 0, 0]),
    "x**0 at 0": (lambda x: x**0, 0.0, [0, 0, 0]),
    "x**1 at 0": (lambda x: x**1, 0.0, [1, 0, 0]),
    "x**2 at 0": (lambda x: x**2, 0.0, [0, 2, 0]),
    "x**3 at 0": (lambda x: x**3, 0.0, [0, 0, 6]),
    "x**2.0 at 0": (lambda x: np.float_power(x, 2.0), 0.0, [0, 2, 0]),
    "x**[0 1 2 3] at 0": (
        lambda x: x ** np.arange(4), 0.0, [[0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 6]],
    ),
    "0**x at 2": (lambda x: 0**x, 2.0, [0, 0, 0]),
    "prod of zeros": (lambda x: np.prod(row(*[np.positive] * 3)(x)), 0.0, [0, 0, 6]),
    "nan_to_num of nan": (lambda x: np.nan_to_num(x * np.nan), 1.0, [0, 0, 0]),
    "copysign of 0": (lambda x: np.copysign(x, -1.0), 0.0, [0, 0, 0]),
    "logsumexp of -inf": (lambda x: nn.logsumexp(x - np.array([np.inf, np.inf])), 1.0, [0, 0, 0]),
    "logsumexp with a -inf": (
        lambda x: nn.logsumexp(x * x - np.array([np.inf, 0.0])), 1.0, [2, 2, 0],
    ),
    "logaddexp of -inf": (lambda x: np.logaddexp(x - np.inf, x - np.inf), 1.0, [0, 0, 0]),
    "logaddexp2 of -inf": (lambda x: np.logaddexp2(x - np.inf, x - np.inf), 1.0, [0, 0, 0]),
    "softmax with a -inf": (lambda x: nn.softmax(x - np.array([np.inf, 0.0])), 1.0, [[0, 0]] * 3),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_SMOOTH)
def test_convention_at_kinks_to_third_order(name):
    f, x, expected = NOT_SMOOTH[name]
    np.testing.assert_allclose(three_derivatives(f, x), expected, atol=1e-14)


def test_where_selects_tangents_so_a_nan_branch_never_spreads():
    def f(x):
        return np.where(x > 0, np.log(np.sqrt(x)), x**3)

    with np.errstate(invalid="ignore", divide="ignore"):
        assert three_derivatives(f, -1.0) == [3, -6, 6]
        assert three_derivatives(f, 0.0) == [0, 0, 6]


# --- dtypes that operators and functions ask for


def test_python_numbers_are_weak_and_numpy_numbers_are_not():
    x = dg.dual(np.ones(3, np.float32), np.ones(3, np.float32))
    assert (2.0 * x**2 + 1).dtype == np.float32 == (2.0 * x**2 + 1).tangents.dtype
    assert (x * np.float64(2)).dtype == np.float64 == (x * np.float64(2)).tangents.dtype
    assert (x + np.arange(3)).tangents.dtype == np.float64
    assert (1j * x).tangents.dtype == np.complex64


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_dtype_argument_of_ufuncs_sets_the_dtype_of_both_parts(dtype):
    x, c = dg.dual(np.full(3, 1.5), np.ones(3)), np.arange(3.0)
    for y, plain in ((np.multiply(x, c, dtype=dtype), np.multiply(x.primal, c, dtype=dtype)),
                     (np.add(c, x, dtype=dtype), np.add(c, x.primal, dtype=dtype)),
                     (np.exp(x, dtype=dtype), np.exp(x.primal, dtype=dtype))):  # fmt: skip
        assert y.dtype == y.tangents.dtype == plain.dtype == dtype
        np.testing.assert_array_equal(y.primal, plain)
    assert np.array_equal(np.greater(x, 1.2, dtype=bool), [True] * 3)


def test_float16_means_do_not_overflow():
    x = dg.dual(np.full(1000, 100, np.float16), np.full(1000, 90, np.float16))
    for y in (np.mean(x), np.mean(x, 0), x.mean(), np.average(x)):
        assert (y.dtype, y.primal, y.tangent) == (np.float16, 100, 90)


def test_remainder_steps_where_its_value_does():
    # 1 / 0.1 rounds to 10, but 1 % 0.1 is 1 - 9 * 0.1: the slope in b is -9.
    assert dg.derivative(lambda b: 1.0 % b)(0.1) == -9
    assert dg.derivative(lambda b: np.fmod(1.0, b))(0.1) == -9


def test_unsupported_arguments_raise_instead_of_being_ignored():
    x = dg.dual(np.ones(3), np.ones(3))
    calls = [
        lambda: np.pad(x, 1, mode=lambda *args: None),
        lambda: np.quantile(x, 0.5, weights=x, method="inverted_cdf"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(dg.MissingRuleError, match="np[.]"):
            call()


def test_masks_and_indices_that_numpy_refuses_are_refused():
    x = dg.dual(np.arange(5.0), np.ones(5))
    for index in (np.array([True, False, True]), 5, [1, 7], (0, 0), 1.5, np.array([1.0])):
        with pytest.raises(IndexError):
            np.arange(5.0)[index]
        with pytest.raises(IndexError):
            x[index]
    with pytest.raises(TypeError, match="Axis|axis"):
        np.average(np.outer(x, x), weights=np.ones(5))
