"""Points without a derivative: every row of docs/conventions.md, to third order."""

import math
from pathlib import Path

import numpy as np
import pytest

import dualgrad as dg

PAGE = Path(__file__).parent.parent / "docs" / "conventions.md"


def derivatives(f, x, order=3):
    """Return the first derivatives of f, a function of one number, at x."""
    found = []
    for _ in range(order):
        f = dg.derivative(f)
        found.append(f(x))
    return np.stack(found)


def pair(x):
    return np.stack([x, 2 * x + x * x])


KINKS = {  # function, point, first to third derivative
    "hypot along a curve": (lambda x: np.hypot(x, x * x), 0.0, [0, 0, 0]),
    "heaviside": (lambda x: np.heaviside(x, 0.5), 0.0, [0, 0, 0]),
    "heaviside in its value at 0": (lambda h: np.heaviside(0.0, h**3), 2.0, [12, 12, 6]),
    "heaviside in its value elsewhere": (lambda h: np.heaviside(1.0, h**3), 2.0, [0, 0, 0]),
    "copysign in the sign": (lambda x: np.copysign(2.0, x), 0.0, [0, 0, 0]),
    "copysign": (lambda x: np.copysign(x**3, -1.0), 1.0, [-3, -6, -6]),
    "fmod at a multiple": (lambda x: np.fmod(x**3, 4), 2.0, [12, 12, 6]),
    "remainder at a multiple": (lambda x: np.remainder(x**3, 4), 2.0, [12, 12, 6]),
    "remainder at a multiple, in b": (lambda b: np.remainder(6.0, b**2), 1.0, [-12, -12, 0]),
    "fmod at a multiple, in b": (lambda b: np.fmod(-6.0, b**2), 1.0, [12, 12, 0]),
    "divmod at a multiple": (lambda x: np.divmod(x**3, 4)[1], 2.0, [12, 12, 6]),
    "modf at an integer": (lambda x: np.modf(x**3)[0], 2.0, [12, 12, 6]),
    "modf at an infinity": (lambda x: np.modf(x + np.inf)[0], 2.0, [0, 0, 0]),
    "frexp at a power of two": (lambda x: np.frexp(x**3)[0], 2.0, [12 / 16, 12 / 16, 6 / 16]),
    "arctan2(0, 0)": (lambda x: np.arctan2(x, 2 * x), 0.0, [0, 0, 0]),
    "angle of 0": (lambda x: np.angle(x * (1 + 2j)), 0.0, [0, 0, 0]),
    "sign of a complex 0": (lambda x: np.real(np.sign(x * (1 + 2j))), 0.0, [0, 0, 0]),
    "minimum of three": (
        lambda x: np.minimum.reduce(np.stack([x, x * x, -x])), 0.0, [0, 2 / 3, 0],
    ),
    "fmax of three": (lambda x: np.fmax.reduce(np.stack([x, 2 * x, x * math.nan])), 0.0,
                      [1.5, 0, 0]),
    "maximum.accumulate": (lambda x: np.maximum.accumulate(pair(x)), 0.0,
                           [[1, 1], [0, 0], [0, 0]]),
    "nextafter": (lambda x: np.nextafter(x**3, 9.0), 2.0, [12, 12, 6]),
    "nextafter of equal numbers": (lambda x: np.nextafter(x, 2 * x - 2), 2.0, [1, 0, 0]),
    "clip as a method of a plain array": (
        lambda x: np.array([0.5, 1.0, 3.0]).clip(-1.0, x**2), 1.0,
        [[0, 0, 2], [0, 0, 2], [0, 0, 0]],
    ),
    "where beside a NaN": (lambda x: np.where(x > 0, x * math.nan, x**3), -1.0, [3, -6, 6]),
    "x**0.0": (lambda x: x**0.0, 0.0, [0, 0, 0]),
    "x**0 at 0 in every part": (lambda x: (x * 0) ** (x * 0), 1.0, [0, 0, 0]),
    "0**y": (lambda y: 0.0**y, 1.5, [0, 0, 0]),
    "sqrt with a tangent of 0": (lambda x: np.sqrt(0 * x) + x**3, 1.0, [3, 6, 6]),
    "cbrt with a tangent of 0": (lambda x: np.cbrt(0 * x) + x**3, 1.0, [3, 6, 6]),
    "x**0.5 with a tangent of 0": (lambda x: (0 * x) ** 0.5 + x**3, 1.0, [3, 6, 6]),
    "arcsin(1) with a tangent of 0": (lambda x: np.arcsin(0 * x + 1) + x**3, 1.0, [3, 6, 6]),
    "arccos(-1) with a tangent of 0": (lambda x: np.arccos(0 * x - 1) + x**3, 1.0, [3, 6, 6]),
    "arccosh(1) with a tangent of 0": (lambda x: np.arccosh(0 * x + 1) + x**3, 1.0, [3, 6, 6]),
    # squares of lengths are smooth
    "abs(x)**2": (lambda x: np.abs(x) ** 2, 0.0, [0, 2, 0]),
    "abs(x) * abs(x)": (lambda x: np.multiply(*2 * (np.abs(x),)), 0.0, [0, 2, 0]),
    "square of fabs": (lambda x: np.square(np.fabs(pair(x))), 0.0, [[0, 0], [2, 8], [0, 24]]),
    "abs of complex, squared": (lambda x: np.abs(x * (1 + 2j)) ** 2, 0.0, [0, 10, 0]),
    "hypot squared": (lambda x: np.hypot(x, 2 * x) ** 2.0, 0.0, [0, 10, 0]),
    "norm squared": (lambda x: np.linalg.norm(pair(x)) ** 2, 0.0, [0, 10, 24]),
    "norms squared": (
        lambda x: np.sum(np.linalg.norm(np.stack([pair(x), pair(x - 1)]), axis=1) ** 2), 0.0,
        [-2, 8, 24],
    ),
    "complex norm squared": (lambda x: np.linalg.norm(1j * pair(x)) ** 2, 0.0, [0, 10, 24]),
    "std squared": (lambda x: np.std(np.stack([x, -x])) ** 2, 0.0, [0, 2, 0]),
}  # fmt: skip


