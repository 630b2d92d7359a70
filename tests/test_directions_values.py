"""Directions as values: their laws, exactly or within four standard errors, and how they compose.

Every law is checked for two leaves together, so that what holds for the whole tree is told from
what holds for each leaf.
"""

import dataclasses
import itertools
import tracemalloc

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.directions import Directions, Target, check

KEY = dg.Key(11)
PARAMS = {"a": np.zeros((2, 2)), "b": np.zeros(3), "steps": 3}
D = 7
SIGMAS = 4
FAMILIES = [dg.directions.rademacher, dg.directions.normal, dg.directions.orthogonal,
            dg.directions.basis]  # fmt: skip


def rows(drawn, k):
    """Return k directions of a tree as a matrix (k, d)."""
    leaves = [leaf for leaf in dg.tree.leaves(drawn) if leaf is not None]
    leaves = [leaf.dense() if hasattr(leaf, "left") else leaf for leaf in leaves]
    return np.concatenate([np.reshape(leaf, (k, -1)) for leaf in leaves], axis=1)


def draws(value, k, count, params=PARAMS, **options):
    """Return `count` independent draws of k directions: (count, k, d)."""
    options["distribution"] = value
    if value in (dg.directions.rademacher, dg.directions.normal):  # all directions are independent
        drawn = dg.directions.draw(KEY, params, k * count, **options)
        return rows(drawn, k * count).reshape(count, k, -1)
    keys = (KEY.fold_in(i) for i in range(count))
    return np.stack([rows(dg.directions.draw(key, params, k, **options), k) for key in keys])


def means(v, g):
    """Return the mean estimates of the gradient g, one for each draw of v: (count, d)."""
    return np.einsum("nk,nkd->nd", v @ g, v) / v.shape[1]


def assert_mean(samples, expected, *, within):
    """Assert that a mean is as expected within four standard errors, which are small enough."""
    error = SIGMAS * np.std(samples, axis=0) / np.sqrt(len(samples)) + 1e-12
    assert np.max(error) < within
    np.testing.assert_array_less(np.abs(np.mean(samples, axis=0) - expected), error)


# --- the families


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("value", FAMILIES, ids=str)
def test_each_direction_has_unit_covariance(value, k):
    """E[v v'] = I, direction by direction, which is what makes the mean estimate unbiased."""
    v = draws(value, k, 1500)
    for i in range(k):
        assert_mean(v[:, i, :, None] * v[:, i, None, :], np.eye(D), within=0.6)


def test_the_named_families_are_the_names():
    for name in ("rademacher", "normal"):
        for structure in ("dense", "rank1"):
            options = {"structure": structure}
            value = getattr(dg.directions, name)
            by_name = dg.directions.draw(KEY, PARAMS, (2, 5), distribution=name, **options)
            by_value = dg.directions.draw(KEY, PARAMS, (2, 5), distribution=value, **options)
            np.testing.assert_array_equal(rows(by_name, 3), rows(by_value, 3), strict=True)


@pytest.mark.parametrize("k", [1, 4, D])
@pytest.mark.parametrize("value", [dg.directions.orthogonal, dg.directions.basis], ids=str)
def test_joint_directions_are_orthogonal_over_all_leaves(value, k):
    for v in draws(value, k, 50):
        np.testing.assert_allclose(v @ v.T, D * np.eye(k), rtol=0, atol=1e-12 * D)


def test_orthogonality_survives_many_directions():
    d = 200  # as many directions as numbers: the normals they are made of are ill-conditioned
    v = rows(dg.directions.draw(KEY, np.zeros(d), d, distribution=dg.directions.orthogonal), d)
    np.testing.assert_allclose(v @ v.T / d, np.eye(d), rtol=0, atol=1e-12)


