"""The stand-in of CuPy: the rules of the real one, and the lists of what that one lacks."""

import copy
import importlib
import inspect
import pickle
import types

import numpy as np
import pytest
from device_case import installed, no_transfers, real

from dualgrad.kernels.product.gemm import gemm

X = np.arange(6.0).reshape(2, 3)


@pytest.fixture
def standin():
    with installed() as module:
        yield module


@pytest.fixture(params=["standin", "cupy"])
def xp(request):
    """The stand-in, and CuPy where it has a device: both must show what is asserted here."""
    if request.param == "standin":
        with installed() as module:
            yield module
    elif (module := real()) is None:
        pytest.skip("no CUDA device")
    else:
        yield module


# --- what may meet what


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, host: x + host,
        lambda x, host: host + x,
        lambda x, host: x * np.array(2.0),
        lambda x, host: x @ host.T,
        lambda x, host: np.add(x, host),
        lambda x, host: np.add(x, [1.0, 2.0, 3.0]),
        lambda x, host: np.concatenate([x, host]),
        lambda x, host: np.where(x > 1, x, host),
        lambda x, host: np.add(x, host, out=host),
        lambda x, host: host.__iadd__(x),
        lambda x, host: np.dot(x, host.T),
        lambda x, host: x + "a",
    ],
)
def test_numpy_arrays_and_foreign_objects_are_refused(xp, mix):
    with pytest.raises(TypeError):
        mix(xp.asarray(X), X.copy())


def test_nothing_becomes_a_numpy_array_by_itself(xp):
    x = xp.asarray(X)
    for convert in (np.asarray, np.array, lambda x: np.array([x, x]), np.ascontiguousarray):
        with pytest.raises(TypeError, match="Implicit conversion to a NumPy array is not allowed"):
            convert(x)
    with pytest.raises(ValueError, match="cannot be used for fill"):
        x[0] = X[0]


def test_numbers_are_weak_and_numpys_scalars_are_not(xp):
    x = xp.asarray(X, dtype=np.float32)
    assert (2.0 * x + 1).dtype == np.float32
    assert (x * np.float64(2)).dtype == (np.float64(2) * x).dtype == np.float64
    assert (x.sum() * 2.0).dtype == np.float32


def test_classes_with_numpys_protocol_are_asked(xp):
    class Asked:
        def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
            return ufunc, len(inputs)

    assert xp.asarray(X) + Asked() == Asked() + xp.asarray(X) == (np.add, 2)


def test_methods_of_ufuncs_are_those_that_cupy_has(xp):
    x = xp.asarray(X)
    assert np.array_equal(np.add.reduce(x, axis=0).get(), X.sum(0))
    assert np.array_equal(np.subtract.outer(x[0], x[1]).get(), np.subtract.outer(X[0], X[1]))
    xp.add.at(x, (0,), 1.0)  # np.add.at would not reach it: its index is a tuple
    assert np.array_equal(x[0].get(), X[0] + 1)
    for call in (lambda: np.maximum.reduce(x), lambda: np.subtract.accumulate(x)):
        with pytest.raises(NotImplementedError, match="is not supported yet"):
            call()


@pytest.mark.parametrize(
    "call",
    [
        np.spacing,
        np.linalg.trace,
        lambda x: np.vecdot(x, x),
        lambda x: np.linalg.vector_norm(x),
        lambda x: np.broadcast_shapes(x, x),
        lambda x: np.sum(x, initial=1.0),
        lambda x: x.sum(where=x > 0),
        lambda x: np.var(x, correction=1),
        lambda x: range(x[0, 0].astype(int)),
        lambda x: np.full(2, 3.0, like=x),
        lambda x: np.add.at(x, (0,), 1.0),
        lambda x: np.stack([x[0, 0], 1.0]),
        hash,
    ],
)
def test_what_cupy_lacks_is_lacking(xp, call):
    with pytest.raises(TypeError):
        call(xp.asarray(X))


def test_there_is_no_writeable_flag(xp):
    assert not hasattr(xp.asarray(X).flags, "writeable")
    assert xp.asarray(X).flags.c_contiguous and not xp.asarray(X).T.flags.c_contiguous


# --- values


