"""What users of automatic differentiation get wrong, each once: the type and the telling words."""

import dataclasses
import math
import operator

import numpy as np
import pytest

import dualgrad as dg

X = np.array([1.0, 2.0, 3.0])
V = np.ones(3)
EYE = np.eye(3)


def along(f, *args):
    """Return the call of jvp at X, or at the arguments, along ones."""
    args = args or (X,)
    return lambda: dg.jvp(f, args, tuple(np.ones_like(a) for a in args))


def written(write):
    """Return a function that writes its argument into a plain array."""

    def f(x):
        out = np.zeros(3)
        write(out, x)
        return out

    return f


def kept():
    found = []
    dg.jvp(lambda x: (found.append(x), x)[1], (X,), (V,))
    return found[0]


def inner_into_outer():
    def outer(t):
        room = np.zeros_like(np.stack([t, t]))

        def inner(s):
            room[0] = s
            return room[0]

        return dg.derivative(inner)(2.0)

    return dg.derivative(outer)(1.0)


def several_directions():
    return dg.pushforward(lambda x: x * x.tangent, (X,), (EYE,))


def write_while_recording():
    def f(x):
        y = x * 2
        y[0] = 1.0
        return y

    return dg.vjp(f, X)


@dataclasses.dataclass
class Layer:
    weight: object
    units: int = 3


LAYER, WIDER = Layer(X), Layer(X, 4)


def scipy_spline(x):
    from scipy.interpolate import CubicSpline

    return CubicSpline([0.0, 1.0, 2.0, 4.0], [0.0, 1.0, 4.0, 16.0])(x)


def scipy_solve(x):
    import scipy.linalg

    return scipy.linalg.solve(EYE, x)


def scipy_quad(x):
    import scipy.integrate

    return scipy.integrate.quad(lambda t: t * x[0], 0, 1)[0]


PLAIN = "conversion to a plain array, which would lose the tangent"
NUMBER = "turning a dual into a plain number would lose the tangent"