def test_orthogonal_directions_keep_the_dtype_and_favour_no_axis():
    """The fourth moment of a uniform direction's entry is 3 d / (d + 2); of an axis' it is d."""
    params = [np.zeros((2, 3), np.float32), np.zeros(2)]
    drawn = dg.directions.draw(KEY, params, 2, distribution=dg.directions.orthogonal)
    assert [leaf.dtype for leaf in drawn] == [np.float32, np.float64]
    v = draws(dg.directions.orthogonal, 2, 1500)
    for i in range(2):
        assert_mean(v[:, i] ** 4, 3 * D / (D + 2), within=0.6)
    signs = np.sign(v[:, :, 0])  # a decomposition without its sign fix would give one sign alone
    assert_mean(signs, 0, within=0.15)


def test_basis_directions_are_axes_each_set_as_likely():
    v = draws(dg.directions.basis, 2, 2100)
    axes = np.argmax(v, axis=2)
    np.testing.assert_array_equal(np.sort(v.reshape(-1, D))[:, :-1], 0)
    np.testing.assert_allclose(np.max(v, axis=2), np.sqrt(D), rtol=1e-15)
    pairs = np.zeros((D, D))
    np.add.at(pairs, (axes[:, 0], axes[:, 1]), 1)
    np.testing.assert_array_equal(np.diag(pairs), 0)
    expected = 2100 / (D * (D - 1))
    off = pairs[~np.eye(D, dtype=bool)]
    assert np.all(np.abs(off - expected) < SIGMAS * np.sqrt(expected))


def test_all_axes_give_the_gradient():
    g = np.random.default_rng(0).normal(size=D)
    np.testing.assert_allclose(means(draws(dg.directions.basis, D, 3), g), [g] * 3, rtol=1e-13)
    np.testing.assert_allclose(means(draws(dg.directions.orthogonal, D, 3), g), [g] * 3, rtol=1e-11)


@pytest.mark.parametrize("value", FAMILIES, ids=str)
def test_a_range_of_directions_is_a_slice(value):
    whole = rows(dg.directions.draw(KEY, PARAMS, 6, distribution=value), 6)
    part = rows(dg.directions.draw(KEY, PARAMS, (2, 5), distribution=value), 3)
    np.testing.assert_allclose(part, whole[2:5], rtol=1e-13)
    other = rows(dg.directions.draw(dg.Key(12), PARAMS, 6, distribution=value), 6)
    assert not np.allclose(whole, other)


# --- second moments and scales


G = np.random.default_rng(1).normal(size=D)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("value", FAMILIES, ids=str)
def test_second_moment_of_the_mean_estimate(value, k):
    squares = np.sum(means(draws(value, k, 1500), G) ** 2, axis=1) / (G @ G)
    expected = {"rademacher": 1 + (D - 1) / k, "normal": 1 + (D + 1) / k, "orthogonal": D / k,
                "basis": D / k}[value.name]  # fmt: skip
    assert dg.directions.second_moment(PARAMS, k, distribution=value) == pytest.approx(expected)
    assert_mean(squares, expected, within=0.25 * expected)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_second_moment_of_axes_by_enumeration(k):
    axes = np.sqrt(D) * np.eye(D)
    chosen = np.array([axes[list(set_)] for set_ in itertools.combinations(range(D), k)])
    squares = np.sum(means(chosen, G) ** 2, axis=1) / (G @ G)
    found = dg.directions.second_moment(PARAMS, k, distribution=dg.directions.basis)
    assert np.mean(squares) == pytest.approx(found, rel=1e-12)


def test_second_moment_of_signs_by_enumeration():
    signs = np.array(list(itertools.product([1.0, -1.0], repeat=D)))[:, None]
    squares = np.sum(means(signs, G) ** 2, axis=1) / (G @ G)
    assert dg.directions.second_moment(PARAMS) == pytest.approx(np.mean(squares), rel=1e-12)


