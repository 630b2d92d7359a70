"""The papers' laws of forward gradients, against forward_gradient itself.

Unbiasedness: the mean of many estimates against dg.gradient, entry by entry and along it, within
four standard errors of these very samples. Variances: the formulas of Ren et al. 2023 with V and S
written out, first exactly on a case small enough to integrate, then within 5 % by sampling.
Projection: lengths and angles of Fluegel et al. 2024.
"""

import itertools

import numpy as np
import pytest

import dualgrad as dg

KEY = dg.Key(4)
SIGMAS = 4


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def flat(tree):
    return np.concatenate([np.ravel(np.asarray(leaf)) for leaf in dg.tree.leaves(tree)])


def samples(fg, params, count):
    """Return `count` estimates, each with a key of its own: (count, d)."""
    return np.stack([flat(fg(params, key=KEY.fold_in(i))[1]) for i in range(count)])


# --- E[g] is the gradient, for every random estimator


X, LABELS = normal(0, 4, 3), np.array([0, 1, 2, 1])
PARAMS = {"w": normal(1, 3, 5), "b": normal(2, 5), "v": normal(3, 5, 3), "scale": normal(4, 5)}


def entropies(p):
    h = dg.nn.linear(X, p["w"], p["b"], activation="relu")
    logits = dg.nn.linear(np.tanh(h) * p["scale"], p["v"])
    return dg.nn.cross_entropy(logits, LABELS, reduction="none")


ESTIMATORS = {
    f"{perturb}-{structure}-{distribution}": {
        "perturb": perturb, "structure": structure, "distribution": distribution}
    for perturb, structure in (("weights", "dense"), ("weights", "rank1"), ("activations", "dense"))
    for distribution in ("rademacher", "normal")
}  # fmt: skip


@pytest.mark.parametrize("chunk_size", [None, 7])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_mean_estimate_is_unbiased(name, chunk_size):
    fg = dg.forward_gradient(entropies, directions=40, chunk_size=chunk_size, **ESTIMATORS[name])
    drawn = samples(fg, PARAMS, 120 if chunk_size is None else 40)
    exact = flat(dg.gradient(lambda p: np.mean(entropies(p)))(PARAMS))
    error = np.std(drawn, axis=0) / np.sqrt(len(drawn))
    np.testing.assert_array_less(np.abs(np.mean(drawn, axis=0) - exact), SIGMAS * error + 1e-12)
    along = drawn @ exact / (exact @ exact)
    error = np.std(along) / np.sqrt(len(along))
    assert SIGMAS * error < 1 / 3  # an estimate that is wrong by a third would be seen
    assert abs(np.mean(along) - 1) <= SIGMAS * error


# --- variance of weight and activity perturbation, one linear layer


class Layer:
    """Losses <c, x W> of examples (x, c), drawn with equal chances and independently, N a batch.

    The gradient of one example is x c', of the batch their mean. What the formulas call V is the
    variance over examples of an entry of x c', S the square of the entry's mean, each averaged over
    the p q entries: so S is the squared norm of the expected gradient divided by p q.
    """

    def __init__(self, seed, examples, p, q):
        self.x = normal(seed, examples, p) + 1
        self.c = normal(seed + 1, examples, q) + 1  # so that S is not small beside V
        self.p, self.q = p, q
        gradients = np.einsum("ni,nj->nij", self.x, self.c)
        self.mean = np.mean(gradients, axis=0)
        self.v = np.mean(np.var(gradients, axis=0))
        self.s = np.mean(self.mean**2)

    def formula(self, perturb, n):
        """Return the variance of an estimate's entry, averaged over the entries.

        Source: Ren, Kornblith, Liao and Hinton 2023, arXiv 2210.03310, section 3 (one direction
        shared by the batch for weights).
        """
        p, q, v, s = self.p, self.q, self.v, self.s
        if perturb == "activations":
            return (q + 2) / n * v + (q + 1) / n * s
        return (p * q + 2) / n * v + (p * q + 1) * s


def gaussian_nodes(size):
    """Return nodes (m, size) and weights (m,) that integrate Gaussian moments up to the fifth."""
    nodes, weights = np.array([-np.sqrt(3), 0, np.sqrt(3)]), np.array([1, 4, 1]) / 6
    grid = np.array(list(itertools.product(nodes, repeat=size)))
    return grid, np.prod(np.array(list(itertools.product(weights, repeat=size))), axis=1)


