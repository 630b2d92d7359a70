"""The array API standard, version 2025.12: every name, its signature, for arrays and for duals."""

import numpy as np
import pytest

import dualgrad as dg

VERSION = "2025.12"
A = np.linspace(0.2, 0.9, 6).reshape(2, 3)
B = np.linspace(0.9, 0.32, 6).reshape(2, 3)
M = np.array([[3.0, 0.5], [0.5, 2.0]])
I8 = np.arange(6, dtype=np.int8).reshape(2, 3)
TRUE = np.array([[True, False, True], [False, True, False]])
PLACES = np.array([1, 0])

CONSTANTS = "e inf nan newaxis pi"
DTYPES = """bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64
complex128"""

# Every function, called the way the standard's signature says: all positional-only arguments by
# place, all others by keyword. Names of values are those above; x is A as it is or as a dual.
FLOATING_UNARY = """abs acos asin atan asinh atanh ceil conj cos cosh exp expm1 floor imag isfinite
isinf isnan log log1p log2 log10 negative positive real reciprocal round sign signbit sin sinh
square sqrt tan tanh trunc""".split()
FLOATING_BINARY = """add atan2 copysign divide equal floor_divide greater greater_equal hypot less
less_equal logaddexp maximum minimum multiply nextafter not_equal pow remainder subtract""".split()
DIFFERENTIABLE = {f"{name}(x)": name for name in FLOATING_UNARY}
DIFFERENTIABLE |= {f"{name}(x, B)": name for name in FLOATING_BINARY}
DIFFERENTIABLE |= {
    "acosh(x + 1.5)": "acosh",
    "clip(x, min=0.3, max=B)": "clip",
    "clip(x, 0.3, None)": "clip",
    "astype(x, float32, copy=True, device=None)": "astype",
    "asarray(x, dtype=None, device=None, copy=True)": "asarray",
    "empty_like(x, dtype=None, device=None)": "empty_like",
    "full_like(x, 2.0, dtype=None, device=None)": "full_like",
    "ones_like(x, dtype=None, device=None)": "ones_like",
    "zeros_like(x, dtype=None, device=None)": "zeros_like",
    "tril(x, k=1)": "tril",
    "triu(x, k=1)": "triu",
    "meshgrid(x[0], B[0], indexing='ij')": "meshgrid",
    "can_cast(x, float64)": "can_cast",
    "result_type(x, 1.0)": "result_type",
    "finfo(x)": "finfo",
    "take(x, PLACES, axis=1)": "take",
    "take_along_axis(x, I8[:, :2] % 3, axis=-1)": "take_along_axis",
    "take_along_axis(x, I8[:, :2] % 3)": "take_along_axis",
    "matmul(x, B.T)": "matmul",
    "matrix_transpose(x)": "matrix_transpose",
    "tensordot(x, B, axes=2)": "tensordot",
    "tensordot(x, B, axes=([1], [1]))": "tensordot",
    "vecdot(x, B, axis=0)": "vecdot",
    "broadcast_arrays(x, B[0])": "broadcast_arrays",
    "broadcast_to(x, shape=(4, 2, 3))": "broadcast_to",
    "concat([x, B], axis=1)": "concat",
    "concat((x, B), axis=None)": "concat",
    "expand_dims(x, axis=1)": "expand_dims",
    "flip(x, axis=(0, 1))": "flip",
    "flip(x, axis=None)": "flip",
    "moveaxis(x, 0, 1)": "moveaxis",
    "moveaxis(x, (0, 1), (1, 0))": "moveaxis",
    "permute_dims(x, axes=(1, 0))": "permute_dims",
    "repeat(x, 2, axis=None)": "repeat",
    "repeat(x, PLACES.astype(np.uint64), axis=0)": "repeat",
    "reshape(x, shape=(3, -1), copy=None)": "reshape",
    "reshape(x, (3, 2), copy=True)": "reshape",
    "roll(x, (1, 2), axis=(0, 1))": "roll",
    "squeeze(x[None], axis=0)": "squeeze",
    "stack([x, B], axis=1)": "stack",
    "tile(x, (2, 1))": "tile",
    "unstack(x, axis=1)": "unstack",
    "argmax(x, axis=0, keepdims=True)": "argmax",
    "argmin(x, axis=None, keepdims=False)": "argmin",
    "argsort(x, axis=0, descending=True, stable=False)": "argsort",
    "count_nonzero(x, axis=0, keepdims=True)": "count_nonzero",
    "isin(x, B, invert=True)": "isin",
    "nonzero(x)": "nonzero",
    "searchsorted(x[0], B, side='right', sorter=None)": "searchsorted",
    "searchsorted(x[0], 0.5)": "searchsorted",
    "where(TRUE, x, 0.5)": "where",
    "unique_all(x)": "unique_all",
    "unique_counts(x)": "unique_counts",
    "unique_inverse(x)": "unique_inverse",
    "unique_values(x)": "unique_values",
    "sort(x, axis=0, descending=True, stable=False)": "sort",
    "sort(x)": "sort",
    "cumulative_prod(x, axis=0, dtype=None, include_initial=True)": "cumulative_prod",
    "cumulative_sum(x, axis=1, dtype=None, include_initial=True)": "cumulative_sum",
    "max(x, axis=(0, 1), keepdims=True)": "max",
    "min(x, axis=0, keepdims=False)": "min",
    "mean(x, axis=None, keepdims=True)": "mean",
    "prod(x, axis=0, dtype=None, keepdims=True)": "prod",
    "std(x, axis=1, correction=1.0, keepdims=True)": "std",
    "sum(x, axis=(0, 1), dtype=None, keepdims=True)": "sum",
    "var(x, axis=1, correction=1.0, keepdims=False)": "var",
    "all(x, axis=0, keepdims=True)": "all",
    "any(x, axis=(0, 1), keepdims=True)": "any",
    "diff(x, axis=-1, n=1, prepend=B, append=B)": "diff",
    "logical_and(x, B)": "logical_and",
    "logical_not(x)": "logical_not",
    "logical_or(x, B)": "logical_or",
    "logical_xor(x, B)": "logical_xor",
    "linalg.cholesky(M + x[:, :2] @ x[:, :2].T, upper=True)": "linalg.cholesky",
    "linalg.cross(x, B, axis=-1)": "linalg.cross",
    "linalg.det(x[:, :2])": "linalg.det",
    "linalg.diagonal(x, offset=1)": "linalg.diagonal",
    "linalg.eig(M * x[0, 0])": "linalg.eig",
    "linalg.eigh(M * x[0, 0])": "linalg.eigh",
    "linalg.eigvals(M * x[0, 0])": "linalg.eigvals",
    "linalg.eigvalsh(M * x[0, 0])": "linalg.eigvalsh",
    "linalg.inv(x[:, :2])": "linalg.inv",
    "linalg.matmul(x, B.T)": "linalg.matmul",
    "linalg.matrix_norm(x, keepdims=True, ord='fro')": "linalg.matrix_norm",
    "linalg.matrix_power(x[:, :2], 3)": "linalg.matrix_power",
    "linalg.matrix_rank(x, rtol=1e-10)": "linalg.matrix_rank",
    "linalg.matrix_transpose(x)": "linalg.matrix_transpose",
    "linalg.outer(x[0], B[0])": "linalg.outer",
    "linalg.pinv(x, rtol=1e-10)": "linalg.pinv",
    "linalg.qr(x, mode='reduced')": "linalg.qr",
    "linalg.slogdet(x[:, :2])": "linalg.slogdet",
    "linalg.solve(x[:, :2], B)": "linalg.solve",
    "linalg.solve(M, x)": "linalg.solve",
    "linalg.svd(x, full_matrices=False)": "linalg.svd",
    "linalg.svdvals(x)": "linalg.svdvals",
    "linalg.tensordot(x, B, axes=2)": "linalg.tensordot",
    "linalg.trace(x, offset=1, dtype=None)": "linalg.trace",
    "linalg.vecdot(x, B, axis=0)": "linalg.vecdot",
    "linalg.vector_norm(x, axis=1, keepdims=True, ord=2)": "linalg.vector_norm",
    "fft.fft(x, n=4, axis=0, norm='ortho')": "fft.fft",
    "fft.ifft(x, n=None, axis=-1, norm='backward')": "fft.ifft",
    "fft.fftn(x, s=None, axes=None, norm='forward')": "fft.fftn",
    "fft.ifftn(x, s=(2, 4), axes=(0, 1), norm='backward')": "fft.ifftn",
    "fft.rfft(x, n=4, axis=0, norm='ortho')": "fft.rfft",
    "fft.irfft(x, n=None, axis=-1, norm='backward')": "fft.irfft",
    "fft.rfftn(x, s=None, axes=None, norm='forward')": "fft.rfftn",
    "fft.irfftn(x, s=None, axes=None, norm='backward')": "fft.irfftn",
    "fft.hfft(x, n=None, axis=-1, norm='backward')": "fft.hfft",
    "fft.ihfft(x, n=None, axis=-1, norm='backward')": "fft.ihfft",
    "fft.fftshift(x, axes=None)": "fft.fftshift",
    "fft.ifftshift(x, axes=(0,))": "fft.ifftshift",
}
PLAIN = {
    "arange(1, stop=5, step=2, dtype=None, device=None)": "arange",
    "empty((2, 3), dtype=float32, device=None)": "empty",
    "eye(2, 3, k=1, dtype=None, device=None)": "eye",
    "from_dlpack(A)": "from_dlpack",
    "full((2,), 1.5, dtype=None, device=None)": "full",
    "linspace(0.0, 1.0, 5, dtype=None, device=None, endpoint=False)": "linspace",
    "ones(3, dtype=None, device=None)": "ones",
    "zeros((), dtype=None, device=None)": "zeros",
    "iinfo(I8)": "iinfo",
    "isdtype(float32, ('real floating', 'complex floating'))": "isdtype",
    "broadcast_shapes((2, 1), (3,))": "broadcast_shapes",
    "bitwise_and(I8, I8)": "bitwise_and",
    "bitwise_left_shift(I8, 2)": "bitwise_left_shift",
    "bitwise_invert(I8)": "bitwise_invert",
    "bitwise_or(I8, 3)": "bitwise_or",
    "bitwise_right_shift(I8, 1)": "bitwise_right_shift",
    "bitwise_xor(I8, I8)": "bitwise_xor",
    "fft.fftfreq(5, d=0.5, dtype=float32, device=None)": "fft.fftfreq",
    "fft.rfftfreq(5, d=0.5, dtype=float32, device=None)": "fft.rfftfreq",
}
# What a dual cannot have: values that are no numbers, and draws of memory.
WITHOUT_TANGENT = {"empty_like", "can_cast", "result_type", "finfo"}


