"""dg.special against mpmath, differences and identities; its errors and the ends of its domains."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
import scipy.special
from special_case import ROWS, SLOW, Row, draw, mp

import dualgrad as dg
from dualgrad import special, testing
from dualgrad.special.rules import PUBLIC

TABLE = special.operations()
every_row = pytest.mark.parametrize("case", ROWS, ids=str)


def function_of(case: Row):
    home = scipy.special._ufuncs if case.name in PUBLIC else special
    function = getattr(home, case.name)
    return function if case.index is None else lambda *args: function(*args)[case.index]


def moving(case, seed, n=2, dtype=float):
    """Return f of the arguments that move, and those, at n random points."""
    args, places = draw(case, np.random.default_rng(seed), n, dtype)
    function = function_of(case)

    def f(*moved):
        full = list(args)
        for place, x in zip(places, moved, strict=True):
            full[place] = x
        return function(*full)

    return f, tuple(args[i] for i in places), args, places


def first_and_second(f, x):
    """Return the value, first and second derivative of an entry-by-entry function."""
    one = np.ones_like(x)
    (y, d), (_, dd) = dg.jvp(lambda x: dg.jvp(f, (x,), (one,)), (x,), (one,))
    return y, d, dd


def exact_derivatives(case, args, place, y):
    """Return mpmath's first and second derivative in one argument, at one point."""
    values = [mp.mpmathify(v.item()) for v in args]
    if case.inverse is not None:  # those of the inverse function, from what it inverts
        values[place] = mp.mpmathify(y.item())
    exact = case.exact if case.inverse is None else case.inverse
    _, d, dd = mp.diffs(lambda t: exact(*values[:place], t, *values[place + 1 :]), values[place], 2)
    return (1 / d, -dd / d**3) if case.inverse is not None else (d, dd)


# --- the table


def test_the_table_has_what_it_promises_and_every_rule_a_row():
    differentiable = {row.name for row in TABLE.values() if row.differentiable}
    assert len(differentiable) >= 170
    public = {f"scipy.special.{PUBLIC.get(case.name, case.name)}" for case in ROWS}
    undifferentiable = {  # every argument unknown
        f"scipy.special.{name}" for name in ("zetac", "stdtridf", "chdtriv", "gdtrib")
    }
    assert differentiable - public == undifferentiable
    assert not [f for f in TABLE if not isinstance(f, np.ufunc)]


@pytest.mark.parametrize("function", [scipy.special.gammasgn, scipy.special.round])
def test_what_does_not_move_gives_plain_arrays(function):
    x = dg.dual(np.array([-1.5, 2.2]), np.ones(2))
    assert type(function(x)) is np.ndarray
    np.testing.assert_array_equal(function(x), function(x.primal))


def test_the_page_is_what_the_tables_give():
    tool = Path(__file__).parent.parent / "tools" / "special_page.py"
    spec = importlib.util.spec_from_file_location("special_page", tool)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page(), "run python tools/special_page.py"


# --- derivatives


@every_row
def test_first_and_second_derivative_are_mpmaths(case):
    if case.exact is None and case.inverse is None:
        f, args, _, _ = moving(case, 7, n=3)
        testing.check_jvp(f, args, order=2, rtol=1e-5)
        return
    for dtype in (float, complex) if case.complex else (float,):
        _, _, args, places = moving(case, 7, 1 if case.name in SLOW else 2, dtype)
        for place in places:
            function = function_of(case)
            y, d, dd = first_and_second(
                lambda x, p=place, f=function, a=args: f(*a[:p], x, *a[p + 1 :]), args[place]
            )
            for i in range(len(y)):
                point = [v[i] for v in args]
                e, ee = (complex(v) for v in exact_derivatives(case, point, place, y[i]))
                assert abs(d[i] - e) <= case.first * abs(e) + 1e-14 * abs(y[i]), point
                assert abs(dd[i] - ee) <= case.second * abs(ee) + 1e-13 * (abs(e) + abs(y[i])), (
                    point
                )


@every_row
def test_directions_linearize_and_reverse_mode_agree(case):
    f, args, _, _ = moving(case, 3, n=3)
    testing.check_directions(f, args, 2)
    testing.check_transpose(f, args)
    testing.check_transpose(lambda *xs: dg.jvp(f, xs, tuple(np.ones_like(x) for x in xs))[1], args)


@pytest.mark.parametrize("case", [case for case in ROWS if case.complex], ids=str)
def test_complex_arguments_in_reverse(case):
    f, args, _, _ = moving(case, 5, dtype=complex)
    testing.check_transpose(f, args)


