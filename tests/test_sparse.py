"""Sparse Jacobians and Hessians against dense ones, patterns against every entry that moves."""

import builtins
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_table import CASES

import dualgrad as dg

sparse = pytest.importorskip("scipy.sparse")

RNG = np.random.default_rng(0)


def dense(f, *args):
    """Return the Jacobian of f as one matrix, arguments and results flattened in order."""
    args = dg.tree.map(lambda x: x if x is None else np.asarray(x), args)
    leaves, structure = dg.tree.flatten(args)
    flat = np.concatenate([np.ravel(x) for x in leaves])

    def g(flat):
        parts, before = [], 0
        for x in leaves:
            parts.append(np.reshape(flat[before : before + x.size], x.shape))
            before += x.size
        y = dg.tree.leaves(f(*dg.tree.unflatten(structure, parts)))
        return np.concatenate([np.ravel(leaf) for leaf in y])

    return dg.jacobian(g)(flat)


def pattern(f, *args):
    return dg.sparsity(f, tuple(range(len(args))))(*args).toarray()


# --- patterns: no entry is hidden, neither by the values nor by where they lead


# The bin that a sample falls into is a branch on its value, followed as taken.
HISTOGRAMS = {np.histogram, np.histogram2d, np.histogramdd}


def arguments(case, seed):
    """Return arguments of a case, every entry different from the others of its array."""
    rng, sizes = np.random.default_rng(seed), {}
    for argument in case.arguments:
        names = [s for s in argument.shape.split() if s.isalpha()]
        sizes.update({s: 2 + (len(sizes) + i) % 2 for i, s in enumerate(names) if s not in sizes})
    out = []
    for argument in case.arguments:
        shape = [int(s) if s.isdigit() else sizes[s] for s in argument.shape.split()]
        n = int(np.prod(shape))
        out.append(
            np.reshape(
                rng.permutation(np.linspace(argument.low, argument.high, n + 2)[1:-1]), shape
            )
        )
    return tuple(out)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_pattern_of_an_operation_holds_its_jacobian_there_and_elsewhere(case):
    found = pattern(case.call, *arguments(case, 0))
    elsewhere = case.operation not in HISTOGRAMS  # other values, in another order
    for seed in range(1 + elsewhere):
        matrix = dense(case.call, *arguments(case, seed))
        assert matrix.shape == found.shape
        assert not np.any((matrix != 0) & ~found)


UNARY = [np.sin, np.tanh, np.square, np.negative, np.cumsum, np.sort, lambda x: x[::-1],
         lambda x: np.roll(x, 2), lambda x: x.reshape(2, 3).T.ravel(), np.flip, np.abs,
         lambda x: x[[0, 0, 3, 5, 2, 1]], lambda x: np.where(x > 0, x, x * x),
         lambda x: np.repeat(x, 2)[3:9], lambda x: np.pad(x[1:4], (1, 2)),
         lambda x: np.broadcast_to(np.sum(x[:3]), (6,)), lambda x: x / (1 + x[2] ** 2),
         lambda x: np.arange(36.0).reshape(6, 6)[:, :2] @ x[4:], lambda x: np.diff(x, append=1.0),
         lambda x: np.max(x.reshape(3, 2), 1).repeat(2)]  # fmt: skip
BINARY = [np.add, np.multiply, np.subtract, np.maximum, lambda a, b: a / (2 + b * b),
          lambda a, b: np.concatenate([a[:2], b[2:]]), lambda a, b: np.outer(a, b)[:, 1],
          lambda a, b: np.einsum("ij,j->i", a.reshape(2, 3), b[:3]).repeat(3)]  # fmt: skip


def program(choices):
    """Return a function of six numbers: each step is of one value so far, or of two."""

    def f(x):
        values = [x]
        for unary, which, left, right in choices:
            a, b = values[left % len(values)], values[right % len(values)]
            y = UNARY[which % len(UNARY)](a) if unary else BINARY[which % len(BINARY)](a, b)
            values.append(y)
        return values[-1]

    return f


numbers = st.integers(0, 999)


@given(st.lists(st.tuples(st.booleans(), numbers, numbers, numbers), min_size=1, max_size=7))
@settings(max_examples=60, deadline=None)
def test_the_pattern_of_a_program_holds_its_jacobian_at_any_point(choices):
    f = program(choices)
    found = pattern(f, np.zeros(6))  # where most entries vanish
    for seed in range(2):
        x = np.random.default_rng(seed).normal(size=6)
        matrix = dg.jacobian(f)(x)
        assert not np.any((matrix != 0) & ~found)
        np.testing.assert_allclose(
            dg.sparse_jacobian(f, found)(x).toarray(), matrix, rtol=1e-12, atol=1e-12
        )


