"""CUDA kernels entry by entry, and selection: against the plain rules on NumPy arrays."""

import cuda_host
import numpy as np
import pytest
from device_case import no_transfers, pushed
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad.kernels import cuda, select
from dualgrad.kernels.elementwise import device as kernels
from dualgrad.ops.elementwise import SMOOTH

# Relative to a result, and absolute where a result is a small difference; float16 is compared with
# what float32 gives. CUDA's functions are right to a few units in the last place.
TOLERANCE = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-13}
DTYPES = list(TOLERANCE)

ACTIVATIONS = [dg.nn.relu, dg.nn.sigmoid, dg.nn.gelu, dg.nn.tanh]
UNARY = [f for f, partials in SMOOTH.items() if len(partials) == 1] + ACTIVATIONS
UNARY += [np.absolute, np.fabs]
BINARY = [f for f, partials in SMOOTH.items() if len(partials) == 2] + [np.hypot]
POINTS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    -2.25,
    3.0,
    0.99,
    7.5,
    -30.0,
    np.inf,
    -np.inf,
    np.nan,
]
TANGENTS = [1.0, 0.0, -3.0, np.inf, np.nan]


def name(f):
    return f.__name__


def to(device, x):
    return device.asarray(x) if isinstance(x, np.ndarray) else x


def wide(x, dtype):
    """Return a floating x in the reference's dtype: kernels cast first, the plain rules last."""
    return x.astype(dtype) if getattr(x, "dtype", np.dtype(bool)).kind == "f" else x


