"""Taylor mode against nested jvps, mpmath and identities."""

import importlib.util
import math
import operator
import warnings
from pathlib import Path

import mpmath
import numpy as np
import pytest
from jet_case import ONE_EACH, curve, drawn, nested, ways
from numpy.testing import assert_allclose

import dualgrad as dg
from dualgrad.jet import recurrences

TOOL = Path(__file__).parent.parent / "tools" / "jet_page.py"
A = np.array
X, V, W, U = np.random.default_rng(0).uniform(0.3, 1.2, (4, 4))
Z = np.zeros(4)


def smooth(x):
    """A real number, through every way that a primitive takes a series."""
    y = np.tanh(x) * x + np.exp(-x) * np.sin(x) ** 3 / (1 + x * x) + np.sqrt(x)
    return np.sum(np.cumsum(y) ** 2.5) + np.log1p(x) @ np.arctan(x) + np.linalg.norm(x)


def assert_agrees(found, expected, rtol=1e-9):
    """Compare trees, each array relative to its largest entry."""
    for a, b in zip(dg.tree.leaves(found), dg.tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape and a.dtype == b.dtype
        assert_allclose(a, b, rtol=0, atol=rtol * max(np.max(np.abs(b), initial=0), 1e-3))


def check_case(case, orders, imaginary=False):
    """Compare with nested jvps at the given orders."""
    args = drawn(case, imaginary)
    along = curve(args, max(orders))
    y, found = dg.jet(case.call, args, along)
    assert_agrees(y, dg.jvp(case.call, args, args)[0], 1e-13)
    for order in orders:
        assert_agrees(found[order - 1], nested(case.call, args, along, order))


# --- every operation


@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_operation_agrees_with_nested_jvps(case):
    check_case(case, (1, 2, 3))


@pytest.mark.parametrize("case", [c for c in ONE_EACH if c.complex], ids=str)
def test_operation_of_complex_numbers_agrees_with_nested_jvps(case):
    check_case(case, (1, 2), imaginary=True)


SIXTH = """exp tanh sin cosh tan sqrt power divide multiply square log arctan arcsin hypot logaddexp
    matmul einsum cumsum where maximum prod linalg.solve linalg.inv linalg.norm""".split()


@pytest.mark.parametrize("name", SIXTH)
def test_order_six_agrees_with_nested_jvps(name):
    check_case(next(c for c in ONE_EACH if c.name.split()[0] == f"np.{name}"), (6,))


@pytest.mark.slow
@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_every_operation_agrees_with_nested_jvps_to_order_six(case):
    check_case(case, (4, 6))


def test_the_page_is_what_the_table_gives():
    spec = importlib.util.spec_from_file_location("jet_page", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    found, written = tool.coverage(), tool.written()
    assert tool.PAGE.read_text() == tool.page(written)
    both = found.keys() & written.keys()
    assert {n: found[n] for n in both} == {n: written[n] for n in both}, (
        "run python tools/jet_page.py"
    )
    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":  # before, some names differ
        assert found.keys() <= written.keys(), "run python tools/jet_page.py"
        for name in written.keys() - found.keys():  # what this version does not have
            with pytest.raises(AttributeError):
                operator.attrgetter(name.removeprefix("np."))(np)


@pytest.mark.parametrize("function", list(recurrences.RECURRENCES), ids=str)
def test_recurrence_is_what_the_derivative_rule_gives(function, monkeypatch):
    # The general way, that of operations without a recurrence, is held against each that has one.
    square = function in (np.linalg.solve, np.linalg.inv)
    x = X.reshape(2, 2) + np.eye(2) if square else X
    line = [V.reshape(x.shape), W.reshape(x.shape), U.reshape(x.shape), 0 * x, 0 * x]
    binary = function in (np.multiply, np.divide, np.power, np.float_power, np.linalg.solve)
    calls = [lambda x: function(x, x * x)] if binary else [function]
    if binary:
        calls += [lambda x: function(x, 1.5 * np.eye(2) if square else 1.5),
                  lambda x: function(np.eye(2) if square else 1.5, x)]  # fmt: skip
    for call in calls:
        with ways() as met:
            found = dg.jet(call, (x,), (line,))[1]
        assert "recurrence" in met
        with monkeypatch.context() as patch:
            patch.delitem(recurrences.RECURRENCES, function)
            assert_agrees(dg.jet(call, (x,), (line,))[1], found, 1e-11)


def test_twelve_orders_agree_with_mpmath():
    def f(x, m):
        return m.exp(m.sin(x)) / (1 + x * x) + m.tanh(x) * m.sqrt(x) + m.cosh(x) ** 0.3

    with mpmath.workdps(60):
        expected = [float(mpmath.diff(lambda x: f(x, mpmath), 0.7, n)) for n in range(13)]
    y, found = dg.jet(lambda x: f(x, np), (0.7,), ((1.0, *[0.0] * 11),))
    assert_allclose([y, *found], expected, rtol=1e-11)


def test_exponential_to_order_forty():
    _, found = dg.jet(lambda x: np.exp(2 * x), (0.0,), ((1.0, *[0.0] * 39),))
    assert_allclose(found, 2.0 ** np.arange(1, 41), rtol=1e-12)


def test_calls_grow_with_a_power_of_the_order_and_not_exponentially():
    # The slope of jv has two jv in it, and that of the logistic function itself.
    special, counts = pytest.importorskip("scipy.special"), []
    for order in (4, 16):
        with ways() as met:
            line = (1.0, *[0.0] * (order - 1))
            dg.jet(lambda x: special.jv(1.5, x) + dg.nn.sigmoid(x), (2.0,), (line,))
        counts.append(sum(met.values()))
    assert counts[1] < counts[0] * 4**3


# --- curves, trees, dtypes


def test_a_curve_through_two_arguments():
    # x = 2 + 3 t + t**2, y = 5 - t: x y = 10 + 13 t + 2 t**2 - t**3.
    y, found = dg.jet(lambda x, y: x * y, (2.0, 5.0), ((3.0, 2.0, 0.0), (-1.0, 0.0, 0.0)))
    assert y == 10 and found == [13, 4, -6]
    y, found = dg.jet(lambda x, y: x * y, (2.0, 5.0), ((3.0, 2.0, 0.0), None))
    assert y == 10 and found == [15, 10, 0]


def test_trees_in_and_out():
    def f(p, q):
        return {"a": p["w"] * q, "b": (np.sum(p["w"]), 3.0)}

    ws = [{"w": V, "name": "w"}, {"w": W, "name": "w"}]
    y, found = dg.jet(f, ({"w": X, "name": "w"}, 2.0), (ws, (1.0, 0.0)))
    assert len(found) == 2 and y["b"][1] == 3
    assert_agrees(found[0], {"a": 2 * V + X, "b": (np.sum(V), np.float64(0))})
    assert_agrees(found[1], {"a": 2 * W + 2 * V, "b": (np.sum(W), np.float64(0))})


def test_series_may_be_stacked_and_empty():
    stacked = dg.jet(smooth, (X,), (np.stack([V, W]),))[1]
    assert_agrees(stacked, dg.jet(smooth, (X,), ((V, W),))[1], 1e-15)
    assert dg.jet(np.sin, (0.5,), ((),)) == (np.sin(0.5), [])
    assert dg.jet(np.sum, (np.zeros((0, 3)),), (np.zeros((2, 0, 3)),)) == (0, [0, 0])


def test_constants_have_zero_derivatives():
    (one, two), found = dg.jet(lambda x: (1, np.ones(2)), (X,), ((V, W),))
    assert one == 1 and two.tolist() == [1, 1]
    assert found[1][0] == 0 and found[1][1].tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.complex64, np.complex128])
