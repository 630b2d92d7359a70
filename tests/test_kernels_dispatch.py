"""Choosing a twin by array type, and numba loops by size, dtype and availability."""

import sys

import numpy as np
import pytest

from dualgrad.kernels import dispatch, pool


class FakeCupyArray:
    """Looks like CuPy's array to dispatch: its type comes from a module named cupy."""


FakeCupyArray.__module__ = "cupy._core.core"


@dispatch.loop("r1 w1 f")
def double(x, y, factor):
    for i in range(x.shape[0]):
        y[i] = x[i] * factor


@pytest.fixture
def no_numba(monkeypatch):
    """A process in which numba is not installed."""
    dispatch._numba.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    yield
    dispatch._numba.cache_clear()


def test_a_cupy_array_goes_to_the_gpu_twin(monkeypatch):
    monkeypatch.setattr("dualgrad.kernels.pool.gpu.max_pool2d", lambda *given: given)
    x = FakeCupyArray()
    assert pool.max_pool2d(x, (2, 2)) == (x, (2, 2))


def test_a_numpy_array_goes_to_the_cpu_function_with_any_keywords():
    def scale(x, by=1, *, shift=0):
        return x * by + shift

    np.testing.assert_array_equal(dispatch.by_array(scale)(np.ones(2), 3, shift=1), [4, 4])
    assert dispatch.by_array(scale).__name__ == "scale"


def test_without_numba_no_loop_wins_and_numpy_answers(no_numba, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_use", "always")
    assert not dispatch.numba_available()
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    assert not double.wins("max_pool2d", 10**9, x)
    y, index = pool.max_pool2d(x, (2, 2))
    np.testing.assert_array_equal(y.ravel(), [5, 7, 13, 15])
    np.testing.assert_array_equal(index.ravel(), [3, 3, 3, 3])


def test_a_numba_that_cannot_import_something_else_is_not_hidden(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'llvmlite'", name="llvmlite")

    dispatch._numba.cache_clear()
    monkeypatch.setattr(dispatch.importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="llvmlite"):
        dispatch.numba_available()
    dispatch._numba.cache_clear()


def test_the_table_decides_by_size_and_dtype(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setitem(dispatch.THRESHOLDS, "double", 100)
    x = np.ones(3, np.float32)
    assert not double.wins("double", 99, x)
    assert double.wins("double", 100, x)
    assert not double.wins("double", 100, x, np.ones(3))  # mixed dtypes
    assert not double.wins("double", 100, np.ones(3, np.float16))
    assert not double.wins("double", 100, np.ones(3, np.complex64))
    assert not double.wins("double", 100, np.ones(3, ">f4"))
    monkeypatch.setattr(dispatch, "numba_use", "never")
    assert not double.wins("double", 100, x)
    monkeypatch.setattr(dispatch, "numba_use", "always")
    assert double.wins("double", 1, x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loop_takes_read_only_arrays(dtype):
    pytest.importorskip("numba")
    x, y = np.array([1, np.nan, np.inf], dtype), np.zeros(3, dtype)
    x.flags.writeable = False
    double(x, y, dtype(2))
    np.testing.assert_array_equal(y, [2, np.nan, np.inf])
    assert len(double.compiled[x.dtype.char].signatures) == 1


@pytest.mark.parametrize("message", ["cannot cache function: no locator available", "other"])
def test_a_folder_that_cannot_hold_the_cache_is_no_error(message, monkeypatch):
    numba = pytest.importorskip("numba")

    def enable_caching(self):
        raise RuntimeError(message)

    monkeypatch.setattr(numba.core.dispatcher.Dispatcher, "enable_caching", enable_caching)
    fresh = dispatch.Loop(double.function, "r1 w1 f", fastmath=True)
    x, y = np.ones(2), np.zeros(2)
    if message == "other":
        with pytest.raises(RuntimeError, match="other"):
            fresh(x, y, 2.0)
    else:
        fresh(x, y, 2.0)
        np.testing.assert_array_equal(y, [2, 2])