EXACT = {
    "entry by entry": (lambda x: np.exp(x) * x, np.eye(4)),
    "0-d results": (lambda x: x[0] * x[3], [[1, 0, 0, 1]]),
    "a number": (lambda x: 3.0, [[0, 0, 0, 0]]),
    "nothing left of it": (lambda x: np.floor(x[:2]), np.zeros((2, 4))),
    "stopped": (lambda x: dg.stop_gradient(x) * x[::-1], np.eye(4)[::-1]),
    "matmul of blocks": (
        lambda x: np.eye(2) @ x.reshape(2, 2), [[1, 0, 1, 0], [0, 1, 0, 1]] * 2,
    ),
    "batched matmul": (
        lambda x: np.matmul(np.ones((2, 1, 2)), x.reshape(2, 2, 1)).ravel(),
        [[1, 1, 0, 0], [0, 0, 1, 1]],
    ),
    "cumsum": (np.cumsum, np.tri(4)),
    "cumprod": (np.cumprod, np.tri(4)),
    "convolve": (lambda x: np.convolve(x[:2], x[2:]), [[1, 0, 1, 0], [1, 1, 1, 1], [0, 1, 0, 1]]),
    "fft": (
        lambda x: np.real(np.fft.rfft(x.reshape(2, 2))), [[1, 1, 0, 0]] * 2 + [[0, 0, 1, 1]] * 2,
    ),
    "sort": (lambda x: np.sort(x.reshape(2, 2)), [[1, 1, 0, 0]] * 2 + [[0, 0, 1, 1]] * 2),
    "softmax": (lambda x: dg.nn.softmax(x.reshape(2, 2)), [[1, 1, 0, 0]] * 2 + [[0, 0, 1, 1]] * 2),
    "inverses": (
        lambda x: np.linalg.inv(x.reshape(4, 1, 1)), np.eye(4),
    ),
    "zeros_like and writing": (
        lambda x: written(x), [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]],
    ),
    "a custom rule": (lambda x: shifted_square(x), np.eye(4, k=1) + np.eye(4, k=-3)),
    "a transform inside": (
        lambda x: dg.jvp(lambda z: z[:2] * z[2:], (x,), (np.ones(4),))[1],
        [[1, 0, 1, 0], [0, 1, 0, 1]],
    ),
}  # fmt: skip


def written(x):
    out = np.zeros_like(x)
    out[1:] = x[:-1]
    inner = out[:-1]  # a view: of both parts
    inner += x[1:]
    return out


@dg.custom_jvp
def shifted_square(x):
    return np.roll(x, -1) ** 2


@shifted_square.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    return shifted_square(x), 2 * np.roll(x, -1) * np.roll(dx, -1)


@pytest.mark.parametrize("name", EXACT)
def test_patterns_are_as_small_as_they_can_be(name):
    f, expected = EXACT[name]
    np.testing.assert_array_equal(pattern(f, np.arange(1.0, 5.0)), np.array(expected, bool))


def test_convolutions_follow_windows_forward_and_in_both_transposes():
    x, w = RNG.normal(size=(2, 5, 4, 2)), RNG.normal(size=(3, 2, 1, 4))
    options = {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2), "groups": 2}
    conv = lambda x, w: dg.nn.conv2d(x, w, **options)  # noqa: E731
    np.testing.assert_array_equal(  # only padding meets no entry
        pattern(lambda x: conv(x, w), x), dense(lambda x: conv(x, w), x) != 0
    )
    back = lambda x, w: dg.vjp(conv, x, w)[1](np.ones(conv(x, w).shape))  # noqa: E731
    found, matrix = pattern(back, x, w), dense(back, x, w)
    assert not np.any((matrix != 0) & ~found) and found.mean() < 0.5


def test_a_branch_is_followed_as_taken():
    f = lambda x: x[:1] if x[2] > 0 else x[1:2]  # noqa: E731
    assert pattern(f, np.array([1.0, 2, 3])).tolist() == [[True, False, False]]
    assert pattern(f, np.array([1.0, 2, -3])).tolist() == [[False, True, False]]
    jacobian = dg.sparse_jacobian(f)  # looks again at every point
    assert jacobian(np.array([1.0, 2, -3])).toarray().tolist() == [[0, 1, 0]]