def test_dtypes_are_kept(dtype):
    def f(x):
        return np.sum(np.sin(x) * x**2 / np.sqrt(x) + np.tanh(x) * np.log1p(x) - 2**x)

    x, along = X.astype(dtype), [V.astype(dtype), W.astype(dtype), U.astype(dtype)]
    y, found = dg.jet(f, (x,), (along,))
    assert y.dtype == dtype and [c.dtype for c in found] == [dtype] * 3
    exact = dg.jet(f, (x.astype(complex),), ([c.astype(complex) for c in along],))[1]
    assert_allclose(found, exact, rtol=200 * np.finfo(dtype).eps)


def test_transforms_do_not_write_what_they_are_given():
    before = [a.copy() for a in (X, V, W)]
    y, found = dg.jet(lambda x: x, (X,), ((V, W),))
    y += 1
    found[0] += 1
    assert all(np.array_equal(a, b) for a, b in zip(before, (X, V, W), strict=True))


# --- with other transforms


def high(x, v=V):
    return np.stack(dg.jet(smooth, (x,), ((v, W, U),))[1])


def test_jvp_of_a_jet_is_its_central_difference():
    for f, at in ((high, X), (lambda v: high(X, v), V)):
        h = 1e-5
        difference = (f(at + h * U) - f(at - h * U)) / (2 * h)
        assert_allclose(dg.jvp(f, (at,), (U,))[1], difference, rtol=1e-6)


