"""float32 multiplied in tf32 and bfloat16: the same kernels, with factors rounded as stated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgrad.kernels import cuda
from dualgrad.kernels.conv import cpu, gpu
from dualgrad.kernels.fused import step as stages
from dualgrad.kernels.product import gemm

BITS = {"tf32": 11, "bfloat16": 8}  # of a factor, the leading one included
SUMS = 2e-5  # error of float32 sums in any order, times the sum of sizes
TILES = (gemm.SMALL, gemm.TALL, gemm.large(np.float32))
names = st.sampled_from(list(BITS))
each = pytest.mark.parametrize("name", list(BITS))
sizes = st.sampled_from([0, 1, 7, 8, 9, 17, 33, 65, 130])


@pytest.fixture(autouse=True, scope="module")
def no_switch():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CUPY_TF32", raising=False)
        yield


def rounded(x, name):
    """Round to the nearest number of so many bits, in float64; ties away from 0, or to even."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    scaled = np.ldexp(mantissa, BITS[name])
    away = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
    return np.ldexp(away if name == "tf32" else np.rint(scaled), exponent - BITS[name])


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(actual, function, name, plus=0.0):
    """Compare with plus + function(f), where f is applied to the factors.

    Against rounded factors the bound is that of float32 sums, which no other rounding would keep.
    """
    size = function(np.abs) + np.abs(plus) + 1e-30
    exact = plus + function(lambda x: x.astype(np.float64))
    of_rounded = plus + function(lambda x: rounded(x, name))
    assert (actual.shape, actual.dtype) == (exact.shape, np.float32)
    assert (np.abs(actual - of_rounded) <= SUMS * size).all()
    unit = 0.5 ** BITS[name]
    assert (np.abs(actual - exact) <= ((2 + unit) * unit + SUMS) * size).all()


@settings(max_examples=40)
@given(m=sizes, n=st.sampled_from([0, 1, 7, 8, 9, 16, 17, 40]), p=sizes,
       batch=st.sampled_from([(), (2,)]), transposed=st.tuples(st.booleans(), st.booleans()),
       tile=st.sampled_from(TILES), beta=st.sampled_from([None, 0.5]), name=names,
       seed=st.integers(0, 99))  # fmt: skip
def test_gemm(device, m, n, p, batch, transposed, tile, beta, name, seed):
    a = draw(seed, *batch, *((n, m) if transposed[0] else (m, n)))
    b = draw(seed + 1, *batch, *((p, n) if transposed[1] else (n, p)))
    c = draw(seed + 2, *batch, m, p)
    out = None if beta is None else device.asarray(c)
    which = {"left_transposed": transposed[0], "right_transposed": transposed[1]}
    with cuda.products(name):
        y = gemm.gemm(device.asarray(a), device.asarray(b), **which, out=out, alpha=1.5, beta=beta,
                      tile=tile)  # fmt: skip
    a, b = (np.swapaxes(x, -1, -2) if t else x for x, t in zip((a, b), transposed, strict=True))
    check(device.asnumpy(y), lambda f: 1.5 * f(a) @ f(b), name, (beta or 0.0) * c)


@settings(max_examples=10)
@given(m=st.sampled_from([1, 65]), n=st.sampled_from([256, 300, 700]), name=names,
       p=st.sampled_from([1, 33]), beta=st.sampled_from([None, 0.5]))  # fmt: skip
def test_gemm_by_slices_of_the_sum(device, m, n, name, p, beta):
    a, b, c = (draw(i, *shape) for i, shape in enumerate([(m, n), (n, p), (m, p)]))
    out, sums = device.asarray(c), gemm.slices_for(c.shape, n, c.dtype)
    assert len(sums) > 1
    with cuda.products(name):
        gemm.gemm(device.asarray(a), device.asarray(b), out=out, alpha=1.5, beta=beta, sums=sums)
    check(device.asnumpy(out), lambda f: 1.5 * f(a) @ f(b), name, (beta or 0.0) * c)