@pytest.mark.parametrize("k", [1, 2])
def test_second_moment_of_rank_one_normals_weighs_the_leaves(k):
    """Over gradients with independent entries: the mean over G of E |g|^2 / E |G|^2."""
    params = [np.zeros((2, 3)), np.zeros((3, 1)), np.zeros(2)]
    d = 11
    v = draws(dg.directions.normal, k, 20_000, params, structure="rank1")
    gradients = np.random.default_rng(2).normal(size=(len(v), d))
    estimates = np.einsum("nkd,ne,nke->nd", v, gradients, v) / k
    single = d + (6 * (2 * 2 + 2 * 3 + 4) + 3 * (2 * 3 + 2 * 1 + 4) + 2 * 2) / d
    found = dg.directions.second_moment(params, k, distribution="normal", structure="rank1")
    assert found == pytest.approx(1 + (single - 1) / k)
    assert_mean(np.sum(estimates**2, axis=1) / d, found, within=0.15 * found)
    one = dg.directions.second_moment(np.zeros((4, 5)), distribution="normal", structure="rank1")
    assert one == pytest.approx(6 * 7)


def test_second_moment_of_a_sum():
    value = 2 * dg.directions.rademacher + dg.directions.normal + 3 * dg.directions.orthogonal
    samples = np.stack([
        rows(dg.directions.draw(KEY.fold_in(i), PARAMS, distribution=value), 6)
        for i in range(800)
    ])  # fmt: skip
    estimates = means(samples, G)
    assert_mean(estimates, G, within=0.5)
    expected = 1 + (4 * (D - 1) / 2 + (D + 1) + 9 * (D / 3 - 1)) / 36
    found = dg.directions.second_moment(PARAMS, distribution=value)
    assert found == pytest.approx(expected)
    assert_mean(np.sum(estimates**2, axis=1) / (G @ G), expected, within=0.2 * expected)


@pytest.mark.parametrize("value", FAMILIES, ids=str)
def test_the_optimal_scale_leaves_the_least_error(value):
    c = dg.directions.optimal_scale(PARAMS, 2, distribution=value)
    estimates = means(draws(value, 2, 1500), G)

    def error(scale):
        return np.sum((scale * estimates - G) ** 2, axis=1) / (G @ G)

    assert_mean(error(c), 1 - c, within=0.1)
    best = np.sum(estimates @ G) / np.sum(estimates**2)  # of these samples, by least squares
    assert best == pytest.approx(c, rel=0.06)


@pytest.mark.parametrize("k, structure", [(1, "dense"), (5, "dense"), (1, "rank1"), (5, "rank1")])
def test_the_estimated_scale_projects_the_gradient_on_the_estimate(k, structure):
    rng = np.random.default_rng(3)
    params = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}
    exact = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}
    fg = dg.forward_gradient(
        lambda p: np.sum(exact["w"] * p["w"]) + np.sum(exact["b"] * p["b"]),
        directions=k, structure=structure, distribution="normal", with_info=True,
    )  # fmt: skip
    _, g, info = fg(params, key=KEY)
    flat, true = (np.concatenate([np.ravel(t[name]) for name in "wb"]) for t in (g, exact))
    c = dg.directions.estimated_scale(info.derivatives, g)
    assert c == pytest.approx((flat @ true) / (flat @ flat), rel=1e-10)


def test_a_gradient_of_zero_has_the_scale_zero():
    assert dg.directions.estimated_scale(np.zeros(2), [np.zeros(3), None]) == 0


# --- guesses and sums


def fixed(*guesses, **options):
    return dg.directions.draw(KEY, PARAMS, distribution=dg.directions.guess(*guesses), **options)


def like_params(value):
    return {"a": np.full((2, 2), value), "b": np.full(3, value + 1), "steps": None}


def test_a_guess_is_the_direction_it_is_given():
    one = fixed({**like_params(2.0), "steps": 3})
    np.testing.assert_array_equal(rows(one, 1), [[2.0] * 4 + [3.0] * 3])
    assert one["steps"] is None
    several = fixed([like_params(float(i)) for i in range(3)])
    np.testing.assert_array_equal(several["b"][:, 0], [1, 2, 3])
    part = fixed([like_params(float(i)) for i in range(3)], directions=(1, 3))
    np.testing.assert_array_equal(part["b"][:, 0], [2, 3])


