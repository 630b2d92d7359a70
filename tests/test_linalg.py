"""numpy.linalg on duals: the identities of each factorisation, stacks, and degenerate matrices."""

from itertools import permutations

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import testing

L = np.linalg
KINDS = ("real", "complex")


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order():
    draw.rng = np.random.default_rng(7)


def draw(kind, *shape):
    x = draw.rng.normal(size=shape)
    return x + 1j * draw.rng.normal(size=shape) if kind == "complex" else x


def adjoint(a):
    return np.conj(np.swapaxes(a, -1, -2))


def push(f, x, v):
    return dg.jvp(f, (x,), (v,))[1]


def nested(f, x, *directions):
    for v in directions:
        f = (lambda g, u: lambda x: push(g, x, u))(f, v)
    return f(x)


# --- identities: what the factors make moves as it should


def from_svd(a):
    u, s, vh = L.svd(a, full_matrices=False)
    return (u * s[..., None, :]) @ vh


def from_full_svd(a):
    u, s, vh = L.svd(a)
    k = s.shape[-1]
    return (u[..., :k] * s[..., None, :]) @ vh[..., :k, :]


def from_qr(a):
    q, r = L.qr(a)
    return q @ r


def from_complete_qr(a):
    q, r = L.qr(a, "complete")
    return q @ r


def from_eig(a):
    w, v = L.eig(a)
    return (v * w[..., None, :]) @ L.inv(v)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (3, 5), (2, 4, 2), (1, 3), (3, 1)], ids=str)