@st.composite
def convolutions(draw_):
    """Draw x, w, a cotangent and the window; groups have outputs enough for tiles."""
    groups = draw_(st.sampled_from([1, 1, 2]))
    c, o = draw_(st.sampled_from([1, 2, 5, 33])), draw_(st.sampled_from([17, 65]))
    height, width = draw_(st.integers(1, 7)), draw_(st.integers(1, 7))
    kernel = draw_(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pads = st.tuples(st.integers(1, 2), st.integers(0, 2))
    window = {
        "stride": draw_(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        "padding": (draw_(pads), draw_(pads)),
        "dilation": draw_(st.sampled_from([(1, 1), (2, 1)])),
        "groups": groups,
    }
    x, w = (
        draw(1, draw_(st.integers(1, 2)), height, width, c * groups),
        draw(2, *kernel, c, o * groups),
    )
    y = cpu.conv2d(x[..., :1], w[:, :, :1, :1], **{**window, "groups": 1})
    return x, w, draw(3, *y.shape[:3], w.shape[-1]), window


@settings(max_examples=20)
@given(case=convolutions(), name=names, tile=st.sampled_from(TILES))
def test_convolution_and_its_transposes(device, case, name, tile):
    x, w, ct, window = case
    dx, dw, dct = map(device.asarray, (x, w, ct))
    with cuda.products(name), pytest.MonkeyPatch.context() as patch:
        patch.setattr("dualgrad.kernels.conv.device.tile_for", lambda *_: tile)
        y = gpu.conv2d(dx, dw, **window)
        of_filters = gpu.conv2d_filter(dx, dct, w.shape, **window)
        of_images = gpu.conv2d_input(dct, dw, x.shape, **window)
    check(device.asnumpy(y), lambda f: cpu.conv2d(f(x), f(w), **window), name)
    check(device.asnumpy(of_filters),
          lambda f: cpu.conv2d_filter(f(x), f(ct), w.shape, **window), name)  # fmt: skip
    check(device.asnumpy(of_images),
          lambda f: cpu.conv2d_input(f(ct), f(w), x.shape, **window), name)  # fmt: skip


@each
def test_small_integers_have_exact_products(device, name):
    rng = np.random.default_rng(0)
    x, w, ct = (rng.integers(-8, 9, shape).astype(np.float32)
                for shape in [(2, 7, 6, 5), (3, 3, 5, 20), (2, 7, 6, 20)])  # fmt: skip
    window = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    dx, dw, dct = map(device.asarray, (x, w, ct))
    with cuda.products(name):
        found = (gpu.conv2d(dx, dw, **window), gpu.conv2d_filter(dx, dct, w.shape, **window),
                 gpu.conv2d_input(dct, dw, x.shape, **window))  # fmt: skip
    expected = (cpu.conv2d(x, w, **window), cpu.conv2d_filter(x, ct, w.shape, **window),
                cpu.conv2d_input(ct, w, x.shape, **window))  # fmt: skip
    for y, z in zip(found, expected, strict=True):
        np.testing.assert_array_equal(device.asnumpy(y), z)


@each
def test_factors_are_rounded_to_nearest(device, name):
    bits = BITS[name]
    ties = (2.0 ** (bits - 1) + np.arange(8) + 0.5) * 2.0**-20
    edges = np.concatenate([ties, np.nextafter(np.float32(ties), np.float32([0, 1] * 4))])
    x = np.concatenate([edges, -edges, draw(0, 200), [0.0, 1e30, -1e-30, 3.4e38, np.inf]])
    x = x.astype(np.float32)
    one = device.ones((1, 1), np.float32)
    with cuda.products(name):
        left = gemm.gemm(device.asarray(x[:, None]), one)
        right = gemm.gemm(one, device.asarray(x[None, :]))
        nan = gemm.gemm(device.full((1, 1), np.nan, np.float32), one)
    with np.errstate(over="ignore"):  # 3.4e38 is rounded to infinity
        expected = rounded(x, name).astype(np.float32)
    assert not np.array_equal(expected, x)
    np.testing.assert_array_equal(device.asnumpy(left)[:, 0], expected)
    np.testing.assert_array_equal(device.asnumpy(right)[0], expected)
    assert np.isnan(device.asnumpy(nan)).all()


@each
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_dtypes_stay_with_their_own(device, name, dtype):
    a, b = (device.asarray(draw(i, 20, 20).astype(dtype)) for i in range(2))
    plain = gemm.gemm(a, b)
    with cuda.products(name):
        inside = gemm.gemm(a, b)
        assert cuda.product_of(dtype) == np.dtype(dtype).name and cuda.cublas_serves(dtype)
    np.testing.assert_array_equal(device.asnumpy(plain), device.asnumpy(inside))


def test_float32_is_the_default_and_what_remains(device):
    a, b = draw(0, 20, 20), draw(1, 20, 20)
    x, y = device.asarray(a), device.asarray(b)
    assert cuda.product_of(np.float32) == "float32"
    plain = device.asnumpy(gemm.gemm(x, y))
    np.testing.assert_allclose(plain, a.astype(np.float64) @ b, rtol=1e-5, atol=1e-5)
    with cuda.products("tf32"):
        with cuda.products("float32"):
            np.testing.assert_array_equal(device.asnumpy(gemm.gemm(x, y)), plain)
        assert cuda.product_of(np.float32) == "tf32"
    with pytest.raises(KeyError), cuda.products("bfloat16"):
        raise KeyError
    np.testing.assert_array_equal(device.asnumpy(gemm.gemm(x, y)), plain)


def test_each_ends_its_own():
    """As those of two threads, or of generators, may do in any order."""
    first, second = cuda.products("tf32"), cuda.products("bfloat16")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert cuda.product_of(np.float32) == "bfloat16"
    second.__exit__(None, None, None)
    assert cuda.product_of(np.float32) == "float32"


@pytest.mark.parametrize("name", ["tf23", "float64", None])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=r"there are 'float32', 'tf32', 'bfloat16'\."):
        with cuda.products(name):
            pass
    assert cuda.product_of(np.float32) == "float32"


def test_products_of_cublas_are_ours_where_it_does_others(device, monkeypatch):
    a, b = draw(0, 33, 20), draw(1, 20, 17)
    x, y, out = device.asarray(a), device.asarray(b), device.empty((33, 17), np.float32)
    window = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}

    def launches():
        before = cuda.launches
        stages.product(x, y, out, own=False)
        gpu.conv2d(x.reshape(1, 11, 3, 20), y.reshape(1, 1, 20, 17), **window)
        return cuda.launches - before

    assert launches() == 0
    for name in BITS:
        with cuda.products(name):
            assert launches() == 2
        check(device.asnumpy(out), lambda f: f(a) @ f(b), name)  # noqa: B023
    monkeypatch.setenv("CUPY_TF32", "1")
    assert launches() == 0 and cuda.product_of(np.float32) == "tf32"
    with cuda.products("float32"):
        assert launches() == 2
    np.testing.assert_allclose(device.asnumpy(out), a.astype(np.float64) @ b, rtol=1e-5, atol=1e-5)