def test_a_guess_may_be_computed_and_sees_params_and_a_key_of_its_own():
    seen = []

    def compute(params, *, key):
        seen.append((params, key))
        return like_params(5.0)

    drawn = fixed(compute)
    np.testing.assert_array_equal(drawn["a"], np.full((1, 2, 2), 5.0))
    assert seen[0][0] is PARAMS and seen[0][1] != KEY and len(seen) == 1


def test_a_list_that_is_like_params_is_one_guess():
    params, guess = [np.zeros(2), np.zeros(2)], [np.ones(2), np.full(2, 2.0)]
    drawn = dg.directions.draw(KEY, params, distribution=dg.directions.guess(guess))
    assert [v.shape for v in drawn] == [(1, 2), (1, 2)]


def test_a_model_as_guess_is_a_tree_though_it_can_be_called():
    layer = dg.nn.Linear(2, 3, key=KEY)
    drawn = dg.directions.draw(KEY, layer, distribution=dg.directions.guess(layer))
    np.testing.assert_array_equal(drawn.weight[0], layer.weight)


def test_a_factored_gradient_is_a_guess():
    w = np.zeros((3, 4))
    _, g = dg.forward_gradient(np.sum, structure="rank1")(w, key=KEY)
    drawn = dg.directions.draw(KEY, w, distribution=dg.directions.guess(g))
    np.testing.assert_array_equal(drawn[0], g.dense())


def test_a_sum_has_the_directions_of_each_part_in_turn():
    a, b = 2 * dg.directions.rademacher, dg.directions.guess([like_params(8.0), like_params(9.0)])
    value = a + b + dg.directions.basis
    v = rows(dg.directions.draw(KEY, PARAMS, distribution=value), 5)
    np.testing.assert_array_equal(np.abs(v[:2]), 1)
    np.testing.assert_array_equal(v[2:4, 0], [8, 9])
    assert np.count_nonzero(v[4]) == 1
    for part in ((0, 1), (1, 4), (3, 5)):  # inside a part, across parts, to the end
        some = rows(dg.directions.draw(KEY, PARAMS, part, distribution=value), part[1] - part[0])
        np.testing.assert_array_equal(some, v[slice(*part)])


def test_equal_parts_of_a_sum_draw_different_directions():
    v = rows(dg.directions.draw(KEY, np.zeros(64), distribution=sum_of_two()), 2)
    assert 0.2 < np.mean(v[0] == v[1]) < 0.8  # 64 signs: nearly five standard deviations


def sum_of_two():
    return dg.directions.rademacher + dg.directions.rademacher


def test_values_are_small_constants():
    three = 3 * dg.directions.normal
    assert three == np.int64(3) * dg.directions.normal and hash(three) == hash(three)
    assert 2 * three == 6 * dg.directions.normal and dg.directions.normal.number is None
    guess = dg.directions.guess(like_params)
    assert repr(guess + three + dg.directions.basis) == "guess(...) + 3 * normal + basis"
    assert (guess + three) + guess == guess + (three + guess)
    with pytest.raises(dataclasses.FrozenInstanceError):
        three.number = 4


def test_what_an_estimator_calls():
    """`check` once, then `prepare` for each estimate: as in draw, without the tree."""
    value = check(dg.directions.guess(lambda w, x, key: w + x) + dg.directions.normal)
    assert isinstance(value, Directions) and check("normal") == dg.directions.normal
    w, x = np.ones(3), np.arange(3.0)
    k, draw = value.prepare(Target(KEY, [("", w)], "dense", w, (w, x)), 1)
    assert k == 2
    (first,), (second,) = draw((0, 1)), draw((0, 2))
    np.testing.assert_array_equal(first, [w + x])
    np.testing.assert_array_equal(second[:1], first)
    assert first is not draw((0, 1))[0] and not np.shares_memory(first, w)


