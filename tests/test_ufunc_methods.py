"""Keywords and methods of ufuncs on duals, against NumPy's own values and their differences."""

import itertools

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import testing
from dualgrad.operations import OPERATIONS

BINARY = sorted(
    (
        f
        for f in OPERATIONS
        if isinstance(f, np.ufunc) and (f.nin, f.nout) == (2, 1) and not f.signature
    ),
    key=lambda f: f.__name__,
)
FLOATING = [f for f in BINARY if "dd->d" in f.types]
ASSOCIATIVE = (np.add, np.multiply, np.maximum, np.minimum, np.fmax, np.fmin, np.hypot,
               np.logaddexp, np.logaddexp2)  # fmt: skip
MASK = np.random.default_rng(0).random((4, 3, 2)) > 0.4


def draw(shape=(4, 3, 2), seed=0):
    return np.random.default_rng(seed).uniform(0.4, 1.9, shape)


def check(call, *args):
    """Compare value, dtype and first derivatives along one direction with NumPy's, and vjp."""
    v = tuple(np.random.default_rng(9).standard_normal(x.shape) for x in args)
    y, ty = dg.jvp(call, args, v)
    plain = call(*args)
    assert (y.shape, y.dtype) == (plain.shape, plain.dtype)
    np.testing.assert_allclose(y, plain, rtol=1e-12)
    h = 1e-6
    ahead, behind = (call(*(x + s * t for x, t in zip(args, v, strict=True))) for s in (h, -h))
    np.testing.assert_allclose(ty, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("ufunc", FLOATING, ids=lambda f: f.__name__)
def test_reduce_takes_axes_masks_and_initial_values(ufunc):
    x = draw()
    axes = [0, -1, ()] + [(0, 2), None] * (ufunc in ASSOCIATIVE)
    for axis, keepdims in itertools.product(axes, (False, True)):
        check(lambda x: ufunc.reduce(x, axis=axis, keepdims=keepdims), x)  # noqa: B023
    check(lambda x: ufunc.reduce(x, axis=1, initial=1.5, where=MASK), x)
    check(lambda x: ufunc.reduce(x, axis=1, initial=1.5), x)
    check(lambda x: ufunc.reduce(x, axis=1), draw((2, 1)))
    y = ufunc.reduce(dg.dual(np.ones((2, 0)), np.ones((2, 0))), axis=1, initial=1.5)
    assert y.primal.tolist() == [1.5, 1.5] and not y.tangent.any()
    if ufunc.identity is not None:
        check(lambda x: ufunc.reduce(x, axis=1, where=MASK), x)
    narrow = ufunc.reduce(x.astype(np.float32), initial=np.float64(1.5))
    dual = dg.dual(x.astype(np.float32), np.ones(x.shape, np.float32))
    assert ufunc.reduce(dual, initial=np.float64(1.5)).dtype == narrow.dtype


@pytest.mark.parametrize("ufunc", FLOATING, ids=lambda f: f.__name__)
def test_accumulate_reduceat_and_outer(ufunc):
    x = draw(seed=4)
    for axis in (0, -1):
        check(lambda x: ufunc.accumulate(x, axis), x)  # noqa: B023
    check(lambda x: ufunc.reduceat(x, [0, 2, 1, 1, 3]), x)
    check(lambda x: ufunc.reduceat(x, [1, 0], axis=-1), x)
    check(lambda a, b: ufunc.outer(a, b), draw((2, 2)), draw((3,), 1))
    empty = dg.dual(np.ones((2, 0)), np.ones((2, 0)))
    assert ufunc.accumulate(empty, 1).shape == (2, 0)
    assert ufunc.reduceat(dg.dual(np.ones(3), np.ones(3)), []).shape == (0,)


@pytest.mark.parametrize("ufunc", FLOATING, ids=lambda f: f.__name__)
def test_at_goes_through_repeated_indices_in_order(ufunc):
    def call(x, b):
        y = x.copy()
        ufunc.at(y, ([0, 2, 0, 0], [1, 1, 1, 2]), b)
        return y

    check(call, draw(), draw((4, 1), 3))
    check(call, draw(), draw((), 3))


def test_at_of_one_argument():
    def call(x):
        y = x.copy()
        np.sin.at(y, [0, 0, 2])
        np.negative.at(y, np.array([True, False, True]))
        return y

    # sin(sin(x0)), x1, sin(x2), the first and last negated
    check(call, draw((3,)))


@pytest.mark.parametrize("method", ["reduce", "accumulate", "reduceat", "outer"])
@pytest.mark.parametrize("ufunc", [np.multiply, np.logaddexp, np.divide, np.hypot, np.maximum])
def test_methods_to_second_order_and_in_reverse(ufunc, method):
    given = {"reduceat": ([0, 2, 1],), "outer": (np.array([0.5, 1.3]),)}.get(method, ())
    call = lambda x: getattr(ufunc, method)(x, *given)  # noqa: E731
    testing.check_function(call, draw((4, 2)), order=2, k=2)


def test_numpys_own_errors():
    x = dg.dual(np.ones((2, 3)), np.ones((2, 3)))
    empty = dg.dual(np.ones((2, 0)), np.ones((2, 0)))
    calls = [
        lambda x: np.subtract.reduce(x, axis=(0, 1)), lambda x: np.maximum.reduce(x, where=x > 0),
        lambda x: np.add.reduceat(x, [5]), lambda x: np.add.reduce(x, axis=2),
        lambda x: np.sin.reduce(x), lambda x: np.add.accumulate(x[0, 0]),
        lambda x: np.greater.reduce(x), lambda x: np.divmod.reduce(x),
        lambda x: np.add(x, x, dtype=int), lambda x: np.add(x, 1, signature="ff->f", casting="no"),
        lambda x: np.matmul(x, x.T, where=True), lambda x: np.add(x, x, axes=[0, 0, 0]),
        lambda x: np.add(x, np.ones(4)), lambda x: np.matmul(x, x.T, axes=[(0, 1)]),
        lambda x: np.bitwise_and(x, 1), lambda x: np.gcd(x, 2), lambda x: np.invert(x),
        lambda x: np.left_shift(x, 1), lambda x: np.isnat(x), lambda x: np.ldexp(1, x),
    ]  # fmt: skip
    for i, call in enumerate(calls):
        with pytest.raises((TypeError, ValueError, IndexError)) as plain:
            call(x.primal)
        with pytest.raises((TypeError, ValueError, IndexError)) as ours:
            call(x)
        assert isinstance(ours.value, plain.type) or isinstance(plain.value, ours.type), i
    with pytest.raises(ValueError, match="zero-size"):
        np.maximum.reduce(empty, axis=1)


def test_booleans_come_back_plain():
    x = dg.dual(np.array([1.0, 0.0]), np.ones(2))
    assert type(np.logical_and.reduce(x)) is np.bool_
    assert np.logical_or.accumulate(x).tolist() == [True, True]
    assert np.greater.outer(x, x).tolist() == [[False, True], [False, False]]


def test_what_is_piecewise_constant_still_moves_where_it_returns_an_entry():
    # floor_divide.accumulate starts with x[0] itself.
    x = dg.dual(np.array([7.5, 2.0]), np.array([3.0, 1.0]))
    y = np.floor_divide.accumulate(x)
    assert y.primal.tolist() == [7.5, 3.0] and y.tangent.tolist() == [3.0, 0.0]


# --- out=, where=, dtype=


def test_out_takes_duals_alone_and_writes_both_parts():
    x = dg.dual(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    out = np.zeros_like(x, shape=(3, 2))
    assert np.multiply(x, x, out=out) is out and np.add(out, x, out) is out
    np.testing.assert_array_equal(out.primal, [[2.0, 6.0]] * 3)
    np.testing.assert_array_equal(out.tangent, [[9.0, 20.0]] * 3)
    fraction, plain = np.zeros_like(x), np.zeros(2)
    np.modf(x + 0.25, out=(fraction, plain))
    assert fraction.tangent.tolist() == [3.0, 4.0] and plain.tolist() == [1.0, 2.0]
    mantissa, exponent = np.frexp(x, out=(None, np.zeros(2, int)))
    assert mantissa.tangent.tolist() == [1.5, 1.0] and exponent.tolist() == [1, 2]
    row = np.zeros_like(x)
    for method, given in (("reduce", ()), ("accumulate", ()), ("reduceat", ([0],))):
        y = getattr(np.multiply, method)(x, *given)
        target = np.zeros_like(y)
        assert getattr(np.multiply, method)(x, *given, out=target) is target
        np.testing.assert_array_equal(target.tangent, y.tangent)
    np.floor(x, out=row)  # a constant has no tangent
    assert row.primal.tolist() == [1, 2] and not row.tangent.any()
    np.add(1.0, 2.0, out=row)
    assert row.primal.tolist() == [3, 3]


def test_out_that_does_not_fit_is_refused_and_nothing_is_written():
    x = dg.dual(np.ones(2), np.ones(2))
    refused = [
        (np.zeros(2), dg.WriteError), (np.zeros_like(x, shape=(1,)), ValueError),
        (np.zeros_like(x, dtype=np.float32), None), (np.zeros(2, int), dg.WriteError),
    ]  # fmt: skip
    for out, error in refused:
        if error is None:
            np.add(x, x, out=out)
            assert out.tangents.dtype == np.float32
            continue
        with pytest.raises(error):
            np.add(x, x, out=out)
        assert not np.any(out)
    with pytest.raises(dg.DtypeError, match="same_kind"):
        np.add(x, 1j, out=np.zeros_like(x))
    with pytest.raises(dg.DtypeError, match="safe"):
        np.add(x, x, out=np.zeros_like(x, dtype=np.float32), casting="safe")
    with pytest.raises(dg.WriteError, match="plain array"):
        np.add.at(np.zeros(2), [0], x[0])
    whole, fraction = np.zeros(2), np.zeros(2)
    with pytest.raises(dg.WriteError):
        np.modf(x, out=(fraction, whole))
    assert not whole.any()


def test_where_computes_chosen_entries_alone():
    def quotient(a, b):
        return np.divide(a, b, out=np.zeros_like(a), where=b != 0)

    a, b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0, 4.0])
    y, ty = dg.jvp(quotient, (a, b), (np.ones(3), np.ones(3)))  # a warning would be an error
    np.testing.assert_array_equal(y, [0.5, 0, 0.75])
    np.testing.assert_array_equal(ty, [0.5 - 0.25, 0, 0.25 - 3 / 16])
    kept = lambda a: np.log(a, out=a.copy(), where=np.array([True, False, True]))  # noqa: E731
    np.testing.assert_allclose(np.diag(dg.jacobian(kept)(a)), [1, 1, 1 / 3])
    h = dg.hessian(lambda a: np.sum(np.sqrt(a, where=a > 1.5) ** 3))(a)
    np.testing.assert_allclose(np.diag(h), [0, 0.75 * 2**-0.5, 0.75 * 3**-0.5])
    g = dg.gradient(lambda a: np.sum(np.exp(a, where=a < 1.5)), mode="reverse")(a)
    np.testing.assert_allclose(g, [np.e, 0, 0])
    wide = np.add(dg.dual(1.0, 2.0), 1.0, where=np.array([[True, False]]))
    assert wide.primal.tolist() == [[2, 0]] and wide.tangent.tolist() == [[2, 0]]


