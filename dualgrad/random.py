"""Keys of the counter-based random generator, and draws under a key.

A key is never used up: the same call with the same key gives the same numbers on every machine, so
what needs its own numbers gets its own key, by `split` or `fold_in`. docs/directions.md has the
construction, bit by bit.
"""

import functools
import hashlib
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from .beside import beside
from .errors import DtypeError, OptionError
from .kernels import random as kernel

Shape = int | tuple[int, ...] | list[int]

# Last counter words: the draws of this module under a key, and the making of new keys. Directions
# have those below 32. Normals add kernel.NORMAL to theirs.
_UNIFORM, _RADEMACHER, _BERNOULLI, _PERMUTATION, _NORMAL = range(32, 37)
_FOLD_INTEGER, _FOLD_STRING, _SPLIT = range(64, 67)
_ONE_STREAM = range(1)


def _integer(value: Any, name: str) -> int:
    """Return value as an int in [0, 2**64), or raise OptionError."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise OptionError(
            f"{name} is {value!r}, a {type(value).__name__}. It must be a non-negative integer."
        ) from None
    if not 0 <= number < 2**64:
        raise OptionError(f"{name} is {number}. It must be at least 0 and below 2**64.")
    return number


def digest(text: str) -> int:
    """Return the 64 bits that stand for text in `Key.fold_in`, as a signed integer."""
    octets = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(octets, "little", signed=True)


class Key:
    """An immutable key of 64 bits, from which all random numbers follow.

    Args:
        seed: an integer, 0 <= seed < 2**64.

    Raises:
        OptionError: seed is no such integer.

    >>> Key(7).fold_in("layers.0.weight") == Key(7).fold_in("layers.0.weight")
    True
    """

    __slots__ = ("_value",)
    _value: int

    def __init__(self, seed: int) -> None:
        object.__setattr__(self, "_value", _integer(seed, "Key: seed"))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Key is immutable: {name} cannot be set. Use split or fold_in.")

    def __reduce__(self) -> tuple[Any, ...]:
        return Key, (self._value,)

    @classmethod
    def from_words(cls, words: Any) -> "Key":
        """Return the key with these two uint32 words: `Key.from_words(key.words) == key`.

        Raises:
            OptionError: words are not two integers in [0, 2**32).
        """
        numbers = [_integer(word, "Key.from_words: a word") for word in words]
        if len(numbers) != 2 or max(numbers) >= 2**32:
            raise OptionError(f"Key.from_words: got {numbers}. Give two integers below 2**32.")
        return cls(numbers[0] | numbers[1] << 32)

    @property
    def words(self) -> np.ndarray:
        """The key's two uint32 words, low word first: a new array of shape (2,)."""
        return np.array([self._value & 0xFFFFFFFF, self._value >> 32], np.uint32)

    def split(self, n: int = 2) -> tuple["Key", ...]:
        """Return n new keys. The first m of split(n) are split(m).

        Raises:
            OptionError: n is not a non-negative integer.
        """
        count = _integer(n, "Key.split: n")
        counters = np.zeros((count, 4), np.uint32)
        counters[:, 0] = np.arange(count, dtype=np.uint32)
        counters[:, 3] = _SPLIT
        return tuple(Key.from_words(row[:2]) for row in kernel.philox(counters, self.words))

    def fold_in(self, value: int | str) -> "Key":
        """Return a new key made of this one and an integer (in [0, 2**64)) or a string.

        Raises:
            OptionError: value is neither.
        """
        if isinstance(value, str):
            return self._derive(digest(value) % 2**64, _FOLD_STRING)
        return self._derive(_integer(value, "Key.fold_in: value"), _FOLD_INTEGER)

    def _derive(self, number: int, role: int) -> "Key":
        counter = np.array([number & 0xFFFFFFFF, number >> 32, 0, role], np.uint32)
        return Key.from_words(kernel.philox(counter, self.words)[:2])

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Key) else NotImplemented

    def __hash__(self) -> int:
        return hash((Key, self._value))

    def __repr__(self) -> str:
        return f"Key(0x{self._value:016x})"


def _shape(shape: Shape, name: str) -> tuple[int, ...]:
    lengths = shape if isinstance(shape, (tuple, list)) else (shape,)
    return tuple(_integer(length, f"{name}: a length in shape") for length in lengths)


