"""Keys, and the draws under a key."""

import copy
import doctest
import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from dualgrad import random
from dualgrad.errors import DtypeError, OptionError
from dualgrad.kernels.random import word_vector
from dualgrad.random import Key

FLOATS = [np.float16, np.float32, np.float64]


def test_the_vectors_of_the_document_hold():
    document = Path(__file__).parents[1] / "docs" / "directions.md"
    result = doctest.testfile(str(document), module_relative=False)
    assert result.attempted > 15 and result.failed == 0


@pytest.mark.parametrize("seed", [0, 7, 2**32, 2**64 - 1, np.int64(5), np.uint64(2**64 - 1)])
def test_a_key_is_its_two_words(seed):
    key = Key(seed)
    assert key.words.dtype == np.uint32 and key.words.shape == (2,)
    assert int(key.words[0]) + 2**32 * int(key.words[1]) == seed
    assert Key.from_words(key.words) == key and hash(Key.from_words(key.words)) == hash(key)
    assert eval(repr(key)) == key
    assert pickle.loads(pickle.dumps(key)) == key == copy.deepcopy(key)
    assert key != int(seed) and key != Key(int(seed) ^ 1)


def test_a_key_cannot_change():
    key = Key(3)
    key.words[0] = 9
    assert key == Key(3)
    for name in ("words", "_value", "other"):
        with pytest.raises(AttributeError, match=f"immutable: {name} cannot be set"):
            setattr(key, name, 1)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "7", None, True, np.float64(2)])
def test_a_seed_is_a_non_negative_integer_below_2_to_64(seed):
    with pytest.raises(OptionError, match="^Key: seed is .* It must be"):
        Key(seed)


@pytest.mark.parametrize("words", [(1,), (1, 2, 3), (2**32, 0), (-1, 0), (0.5, 1)])
def test_from_words_wants_two_words(words):
    with pytest.raises(OptionError, match="Key.from_words: "):
        Key.from_words(words)


def test_no_two_children_of_a_key_are_the_same():
    key = Key(11)
    numbers = [*range(2000), *(2**i for i in range(11, 64)), 2**64 - 1]
    children = [
        key,
        *key.split(2000),
        *map(key.fold_in, numbers),
        *(key.fold_in(str(number)) for number in numbers),
        *(key.fold_in(text) for text in ("", "a", "b.a", "b.", "é")),
        *Key(12).split(2000),
        *key.fold_in(0).split(2000),
    ]
    assert len(set(children)) == len(children)


def test_split_grows_without_changing_its_first_keys():
    key = Key(5)
    assert key.split(5)[:2] == key.split(2) == key.split()
    assert key.split(0) == ()


@pytest.mark.parametrize(
    "call", [lambda k: k.fold_in(-1), lambda k: k.fold_in(2**64), lambda k: k.fold_in(1.5),
             lambda k: k.fold_in(b"a"), lambda k: k.split(-1), lambda k: k.split(2.0)],
)  # fmt: skip
def test_children_are_named_by_integers_or_strings(call):
    with pytest.raises(OptionError, match="must be"):
        call(Key(1))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("draw", [random.uniform, random.normal, random.rademacher])
@pytest.mark.parametrize("shape", [(), 4, (0,), (3, 0, 2), (2, 3)])
def test_draws_have_the_shape_and_dtype_asked_for(draw, shape, dtype):
    x = draw(Key(1), shape, dtype)
    assert type(x) is np.ndarray and x.dtype == dtype
    assert x.shape == (shape if isinstance(shape, tuple) else (shape,))
    assert np.array_equal(x, draw(Key(1), shape, dtype))
    assert np.array_equal(x.ravel(), draw(Key(1), x.size + 300, dtype)[: x.size])
    assert draw(Key(1), shape).dtype == np.float64


@pytest.mark.parametrize("dtype, bits", [(np.float16, 11), (np.float32, 24), (np.float64, 53)])
def test_uniform_numbers_are_all_multiples_of_a_power_of_two_below_one(dtype, bits):
    x = random.uniform(Key(2), 20000, dtype).astype(np.float64)
    scaled = x * 2.0**bits
    assert np.array_equal(scaled, np.trunc(scaled)) and np.any(scaled % 2 == 1)
    assert x.min() >= 0 and x.max() < 1
    words = word_vector(Key(2).words, 2, range(1), 32)[0].tolist()
    top = (words[0] + 2**32 * words[1]) >> 11 if bits == 53 else words[0] >> (32 - bits)
    assert scaled[0] == top


def test_uniform_numbers_are_uniform_within_four_sigma():
    n = 100_000
    x = random.uniform(Key(3), n)
    for power in (1, 2, 3):
        mean, second = 1 / (power + 1), 1 / (2 * power + 1)
        assert abs((x**power).mean() - mean) < 4 * math.sqrt((second - mean**2) / n)
    counts = np.bincount((x * 20).astype(int), minlength=20)
    chi_square = ((counts - n / 20) ** 2 / (n / 20)).sum()  # mean 19, variance 38
    assert abs(chi_square - 19) < 4 * math.sqrt(38)


def test_normal_and_rademacher_have_their_moments_within_four_sigma():
    n = 100_000
    x = random.normal(Key(4), n)
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - mean) < 4 * math.sqrt(variance / n)
    signs = random.rademacher(Key(4), n)
    assert set(np.unique(signs)) == {-1.0, 1.0} and abs(signs.mean()) < 4 / math.sqrt(n)
    assert abs((signs * x).mean()) < 4 / math.sqrt(n)  # the same key, other words


@pytest.mark.parametrize("p", [0, 0.3, 0.5, 0.999, 1, np.float32(0.25)])
def test_bernoulli_is_true_with_probability_p(p):
    n = 50_000
    x = random.bernoulli(Key(5), (n // 10, 10), p)
    assert x.dtype == bool and x.shape == (n // 10, 10)
    assert abs(x.mean() - p) <= 4 * math.sqrt(p * (1 - p) / n)
    assert not np.any(random.bernoulli(Key(5), n, p / 2) & ~x.ravel())  # grows with p


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_bernoulli_wants_a_probability(p):
    with pytest.raises(OptionError, match="bernoulli: p is .* from 0 to 1"):
        random.bernoulli(Key(5), 3, p)


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_permutation_holds_each_index_once(n):
    order = random.permutation(Key(6), n)
    assert order.dtype == np.int64 and order.shape == (n,)
    assert np.array_equal(np.sort(order), np.arange(n))


def test_permutations_are_uniform_within_four_sigma():
    n = 6000
    orders = [tuple(random.permutation(key, 3).tolist()) for key in Key(8).split(n)]
    counts = np.array([orders.count(order) for order in sorted(set(orders))])
    assert len(counts) == 6
    assert np.all(np.abs(counts - n / 6) < 4 * math.sqrt(n * (1 / 6) * (5 / 6)))


@pytest.mark.parametrize("draw", [random.uniform, random.normal, random.rademacher])
@pytest.mark.parametrize("dtype", [np.int32, np.complex64, bool, np.longdouble, object])
def test_draws_are_floating(draw, dtype):
    with pytest.raises(DtypeError, match="dtype is .* Use float16, float32 or float64"):
        draw(Key(1), 3, dtype)


@pytest.mark.parametrize("shape", [-1, (2, -1), 1.5, (1.0,), "ab"])
def test_a_shape_holds_non_negative_integers(shape):
    with pytest.raises(OptionError, match="uniform: a length in shape is .* It must be"):
        random.uniform(Key(1), shape)
    with pytest.raises(OptionError, match="bernoulli: a length in shape"):
        random.bernoulli(Key(1), shape)