# What was tried: the error, words of what happened, words of the way out, the mistake.
MISTAKES = {
    # A dual where only a number or a plain array will do.
    "math.sin of a dual": (
        dg.ConversionError, NUMBER, "np.sin, not math.sin", along(lambda x: math.sin(x[0]))),
    "float of a loss": (
        dg.ConversionError, r"float\(x\)", r"dg.primal\(x\)", along(lambda x: float(np.sum(x)))),
    "int of a dual": (dg.ConversionError, r"int\(x\)", "dg.primal", along(lambda x: int(x[0]))),
    "complex of a dual": (
        dg.ConversionError, r"complex\(x\)", "dg.primal", along(lambda x: complex(x[0]))),
    "item of a loss": (
        dg.ConversionError, r"x.item\(\)", r"dg.primal\(x\)", along(lambda x: np.sum(x).item())),
    "tolist": (dg.ConversionError, r"x.tolist\(\)", "np.stack", along(lambda x: x.tolist())),
    "np.array of a list of duals": (
        dg.ConversionError, PLAIN, "np.stack joins several",
        along(lambda x: np.array([x[0], x[1]]))),
    "np.asarray of a dual": (
        dg.ConversionError, PLAIN, r"dg.primal\(x\)", along(lambda x: np.asarray(x))),
    "np.r_": (dg.ConversionError, PLAIN, "np.stack", along(lambda x: np.r_[x, 1.0])),
    "np.ma": (dg.ConversionError, PLAIN, "Stay with the dual", along(np.ma.array)),
    "np.float64 of a dual": (
        dg.ConversionError, PLAIN, "dg.primal", along(lambda x: np.float64(x[0]))),
    "an index that is a dual": (
        dg.ConversionError, PLAIN, "dg.primal", along(lambda x: np.arange(9)[x])),
    "np.vectorize": (
        dg.ConversionError, PLAIN, "Stay with the dual",
        along(lambda x: np.vectorize(lambda t: t * 2)(x))),
    "a polynomial object": (
        dg.ConversionError, PLAIN, "Stay with the dual",
        along(lambda x: np.polynomial.Polynomial(x)(2.0))),
    "a random number with a dual for its mean": (
        dg.ConversionError, PLAIN, "dg.primal",
        along(lambda x: np.random.default_rng(0).normal(x))),
    "a test of NumPy's on duals": (
        dg.ConversionError, PLAIN, "dg.primal",
        along(lambda x: np.testing.assert_array_equal(x, x))),
    "scipy.linalg": (dg.ConversionError, PLAIN, "dg.primal", along(scipy_solve)),
    "scipy.interpolate": (dg.ConversionError, PLAIN, "dg.primal", along(scipy_spline)),
    "scipy.integrate.quad": (dg.ConversionError, NUMBER, "dg.primal", along(scipy_quad)),
    "an export by dlpack": (
        dg.ConversionError, r"__dlpack__\(\)", "dg.primal", along(lambda x: np.from_dlpack(x))),
    "object arrays": (
        dg.DtypeError, r"astype\(object\)", "floating dtype", along(lambda x: x.astype(object))),
    "a list where an array was meant": (
        dg.ConversionError, PLAIN, "np.stack",
        lambda: dg.gradient(lambda p: np.sum(np.asarray(p) ** 2))([1.0, 2.0])),
    # Writing.
    "a buffer made outside": (
        dg.ConversionError, "writing a dual into an array", r"np.zeros_like\(x\)",
        along(written(lambda out, x: operator.setitem(out, slice(None), x)))),
    "+= on a buffer": (
        dg.WriteError, "np.add: the result is a dual", "y = y [+] x",
        along(written(operator.iadd))),
    "out= a buffer": (
        dg.WriteError, "np.sin: the result is a dual", r"np.zeros_like\(x\)",
        along(lambda x: np.sin(x, out=np.zeros(3)))),
    "np.add.at into a buffer": (
        dg.WriteError, "np.add.at: writing a dual", r"np.zeros_like\(x\)",
        along(written(lambda out, x: np.add.at(out, [0], x[:1])))),
    "np.copyto": (
        dg.WriteError, "np.copyto: it writes into a plain array", "dg.primal",
        along(written(np.copyto))),
    "writing the argument": (
        dg.WriteError, "x is read-only", r"x = x.copy\(\) first",
        along(lambda x: operator.setitem(x, 0, 1.0))),
    "+= on the argument": (
        dg.WriteError, "x is read-only", r"x = x.copy\(\) first",
        along(lambda x: operator.iadd(x, 1.0))),
    "the inner variable written outside": (
        dg.WriteError, "inner level", r"np.zeros_like\(v\)", inner_into_outer),
    "writing while vjp records": (
        dg.WriteError, "cannot follow in-place writes", "np.where", write_while_recording),
    # Levels.
    "a dual that was kept": (
        dg.LevelError, "a call of dg.jvp that has returned", r"keep dg.primal\(x\)",
        lambda: kept() * 2),
    "a kept dual in the next call": (
        dg.LevelError, "a call of dg.jvp that has returned", "Return the value",
        lambda: dg.jvp(lambda x: x * kept(), (X,), (V,))),
    "dg.dual of a dual": (
        dg.LevelError, "is a dual already", "dg.jvp inside the function",
        lambda: dg.dual(dg.dual(X, V), V)),
    # Missing rules.
    "a function without a rule": (
        dg.MissingRuleError, "np.place_holder has no tangent rule; argument 0 is a dual",
        "dg.custom_jvp", along(lambda x: without_rule(x))),
    "a ufunc of Python code": (
        dg.MissingRuleError, "has no tangent rule", "dg.custom_jvp",
        along(lambda x: np.frompyfunc(lambda t: t * 2, 1, 1)(x))),
    # Arguments of the transforms.
    "an integer": (
        dg.DtypeError, "a primal of dtype int64 has no derivative", r"x.astype\(float\)",
        lambda: dg.gradient(np.sum)(np.arange(3, dtype=np.int64))),
    "objects": (
        dg.DtypeError, "a primal of dtype object", "floating array",
        lambda: dg.jvp(np.sin, (np.array([1.0, None]),), (np.ones(2),))),
    "a bool that is to move": (
        dg.DtypeError, "a tangent was given for True", "make it a float",
        lambda: dg.jvp(np.sin, (True,), (1.0,))),
    "no tuple": (
        dg.StructureError, "primals is a ndarray", r"even for one: \(x,\)",
        lambda: dg.jvp(np.sin, X, V)),
    "one tangent too few": (
        dg.StructureError, "tangents must be a tuple", r"one entry for each primal \(2\)",
        lambda: dg.jvp(np.add, (X, X), (V,))),
    "a tangent of another shape": (
        dg.ShapeError, r"has shape \(2,\)", r"Give the tangent the shape \(3,\)",
        lambda: dg.jvp(np.sin, (X,), (np.ones(2),))),
    "a tangent without its leading axis": (
        dg.ShapeError, "k = 3 leading", r"the shape \(3, 3\)",
        lambda: dg.pushforward(np.sin, (X,), (V,))),
    "different numbers of directions": (
        dg.ShapeError, r"\[\(2, 3\), \(3, 3\)\]", "Stack the directions",
        lambda: dg.pushforward(np.add, (X, X), (np.ones((2, 3)), EYE))),
    "a complex direction": (
        dg.DtypeError, "complex tangent for a primal of dtype float64", "v.real",
        lambda: dg.jvp(np.sin, (X,), (1j * V,))),
    "other keys in the tangents": (
        dg.StructureError, r"expected: \({'a': \*},\)\n  got:      \({'b': \*},\)",
        "the same containers, keys", lambda: dg.jvp(len, ({"a": X},), ({"b": V},))),
    "another static field": (
        dg.StructureError, r"\('units', 3\).*\('units', 4\)", "static fields",
        lambda: dg.jvp(lambda p: p.weight, (LAYER,), (WIDER,))),
    "the value instead of the function": (
        dg.StructureError, "the first argument is a float64, no function", "not its value",
        lambda: dg.gradient(np.sum(X))(X)),
    "arguments by keyword": (
        dg.OptionError, "0 arguments were given by place", "not by keyword",
        lambda: dg.gradient(lambda x: np.sum(x))(x=X)),
    "argnums that is an array": (
        dg.OptionError, "argnums=array", "give an int or a tuple",
        lambda: dg.gradient(np.sum, X)(X)),
    # Results.
    "the gradient of a vector": (
        dg.ShapeError, r"must give one real number, and gave shape \(3,\)", "dg.jacobian",
        lambda: dg.gradient(np.sin)(X)),
    "the gradient of a complex number": (
        dg.ShapeError, "gave a complex number", "dg.jacobian",
        lambda: dg.gradient(lambda x: 1j * np.sum(x))(X)),
    "has_aux forgotten": (
        dg.ShapeError, "gave a tuple", r"has_aux=True \(number, anything\)",
        lambda: dg.gradient(lambda x: (np.sum(x), x))(X)),
    "return forgotten": (
        dg.StructureError, "the function returned a NoneType", "Return arrays",
        lambda: dg.gradient(lambda x: None)(X)),
    "derivative of many numbers": (
        dg.ShapeError, r"x has shape \(3,\), not \(\)", "dg.gradient",
        lambda: dg.derivative(np.sin)(X)),
    "x.tangent of several": (
        dg.ShapeError, "k = 3 tangents, not one", "x.tangents", several_directions),
    "grad, of another library": (
        dg.DualgradError, "dg.grad does not exist", "dg.forward_gradient", lambda: dg.grad(np.sum)),
    "a mode that does not exist": (
        dg.OptionError, "mode='backward'", "'forward', 'reverse'",
        lambda: dg.gradient(np.sum, mode="backward")),
    "an integer for a key": (
        dg.OptionError, "key=0", r"Key\(0\)", lambda: dg.random.normal(0, (3,))),
    "a cotangent of another structure": (
        dg.StructureError, r"expected: \(\*, \*\)\n  got:      \*", "the same containers",
        lambda: dg.vjp(lambda x: (x, x), X)[1](V)),
}  # fmt: skip


