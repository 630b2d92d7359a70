"""The stages of a step on a device, each against NumPy and the CPU's words of directions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgrad import Key
from dualgrad.kernels import pool
from dualgrad.kernels.fused import step as stages
from dualgrad.kernels.random import LEFT, MATRIX, RIGHT, VECTOR, cpu
from dualgrad.random import digest

FEW = settings(max_examples=12)
SIZES = st.sampled_from([1, 2, 7, 8, 9, 16, 17, 33, 130])
FLOATS = st.sampled_from([np.float32, np.float64])
RATE, STEP, KEY = 0.25, 2**33 + 5, Key(2**40 + 3)
PATHS = ["w", "layers/0/bias"]


def normal(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def leaf_key(path):
    return KEY.fold_in(STEP).fold_in("directions").fold_in(path).words


def drawn(device, pieces, k, vectors, dtype, normals=False):
    """Draw pieces; return the arrays that stages share."""
    shared = stages.Shared(
        device.zeros((len(PATHS), 2), np.uint32),
        device.zeros(1 + k),
        device.full((vectors,), np.nan, dtype),
    )
    stages.draw_vectors(
        shared, stages.table(pieces, stages.PIECE_FIELDS), digest("directions"), k=k, step=STEP,
        key=tuple(int(word) for word in KEY.words), rate=RATE, normals=normals, largest=vectors,
    )  # fmt: skip
    return shared


@FEW
@given(rows=SIZES, columns=SIZES, k=st.integers(1, 5), normals=st.booleans(), dtype=FLOATS)
def test_vectors_and_keys_are_those_of_the_cpu(device, rows, columns, k, normals, dtype):
    w, b = map(digest, PATHS)
    pieces = [
        stages.piece(0, w, LEFT, rows, 0, (1, k)),  # entries k apart
        stages.piece(0, w, RIGHT, columns, k * rows, (columns, 1)),
        stages.piece(1, b, VECTOR, columns, k * (rows + columns), (columns, 1)),
    ]
    shared = drawn(device, pieces, k, k * (rows + 2 * columns), dtype, normals)
    draw = cpu.normal_vector if normals else cpu.sign_vector
    left = draw(leaf_key("w"), rows, (0, k), LEFT, dtype)
    right = draw(leaf_key("w"), columns, (0, k), RIGHT, dtype)
    vector = draw(leaf_key(PATHS[1]), columns, (0, k), VECTOR, dtype)
    expected = np.concatenate([left.T.ravel(), right.ravel(), vector.ravel()])
    np.testing.assert_array_equal(device.asnumpy(shared.vectors), expected)
    np.testing.assert_array_equal(device.asnumpy(shared.keys), [leaf_key(p) for p in PATHS])
    assert device.asnumpy(shared.numbers)[0] == RATE


@FEW
@given(rows=SIZES, columns=SIZES, k=st.integers(1, 3), dtype=FLOATS)
def test_dense_directions_lie_side_by_side(device, rows, columns, k, dtype):
    shared = drawn(device, [stages.piece(i, digest(PATHS[i])) for i in range(2)], k, 1, dtype)
    d = device.empty((rows, k, columns), dtype)
    stages.draw_matrix(shared, 1, d)
    expected = cpu.sign_matrix(leaf_key(PATHS[1]), rows, columns, (0, k), MATRIX, dtype)
    np.testing.assert_array_equal(device.asnumpy(d), expected.transpose(1, 0, 2))


@FEW
@given(rows=SIZES, inner=SIZES, k=st.sampled_from([1, 3, 4, 5, 16]))
def test_row_dots(device, rows, inner, k):
    x, u = normal(1, rows, inner), normal(2, 3 + k * inner)
    shared = stages.Shared(None, None, device.asarray(u))
    s = device.empty((rows, k), np.float64)
    stages.row_dots(shared, device.asarray(x), 3, s)
    np.testing.assert_allclose(device.asnumpy(s), x @ u[3:].reshape(k, inner).T, atol=1e-12)


def layer(rows, columns, k, kind, moving, biased, rectified):
    """Return what a layer's end takes, as NumPy arrays, and the stack that it gives."""
    y, vectors = normal(1, 1 + k, rows, columns), normal(2, 1 + 2 * k * columns)
    y.reshape(-1)[0] = np.nan
    y[0, -1, -1] = 0
    s = normal(3, rows, k) if kind == "s" else None
    e = normal(4, rows, k, columns) if kind == "e" else None
    bias = normal(5, columns) if biased else None
    right = vectors[1 : 1 + k * columns].reshape(k, 1, columns)
    vector = vectors[1 + k * columns :].reshape(k, 1, columns)
    z = y[0] + (bias if biased else 0)
    t = (y[1:] if moving else 0) + np.zeros((k, rows, columns))
    t += s.T[:, :, None] * right if kind == "s" else e.swapaxes(0, 1) if kind == "e" else 0
    t += vector if biased else 0
    stops = rectified & (z <= 0)
    result = np.concatenate([np.where(stops, 0, z)[None], np.where(stops, 0, t)])
    return (y, vectors, s, e, bias), result


