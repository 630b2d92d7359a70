"""What the device draws: the CPU's words and signs exactly, its normals to the last places."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgrad.kernels.random import LEFT, MATRIX, RIGHT, cpu, gpu

DTYPES = (np.float16, np.float32, np.float64)
KEY = np.array([0x87C6D8B6, 0xC8BC24CA], np.uint32)

sizes = st.sampled_from([0, 1, 3, 4, 5, 8, 16, 17, 127, 128, 129, 260, 1000])
rows = st.sampled_from([0, 1, 2, 7, 8, 9, 33, 70])
columns = st.sampled_from([0, 1, 3, 4, 10, 16, 17, 33, 130, 530])
directions = st.sampled_from(
    [(0, 1), (5, 8), range(2, 9, 3), range(4, 4), (0xFFFFFFFE, 0xFFFFFFFF)]
)
dtypes = st.sampled_from(DTYPES)

pytestmark = pytest.mark.usefixtures("numpy_alone")


def same_bits(device, drawn, expected):
    assert drawn.dtype == expected.dtype
    np.testing.assert_array_equal(device.asnumpy(drawn), expected)


def same_normals(device, drawn, expected):
    assert (drawn.shape, drawn.dtype) == (expected.shape, expected.dtype)
    if expected.size:  # assert_array_max_ulp takes no empty arrays
        np.testing.assert_array_max_ulp(device.asnumpy(drawn), expected, maxulp=2)


def test_the_published_vectors(device):
    counters = np.array(
        [[0] * 4, [0xFFFFFFFF] * 4, [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]]
    )
    keys = np.array([[0, 0], [0xFFFFFFFF] * 2, [0xA4093822, 0x299F31D0]], np.uint32)
    words = ["6627e8d5 e169c58d bc57ac4c 9b00dbd8", "408f276d 41c83b0e a20bc7c6 6d5451fd",
             "d16cfe09 94fdcceb 5001e420 24126ea1"]  # fmt: skip
    for counter, key, expected in zip(counters, keys, words, strict=True):
        drawn = device.asnumpy(gpu.philox(device.asarray(counter.astype(np.uint32)), key))
        assert [f"{word:08x}" for word in drawn] == expected.split()


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (3, 50, 4)])
def test_words_of_counters(device, shape):
    counters = np.random.default_rng(1).integers(0, 1 << 32, shape, np.uint32)
    same_bits(device, gpu.philox(device.asarray(counters), KEY), cpu.philox(counters, KEY))


@settings(max_examples=20)
@given(size=sizes, which=directions)
def test_words_of_vectors(device, size, which):
    drawn = gpu.word_vector(KEY, size, which, 77)
    same_bits(device, drawn, cpu.word_vector(KEY, size, which, 77))


@settings(max_examples=30)
@given(rows=rows, columns=columns, which=directions, dtype=dtypes)
def test_signs_of_matrices(device, rows, columns, which, dtype):
    drawn = gpu.sign_matrix(KEY, rows, columns, which, MATRIX, dtype)
    same_bits(device, drawn, cpu.sign_matrix(KEY, rows, columns, which, MATRIX, dtype))


@settings(max_examples=20)
@given(size=sizes, which=directions, dtype=dtypes)
def test_signs_of_vectors(device, size, which, dtype):
    drawn = gpu.sign_vector(KEY, size, which, LEFT, dtype)
    same_bits(device, drawn, cpu.sign_vector(KEY, size, which, LEFT, dtype))


@settings(max_examples=20)
@given(rows=rows, columns=columns, which=directions, dtype=dtypes)
def test_normals_of_matrices(device, rows, columns, which, dtype):
    drawn = gpu.normal_matrix(KEY, rows, columns, which, MATRIX, dtype)
    same_normals(device, drawn, cpu.normal_matrix(KEY, rows, columns, which, MATRIX, dtype))


@settings(max_examples=20)
@given(size=sizes, which=directions, dtype=dtypes)
def test_normals_of_vectors(device, size, which, dtype):
    drawn = gpu.normal_vector(KEY, size, which, RIGHT, dtype)
    same_normals(device, drawn, cpu.normal_vector(KEY, size, which, RIGHT, dtype))


def test_a_panel_is_a_part_of_the_matrix(device):
    for draw, first in ((gpu.sign_matrix, (8, 32)), (gpu.normal_matrix, (5, 32))):
        whole = device.asnumpy(draw(KEY, 40, 100, (0, 2), MATRIX, np.float32))
        panel = device.asnumpy(draw(KEY, 11, 37, (0, 2), MATRIX, np.float32, first=first))
        down, right = first
        np.testing.assert_array_equal(panel, whole[:, down : down + 11, right : right + 37])


@pytest.mark.parametrize("first", [(4, 0), (0, 8)])
def test_a_panel_begins_at_a_block(device, first):
    with pytest.raises(ValueError, match="a panel begins at entry"):
        gpu.sign_matrix(KEY, 8, 16, (0, 1), MATRIX, np.float32, first=first)


def test_normals_agree_far_out_in_both_tails(device):
    drawn = gpu.normal_vector(KEY, 1 << 17, (0, 1), LEFT, np.float64)
    expected = cpu.normal_vector(KEY, 1 << 17, (0, 1), LEFT, np.float64)
    assert expected.min() < -4 and expected.max() > 4
    same_normals(device, drawn, expected)


def test_a_key_on_the_device_is_read_there(device):
    for draw in (gpu.sign_matrix, gpu.normal_matrix):
        host = draw(KEY, 9, 20, (0, 2), MATRIX, np.float32)
        there = draw(device.asarray(KEY), 9, 20, (0, 2), MATRIX, np.float32)
        np.testing.assert_array_equal(device.asnumpy(there), device.asnumpy(host))
    vector = gpu.sign_vector(device.asarray(KEY), 200, (0, 2), LEFT, np.float32)
    same_bits(device, vector, cpu.sign_vector(KEY, 200, (0, 2), LEFT, np.float32))


def test_a_dtype_without_kernels_is_refused(device):
    with pytest.raises(TypeError, match="int8"):
        gpu.sign_matrix(KEY, 8, 16, (0, 1), MATRIX, np.int8)
