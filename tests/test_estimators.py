"""forward_gradient beside plain NumPy: what each option does, call by call, and what is refused."""

import numpy as np
import pytest

import dualgrad as dg

KEY = dg.Key(11)
X = np.random.default_rng(0).normal(size=(5, 3))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def tree_params():
    return {"w": normal(1, 3, 4), "b": normal(2, 4), "s": normal(3, 2, 2, 4)}


def tree_loss(p):
    h = np.tanh(X @ p["w"] + p["b"])
    return np.mean((h @ np.sum(p["s"], axis=0).T) ** 2)


def site_loss(p):
    return np.sum(np.tanh(dg.nn.linear(X, p["w"], p["b"])) ** 2, axis=1) + np.sum(p["s"] ** 2)


def flat(gradient):
    return np.concatenate([np.ravel(np.asarray(g)) for g in dg.tree.leaves(gradient)])


def columns(directions):
    """Return B, (d, k): one direction a column, factors multiplied out."""
    rows = [
        (
            v
            if isinstance(v, np.ndarray)
            else v.left[..., None]
            * v.right[:, None, :].reshape(len(v), *(1,) * (v.left.ndim - 1), -1)
        ).reshape(len(v), -1)
        for v in dg.tree.leaves(directions)
    ]
    return np.concatenate(rows, axis=1).T


def assert_same_bits(one, other):
    for a, b in zip(dg.tree.leaves(one), dg.tree.leaves(other), strict=True):
        assert type(a) is type(b)
        pairs = [(a.left, b.left), (a.right, b.right)] if isinstance(a, dg.LowRank) else [(a, b)]
        for p, q in pairs:
            np.testing.assert_array_equal(np.asarray(p), np.asarray(q), strict=True)


MODES = {
    "dense": {},
    "dense-normal": {"distribution": "normal"},
    "rank1": {"structure": "rank1"},
    "rank1-normal": {"structure": "rank1", "distribution": "normal"},
    "activations": {"perturb": "activations"},
    "activations-normal": {"perturb": "activations", "distribution": "normal"},
}


def loss_of(options):
    return site_loss if options.get("perturb") == "activations" else tree_loss


# --- the estimate from its parts


@pytest.mark.parametrize("structure", ["dense", "rank1"])
@pytest.mark.parametrize("k", [1, 3])
def test_the_estimate_is_the_mean_of_derivatives_times_directions(structure, k):
    params = tree_params()
    fg = dg.forward_gradient(tree_loss, structure=structure, directions=k, with_info=True)
    value, gradient, info = fg(params, key=KEY)
    assert value == tree_loss(params)
    exact = flat(dg.gradient(tree_loss)(params))
    b = columns(info.directions)
    np.testing.assert_allclose(info.derivatives, b.T @ exact, rtol=1e-10)
    np.testing.assert_allclose(flat(gradient), b @ (b.T @ exact) / k, rtol=1e-9, atol=1e-12)
    assert isinstance(gradient["w"], dg.LowRank) == (structure == "rank1")
    assert gradient["s"].shape == (2, 2, 4) and isinstance(gradient["b"], np.ndarray)


@pytest.mark.parametrize("structure", ["dense", "rank1"])
def test_directions_come_from_the_stream_named_directions(structure):
    params = tree_params()
    fg = dg.forward_gradient(tree_loss, structure=structure, directions=3, with_info=True)
    drawn = dg.directions.draw(KEY.fold_in("directions"), params, 3, structure=structure)
    np.testing.assert_array_equal(columns(fg(params, key=KEY)[2].directions), columns(drawn))


@pytest.mark.parametrize("structure", ["dense", "rank1"])
@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_frog_is_the_projection_on_the_span(structure, distribution, chunk_size):
    params = tree_params()
    fg = dg.forward_gradient(
        tree_loss, structure=structure, distribution=distribution, directions=5,
        combine="projection", chunk_size=chunk_size, with_info=True,
    )  # fmt: skip
    _, gradient, info = fg(params, key=KEY)
    exact = flat(dg.gradient(tree_loss)(params))
    q = np.linalg.qr(columns(info.directions))[0]
    np.testing.assert_allclose(flat(gradient), q @ (q.T @ exact), rtol=1e-8, atol=1e-10)


def test_frog_with_as_many_directions_as_parameters_is_the_gradient():
    params = tree_params()
    fg = dg.forward_gradient(tree_loss, distribution="normal", directions=40, combine="projection")
    exact = dg.gradient(tree_loss)(params)  # 32 parameters: the span is everything
    np.testing.assert_allclose(flat(fg(params, key=KEY)[1]), flat(exact), rtol=1e-7, atol=1e-9)


