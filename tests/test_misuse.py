"""What users of automatic differentiation get wrong, each once: the type and the telling words."""

import dataclasses
import decimal
import fractions
import math
import operator
import warnings

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


MASKED = np.ma.array(X, mask=[False, True, False])
OBJECTS = np.array([1, 2, 3], object)


def matrix():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix([[1.0, 2.0], [3.0, 4.0]])


def beside_matrix(function):
    return along(lambda v: function(matrix(), v), np.array([[0.5, 1.0], [2.0, 3.0]]))


def beside_sparse(function):
    def f(x):
        import scipy.sparse

        return function(x, scipy.sparse.csr_array(EYE))

    return along(f)


class Column:
    """What stands for an array and is none, as a column of a table does."""

    dtype, shape = np.dtype(float), (3,)

    def __array__(self, dtype=None, copy=None):
        return X.copy()


def scipy_logsumexp(x):
    import scipy.special

    return scipy.special.logsumexp(x)


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
    "np.r_": (
        dg.ConversionError, PLAIN, "np.concatenate for np.r_", along(lambda x: np.r_[x, 1.0])),
    "np.c_": (
        dg.ConversionError, PLAIN, "np.column_stack for np.c_", along(lambda x: np.c_[x, x])),
    "A.dot(x) of a plain A": (
        dg.ConversionError, PLAIN, r"A @ x does A.dot\(x\)", along(lambda x: EYE.dot(x))),
    "scipy.special.logsumexp": (
        dg.ConversionError, PLAIN, "dg.special has logsumexp", along(scipy_logsumexp)),
    "A @ x of a sparse A": (
        dg.ConversionError, "what scipy.sparse does with a dual", r"A.toarray\(\)",
        beside_sparse(lambda x, a: a @ x)),
    "a masked array times a dual": (
        dg.ConversionError, "what np.ma does with a dual", "dg.primal",
        along(lambda x: MASKED * x)),
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
    # Classes that are not arrays of NumPy's own kind.
    **{f"{name} an np.matrix": (
        dg.DtypeError, "an operation on a dual: x is an np.matrix", r"np.asarray\(x\)",
        beside_matrix(function)) for name, function in {
            "B * V with": operator.mul, "B @ V with": operator.matmul, "B + V with": operator.add,
            "np.dot with": np.dot, "V * B with": lambda b, v: v * b}.items()},
    **{f"a masked array in {name}": (
        dg.DtypeError, "x is a masked array, and its mask would be ignored", r"x.filled\(0\)",
        along(function)) for name, function in {
            "x * w": lambda x: np.mean(x * MASKED), "w @ x": lambda x: MASKED @ x,
            "a ufunc": lambda x: np.multiply(MASKED, x),
            "a comparison": lambda x: x * (x > MASKED),
            "a function": lambda x: np.where([True, False, True], x, MASKED),
            "a write": lambda x: operator.setitem(x.copy(), slice(None), MASKED),
            "x * np.ma.masked": lambda x: x * np.ma.masked}.items()},
    **{f"{name} of a sparse A": (
        dg.DtypeError, "a csr_array of scipy.sparse, which no rule takes", r"x.toarray\(\)",
        beside_sparse(function)) for name, function in {
            "x @ A": operator.matmul, "x * A": operator.mul, "x + A": operator.add,
            "np.matmul(x, A)": np.matmul}.items()},
    **{f"{name} of objects": (
        dg.DtypeError, "x is an array of dtype object", r"x.astype\(float\)", along(function, *at))
        for name, function, *at in (
            ("x * a", lambda x: x * OBJECTS), ("a * x", lambda x: OBJECTS * x, np.float64(1.0)),
            ("a ufunc", lambda x: np.multiply(x, OBJECTS, dtype=float)))},
    "a fraction": (
        dg.DtypeError, "x is a Fraction", r"float\(x\)",
        along(lambda x: x * fractions.Fraction(1, 3), np.float64(1.0))),
    "a fraction in a ufunc": (
        dg.DtypeError, "x is a Fraction", r"float\(x\)",
        along(lambda x: np.multiply(fractions.Fraction(1, 3), x), np.float64(1.0))),
    "a decimal": (
        dg.DtypeError, "x is a Decimal", r"float\(x\)",
        along(lambda x: decimal.Decimal(1) + x, np.float64(1.0))),
    "an np.matrix as an argument": (
        dg.DtypeError, "dg.gradient: x is an np.matrix", r"np.asarray\(x\)",
        lambda: dg.gradient(np.sum)(matrix())),
    "an np.matrix as a tangent": (
        dg.DtypeError, "dg.jvp: x is an np.matrix", r"np.asarray\(x\)",
        lambda: dg.jvp(np.sum, (np.ones((2, 2)),), (matrix(),))),
    **{f"a masked array as an argument of {where}": (
        dg.DtypeError, f"{where}.*: x is a masked array", r"x.filled\(0\)", mistake)
        for where, mistake in {
            "dg.gradient": lambda: dg.value_and_gradient(np.mean)(MASKED),
            "dg.jvp, leaf '0/w'": lambda: dg.jvp(len, ({"w": MASKED},), ({"w": V},)),
            "dg.vjp": lambda: dg.vjp(np.mean, MASKED),
            "dg.dual": lambda: dg.dual(MASKED, V),
            "dg.forward_gradient": lambda: dg.forward_gradient(np.mean)(
                MASKED, key=dg.random.Key(0))}.items()},
    "a column of a table as an argument": (
        dg.DtypeError, "dg.gradient: x is a Column", r"np.asarray\(x\)",
        lambda: dg.gradient(np.sum)(Column())),
    "None as a tangent": (
        dg.DtypeError, r"the tangent is None. Give an array of the primal's shape, \(3,\)", "zeros",
        lambda: dg.jvp(np.sin, (X,), (None,))),
    "a number as the order of a norm": (
        dg.WriteError, "np.power: the result is a dual", "dg|np.zeros_like",
        along(lambda p: np.linalg.norm(X, ord=p), np.float64(2.5))),
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
        (TypeError, "not supported for the input types", along(lambda x: x & 1)),
        (TypeError, r"unsupported operand type.* pow\(\)", along(lambda x: pow(x, 2, 3))),
        (TypeError, "unsupported operand", along(lambda x: x + "text")),
        (TypeError, "'<' not supported between", along(lambda x: x < "text")),
        (AttributeError, "no attribute 'foo'", along(lambda x: x.foo)),
    ):
        with pytest.raises(error, match=words):
            mistake()