def test_orthogonal_directions_are_made_in_one_array_of_float64():
    """k d numbers of 8 bytes and the k d that are returned, of 4 here; no third array."""
    params = [np.zeros((50, 100), np.float32) for _ in range(10)]
    value, d = 4 * dg.directions.orthogonal, 50_000
    dg.directions.draw(KEY, params, distribution=value)
    tracemalloc.start()
    dg.directions.draw(KEY, params, distribution=value)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 4 * d * 8 < used < 4 * d * (8 + 4) * 1.2


# --- errors


@pytest.mark.parametrize("params, options, error, said", [
    (np.zeros(3), {"distribution": 3}, dg.OptionError, "distribution=3 does not exist"),
    (np.zeros(3), {"distribution": dg.directions.basis, "directions": 4}, dg.OptionError,
     "4 basis directions of 3"),
    (np.zeros(3), {"distribution": 4 * dg.directions.orthogonal}, dg.OptionError,
     "4 orthogonal directions of 3"),
    (np.zeros(3), {"distribution": 2 * dg.directions.normal, "directions": 3}, dg.OptionError,
     "directions=3 and distribution=2 * normal both say"),
    (np.zeros(3), {"distribution": 2 * dg.directions.normal, "directions": (0, 3)}, dg.OptionError,
     "there are 2 of 2 * normal"),
    (np.zeros((3, 3)), {"distribution": dg.directions.orthogonal, "structure": "rank1"},
     dg.OptionError, 'structure="rank1" goes with'),
    (np.zeros((3, 3)), {"distribution": sum_of_two(), "structure": "rank1"},
     dg.OptionError, 'structure="rank1" goes with'),
    (np.zeros(3), {"distribution": dg.directions.guess([])}, dg.OptionError, "guess=[]"),
    (np.zeros(3), {"distribution": dg.directions.guess(np.zeros(4))}, dg.ShapeError,
     "the guess (4,)"),
    (np.zeros(()), {"distribution": dg.directions.guess(None)}, dg.ShapeError, "the guess None"),
    (np.zeros(3), {"distribution": dg.directions.guess({"w": np.zeros(3)})}, dg.StructureError,
     "a guess and params"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(params, options, error, said):
    with pytest.raises(error) as caught:
        dg.directions.draw(KEY, params, **options)
    assert said in str(caught.value)


def test_only_random_families_are_repeated_and_values_alone_are_added():
    with pytest.raises(dg.OptionError, match=r"2 \* \(guess"):
        2 * dg.directions.guess(np.zeros(3))
    with pytest.raises(dg.OptionError, match="rademacher"):
        2 * sum_of_two()
    with pytest.raises(dg.OptionError, match="its multiple is 0"):
        0 * dg.directions.basis
    assert dg.directions.normal * 3 == 3 * dg.directions.normal
    a, b = dg.directions.normal, dg.directions.basis
    for wrong in (
        lambda: b + "normal", lambda: -a, lambda: a / 2, lambda: a - b, lambda: sum([a, b]),
        lambda: -(a + b),
    ):  # fmt: skip
        with pytest.raises(dg.OptionError, match="family of directions, not an array"):
            wrong()


def test_the_messages_name_the_value_that_is_meant():
    for name in ("orthogonal", "basis", "guess"):
        with pytest.raises(dg.OptionError, match=rf"Give the value dg\.directions\.{name}"):
            check(name)
    with pytest.raises(dg.OptionError, match="a sum has the numbers of its parts"):
        check(dg.directions.normal + dg.directions.basis, 3)


def test_scales_refuse_what_they_cannot_know():
    with pytest.raises(dg.OptionError, match="second moment of a guess"):
        dg.directions.optimal_scale(np.zeros(3), distribution=dg.directions.guess(np.zeros(3)))
    with pytest.raises(dg.OptionError, match="5 basis directions of 3"):
        dg.directions.optimal_scale(np.zeros(3), 5, distribution=dg.directions.basis)
    with pytest.raises(dg.ShapeError, match=r"\(2, 3\)"):
        dg.directions.estimated_scale(np.zeros((2, 3)), np.zeros(3))
