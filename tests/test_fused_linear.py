"""Draws bit for bit against `Key`; linear layers, head and update against NumPy in float64."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba")

from dualgrad.kernels import random as plain  # noqa: E402
from dualgrad.kernels.fused import draws, head, linear  # noqa: E402
from dualgrad.kernels.fused.draws import DENSE, NONE, NORMALS, RADEMACHER, RANK1  # noqa: E402
from dualgrad.kernels.jit import jit  # noqa: E402
from dualgrad.random import Key  # noqa: E402

FLOATS = [np.float32, np.float64]
DRAW, DOT, LINEAR, UPDATE, LOSS, FINISH = range(6)
SEED = 0x123456789ABCDEF0
RATE = 0.05


@jit
def _run(like, table, scratch):
    """Do every chunk of every row, from the last to the first: their order must not matter."""
    for row in table:
        for back in range(row[1]):
            chunk = row[1] - 1 - back
            if row[0] == DRAW:
                draws.draw_chunk(like, row, chunk, scratch)
            elif row[0] == DOT:
                linear.dot_chunk(like, row, chunk, scratch)
            elif row[0] == LINEAR:
                linear.linear_chunk(like, row, chunk, scratch)
            elif row[0] == UPDATE:
                linear.update_chunk(like, row, chunk, scratch)
            elif row[0] == LOSS:
                head.cross_entropy_chunk(like, row, chunk, scratch)
            else:
                head.finish_chunk(like, row, chunk, scratch)


def _address(array):
    return array.ctypes.data


def _panels(n):
    return -(-n // 16)


def _pack(w, dtype):
    """Return a matrix (K, N) as panels (P, K, 16)."""
    padded = np.zeros((len(w), _panels(w.shape[1]) * 16), dtype)
    padded[:, : w.shape[1]] = w
    return np.ascontiguousarray(padded.reshape(len(w), -1, 16).transpose(1, 0, 2))


def _unpack(panels, n):
    return panels.transpose(1, 0, 2).reshape(panels.shape[1], -1)[:, :n]


class Network:
    """Two linear layers with ReLU between and cross-entropy behind, as stages and as NumPy."""

    def __init__(
        self,
        *,
        n,
        k,
        sizes,
        dtype=np.float32,
        structure=RANK1,
        bias=True,
        normal=False,
        clip=np.inf,
    ):
        self.n, self.k, self.sizes, self.dtype = n, k, sizes, dtype
        self.structure, self.normal = structure, normal
        rng = np.random.default_rng(5)
        self.x = rng.standard_normal((n, sizes[0])).astype(dtype)
        self.labels = rng.integers(0, sizes[-1], n)
        self.words = np.zeros(8, np.int64)
        self.words[:2] = Key(SEED).words
        self.numbers = np.zeros(8 + 3 * k)
        self.numbers[: head.LOSS] = RATE, clip
        self.losses, self.tangents = np.zeros(n, dtype), np.zeros((k, n), dtype)
        self.layers = []
        source, leaves, table, updates = self.x, [], [], []
        for i, (rows, columns) in enumerate(zip(sizes, sizes[1:], strict=False)):
            layer = self._layer(rng, rows, columns, bias)
            update = self._update(layer)
            row = linear.linear_stage(
                LINEAR, update, x=_address(source), ldx=source.shape[-1],
                x_tangents=i > 0 and k > 0, batch=n, y=_address(layer.y), ldy=layer.y.shape[-1],
                relu=i == 0, sums=_address(layer.sums),
            )  # fmt: skip
            leaves += self._leaves(layer, i)
            table += [linear.dot_stage(DOT, row)] * (structure == RANK1 and k > 0) + [row]
            updates.append(update)
            self.layers.append(layer)
            source = layer.y
        self.leaves = np.stack(leaves)
        loss = head.cross_entropy_stage(
            LOSS, z=_address(source), ldz=source.shape[-1], batch=n, classes=sizes[-1], k=k,
            labels=_address(self.labels), losses=_address(self.losses),
            tangents=_address(self.tangents), words=_address(self.words),
            numbers=_address(self.numbers),
        )  # fmt: skip
        draw = draws.draw_stage(DRAW, words=_address(self.words), table=self.leaves)
        self.table = np.stack([draw, *table, loss, head.finish_stage(FINISH, loss)])
        self.updates = np.stack(updates)
        size = np.dtype(dtype).itemsize
        bytes = [linear.linear_scratch(row, size) for row in updates] + [
            head.head_scratch(loss, size)
        ]
        self.scratch = np.full(max(bytes), 255, np.uint8)  # NaN, should anyone read what is stale

    def _layer(self, rng, rows, columns, bias):
        k, n, dtype, wide = self.k, self.n, self.dtype, _panels(columns) * 16
        layer = SimpleNamespace(rows=rows, columns=columns)
        layer.w = _pack(rng.standard_normal((rows, columns)) / np.sqrt(rows), dtype)
        layer.bias = np.zeros(wide, dtype) if bias else None
        if bias:
            layer.bias[:columns] = rng.standard_normal(columns)
        layer.lefts = np.full((2, k, rows), np.nan, dtype)
        layer.rights = np.full((2, k, wide), np.nan, dtype)
        layer.vectors = np.full((2, k, wide), np.nan, dtype)
        layer.keys, layer.bias_keys = np.zeros((2, 2), np.int64), np.zeros((2, 2), np.int64)
        layer.y = np.zeros((1 + k, n, wide), dtype)
        layer.sums = np.full(max(1, linear.sums_size(n, k)), np.nan, dtype)
        return layer

    def _update(self, layer):
        given = layer.bias is not None
        return linear.update_stage(
            UPDATE, w=_address(layer.w), bias=_address(layer.bias) if given else 0,
            inputs=layer.rows, outputs=layer.columns, k=self.k, structure=self.structure,
            lefts=_address(layer.lefts), rights=_address(layer.rights),
            vectors=_address(layer.vectors) if given else 0, keys=_address(layer.keys),
            words=_address(self.words), numbers=_address(self.numbers),
        )  # fmt: skip

    def _leaves(self, layer, i):
        kind = NORMALS if self.normal else RADEMACHER
        common = {"distribution": kind, "k": self.k, "columns": layer.columns}
        yield draws.leaf_draw(
            f"layers/{i}/weight", keys=_address(layer.keys), structure=self.structure,
            rows=layer.rows, lefts=_address(layer.lefts), rights=_address(layer.rights), **common,
        )  # fmt: skip
        if layer.bias is not None:
            yield draws.leaf_draw(
                f"layers/{i}/bias", keys=_address(layer.bias_keys),
                vectors=_address(layer.vectors), **common,
            )  # fmt: skip

    def step(self, number):
        self.words[draws.STEP] = number
        _run(self.dtype(0), self.table, _address(self.scratch))

    def flush(self):
        """Apply what is pending: the next step's draw, which has this step's directions behind."""
        self.words[draws.STEP] += 1
        _run(self.dtype(0), np.concatenate([self.table[:1], self.updates]), _address(self.scratch))
        self.words[draws.PENDING] = 0

    def parameters(self):
        """Return weights and biases, without padding, in float64 copies."""
        for layer in self.layers:
            yield _unpack(layer.w, layer.columns).astype(np.float64)
            if layer.bias is not None:
                yield layer.bias[: layer.columns].astype(np.float64)

    def directions(self, number):
        """Return what the map of bits says of each parameter, in the order of `parameters`."""
        step = Key(SEED).fold_in(number).fold_in("directions")
        vector = plain.normal_vector if self.normal else plain.sign_vector
        for i, layer in enumerate(self.layers):
            key, of = step.fold_in(f"layers/{i}/weight").words, (range(self.k),)
            if self.structure == DENSE:
                yield plain.sign_matrix(
                    key, layer.rows, layer.columns, *of, plain.MATRIX, np.float64
                )  # fmt: skip
            else:
                left = vector(key, layer.rows, *of, plain.LEFT, self.dtype).astype(np.float64)
                right = vector(key, layer.columns, *of, plain.RIGHT, self.dtype)
                yield left[:, :, None] * right[:, None].astype(np.float64)
            if layer.bias is not None:
                key = step.fold_in(f"layers/{i}/bias").words
                yield vector(key, layer.columns, *of, plain.VECTOR, self.dtype).astype(np.float64)

    def expected(self, number, parameters):
        """Return the loss, its k derivatives and all outputs of a step: NumPy in float64."""
        k, directions = self.k, list(self.directions(number))
        x, tx, outputs = self.x.astype(np.float64), np.zeros((k, *self.x.shape)), []
        parameters = list(parameters)
        for i, layer in enumerate(self.layers):
            w, v = parameters.pop(0), directions.pop(0)
            y, ty = x @ w, tx @ w + x @ v
            if layer.bias is not None:
                y, ty = y + parameters.pop(0), ty + directions.pop(0)[:, None]
            if i == 0:
                ty, y = np.where(y > 0, ty, 0.0), np.maximum(y, 0.0)
            outputs.append(np.concatenate([y[None], ty]))
            x, tx = y, ty
        shifted = np.exp(x - x.max(1, keepdims=True))
        probabilities = shifted / shifted.sum(1, keepdims=True)
        onehot = np.eye(self.sizes[-1])[self.labels]
        loss = -np.log((probabilities * onehot).sum(1)).mean()
        return loss, ((probabilities - onehot) * tx).sum(2).mean(1), outputs


def _close(actual, desired, dtype):
    """Compare with a bound in units of the largest entry: sums cancel."""
    desired = np.asarray(desired)
    limit = 300 * np.finfo(dtype).eps * (1 + np.abs(desired).max(initial=0))
    np.testing.assert_allclose(actual, desired, rtol=0, atol=limit)


CASES = [
    (n, k, sizes, structure, bias, dtype)
    for n, k, sizes, bias in [
        (7, 0, (9, 40, 10), True),
        (1, 1, (10, 16, 1), True),
        (64, 1, (50, 40, 10), True),
        (7, 1, (1, 10, 16), False),
        (64, 3, (21, 16, 40), False),
        (7, 16, (9, 40, 10), True),
        (5, 17, (130, 40, 10), True),
        (3, 64, (9, 10, 40), True),
        (130, 2, (600, 150, 10), True),  # many chunks of each stage
    ]
    for structure in (RANK1, DENSE)
    for dtype in FLOATS
]


@pytest.mark.parametrize(("n", "k", "sizes", "structure", "bias", "dtype"), CASES)
def test_three_steps_and_a_flush_are_those_of_numpy(n, k, sizes, structure, bias, dtype):
    network = Network(n=n, k=k, sizes=sizes, dtype=dtype, structure=structure, bias=bias)
    parameters = list(network.parameters())
    for number in range(2**32 - 1, 2**32 + 2):  # a step is a number of 64 bits
        loss, derivatives, outputs = network.expected(number, parameters)
        network.step(number)
        for layer, output in zip(network.layers, outputs, strict=True):
            _close(layer.y[:, :, : layer.columns], output, dtype)
            assert np.isfinite(layer.y).all()
        _close(network.numbers[head.LOSS], loss, dtype)
        _close(network.numbers[8 : 8 + k], derivatives, dtype)
        assert network.words[draws.PENDING] == (k > 0) and network.words[draws.ERROR] == 0
        parameters = [
            w - RATE / max(k, 1) * np.tensordot(derivatives, v, 1)
            for w, v in zip(parameters, network.directions(number), strict=True)
        ]
    network.flush()
    for actual, desired in zip(network.parameters(), parameters, strict=True):
        _close(actual, desired, dtype)
    for layer in network.layers:  # the padding is as it was
        padding = layer.w.transpose(1, 0, 2).reshape(layer.rows, -1)[:, layer.columns :]
        assert (padding == 0).all()
        assert layer.bias is None or (layer.bias[layer.columns :] == 0).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("k", "structure", "normal"),
    [(k, RANK1, normal) for k in (1, 3, 17) for normal in (False, True)] + [(3, DENSE, False)],
)
def test_a_flush_gives_the_bits_that_the_next_step_gives(k, structure, normal, dtype):
    options = {"n": 7, "k": k, "sizes": (37, 40, 10), "structure": structure, "normal": normal}
    deferred, flushed = (Network(dtype=dtype, **options) for _ in range(2))
    start = list(deferred.parameters())
    for number in range(4):
        deferred.step(number)
        flushed.step(number)
        flushed.flush()
        np.testing.assert_array_equal(deferred.numbers, flushed.numbers)
    deferred.flush()
    for one, other, before in zip(
        deferred.parameters(), flushed.parameters(), start, strict=True
    ):  # fmt: skip
        np.testing.assert_array_equal(one, other)
        assert not np.array_equal(one, before)
    deferred.flush()  # nothing is pending any more
    for one, other in zip(deferred.parameters(), flushed.parameters(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("normal", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1), (10, 16), (128, 33), (1025, 130)])
def test_vectors_are_bit_for_bit_those_of_the_map(sizes, normal, dtype):
    """And behind those of a step are those of the step before."""
    rows, columns = sizes
    network = Network(n=1, k=3, sizes=sizes, dtype=dtype, normal=normal)
    (layer,) = network.layers
    kind = plain.normal_vector if normal else plain.sign_vector
    numbers = (2**40 - 1, 2**40)
    for number in numbers:
        network.step(number)
    for place, number in enumerate(reversed(numbers)):
        step = Key(SEED).fold_in(number).fold_in("directions")
        weight, bias = step.fold_in("layers/0/weight"), step.fold_in("layers/0/bias")
        np.testing.assert_array_equal(layer.keys[place], weight.words)
        np.testing.assert_array_equal(layer.bias_keys[place], bias.words)
        for drawn, key, size, role in [
            (layer.lefts, weight, rows, plain.LEFT),
            (layer.rights, weight, columns, plain.RIGHT),
            (layer.vectors, bias, columns, plain.VECTOR),
        ]:
            expected = kind(key.words, size, range(3), role, dtype)
            np.testing.assert_array_equal(drawn[place, :, :size], expected)
            assert (drawn[place, :, size:] == 0).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_an_update_row_draws_the_dense_directions_too(dtype):
    network = Network(n=2, k=3, sizes=(20, 40), dtype=dtype, structure=DENSE)
    (layer,) = network.layers
    network.step(6)
    v = np.full((3, *layer.w.shape), np.nan, dtype)
    network.updates[0, linear.V] = _address(v)
    network.flush()
    for drawn, expected in zip(v, next(network.directions(7)), strict=True):
        np.testing.assert_array_equal(drawn, _pack(expected, dtype))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("structure", [RANK1, DENSE])
def test_what_is_not_finite_stays_in_its_example(structure, value):
    clean, dirty = (Network(n=7, k=2, sizes=(20, 40, 10), structure=structure) for _ in range(2))
    dirty.x[3, 5] = value
    for network in (clean, dirty):
        network.step(0)
    others = np.arange(7) != 3
    for a, b in zip(clean.layers, dirty.layers, strict=True):
        np.testing.assert_array_equal(a.y[:, others], b.y[:, others])
    hidden, logits = (layer.y[0, 3, : layer.columns] for layer in dirty.layers)
    w = _unpack(dirty.layers[0].w, 40)[5]
    if np.isnan(value):
        assert np.isnan(hidden).all() and np.isnan(logits).all()
        assert np.isnan(dirty.layers[0].y[1:, 3, :40]).all()  # nothing is hidden behind a NaN
    else:
        np.testing.assert_array_equal(hidden, np.where(w * np.sign(value) > 0, np.inf, 0))
        assert not np.isfinite(logits).any()
    np.testing.assert_array_equal(np.isnan(dirty.losses), ~others)
    assert np.isnan(dirty.numbers[head.LOSS]) and np.isnan(dirty.numbers[8:12]).all()
    dirty.flush()
    assert all(np.isnan(parameter).all() for parameter in dirty.parameters())


def test_no_tangent_passes_where_relu_is_at_its_kink():
    network = Network(n=2, k=2, sizes=(9, 16, 10))
    network.x[0], network.layers[0].bias[:] = 0, 0
    network.step(0)
    assert (network.layers[0].y[:, 0] == 0).all() and (network.layers[0].y[1:, 1] != 0).any()


def test_a_network_that_cannot_learn_has_the_tangents_of_its_input():
    dtype, k, n = np.float64, 2, 5
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((1 + k, n, 9)), rng.standard_normal((9, 20))
    vectors = np.zeros((2, k, 32))
    vectors[:, :, :20] = rng.standard_normal((2, k, 20))
    words, numbers, packed = np.zeros(8, np.int64), np.zeros(8 + 3 * k), _pack(w, dtype)
    y = np.full((1 + k, n, 32), np.nan)
    for with_bias in (False, True):
        bias = np.zeros(32)
        update = linear.update_stage(
            UPDATE, w=_address(packed), bias=_address(bias) if with_bias else 0, inputs=9,
            outputs=20, k=k, structure=NONE, vectors=_address(vectors) if with_bias else 0,
            words=_address(words), numbers=_address(numbers),
        )  # fmt: skip
        row = linear.linear_stage(
            LINEAR, update, x=_address(x), ldx=9, x_tangents=True, batch=n, y=_address(y), ldy=32
        )
        scratch = np.full(linear.linear_scratch(row, 8), 255, np.uint8)
        _run(dtype(0), row[None], _address(scratch))
        expected = x @ w
        if with_bias:
            expected[1:] += vectors[0, :, None, :20]
        _close(y[:, :, :20], expected, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [1, 2, 10, 70])
def test_losses_keep_their_limits(classes, dtype):
    """-inf at the label is a loss of +inf; large logits do not overflow; NaN stays."""
    z = np.zeros((1, 4, 80), dtype)
    z[0, :, :classes] = np.random.default_rng(2).standard_normal((4, classes)) * 30
    z[0, 1, 0] = -np.inf
    z[0, 2, :classes] += 1e30
    z[0, 3, classes - 1] = np.nan
    labels, losses = np.array([classes - 1, 0, 0, 0]), np.zeros(4, dtype)
    words, numbers = np.zeros(8, np.int64), np.zeros(8)
    row = head.cross_entropy_stage(
        LOSS, z=_address(z), ldz=80, batch=4, classes=classes, k=0, labels=_address(labels),
        losses=_address(losses), words=_address(words), numbers=_address(numbers),
    )  # fmt: skip
    scratch = np.full(head.head_scratch(row, np.dtype(dtype).itemsize), 255, np.uint8)
    _run(dtype(0), row[None], _address(scratch))
    exact = z[0, :3, :classes].astype(np.float64)
    top = exact[0].max()
    first = np.log(np.exp(exact[0] - top).sum()) + top - exact[0, -1]
    np.testing.assert_allclose(losses[0], first, rtol=1e-6, atol=1e-6)
    assert losses[1] == np.inf if classes > 1 else np.isnan(losses[1])
    assert np.isfinite(losses[2]) and np.isnan(losses[3])


@pytest.mark.parametrize("bad", [-1, 10, 2**62, -(2**63)])
def test_a_bad_label_is_reported_and_nothing_is_applied(bad):
    network = Network(n=40, k=2, sizes=(9, 16, 10))
    network.step(0)
    network.flush()
    before = list(network.parameters())
    network.labels[[17, 30]] = bad
    network.step(1)
    assert network.words[draws.ERROR] == 18 and network.words[draws.PENDING] == 0
    assert (network.numbers[10:12] == 0).all()
    network.flush()
    for one, other in zip(network.parameters(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    network.labels[[17, 30]] = 3
    network.step(1)
    assert network.words[draws.ERROR] == 0 and network.words[draws.PENDING] == 1


def test_derivatives_are_clipped_and_nan_is_not():
    network = Network(n=4, k=3, sizes=(9, 10), clip=1e-3)
    network.step(0)
    d, c = network.numbers[8:11], network.numbers[11:14]
    assert (np.abs(d) > 1e-3).all()
    np.testing.assert_allclose(c, RATE * np.clip(d, -1e-3, 1e-3) / 3, rtol=1e-15)
    network.x[0, 0] = np.nan
    network.step(1)
    assert np.isnan(d).all() and np.isnan(c).all()


def test_sizes_that_cannot_be_are_refused():
    at = {"words": 0, "numbers": 0}
    with pytest.raises(ValueError, match="draw_stage: the table is float64 of shape"):
        draws.draw_stage(DRAW, words=0, table=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="update_stage: inputs 0"):
        linear.update_stage(UPDATE, w=0, inputs=0, outputs=1, k=1, structure=NONE, **at)
    update = linear.update_stage(UPDATE, w=0, inputs=5, outputs=20, k=0, structure=NONE, **at)
    with pytest.raises(ValueError, match="ldy 20 for 32 padded outputs"):
        linear.linear_stage(LINEAR, update, x=0, ldx=5, x_tangents=False, batch=2, y=0, ldy=20)
    with pytest.raises(ValueError, match="cross_entropy_stage: batch 2, classes 4, k 0, ldz 3"):
        head.cross_entropy_stage(
            LOSS, z=0, ldz=3, batch=2, classes=4, k=0, labels=0, losses=0, **at
        )  # fmt: skip
