"""Writing into duals, and what may not be written or converted because a tangent would be lost."""

import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dualgrad as dg


def make(shape=(2, 3), seed=0, dtype=np.float64):
    generator = np.random.default_rng(seed)
    return dg.dual(*(generator.standard_normal(shape).astype(dtype) for _ in range(2)))


# --- numbers and plain arrays: never in silence


@pytest.mark.parametrize(
    "convert", [float, int, complex, math.sin, lambda x: x.item(), lambda x: x.tolist()]
)
def test_a_dual_never_becomes_a_plain_number(convert):
    with pytest.raises(dg.ConversionError, match=r"dg\.primal\(x\)"):
        convert(dg.dual(1.0, 1.0))


def _in_place(name):
    def call(a, x):
        getattr(operator, name)(a, x)

    return call


LOSING = {
    "np.array": lambda a, x: np.array(x),
    "np.asarray": lambda a, x: np.asarray(x),
    "np.array of a list": lambda a, x: np.array([x, x]),
    "float64 array": lambda a, x: np.array(x, float),
    "a[...] = x": lambda a, x: operator.setitem(a, ..., x),
    "a[:2] = x": lambda a, x: operator.setitem(a, np.s_[:2], x[:2]),
    "a[mask] = x": lambda a, x: operator.setitem(a, a == 0, x),
    "np.full": lambda a, x: np.full(3, x),
    "np.full_like": lambda a, x: np.full_like(a, x),
    "np.ascontiguousarray": lambda a, x: np.ascontiguousarray(x),
    "a += x": _in_place("iadd"),
    "a -= x": _in_place("isub"),
    "a *= x": _in_place("imul"),
    "a /= x": _in_place("itruediv"),
    "a **= x": _in_place("ipow"),
    "a @= x": lambda a, x: operator.imatmul(a, np.diag(x)),
    "np.exp out=": lambda a, x: np.exp(x, out=a),
    "np.add out=": lambda a, x: np.add(a, x, out=a),
    "np.sum out=": lambda a, x: np.sum(x, axis=0, out=a[0]),
    "np.add.reduce out=": lambda a, x: np.add.reduce(x, out=a[0]),
    "np.fill_diagonal": lambda a, x: np.fill_diagonal(np.zeros((3, 3)), x),
}
WRITING = {
    "np.copyto": lambda a, x: np.copyto(a, x),
    "np.put": lambda a, x: np.put(a, [0], x),
    "np.place": lambda a, x: np.place(a, a == 0, x),
    "np.putmask": lambda a, x: np.putmask(a, a == 0, x),
    "np.put_along_axis": lambda a, x: np.put_along_axis(a, np.arange(3), x, 0),
    "np.save": lambda a, x: np.save("never.npy", x),
    "np.savez": lambda a, x: np.savez("never.npz", x),
    "np.savetxt": lambda a, x: np.savetxt("never.txt", x),
    "np.add.at": lambda a, x: np.add.at(a, [0], x),
    "np.fill_diagonal": lambda a, x: np.fill_diagonal(np.zeros((3, 3)), x),
}


@pytest.mark.parametrize("name", LOSING)
def test_conversions_that_would_lose_the_tangent_raise(name):
    a = np.zeros(3)
    with pytest.raises(dg.DualgradError):
        LOSING[name](a, dg.dual(np.ones(3), np.ones(3)))
    assert not a.any()


@pytest.mark.parametrize("name", ["np.array", "np.asarray", "a[...] = x"])
def test_plain_conversions_say_what_they_are(name):
    with pytest.raises(dg.ConversionError, match="conversion to a plain array"):
        LOSING[name](np.zeros(3), dg.dual(np.ones(3), np.ones(3)))


@pytest.mark.parametrize("name", WRITING)
def test_functions_that_write_raise_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a = np.zeros(3)
    with pytest.raises(dg.DualgradError, match=name):
        WRITING[name](a, dg.dual(np.ones(3), np.ones(3)))
    assert not a.any() and not list(tmp_path.iterdir())


