"""What a DualTensor promises: attributes, methods, levels, dtypes."""

import copy
import operator
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given

import dualgrad as dg
from dualgrad.testing import arrays


def make(shape=(2, 3), seed=0, dtype=np.float64):
    generator = np.random.default_rng(seed)
    return dg.dual(*(generator.standard_normal(shape).astype(dtype) for _ in range(2)))


def seen_by(f, x, v=None):
    """Return what f gives when called with a dual argument of jvp, before that is taken apart."""
    found = []
    dg.jvp(lambda x: (found.append(f(x)), x)[1], (x,), (np.ones_like(x) if v is None else v,))
    return found[0]


# --- attributes


def test_attributes_are_those_of_the_primal():
    x = make((2, 3), dtype=np.float32)
    assert (x.shape, x.ndim, x.size, x.dtype, x.device) == ((2, 3), 2, 6, np.float32, "cpu")
    assert x.tangents.shape == (1, 2, 3) and x.tangents.dtype == np.float32
    np.testing.assert_array_equal(x.tangent, x.tangents[0])
    assert x.level == 0
    for view, plain in (
        (x.T, x.primal.T),
        (x.mT, x.primal.mT),
        (x.real, x.primal),
        (x.imag, 0 * x.primal),
    ):
        np.testing.assert_array_equal(view.primal, plain)
    assert len(x) == 2 and [row.shape for row in x] == [(3,), (3,)]


def test_the_leading_axis_of_directions_is_there_for_every_k():
    shapes = []

    def f(x):
        shapes.append((x.shape, x.tangents.shape))
        return x

    for k in (1, 4):
        dg.pushforward(f, (np.ones((2, 3)),), (np.ones((k, 2, 3)),))
        assert shapes.pop() == ((2, 3), (k, 2, 3))


def test_tangent_of_several_directions_says_how_many_there_are():
    with pytest.raises(dg.ShapeError, match="k = 3 tangents"):
        dg.pushforward(lambda x: x.tangent, (np.ones(2),), (np.ones((3, 2)),))


def test_what_has_no_tangent_is_a_plain_array():
    x = make()
    for y in (
        x > 0,
        np.argmax(x),
        np.sign(x),
        np.zeros_like(x, dtype=int),
        x.astype(int),
        x.primal,
    ):
        assert not isinstance(y, dg.DualTensor)
    np.testing.assert_array_equal(dg.tangent(np.ones(3)), np.zeros(3))
    np.testing.assert_array_equal(dg.tangent(x), x.tangent)


def test_levels_grow_inwards_and_are_fresh_for_every_call():
    levels = []

    def keep(x):
        levels.append(int(x.level))
        return x

    dg.jvp(lambda x: (keep(x), dg.jvp(keep, (x,), (x,)))[0], (1.0,), (1.0,))
    dg.jvp(keep, (1.0,), (1.0,))
    assert 0 < levels[0] < levels[1] < levels[2]


# --- methods and operators are NumPy's functions

