"""The laws of forward gradients: their means, second moments and variances, within four sigma.

Every sigma is the standard error of the very samples that are averaged, and each test of a mean
also asserts that its sigma is small enough to notice an estimate that is wrong by a third.
"""

import numpy as np
import pytest

import dualgrad as dg

KEY = dg.Key(2024)
SIGMAS = 4


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def flat(gradient):
    """Return the entries of all floating leaves as one vector."""
    return np.concatenate(
        [np.ravel(np.asarray(g)) for g in dg.tree.leaves(gradient) if g is not None]
    )


def central_differences(loss, params, h=1e-5):
    """Return the gradient of the mean loss, one entry of params at a time."""
    leaves, structure = dg.tree.flatten(params)
    entries = []
    for leaf in leaves:
        for i in np.ndindex(leaf.shape):
            kept = leaf[i]
            values = []
            for shifted in (kept + h, kept - h):
                leaf[i] = shifted
                values.append(np.mean(loss(dg.tree.unflatten(structure, leaves))))
            leaf[i] = kept
            entries.append((values[0] - values[1]) / (2 * h))
    return np.array(entries)


def samples(fg, params, count):
    return np.array([flat(fg(params, key=KEY.fold_in(i))[1]) for i in range(count)])


def assert_mean(drawn, expected):
    """Assert that the mean of the rows is `expected`, entry by entry and along it."""
    error = np.std(drawn, axis=0) / np.sqrt(len(drawn))
    np.testing.assert_array_less(np.abs(drawn.mean(0) - expected), SIGMAS * error + 1e-7)
    along = drawn @ expected / (expected @ expected)
    error = np.std(along) / np.sqrt(len(along))
    assert SIGMAS * error < 1 / 3
    assert abs(np.mean(along) - 1) <= SIGMAS * error + 1e-7


# --- E[g] is the gradient


X = normal(0, 5, 3)
IMAGES = normal(1, 4, 5, 5, 2)
LABELS = np.array([0, 1, 2, 0, 1])


def entropies(logits):
    return dg.nn.cross_entropy(logits, LABELS[: len(logits)], reduction="none")


def mlp(activation):
    params = {"w": normal(2, 3, 4), "b": normal(3, 4), "v": normal(4, 4, 3), "c": normal(5, 3)}

    def loss(p):
        h = dg.nn.linear(X, p["w"], p["b"], activation=activation)
        return entropies(dg.nn.linear(h, p["v"], p["c"]))

    return loss, params