def _floating(dtype: Any, name: str) -> np.dtype:
    dtype = np.dtype(dtype)
    if dtype.char not in "efd":
        raise DtypeError(f"{name}: dtype is {dtype}. Use float16, float32 or float64.")
    return dtype


def check_key(key: Any, where: str) -> Key:
    """Return the key; raise OptionError where it is none."""
    if not isinstance(key, Key):
        raise OptionError(f"{where}: key={key!r}; give a dg.random.Key, as Key(0).")
    return key


def _recorded(draw: Callable) -> Callable:
    """Let a plan's key, which replays what is drawn from it, record the draw."""

    @functools.wraps(draw)
    def drawn(key: Any, *args: Any, **kwargs: Any) -> Any:
        check_key(key, f"dg.random.{draw.__name__}")
        record = getattr(key, "record", None)
        return draw(key, *args, **kwargs) if record is None else record(drawn, *args, **kwargs)

    return drawn


def _words(key: Key, size: int, role: int, like: Any = None) -> np.ndarray:
    check_key(key, "dg.random")
    module = kernel.twin(beside(like) is not np)
    return module.word_vector(key.words, size, _ONE_STREAM, role)[0]


def _long_words(key: Key, size: int, role: int) -> np.ndarray:
    """Return uint64 words of shape (size,): two words each, the low one first."""
    words = _words(key, 2 * size, role).astype(np.uint64)
    return words[0::2] | words[1::2] << np.uint64(32)


@_recorded
def uniform(key: Key, shape: Shape = (), dtype: Any = np.float64) -> np.ndarray:
    """Return uniform numbers in [0, 1): multiples of 2**-53, in float32 of 2**-24, float16 2**-11.

    Args:
        key: what the numbers follow from.
        shape: of the result, an integer or a tuple.
        dtype: float16, float32 or float64.

    Raises:
        DtypeError: another dtype.
        OptionError: shape holds something else than non-negative integers.
    """
    dtype, shape = _floating(dtype, "uniform"), _shape(shape, "uniform")
    size, bits = math.prod(shape), np.finfo(dtype).nmant + 1
    if dtype.itemsize == 8:
        integers = _long_words(key, size, _UNIFORM) >> np.uint64(64 - bits)
    else:
        integers = _words(key, size, _UNIFORM) >> np.uint32(32 - bits)
    return (integers * 2.0**-bits).astype(dtype, copy=False).reshape(shape)


@_recorded
def normal(key: Key, shape: Shape = (), dtype: Any = np.float64) -> np.ndarray:
    """Return standard normal numbers, each from one 32-bit word: at most 6.3 in size.

    Arguments and errors as in uniform.
    """
    dtype, shape = _floating(dtype, "normal"), _shape(shape, "normal")
    size = math.prod(shape)
    draws = kernel.normal_vector(key.words, size, _ONE_STREAM, _NORMAL, dtype)
    return draws.reshape(shape)


@_recorded
def rademacher(key: Key, shape: Shape = (), dtype: Any = np.float64) -> np.ndarray:
    """Return +1 and -1 with probability 1/2 each. Arguments and errors as in uniform."""
    dtype, shape = _floating(dtype, "rademacher"), _shape(shape, "rademacher")
    size = math.prod(shape)
    draws = kernel.sign_vector(key.words, size, _ONE_STREAM, _RADEMACHER, dtype)
    return draws.reshape(shape)


@_recorded
def bernoulli(key: Key, shape: Shape = (), p: float = 0.5, *, like: Any = None) -> np.ndarray:
    """Return booleans that are True with probability p, rounded to a multiple of 2**-32.

    Args:
        like: an array or dual beside which they are drawn; None: in host memory.

    Raises:
        OptionError: p is not in [0, 1], or shape as in uniform.
    """
    shape = _shape(shape, "bernoulli")
    if not 0 <= p <= 1:  # nan as well
        raise OptionError(f"bernoulli: p is {p}. It must be a probability, from 0 to 1.")
    threshold = np.uint64(round(float(p) * 2**32))
    return (_words(key, math.prod(shape), _BERNOULLI, like) < threshold).reshape(shape)


@_recorded
def permutation(key: Key, n: int) -> np.ndarray:
    """Return 0, 1, ..., n - 1 in random order: int64, shape (n,).

    Raises:
        OptionError: n is not a non-negative integer.
    """
    size = _integer(n, "permutation: n")
    return np.argsort(_long_words(key, size, _PERMUTATION), kind="stable").astype(np.int64)