@pytest.mark.parametrize("name", KINKS)
@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")
def test_convention(name):
    f, x, expected = KINKS[name]
    np.testing.assert_allclose(derivatives(f, x), expected, atol=1e-13)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("norm", [
    np.linalg.norm, np.linalg.vector_norm, lambda x: np.linalg.norm(x.reshape(1, 3)),
    lambda x: np.linalg.norm(x, 2),
], ids=range(4))  # fmt: skip
@pytest.mark.parametrize("square", [np.square, lambda n: n**2, lambda n: n * n], ids=range(3))
def test_the_hessian_of_a_squared_norm_is_two_at_zero(norm, square, mode):
    f = lambda x: square(norm(x))  # noqa: E731
    rows = [dg.hvp(f, (np.zeros(3),), (v,), mode=mode) for v in np.eye(3)]
    np.testing.assert_array_equal(np.stack(rows), 2 * np.eye(3))
    np.testing.assert_array_equal(dg.hessian(f)(np.zeros(3)), 2 * np.eye(3))


def test_a_length_that_is_written_forgets_its_square():
    def f(x):
        n = np.abs(np.copy(np.abs(x[:1])))
        n[0] = 3 * x[1]
        return np.sum(n**2)  # 9 x1**2, and nothing of x0

    np.testing.assert_array_equal(dg.hessian(f)(np.zeros(2)), [[0, 0], [0, 18]])