def test_gradient_of_a_jet_forward_and_reverse():
    def third(x):
        return dg.jet(smooth, (x,), ((V, Z, Z),))[1][2]

    assert_allclose(dg.gradient(third)(X), dg.gradient(third, mode="reverse")(X), rtol=1e-9)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_jet_of_a_gradient(mode):
    line = dg.jet(smooth, (X,), ((V, Z, Z, Z),))[1]
    slope = dg.jet(lambda x: dg.gradient(smooth, mode=mode)(x) @ V, (X,), ((V, Z, Z),))
    assert_allclose([slope[0], *slope[1]], line, rtol=1e-10)


def test_jet_of_a_jet():
    line = dg.jet(smooth, (X,), ((V, Z, Z, Z),))[1]
    second = dg.jet(lambda s: dg.jet(smooth, (X + s * V,), ((V, Z),))[1][1], (0.0,), ((1.0, 0.0),))
    assert_allclose([second[0], *second[1]], line[1:], rtol=1e-10)


def test_jet_in_a_jet_does_not_confuse_them():
    # d/dy (x y) = x, so the outer function is x**2, whose derivatives at 4 are 8, 2, 0.
    def outer(x):
        return x * dg.jet(lambda y: x * y, (1.0,), ((1.0,),))[1][0]

    assert dg.jet(outer, (4.0,), ((1.0, 0.0, 0.0),))[1] == [8, 2, 0]
    # d/dy (x + y) = 1, so x * 1 has the derivative 1.
    f = lambda x: x * dg.jet(lambda y: x + y, (1.0,), ((1.0,),))[1][0]  # noqa: E731
    assert dg.derivative(f)(1.0) == 1


def test_a_dual_that_escapes_raises():
    kept = []
    dg.jet(lambda x: kept.append(x) or x * x, (1.0,), ((1.0, 0.0),))
    with pytest.raises(dg.LevelError, match="dg.jet that has returned"):
        kept[0] * 2


def test_custom_rule():
    @dg.custom_jvp
    def product(x, y):
        return np.log1p(np.exp(x)) * y

    @product.defjvp
    def rule(primals, tangents):
        (x, y), (dx, dy) = primals, tangents
        z = product(x, y)
        return z, dx * y / (1 + np.exp(-x)) + dy * z / y

    for y in (lambda x: x * x, lambda x: 2.0):
        along = ([V, W, U, Z, Z],)
        found = dg.jet(lambda x, y=y: np.sum(product(x, y(x))), (X,), along)
        plain = dg.jet(lambda x, y=y: np.sum(np.log1p(np.exp(x)) * y(x)), (X,), along)
        assert_agrees(found, plain)