def test_numpys_own_error_where_a_dual_is_written_as_an_entry():
    for write in (lambda a, x: operator.setitem(a, 0, x), lambda a, x: a.fill(x)):
        with pytest.raises(ValueError, match="setting an array element"):
            write(np.zeros(3), dg.dual(1.0, 1.0))


# --- writing


def test_writing_changes_both_parts_and_views_are_views_of_both():
    x = np.zeros_like(make((4, 3)))
    v = dg.dual(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]))
    x.T[:, 1] = v  # through a transpose and a slice
    x.reshape(2, 2, 3)[1, 0] = 2 * v
    x[3] += v
    x[3, 0] *= 10
    np.testing.assert_array_equal(x.primal, [[0, 0, 0], [1, 2, 3], [2, 4, 6], [10, 2, 3]])
    np.testing.assert_array_equal(x.tangent, [[0, 0, 0], [4, 5, 6], [8, 10, 12], [40, 5, 6]])
    flat = x.ravel()
    x[0] = 7.0  # a constant has no tangent, and the view sees it
    assert (flat[:3].primal == 7).all() and not flat[:3].tangent.any()
    row = x[1]
    row[...] = 0
    assert not x[1].primal.any() and not x[1].tangent.any()


@pytest.mark.parametrize("index", [
    0, (0, 1), np.s_[1:], np.s_[::-1, 0], np.s_[..., None], [0, 2], np.s_[[0, 1], :, [1, 1]],
    np.s_[:, [2, 0]], np.arange(24).reshape(3, 4, 2) % 5 == 0, np.s_[1, [0, 0], 1],
], ids=str)  # fmt: skip
def test_writing_takes_every_index_and_k_directions(index):
    generator = np.random.default_rng(0)
    x, tx = generator.standard_normal((3, 4, 2)), generator.standard_normal((3, 3, 4, 2))
    v, tv = generator.standard_normal((3, 4, 2))[index], generator.standard_normal((3, 3, 4, 2))
    tv = np.stack([t[index] for t in tv])

    def f(x, v):
        y = x.copy()
        y[index] = v
        return y

    y, ty = dg.pushforward(f, (x, v), (tx, tv))
    np.testing.assert_array_equal(y, f(x, v))
    for i in range(3):
        np.testing.assert_array_equal(ty[i], f(tx[i], tv[i]))


def test_a_number_taken_out_keeps_its_tangent_when_the_array_is_written():
    def previous(x):
        y = x.copy()
        first = y[0]
        y[0] = y[1] ** 2
        return first * y[0]

    # x0 * x1**2 at (2, 3): 9 and 12.
    np.testing.assert_array_equal(dg.gradient(previous)(np.array([2.0, 3.0])), [9, 12])


@pytest.mark.parametrize(
    "same",
    [
        lambda x: x + 1,
        lambda x: 1 + x,
        lambda x: x - 0,
        lambda x: +x,
        lambda x: x.copy(),
        lambda x: x + np.zeros((1, 4)),
        lambda x: x[None, ::2] + np.zeros((1, 2)),
        lambda x: x.astype(float),
        lambda x: np.where(True, x, 0),
        lambda x: np.concatenate([x]),
        lambda x: x.flatten(),
        lambda x: x.reshape(2, 2)[0] + np.zeros((1, 2)),
        lambda x: np.clip(x, -9, 9),
        lambda x: x * 1,
    ],
    ids=range(14),
)
def test_results_share_nothing_with_their_arguments(same):
    x = make((4,))
    before = x.primal.copy(), x.tangent.copy()
    same(x)[...] = 100.0
    np.testing.assert_array_equal(x.primal, before[0])
    np.testing.assert_array_equal(x.tangent, before[1])
    y = same(x)
    before = y.primal.copy(), y.tangent.copy()
    x[...] = 100.0
    np.testing.assert_array_equal(y.primal, before[0])
    np.testing.assert_array_equal(y.tangent, before[1])