@every_row
def test_dtype_is_scipys_and_values_are(case):
    f, args, _, _ = moving(case, 9, n=2, dtype=np.float32)
    plain = f(*args)
    y, t = dg.jvp(f, args, tuple(np.ones_like(x) for x in args))
    assert plain.dtype == y.dtype == t.dtype
    np.testing.assert_array_equal(y, plain)
    assert np.all(np.isfinite(t))
    wide = tuple(x.astype(float) for x in args)
    expected = dg.jvp(f, wide, tuple(np.ones_like(x) for x in wide))[1]
    np.testing.assert_allclose(t, expected, rtol=3e-3, atol=1e-4 * np.max(np.abs(expected)))


def test_float32_stays_where_the_parameters_are_python_numbers():
    x = dg.dual(np.array([0.3, 0.7], np.float32), np.ones(2, np.float32))
    for y in (special.gamma(x), special.jv(1.5, x), special.erfcx(x), special.betainc(2.0, 3.0, x),
              special.ellipk(x), special.airy(x)[1], special.boxcox(x, 0.3),
              special.logsumexp(x), special.softmax(x), special.expit(x)):  # fmt: skip
        assert y.dtype == y.tangents.dtype == np.float32


@pytest.mark.parametrize("name, v", [("jve", 1.5), ("yve", 1.5), ("ive", 1.5), ("ive", -0.5)])
@pytest.mark.parametrize("z", [2 + 1j, 2 - 1.5j, 0.3 + 4j])
def test_scaled_functions_move_with_both_parts_of_z(name, v, z):
    f, z = getattr(special, name), np.array([z])
    testing.check_function(lambda z: f(v, z), z, order=2, k=2)


@pytest.mark.parametrize("z", [1.5 + 1j, -2 + 0.5j, 0.3 - 2j])
@pytest.mark.parametrize("index", range(4))
def test_scaled_airy_functions_move_with_both_parts_of_z(index, z):
    testing.check_function(lambda z: special.airye(z)[index], np.array([z]), order=2, k=2)


@pytest.mark.parametrize(
    "f, name",
    [
        (lambda x: special.jv(0.5, x), "jv"),
        (lambda x: special.gamma(x), "gamma"),
        (lambda x: special.erfcx(x), "erfcx"),
        (lambda x: special.ellipk(x / 5), "ellipk"),
        (lambda x: special.rgamma(-x), "rgamma"),
        (lambda x: special.airy(-x)[2], "airy"),
    ],
)
def test_fourth_derivative(f, name):
    exact = {
        "jv": lambda x: mp.besselj(0.5, x), "gamma": mp.gamma,
        "erfcx": lambda x: mp.exp(x * x) * mp.erfc(x), "ellipk": lambda x: mp.ellipk(x / 5),
        "rgamma": lambda x: mp.rgamma(-x), "airy": lambda x: mp.airybi(-x),
    }[name]  # fmt: skip
    fourth = f
    for _ in range(4):
        fourth = dg.derivative(fourth)
    for x in (0.7, 1.0, 2.3):
        np.testing.assert_allclose(fourth(x), float(mp.diff(exact, x, 4)), rtol=1e-9)


# --- the edges of domains