def call(expression, x):
    """Return the value of a call of a function of dg, with the arrays above for arguments."""
    known = {name: getattr(dg, name) for name in (*dg.array_api.NAMES, "asarray")}
    return eval(f"dg.{expression}", globals() | known, {"x": x, "dg": dg})


def parts(result):
    return list(result) if isinstance(result, (tuple, list)) else [result]


def test_the_calls_below_name_the_whole_standard():
    tried = {*DIFFERENTIABLE.values(), *PLAIN.values(), *CONSTANTS.split(), *DTYPES.split()}
    main = {name for name in tried if "." not in name}
    assert main == (dg.array_api.NAMES - {"linalg", "fft"}) | {"asarray"}
    assert len([name for name in tried if name.startswith("linalg.")]) == 25
    assert len([name for name in tried if name.startswith("fft.")]) == 14
    assert main <= {*dir(dg)} and dg.__array_api_version__ == VERSION


def test_constants_and_dtypes_are_those_of_numpy():
    assert (dg.e, dg.pi, dg.inf, dg.newaxis) == (np.e, np.pi, np.inf, None) and np.isnan(dg.nan)
    assert all(np.dtype(getattr(dg, name)).name == name for name in DTYPES.split())


@pytest.mark.parametrize("expression", [*DIFFERENTIABLE, *PLAIN])
def test_every_function_takes_the_standards_arguments(expression):
    for item in parts(call(expression, A)):
        if getattr(item, "dtype", None) in (np.float32, np.float64):
            assert not np.isnan(item).any()