def test_factors_multiply_back_to_the_matrix_and_its_tangents(kind, shape):
    a, v, w = draw(kind, *shape), draw(kind, *shape), draw(kind, *shape)
    rebuilt = [from_svd, from_full_svd, from_qr, from_complete_qr]
    rebuilt += [from_eig] if shape[-1] == shape[-2] else []
    rebuilt += [lambda a: a @ L.pinv(a) @ a]
    for f in rebuilt:
        np.testing.assert_allclose(push(f, a, v), v, atol=1e-10)
        np.testing.assert_allclose(nested(f, a, v, w), np.zeros_like(a), atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_hermitian_factors_multiply_back(kind):
    b = draw(kind, 2, 3, 3)
    a, v = b @ adjoint(b) + np.eye(3), draw(kind, 2, 3, 3)
    v = v + adjoint(v)

    def from_eigh(a, triangle="L"):
        w, v = L.eigh(a, triangle)
        return (v * w[..., None, :]) @ adjoint(v)

    def from_cholesky(a, upper=False):
        factor = L.cholesky(a, upper=upper)
        return adjoint(factor) @ factor if upper else factor @ adjoint(factor)

    def from_hermitian_svd(a):
        u, s, vh = L.svd(a - 4 * np.eye(3), hermitian=True)
        return (u * s[..., None, :]) @ vh

    for f in (from_eigh, lambda a: from_eigh(a, "U"), from_cholesky, from_hermitian_svd,
              lambda a: from_cholesky(a, True)):  # fmt: skip
        np.testing.assert_allclose(push(f, a, v), v, atol=1e-10)
    np.testing.assert_allclose(
        push(lambda a: L.pinv(a, hermitian=True), a, v), push(L.inv, a, v), atol=1e-10
    )
    np.testing.assert_allclose(
        push(lambda a: L.svd(a, compute_uv=False, hermitian=True), a, v), push(L.svdvals, a, v)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_log_det_moves_by_the_trace_of_the_inverse_times_the_tangent(kind):
    a, v = draw(kind, 2, 4, 4), draw(kind, 2, 4, 4)
    trace = np.trace(L.inv(a) @ v, axis1=1, axis2=2)
    np.testing.assert_allclose(push(L.det, a, v), L.det(a) * trace)
    np.testing.assert_allclose(push(lambda a: L.slogdet(a)[1], a, v), trace.real)
    if kind == "complex":
        sign = L.slogdet(a)[0]
        np.testing.assert_allclose(push(lambda a: L.slogdet(a)[0], a, v), 1j * trace.imag * sign)
        testing.check_transpose(lambda a: tuple(L.slogdet(a)), (a,))


def test_analytic_functions_agree_with_the_complex_step():
    a, v, b = draw("real", 3, 3) + np.diag([3, 6, 9]), draw("real", 3, 3), draw("real", 3)
    for f in (L.det, L.inv, lambda a: L.solve(a, b), lambda a: L.matrix_power(a, 5),
              lambda a: L.matrix_power(a, -2), lambda a: L.tensorinv(a, 1)):  # fmt: skip
        np.testing.assert_allclose(push(f, a, v), f(a + 1e-30j * v).imag * 1e30, rtol=1e-10)


def square(a):
    return a[..., :2, :]


ON_STACKS = {
    "svd": lambda a: tuple(L.svd(a)),
    "svdvals": L.svdvals,
    "qr": lambda a: tuple(L.qr(a)),
    "raw": lambda a: tuple(L.qr(a, "raw")),
    "complete": lambda a: tuple(L.qr(a, "complete")),
    "pinv": L.pinv,
    "cond": L.cond,
    "cond 1": lambda a: L.cond(square(a), 1),
    "nuclear": lambda a: L.matrix_norm(a, ord="nuc"),
    "trace": L.trace,
    "eig": lambda a: tuple(L.eig(square(a))),
    "eigh": lambda a: tuple(L.eigh(square(a))),
    "eigvalsh": lambda a: L.eigvalsh(square(a)),
    "det": lambda a: L.det(square(a)),
    "singular det": lambda a: L.det(a @ adjoint(a)),
    "inv": lambda a: L.inv(square(a)),
    "cholesky": lambda a: L.cholesky(adjoint(a) @ a + np.eye(2)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ON_STACKS)
def test_stacks_are_loops(name, kind):
    f, a, v = ON_STACKS[name], draw(kind, 2, 2, 4, 2), draw(kind, 2, 2, 4, 2)
    together = dg.tree.leaves(dg.jvp(f, (a,), (v,)))
    for i in np.ndindex(2, 2):
        for stack, single in zip(
            together, dg.tree.leaves(dg.jvp(f, (a[i],), (v[i],))), strict=True
        ):
            np.testing.assert_allclose(stack[i], single, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_third_order(kind):
    a = draw(kind, 3, 3) + np.diag([3, 6, 9])
    for f in (L.svdvals, lambda a: L.eigh(a)[1], L.pinv, lambda a: L.qr(a)[0], L.eigvals, L.det):
        testing.check_jvp(f, (a,), order=3, rtol=1e-5)


# --- what each argument reads and each mode gives


def test_only_the_triangle_that_is_read_has_a_slope():
    a = draw("real", 3, 3) + 5 * np.eye(3)
    above, below = np.triu_indices(3, 1), np.tril_indices(3, -1)
    for f in (
        lambda a: L.eigvalsh(a)[0],
        lambda a: L.cholesky(a).sum(),
        lambda a: L.eigh(a)[1][0, 0],
    ):
        gradient = dg.gradient(f)(a)
        assert not gradient[above].any() and gradient[below].all()
    for f in (lambda a: L.eigvalsh(a, "U")[0], lambda a: L.cholesky(a, upper=True).sum()):
        gradient = dg.gradient(f)(a)
        assert not gradient[below].any() and gradient[above].all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(5, 2), (2, 5)], ids=str)
def test_the_vectors_that_complete_a_basis_stay_orthonormal_and_span_the_null_space(kind, shape):
    a, v = draw(kind, *shape), draw(kind, *shape)

    def null_projector(a, factor):
        rest = factor(a if a.shape[0] > a.shape[1] else adjoint(a))[0][:, 2:]
        return rest @ adjoint(rest)

    def expected(a):
        tall = a if a.shape[0] > a.shape[1] else adjoint(a)
        return np.eye(5) - tall @ L.pinv(tall)

    for factor in (L.svd, lambda a: L.qr(a, "complete")):
        f = lambda a, factor=factor: null_projector(a, factor)  # noqa: E731
        np.testing.assert_allclose(push(f, a, v), push(expected, a, v), atol=1e-10)
        testing.check_transpose(f, (a,))
    wide = lambda a: (lambda vh: adjoint(vh) @ vh)(L.svd(a)[2])  # noqa: E731
    np.testing.assert_allclose(push(wide, a, v), 0 * wide(a), atol=1e-10)


def test_lstsq_gives_all_four_results():
    for kind, a_shape, b_shape in (("real", (5, 3), (5, 2)), ("complex", (5, 3), (5,)),
                                   ("real", (3, 5), (3,))):  # fmt: skip
        a, b = draw(kind, *a_shape), draw(kind, *b_shape)
        plain = L.lstsq(a, b)
        (x, residuals, rank, s), (tx, tr, _, ts) = dg.jvp(L.lstsq, (a, b), (a, b))
        for got, expected in zip((x, residuals, rank, s), plain, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-13)
        # Both scaled by 1 + t: x stays, residuals grow by (1 + t)^2, singular values by 1 + t.
        np.testing.assert_allclose(tx, 0 * x, atol=1e-12)
        np.testing.assert_allclose(tr, 2 * residuals)
        np.testing.assert_allclose(ts, s)
    low, high = draw("real", 5, 2), draw("real", 2, 4)
    testing.check_jvp(lambda u, v, b: L.lstsq(u @ v, b)[0], (low, high, b[:1].repeat(5)), order=2)


def test_pinv_at_constant_rank_and_with_a_cut_off_that_bites():
    u, v = draw("complex", 5, 2), draw("complex", 2, 4)
    testing.check_function(lambda u, v: L.pinv(u @ v), u, v, order=2)
    a = draw("real", 2, 4, 3)
    s = L.svdvals(a)
    rtol = (s[:, 1] + s[:, 2]) / 2 / s[:, 0]  # one for each matrix: drops the last value
    testing.check_function(lambda a: L.pinv(a, rtol=rtol), a, order=2)
    np.testing.assert_allclose(push(L.pinv, np.eye(3), v := draw("real", 3, 3)), -v, atol=1e-14)
    assert not push(L.pinv, np.zeros((2, 3)), np.ones((2, 3))).any()
    with pytest.raises(ValueError, match="can't be both"):
        dg.jvp(lambda a: L.pinv(a, 0.1, rtol=0.1), (a,), (a,))


def test_piecewise_constant_results_are_plain():
    def f(a):
        for y in (L.matrix_rank(a), L.matrix_power(a, 0), L.slogdet(a)[0], L.lstsq(a, a)[2]):
            assert not isinstance(y, dg.DualTensor)
        return a

    dg.jvp(f, (np.eye(3),), (np.eye(3),))


@pytest.mark.parametrize("kind", KINDS)
def test_every_norm_and_condition_number(kind):
    # Sums lie apart, of the inverse too: no extreme changes its place, and no entry its sign.
    a = 0.05 * draw(kind, 2, 3, 3) + np.array([[4, 1, -1.5], [2, 9, 3], [3, -2, 14]])
    for order in (None, "fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf):
        testing.check_function(lambda a, o=order: L.norm(a, o, (2, 1), keepdims=True), a, order=1)
        if order is not None:
            testing.check_function(lambda a, o=order: L.cond(a, o), a, order=1)
            testing.check_function(lambda a, o=order: L.matrix_norm(a, ord=o), a, order=1)
    for order in (0, 0.5, 1, 1.5, 2, 3, -1, -2.5, np.inf, -np.inf):
        testing.check_function(lambda a, o=order: L.norm(a, o, 1), a, order=1)
        testing.check_function(lambda a, o=order: L.vector_norm(a[0], ord=o), a, order=1)


# --- where there is no derivative, or no unique one


def by_permutations(a):
    n = a.shape[-1]
    return sum(
        L.det(np.eye(n)[list(p)]) * np.prod(np.stack([a[..., i, p[i]] for i in range(n)]), 0)
        for p in permutations(range(n))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_det_of_singular_matrices_to_fourth_order(kind):
    mixed = np.stack([np.ones((3, 3)), np.eye(3), np.diag([1, 1e-9, 2])])
    for a in (np.arange(1.0, 10).reshape(3, 3), np.zeros((2, 2)), np.diag([1.0, 0, 1, 0]), mixed):
        a = a.astype(draw(kind, 1).dtype)
        directions = [draw(kind, *a.shape) for _ in range(4)]
        assert np.array_equal(dg.jvp(L.det, (a,), (a,))[0], L.det(a))
        for order in range(1, 5):
            got, expected = (nested(f, a, *directions[:order]) for f in (L.det, by_permutations))
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
        testing.check_transpose(L.det, (a,))


def test_symmetric_functions_of_repeated_values_are_right():
    v = draw("real", 3, 3)
    v = v + v.T
    for values in (L.eigvalsh, lambda a: L.eigh(a).eigenvalues,
                   lambda a: np.real(L.eigvals(a))):  # fmt: skip
        f = lambda a, values=values: np.sum(values(a) ** 2)  # noqa: E731, sum of squares: 2 <a, v>
        np.testing.assert_allclose(push(f, np.eye(3), v), 2 * np.trace(v))
        np.testing.assert_allclose(dg.gradient(f, mode="reverse")(np.eye(3)), 2 * np.eye(3))
    for values in (L.svdvals, lambda a: L.svd(a)[1]):
        f = lambda a, values=values: np.sum(values(a))  # noqa: E731
        np.testing.assert_allclose(dg.gradient(f, mode="reverse")(np.eye(3)), np.eye(3), atol=1e-15)


def test_vectors_of_repeated_values_are_nan_and_the_others_are_right():
    b, w = np.diag([1.0, 1, 2, 4]), draw("real", 4, 4)
    w = w + w.T
    moved = push(lambda a: L.eigh(a)[1], b, w)
    assert np.isnan(moved[:, :2]).all()
    for j in (2, 3):  # first order perturbation theory; LAPACK's signs are +1 here
        expected = [w[i, j] / (b[j, j] - b[i, i]) if i != j else 0 for i in range(4)]
        np.testing.assert_allclose(moved[:, j] * np.sign(L.eigh(b)[1][j, j]), expected)
    second = dg.hessian(lambda t: L.eigvalsh(b + t * w)[-1])(0.0)
    np.testing.assert_allclose(second, 2 * sum(w[3, j] ** 2 / (4 - b[j, j]) for j in range(3)))
    column = dg.gradient(lambda a: L.eigh(a)[1][0, 3], mode="reverse")(b)
    assert np.isfinite(column).all() and column.any()
    # Nothing turns the vectors of x * 1, so they stay.
    assert not push(lambda x: L.eigh(x * np.eye(3))[1], 2.0, 1.0).any()
    u, s, vh = push(lambda a: tuple(L.svd(a)), np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert np.isnan(u).all() and np.isnan(vh).all() and list(s) == [1, 4]
    assert np.isnan(dg.hessian(lambda t: np.sum(L.eigvalsh(np.eye(2) + t * w[:2, :2])))(0.0))


def test_a_zero_that_an_outer_level_moves_is_no_zero():
    # V turns by t w; at t = 0 nothing turns it, but its derivative in t is not defined.
    w = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert not push(lambda x: L.eigh(x * np.eye(2))[1], 1.0, 1.0).any()
    inner = lambda t: push(lambda x: L.eigh(np.eye(2) + x * t * w)[1], 0.0, 1.0)  # noqa: E731
    assert np.isnan(dg.derivative(inner)(0.0)).all()


def test_vanishing_singular_values():
    a, v = np.diag([3.0, 2.0, 0.0]), draw("real", 3, 3)
    np.testing.assert_allclose(push(from_svd, a, v), v, atol=1e-14)  # U and V turn on, smoothly
    np.testing.assert_allclose(push(L.svdvals, a, v), [v[0, 0], v[1, 1], 0], atol=1e-14)
    np.testing.assert_allclose(dg.gradient(lambda a: L.norm(a, "nuc"))(a), np.diag([1, 1, 0]))
    tall = np.outer([1.0, 2, 2], [1.0, 0])
    assert np.isnan(push(lambda a: L.svd(a, False)[0], tall, v[:, :2])[:, 1]).all()


def test_qr_of_dependent_columns_is_nan_from_there_on():
    a = np.array([[3.0, 3.0, 1.0], [4.0, 4.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 2.0]])
    moved = push(lambda a: L.qr(a)[0], a, draw("real", 4, 3))
    assert np.isfinite(moved[:, 0]).all() and np.isnan(moved[:, 1:]).all()
    reflectors = lambda a: tuple(L.qr(a, "raw"))  # noqa: E731
    h, tau = push(reflectors, np.array([[2.0, 1], [0, 1], [0, 3]]), draw("real", 3, 2))
    assert np.isnan(tau).tolist() == [True, False] and np.isnan(h).sum() == 2


def test_singular_matrices():
    one, v = np.ones((2, 2)), draw("real", 2, 2)
    for f in (lambda a: L.slogdet(a)[1], L.inv):
        with pytest.raises(L.LinAlgError, match="Singular"):
            dg.jvp(f, (one,), (v,))
    for p in (None, 1, -2):
        both = np.stack([np.diag([1.0, 2.0]), np.zeros((2, 2))])
        f = lambda a, p=p: L.cond(a, p)  # noqa: E731
        (first, second), (slope, none) = dg.jvp(f, (both,), (np.stack([v, v]),))
        assert second == L.cond(both, p)[1] and (p == -2 or not np.isfinite(none))
        np.testing.assert_allclose(slope, push(f, both[0], v))
        assert np.isfinite(dg.vjp(f, both)[1](np.array([1.0, 0.0]))[0][0]).all()
    x = np.array([0.0, 2.0, 1.0])
    assert push(lambda x: L.norm(x, -1), x, x + 1) == 0


# --- errors, and nothing to do


def test_what_numpy_refuses_is_refused():
    wide, x = np.ones((2, 3)), np.ones(3)
    for f in (L.det, L.inv, L.eig, L.eigvals, L.eigh, L.eigvalsh, L.cholesky, L.slogdet,
              lambda a: L.matrix_power(a, 2), lambda a: L.matrix_power(a, 0), L.tensorinv,
              lambda a: L.tensorsolve(a, x[:2])):  # fmt: skip
        with pytest.raises((L.LinAlgError, ValueError)):
            f(wide)
        with pytest.raises((L.LinAlgError, ValueError)):
            dg.jvp(f, (wide,), (wide,))
    for f in (L.svd, L.qr, L.pinv, L.svdvals):
        with pytest.raises(L.LinAlgError, match="at least two-dimensional"):
            dg.jvp(f, (x,), (x,))
    with pytest.raises(dg.OptionError, match="norm order 'nuc' for vectors"):
        dg.jvp(lambda x: L.norm(x, "nuc"), (x,), (x,))
    with pytest.raises(dg.OptionError, match="norm order 3 for matrices"):
        dg.jvp(lambda x: L.norm(x, 3), (wide,), (wide,))
    with pytest.raises(dg.ShapeError, match="number of dimensions"):
        dg.jvp(lambda x: L.norm(x, 2), (np.ones((2, 2, 2)),), (np.ones((2, 2, 2)),))
    with pytest.raises(ValueError, match="UPLO"):
        dg.jvp(lambda a: L.eigh(a, "X"), (np.eye(2),), (np.eye(2),))
    with pytest.raises(dg.ShapeError, match="length 3"):
        dg.jvp(lambda x: L.cross(x, x), (np.ones(2),), (np.ones(2),))


EMPTY = (L.det, L.inv, L.pinv, L.svd, L.svdvals, L.qr, L.eigh, L.eigvalsh, L.eig, L.eigvals,
         L.cholesky, lambda a: L.slogdet(a)[1], L.norm, L.matrix_norm)  # fmt: skip


@pytest.mark.parametrize("shape", [(0, 0), (2, 0, 0), (0, 3, 3)], ids=str)
def test_empty_stacks_and_empty_matrices(shape):
    a = np.zeros(shape)
    for f in EMPTY:
        g = lambda a, f=f: dg.tree.leaves(tuple(y) if isinstance(y := f(a), tuple) else y)  # noqa: E731
        for x, y, t in zip(g(a), *dg.jvp(g, (a,), (a,)), strict=True):
            assert np.shape(x) == np.shape(y) == np.shape(t) and not np.any(t)
        dg.vjp(g, a)


@pytest.mark.parametrize("order", [3.0, 2.0, 1.0, -1.5])
@pytest.mark.parametrize("norm", [L.norm, L.vector_norm])
def test_the_order_of_a_vector_norm_moves_also_where_it_is_a_common_one(norm, order):
    x = np.array([0.5, -1.5, 2.0])
    slope = dg.derivative(lambda p: norm(x + 0 * p, ord=p))(order)
    around = (norm(x, ord=order + 1e-6) - norm(x, ord=order - 1e-6)) / 2e-6
    assert slope == pytest.approx(around, rel=1e-6)


def test_the_order_of_a_matrix_norm_must_not_move():
    m = np.eye(3)
    for f in (lambda p: L.norm(m + 0 * p, ord=p), lambda p: L.cond(m + 0 * p, p)):
        with pytest.raises(dg.MissingRuleError, match="order of"):
            dg.derivative(f)(2.0)