def test_a_sum_that_couples_all_is_one_set():
    f = lambda x: x - np.mean(x)  # noqa: E731
    assert pattern(f, np.zeros(300)).all()


# --- colours and matrices


def brusselator(state):
    u, v = state[0], state[1]
    laplacian = lambda u: (  # noqa: E731
        np.roll(u, 1, 0) + np.roll(u, -1, 0) + np.roll(u, 1, 1) + np.roll(u, -1, 1) - 4 * u
    )
    reaction = u * u * v
    return np.stack([laplacian(u) + reaction - 4.4 * u + 1, laplacian(v) - reaction + 3.4 * u])


def test_a_periodic_stencil_of_two_fields_takes_few_colours():
    small = RNG.normal(size=(2, 7, 6))
    np.testing.assert_allclose(
        dg.sparse_jacobian(brusselator)(small).toarray(), dense(brusselator, small), atol=1e-14
    )
    x = RNG.normal(size=(2, 60, 52))
    coloring = dg.Coloring(dg.sparsity(brusselator)(x))
    assert coloring.count <= 14 and coloring.pattern.nnz == 6 * x.size
    matrix = dg.sparse_jacobian(brusselator, coloring)(x)
    assert isinstance(matrix, sparse.csr_array) and matrix.dtype == x.dtype
    v = RNG.normal(size=x.shape)
    _, expected = dg.jvp(brusselator, (x,), (v,))
    np.testing.assert_allclose(matrix @ v.ravel(), expected.ravel(), rtol=1e-10, atol=1e-10)


patterns = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).random((9, 8)) < 0.25
)


@given(patterns)
@settings(max_examples=30, deadline=None)
def test_columns_of_a_colour_share_no_row_and_products_give_the_matrix_back(found):
    coloring = dg.Coloring(found)
    for color in range(coloring.count):
        assert found[:, coloring.colors == color].sum(1).max() <= 1
    matrix = found * RNG.normal(size=found.shape)
    seeds = coloring.colors == np.arange(coloring.count)[:, None]
    np.testing.assert_array_equal(coloring.matrix(seeds @ matrix.T, float).toarray(), matrix)


@given(patterns)
@settings(max_examples=30, deadline=None)
def test_a_star_colouring_gives_any_symmetric_matrix_back(found):
    found = found[:8] | found[:8].T
    coloring = dg.Coloring(found[:8], symmetric=True)
    matrix = found * RNG.normal(size=found.shape)
    matrix = matrix + matrix.T
    seeds = coloring.colors == np.arange(coloring.count)[:, None]
    np.testing.assert_allclose(coloring.matrix(seeds @ matrix.T, float).toarray(), matrix)
    assert coloring.count <= dg.Coloring(found | np.eye(8, dtype=bool)).count


def test_an_arrow_takes_two_colours_where_columns_take_as_many_as_there_are():
    arrow = np.eye(30, dtype=bool)
    arrow[0] = arrow[:, 0] = True
    assert dg.Coloring(arrow, symmetric=True).count == 2
    assert dg.Coloring(arrow).count == 30
    f = lambda x: x[0] * np.sum(np.sin(x[1:]))  # noqa: E731
    x = RNG.normal(size=30)
    np.testing.assert_allclose(dg.sparse_hessian(f)(x).toarray(), dg.hessian(f)(x), atol=1e-13)


def rosenbrock(x):
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


HESSIANS = {
    "rosenbrock": (rosenbrock, (12,)),
    "a number": (lambda x: x**3, ()),
    "linear": (lambda x: np.sum(3 * x), (4,)),
    "products": (lambda x: np.sum(np.tanh(x[:-1] @ x[1:])), (4, 3)),
    "logsumexp of rows": (lambda x: np.sum(dg.nn.logsumexp(x, -1)), (3, 4)),
    "sorted": (lambda x: np.sum(np.sort(x)[:2] ** 3), (5,)),
    "pooled": (lambda x: np.sum(dg.nn.max_pool2d(x, 2) ** 2), (1, 5, 4, 1)),
}


@pytest.mark.parametrize("name", HESSIANS)
def test_a_sparse_hessian_is_the_dense_one(name):
    f, shape = HESSIANS[name]
    x = np.random.default_rng(3).normal(size=shape)
    expected = np.reshape(dg.hessian(f)(x), (x.size, x.size))
    found = dg.sparse_hessian(f)(x)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-10, atol=1e-10)
    plain = dg.Coloring(found)  # what is stored is a pattern
    np.testing.assert_allclose(
        dg.sparse_hessian(f, plain)(x).toarray(), expected, rtol=1e-10, atol=1e-10
    )


