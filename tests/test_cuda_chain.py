"""Chains of operations as one kernel: against the same function unfused, and on the host."""

import operator

import numpy as np
import pytest
from device_case import no_transfers, pushed
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cuda_compile import needs_nvrtc, report

import dualgrad as dg
from dualgrad.kernels import cuda
from dualgrad.kernels.elementwise import chain
from dualgrad.kernels.elementwise import device as kernels

DTYPES = ["float16", "float32", "float64"]
# Relative to a result, and absolute where it is a small difference. Chains of float16 keep float32
# in between, and are compared with what float32 gives.
TOLERANCE = {"float16": 2e-3, "float32": 2e-5, "float64": 1e-12}
ALONE = {"relu": dg.nn.relu, "sigmoid": dg.nn.sigmoid, "gelu": dg.nn.gelu}
UNARY = """negative positive absolute reciprocal square sqrt cbrt deg2rad rad2deg exp exp2 expm1 log
    log2 log10 log1p sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh relu
    sigmoid gelu""".split()
BINARY = """add subtract multiply divide remainder fmod power hypot copysign heaviside maximum
    minimum fmax fmin nextafter logaddexp logaddexp2 arctan2""".split()
POINTS = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.25, 3.0, 0.99, 7.5, np.inf, -np.inf, np.nan])
TANGENTS = np.array([1.0, 0.0, -3.0])


def function(name):
    return ALONE.get(name) or getattr(np, name)


def every_operation(x, y, c, mask):
    """All operations once, with each of their arguments moving and still, and what is constant."""
    found = [function(name)(x) for name in UNARY]
    for name in BINARY:
        f = function(name)
        found += [f(x, y), f(x, c), f(c, y)]
    found += [x**2, x**3.0, x**0.5, np.clip(x, -1, 2.0), np.clip(x, y, c), np.where(mask, x, y)]
    return found + [np.where(mask, 0.0, y), np.where(x > c, x, c)]


def constants(x, y):
    found = [f(x) for f in (np.sign, np.floor, np.ceil, np.trunc, np.rint)]
    found += [f(x) for f in (np.isnan, np.isinf, np.isfinite, np.logical_not)]
    compare = (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne)
    found += [f(x, y) for f in (*compare, np.logical_and, np.logical_or, np.logical_xor)]
    low, high = x > -1, x < 1
    return [*found, low & high, low | high, low ^ high, ~low, dg.stop_gradient(x), x > 0.1]


def arranged(module, arrays):
    return [x if x is None or np.isscalar(x) else module.asarray(x) for x in arrays]


def launched(device, f, primals, tangents):
    """The leaves of what the fused f gives, from one launch and without waiting."""
    primals, tangents = arranged(device, primals), arranged(device, tangents)
    count = cuda.launches
    with no_transfers(device):
        found = pushed(dg.fuse(f), primals, tangents)
    assert cuda.launches - count == 1
    assert all(type(x) is device.ndarray for x in dg.tree.leaves(found))
    return dg.tree.leaves(found)


def check(device, f, primals, tangents):
    """One launch gives what f gives in host memory, and dtypes and shapes that f has unfused."""
    found = launched(device, f, primals, tangents)
    plain = dg.tree.leaves(pushed(f, primals, tangents))
    wide = [x.astype(np.promote_types(x.dtype, np.float32)) if hasattr(x, "dtype") and
            x.dtype.kind == "f" else x for x in (*primals, *tangents)]  # fmt: skip
    expected = dg.tree.leaves(pushed(f, wide[: len(primals)], wide[len(primals) :]))
    tolerance = TOLERANCE[primals[0].dtype.name]
    for got, like, want in zip(found, plain, expected, strict=True):
        assert got.shape == like.shape and got.dtype == like.dtype
        with np.errstate(over="ignore"):
            want = np.asarray(want).astype(like.dtype)
        np.testing.assert_allclose(device.asnumpy(got), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES[1:])  # float16 is computed as float32 is