@pytest.mark.parametrize("expression", DIFFERENTIABLE)
def test_every_function_takes_floating_duals(expression):
    """The same value, and the derivative along a direction as central differences find it."""
    v = np.cos(np.arange(6.0)).reshape(2, 3)
    if DIFFERENTIABLE[expression] in WITHOUT_TANGENT:
        assert repr(call(expression, dg.dual(A, v)))[:20] != ""
        return
    y, dy = dg.jvp(lambda x: call(expression, x), (A,), (v,))
    h = 1e-6
    ahead, behind = parts(call(expression, A + h * v)), parts(call(expression, A - h * v))
    for found, slope, one, other in zip(parts(y), parts(dy), ahead, behind, strict=True):
        expected = (np.asarray(one) * 1.0 - other) / (2 * h)
        loose = 0.3 if found.dtype == np.float32 else 1e-7
        np.testing.assert_allclose(slope, expected, rtol=1e-7, atol=loose)
    for found, plain in zip(parts(y), parts(call(expression, A)), strict=True):
        np.testing.assert_allclose(found, plain, rtol=1e-14)
        assert found.dtype == np.asarray(plain).dtype and found.shape == np.shape(plain)


def test_duals_say_that_dg_is_their_namespace_and_have_the_standards_attributes():
    x = dg.dual(A, B)
    assert x.__array_namespace__() is dg and x.__array_namespace__(api_version=VERSION) is dg
    assert (x.dtype, x.shape, x.size, x.ndim, x.device) == (np.dtype(float), (2, 3), 6, 2, "cpu")
    np.testing.assert_array_equal(x.T.tangent, B.T)
    np.testing.assert_array_equal(x.mT.tangent, B.T)
    with pytest.raises(dg.ConversionError, match="__dlpack__"):
        dg.from_dlpack(x)
    assert x.to_device("cpu") is x
    with pytest.raises(dg.OptionError, match="device='tpu'"):
        x.to_device("tpu")
    operators = "abs add eq ge getitem gt iadd imul ipow isub itruediv le lt matmul mul ne neg pos "
    operators += "pow radd rmatmul rmul rpow rsub rtruediv setitem sub truediv bool complex float "
    operators += "int floordiv mod rfloordiv rmod ifloordiv imod imatmul"
    assert [name for name in operators.split() if not hasattr(x, f"__{name}__")] == []