def test_dtype_signature_and_casting_choose_the_loop():
    x = dg.dual(np.array([1.5, 2.5]), np.ones(2))
    for options in ({"dtype": np.float32}, {"signature": "ff->f"}, {"sig": (None, None, "f4")}):
        y, plain = np.multiply(x, 2.0, **options), np.multiply(x.primal, 2.0, **options)
        assert y.dtype == y.tangents.dtype == plain.dtype == np.float32
    assert np.add(x, 1, dtype=int, casting="unsafe").tolist() == [2, 3]
    assert np.add.reduce(x, dtype=np.complex128).tangents.dtype == np.complex128
    assert np.exp(x, order="F", subok=False).tangent.tolist() == np.exp(x.primal).tolist()


def test_a_recorded_call_never_writes():
    def loss(p, x):
        y = x * p["w"]
        np.add.at(y, [0], 1.0)
        np.sin(y, out=y)
        return np.mean(y)

    p = {"w": np.array([1.0, 2.0])}
    step = dg.training_step(loss, dg.optim.sgd(0.0))
    state = step.init(p, dg.Key(0))
    _, value = step(state, np.array([0.5, 0.25]))
    np.testing.assert_allclose(value, (np.sin(1.5) + np.sin(0.5)) / 2)
    np.testing.assert_array_equal(p["w"], [1.0, 2.0])