def arguments(device, given, columns, k):
    y, vectors, s, e, bias = (None if x is None else device.asarray(x) for x in given)
    third = stages.Third(s, e, 1, 1 + k * columns)
    return stages.Shared(None, None, vectors), y, third, bias


LAYERS = {"rows": SIZES, "columns": SIZES, "k": st.integers(0, 4), "moving": st.booleans(),
          "kind": st.sampled_from(["s", "e", None]), "biased": st.booleans(),
          "rectified": st.booleans()}  # fmt: skip


@FEW
@given(**LAYERS)
def test_the_end_of_a_layer(device, rows, columns, k, moving, **how):
    if not moving and k:
        how["kind"] = how["kind"] or "s"
    given, expected = layer(rows, columns, k, moving=moving, **how)
    shared, y, third, bias = arguments(device, given, columns, k)
    stages.end_layer(shared, y, third, bias, moving=moving, rectified=how["rectified"])
    np.testing.assert_allclose(device.asnumpy(y), expected, atol=1e-12)


@FEW
@given(n=st.integers(1, 3), height=st.integers(2, 7), width=st.integers(2, 7), **LAYERS)
def test_the_end_of_a_pooled_layer(device, n, height, width, rows, columns, k, moving, **how):
    given, result = layer(n * height * width, columns, k, moving=moving, **how)
    stack = result.reshape(1 + k, n, height, width, columns)
    best, index = pool.cpu.max_pool2d(stack[0], (2, 2))
    expected = np.concatenate([best[None], pool.cpu.max_pool2d_gather(stack[1:], index, (2, 2))])
    shared, y, third, bias = arguments(device, given, columns, k)
    pooled = device.empty(expected.shape, np.float64)
    y = y.reshape(stack.shape)
    stages.end_pooled_layer(
        shared, y, pooled, third, bias, moving=moving, rectified=how["rectified"]
    )
    np.testing.assert_allclose(device.asnumpy(pooled), expected, atol=1e-12)


@pytest.mark.parametrize("examples", [1, 31, 257, 1000])
@pytest.mark.parametrize("clip", [np.inf, 0.01])
def test_the_end_of_a_step(device, examples, clip):
    losses = normal(1, 4, examples)
    losses[3, -1] = np.nan
    numbers = device.asarray(np.array([RATE, 0, 0, 0]))
    loss = device.empty((), np.float64)
    stages.end_step(stages.Shared(None, numbers, None), device.asarray(losses), loss, clip)
    means = losses.mean(1)
    np.testing.assert_allclose(device.asnumpy(loss), means[0], rtol=1e-12)
    expected = RATE * np.clip(means[1:], -clip, clip) / 3
    np.testing.assert_allclose(device.asnumpy(numbers)[1:], expected, rtol=1e-12)


def test_one_launch_updates_leaves_of_all_kinds(device):
    k, shapes = 3, {"w": (9, 40), "layers/0/bias": (300,)}
    dense, bias = (normal(i, *shape) for i, shape in enumerate(shapes.values()))
    for sizes in [(1, 1), (8, 16), (17, 130), (64, 3)]:
        rank1 = normal(4, *sizes)
        keys = device.asarray(np.array([leaf_key("w"), [0, 0], [0, 0]], np.uint32))
        numbers, vectors = normal(5, 1 + k), normal(6, k * (300 + sum(sizes)))
        shared = stages.Shared(keys, device.asarray(numbers), device.asarray(vectors))
        leaves = [device.asarray(x) for x in (dense, bias, rank1)]
        kinds, rows, blocks = (stages.DENSE, stages.VECTOR, stages.RANK1), [], 0
        starts = (0, 0, k * 300)
        for w, kind, start in zip(leaves, kinds, starts, strict=True):
            left = (start, 1, k) if kind == stages.RANK1 else (0, 0, 0)
            right = start + (k * sizes[0] if kind == stages.RANK1 else 0)
            rows.append(stages.leaf_row(w, kind, left, right, blocks))
            blocks += stages.blocks_of(w, kind)
        stages.update(shared, stages.table(rows, stages.LEAF_FIELDS), blocks)
        c = numbers[1:]
        signs = cpu.sign_matrix(leaf_key("w"), 9, 40, (0, k), MATRIX, np.float64)
        lefts = vectors[k * 300 : k * (300 + sizes[0])].reshape(sizes[0], k)
        rights = vectors[k * (300 + sizes[0]) :].reshape(k, sizes[1])
        expected = (
            dense - np.tensordot(c, signs, 1),
            bias - c @ vectors[: k * 300].reshape(k, 300),
            rank1 - (lefts * c) @ rights,
        )
        for w, x in zip(leaves, expected, strict=True):
            np.testing.assert_allclose(device.asnumpy(w), x, atol=1e-12)