def test_results_are_device_arrays_with_numpys_values(xp):
    x = xp.asarray(X)
    for call in (
        np.exp, np.negative, lambda x: -x, lambda x: 2 - x, lambda x: x @ x.T, abs,
        lambda x: x.T, lambda x: x.mT, lambda x: x[:, 1], lambda x: x[x > 2], lambda x: x[[1, 0]],
        lambda x: np.where(x > 2, x, 0), lambda x: np.stack([x, x], -1), lambda x: x.astype("f4"),
        lambda x: x.reshape(3, 2),
        lambda x: np.sum(x, axis=0), lambda x: x.max(axis=1, keepdims=True),
        lambda x: np.einsum("ij,kj->ik", x, x), lambda x: np.linalg.norm(x, axis=1),
        lambda x: np.fft.rfft(x), lambda x: np.zeros_like(x), lambda x: np.zeros(3, like=x),
        lambda x: np.asarray(x, like=x), lambda x: np.asarray([1, 2], like=x), lambda x: x // 2,
        lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, axis=1), lambda x: x.ravel() > 2,
        lambda x: np.take_along_axis(x, np.argsort(-x, axis=1), 1), lambda x: divmod(x, 2)[1],
    ):  # fmt: skip
        y, expected = call(x), call(X)
        assert type(y) is xp.ndarray and type(y).__module__ == "cupy"
        assert (y.shape, y.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(xp.asnumpy(y), expected, rtol=1e-12)


def test_reductions_and_entries_are_arrays_of_shape_nothing(xp):
    x = xp.asarray(X)
    found = x.sum(), np.max(x), x[1, 2], np.linalg.norm(x), np.argmax(x), np.allclose(x, x)
    assert all(type(y) is xp.ndarray and y.shape == () for y in found)
    assert [float(y) for y in found[:3]] == [15, 5, 5] and bool(found[5])
    entry = x[1, 2]
    entry[...] = 9
    assert x[1, 2].item() == 9  # a view, where NumPy gives a number


def test_writing_and_copying(xp):
    x = xp.asarray(X)
    x[0] = 7
    x[:, 1] = x[:, 0]
    x += 1
    x @= xp.eye(3)
    expected = X.copy()
    expected[0], expected[:, 1] = 7, [7, 3]
    assert np.array_equal(x.get(), expected + 1)
    for twin in (x.copy(), copy.deepcopy(x), pickle.loads(pickle.dumps(x)), xp.array(x)):
        twin[...] = 0
    assert x.max() == 8 and xp.asarray(x) is x
    assert np.array_equal(X, np.arange(6.0).reshape(2, 3))  # asarray copied to the device


def test_empty_memory_shows(standin):
    assert np.isnan(standin.empty(3, np.float32).get()).all()
    assert (standin.empty(3, int).get() > 1 << 60).all()


# --- transfers


@pytest.mark.parametrize(
    "leave",
    [
        float,
        bool,
        int,
        repr,
        lambda x: x.item(),
        lambda x: x.get(),
        lambda x: x.tolist(),
        lambda x: x[x > 3],
        np.nonzero,
        np.unique,
        lambda x: f"{x}",
        lambda x: 1 in x.ravel(),
    ],
)
def test_what_waits_for_the_device_goes_through_one_function(xp, leave):
    x = xp.asarray([[2.5]])
    leave(x[0, 0] if leave in (float, bool, int) else x)
    with pytest.raises((AssertionError, RuntimeError)), no_transfers(xp):
        leave(x[0, 0] if leave in (float, bool, int) else x)


def test_computing_waits_for_nothing(xp):
    x = xp.asarray(X)
    with no_transfers(xp):
        y = np.exp(x) @ x.T
        y[0] = np.where(y[0] > 1, y[0], 0).sum()
        y += np.linalg.norm(x) + x[:, [0, 1]]


# --- the place of cupy


def test_the_standin_leaves_as_it_came():
    import dualgrad.kernels.cuda as cuda

    with installed() as first:
        assert importlib.import_module("cupy") is first is cuda.cupy() and not cuda.missing()
        assert first.cuda.runtime.getDeviceCount() == 1 and first.cuda.Device(0).id == 0
    with installed() as second:
        assert second.ndarray is first.ndarray
    try:
        after = importlib.import_module("cupy")
    except ModuleNotFoundError:
        return
    assert after is not first


# --- the lists, against the real one


@pytest.fixture
def cupy():
    module = pytest.importorskip("cupy", reason="CuPy is not installed to compare with")
    assert "standin" not in module.__file__
    return module


@pytest.fixture
def standin_names(cupy):
    with installed() as module:
        return importlib.import_module(f"{module.__name__}._names")


def functions(module):
    return {
        name: thing
        for name in dir(module)
        if not name.startswith("_")
        and callable(thing := getattr(module, name))
        and not isinstance(thing, (type, types.ModuleType))
    }


def parameters(function):
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def test_cupys_own_guard_tells_what_waits(cupy):
    with no_transfers(cupy), pytest.raises(RuntimeError, match="synchronization was detected"):
        cupy.cuda.Device(0).synchronize()


@pytest.mark.parametrize("path", ["", "linalg", "fft"])
def test_names_and_parameters_that_cupy_lacks(cupy, standin_names, path):
    names = standin_names
    mine, theirs = (getattr(m, path) if path else m for m in (np, cupy))
    given = functions(mine)
    lacking = {name for name in given if not hasattr(theirs, name)}
    assert lacking == set(names.LACKING[path])
    shared = {name for name in given if getattr(theirs, name, None) is given[name]}
    assert not path and shared == set(names.SHARED) or not shared
    for name in given.keys() - lacking - shared:
        of_numpy, of_cupy = map(parameters, (given[name], getattr(theirs, name)))
        if isinstance(given[name], np.ufunc) or None in (of_numpy, of_cupy) or "kwargs" in of_cupy:
            continue
        missing = of_numpy - of_cupy - {"subok", "like"}
        assert missing <= names.lacking_parameters(path, name), name


def test_methods_that_cupy_lacks(cupy, standin_names):
    lacking = {name for name in dir(np.ndarray) if not name.startswith("_")} - set(
        dir(cupy.ndarray)
    )
    assert lacking == set(standin_names.METHODS_LACKING)


def test_a_captured_kernel_runs_when_its_graph_does(xp):
    ones, product = xp.ones((2, 2)), xp.zeros((2, 2))
    gemm(ones, ones, out=product)  # compiled beforehand, as it must be
    ones.dot(ones, product)  # and cuBLAS begun
    product[...] = 0
    stream = xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        gemm(ones, ones, out=product)
        with pytest.raises(NotImplementedError, match="cuBLAS"):
            ones.dot(ones, product)
        graph = stream.end_capture()
    assert xp.asnumpy(product).max() == 0
    graph.launch()
    np.testing.assert_array_equal(xp.asnumpy(product), 2)