METHODS = {
    "all": (),
    "any": (),
    "argmax": (1,),
    "argmin": (0,),
    "argsort": (0,),
    "clip": (-0.5, 0.5),
    "conj": (),
    "conjugate": (),
    "copy": (),
    "cumsum": (1,),
    "diagonal": (1,),
    "dot": (np.ones((3, 2)),),
    "max": (0,),
    "mean": (1,),
    "min": (1,),
    "nonzero": (),
    "prod": (0,),
    "ptp": (),
    "ravel": (),
    "repeat": (2, 1),
    "round": (1,),
    "squeeze": (),
    "std": (0,),
    "sum": ((0, 1),),
    "swapaxes": (0, 1),
    "take": ([0, 1], 1),
    "trace": (),
    "transpose": (1, 0),
    "var": (),
    "astype": (np.float32,),
    "reshape": (3, 2),
    "flatten": (),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_numpys_functions(name):
    x = make()
    result = getattr(x, name)(*METHODS[name])
    plain = getattr(x.primal, name, None) or (
        lambda: np.ptp(x.primal)
    )  # no method of ndarray any more
    expected = plain(*METHODS[name])
    for a, b in zip(np.atleast_1d(dg.primal(result)), np.atleast_1d(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    if name not in ("transpose", "reshape", "flatten"):
        args = METHODS[name]
        same = getattr(np, name)(x, *args)
        assert repr(same) == repr(result)


def test_methods_take_shapes_and_axes_both_ways():
    x = make((2, 3, 4))
    assert x.reshape(4, 6).shape == x.reshape((4, 6)).shape == x.reshape([-1, 6]).shape == (4, 6)
    assert x.transpose().shape == x.T.shape == x.transpose(None).shape == (4, 3, 2)
    assert x.transpose(1, 0, 2).shape == x.transpose((1, 0, 2)).shape == (3, 2, 4)
    assert make((3,)).searchsorted(0.0) == np.searchsorted(make((3,)).primal, 0.0)


BINARY = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.mod,
          operator.floordiv, operator.lt, operator.le, operator.gt, operator.ge, operator.eq,
          operator.ne, divmod]  # fmt: skip


@pytest.mark.parametrize("f", BINARY, ids=lambda f: f.__name__)
@given(x=arrays((2, 3), low=0.5), c=arrays((3,), low=0.5))
def test_operators_on_both_sides_and_with_numbers_and_lists(f, x, c):
    def check(result, expected):
        np.testing.assert_allclose(dg.primal(result), expected, rtol=1e-14)
        if isinstance(result, dg.DualTensor):
            assert result.tangents.shape == (1, *result.shape)

    d = dg.dual(x, np.ones_like(x))
    for other in (c, c.tolist(), 1.5, np.float64(0.7), 2, dg.dual(c, c)):
        plain = dg.primal(other)
        for result, expected in ((f(d, other), f(x, plain)), (f(other, d), f(plain, x))):
            if f is divmod:
                check(result[0], expected[0])
                result, expected = result[1], expected[1]
            check(result, expected)


def test_unary_operators_and_matmul_on_both_sides():
    x, a = make((3, 3)), np.arange(9.0).reshape(3, 3)
    for result, plain, tangent in (
        (-x, -x.primal, -x.tangent), (+x, x.primal, x.tangent),
        (abs(x), abs(x.primal), np.sign(x.primal) * x.tangent),
        (x @ a, x.primal @ a, x.tangent @ a), (a @ x, a @ x.primal, a @ x.tangent),
        (a.tolist() @ x, a @ x.primal, a @ x.tangent),
    ):  # fmt: skip
        np.testing.assert_allclose(result.primal, plain)
        np.testing.assert_allclose(result.tangent, tangent)


def test_truth_comparisons_and_membership_look_at_the_primal():
    x = dg.dual(np.array([1.0, 2.0]), np.array([5.0, 6.0]))
    assert bool(x[0] < x[1]) and not x[0] == x[1] and (x == dg.dual(x.primal, 0 * x.primal)).all()
    assert 2.0 in x and 5.0 not in x
    assert (3.0 if x[0] else 4.0) == 3.0 and not dg.dual(0.0, 1.0)
    with pytest.raises(ValueError, match="truth value"):
        bool(x)
    with pytest.raises(TypeError, match="unhashable"):
        hash(x)
    with pytest.raises(TypeError, match="0-d"):
        iter(x[0])
    assert (x == None).tolist() == [False, False]  # noqa: E711


class Foreign:
    """An array of another library that knows how to meet others."""

    __array_ufunc__ = None

    def __radd__(self, other):
        return "its turn"

    __rmul__ = __rsub__ = __radd__


class ForeignUfunc(Foreign):
    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return "its turn"


@pytest.mark.parametrize("foreign", [Foreign(), ForeignUfunc()], ids=lambda f: type(f).__name__)
def test_arrays_of_other_libraries_take_the_operation_over(foreign):
    x = make()
    assert x + foreign == x * foreign == x - foreign == "its turn"
    y = x
    y += foreign
    assert y == "its turn"
    if isinstance(foreign, ForeignUfunc):
        assert np.add(x, foreign) == "its turn"
    with pytest.raises(TypeError):
        x / object()


def test_a_dual_is_an_array_of_the_array_api():
    x = make()
    xp = x.__array_namespace__()
    assert xp is dg and xp.__array_api_version__ == "2025.12"
    assert np.array_equal(dg.primal(xp.sum(xp.exp(x))), np.sum(np.exp(x.primal)))


# --- levels that are over

USES = {
    "arithmetic": lambda x: x + 1,
    "function": np.sin,
    "comparison": lambda x: x > 0,
    "bool": lambda x: bool(x[:1]),
    "len": len,
    "iteration": list,
    "contains": lambda x: 1.0 in x,
    "index": lambda x: x[0],
    "shape": lambda x: x.shape,
    "dtype": lambda x: x.dtype,
    "size": lambda x: x.size,
    "ndim": lambda x: x.ndim,
    "T": lambda x: x.T,
    "tangent": lambda x: x.tangent,
    "tangents": lambda x: x.tangents,
    "method": lambda x: x.sum(),
    "array": np.array,
    "write": lambda x: operator.setitem(x, 0, 1.0),
    "argmax": np.argmax,
    "float": float,
    "zeros_like": np.zeros_like,
    "stack": lambda x: np.stack([x, x]),
    "where": lambda x: np.where(True, x, 0),
    "right operand": lambda x: np.ones(2) * x,
    "constant in a list": lambda x: np.lexsort([x, x]),
    "condition": lambda x: np.where(x, 1.0, 2.0),
    "dg.tangent": dg.tangent,
    "copy": np.copy,
    "divmod": lambda x: divmod(x, 2),
    "as an index": lambda x: np.ones(3)[x.astype(int)],
    "take": lambda x: np.take(np.ones(3), x.astype(int)),
    "in another transform": lambda x: dg.jvp(lambda y: x * y, (np.ones(2),), (np.ones(2),)),
    "as a primal": lambda x: dg.jvp(np.sin, (x,), (np.ones(2),)),
    "as a tangent": lambda x: dg.jvp(np.sin, (np.ones(2),), (x,)),
    "as a result": lambda x: dg.jvp(lambda y: x, (np.ones(2),), (np.ones(2),)),
    "as a result of vjp": lambda x: dg.vjp(lambda y: x, np.ones(2)),
    "as a cotangent": lambda x: dg.vjp(np.sin, np.ones(2))[1](x),
}


@pytest.mark.parametrize("use", USES)
def test_a_dual_that_outlived_its_transform_raises_and_names_it(use):
    x = seen_by(lambda x: x.copy(), np.ones(2))
    with pytest.raises(dg.LevelError, match=r"level \d+, a call of dg\.jvp"):
        USES[use](x)


def test_repr_and_primal_outlive_the_transform():
    x = seen_by(lambda x: x, np.ones(2))
    assert repr(x).startswith(
        "DualTensor(primal=array([1., 1.]), tangents=array([[1., 1.]]), level="
    )
    np.testing.assert_array_equal(dg.primal(x), np.ones(2))


@pytest.mark.parametrize(
    "name",
    [
        "dg.jvp",
        "dg.pushforward",
        "dg.gradient",
        "dg.jacobian",
        "dg.linearize",
        "dg.vjp",
        "dg.derivative",
    ],
)
def test_the_error_names_the_transform_that_was_called(name):
    transform, kept, one = getattr(dg, name[3:]), [], np.ones(())

    def f(x):
        kept.append(x)
        return x * x

    if name in ("dg.jvp", "dg.pushforward"):
        transform(f, (one,), (np.ones(3) if name == "dg.pushforward" else one,))
    elif name in ("dg.linearize", "dg.vjp"):
        transform(f, one)
    else:
        transform(f)(one)
    with pytest.raises(dg.LevelError, match=rf"{name} that has returned"):
        kept[0] + 1


def test_a_level_closes_when_its_function_raises():
    kept = []

    def f(x):
        kept.append(x)
        raise KeyError("user's own")

    with pytest.raises(KeyError):
        dg.jvp(f, (1.0,), (1.0,))
    with pytest.raises(dg.LevelError):
        kept[0] * 2


def test_threads_see_the_levels_of_the_transform_that_started_them():
    def f(x):
        found = []
        thread = threading.Thread(target=lambda: found.append(x * x))
        thread.start()
        thread.join()
        return found[0]

    assert dg.derivative(f)(3.0) == 6


# --- duals made by hand


def test_duals_made_by_hand_mix_with_one_another():
    x, y = dg.dual(2.0, 1.0), dg.dual(np.array([3.0, 4.0]), np.array([0.0, 1.0]))
    z = x * y
    np.testing.assert_array_equal(z.primal, [6, 8])
    np.testing.assert_array_equal(z.tangent, [3, 6])
    assert z.level == 0 and x.tangents.shape == (1,)


def test_duals_made_by_hand_are_copies_and_writable():
    a, v = np.ones(2), np.ones(2)
    x = dg.dual(a, v)
    x[0] = 5.0
    x += 1
    assert a.tolist() == v.tolist() == [1, 1] and x.primal.tolist() == [6, 2]
    assert dg.dual(np.float32(1), 2.0).tangent.dtype == np.float32
    assert dg.dual(1.5, 2).tangent == 2


@pytest.mark.parametrize(
    "error, match, arguments",
    [
        (dg.DtypeError, "int64", (np.arange(3), np.ones(3))),
        (dg.DtypeError, "int64", (1, 1.0)),
        (dg.DtypeError, "complex tangent", (np.ones(3), 1j * np.ones(3))),
        (dg.DtypeError, "bool", (True, 1.0)),
        (dg.ShapeError, r"\(2,\).*\(3,\)", (np.ones(3), np.ones(2))),
        (dg.ShapeError, r"\(1, 3\)", (np.ones(3), np.ones((1, 3)))),
    ],
)
def test_dual_refuses_what_is_no_tangent(error, match, arguments):
    with pytest.raises(error, match=match):
        dg.dual(*arguments)


def test_dual_refuses_duals_of_running_transforms_and_its_own():
    for x in (lambda x: dg.dual(x, 1.0), lambda x: dg.dual(1.0, x)):
        with pytest.raises(dg.LevelError, match="dg.jvp"):
            dg.jvp(x, (1.0,), (1.0,))
    with pytest.raises(dg.LevelError):
        dg.dual(dg.dual(1.0, 1.0), 1.0)


def test_duals_with_different_numbers_of_directions_do_not_meet():
    with pytest.raises(dg.ShapeError, match="k = 3 tangents and another k = 1|k = 1 .* k = 3"):
        three = dg.DualTensor(np.ones(2), np.ones((3, 2)), dg.dual(1.0, 1.0).level)
        three * dg.dual(np.ones(2), np.ones(2))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64, np.complex128])