def check(device, f, primals, tangents, launches=1):
    """The device gives what NumPy gives, from one launch and without waiting."""
    count = cuda.launches
    with no_transfers(device):
        found = pushed(f, [to(device, x) for x in primals], [to(device, t) for t in tangents])
    assert cuda.launches - count == launches
    plain = pushed(f, primals, tangents)
    dtype = np.promote_types(plain[0].dtype, np.float32)
    expected = pushed(f, [wide(x, dtype) for x in primals], [wide(t, dtype) for t in tangents])
    tolerance = TOLERANCE[plain[0].dtype.name]
    for got, like, want in zip(found, plain, expected, strict=True):
        assert type(got) is device.ndarray
        assert got.dtype == like.dtype and got.shape == like.shape
        with np.errstate(over="ignore"):
            want = want.astype(like.dtype)
        np.testing.assert_allclose(device.asnumpy(got), want, rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(cuda_host.COMPILER is None, reason="there is no g++ to read the macros with")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tables_are_the_sources(dtype):
    for source in set(kernels.SOURCES.values()):
        names = {name for name, of in kernels.SOURCES.items() if of is source}
        if dtype == "float16":
            names -= {"nextafter"}
        found = cuda_host.kernels(source.code(), source.options(dtype))
        assert set(found) == {f"{name}_{kind}" for name in names for kind in ("flat", "strided")}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("f", UNARY, ids=name)
def test_functions_of_one_argument(device, f, dtype):
    x = np.array(POINTS, dtype)
    # On the host gelu is a product, whose two terms make inf - inf and 0 * inf of an infinite one.
    some = TANGENTS[:3] if f is dg.nn.gelu else TANGENTS
    t = np.broadcast_to(np.array(some, dtype)[:, None], (len(some), x.size)).copy()
    check(device, f, [x], [t])


@pytest.mark.parametrize("moving", ["both", "left", "right"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("f", BINARY, ids=name)
def test_functions_of_two_arguments(device, f, dtype, moving):
    if f is np.nextafter and dtype == "float16":
        pytest.skip("half precision has no nextafter in CUDA: the plain rule serves it")
    a, b = (np.ravel(x) for x in np.meshgrid(np.array(POINTS, dtype), np.array(POINTS, dtype)))
    ta = np.broadcast_to(np.array(TANGENTS, dtype)[:, None], (len(TANGENTS), a.size)).copy()
    tb = np.roll(ta, 1, axis=0)
    check(device, f, [a, b], [None if moving == "right" else ta, None if moving == "left" else tb])


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_and_clip(device, dtype):
    grid = np.meshgrid(*[np.array([-1.0, 0.0, 1.0, np.inf, np.nan], dtype)] * 3)
    a, b, c = (np.ravel(x) for x in grid)
    t = np.broadcast_to(np.array(TANGENTS, dtype)[:, None], (len(TANGENTS), a.size)).copy()
    check(device, np.clip, [a, b, c], [t, 2 * t, np.roll(t, 1, axis=0)])
    check(device, np.clip, [a, 0.0, 1.0], [t, None, None])
    mask = np.arange(a.size) % 3 == 0
    check(device, np.where, [mask, a, b], [None, t, None])
    check(device, np.where, [mask, a, b], [None, t, np.roll(t, 1, axis=0)])
    check(device, np.where, [mask, 0.0, b], [None, None, t])


@pytest.mark.parametrize("f", [np.multiply, np.add, np.subtract, np.divide, np.maximum, np.power])
@pytest.mark.parametrize("number", [2, 0, -1, 0.1, True, np.float32(1.5), np.float64(1.5)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_keep_numpys_dtypes(device, f, number, dtype):
    x = np.array([0.0, 0.5, 2.0, 3.0], dtype)
    t = np.array([[1.0, -2.0, 0.0, 4.0]], dtype)
    check(device, f, [x, number], [t, None])
    if f is not np.power:
        check(device, f, [number, x], [None, t])


def test_dtypes_that_differ_are_cast_first(device):
    x, t = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3), np.ones((2, 2, 3), np.float32)
    for other in (np.arange(3), np.arange(3.0), np.arange(3) > 1, np.ones((), np.float16)):
        check(device, np.multiply, [x, other], [t, None])
    check(device, np.float_power, [x, 3], [t, None])


@st.composite
def laid_out(draw, part):
    """A shape, and how an array of (k, *that shape) is seen as (k, *part), with other strides."""
    order = draw(st.permutations(range(len(part))))
    steps = [draw(st.sampled_from([1, 1, 1, 2, -1])) for _ in part]
    base = [part[axis] * abs(steps[axis]) for axis in order]

    def view(x):
        x = x.transpose(0, *(1 + order.index(axis) for axis in range(len(part))))
        return x[(slice(None), *(slice(None, None, step) for step in steps))]

    return base, view


@given(data=st.data(), k=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_any_strides_and_broadcasting(device, data, k, seed):
    shape = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 5]), max_size=5))
    generator = np.random.default_rng(seed)
    arrays, views = [], []
    for _ in range(2):
        lead = data.draw(st.integers(0, len(shape)))
        part = [n if data.draw(st.booleans()) else 1 for n in shape[lead:]]
        bases, pair = zip(*(data.draw(laid_out(part)) for _ in range(2)), strict=True)
        sizes = ((1, *bases[0]), (k, *bases[1]))
        arrays.append([generator.normal(size=size) for size in sizes])
        views.append((lambda x, view=pair[0]: view(x)[0], pair[1]))
    still = data.draw(st.sampled_from([None, 0, 1]))

    def given_to(module):
        pairs = [
            [view(module.asarray(x)) for x, view in zip(pair, two, strict=True)]
            for pair, two in zip(arrays, views, strict=True)
        ]
        tangents = [None if i == still else pair[1] for i, pair in enumerate(pairs)]
        return [pair[0] for pair in pairs], tangents

    f = data.draw(st.sampled_from([np.multiply, np.maximum, np.arctan2]))
    expected = pushed(f, *given_to(np))
    count = cuda.launches
    found = pushed(f, *given_to(device))
    assert cuda.launches - count == (1 if expected[0].size else 0)
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(device.asnumpy(got), want, rtol=1e-13, atol=1e-13)


def test_more_axes_than_a_kernel_takes(device):
    shape = (2, 3, 2, 3, 2, 3, 2, 3)
    generator = np.random.default_rng(0)
    a, ta = generator.normal(size=shape), generator.normal(size=(2, *shape))
    thin = (1, 3) * 4
    b, tb = generator.normal(size=thin), generator.normal(size=(2, *thin))
    check(device, np.multiply, [a, b], [ta, tb])
    check(device, np.multiply, [a.T, b.T], [None, tb.transpose(0, *range(8, 0, -1))])


@pytest.mark.parametrize("size", [1, 255, 256, 257, 3000])
@pytest.mark.parametrize("k", [1, 2, 9])
def test_sizes_about_a_block(device, size, k):
    generator = np.random.default_rng(size)
    x, t = generator.normal(size=size), generator.normal(size=(k, size))
    check(device, np.tanh, [x], [t])
    check(device, np.add, [x, generator.normal(size=())], [t, generator.normal(size=k)])


def test_threads_go_on_where_the_grid_ends(device, monkeypatch):
    monkeypatch.setattr(cuda, "MOST_BLOCKS", 2)
    x = np.linspace(-2, 2, 2000).reshape(40, 50)
    check(device, np.tanh, [x], [np.stack([x, -x])])
    check(device, np.multiply, [x.T, x[0, :40]], [np.stack([x, -x]).transpose(0, 2, 1), None])


@pytest.mark.parametrize("f", [np.tanh, dg.nn.relu, dg.nn.gelu, np.sqrt, lambda x: x * x[::-1]])
def test_nested_and_complex_duals_take_the_plain_rule(device, f):
    x = np.array([0.5, 1.0, 2.5])
    second = dg.jvp(lambda x: dg.jvp(f, (x,), (np.ones(3),))[1], (x,), (x,))
    moved = device.asarray(x)
    ones = device.ones(3)
    found = dg.jvp(lambda x: dg.jvp(f, (x,), (ones,))[1], (moved,), (moved,))
    for got, want in zip(found, second, strict=True):
        np.testing.assert_allclose(device.asnumpy(got), want, rtol=1e-12)
    z = x + 1j
    found = dg.jvp(np.exp, (device.asarray(z),), (device.asarray(z),))
    np.testing.assert_allclose(device.asnumpy(found[1]), np.exp(z) * z, rtol=1e-12)


def test_one_argument_without_tangents_has_none(device):
    y, ty = kernels.value_and_tangents("exp", [device.ones(3)], [None])
    assert ty is None
    np.testing.assert_allclose(device.asnumpy(y), np.exp(np.ones(3)))
    assert kernels.value_and_tangents("exp", [device.ones(3, int)], [None]) is None
    assert kernels.value_and_tangents("no such name", [device.ones(3)], [None]) is None
    assert kernels.value_and_tangents("add", [device.ones(3), 1j], [None, None]) is None


@given(
    shape=st.lists(st.sampled_from([0, 1, 2, 33, 257]), max_size=2).map(tuple),
    k=st.integers(1, 3),
    thin=st.booleans(),
    dtype=st.sampled_from([*DTYPES, "int64", "complex128"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_selection_is_the_cpus(device, shape, k, thin, dtype, seed):
    generator = np.random.default_rng(seed)
    mask = generator.random((1,) * len(shape) if thin else shape) < 0.5
    mask = np.asarray(mask)
    t = (9 * generator.normal(size=(k, *shape))).astype(dtype)
    if t.dtype.kind == "f" and t.size:
        t.flat[0] = np.nan
        t.flat[-1] = -np.inf
    found = select.select(device.asarray(mask), device.asarray(t))
    assert found.dtype == t.dtype
    np.testing.assert_array_equal(device.asnumpy(found), np.where(mask, t, 0))