# --- where there is no derivative, and where a formula divides by 0

KINKS = {
    "abs at 0": (np.abs, A([0.0, 1, -1])),
    "norm at 0": (lambda x: np.linalg.norm(x), A([0.0, 0])),
    "norm squared at 0": (lambda x: np.linalg.norm(x) ** 2, A([0.0, 0])),
    "hypot at 0": (lambda x: np.hypot(x[0], x[1]), A([0.0, 0])),
    "x**2 at 0": (lambda x: x**2, A([0.0, 2])),
    "x**3 of tiny numbers": (lambda x: x**3, A([0.0, 1e-120])),
    "x**0": (lambda x: x**0, A([0.0, 2])),
    "exponents in an array": (lambda x: x ** A([5.0, 2]), A([0.0, 0])),
    "x**2.5 at 0": (lambda x: x**2.5, A([0.0, 2])),
    "negative base": (lambda x: x**-3, A([-2.0, -1e-3])),
    "moving exponent of a negative base": (lambda x: A([-2.0, 2, 0]) ** x, A([2.0, 2, 2])),
    "x**x": (lambda x: x**x, A([0.0, 0.5])),
    "sqrt at 0": (np.sqrt, A([0.0, 1])),
    "sqrt of a 0 that stays": (lambda x: np.sqrt(x * A([0.0, 1])), A([3.0, 2])),
    "log at 0": (np.log, A([0.0, 1])),
    "where with a nan branch": (lambda x: np.where(x > 0, np.log(x), x**2), A([0.0, -1, 1])),
    "maximum at a tie": (lambda x: np.maximum(x * x, x), A([0.0, 1, 2])),
    "max at ties": (lambda x: np.max(np.stack([x[0], x[0] ** 2, x[1]])), A([1.0, 1])),
    "clip at the edges": (lambda x: np.clip(x**2, 0, 1), A([0.0, 1, -1, 2])),
    "relu at 0": (lambda x: dg.nn.relu(x) ** 2 + dg.nn.relu(x * x), A([0.0, 1, -1])),
    "sort at ties": (lambda x: np.sort(np.stack([x[0] ** 2, x[0], x[1]])), A([1.0, 1])),
    "product with zeros": (lambda x: np.prod(np.stack([x[0], x[1], x[0] * x[1]])), A([0.0, 0])),
    "std of equal numbers": (lambda x: np.std(np.stack([x[0]] * 3)), A([0.0, 1])),
    "0 / 0": (lambda x: x / x, A([0.0, 1])),
    "overflow": (np.exp, A([800.0, -800])),
    "saturation": (np.tanh, A([800.0, -30])),
    "nan": (np.sin, A([np.nan, 1])),
}


