"""Every function that NumPy lets an array class override is accounted for, and rightly so."""

import inspect
import io

import mpmath
import numpy as np
import numpy.char
import numpy.lib.recfunctions
import numpy.polynomial
import numpy.strings  # noqa: F401  (functions are counted where their modules are loaded)
import ops_table_functions
import pytest
from numpy.testing import overrides
from ops_table import CASES
from test_ops import CONSTANT_CALLS

import dualgrad as dg
from dualgrad.dual import WRITERS
from dualgrad.operations import OPERATIONS, REFUSED, name_of, why_refused
from dualgrad.ops.elementwise import INTEGERS_ALONE


def public(function):
    """The function as users name it: the makers are listed a second time, as taken with like=."""
    return getattr(np, function.__name__) if function.__module__ == "numpy" else function


FUNCTIONS = {public(f) for f in overrides.get_overridable_numpy_array_functions()}
UFUNCS = overrides.get_overridable_numpy_ufuncs()


def takes_floats(ufunc):
    return any(set(loop.partition("->")[0]) & set("efdFD") for loop in ufunc.types)


def refused(function):
    if isinstance(function, np.ufunc):
        return not takes_floats(function)  # of texts, dates, integers
    return function in WRITERS or bool(why_refused(function))


def test_no_function_is_unclassified():
    left = {f for f in FUNCTIONS | UFUNCS if f not in OPERATIONS and not refused(f)}
    assert not {name_of(f) for f in left}
    assert not {name_of(f) for f in OPERATIONS if f in WRITERS or f in REFUSED}
    # So each differentiable one has a rule, and each rule a case that differences have checked.
    moving = {f for f in FUNCTIONS | UFUNCS if f in OPERATIONS and OPERATIONS[f].differentiable}
    assert len(moving) > 200
    assert moving <= {case.operation for case in CASES}


PLAIN_TARGETS = {
    np.copyto: lambda a, x: np.copyto(a, x),
    np.fill_diagonal: lambda a, x: np.fill_diagonal(np.diag(a), x),
    np.place: lambda a, x: np.place(a, [True, False, True], x),
    np.put: lambda a, x: np.put(a, [2, 0, 1], x),
    np.put_along_axis: lambda a, x: np.put_along_axis(a, np.arange(3), x, 0),
    np.putmask: lambda a, x: np.putmask(a, [True, False, True], x),
    np.save: lambda a, x: np.save(io.BytesIO(), x),
    np.savetxt: lambda a, x: np.savetxt(io.StringIO(), x),
    np.savez: lambda a, x: np.savez(io.BytesIO(), a, x),
    np.savez_compressed: lambda a, x: np.savez_compressed(io.BytesIO(), a=x),
}


def _call_with(function, x):
    """Call a function with as many duals as it asks for."""
    if isinstance(function, np.ufunc):
        return function(*[x] * function.nin)
    if function in WRITERS:
        return PLAIN_TARGETS[function](np.zeros(3), x)
    if not inspect.isfunction(inspect.unwrap(function)):
        return function(x, x)  # those in C show no signature to old versions
    parameters = inspect.signature(function).parameters.values()
    return function(*[x for p in parameters if p.default is p.empty and p.kind <= 1])


@pytest.mark.parametrize("function", sorted(filter(refused, FUNCTIONS), key=name_of), ids=name_of)
def test_refused_functions_say_which_and_why(function):
    x = dg.dual(np.arange(3.0), np.ones(3))
    named = name_of(function) if function is not np.fill_diagonal else "conversion to a plain array"
    with pytest.raises(dg.DualgradError, match=rf"\b{named}\b") as error:
        _call_with(function, x)
    if function not in WRITERS:
        assert isinstance(error.value, dg.MissingRuleError)
        assert why_refused(function) in str(error.value)


@pytest.mark.parametrize("ufunc", sorted(filter(refused, UFUNCS), key=name_of), ids=name_of)
def test_ufuncs_without_a_loop_for_floats_refuse_duals(ufunc):
    with pytest.raises(TypeError):
        _call_with(ufunc, dg.dual(np.arange(3.0), np.ones(3)))


@pytest.mark.parametrize(
    "function",
    sorted(
        (f for f in FUNCTIONS | UFUNCS if f in OPERATIONS and not OPERATIONS[f].differentiable),
        key=name_of,
    ),
    ids=name_of,
)
def test_what_is_declared_constant_does_not_move(function):
    if function.__name__ in INTEGERS_ALONE:
        pytest.skip("takes no real numbers")
    call = CONSTANT_CALLS.get(function, function)
    rng = np.random.default_rng(len(function.__name__))
    for _ in range(5):
        x, v = rng.uniform(-2, 2, (2, 3, 3))
        low, high = (np.asarray(call(x + h * v)) for h in (-1e-9, 1e-9))
        assert low.dtype.kind in "biufcO" or name_of(function) in (
            "np.array2string", "np.array_repr", "np.array_str", "np.einsum_path",
        )  # fmt: skip
        if low.dtype.kind != "U":  # a text shows digits, it has no derivative
            assert np.array_equal(low, high)
        if isinstance(function, np.ufunc) and function.nin == 2:
            y, w = rng.uniform(0.5, 2, (2, 3, 3))
            low, high = (function(x + h * v, y + h * w) for h in (-1e-9, 1e-9))
            assert np.array_equal(low, high)


# --- out=, and what else takes more than one argument that may move