def test_frog_along_equal_directions_is_the_projection_on_one():
    w, v = normal(4, 6), normal(5, 6)
    exact = 2 * w
    fg = dg.forward_gradient(lambda w: np.sum(w**2), guess=[v, 2 * v], combine="projection")
    np.testing.assert_allclose(fg(w, key=KEY)[1], (exact @ v) / (v @ v) * v, rtol=1e-10)


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
@pytest.mark.parametrize("chunk_size", [1, 3, 9])
def test_chunks_give_the_numbers_of_one_pass(options, chunk_size):
    loss, params = loss_of(options), tree_params()
    whole = dg.forward_gradient(loss, directions=7, with_info=True, **options)
    cut = dg.forward_gradient(loss, directions=7, chunk_size=chunk_size, with_info=True, **options)
    (value, g, info), (other, h, cut_info) = whole(params, key=KEY), cut(params, key=KEY)
    assert value == other
    np.testing.assert_allclose(flat(h), flat(g), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(cut_info.derivatives, info.derivatives, rtol=1e-10)
    if info.directions is not None:
        np.testing.assert_array_equal(columns(cut_info.directions), columns(info.directions))


def test_a_chunk_is_a_pass():
    calls = []

    def loss(w):
        calls.append(len(dg.primal(w)))
        return np.sum(w**2)

    dg.forward_gradient(loss, directions=7, chunk_size=3)(np.ones(4), key=KEY)
    assert len(calls) == 3
    calls.clear()
    dg.forward_gradient(loss, directions=7)(np.ones(4), key=KEY)
    assert len(calls) == 1


@pytest.mark.parametrize("structure", ["dense", "rank1"])
def test_clip_bounds_each_derivative(structure):
    params = tree_params()
    options = {"structure": structure, "directions": 6, "with_info": True}
    free = dg.forward_gradient(tree_loss, **options)(params, key=KEY)[2]
    bound = float(np.median(np.abs(free.derivatives)))
    _, gradient, info = dg.forward_gradient(tree_loss, clip=bound, **options)(params, key=KEY)
    clipped = np.clip(free.derivatives, -bound, bound)
    assert np.any(clipped != free.derivatives)
    np.testing.assert_array_equal(info.derivatives, clipped)
    expected = columns(free.directions) @ clipped / 6
    np.testing.assert_allclose(flat(gradient), expected, rtol=1e-10, atol=1e-12)


def test_clip_bounds_the_derivative_of_each_example_under_activity_perturbation():
    params = tree_params()
    fg = dg.forward_gradient(
        site_loss, perturb="activations", clip=0.1, directions=2, with_info=True
    )
    info = fg(params, key=KEY)[2]
    assert info.derivatives.shape == (2, 5)
    assert np.max(np.abs(info.derivatives)) == 0.1
    assert info.directions is None


def test_an_example_loss_is_its_mean():
    w = normal(6, 3)
    each = dg.forward_gradient(lambda w: (X @ w) ** 2, directions=3, with_info=True)
    mean = dg.forward_gradient(lambda w: np.mean((X @ w) ** 2), directions=3, with_info=True)
    (a, g, info), (b, h, mean_info) = each(w, key=KEY), mean(w, key=KEY)
    assert a == b and info.derivatives.shape == (3,)
    np.testing.assert_allclose(info.derivatives, mean_info.derivatives, rtol=1e-12)
    np.testing.assert_allclose(g, h, rtol=1e-12)


def test_a_linear_gradient_has_the_rank_of_the_batch_and_an_unused_leaf_an_exact_zero():
    params = tree_params()
    fg = dg.forward_gradient(
        lambda p: np.sum(dg.nn.linear(X, p["w"]) ** 2, axis=1), perturb="activations", directions=4
    )
    gradient = fg(params, key=KEY)[1]
    assert isinstance(gradient["w"], dg.LowRank) and gradient["w"].left.shape == (5, 3)
    np.testing.assert_array_equal(gradient["w"].left, X.T.T)
    for name in ("b", "s"):
        np.testing.assert_array_equal(gradient[name], np.zeros_like(params[name]), strict=True)


def test_directions_of_ordinary_leaves_share_the_pass_with_sites():
    calls = []

    def loss(p):
        calls.append(None)
        return np.sum(dg.nn.linear(X, p["w"]) * p["b"], axis=1)

    gradient = dg.forward_gradient(loss, perturb="activations")(tree_params(), key=KEY)[1]
    assert len(calls) == 1 and np.all(gradient["b"] != 0)


# --- guesses


def test_a_guess_is_one_direction():
    params, guess = tree_params(), tree_params()
    exact, v = flat(dg.gradient(tree_loss)(params)), flat(guess)
    value, gradient = dg.forward_gradient(tree_loss, guess=guess)(params, key=KEY)
    np.testing.assert_allclose(flat(gradient), (exact @ v) * v, rtol=1e-10)
    fg = dg.forward_gradient(tree_loss, guess=guess, combine="projection")
    np.testing.assert_allclose(flat(fg(params, key=KEY)[1]), (exact @ v) / (v @ v) * v, rtol=1e-10)
    np.testing.assert_array_equal(flat(guess), v)


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_a_list_of_guesses_is_as_many_directions(chunk_size):
    w = [normal(7, 2, 3), normal(8, 3)]  # params that are a list themselves
    guesses = [[normal(9, 2, 3), normal(10, 3)], [normal(11, 2, 3), normal(12, 3)]]
    fg = dg.forward_gradient(
        lambda p: np.sum(np.sin(p[0]) * p[1]), guess=guesses, chunk_size=chunk_size, with_info=True
    )
    _, gradient, info = fg(w, key=KEY)
    exact = np.concatenate([np.ravel(np.cos(w[0]) * w[1]), np.sum(np.sin(w[0]), axis=0)])
    b = np.stack([flat(g) for g in guesses], axis=1)
    np.testing.assert_allclose(flat(gradient), b @ (b.T @ exact) / 2, rtol=1e-10)
    np.testing.assert_array_equal(columns(info.directions), b)


def test_a_guess_may_be_computed_from_the_arguments_and_a_key():
    seen = []

    def guess(w, x, *, key):
        seen.append(key)
        return x * w

    fg = dg.forward_gradient(lambda w, x: np.sum(w * x), guess=guess)
    w, x = normal(13, 4), normal(14, 4)
    np.testing.assert_allclose(fg(w, x, key=KEY)[1], (x @ (x * w)) * (x * w), rtol=1e-12)
    fg(w, x, key=KEY)
    assert seen[0] == seen[1] and seen[0] not in (KEY, KEY.fold_in("directions"))


# --- arguments, keys, dtypes


def test_arguments_chosen_by_number_get_gradients_in_a_tuple():
    a, b, c = normal(15, 3), normal(16, 3), normal(17, 3)

    def loss(a, b, c):
        return np.sum(a * b * c)

    _, (ga, gc), info = dg.forward_gradient(loss, argnums=(0, 2), with_info=True)(a, b, c, key=KEY)
    va, vc = (v[0] for v in info.directions)
    d = (b * c) @ va + (a * b) @ vc
    np.testing.assert_allclose(ga, d * va, rtol=1e-12)
    np.testing.assert_allclose(gc, d * vc, rtol=1e-12)
    assert not np.array_equal(va, vc)  # a leaf's path tells its stream
    last = dg.forward_gradient(loss, argnums=-1)(a, b, c, key=KEY)[1]
    assert last.shape == (3,)


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_aux_comes_back_plain_and_keyword_arguments_reach_the_loss(options):
    loss = loss_of(options)

    def with_aux(p, *, factor):
        return factor * loss(p), {"b": p["b"], "note": "kept"}

    params = tree_params()
    fg = dg.forward_gradient(with_aux, has_aux=True, **options)
    (value, aux), gradient = fg(params, key=KEY, factor=3.0)
    np.testing.assert_allclose(value, 3 * np.mean(loss(params)), rtol=1e-12)
    assert type(aux["b"]) is np.ndarray and aux["note"] == "kept"
    plain = dg.forward_gradient(loss, **options)(params, key=KEY)[1]
    np.testing.assert_allclose(flat(gradient), 3 * flat(plain), rtol=1e-10)


def test_a_loss_that_names_a_key_gets_one_of_its_own():
    seen = []

    def loss(w, key):
        seen.append(key)
        return np.sum(w * dg.random.normal(key, w.shape))

    fg = dg.forward_gradient(loss, directions=4, chunk_size=2)
    fg(np.ones(3), key=KEY)
    assert seen[0] == seen[1]  # every chunk sees the same function
    assert seen[0] not in (KEY, KEY.fold_in("directions"))
    fg(np.ones(3), key=KEY.fold_in(1))
    assert seen[2] != seen[0]


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_a_key_fixes_every_bit(options):
    fg = dg.forward_gradient(loss_of(options), directions=2, **options)
    params = tree_params()
    before = flat(params).copy()
    one, again = fg(params, key=KEY)[1], fg(params, key=KEY)[1]
    assert_same_bits(one, again)
    assert not np.allclose(flat(one), flat(fg(params, key=dg.Key(12))[1]))
    np.testing.assert_array_equal(flat(params), before)  # nothing is written into


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_value_gradient_and_derivatives_keep_the_dtype(options, k, dtype):
    x = X.astype(dtype)

    def loss(p):
        each = np.sum(np.tanh(dg.nn.linear(x, p["w"], p["b"])), axis=1) + np.sum(p["s"] ** 2)
        return each if options.get("perturb") == "activations" else np.mean(each)

    params = dg.tree.map(lambda w: w.astype(dtype), tree_params())
    fg = dg.forward_gradient(loss, directions=k, with_info=True, **options)
    value, gradient, info = fg(params, key=KEY)
    assert value.dtype == info.derivatives.dtype == dtype
    assert {np.asarray(g).dtype for g in dg.tree.leaves(gradient)} == {np.dtype(dtype)}


def test_static_leaves_get_none_and_reach_the_loss():
    params = {"w": normal(18, 3), "n": 2, "index": np.array([2, 0]), "f": np.sin, "name": "net"}

    def loss(p):
        assert p["name"] == "net"
        return np.sum(p["f"](p["w"][p["index"]]) * p["n"])

    gradient = dg.forward_gradient(loss)(params, key=KEY)[1]
    assert [gradient[name] for name in ("n", "index", "f", "name")] == [None] * 4
    assert gradient["w"].shape == (3,)


@pytest.mark.parametrize("w", [3.0, np.float32(3), np.array(3.0)], ids=repr)
@pytest.mark.parametrize("k", [1, 2])
def test_a_number_is_a_parameter(w, k):
    value, gradient = dg.forward_gradient(lambda w: w**2, directions=k)(w, key=KEY)
    assert value == 9 and gradient == 6 and np.shape(gradient) == ()
    assert gradient.dtype == np.asarray(w).dtype


def test_empty_leaves_get_empty_gradients():
    params = {"w": np.ones(2), "none": np.ones((0, 3)), "nothing": np.ones((3, 0))}
    for structure in ("dense", "rank1"):
        fg = dg.forward_gradient(lambda p: np.sum(p["w"] ** 2), structure=structure)
        gradient = fg(params, key=KEY)[1]
        assert gradient["none"].shape == (0, 3) and gradient["nothing"].shape == (3, 0)


def test_parameters_are_read_only_while_the_loss_runs():
    def loss(w):
        w[0] = 1.0
        return np.sum(w)

    with pytest.raises(dg.WriteError, match="copy"):
        dg.forward_gradient(loss)(np.zeros(3), key=KEY)


# --- inside other transforms


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
@pytest.mark.parametrize("k", [1, 2])
def test_an_estimate_has_a_derivative(options, k):
    """At one key the estimate is a smooth function of the parameters."""
    fg = dg.forward_gradient(loss_of(options), directions=k, **options)
    params, direction = tree_params(), dg.tree.map(np.cos, tree_params())
    value, push = dg.jvp(lambda p: fg(p, key=KEY)[1], (params,), (direction,))
    np.testing.assert_allclose(flat(value), flat(fg(params, key=KEY)[1]), rtol=1e-12)
    h = 1e-5
    ends = [
        flat(fg(dg.tree.map(lambda w, v, s=s: w + s * h * v, params, direction), key=KEY)[1])
        for s in (1, -1)
    ]
    difference = (ends[0] - ends[1]) / (2 * h)
    assert np.abs(difference).max() > 1e-2
    np.testing.assert_allclose(flat(push), difference, rtol=1e-5, atol=1e-6)


def test_a_projection_is_differentiated_inside_another_transform():
    fg = dg.forward_gradient(lambda w: np.sum(w**3), directions=2, combine="projection")
    w, v, h = np.array([0.5, 1.0, 1.5]), np.array([1.0, -2.0, 0.5]), 1e-5
    _, push = dg.jvp(lambda w: fg(w, key=KEY)[1], (w,), (v,))
    ends = [fg(w + s * h * v, key=KEY)[1] for s in (1, -1)]
    np.testing.assert_allclose(push, (ends[0] - ends[1]) / (2 * h), rtol=1e-7)


def test_estimates_inside_an_estimate_do_not_confuse_their_directions():
    """d/dw of the inner estimate of d/du (w u^2) at u = 2, one number: exactly 2 u = 4."""
    inner = dg.forward_gradient(lambda u, w: w * u**2)
    outer = dg.forward_gradient(lambda w: inner(2.0, w, key=KEY)[1])
    assert outer(5.0, key=KEY.fold_in(1))[1] == 4.0