def test_a_captured_graph_keeps_what_it_was_captured_with(device):
    a, b = draw(0, 20, 20), draw(1, 20, 20)
    x, y, out = device.asarray(a), device.asarray(b), device.zeros((20, 20), np.float32)
    stream = device.cuda.Stream(non_blocking=True)
    with cuda.products("bfloat16"):
        gemm.gemm(x, y, out=out)  # compiled beforehand
        device.cuda.runtime.deviceSynchronize()
        with stream:
            stream.begin_capture()
            gemm.gemm(x, y, out=out)
            graph = stream.end_capture()
    out.fill(0)
    device.cuda.runtime.deviceSynchronize()
    graph.launch(stream)
    stream.synchronize()
    check(device.asnumpy(out), lambda f: f(a) @ f(b), "bfloat16")


def test_a_device_without_such_tensor_cores_is_an_error(monkeypatch):
    class Old:
        compute_capability = "75"

    class Module:
        class cuda:  # noqa: N801
            Device = Old

    monkeypatch.setattr(cuda, "cupy", lambda: Module)
    source = cuda.Source("product/gemm", parts=gemm.PARTS, tensor=True)
    cuda.SOURCES.remove(source)
    with cuda.products("tf32"), pytest.raises(RuntimeError, match=r"8\.0 or later.* has 7\.5"):
        source.launch("gemm_small_nn", np.float32, 1, gemm.THREADS)