def writable(x):
    return np.zeros_like(dg.dual(x, x))


@pytest.mark.parametrize(
    "call",
    [
        lambda x, out: np.sum(x, 0, None, out),
        lambda x, out: np.prod(x, axis=0, out=out),
        lambda x, out: np.max(x, 0, out),
        lambda x, out: np.mean(x, 0, out=out),
        lambda x, out: np.std(x, 0, None, out),
        lambda x, out: np.nanvar(x, 0, out=out),
        lambda x, out: np.median(x, 0, out),
        lambda x, out: np.quantile(x, 0.3, 0, out),
        lambda x, out: np.take(x, 1, 0, out),
        lambda x, out: np.cumprod(x[1], out=out),
        lambda x, out: np.dot(x[0], x.T @ x, out),
        lambda x, out: np.stack(list(x[0]), out=out),
        lambda x, out: np.einsum("ij->j", x, out=out),
        lambda x, out: np.clip(x[0], 0.5, 2, out),
        lambda x, out: np.choose([0, 1, 0], [x[0], x[1]], out=out),
    ],
)  # fmt: skip
def test_out_takes_duals_and_refuses_plain_arrays(call):
    x = np.array([[0.4, 1.5, 0.7], [1.1, 0.2, 0.9]])
    d = dg.dual(x, np.sin(x))
    out = writable(np.ones(3))
    assert call(d, out) is out
    y, t = dg.jvp(lambda x: call(x, None), (x,), (np.sin(x),))
    np.testing.assert_array_equal(out.primal, y)
    np.testing.assert_array_equal(out.tangent, t)
    np.testing.assert_array_equal(call(x, writable(np.ones(3))).tangent, 0)
    with pytest.raises(dg.DualgradError, match="out="):
        call(d, np.zeros(3))


def test_a_constant_result_written_to_a_dual_stops_its_tangent():
    for call in (lambda x, out: np.round(x, 0, out), lambda x, out: np.any(x, 0, out=out)):
        out = dg.dual(np.full(3, 0.3), np.ones(3))
        assert call(dg.dual(np.full((3,), 1.2), np.ones(3)), out) is out
        assert np.array_equal(out.primal, np.ones(3)) and not out.tangent.any()


def test_entries_are_read_in_the_order_that_memory_has():
    x = np.arange(24.0).reshape(2, 3, 4)
    d = dg.dual(x, -x)
    for view in (lambda a: a, lambda a: a.T, lambda a: a.transpose(2, 0, 1), lambda a: a[::-1]):
        for order in "CFAK":
            y = np.ravel(view(d), order)
            np.testing.assert_array_equal(y.primal, np.ravel(view(x), order))
            np.testing.assert_array_equal(y.tangent, -y.primal)


def test_partition_puts_smaller_entries_before():
    x = np.random.default_rng(0).permutation(20).reshape(4, 5) * 1.0
    y, t = dg.jvp(lambda x: np.partition(x, 2, 0), (x,), (x**2,))
    assert np.all(y[:2] <= y[2]) and np.all(y[3:] >= y[2])
    np.testing.assert_array_equal(t, y**2)


# --- conventions and accuracy


def test_interp_has_the_slope_to_the_right_of_a_knot():
    slope = dg.derivative(lambda x: np.interp(x, [0.0, 1.0, 3.0], [0.0, 2.0, 3.0]))
    assert [slope(x) for x in (-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0)] == [0, 2, 2, 0.5, 0.5, 0.5, 0]
    assert dg.derivative(lambda x: np.interp(x, [1.0, 1.0, 1.0], [0.0, 2.0, 3.0]))(1.0) == 0


def test_entries_that_choose_nothing_do_not_spoil_the_rest():
    x = np.array([[np.nan, 1.0], [np.nan, 3.0]])
    with pytest.warns(RuntimeWarning, match="All-NaN"):
        y, t = dg.jvp(lambda x: np.nanmax(x, 0), (x,), (np.ones((2, 2)),))
    assert np.isnan(y[0]) and t.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", ["sinc", "i0"])
def test_high_derivatives_agree_with_mpmath(name):
    exact = {"sinc": lambda x: mpmath.sincpi(x), "i0": lambda x: mpmath.besseli(0, x)}[name]
    f = getattr(np, name)
    for _ in range(3):
        f = dg.derivative(f)
    for x in (-2.3, -0.5, 0.0, 1e-7, 0.3, 0.478, 4.1, 19.99, 20.01):
        with mpmath.workdps(40):
            expected = float(mpmath.diff(exact, mpmath.mpf(x), 3))
        np.testing.assert_allclose(f(x), expected, rtol=1e-9, atol=1e-9)


def test_cumprod_of_zeros_has_the_exact_hessian():
    hessian = dg.hessian(lambda x: np.cumprod(x)[-1])(np.array([0.0, 2.0, 0.0, 3.0]))
    expected = np.zeros((4, 4))
    expected[0, 2] = expected[2, 0] = 6  # the others keep one zero as a factor
    np.testing.assert_array_equal(hessian, expected)


def test_makers_with_like_join_duals():
    def f(x):
        return np.sum(np.array([x * x, 3.0, np.sin(x)], like=x))

    assert dg.derivative(f)(0.5) == 1.0 + np.cos(0.5)
    assert set(map(name_of, ops_table_functions.CALLS)) <= {o.name for o in OPERATIONS.values()}