@given(shape=st.sampled_from([(2, 3), (3, 1), (1, 4), (2, 2)]), data=st.data())
def test_views_alias_both_parts_or_neither(shape, data):
    view = data.draw(
        st.sampled_from(
            [
                lambda x: x.T,
                lambda x: x.reshape(-1),
                lambda x: x.T.reshape(-1),
                lambda x: x[::-1],
                lambda x: x[:, None],
                lambda x: x.swapaxes(0, 1)[1:],
                lambda x: np.squeeze(x),
                lambda x: x.real,
                lambda x: x[[0]],
                lambda x: x[0, 0],
                lambda x: np.moveaxis(x, 0, -1).reshape(x.shape),
                lambda x: x.T.T.ravel(),
                lambda x: np.flip(x).reshape(-1),
            ]
        )
    )
    nested = data.draw(st.booleans())

    def check(x):
        x = (
            np.moveaxis(np.stack([x, x], 1) * 2.0, 1, 0)[0] * 1
        )  # tangents laid out unlike the primal
        y = view(x)
        old = dg.primal(y).copy(), dg.primal(y.tangents).copy()
        x[...] = 100.0
        moved = (dg.primal(y) == 100).all(), (dg.primal(y.tangents) == 0).all()
        kept = (dg.primal(y) == old[0]).all(), (dg.primal(y.tangents) == old[1]).all()
        assert all(moved) or all(kept)
        return y

    x = np.random.default_rng(0).standard_normal(shape)
    run = lambda x: dg.jvp(check, (x,), (x + 1,))[1]  # noqa: E731
    dg.jvp(run, (x,), (x,)) if nested else run(x)


def test_arguments_of_transforms_are_read_only_with_their_views():
    def writes(view):
        def f(x):
            view(x)[...] = 0
            return x

        return f

    x = np.ones((2, 2))
    for view in (
        lambda x: x,
        lambda x: x[0],
        lambda x: x.T,
        lambda x: x.reshape(4),
        lambda x: x.real,
    ):
        with pytest.raises(dg.WriteError, match=r"x = x\.copy\(\) first"):
            dg.jacobian(writes(view))(x)
        with pytest.raises(dg.WriteError, match=r"x = x\.copy\(\) first"):
            dg.jvp(writes(view), (x,), (x,))
    with pytest.raises(dg.WriteError, match=r"x = x\.copy\(\) first"):
        dg.jvp(lambda x: x.__iadd__(1), (x,), (x,))
    np.testing.assert_array_equal(x, np.ones((2, 2)))
    assert x.flags.writeable


def test_arrays_made_like_a_dual_can_be_written():
    def f(x):
        parts = [np.zeros_like(x), np.empty_like(x), np.ones_like(x), np.full_like(x, 3), x.copy()]
        for part in parts:
            part[0] = x[0] ** 2
        return np.stack([part[0] for part in parts])

    np.testing.assert_array_equal(dg.jacobian(f)(np.array([3.0, 1.0])), [[6, 0]] * 5)
    x = make((2, 3))
    assert np.zeros_like(x, shape=(5,)).shape == np.zeros_like(x, shape=5).shape == (5,)
    assert np.ones_like(x, dtype=np.float32).tangents.dtype == np.float32
    assert not np.full_like(x, 2.0).tangents.any()


def test_in_place_operators_on_numbers_rebind_the_name():
    def f(x):
        total = x
        total += x
        total *= x
        return total  # 2 x**2

    assert dg.derivative(f)(3.0) == 12


def test_writing_an_inner_value_into_an_outer_dual_raises():
    def f(x):
        outer = x.copy()
        return dg.jvp(lambda y: outer.__setitem__(0, y[0]) or y, (x,), (x,))

    with pytest.raises(dg.WriteError, match=r"inner level .*\(dg.jvp\)"):
        dg.jvp(f, (np.ones(2),), (np.ones(2),))


def test_writing_a_dual_into_a_dual_that_cannot_hold_its_other_level_raises():
    def f(x):
        def g(y):
            array = np.zeros_like(y)  # y does not depend on x
            array[0] = x
            return array

        return dg.jvp(g, (np.ones(2),), (np.ones(2),))[1]

    with pytest.raises(dg.WriteError, match="no room"):
        dg.jvp(f, (1.0,), (1.0,))