def test_the_inspection_object_knows_what_numpy_knows():
    info = dg.__array_namespace_info__()
    assert info.capabilities() == {
        "boolean indexing": True,
        "data-dependent shapes": True,
        "max dimensions": 64,
    }
    assert (info.default_device(), list(info.devices())) == ("cpu", ["cpu"])
    assert info.default_dtypes()["real floating"] == np.float64
    assert {*info.dtypes()} == {*DTYPES.split()}


def test_asarray_keeps_duals_and_joins_lists_of_them():
    x = dg.dual(A, B)
    assert dg.asarray(x) is x and dg.asarray(x, copy=False) is x
    copied = dg.asarray(x, copy=True)
    assert copied is not x and not np.shares_memory(dg.primal(copied), dg.primal(x))
    assert dg.asarray(x, dtype=np.float32).tangent.dtype == np.float32
    joined = dg.asarray([[x[0, 0], 2.0], [x[1, 1], x[1, 2]]])
    np.testing.assert_array_equal(joined.tangent, [[B[0, 0], 0], [B[1, 1], B[1, 2]]])
    for refused in (
        lambda: dg.asarray(x, dtype=np.float32, copy=False),
        lambda: dg.asarray([x, x], copy=False),
    ):
        with pytest.raises(ValueError, match="copy=False"):
            refused()
    with pytest.raises(dg.DeviceError, match="'gpu'"):
        dg.asarray(x, device="gpu")
    np.testing.assert_array_equal(dg.asarray([1, 2], dtype=dg.int8), np.array([1, 2], np.int8))