def test_an_entry_written_into_a_plain_array_gets_numpys_error_and_ours_behind_it():
    with pytest.raises(ValueError, match="setting an array element") as caught:
        along(written(lambda out, x: operator.setitem(out, 0, x[0])))()
    assert isinstance(caught.value.__cause__, dg.ConversionError)
    assert caught.value.__notes__ == [str(caught.value.__cause__)]


@pytest.mark.parametrize(
    "transform",
    [
        lambda f, p: dg.gradient(f)(p),
        lambda f, p: dg.vjp(f, p),
        lambda f, p: dg.hessian(f)(p),
        lambda f, p: dg.forward_gradient(f)(p, key=dg.random.Key(0)),
    ],
)
def test_a_list_taken_for_an_array_is_named_once(transform):
    with pytest.raises(dg.ConversionError) as caught:
        transform(lambda p: np.sum(np.asarray(p) ** 2), [1.0, 2.0])
    (note,) = caught.value.__notes__
    assert note.startswith("An argument is a list, hence a tree of 2 numbers; pass np.array([")
    with pytest.raises(dg.ConversionError) as caught:
        transform(lambda p: np.sum(np.asarray(p["w"]) ** 2), {"w": X})
    assert not hasattr(caught.value, "__notes__")


def test_what_is_an_array_to_numpy_is_one_beside_a_dual():
    for other, expected in ((Column(), X), (range(3), [0, 1, 2]), (np.float16(2), [2, 2, 2])):
        for f in (lambda x, c=other: x * c, lambda x, c=other: np.multiply(c, x)):
            y, ty = dg.jvp(f, (X,), (V,))
            np.testing.assert_allclose(y, X * expected)
            np.testing.assert_allclose(ty, expected)


def test_comparisons_with_what_is_no_number():
    def f(x):
        assert (x == "text") is False
        assert (x != "text") is True
        assert np.all(x != None)  # noqa: E711
        assert not np.any(x == object())
        assert np.all(x > fractions.Fraction(1, 2))
        return x

    dg.jvp(f, (X,), (V,))


def test_rounding_is_piecewise_constant():
    def f(x):
        assert type(round(x, 1)) is np.float64
        assert type(round(x)) is int
        return x * round(x, 1) + round(x)

    y, ty = dg.jvp(f, (1.26,), (1.0,))
    np.testing.assert_allclose([y, ty], [1.26 * 1.3 + 1, 1.3], rtol=1e-15)