STEEP = {
    np.sqrt: 0.0, np.cbrt: 0.0, np.arcsin: 1.0, np.arccos: -1.0, np.arccosh: 1.0,
}  # fmt: skip


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("function", STEEP, ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_an_infinite_slope_spoils_no_other_direction(function, mode):
    x = np.array([STEEP[function], 2.0])
    jacobian = dg.jacobian(lambda x: function(x[0]) + x[1] ** 2, mode=mode)(x)
    assert abs(jacobian[0]) == np.inf and jacobian[1] == 4


ROOTS = [np.sqrt, np.cbrt, lambda x: x**0.5, lambda x: np.sqrt(np.sqrt(x)),
         lambda x: np.arccos(1 - x / 32)]  # fmt: skip
POINTS = {
    "apart": np.array([[0.0, 1], [2, 0.5], [1, 3]]),
    "together": np.array([[0.0, 1], [2, 3], [0, 1]]),
}


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("root", ROOTS, ids=["sqrt", "cbrt", "x**0.5", "sqrt of sqrt", "arccos"])
@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")
def test_every_mode_has_the_gradient_of_distances_of_a_point_to_itself(root, points):
    p = POINTS[points]

    def f(p):
        return np.sum(np.exp(-root(np.sum((p[:, None] - p) ** 2, axis=-1))))

    def apart(p):  # without the distances that are 0 and stay so
        i, j = np.nonzero(np.sum((POINTS[points][:, None] - POINTS[points]) ** 2, axis=-1))
        return np.sum(np.exp(-root(np.sum((p[i] - p[j]) ** 2, axis=-1))))

    expected, hessian = dg.gradient(apart)(p), dg.hessian(apart)(p).reshape(6, 6)
    for mode in ("forward", "reverse"):
        np.testing.assert_allclose(dg.gradient(f, mode=mode)(p), expected, atol=1e-14)
        hvp = dg.hvp(f, (p,), (p**2,), mode=mode)
        np.testing.assert_allclose(np.ravel(hvp), hessian @ np.ravel(p**2), atol=1e-13)
    np.testing.assert_allclose(dg.laplacian(f)(p), np.trace(hessian), rtol=1e-13)


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_reverse_mode_keeps_an_infinite_slope_beside_finite_ones():
    gradient = dg.gradient(lambda x: np.sum(np.sqrt(x) * [-1.0, 1.0, 0.0]) + x[0], mode="reverse")
    np.testing.assert_array_equal(gradient(np.array([0.0, 4, 0])), [-np.inf, 0.25, 0])
    shared = dg.gradient(lambda x: np.sum(x ** np.array([0.5, 1, 2]) * [0.0, 3, 1]), mode="reverse")
    np.testing.assert_array_equal(shared(np.zeros(1)), [3])  # the first does not move the sum
    float32 = dg.gradient(lambda x: np.sum(np.sqrt(x)), mode="reverse")(np.zeros(2, np.float32))
    assert float32.dtype == np.float32 and np.all(float32 == np.inf)
    # The slope of an infinite slope is not 0.
    hvp = dg.hvp(lambda x: np.sum(np.sqrt(x)), (np.array([0.0, 4]),), (np.ones(2),), mode="reverse")
    assert not np.isfinite(hvp[0]) and hvp[1] == -1 / 32


def test_powers_at_base_zero_in_both_arguments():
    f = lambda x: x[0] ** x[1]  # noqa: E731
    for exponent, slope in ((0.0, 0), (1.0, 1), (2.0, 0), (3.0, 0)):
        np.testing.assert_array_equal(dg.jacobian(f)(np.array([0.0, exponent])), [slope, 0])
    whole = np.array([0, 1, 2, 3])
    for given in (whole, whole.astype(np.uint8), whole.astype(float)):
        np.testing.assert_array_equal(
            derivatives(lambda x, n=given: x**n, 0.0), [[0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 6]]
        )


@pytest.mark.parametrize("base", [0.0, 0j])
@pytest.mark.parametrize("power", [np.power, np.float_power])
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_base_that_stays_at_zero_leaves_the_root_there(base, power):
    f = lambda t: power(np.stack([base * t, t + base]), 0.3 * t)  # noqa: E731
    tangent, known = dg.derivative(f)(1.0)
    assert tangent == 0 and known == pytest.approx(0.3, rel=1e-14)


# --- complex numbers: linear over the reals


def matrix(f, z):
    """Return the 2x2 matrix of a function of one complex number: what 1 and i are sent to."""
    columns = [dg.jvp(f, (z,), (direction,))[1] for direction in (1 + 0j, 1j)]
    return [[complex(c).real for c in columns], [complex(c).imag for c in columns]]


def test_the_two_by_two_picture():
    z = 3 + 4j
    assert matrix(np.square, z) == [[6, -8], [8, 6]]  # multiplication by 2z = 6 + 8i
    assert matrix(np.conj, z) == [[1, 0], [0, -1]]
    assert matrix(np.real, z) == [[1, 0], [0, 0]]
    assert matrix(np.imag, z) == [[0, 1], [0, 0]]
    np.testing.assert_allclose(matrix(np.abs, z), [[0.6, 0.8], [0, 0]])
    np.testing.assert_allclose(matrix(np.angle, z), [[-4 / 25, 3 / 25], [0, 0]])
    np.testing.assert_allclose(  # sign = z / |z| turns: it moves across z alone
        matrix(np.sign, z), [[16 / 125, -12 / 125], [-12 / 125, 9 / 125]]
    )


CUTS = {  # function, a point on its cut from either side, a direction along the cut
    "sqrt": (np.sqrt, complex(-4, 0.0), 1.0), "log": (np.log, complex(-4, 0.0), 1.0),
    "power": (lambda z: z**0.3, complex(-4, 0.0), 1.0),
    "arcsin": (np.arcsin, complex(2, 0.0), 1.0), "arccos": (np.arccos, complex(2, 0.0), 1.0),
    "arcsin left": (np.arcsin, complex(-2, 0.0), 1.0),
    "arccosh": (np.arccosh, complex(-2, 0.0), 1.0),
    "arctanh": (np.arctanh, complex(2, 0.0), 1.0), "arctan": (np.arctan, complex(0.0, 2), 1j),
    "arcsinh": (np.arcsinh, complex(0.0, 2), 1j), "arcsinh below": (np.arcsinh, -2j, 1j),
}  # fmt: skip


@pytest.mark.parametrize("name", CUTS)
def test_on_a_cut_the_derivative_is_that_of_the_side_of_the_value(name):
    f, z, along = CUTS[name]
    h = 1e-6
    other = complex(z.real, -z.imag) if along == 1.0 else complex(-z.real, z.imag)
    for point in (z, other):

        def at(s, point=point):  # not point + s * along, which would lose a zero's sign
            x, y = (s, 0.0) if along == 1.0 else (0.0, s)
            return complex(point.real + x if x else point.real, point.imag + y if y else point.imag)

        got = dg.jvp(f, (point,), (complex(along),))[1]
        np.testing.assert_allclose(got, (f(at(h)) - f(at(-h))) / (2 * h), rtol=1e-6)


@pytest.mark.parametrize("function", [np.maximum, np.minimum, np.fmax, np.fmin])
def test_extremes_of_complex_numbers_follow_numpys_order(function):
    # By the real part, then by the imaginary: 1 + 1j < 1 + 2j < 2 + 0j.
    a, b = np.array([1 + 1j, 2 + 0j, 1 + 1j]), np.array([1 + 2j, 1 + 2j, 1 + 1j])
    y, ty = dg.jvp(function, (a, b), (np.full(3, 2j), np.full(3, 4 + 0j)))
    np.testing.assert_array_equal(y, function(a, b))
    taken = [y[0] == b[0], y[1] == b[1]]
    np.testing.assert_array_equal(ty[:2], [4 if t else 2j for t in taken])
    assert ty[2] == 2 + 1j  # half of each


def test_a_negative_base_with_a_complex_exponent():
    f = lambda z: (-2.0) ** z  # noqa: E731
    z, h = 0.5 + 0.25j, 1e-6
    got = dg.jvp(f, (z,), (1 + 0j,))[1]
    np.testing.assert_allclose(got, (f(z + h) - f(z - h)) / (2 * h), rtol=1e-8)


# --- the page


def test_the_page_names_every_family():
    text = PAGE.read_text()
    for word in (
        "abs relu maximum max sort clip norm std power sqrt hypot where heaviside copysign fmod "
        "remainder arctan2 sign modf nextafter maximum.accumulate"
    ).split():
        assert f"`{word}`" in text, word