@pytest.mark.parametrize("name", KINKS)
@pytest.mark.parametrize("bend", [0.0, 0.7])
def test_conventions_are_those_of_nested_jvps(name, bend):
    f, x = KINKS[name]
    v, w = np.random.default_rng(len(name)).normal(size=(2, *x.shape))
    along = [[v, bend * w, 0 * x]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's own, of 1 / 0 and its like
        found = dg.jet(f, (x,), along)[1]
        expected = [nested(f, (x,), along, order) for order in (1, 2, 3)]
    # What has no finite value is infinite or NaN, as each formula has it.
    finite = np.isfinite(expected)
    assert np.array_equal(np.isfinite(found), finite)
    assert_allclose(A(found)[finite], A(expected)[finite], rtol=1e-9, atol=1e-12)


# --- writing


def test_writing_into_zeros_and_copies():
    def written(x):
        y = np.zeros_like(x)
        y[0] = x[1] ** 2
        y[1:] = np.sin(x[1:])
        y[2] *= x[0]
        z = x.copy()
        z[0] = y[3]
        z[1:3] = 0.0
        return y @ z

    def plain(x):
        y3 = np.sin(x[3])
        return x[1] ** 2 * y3 + y3 * x[3]

    for along in ([V, W, U, Z], [V, Z, Z, Z]):
        assert_agrees(dg.jet(written, (X,), (along,)), dg.jet(plain, (X,), (along,)))


def test_writing_into_results_and_views():
    def written(x):
        y = 2.0 * x  # of which only the first coefficient is not zero along a line
        rows = y.reshape(2, 2)
        rows[1] += np.sin(x[:2])
        y[0] = x[1] ** 3
        tail = y[1:]
        tail[0] = np.exp(x[0])
        y += x
        return np.sum(rows[0] ** 2) + tail @ x[1:]

    def plain(x):
        rest = 3 * x[2:] + np.sin(x[:2])
        y0, y1 = x[1] ** 3 + x[0], np.exp(x[0]) + x[1]
        return y0**2 + y1**2 + y1 * x[1] + rest @ x[2:]

    for along in ([V, W, U, Z], [V, Z, Z, Z]):
        assert_agrees(dg.jet(written, (X,), (along,)), dg.jet(plain, (X,), (along,)))
        found = dg.jvp(lambda x, a=along: dg.jet(written, (x,), (a,)), (X,), (V,))
        assert_agrees(found, dg.jvp(lambda x, a=along: dg.jet(plain, (x,), (a,)), (X,), (V,)))


def test_writing_where_an_outer_transform_runs():
    def outer(f):
        return lambda s: np.stack(dg.jet(lambda x: f(s, x), (X,), ((V, W, U),))[1])

    def written(s, x):
        y = np.zeros_like(x * s)
        y[0] = s * x[1] ** 2
        y[1] = np.sin(x[0] * s)
        return y @ x

    found = dg.derivative(outer(written))(0.7)
    plain = dg.derivative(outer(lambda s, x: s * x[1] ** 2 * x[0] + np.sin(x[0] * s) * x[1]))(0.7)
    assert_agrees(found, plain)


def _write(x):
    x[0] = np.sin(x[1])
    return x[0]


REFUSED = {
    "into the argument": (lambda: dg.jet(_write, (X,), ((V, W),)), dg.WriteError, "read-only"),
    "into a view of the argument": (
        lambda: dg.jet(lambda x: _write(x[1:]), (X,), ((V, W),)), dg.WriteError, "read-only"),
    "series of numbers": (
        lambda: dg.jet(np.sin, (1.0,), (1.0,)), dg.StructureError, "sequence of the same n"),
    "too many series": (
        lambda: dg.jet(np.sin, (1.0,), ((1.0,), (1.0,))), dg.StructureError, "each of the 1"),
    "unequal lengths": (
        lambda: dg.jet(np.add, (1.0, 2.0), ((1.0,), (1.0, 2.0))), dg.StructureError, r"\[1, 2\]"),
    "another shape": (lambda: dg.jet(np.sin, (X,), ((1.0,),)), dg.ShapeError, r"\(4,\)"),
    "an integer": (lambda: dg.jet(np.sin, (1,), ((1.0,),)), dg.DtypeError, "int64"),
    "a complex coefficient": (
        lambda: dg.jet(np.sin, (X,), ((1j * V,),)), dg.DtypeError, "complex tangent"),
    "an order too high": (
        lambda: dg.jet(np.sin, (np.float16(1),), (np.ones(9),)), dg.OptionError, "order 9"),
    "no tuple": (lambda: dg.jet(np.sin, 1.0, ((1.0,),)), dg.StructureError, "float"),
    "tangents": (
        lambda: dg.jet(lambda x: x.tangents, (X,), ((V,),)), dg.LevelError, "Taylor series"),
    "a number": (lambda: dg.jet(math.sin, (1.0,), ((1.0,),)), dg.ConversionError, "np.sin"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_misuse_is_refused(what):
    call, error, words = REFUSED[what]
    with pytest.raises(error, match=words):
        call()