def convolution(activation, **window):
    params = [normal(6, 2, 2, 2 // window.get("groups", 1), 2) / 2, normal(7, 2)]
    shape = dg.nn.conv2d(IMAGES, params[0], **window).shape
    params.append(normal(8, int(np.prod(shape[1:])), 3) / 3)

    def loss(p):
        h = dg.nn.conv2d(IMAGES, p[0], b=p[1], activation=activation, **window)
        return entropies(dg.nn.linear(h.reshape(len(h), -1), p[2]))

    return loss, params


def tied():
    w = normal(9, 3, 3)
    return lambda p: entropies(dg.nn.linear(dg.nn.linear(X, p, activation="tanh"), p)), w


def tied_transposed():
    """A weight at a site, then as its transpose: an ordinary operation on it."""
    w = normal(10, 3, 3)
    return lambda p: entropies(dg.nn.linear(dg.nn.linear(X, p, activation="tanh"), p.T)), w


def site_and_penalty():
    w = normal(11, 3, 3)
    return lambda p: entropies(dg.nn.linear(X, p)) + 0.3 * np.sum(p**2), w


def beside_sites():
    params = {"scale": normal(12, 4), "shift": normal(13, 4), "w": normal(14, 3, 4)}
    params["v"] = normal(15, 4, 3)

    def loss(p):
        h = np.tanh(dg.nn.linear(X, p["w"])) * p["scale"] + p["shift"]
        return entropies(dg.nn.linear(h, p["v"]))

    return loss, params


def bias_alone():
    w = normal(16, 3, 3)
    return lambda b: entropies(dg.nn.linear(X, w, b)), normal(17, 3)


def weight_made_of_a_parameter():
    params = (normal(18, 3, 3), normal(19, 3))
    return lambda p: entropies(dg.nn.linear(X, np.tanh(p[0]), p[1])), params


def tokens():
    """A site whose results have an axis between examples and units."""
    x = normal(20, 5, 4, 3)
    params = [3 * normal(21, 3, 2), normal(22, 2), 3 * normal(23, 2, 3)]

    def loss(p):
        h = dg.nn.linear(x, p[0], p[1], activation="gelu")
        return entropies(dg.nn.linear(np.mean(h, axis=1), p[2]))

    return loss, params


def layers():
    parts = (
        dg.nn.Conv2d(2, 2, 3, activation="relu", key=KEY, dtype=np.float64),
        dg.nn.GroupNorm(1, 2, dtype=np.float64),
        dg.nn.AvgPool2d(2),
        dg.nn.Flatten(),
        dg.nn.Linear(8, 3, key=KEY, dtype=np.float64),
    )
    return lambda model: entropies(model(IMAGES)), dg.nn.Sequential(*parts)


PROBLEMS = {
    "mlp-relu": lambda: mlp("relu"),
    "mlp-tanh": lambda: mlp("tanh"),
    "conv2d-relu": lambda: convolution("relu", stride=2, padding=1),
    "conv2d-groups": lambda: convolution(None, groups=2, dilation=2),
    "tied": tied,
    "tied-transposed": tied_transposed,
    "site-and-penalty": site_and_penalty,
    "beside-sites": beside_sites,
    "bias-alone": bias_alone,
    "weight-made-of-a-parameter": weight_made_of_a_parameter,
    "tokens": tokens,
    "layers": layers,
}


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_activity_perturbation_is_unbiased(name, distribution):
    loss, params = PROBLEMS[name]()
    fg = dg.forward_gradient(loss, perturb="activations", distribution=distribution, directions=6)
    assert_mean(samples(fg, params, 300), central_differences(loss, params))


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
@pytest.mark.parametrize("structure", ["dense", "rank1"])
@pytest.mark.parametrize("name", ["mlp-tanh", "conv2d-relu", "tied-transposed"])
def test_weight_perturbation_is_unbiased(name, structure, distribution):
    loss, params = PROBLEMS[name]()
    fg = dg.forward_gradient(loss, structure=structure, distribution=distribution, directions=40)
    assert_mean(samples(fg, params, 120), central_differences(loss, params))


@pytest.mark.parametrize("structure", ["dense", "rank1"])
def test_one_direction_and_a_loss_of_one_number_are_unbiased(structure):
    loss, params = tied()
    fg = dg.forward_gradient(lambda p: np.mean(loss(p)), structure=structure)
    assert_mean(samples(fg, params, 3000), central_differences(loss, params))


def test_one_direction_of_activities_is_unbiased():
    loss, params = tied()
    fg = dg.forward_gradient(loss, perturb="activations")
    assert_mean(samples(fg, params, 2000), central_differences(loss, params))


# --- second moments and variances on losses whose gradient is known exactly


M, N_COLUMNS = 5, 3
G = normal(24, M, N_COLUMNS)

MOMENTS = {  # E |g|^2 / |G|^2 for one direction
    ("dense", "normal"): M * N_COLUMNS + 2,
    ("dense", "rademacher"): M * N_COLUMNS,
    ("rank1", "normal"): (M + 2) * (N_COLUMNS + 2),
    ("rank1", "rademacher"): M * N_COLUMNS,
}


def assert_moment(squares, expected):
    error = np.std(squares) / np.sqrt(len(squares))
    assert SIGMAS * error < expected / 4
    assert abs(np.mean(squares) - expected) <= SIGMAS * error


@pytest.mark.parametrize("structure, distribution", MOMENTS)
def test_second_moment_of_one_direction(structure, distribution):
    """The k directions of one pass are as many estimates d_i v_i."""
    fg = dg.forward_gradient(
        lambda w: np.sum(G * w),
        structure=structure,
        distribution=distribution,
        directions=20_000,
        with_info=True,
    )
    value, gradient, info = fg(normal(25, M, N_COLUMNS), key=KEY)
    v = info.directions if structure == "dense" else info.directions.dense()
    estimates = info.derivatives[:, None, None] * v
    np.testing.assert_allclose(np.asarray(gradient), estimates.mean(0), rtol=1e-9, atol=1e-9)
    squares = np.sum(estimates**2, axis=(1, 2)) / np.sum(G**2)
    assert_moment(squares, MOMENTS[structure, distribution])


@pytest.mark.parametrize("structure, distribution", MOMENTS)
def test_k_directions_divide_the_excess_of_the_second_moment_by_k(structure, distribution):
    k = 5
    fg = dg.forward_gradient(
        lambda w: np.sum(G * w), structure=structure, distribution=distribution, directions=k
    )
    drawn = samples(fg, np.zeros_like(G), 3000)
    squares = np.sum(drawn**2, axis=1) / np.sum(G**2)
    assert_moment(squares, 1 + (MOMENTS[structure, distribution] - 1) / k)


@pytest.mark.parametrize("distribution, units", [("normal", 4 + 1), ("rademacher", 4 - 1)])
def test_variance_of_activity_perturbation_at_one_linear_layer(distribution, units):
    """Total variance of g = (1/N) sum_n x_n (c_n . u_n) u_n' for losses <c_n, x_n W>, N examples.

    Entry (i, j) has (1/N^2) sum_n x_ni^2 (|c_n|^2 + c_nj^2) with normal noise, - c_nj^2 with signs;
    the sum over i and j is (q +- 1) / N^2 sum_n |x_n|^2 |c_n|^2. Over random data the first becomes
    (q + 2) V / N + (q + 1) S / N, section 3 of Ren et al. 2023. Noise that examples share would add
    cross terms.
    """
    x, c = normal(26, 6, 3), normal(27, 6, 4)
    fg = dg.forward_gradient(
        lambda w: np.sum(dg.nn.linear(x, w) * c, axis=1),
        perturb="activations",
        distribution=distribution,
    )
    drawn = samples(fg, normal(28, 3, 4), 2000)
    exact = np.ravel(x.T @ c) / 6
    assert_mean(drawn, exact)
    expected = units * np.sum(np.sum(x**2, axis=1) * np.sum(c**2, axis=1)) / 36
    assert_moment(np.sum((drawn - exact) ** 2, axis=1), expected)


@pytest.mark.parametrize("rectified", [True, False])
def test_leaving_inactive_units_alone_removes_their_variance(rectified):
    """As above, with signs: q counts the active units, or all of them without the trick."""
    x, c, w = normal(29, 6, 3), normal(30, 6, 4), normal(31, 3, 4)
    active = x @ w > 0

    def loss(w):
        z = dg.nn.linear(x, w, activation="relu" if rectified else None)
        return np.sum((z if rectified else dg.nn.relu(z)) * c, axis=1)

    drawn = samples(dg.forward_gradient(loss, perturb="activations"), w, 1500)
    exact = np.ravel(x.T @ (c * active)) / 6
    assert_mean(drawn, exact)
    c_squares = np.sum((c * active) ** 2, axis=1)
    units = np.sum(active, axis=1) if rectified else np.full(6, 4)
    expected = np.sum(np.sum(x**2, axis=1) * c_squares * (units - 1)) / 36
    assert np.sum(active) < active.size  # else the two cases are one
    squares = np.sum((drawn - exact) ** 2, axis=1)
    error = np.std(squares) / np.sqrt(len(squares))
    assert abs(np.mean(squares) - expected) <= SIGMAS * error


def test_a_unit_that_no_example_activates_gets_an_exact_zero():
    x = np.abs(normal(32, 5, 3))
    w = np.abs(normal(33, 3, 2)) * [1, -1]
    fg = dg.forward_gradient(
        lambda w: np.sum(dg.nn.linear(x, w, activation="relu") ** 2, axis=1), perturb="activations"
    )
    g = np.asarray(fg(w, key=KEY)[1])
    np.testing.assert_array_equal(g[:, 1], 0)
    assert np.all(g[:, 0] != 0)


def test_examples_have_noise_of_their_own():
    """Two equal examples with opposite losses: shared noise would give an exact zero."""
    x, c = np.ones((2, 3)), np.array([[1.0, 2.0], [-1.0, -2.0]])
    fg = dg.forward_gradient(
        lambda w: np.sum(dg.nn.linear(x, w) * c, axis=1),
        perturb="activations",
        distribution="normal",
    )
    gradients = [np.asarray(fg(np.ones((3, 2)), key=KEY.fold_in(i))[1]) for i in range(5)]
    assert all(np.abs(g).max() > 1e-3 for g in gradients)


def test_fewer_units_than_weights_mean_less_variance():
    loss, params = mlp("relu")
    spread = {
        perturb: np.sum(np.var(samples(dg.forward_gradient(loss, perturb=perturb), params, 300), 0))
        for perturb in ("weights", "activations")
    }
    assert spread["activations"] < spread["weights"] / 3


def test_the_best_step_along_an_isotropic_quadratic_contracts_as_the_second_moment_says():
    """|x|^2 / 2 and x <- x - g / (d + 2), normal directions: E |x|^2 falls by (d + 1) / (d + 2)."""
    d = 6
    x = normal(34, d)
    fg = dg.forward_gradient(lambda x: np.sum(x**2) / 2, distribution="normal")
    after = x - samples(fg, x, 3000) / (d + 2)
    ratios = np.sum(after**2, axis=1) / (x @ x)
    error = np.std(ratios) / np.sqrt(len(ratios))
    assert SIGMAS * error < 1 / (d + 2)  # else it could not be told from no progress
    assert abs(np.mean(ratios) - (d + 1) / (d + 2)) <= SIGMAS * error
