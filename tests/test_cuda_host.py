"""The host's stand-in for CUDA: barriers, exchanges, half precision, and what it must refuse."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cuda_host
import numpy as np
import pytest

from dualgrad.kernels import cuda

pytestmark = pytest.mark.skipif(cuda_host.COMPILER is None, reason="there is no g++")

OPTIONS = {
    "float16": ("-DREAL=__half", "-DACC=float", "-DHALF"),
    "float32": ("-DREAL=float", "-DACC=float"),
    "float64": ("-DREAL=double", "-DACC=double"),
}
TEXT = (
    (cuda.FOLDER / "common.cuh").read_text()
    + r"""
#define SCALE(name, factor)                                                              \
  extern "C" __global__ void __launch_bounds__(64)                                       \
      name(const REAL* __restrict__ x, REAL* __restrict__ y, i64 n, double shift) {      \
    for (i64 i = thread_index(); i < n; i += thread_count())                             \
      store(y, i, (ACC)(factor) * load(x, i) + (ACC)shift);                              \
  }
SCALE(twice, 2)
SCALE(thrice, 3)

extern "C" __global__ void row_sums(const REAL* x, REAL* sums, REAL* most, i64 n) {
  ACC total = 0, top = -infinity();
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
    ACC value = load(x, blockIdx.x * n + i);
    total += value;
    top = larger(top, value);
  }
  total = block_sum<64>(total);
  top = block_max<64>(top);
  if (threadIdx.x == 0) {
    store(sums, blockIdx.x, total);
    store(most, blockIdx.x, top);
  }
}

// Each entry moves one place on, through shared memory; without the barrier some would be old.
extern "C" __global__ void turn(const REAL* x, REAL* y, i64 barrier) {
  __shared__ ACC kept[64];
  kept[threadIdx.x] = load(x, blockIdx.x * 64 + threadIdx.x);
  if (barrier) __syncthreads();
  store(y, blockIdx.x * 64 + threadIdx.x, kept[(threadIdx.x + 1) % 64]);
}

extern "C" __global__ void divergent(REAL* x) {
  if (threadIdx.x < 3) __syncthreads();
  store(x, threadIdx.x, 0);
}

extern "C" __global__ void past_the_end(REAL* x, i64 n) { store(x, n, 1); }
"""
)


def device(x):
    """What a kernel's argument looks like: an array with an address."""
    return SimpleNamespace(data=SimpleNamespace(ptr=x.ctypes.data), array=x)


def run(name, dtype, grid, block, *arguments):
    given = [device(x) if isinstance(x, np.ndarray) else x for x in arguments]
    cuda_host.host_kernel(TEXT, OPTIONS[dtype], name)((grid,), (block,), given)


@pytest.mark.parametrize("dtype", OPTIONS)
def test_kernels_that_macros_make_run_over_every_entry(dtype):
    x = np.linspace(-1, 1, 1001).astype(dtype)
    for name, factor in (("twice", 2), ("thrice", 3)):
        y = np.full_like(x, np.nan)
        run(name, dtype, 3, 64, x, y, x.size, 0.5)
        expected = (factor * x.astype(np.float64) + 0.5).astype(dtype)
        np.testing.assert_allclose(y, expected, rtol=4 * np.finfo(dtype).eps, atol=1e-3)


@pytest.mark.parametrize("n", [1, 31, 64, 65, 300])
def test_sums_and_maxima_of_a_block(n):
    x = np.random.default_rng(n).normal(size=(5, n))
    x[1, -1] = np.nan
    sums, most = np.zeros(5), np.zeros(5)
    run("row_sums", "float64", 5, 64, x, sums, most, n)
    np.testing.assert_allclose(sums, x.sum(1), rtol=1e-13)
    np.testing.assert_array_equal(most, x.max(1))