def test_every_operation_is_that_of_its_own_kernel(device, dtype):
    named = {*UNARY, *BINARY, "power_of_number", "clip", "where"}
    assert named == set(kernels.SOURCES) - {"erf", "select"}  # parts of others, with no name here
    x, y = (np.ravel(v).astype(dtype) for v in np.meshgrid(POINTS, POINTS))
    c, mask = np.roll(x, 5), np.arange(x.size) % 3 == 0
    tx = np.broadcast_to(TANGENTS[:, None], (3, x.size)).astype(dtype)
    ty = np.roll(tx, 1, axis=0)
    given = arranged(device, [x, y, c, mask])
    tangents = arranged(device, [tx, ty, None, None])
    found = launched(device, every_operation, given, tangents)
    expected = dg.tree.leaves(pushed(every_operation, given, tangents))
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == want.dtype
        got, want = device.asnumpy(got), device.asnumpy(want)
        np.testing.assert_allclose(got, want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_what_does_not_move_comes_back_plain(device, dtype):
    x, y = (np.ravel(v).astype(dtype) for v in np.meshgrid(POINTS, POINTS))
    found = dg.jvp(dg.fuse(constants), *[tuple(arranged(device, [x, y]))] * 2)[0]
    for got, want in zip(found, constants(x, y), strict=True):
        assert type(got) is device.ndarray and got.dtype == want.dtype
        np.testing.assert_array_equal(device.asnumpy(got), want)


# --- drawn chains

STEPS = {
    1: [np.negative, np.tanh, np.sin, np.arctan, np.cbrt, np.abs, dg.nn.relu, dg.nn.sigmoid,
        dg.nn.gelu, dg.stop_gradient, lambda a: a**2, lambda a: np.clip(a, -1, 0.5),
        lambda a: 1 / (1 + a * a), lambda a: 0.5 * a - 2],
    2: [np.add, np.subtract, np.multiply, np.maximum, np.fmin, np.hypot, np.arctan2, np.logaddexp],
    3: [lambda a, b, c: np.where(a > b, b, c), lambda a, b, c: np.where((a > 0) & (b < 1), c, a)],
}  # fmt: skip
FUNCTIONS = [(f, n) for n, functions in STEPS.items() for f in functions]


@st.composite
def chains(draw):
    """A function of x, y, c: a few trees of operations over one pool of values."""
    steps = []
    for i in range(draw(st.integers(2, 9))):
        f, n = draw(st.sampled_from(FUNCTIONS))
        steps.append((f, [draw(st.integers(0, 2 + i)) for _ in range(n)]))

    def f(x, y, c):
        pool = [x, y, c]
        for step, places in steps:
            pool.append(step(*(pool[i] for i in places)))
        return pool[-1], pool[-2] + 0 * (x + y + c)

    return f


SHAPES = [
    [(3, 4)] * 3,
    [(3, 4), (4,), ()],
    [(1, 5), (2, 3, 1), (5,)],
    [(2, 2, 33)] * 3,
    [(0, 3)] * 3,
]


@given(
    f=chains(),
    shapes=st.sampled_from(SHAPES),
    k=st.sampled_from([None, 1, 3]),
    moving=st.sampled_from([(True, True, True), (True, False, True), (False, True, False)]),
    dtype=st.sampled_from(DTYPES),
    number=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=16)
def test_drawn_chains_are_their_functions(device, f, shapes, k, moving, dtype, number, seed):
    generator = np.random.default_rng(seed)
    primals = [generator.normal(size=shape).astype(dtype) for shape in shapes]
    tangents = [
        generator.normal(size=(k, *shape)).astype(dtype) if m and k else None
        for m, shape in zip(moving, shapes, strict=True)
    ]
    if number and tangents[2] is None:
        primals[2] = 0.75
    y = f(*primals)
    if any(np.shape(part) != np.shape(y[1]) for part in y) or not y[1].size:
        primals, tangents = arranged(device, primals), arranged(device, tangents)
        found, expected = (pushed(g, primals, tangents) for g in (dg.fuse(f), f))
        for got, want in zip(dg.tree.leaves(found), dg.tree.leaves(expected), strict=True):
            assert got.shape == want.shape and got.dtype == want.dtype
        return
    check(device, f, primals, tangents)


def silu(x):
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 3000])
@pytest.mark.parametrize("k", [1, 9])
def test_sizes_about_a_block(device, size, k, monkeypatch):
    monkeypatch.setattr(cuda, "MOST_BLOCKS", 4)  # threads go on where the grid ends
    generator = np.random.default_rng(size)
    x, t = generator.normal(size=size), generator.normal(size=(k, size))
    if size:
        check(device, silu, [x], [t])
    else:
        y, ty = pushed(dg.fuse(silu), *(arranged(device, part) for part in ([x], [t])))
        assert (y.shape, ty.shape, y.dtype) == ((0,), (k, 0), x.dtype)


def test_strides_are_laid_out_first(device):
    generator = np.random.default_rng(0)
    x, t = generator.normal(size=(6, 4)), generator.normal(size=(2, 6, 4))
    for view in (lambda x: x[..., ::2, ::-1], lambda x: np.swapaxes(x, -1, -2)):
        moved = [view(part) for part in arranged(device, [x, t])]
        found = dg.pushforward(dg.fuse(silu), (moved[0],), (moved[1],))
        expected = dg.pushforward(silu, (view(x),), (view(t),))
        for got, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(device.asnumpy(got), want, rtol=1e-12)


def test_equal_graphs_are_one_kernel_and_numbers_are_arguments(device):
    x = device.asarray(np.linspace(-1, 1, 5))
    before = cuda.generated.cache_info().currsize
    for rate in (0.5, 0.25, 3):
        found = dg.fuse(lambda x, rate=rate: x - rate * np.cosh(x))(x)
        host = device.asnumpy(x)
        np.testing.assert_allclose(device.asnumpy(found), host - rate * np.cosh(host), rtol=1e-13)
    assert cuda.generated.cache_info().currsize == before + 1


@needs_nvrtc
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_generated_kernel_compiles_without_local_memory(dtype):
    a, b = (chain.Value("array", (4,), (), None, t) for t in ([0], None))
    number, mask = chain.Value("number", (), (), 2.0), chain.Value("mask", (4,))
    product = chain.Value("multiply", (4,), (a, b))
    root = chain.Value("sqrt", (4,), (chain.Value("add", (4,), (product, number)),))
    results = [chain.Value("where", (4,), (mask, root, a)), chain.Value("less", (4,), (a, root))]
    source = chain.source(chain.ordered(results), results)
    code, options = source.code(), source.options(dtype)
    for architecture in report.ARCHITECTURES:
        made = report.instance(("chain", dtype, architecture, code, options))
        assert not made.error and list(made.kernels) == ["chain"]
        use = made.kernels["chain"]
        assert (use.stack, use.spills) == (0, 0) and use.registers * kernels.THREADS <= 1 << 16
