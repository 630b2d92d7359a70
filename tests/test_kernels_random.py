"""The bits of directions against a slow generator written with Python integers; erf and ndtri."""

import math
import re
import statistics
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings
from slow_philox import slow_philox

from dualgrad.kernels import dispatch, random, special
from dualgrad.kernels.random import cpu

KEY = (0x01234567, 0x89ABCDEF)
DOCUMENT = Path(__file__).parents[1] / "docs" / "directions.md"


@pytest.fixture(params=["never", "always"], ids=["numpy", "numba"])
def form(request, monkeypatch):
    """Run the test with NumPy's form of the kernels alone, then with numba's."""
    if request.param == "always" and not dispatch.numba_available():
        pytest.skip("numba is not installed")
    monkeypatch.setattr(dispatch, "numba_use", request.param)
    return request.param


def slow_matrix_sign(key, row, column, direction, role):
    word = slow_philox((row // 8, column // 16, direction, role), key)[row % 8 // 2]
    half = word >> 16 if row % 2 else word & 0xFFFF
    return -1 if half >> column % 16 & 1 else 1


def slow_vector_sign(key, i, direction, role):
    word = slow_philox((i // 128, 0, direction, role), key)[i // 32 % 4]
    return -1 if word >> i % 32 & 1 else 1


def slow_normal(word):
    return statistics.NormalDist().inv_cdf((word + 0.5) / 2**32)


def slow_matrix_normal(key, row, column, direction, role):
    c1 = 4 * (column // 16) + column % 16 // 4
    return slow_normal(slow_philox((row, c1, direction, role + 16), key)[column % 4])


def slow_vector_normal(key, i, direction, role):
    return slow_normal(slow_philox((i // 4, 0, direction, role + 16), key)[i % 4])


def test_philox_gives_the_published_blocks_of_the_document(form):
    rows = re.findall(
        r"^\|((?: [0-9a-f]{8})+) \|((?: \w+)+) \|((?: \w+)+) \|$", DOCUMENT.read_text(), re.M
    )
    assert len(rows) == 3
    for row in rows:
        counter, key, block = ([int(word, 16) for word in cell.split()] for cell in row)
        assert random.philox(np.array(counter, np.uint32), key).tolist() == block
        assert slow_philox(counter, key) == tuple(block)


def test_philox_is_the_same_for_every_shape_and_beyond_a_chunk(form):
    blocks = cpu.CHUNK + 3
    counter = np.arange(4 * blocks, dtype=np.uint32).reshape(blocks, 4) * np.uint32(2654435761)
    words = random.philox(counter, KEY)
    assert words.shape == counter.shape and words.dtype == np.uint32
    for i in (0, 1, cpu.CHUNK - 1, cpu.CHUNK, blocks - 1):
        assert tuple(words[i].tolist()) == slow_philox(counter[i].tolist(), KEY)
    reshaped = random.philox(counter[:6].reshape(2, 3, 4), KEY)
    assert np.array_equal(reshaped.reshape(6, 4), words[:6])
    assert random.philox(counter[::2], KEY).tolist() == words[::2].tolist()


@given(
    key=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    rows=st.integers(0, 19),
    columns=st.integers(0, 37),
    start=st.integers(0, 2**32 - 3),
    k=st.integers(0, 2),
    role=st.sampled_from([cpu.MATRIX, cpu.LEFT, cpu.RIGHT, cpu.VECTOR, cpu.ACTIVITY]),
)
@example(key=KEY, rows=19, columns=37, start=2**32 - 3, k=2, role=cpu.ACTIVITY)
@settings(max_examples=30)
def test_every_entry_is_where_the_map_says(key, rows, columns, start, k, role):
    directions = range(start, start + k)
    matrix = random.sign_matrix(key, rows, columns, directions, role, np.float32)
    vector = random.sign_vector(key, 7 * columns, (start, start + k), role, np.float64)
    normal_matrix = random.normal_matrix(key, rows, columns, directions, role, np.float64)
    normal_vector = random.normal_vector(key, columns, directions, role, np.float64)
    assert matrix.shape == normal_matrix.shape == (k, rows, columns)
    assert vector.shape == (k, 7 * columns) and normal_vector.shape == (k, columns)
    for i, direction in enumerate(directions):
        for r, c in np.ndindex(rows, columns):
            assert matrix[i, r, c] == slow_matrix_sign(key, r, c, direction, role)
        for j in range(7 * columns):
            assert vector[i, j] == slow_vector_sign(key, j, direction, role)
        expected = [[slow_matrix_normal(key, r, c, direction, role) for c in range(columns)]
                    for r in range(rows)]  # fmt: skip
        np.testing.assert_allclose(normal_matrix[i].ravel(), np.ravel(expected), rtol=1e-15)
        expected = [slow_vector_normal(key, j, direction, role) for j in range(columns)]
        np.testing.assert_allclose(normal_vector[i], expected, rtol=1e-15)


@pytest.mark.parametrize("draw", [random.sign_matrix, random.normal_matrix])
def test_a_panel_is_a_slice_of_the_matrix(draw, form):
    whole = draw(KEY, 40, 70, (2, 5), cpu.MATRIX, np.float32)
    panel = draw(KEY, 13, 21, (3, 5), cpu.MATRIX, np.float32, first=(16, 32))
    assert np.array_equal(panel, whole[1:, 16:29, 32:53])


@pytest.mark.parametrize("first", [(8, 4), (0, 8)])
@pytest.mark.parametrize("draw", [random.sign_matrix, random.normal_matrix])
def test_a_panel_begins_at_a_multiple_of_16_columns(draw, first):
    with pytest.raises(ValueError, match="a multiple of 16"):
        draw(KEY, 8, 16, (0, 1), cpu.MATRIX, np.float32, first=first)


def test_a_sign_panel_begins_at_a_multiple_of_8_rows():
    with pytest.raises(ValueError, match="begins at entry 4; it must be a multiple of 8"):
        random.sign_matrix(KEY, 8, 16, (0, 1), cpu.MATRIX, np.float32, first=(4, 0))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numba_and_numpy_give_the_same_bits(dtype, monkeypatch):
    if not dispatch.numba_available():
        pytest.skip("numba is not installed")

    def draws():
        yield random.sign_matrix(KEY, 129, 1000, (0, 2), cpu.MATRIX, dtype)
        yield random.sign_vector(KEY, 1001, (0, 16), cpu.LEFT, dtype)
        yield random.normal_matrix(KEY, 129, 1000, (0, 2), cpu.MATRIX, dtype)
        yield random.normal_vector(KEY, 1001, (0, 16), cpu.VECTOR, dtype)

    results = {}
    for use in ("never", "always"):
        monkeypatch.setattr(dispatch, "numba_use", use)
        results[use] = [draw.tobytes() for draw in draws()]
        assert all(draw.dtype == dtype and draw.flags.c_contiguous for draw in draws())
    assert results["never"] == results["always"]


def test_each_path_role_and_direction_has_words_of_its_own():
    blocks = [
        random.word_vector(key, 64, (direction, direction + 1), role).tobytes()
        for key in (KEY, (KEY[0], KEY[1] ^ 1), (KEY[0] ^ 1, KEY[1]))
        for direction in (0, 1, 2**32 - 1)
        for role in range(40)
    ]
    assert len(set(blocks)) == 3 * 3 * 40


def test_signs_are_balanced_and_independent_within_four_sigma():
    signs = random.sign_matrix(KEY, 256, 256, (0, 4), cpu.MATRIX, np.float64)
    sigma = 1 / math.sqrt(signs.size)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 4 * sigma
    pairs = [
        signs[:, 1:] * signs[:, :-1],  # rows beside each other
        signs[:, :, 1:] * signs[:, :, :-1],  # columns
        signs[:, 8:] * signs[:, :-8],  # blocks
        signs[:, :, 16:] * signs[:, :, :-16],
        signs[1:] * signs[:-1],  # directions
    ]
    for pair in pairs:
        assert abs(pair.mean()) < 4 / math.sqrt(pair.size)


def test_normals_have_the_moments_of_a_normal_within_four_sigma():
    x = random.normal_matrix(KEY, 256, 256, (0, 4), cpu.MATRIX, np.float64)
    n = x.size
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - mean) < 4 * math.sqrt(variance / n)
    assert abs((x[:, :, 1:] * x[:, :, :-1]).mean()) < 4 / math.sqrt(n * 255 / 256)
    assert abs((x[1:] * x[:-1]).mean()) < 4 / math.sqrt(n * 3 / 4)


# --- erf and ndtri

X = np.concatenate(
    [np.linspace(-7, 7, 2801), np.linspace(0.4765, 0.4775, 101), np.logspace(-300, 0, 301)]
)


def test_erf_is_within_three_units_in_the_last_place():
    expected = np.array([math.erf(x) for x in X])
    assert np.all(np.abs(special.erf(X) - expected) <= 3 * np.spacing(np.abs(expected)))


def test_erf_against_many_digits():
    mpmath = pytest.importorskip("mpmath")
    for x in X[::37].tolist():
        with mpmath.workdps(40):
            expected = mpmath.erf(x)
            assert abs(float(special.erf(np.array([x]))[0]) - expected) <= 3 * math.ulp(
                float(expected)
            )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_erf_keeps_shape_and_dtype_and_knows_its_limits(dtype):
    x = np.array([[0.0, -0.0, np.inf], [-np.inf, np.nan, 0.5]], dtype).T
    y = special.erf(x)
    assert y.dtype == dtype and y.shape == (3, 2)
    expected = np.array([[0.0, -0.0, 1.0], [-1.0, np.nan, dtype(math.erf(0.5))]]).T
    np.testing.assert_array_equal(y, expected.astype(dtype))
    assert np.signbit(y[1, 0]) and not np.signbit(y[0, 0])
    assert special.erf(np.ones((), dtype)).shape == ()
    assert special.erf(np.arange(3)).dtype == np.float64


def test_ndtri_is_the_normal_quantile(form):
    tails = np.logspace(-307, -1, 600)
    u = np.concatenate(
        [tails, 1 - tails[tails > 1e-15], np.linspace(0.001, 0.999, 999), [0.075, 0.925]]
    )
    expected = [statistics.NormalDist().inv_cdf(p) for p in u]
    np.testing.assert_allclose(special.ndtri(u), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ndtri_keeps_shape_and_dtype_and_knows_its_limits(dtype, form):
    u = np.array([[0.0, 1.0, 0.5], [-0.1, 1.1, np.nan]], dtype)
    expected = np.array([[-np.inf, np.inf, 0.0], [np.nan] * 3], dtype)
    z = special.ndtri(u.T)
    assert z.dtype == dtype
    np.testing.assert_array_equal(z, expected.T)