def test_a_missing_barrier_shows_in_one_of_two_blocks():
    x = np.arange(128.0)
    expected = np.roll(x.reshape(2, 64), -1, axis=1)
    y = np.zeros((2, 64))
    run("turn", "float64", 2, 64, x, y, 1)
    np.testing.assert_array_equal(y, expected)
    run("turn", "float64", 2, 64, x, y, 0)
    assert not np.array_equal(y, expected)


def test_threads_that_miss_a_barrier_are_an_error():
    with pytest.raises(RuntimeError, match="wait at different places"):
        run("divergent", "float64", 1, 64, np.zeros(64))


def test_arguments_of_the_wrong_kind_are_an_error():
    x = np.zeros(4)
    for arguments in ((x, x, 4.0, 0.5), (x, x, 4, 1), (x, 4, 4, 0.5), (x, x, 4)):
        with pytest.raises(AssertionError):
            run("twice", "float64", 1, 64, *arguments)


def test_half_precision_rounds_as_numpy_does():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    text = (
        TEXT
        + r"""
    extern "C" __global__ void widened(const REAL* x, float* y, i64 n) {
      for (i64 i = thread_index(); i < n; i += thread_count()) y[i] = load(x, i);
    }
    extern "C" __global__ void narrowed(const float* x, REAL* y, i64 n) {
      for (i64 i = thread_index(); i < n; i += thread_count()) store(y, i, x[i]);
    }
    """
    )

    def call(name, x, y):
        kernel = cuda_host.host_kernel(text, OPTIONS["float16"], name)
        kernel((8,), (64,), [device(x), device(y), x.size])
        return y

    wide = call("widened", halves, np.zeros(halves.size, np.float32))
    np.testing.assert_array_equal(wide, halves.astype(np.float32))
    finite = wide[np.isfinite(wide)]
    next_up, between = np.nextafter(finite, np.float32(np.inf)), (finite + np.roll(finite, 1)) / 2
    edges = np.concatenate([finite, next_up, between, [65519.9, 65520, 1e9, 1e-9]])
    edges = edges.astype(np.float32)
    with np.errstate(over="ignore"):
        expected = edges.astype(np.float16)
    np.testing.assert_array_equal(
        call("narrowed", edges, np.zeros(edges.size, np.float16)), expected
    )


# --- under the sanitizers


def sanitized(*command: str) -> subprocess.CompletedProcess[str]:
    """Run Python where kernels are built with AddressSanitizer and UBSan."""
    names = ("libasan.so", "libubsan.so")
    found = [
        subprocess.run(
            [cuda_host.COMPILER, f"-print-file-name={name}"], capture_output=True, text=True
        ).stdout.strip()
        for name in names
    ]
    if not all(Path(path).is_absolute() for path in found):
        pytest.skip("this g++ has no sanitizers")
    env = {
        **os.environ,
        "LD_PRELOAD": ":".join(found),
        "ASAN_OPTIONS": "detect_leaks=0",
        "DUALGRAD_SANITIZE": "1",
    }
    return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_a_write_past_the_end_is_found():
    folder = str(Path(__file__).parent)
    call = "run('past_the_end', 'float32', 1, 1, np.zeros(1 << 15, np.float32), n)"
    code = (
        f"import sys; sys.path.insert(0, {folder!r}); from test_cuda_host import *; n = %d; {call}"
    )
    assert sanitized("-c", code % ((1 << 15) - 1)).returncode == 0
    result = sanitized("-c", code % (1 << 15))
    assert result.returncode != 0 and "heap-buffer-overflow" in result.stderr


@pytest.mark.slow
def test_all_kernels_pass_their_tests_under_the_sanitizers():
    files = {*Path(__file__).parent.glob("test_cuda_*.py")}
    files = sorted(str(path) for path in files if path.stem != "test_cuda_compile")
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow"]
    options += ["-k", "not float16"]  # it has the indices of float32, and a library to build each
    result = sanitized("-m", "pytest", *options, *files)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