def test_every_floating_dtype_is_kept_by_arithmetic(dtype):
    x = make((3,), dtype=dtype)
    for y in (
        2 * x,
        x * x + 1,
        x / 3,
        x**2,
        np.sum(x),
        np.mean(x),
        x[0],
        abs(x),
        x @ x,
        np.stack([x, x]),
    ):
        plain = np.real(x.primal).dtype if y.dtype.kind != np.dtype(dtype).kind else x.dtype
        assert y.dtype == y.tangents.dtype == plain


def test_a_dual_formats_as_its_primal_and_copies_on_its_level():
    x = dg.dual(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    assert f"{x[0]:.2f}" == "1.00"
    other = copy.deepcopy(x)
    other[0] = 5.0
    np.testing.assert_array_equal((x + other).tangent, [3.0, 8.0])


@pytest.mark.parametrize("function", [np.maximum, np.minimum, lambda x, c: np.clip(x, c, 9)])
def test_a_nan_moves_with_its_argument(function):
    y, dy = dg.jvp(lambda x: function(x, 0.0), (np.array([np.nan]),), (np.array([2.0]),))
    assert np.isnan(y[0]) and dy[0] == 2.0


def test_a_dual_is_not_pickled():
    with pytest.raises(dg.LevelError, match="cannot be stored"):
        pickle.dumps(dg.dual(1.0, 1.0))