def test_writing_into_nested_duals_to_second_order():
    def f(x):
        y = np.zeros_like(x)
        y[0] = x[0] ** 3
        y[1] = x[1] * y[0]
        return np.sum(y)

    # x0**3 (1 + x1): Hessian [[6 x0 (1 + x1), 3 x0**2], [3 x0**2, 0]].
    np.testing.assert_allclose(dg.hessian(f)(np.array([2.0, 3.0])), [[48, 12], [12, 0]])


def test_results_without_room_for_an_outer_tangent_say_copy():
    def f(x, make):
        y = make(x)
        y[0] = x[0] ** 3
        return np.sum(y)

    x = np.array([2.0, 1.0])
    np.testing.assert_array_equal(
        dg.hessian(lambda x: f(x, lambda x: (2 * x).copy()))(x), [[12, 0], [0, 0]]
    )
    with pytest.raises(dg.WriteError, match=r"x = x\.copy\(\) first"):
        dg.hessian(lambda x: f(x, lambda x: 2 * x))(x)  # the tangent of 2 x is the constant 2


@pytest.mark.parametrize(
    "transform",
    [
        lambda f, x: dg.linearize(f, x),
        lambda f, x: dg.vjp(f, x),
        lambda f, x: dg.gradient(f, mode="reverse")(x),
    ],
)
def test_writes_raise_while_a_transform_records(transform):
    def f(x):
        y = np.zeros_like(x)
        y[0] = x[0]
        return np.sum(y)

    with pytest.raises(dg.WriteError, match="cannot follow in-place writes"):
        transform(f, np.ones(2))


def test_writes_that_do_not_fit_change_nothing():
    x = make((3,))
    before = repr(x)
    with pytest.raises(ValueError, match="broadcast"):
        x[...] = np.ones(4)
    with pytest.raises(dg.DtypeError, match="complex"):
        x[0] = dg.dual(1j, 1.0)
    with pytest.raises(dg.DtypeError, match="complex"):
        x += 1j
    assert repr(x) == before


def test_a_diagonal_is_a_view_of_both_parts():
    def product_of_pivots(a):
        a = a.copy()
        pivots = np.diagonal(a)
        a[1] = a[1] - a[0]  # pivots see this
        return np.prod(pivots)

    a, da = np.array([[2.0, 1.0], [4.0, 6.0]]), np.ones((2, 2))
    # 2 * (6 - 1) = 10; its derivative along ones is 1 * 5 + 2 * (1 - 1) = 5
    assert dg.jvp(product_of_pivots, (a,), (da,)) == (10.0, 5.0)


# --- what is written and read at once: against the same lines on plain arrays

