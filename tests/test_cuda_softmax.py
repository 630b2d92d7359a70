"""CUDA kernels of softmax and cross-entropy against their twins on NumPy arrays."""

import numpy as np
import pytest
from device_case import no_transfers
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad.kernels import cuda
from dualgrad.kernels.softmax import cpu, gpu
from dualgrad.kernels.softmax.device import WARP_COLUMNS
from dualgrad.ops import neural

TOLERANCE = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-13}
ROWS = st.sampled_from([(), (0,), (1,), (7,), (8,), (9,), (2, 3)])
EDGE = WARP_COLUMNS
COLUMNS = st.sampled_from([1, 2, 10, 31, 32, 33, 257, EDGE, EDGE + 1, 2 * EDGE + 5])
MAPS = ["softmax", "log_softmax", "logsumexp"]


def reference(name, x, *more):
    """What the twin gives, half precision from float32."""
    exact = cpu.__dict__[name]
    half = x.dtype == np.float16
    with np.errstate(all="ignore"):
        found = exact(x.astype(np.float32) if half else x, *more)
        pairs = found if isinstance(found, tuple) else (found,)
        return [np.asarray(y).astype(x.dtype) for y in pairs]


def check(device, name, x, *more):
    """The device gives what the twin gives, from one launch and without waiting."""
    moved = [device.asarray(v) for v in (x, *more)]
    count = cuda.launches
    with no_transfers(device):
        found = getattr(gpu, name)(*moved)
    assert cuda.launches - count == (1 if np.prod(x.shape[:-1]) else 0)
    more = [
        v.astype(np.promote_types(v.dtype, np.float32)) if v.dtype.kind == "f" else v for v in more
    ]
    tolerance = TOLERANCE[x.dtype.name]
    found = found if isinstance(found, tuple) else (found,)
    scale = max(1.0, float(np.abs(x[np.isfinite(x)]).max(initial=0)))
    for got, want in zip(found, reference(name, x, *more), strict=True):
        assert got.dtype == x.dtype and got.shape == want.shape
        np.testing.assert_allclose(
            device.asnumpy(got), want, rtol=tolerance, atol=tolerance * scale
        )


@given(
    rows=ROWS,
    columns=COLUMNS,
    dtype=st.sampled_from(list(TOLERANCE)),
    spread=st.sampled_from([0.1, 3.0, 1000.0]),
    k=st.integers(1, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_every_function(device, rows, columns, dtype, spread, k, seed):
    generator = np.random.default_rng(seed)
    x = (spread * generator.normal(size=(*rows, columns))).astype(dtype)
    labels = np.asarray(generator.integers(0, columns, rows))
    for name in MAPS:
        check(device, name, x)
    check(device, "cross_entropy", x, labels.astype(generator.choice(["int64", "int32", "uint8"]))
          if columns < 256 else labels)  # fmt: skip
    t = generator.normal(size=(k, *x.shape)).astype(dtype)
    check(device, "cross_entropy_tangents", x, labels, t)
    y = reference("softmax", x)[0]
    check(device, "softmax_turn", y, t)
    check(device, "log_softmax_turn", y, t)


@pytest.mark.parametrize("columns", [3, EDGE + 9])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rows_without_a_softmax(device, columns, dtype):
    inf, nan = np.inf, np.nan
    heads = [[-inf, -inf, -inf], [inf, 0, 1], [nan, 0, 1], [inf, -inf, nan], [-inf, 0, 1],
             [inf, inf, inf], [nan, nan, nan]]  # fmt: skip
    x = np.repeat(np.array(heads, dtype), columns // 3, axis=1)[:, :columns]
    for name in MAPS:
        check(device, name, x)
    for label in range(0, x.shape[1], max(1, x.shape[1] // 3)):
        labels = np.full(len(x), label)
        check(device, "cross_entropy", x, labels)
        check(device, "cross_entropy_tangents", x, labels, np.ones((2, *x.shape), dtype))


def test_arrays_that_are_not_contiguous(device):
    generator = np.random.default_rng(0)
    x, t = generator.normal(size=(5, 4)), generator.normal(size=(5, 4, 3))
    labels = np.array([0, 9, 4, 9, 2, 9, 1, 9])[::2]
    found = gpu.cross_entropy_tangents(
        device.asarray(x).T, device.asarray(labels.repeat(2))[::2], device.asarray(t).transpose()
    )
    for got, want in zip(found, cpu.cross_entropy_tangents(x.T, labels, t.T), strict=True):
        np.testing.assert_allclose(device.asnumpy(got), want, rtol=1e-13)


@pytest.mark.parametrize("label", [-1, 3, 1 << 40])
def test_a_label_that_is_no_class_gives_nan(device, label):
    x = device.asarray(np.random.default_rng(0).normal(size=(2, 3)))
    labels = device.asarray(np.array([1, label]))
    losses, probabilities = gpu.cross_entropy(x, labels)
    again, tangents = gpu.cross_entropy_tangents(x, labels, device.ones((2, 2, 3)))
    for y in (losses, again, *tangents):
        assert list(np.isnan(device.asnumpy(y))) == [False, True]
    assert np.isfinite(device.asnumpy(probabilities)).all()


def test_labels_in_host_memory_are_refused(device):
    with pytest.raises(TypeError, match="host memory"):
        gpu.cross_entropy(device.ones((2, 3)), np.array([0, 1]))


@pytest.mark.parametrize("f", [dg.nn.softmax, dg.nn.log_softmax], ids=["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [-1, 0])
def test_duals_take_the_kernels(device, f, axis):
    x, t = np.random.default_rng(1).normal(size=(2, 5, 7))
    expected = dg.jvp(lambda x: f(x, axis=axis), (x,), (t,))
    count = cuda.launches
    with no_transfers(device):
        found = dg.jvp(lambda x: f(x, axis=axis), (device.asarray(x),), (device.asarray(t),))
    assert cuda.launches - count == 2
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(device.asnumpy(got), want, rtol=1e-12, atol=1e-14)
    second = dg.jvp(lambda x: dg.jvp(f, (x,), (x,))[1], (x,), (t,))
    moved, along = device.asarray(x), device.asarray(t)
    found = dg.jvp(lambda x: dg.jvp(f, (x,), (x,))[1], (moved,), (along,))
    for got, want in zip(found, second, strict=True):
        np.testing.assert_allclose(device.asnumpy(got), want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("k", [1, 3])
def test_the_short_cut_of_cross_entropy_is_its_rule(device, k):
    generator = np.random.default_rng(k)
    x, t = generator.normal(size=(6, 10)), generator.normal(size=(k, 6, 10))
    labels = generator.integers(0, 10, 6)

    def loss(module, form):
        def run(logits):
            return form(logits, labels=module.asarray(labels))

        return dg.pushforward(run, (module.asarray(x),), (module.asarray(t),))

    rule = neural._cross_entropy.general
    expected = loss(np, rule)
    for got, want in zip(loss(np, neural._cross_entropy), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    for got, want in zip(loss(device, neural._cross_entropy), expected, strict=True):
        np.testing.assert_allclose(device.asnumpy(got), want, rtol=1e-13, atol=1e-14)