def exact_variance(layer, perturb, n):
    """Return what `formula` says, integrated over all batches and Gaussian directions."""
    shape = (n, layer.q) if perturb == "activations" else (layer.p, layer.q)
    nodes, weights = gaussian_nodes(np.prod(shape))
    u = nodes.reshape(-1, *shape)
    batches = list(itertools.product(range(len(layer.x)), repeat=n))
    first, second = np.zeros((layer.p, layer.q)), np.zeros((layer.p, layer.q))
    for batch in batches:
        x, c = layer.x[list(batch)], layer.c[list(batch)]
        if perturb == "activations":
            d = np.einsum("mnj,nj->mn", u, c)
            g = np.einsum("ni,mn,mnj->mij", x, d, u) / n
        else:
            g = np.einsum("mij,ni,nj->m", u, x, c)[:, None, None] / n * u
        first += np.einsum("m,mij->ij", weights, g) / len(batches)
        second += np.einsum("m,mij->ij", weights, g**2) / len(batches)
    np.testing.assert_allclose(first, layer.mean, rtol=1e-12)
    return np.mean(second - first**2)


@pytest.mark.parametrize("perturb", ["weights", "activations"])
@pytest.mark.parametrize("n", [1, 2])
def test_the_variance_formula_is_exact(perturb, n):
    layer = Layer(10, 3, 2, 2)
    assert exact_variance(layer, perturb, n) == pytest.approx(layer.formula(perturb, n), rel=1e-12)


def losses(w, x, c):
    return np.sum(dg.nn.linear(x, w) * c, axis=1)


def assert_variance(squares, layer, perturb, n):
    """Assert the formula within 5 %, four standard errors of independent squares."""
    assert np.mean(squares) == pytest.approx(layer.formula(perturb, n), rel=0.05)
    assert SIGMAS * np.std(squares) / np.sqrt(len(squares)) < 0.06 * np.mean(squares)


def test_variance_of_weight_perturbation():
    """Every batch of three out of five examples, each with 800 directions."""
    layer, n, k = Layer(10, 5, 3, 4), 3, 800
    fg = dg.forward_gradient(losses, distribution="normal", directions=k, with_info=True)
    squares = []
    for i, batch in enumerate(itertools.product(range(5), repeat=n)):
        x, c = layer.x[list(batch)], layer.c[list(batch)]
        _, _, info = fg(normal(12, 3, 4), x, c, key=KEY.fold_in(i))
        estimates = info.derivatives[:, None, None] * info.directions
        squares.extend(np.mean((estimates - layer.mean) ** 2, axis=(1, 2)))
    assert_variance(squares, layer, "weights", n)


def test_variance_of_activity_perturbation():
    """Random batches of sixteen out of eight examples, each with one noise."""
    layer, n, count = Layer(10, 8, 8, 8), 16, 2500
    fg = dg.forward_gradient(losses, perturb="activations", distribution="normal")
    squares = []
    for i, batch in enumerate(np.random.default_rng(13).integers(8, size=(count, n))):
        g = fg(normal(12, 8, 8), layer.x[batch], layer.c[batch], key=KEY.fold_in(i))[1]
        squares.append(np.mean((np.asarray(g) - layer.mean) ** 2))
    assert_variance(squares, layer, "activations", n)


# --- projection on the span of the directions (FROG)


D = 400
G = normal(20, D)


def projections(combine, k, count=200):
    fg = dg.forward_gradient(lambda w: G @ w, directions=k, distribution="normal", combine=combine)
    return samples(fg, np.zeros(D), count)


@pytest.mark.parametrize("k", [1, 4, 16])
def test_angle_and_length_of_the_projection(k):
    """|P G| = cos |G|, and cos^2 is k / d on average, so that both are about sqrt(k / d)."""
    drawn = projections("projection", k)
    lengths = np.linalg.norm(drawn, axis=1) / np.linalg.norm(G)
    cosines = drawn @ G / (np.linalg.norm(drawn, axis=1) * np.linalg.norm(G))
    np.testing.assert_allclose(lengths, cosines, rtol=1e-9)
    error = np.std(cosines**2) / np.sqrt(len(cosines))
    assert SIGMAS * error < 0.5 * k / D
    assert abs(np.mean(cosines**2) - k / D) <= SIGMAS * error
    if k > 1:  # one direction's cosine scatters about zero
        assert np.mean(cosines) == pytest.approx(np.sqrt(k / D), rel=0.1)


@pytest.mark.parametrize("k", [1, 4, 16])
def test_length_of_the_mean(k):
    squares = np.sum(projections("mean", k) ** 2, axis=1) / (G @ G)
    expected = 1 + (D + 1) / k
    error = np.std(squares) / np.sqrt(len(squares))
    assert SIGMAS * error < 0.5 * expected
    assert abs(np.mean(squares) - expected) <= SIGMAS * error
    if k > 1:
        assert np.mean(np.sqrt(squares)) == pytest.approx(np.sqrt(expected), rel=0.1)


def test_mean_and_projection_have_nearly_one_angle():
    """k directions in so many dimensions are nearly orthogonal: what differs is the length."""
    for mean, projection in zip(projections("mean", 16, 20), projections("projection", 16, 20),
                                strict=True):  # fmt: skip
        cosine = mean @ projection / (np.linalg.norm(mean) * np.linalg.norm(projection))
        assert cosine > 0.95
        assert np.linalg.norm(mean) / np.linalg.norm(projection) == pytest.approx(D / 16, rel=0.3)