EDGES = {  # (function, argument, value of the derivative, and of the second one)
    "rgamma at its zeros": (special.rgamma, [0.0, -1.0, -2.0, -3.0], [1, -1, 2, -6], None),
    "rgamma at 0, second": (special.rgamma, [0.0], [1], [2 * np.euler_gamma]),
    "gamma at a pole": (special.gamma, [-1.0], [np.nan], None),
    "j1 at 0": (special.j1, [0.0], [0.5], [0]),
    "jv(2) at 0": (lambda x: special.jv(2, x), [0.0], [0], [0.25]),
    "jv(1/2) at 0": (lambda x: special.jv(0.5, x), [0.0], [np.inf], None),
    "i0e at 0 is a kink": (special.i0e, [0.0], [0], None),
    "spherical_jn at 0": (lambda x: special.spherical_jn(0, x), [0.0], [0], [-1 / 3]),
    "spherical_jn(1) at 0": (lambda x: special.spherical_jn(1, x), [0.0], [1 / 3], [0]),
    "sinc at 0": (special.sinc, [0.0], [0], [-np.pi**2 / 3]),
    "bei at 0": (special.bei, [0.0], [0], [0.5]),
    "sici at 0": (lambda x: special.sici(x)[0], [0.0], [1], [0]),
    "exprel at 0": (special.exprel, [0.0], [0.5], [1 / 3]),
    "ellipk at 0": (special.ellipk, [0.0], [np.pi / 8], [9 * np.pi / 64]),
    "ellipe at 0 and 1": (special.ellipe, [0.0, 1.0], [-np.pi / 8, -np.inf], None),
    "ellipj at m = 1": (lambda m: special.ellipj(8.0, m)[2], [1.0],
                        [-(np.sinh(8) * np.cosh(8) + 8) * np.tanh(8) / np.cosh(8) / 4],
                        [-1257.58871025]),
    "agm at equal arguments": (lambda x: special.agm(x, 2.0), [2.0], [0.5], [-1 / 16]),
    "spence at 1": (special.spence, [1.0], [-1], [0.5]),
    "boxcox at exponent 0": (lambda p: special.boxcox(2.0, p), [0.0],
                             [np.log(2) ** 2 / 2], [np.log(2) ** 3 / 3]),
    "inv_boxcox at exponent 0": (lambda p: special.inv_boxcox(2.0, p), [0.0],
                                 [-2 * np.exp(2)], None),
    "lambertw at 0": (lambda x: special.lambertw(x).real, [0.0], [1], [-2]),
    "eval_legendre at 1": (lambda x: special.eval_legendre(3, x), [-1.0, 1.0], [6, 6], [-15, 15]),
    "eval_chebyt at 1": (lambda x: special.eval_chebyt(3, x), [1.0], [9], [24]),
    "expit far out": (special.expit, [-700.0, 700.0], [np.exp(-700)] * 2, None),
    "log_ndtr far out": (special.log_ndtr, [-1e8], [1e8], None),
    "erfcx far out": (special.erfcx, [1e8], [-1e-16 / np.sqrt(np.pi)], [2e-24 / np.sqrt(np.pi)]),
    "dawsn far out": (special.dawsn, [1e8], [-0.5e-16], [1e-24]),
    "betainc at the ends": (lambda x: special.betainc(2, 3, x), [0.0, 1.0], [0, 0], None),
    "gammainc at 0": (lambda x: special.gammainc(1.0, x), [0.0], [1], None),
    "erfinv at 1": (special.erfinv, [1.0], [np.inf], None),
    "ndtri at 0": (special.ndtri, [0.0], [np.inf], None),
    "entr at 0": (special.entr, [0.0], [np.inf], None),
    "xlogy of one 0": (lambda x: special.xlogy(x, x), [0.0], [-np.inf], None),
    "xlogy in y at 0": (lambda y: special.xlogy(0.0, y), [0.0, 1.0], [0, 0], None),
    "huber at its corner": (lambda r: special.huber(1.0, r), [1.0, -1.0], [1, -1], [1, 1]),
    "tklmbda outside": (lambda x: special.tklmbda(x, 2.0), [-0.7, 0.7], [0, 0], [0, 0]),
    "expn(0)": (lambda x: special.expn(0, x), [2.0], [-0.75 * np.exp(-2)], [1.25 * np.exp(-2)]),
}  # fmt: skip


@pytest.mark.parametrize("name", EDGES)
def test_edges_of_domains(name):
    f, x, first, second = EDGES[name]
    x = np.array(x)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(dg.jvp(f, (x,), (np.ones_like(x),))[1], first, 1e-12, 1e-15)
        if second is not None:
            np.testing.assert_allclose(first_and_second(f, x)[2], second, 1e-10, 1e-15)


# --- functions that are no ufuncs


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [float, complex])
def test_logsumexp_takes_scipys_arguments(axis, keepdims, weighted, dtype):
    rng = np.random.default_rng(1)
    a = rng.normal(size=(2, 3, 4)) * 3 + (
        1j * rng.normal(size=(2, 3, 4)) if dtype is complex else 0
    )
    b = rng.uniform(-0.2, 2, size=(3, 4)) if weighted else None
    options = {"axis": axis, "b": b, "keepdims": keepdims}
    log, sign = special.logsumexp(dg.dual(a, np.ones_like(a)), return_sign=True, **options)
    expected = scipy.special.logsumexp(a, return_sign=True, **options)
    np.testing.assert_allclose(log.primal, expected[0], rtol=1e-12)
    np.testing.assert_allclose(dg.primal(sign), expected[1], rtol=1e-12)
    assert type(sign) is not dg.DualTensor or dtype is complex
    testing.check_function(
        lambda a: special.logsumexp(a, return_sign=True, **options)[0], a, order=2
    )
    if dtype is complex or np.all(expected[1] > 0):
        plain = scipy.special.logsumexp(a, **options)
        got = special.logsumexp(dg.dual(a, np.ones_like(a)), **options)
        np.testing.assert_allclose(got.primal, plain, rtol=1e-12)
        testing.check_function(lambda a: special.logsumexp(a, **options), a, order=2)


