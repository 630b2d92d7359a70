"""Softmax, its logarithm and cross-entropy against scipy and against mpmath."""

import mpmath
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgrad.kernels import softmax
from dualgrad.kernels.softmax import cpu

DTYPES = st.sampled_from([np.float16, np.float32, np.float64])
CLASSES = st.sampled_from([1, 2, 10, cpu.FEW_CLASSES, cpu.FEW_CLASSES + 1, 100])


@given(
    lead=st.sampled_from([(), (1,), (7,), (2, 3), (0,), (3, 0)]),
    classes=CLASSES,
    dtype=DTYPES,
    spread=st.sampled_from([0.1, 3.0, 1000.0]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=150)
def test_values_are_scipys(lead, classes, dtype, spread, seed):
    generator = np.random.default_rng(seed)
    x = (spread * generator.normal(size=(*lead, classes))).astype(dtype)
    labels = generator.integers(0, classes, lead)
    exact = x.astype(np.float64)
    probabilities = scipy.special.softmax(exact, axis=-1)
    log_probabilities = scipy.special.log_softmax(exact, axis=-1)
    sums = exact - log_probabilities  # logsumexp in every column; scipy's own dislikes lead 0
    losses = -np.take_along_axis(log_probabilities, labels[..., None], -1)[..., 0]
    results = softmax.cross_entropy(x, labels)
    pairs = [
        (softmax.softmax(x), probabilities),
        (softmax.log_softmax(x), log_probabilities),
        (softmax.logsumexp(x), sums[..., 0]),
        (results[0], losses),
        (results[1], probabilities),
    ]
    tolerance = 20 * float(np.finfo(dtype).eps)
    scale = 1 + float(np.abs(exact).max(initial=0))
    for got, expected in pairs:
        assert got.dtype == dtype and got.shape == expected.shape
        assert got.flags.c_contiguous
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("classes", [3, 40])
def test_double_precision_is_right_to_a_few_units(classes):
    x = np.random.default_rng(3).normal(size=(2, classes)) * 5
    with mpmath.workdps(40):
        for row, total, losses in zip(x, softmax.logsumexp(x), softmax.log_softmax(x), strict=True):
            exact = mpmath.log(mpmath.fsum(mpmath.exp(v) for v in map(float, row)))
            assert abs(exact - float(total)) < 4e-15 * (1 + abs(exact))
            assert abs(float(row[0]) - exact - float(losses[0])) < 4e-14


@pytest.mark.parametrize("classes", [4, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infinite_and_nan_rows(classes, dtype):
    """Rows: one -inf; all -inf; one +inf; a NaN; huge; tiny. No warning in any of them."""
    x = np.zeros((6, classes), dtype)
    x[0, 0], x[1], x[2, 1], x[3, 1], x[4], x[5] = -np.inf, -np.inf, np.inf, np.nan, 1e30, -1e30
    x[2, 2] = 1e4  # finite beside +inf, and too large for exp
    labels = np.zeros(6, int)
    losses, probabilities = softmax.cross_entropy(x, labels)
    np.testing.assert_array_equal(probabilities, softmax.softmax(x))
    even, few = np.full(classes, 1 / classes), np.full(classes, 1 / (classes - 1))
    few[0] = 0
    expected = np.array([few, 0 * even, 0 * even, 0 * even, even, even])
    expected[1:4] = np.nan
    np.testing.assert_allclose(probabilities, expected, rtol=1e-6)
    assert losses[0] == np.inf and np.isnan(losses[1:4]).all()
    np.testing.assert_allclose(losses[4:], np.log(classes), rtol=1e-6)
    logs = softmax.log_softmax(x)
    assert logs[0, 0] == -np.inf and np.isnan(logs[1:4]).all()
    np.testing.assert_allclose(logs[0, 1:], -np.log(classes - 1), rtol=1e-6)
    sums = softmax.logsumexp(x)
    np.testing.assert_allclose(
        sums, [np.log(classes - 1), -np.inf, np.inf, np.nan, 1e30, -1e30], rtol=1e-6
    )


@pytest.mark.parametrize("classes", [5, 40])
def test_any_strides_and_nothing_is_written(classes):
    whole = np.random.default_rng(0).normal(size=(classes, 6))
    x, copy = whole.T[::-1], whole.T[::-1].copy()
    x.flags.writeable = False
    labels = np.arange(12, dtype=np.uint8)[::2] % classes
    for function in (softmax.softmax, softmax.log_softmax, softmax.logsumexp):
        np.testing.assert_allclose(function(x), function(copy), rtol=1e-13)
    for got, expected in zip(
        softmax.cross_entropy(x, labels),
        softmax.cross_entropy(copy, labels.astype(np.int64)),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-13)
    np.testing.assert_array_equal(x, copy)


@pytest.mark.parametrize("label", [-1, 10, 300])
def test_a_label_that_is_no_class_raises(label):
    labels = np.zeros(4, np.int16)
    labels[2] = label
    with pytest.raises(ValueError, match=f"labels go from .*{label}.* 10 classes"):
        softmax.cross_entropy(np.zeros((4, 10)), labels)