@pytest.mark.parametrize("descending", [False, True])
def test_sort_and_argsort_keep_the_order_of_equal_entries(descending):
    x, v = np.array([2.0, 1.0, 2.0, 1.0, 3.0]), np.arange(5.0)
    order = dg.argsort(dg.dual(x, v), descending=descending)
    expected = sorted(range(5), key=lambda i: (-x[i] if descending else x[i], i))
    np.testing.assert_array_equal(order, expected)
    y = dg.sort(dg.dual(x, v), descending=descending)
    np.testing.assert_array_equal(dg.primal(y), x[expected])
    np.testing.assert_array_equal(y.tangent, v[expected])
    np.testing.assert_array_equal(dg.sort(x, descending=descending), x[expected])
    columns = np.stack([x, -x], axis=1)
    sign = -1 if descending else 1
    found = dg.sort(columns, axis=0, descending=descending)
    np.testing.assert_array_equal(found, sign * np.sort(sign * columns, axis=0))


def test_results_have_the_dtypes_of_the_standard():
    assert dg.clip(A.astype(np.float32), np.zeros((2, 3)), 1.0).dtype == np.float32
    assert dg.clip(I8, 1, None).dtype == np.int8
    assert dg.clip(dg.dual(A.astype(np.float32), B), np.zeros(3)).tangent.dtype == np.float32
    assert dg.count_nonzero(I8).dtype == np.intp and dg.count_nonzero(I8) == 5
    for name in ("eigvals", "eig"):
        values = getattr(dg.linalg, name)(np.eye(2, dtype=np.float32))
        assert parts(values)[0].dtype == np.complex64
    assert dg.fft.rfftfreq(4, dtype=dg.float32).dtype == np.float32 and dg.fft.fftfreq(4)[2] == -0.5
    assert not np.signbit(dg.sign(np.array([-0.0, 0.0]))).any() and dg.sign(I8).dtype == np.int8
    assert dg.linalg.LinAlgError is np.linalg.LinAlgError and "lstsq" in dir(dg.linalg)
    assert "ifft" in dir(dg.fft)


@pytest.mark.parametrize("kind", ["float32", "float64", "complex64", "complex128"])
def test_limits_are_python_numbers(kind):
    one, real = (
        np.ones(2, kind),
        np.dtype(kind.replace("complex64", "f4").replace("complex128", "f8")),
    )
    for given in (one, one[0], one.dtype, one.dtype.type, kind, dg.dual(one, one)):
        info = dg.finfo(given)
        assert type(info.eps) is type(info.max) is float and info.bits == 8 * real.itemsize
        assert info.dtype == real and np.nextafter(real.type(1), real.type(2)) == 1 + info.eps
    assert (dg.iinfo(I8).max, dg.iinfo(np.int16).min, dg.iinfo(I8[0, 0]).bits) == (127, -(2**15), 8)


def test_names_outside_the_standard_are_no_attributes():
    with pytest.raises(AttributeError, match="'dualgrad' has no attribute 'percentil'"):
        dg.array_api.lookup("percentil")