def test_logsumexp_is_differentiable_in_the_weights():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(3, 4)), rng.uniform(0.5, 2, size=4)
    testing.check_function(lambda a, b: special.logsumexp(a, axis=1, b=b), a, b, order=2)
    a = np.array([0.0, 1.0, np.inf, 800.0])
    y, t = dg.jvp(lambda a: special.logsumexp(a, b=np.array([1.0, 2.0, 0.0, 0.0])), (a,),
                  (np.array([1.0, 0.0, 1.0, 1.0]),))  # fmt: skip
    np.testing.assert_allclose(y, np.log(1 + 2 * np.e))
    np.testing.assert_allclose(t, 1 / (1 + 2 * np.e))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
def test_softmax_takes_scipys_axes(name, axis):
    x = np.random.default_rng(3).normal(size=(2, 3, 4))
    f = getattr(special, name)
    y = f(dg.dual(x, x), axis=axis)
    np.testing.assert_allclose(y.primal, getattr(scipy.special, name)(x, axis=axis), rtol=1e-12)
    testing.check_function(lambda x: f(x, axis=axis), x, order=2)


def test_multigammaln_and_zeta_and_derivatives_of_bessel():
    a = np.array([3.0, 4.5])
    y = special.multigammaln(dg.dual(a, np.ones(2)), 3)
    np.testing.assert_allclose(y.primal, scipy.special.multigammaln(a, 3), rtol=1e-14)
    testing.check_function(lambda a: special.multigammaln(a, 3), a, order=2)
    testing.check_function(lambda q: special.zeta(3.0, q), a, order=2)
    testing.check_function(lambda q: scipy.special.zeta(3.0, q), a)
    for name in "jvp yvp ivp kvp h1vp h2vp".split():
        f = getattr(special, name)
        np.testing.assert_allclose(f(1.5, a, 3), getattr(scipy.special, name)(1.5, a, 3), 1e-13)
        testing.check_function(lambda x, f=f: f(1.5, x, 2), a)
    testing.check_function(lambda x: special.spherical_jn(2, x, derivative=True), a, order=2)
    with pytest.raises(ValueError, match="0.5"):
        special.multigammaln(dg.dual(a, a), 20)


def test_plain_arguments_give_scipys_values():
    x = np.array([0.3, 0.7, 2.0])
    for name in "logsumexp softmax log_softmax sinc".split():
        np.testing.assert_array_equal(getattr(special, name)(x), getattr(scipy.special, name)(x))
    np.testing.assert_array_equal(special.polygamma(2, x), scipy.special.polygamma(2, x))
    np.testing.assert_array_equal(special.zeta(x + 1), scipy.special.zeta(x + 1))
    assert special.comb(5, 2) == 10
    assert special.jv is scipy.special.jv


@pytest.mark.parametrize("z", [-3.5 + 2j, 0.2 - 0.1j, 40 + 3j, 0.5 + 60j, -8.3 + 0.01j])
def test_polygamma_of_complex_numbers(z):
    for n in (0, 1, 2, 6):
        got, exact = special.polygamma(n, z), complex(mp.psi(n, z))
        assert abs(got - exact) <= 1e-12 * abs(exact)


# --- how it is reached


def test_names_of_scipy_take_duals_with_all_keywords_of_ufuncs():
    x = dg.dual(np.array([0.5, 1.5]), np.ones(2))
    expected = scipy.special.digamma(x.primal)
    for y in (scipy.special.gammaln(x), special.gammaln(x), dg.special.gammaln(x, dtype=float)):
        np.testing.assert_allclose(y.tangent, expected)
    out = np.zeros_like(x)
    assert scipy.special.gammaln(x, out=out) is out
    np.testing.assert_allclose(out.tangent, expected)
    with pytest.raises(dg.WriteError, match="plain"):
        scipy.special.gammaln(x, out=np.zeros(2))
    pairs = scipy.special.xlogy.outer(x, x)
    assert pairs.shape == (2, 2)
    first, second = np.zeros_like(x), np.zeros_like(x)
    scipy.special.sici(x, out=(first, second))
    np.testing.assert_allclose(second.tangent, np.cos(x.primal) / x.primal)


