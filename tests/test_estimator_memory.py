"""What an estimate holds at once: ratios of peaks that tracemalloc sees."""

import tracemalloc

import numpy as np

import dualgrad as dg
from dualgrad import nn

KEY = dg.Key(11)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def peak(call):
    """Return the most bytes that a call holds, the least of three."""
    found = []
    for _ in range(3):
        tracemalloc.start()
        call()
        found.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return min(found)


def test_a_chunk_holds_its_own_directions_and_the_estimate():
    """Copies of the parameters: c while the pass runs, and the sum; not the chunks before."""
    net = nn.MLP([128] * 8 + [3], key=KEY)
    x = np.ones((2, 128), np.float32)
    size = sum(w.nbytes for w in dg.tree.parameters(net).values())

    def loss(net, x):
        return np.sum(net(x) ** 2, axis=1)

    for c in (1, 2, 4):
        fg = dg.forward_gradient(loss, directions=8, chunk_size=c)
        fg(net, x, key=KEY)
        copies = peak(lambda fg=fg: fg(net, x, key=KEY)) / size
        assert c < copies < c + 2


def test_chunks_of_noise_take_less_memory_and_keep_the_rank_of_the_batch():
    net, x = nn.MLP([64] * 6 + [3], key=KEY), normal(5, 32, 64).astype(np.float32)

    def loss(net, x):
        return np.sum(net(x) ** 2, axis=1)

    used, found = [], []
    for c in (None, 2):
        fg = dg.forward_gradient(loss, directions=16, chunk_size=c, perturb="activations")
        found.append(fg(net, x, key=KEY)[1])
        used.append(peak(lambda fg=fg: fg(net, x, key=KEY)))
    assert used[1] < used[0] / 1.5
    whole, cut = (g.layers[1].weight for g in found)
    assert len(cut.left) == len(whole.left) == len(x)
    np.testing.assert_allclose(cut.dense(), whole.dense(), rtol=1e-4, atol=1e-6)


def test_chunks_of_a_loss_that_changes_between_them_add_up_all_the_same():
    """The rank is the batch's only where the inputs of a layer are the same; never above full."""
    x, calls = normal(6, 4, 9), []

    def loss(w):
        calls.append(1)
        return np.sum(nn.linear(x * len(calls), w) ** 2, axis=1)

    fg = dg.forward_gradient(loss, directions=2, chunk_size=1, perturb="activations")
    g = fg(np.ones((9, 8)), key=KEY)[1]
    assert len(g.left) == 8
    np.testing.assert_allclose(g.left, np.concatenate([x, 2 * x]))
    assert isinstance(fg(np.ones((9, 7)), key=KEY)[1], np.ndarray)