def test_trees_argnums_keywords_and_static_leaves():
    args = ({"a": RNG.normal(size=3), "b": RNG.normal()}, 2.0, RNG.normal(size=(2, 2)), "name")

    def f(tree, scale, x, label, power=1):
        assert label == "name"
        return {"u": tree["a"] ** power * scale, "v": [np.sum(x, 0) * tree["b"], 7, x[0, 0]]}

    matrix = dg.sparse_jacobian(f, argnums=(2, 0))(*args, power=3)
    expected = dense(lambda x, tree: f(tree, 2.0, x, "name", 3), args[2], args[0])
    assert matrix.shape == (7, 8)
    np.testing.assert_allclose(matrix.toarray(), expected, rtol=1e-12)
    energy = lambda tree, x: np.sum(tree["a"] ** 2) * tree["b"] + np.sum(x**3)  # noqa: E731
    tree = {**args[0], "name": "not a number"}
    found = dg.sparse_hessian(energy, argnums=(1, 0))(tree, args[2]).toarray()
    rows = dense(lambda x, t: dg.gradient(energy, (1, 0))(t, x), args[2], args[0])
    np.testing.assert_allclose(found, rows, rtol=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 2, 5, None])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_chunks_and_dtypes(chunk_size, dtype):
    x = np.arange(1, 9).astype(dtype)
    f = lambda x: x[1:] * x[:-1] ** 2 + x[2] * x[1:]  # noqa: E731
    matrix = dg.sparse_jacobian(f, chunk_size=chunk_size)(x)
    assert matrix.dtype == dtype
    np.testing.assert_allclose(matrix.toarray(), dg.jacobian(f)(x), rtol=1e-6)


def test_empty_and_scalar_cases():
    assert dg.sparse_jacobian(lambda x: x * 2)(np.zeros(0)).shape == (0, 0)
    assert dg.sparse_jacobian(lambda x: np.zeros(3))(np.ones(2)).nnz == 0
    assert dg.sparse_jacobian(lambda x: np.floor(x).astype(int))(np.ones(2)).toarray().sum() == 0
    assert dg.sparse_jacobian(lambda x: x[:0])(np.ones(2)).shape == (0, 2)
    assert dg.sparse_jacobian(np.sin)(0.0).toarray() == [[1.0]]
    assert dg.sparse_hessian(lambda x: np.sum(x))(np.zeros(0)).shape == (0, 0)


def test_what_a_given_sparsity_may_be():
    x = RNG.normal(size=5)
    f = lambda x: x[1:] * x[:-1]  # noqa: E731
    expected = dg.jacobian(f)(x)
    found = dg.sparsity(f)(x)
    more = found.toarray() | (np.arange(5) == 0)  # entries that are zero do no harm
    for given_ in (found, sparse.csc_matrix(found), found.toarray(), more.tolist(),
                   sparse.coo_array((np.zeros(8), found.nonzero()), shape=found.shape),
                   dg.Coloring(found)):  # fmt: skip
        np.testing.assert_array_equal(dg.sparse_jacobian(f, given_)(x).toarray(), expected)


def test_a_coloring_can_be_stored():
    coloring = pickle.loads(pickle.dumps(dg.Coloring(np.tri(3, dtype=bool))))
    f = lambda x: np.cumsum(x**2)  # noqa: E731
    expected = 2 * np.tri(3) * np.arange(3.0)
    assert dg.sparse_jacobian(f, coloring)(np.arange(3.0)).toarray().tolist() == expected.tolist()


def test_the_matrix_owns_its_memory():
    coloring = dg.Coloring(np.eye(3, dtype=bool))
    square = dg.sparse_jacobian(np.square, coloring)
    first = square(np.array([1.0, 0.0, 2.0]))
    first.eliminate_zeros()
    assert coloring.pattern.nnz == 3
    assert square(np.array([1.0, 3.0, 2.0])).toarray().tolist() == np.diag([2, 6, 4]).tolist()


# --- errors


def test_a_pattern_that_lacks_an_entry_is_found():
    f = lambda x: x * x[::-1]  # noqa: E731
    x = np.arange(1.0, 4.0)
    with pytest.raises(dg.OptionError, match=r"(?s)lacks entries.*row 0.*dg\.sparsity"):
        dg.sparse_jacobian(f, np.eye(3, dtype=bool))(x)
    unchecked = dg.sparse_jacobian(f, np.eye(3, dtype=bool), check=False)(x)
    assert unchecked.nnz == 3
    with pytest.raises(dg.OptionError, match="sparse_hessian: the sparsity lacks"):
        dg.sparse_hessian(lambda x: x[0] * x[1] + x[2] ** 2, np.eye(3))(x)