def test_broadcasting_and_empty_arrays():
    v, x = np.array([[0.0], [1.0], [2.5]]), np.array([0.5, 2.0])
    y = special.jv(v, dg.dual(x, np.ones(2)))
    assert y.tangents.shape == (1, 3, 2)
    np.testing.assert_allclose(y.tangent, scipy.special.jvp(v, x), rtol=1e-12)
    assert special.jv(v, dg.dual(np.zeros((0,)), np.zeros((0,)))).tangents.shape == (1, 3, 0)
    assert special.airy(dg.dual(0.5, 1.0))[0].tangents.shape == (1,)
    assert special.polygamma(1, dg.dual(0.5, 1.0)).tangents.shape == (1,)


# --- what has no rule


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x: special.jv(x, 1.0), "scipy.special.jv .* argument v, the order"),
        (lambda x: special.jv(x, x), "scipy.special.jv .* argument v, the order"),
        (lambda x: special.betainc(x, 1.0, 0.5), "betainc .* argument a"),
        (lambda x: special.gammainc(x, 1.0), "gammainc .* argument a, the shape"),
        (lambda x: special.zeta(x), "scipy.special.zeta .* argument x"),
        (lambda x: special.zeta(x, 1.0), "scipy.special.zeta .* argument x"),
        (lambda x: special.polygamma(x, 1.0), "polygamma .* argument n"),
        (lambda x: special.stdtr(x, 1.0), "stdtr .* degrees of freedom"),
        (lambda x: special.ive(x, 1.0), "ive .* argument v"),
        (lambda x: special.spherical_jn(x, 1.0), "spherical_jn .* argument n"),
        (lambda x: special.kolmogorov(x), "scipy.special.kolmogorov has no tangent rule"),
        (lambda x: special.mathieu_a(2, x), "mathieu_a has no tangent rule"),
        (lambda x: special.comb(x, 2), "special.comb has no tangent rule"),
    ],
)
def test_unknown_derivatives_raise_and_name_the_argument(call, words):
    with pytest.raises(dg.MissingRuleError, match=words):
        call(dg.dual(np.array([1.5]), np.ones(1)))


@pytest.mark.filterwarnings("ignore:floating point number truncated", "ignore:non-integer arg")
@pytest.mark.parametrize("function", [f for f in TABLE if TABLE[f].differentiable], ids=str)
def test_no_argument_loses_its_tangent_in_silence(function):
    """Every argument alone gives a dual, or raises by name."""
    for place in range(function.nin):
        args = [np.array([0.3])] * function.nin
        args[place] = dg.dual(args[place], np.ones(1))
        with np.errstate(all="ignore"):
            try:
                y = function(*args)
            except (dg.MissingRuleError, TypeError) as error:
                assert TABLE[function].name in str(error) or function.__name__ in str(error)
                continue
        assert all(type(part) is dg.DualTensor for part in (y if type(y) is tuple else (y,)))


def test_unknown_names_and_a_missing_scipy():
    with pytest.raises(AttributeError, match="no_such_function"):
        _ = special.no_such_function
    program = (
        "import sys\nsys.modules['scipy'] = sys.modules['scipy.special'] = None\n"
        "import dualgrad as dg\n"
        "try:\n    dg.special.gamma(1.0)\n"
        "except dg.MissingPackageError as error:\n    assert isinstance(error, ImportError)\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'dualgrad[scipy]'" in run.stdout, run.stderr


def test_newton_finds_the_zeros_of_j0():
    x = scipy.special.jn_zeros(0, 3) + 0.1
    for _ in range(6):
        y, slope = dg.jvp(special.j0, (x,), (np.ones(3),))
        x = x - y / slope
    np.testing.assert_allclose(x, [float(mpmath.besseljzero(0, k)) for k in (1, 2, 3)], rtol=1e-14)


STEEP = {  # where the value is finite and the slope is not
    "entr": 0.0, "spence": 0.0, "ellipe": 1.0,
    "xlogy": (0.0, 0.0), "rel_entr": (0.0, 1.0), "kl_div": (0.0, 1.0), "boxcox": (0.0, 0.5),
    "jv": (0.5, 0.0), "gammainc": (0.5, 0.0), "betaincinv": (2.0, 0.5, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", STEEP)
@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own, of log(0) and its like
def test_an_infinite_slope_spoils_no_other_direction(name, mode):
    *given, last = np.atleast_1d(STEEP[name])
    moving, first = (-1, last) if name in ("jv", "gammainc", "betaincinv") or not given else (0, 0)

    def f(x):
        values = [*given, last]
        values[moving] = x[0]
        return getattr(special, name)(*values) + x[1] ** 2

    jacobian = dg.jacobian(f, mode=mode)(np.array([first, 2.0]))
    assert abs(jacobian[0]) == np.inf and jacobian[1] == 4