LINES = [
    "x[1:] += x[:-1]", "x[1:] = x[:-1]", "x[[0, 1]] = x[[1, 0]]", "x[0], x[1] = x[1], x[0]",
    "x[:] = x[::-1]", "x[::2] *= x[1]", "y = x.reshape(2, 2); y += y.T",
    "y = x.reshape(2, 2); y.T[0] = y[0]", "y = x.reshape(2, 2); y[1] = y[0] * y[1, 1]",
    "y = x[1:3]; y **= 2; x[0] = y[0] * y[1]", "b = x[:2]; b += b[::-1]; x[2] = b[0]",
    "x /= x[0]", "x -= x.mean()", "x @= 2 * np.eye(4)", "x %= 0.7", "x //= 0.2; x[0] = 1",
    "a = x[0]; x[0] = 7; x[1] = a * a", "a = next(iter(x)); x[0] = 3; x[1] = a",
    "x[x > 0.5] *= 3", "x[np.ix_([0, 2])] += 1", "x[..., 0] += x[1]", "x[None, :1] = x[3] * 2",
    "x.sort()", "x.partition(2)", "x.fill(2); x[1] = 1", "x.put([0, 5], x[2:], mode='wrap')",
    "np.add(x, x, out=x)", "np.multiply(x[1:], x[:-1], out=x[1:])", "np.exp(x, out=x[::-1])",
    "np.negative(x, out=x, where=x > 0.5)", "np.clip(x, 0.2, 0.6, out=x)",
    "np.add.accumulate(x, out=x)", "np.multiply.accumulate(x, out=x)",
    "np.add.at(x, [0, 0, 1], x[:3])", "np.multiply.at(x, [0, 0, 1], x[1:])",
    "np.subtract.at(x, [3, 3], x[0])", "np.add.at(x, (slice(1, 3),), x[0] ** 2)",
    "np.add.at(x, [True, False, True, True], 1.0)", "np.maximum.at(x, [0, 1], 0.5)",
    "np.copyto(x, x[::-1] ** 2)", "np.copyto(x, x[0] * 2, where=x > 0.5)",
    "np.put(x, [0, -1, 0], x[1:])", "np.putmask(x, x > 0.5, x[:3] * 2)",
    "np.place(x, x > 0.5, x[:2] * 2)", "np.fill_diagonal(x.reshape(2, 2), x[1:3] * 3)",
    "np.put_along_axis(x.reshape(2, 2), np.array([[1], [0]]), x[:2, None] * 2, 1)",
    "y = x[0, ...]; y *= 3; x[1] *= y", "y = x[2:3].reshape(()); z = y[...]; z += x[0] ** 2",
    "y = np.zeros_like(x[0]); y += x[1]; y *= y; x[2] = y",
    "y = np.copy(x[0]); np.put(y, [0, -1, 0], x[1:3] ** 2); x[0] = y",
    "y = np.zeros_like(x, shape=(0, 2)); np.fill_diagonal(y, 3.0); x[0] += np.sum(y)",
    # Which of these write into y, and which into a copy, hangs on the order of y in memory.
    "y = x.reshape(2, 2).T.copy(); y.reshape(-1)[0] = x[3] ** 2; x[:] = y.ravel()",
    "y = np.copy(x.reshape(2, 2).T); y.reshape(-1)[0] = x[3] ** 2; x[:] = y.ravel()",
    "y = x.reshape(2, 2).copy('F'); y.reshape(-1)[0] = x[3] ** 2; x[:] = y.ravel()",
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_overlapping_writes_do_what_numpy_does_to_both_parts(line):
    def f(x):
        names = {"x": x.copy(), "np": np}
        exec(line, names)
        return names["x"]

    x, v, h = np.array([0.31, 0.83, 0.57, 0.91]), np.array([1.3, -0.4, 0.2, 0.7]), 1e-6
    y, ty = dg.jvp(f, (x,), (v,))
    np.testing.assert_array_equal(x, [0.31, 0.83, 0.57, 0.91])
    np.testing.assert_allclose(y, f(x), rtol=1e-14)
    np.testing.assert_allclose(ty, (f(x + h * v) - f(x - h * v)) / (2 * h), atol=1e-8)
    gradient = dg.gradient(lambda x: np.sum(f(x) ** 2))
    second = (gradient(x + h * v) - gradient(x - h * v)) / (2 * h)
    moved = dg.hvp(lambda x: np.sum(f(x) ** 2), (x,), (v,))
    np.testing.assert_allclose(moved, second, atol=1e-6)


def test_functions_that_write_into_duals_refuse_what_numpy_refuses():
    x = make((2, 2))
    calls = [
        lambda x: np.put(x, [7], 1.0), lambda x: np.putmask(x, [True], 1.0),
        lambda x: np.place(x, x > -9, []), lambda x: np.fill_diagonal(x[0], 1.0),
        lambda x: np.copyto(x, np.ones(3)), lambda x: np.copyto(x, 1j * x),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises((ValueError, IndexError, TypeError)) as plain:
            call(x.primal.copy())
        with pytest.raises((ValueError, IndexError, TypeError)) as ours:
            call(x)
        assert isinstance(ours.value, plain.type) or isinstance(plain.value, ours.type)
    dg.jvp(lambda x: pytest.raises(dg.WriteError, np.fill_diagonal, x, 0.0) and x, (np.eye(2),),
           (np.eye(2),))  # fmt: skip