def test_a_pattern_that_another_branch_outgrows_is_found_where_every_call_is_checked():
    f = lambda x: x if x[0] > 0 else x * x[::-1]  # noqa: E731
    g = lambda x: np.sum(x * x if x[0] > 0 else x * x[::-1])  # noqa: E731
    x = np.arange(1.0, 4.0)
    for transform, function in ((dg.sparse_jacobian, f), (dg.sparse_hessian, g)):
        once, always = (transform(function, np.eye(3), check=c) for c in (True, "always"))
        for matrix in (once, always):
            assert matrix(x).nnz == matrix(x).nnz == 3
        assert once(-x).nnz == 3  # wrong, and not looked at
        with pytest.raises(dg.OptionError, match="lacks entries"):
            always(-x)
        with pytest.raises(dg.OptionError, match="check='never'"):
            transform(function, np.eye(3), check="never")


def test_misuse_is_refused():
    x, square = np.ones(3), np.square
    wrong = {
        "the sparsity has shape .3, 4.*3 arguments": lambda: dg.sparse_jacobian(
            square, np.ones((3, 4)))(x),
        "the sparsity has shape .2, 3.*3 results": lambda: dg.sparse_jacobian(
            square, np.ones((2, 3)))(x),
        "a pattern of shape .3,.": lambda: dg.sparse_jacobian(square, np.ones(3)),
        "square; leave symmetric out": lambda: dg.Coloring(np.ones((2, 3)), symmetric=True),
        "the Coloring given is symmetric": lambda: dg.sparse_jacobian(
            square, dg.Coloring(np.eye(3), symmetric=True)),
        "returned a str": lambda: dg.sparse_jacobian(lambda x: "y")(x),
        "returned a str, which": lambda: dg.sparsity(lambda x: "y")(x),
        "must give one real number": lambda: dg.sparse_hessian(square)(x),
        "int64": lambda: dg.sparse_jacobian(square)(np.arange(3)),
        "chunk_size=0": lambda: dg.sparse_jacobian(square, chunk_size=0)(x),
        "argnums=1, but": lambda: dg.sparse_jacobian(square, argnums=1)(x),
        "cannot follow in-place": lambda: dg.sparse_hessian(lambda x: np.sum(written(x)))(x),
        "lose half": lambda: dg.sparse_jacobian(np.abs)(x + 1j),
        "carries tangents of a transform around": lambda: dg.jvp(
            lambda x: dg.sparse_jacobian(square)(x).data, (x,), (x,)),
        "function, or an argument, carries": lambda: dg.jvp(
            lambda a: dg.sparse_jacobian(lambda z: a * z)(np.ones(3)).data, (x,), (x,)),
    }  # fmt: skip
    for message, call in wrong.items():
        with pytest.raises(dg.DualgradError, match=f"(?s){message}"):
            call()


def test_what_computes_with_tangents_is_refused_in_a_pattern():
    seen = []
    with pytest.raises(dg.MissingRuleError, match="of tangents cannot be followed"):
        dg.sparsity(lambda x: np.sin(x).tangents * 2)(np.ones(3))
    dg.sparsity(lambda x: seen.append(repr(x)) or x)(np.ones(2))
    assert "<sets of inputs, shape (2,)>" in seen[0]


def test_without_scipy_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "scipy":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    for name in [m for m in sys.modules if m.split(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refuse)
    for call in (lambda: dg.sparse_jacobian(np.sin)(np.ones(2)), lambda: dg.Coloring(np.eye(2)),
                 lambda: dg.sparsity(np.sin)(np.ones(2))):  # fmt: skip
        with pytest.raises(dg.MissingRuleError, match="pip install"):
            call()


def test_large_unions_are_made_in_parts(monkeypatch):
    from dualgrad.sparse import sets

    monkeypatch.setattr(sets, "PAIRS_AT_ONCE", 64)
    np.testing.assert_array_equal(pattern(np.cumsum, np.ones(40)), np.tri(40, dtype=bool))
    g = lambda x: sum(np.roll(x, i) ** 2 for i in range(5))  # noqa: E731
    expected = sum(np.roll(np.eye(40), i, 0) for i in range(5)) > 0
    np.testing.assert_array_equal(pattern(g, np.ones(40)), expected)