def without_rule(x):
    """Call a function that NumPy dispatches on, and that no library has a rule for."""
    return np._core.overrides.array_function_dispatch(lambda x: (x,), module="numpy")(place_holder)(
        x
    )


def place_holder(x):
    return x


@pytest.mark.parametrize("name", MISTAKES)
def test_the_message_says_what_happened_and_the_way_out(name):
    error, happened, way_out, mistake = MISTAKES[name]
    with pytest.raises(error, match=f"(?s){happened}") as caught:
        mistake()
    assert isinstance(caught.value, dg.DualgradError)
    caught.match(f"(?s){way_out}")
    assert len(str(caught.value)) < 500


def test_errors_that_are_numpys_own_stay_so():
    for error, words, mistake in (
        (ValueError, "could not be broadcast together", along(lambda x: x + np.ones(2))),
        (ValueError, "cannot reshape array of size 3", along(lambda x: x.reshape(2, 2))),
        (ValueError, "truth value of an array", along(lambda x: x if x > 0 else -x)),
        (IndexError, "index 5 is out of bounds", along(lambda x: x[5])),
        (np.exceptions.AxisError, "axis 3 is out of bounds", along(lambda x: np.sum(x, axis=3))),
        (TypeError, "unhashable", along(lambda x: {x: 1})),
        (TypeError, "unsupported operand", along(lambda x: x & 1)),
        (AttributeError, "no attribute 'foo'", along(lambda x: x.foo)),
    ):
        with pytest.raises(error, match=words):
            mistake()


def test_an_entry_written_into_a_plain_array_gets_numpys_error_and_ours_behind_it():
    with pytest.raises(ValueError, match="setting an array element") as caught:
        along(written(lambda out, x: operator.setitem(out, 0, x[0])))()
    assert isinstance(caught.value.__cause__, dg.ConversionError)
