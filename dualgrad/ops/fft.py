"""Discrete Fourier transforms: linear, each the transpose of its inverse up to weights."""

import operator
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..beside import beside
from ..dual import Array
from ..errors import OptionError, ShapeError
from ..operations import implements
from ..primitive import linear
from .results import array, deliver

# The norm under which the inverse transform is the transpose.
TRANSPOSED: dict[str, Any] = {"backward": "forward", "forward": "backward", "ortho": "ortho"}

_fft = linear(
    lambda x, axis, norm: np.fft.fft(x, axis=axis, norm=norm),
    lambda ct, shapes, axis, norm: np.fft.ifft(ct, axis=axis, norm=TRANSPOSED[norm]),
    name="fft",
)
_ifft = linear(
    lambda x, axis, norm: np.fft.ifft(x, axis=axis, norm=norm),
    lambda ct, shapes, axis, norm: np.fft.fft(ct, axis=axis, norm=TRANSPOSED[norm]),
    name="ifft",
)
# Half a spectrum stands for all of it: entries that have a mirror image count twice.
_rfft = linear(
    lambda x, n, axis, norm: np.fft.rfft(x, axis=axis, norm=norm),
    lambda ct, shapes, n, axis, norm: np.fft.irfft(
        ct / _multiplicity(n, axis, ct), n, axis=axis, norm=TRANSPOSED[norm]
    ),
    name="rfft",
)
_irfft = linear(
    lambda x, n, axis, norm: np.fft.irfft(x, n, axis=axis, norm=norm),
    lambda ct, shapes, n, axis, norm: (
        np.fft.rfft(ct, axis=axis, norm=TRANSPOSED[norm]) * _multiplicity(n, axis, ct)
    ),
    name="irfft",
)


def _multiplicity(n, axis, like):
    """2 for each entry of half a spectrum with a mirror image, else 1, along a negative axis."""
    weights = beside(like).full(n // 2 + 1, 2.0, np.finfo(like.dtype).dtype)
    weights[0] = 1
    if n % 2 == 0:
        weights[-1] = 1
    return np.reshape(weights, (-1, *(1,) * (-1 - axis)))


def _norm(norm):
    if norm not in (None, *TRANSPOSED):
        raise OptionError(f'norm={norm!r}: give "backward", "ortho" or "forward".')
    return norm or "backward"


def _fitted(x, n, axis):
    """x cut, or continued with zeros, to n entries along an axis."""
    if n < 1:
        raise ShapeError(f"Invalid number of FFT data points ({n}) specified.")
    size, before = x.shape[axis], (slice(None),) * (x.ndim + axis)
    if n < size:
        return x[(*before, slice(n))]
    if n > size:
        more = (*x.shape[:axis], n - size, *x.shape[axis:][1:])
        return np.concatenate([x, beside(x).zeros(more, x.dtype)], axis)
    return x


def _arguments(a, n, axis, norm):
    a = array(a)
    axis = normalize_axis_index(operator.index(axis), a.ndim) - a.ndim
    return a, None if n is None else operator.index(n), axis, _norm(norm)


# --- one axis


def _complex_transform(primitive):
    def transform(a, n=None, axis=-1, norm=None, out=None):
        a, n, axis, norm = _arguments(a, n, axis, norm)
        a = _fitted(a, a.shape[axis] if n is None else n, axis)
        return deliver(primitive(a, axis=axis, norm=norm), out)

    return transform


fft = implements(np.fft.fft, family="fft")(_complex_transform(_fft))
ifft = implements(np.fft.ifft, family="fft")(_complex_transform(_ifft))


@implements(np.fft.rfft)
def rfft(a: Array, n=None, axis=-1, norm=None, out=None) -> Array:
    a, n, axis, norm = _arguments(a, n, axis, norm)
    if a.dtype.kind == "c":
        raise TypeError(f"np.fft.rfft: the argument is {a.dtype}, not real. Use np.fft.fft.")
    n = a.shape[axis] if n is None else n
    return deliver(_rfft(_fitted(a, n, axis), n=n, axis=axis, norm=norm), out)


@implements(np.fft.irfft)
def irfft(a: Array, n=None, axis=-1, norm=None, out=None) -> Array:
    a, n, axis, norm = _arguments(a, n, axis, norm)
    n = 2 * (a.shape[axis] - 1) if n is None else n
    if n < 1:
        raise ShapeError(f"Invalid number of FFT data points ({n}) specified.")
    return deliver(_irfft(_fitted(a, n // 2 + 1, axis), n=n, axis=axis, norm=norm), out)


@implements(np.fft.hfft)
def hfft(a: Array, n=None, axis=-1, norm=None, out=None) -> Array:
    return irfft(np.conj(array(a)), n, axis, TRANSPOSED[_norm(norm)], out)


@implements(np.fft.ihfft)
def ihfft(a: Array, n=None, axis=-1, norm=None, out=None) -> Array:
    return deliver(np.conj(rfft(a, n, axis, TRANSPOSED[_norm(norm)])), out)


# --- several axes, one after the other as NumPy takes them


def _sizes(a, s, axes):
    """The axes and their transform lengths; -1 and None keep the axis as it is."""
    if axes is None:
        axes = range(-a.ndim if s is None else -len(s), 0)
    axes = [operator.index(axis) for axis in axes]
    s = [None] * len(axes) if s is None else list(s)
    if len(s) != len(axes):
        raise ShapeError(f"Shape and axes have different lengths: s={s}, axes={axes}.")
    kept = [n is None or n == -1 for n in s]
    return [a.shape[x] if k else n for n, x, k in zip(s, axes, kept, strict=True)], axes


def _several(one):
    def transform(a, s=None, axes=None, norm=None, out=None):
        a = array(a)
        sizes, axes = _sizes(a, s, axes)
        for n, axis in reversed(list(zip(sizes, axes, strict=True))):
            a = one(a, n, axis, norm)
        return deliver(a, out)

    return transform


fftn = implements(np.fft.fftn, family="fft")(_several(fft))
ifftn = implements(np.fft.ifftn, family="fft")(_several(ifft))


@implements(np.fft.rfftn)
def rfftn(a: Array, s=None, axes=None, norm=None, out=None) -> Array:
    """The real transform along the last of the axes, then the complex one along the others."""
    a = array(a)
    sizes, axes = _sizes(a, s, axes)
    a = rfft(a, sizes[-1], axes[-1], norm)
    return deliver(fftn(a, sizes[:-1], axes[:-1], norm), out)


@implements(np.fft.irfftn)
def irfftn(a: Array, s=None, axes=None, norm=None, out=None) -> Array:
    """The complex inverse along all but the last of the axes, then the real one along that."""
    a = array(a)
    sizes, axes = _sizes(a, s, axes)
    if s is None:
        sizes[-1] = 2 * (a.shape[axes[-1]] - 1)
    for n, axis in zip(sizes[:-1], axes[:-1], strict=True):
        a = ifft(a, n, axis, norm)
    return irfft(a, sizes[-1], axes[-1], norm, out)


def _two(several):
    def transform(a, s=None, axes=(-2, -1), norm=None, out=None):
        return several(a, s, axes, norm, out)

    return transform


for _function, _rule in (
    (np.fft.fft2, fftn),
    (np.fft.ifft2, ifftn),
    (np.fft.rfft2, rfftn),
    (np.fft.irfft2, irfftn),
):
    implements(_function, family="fft")(_two(_rule))


# --- the order of frequencies


def _shift(a, axes, sign):
    a = array(a)
    axes = range(a.ndim) if axes is None else [axes] if np.ndim(axes) == 0 else axes
    for axis in axes:
        a = np.roll(a, sign * (a.shape[axis] // 2), axis)
    return a


@implements(np.fft.fftshift)
def fftshift(x: Array, axes=None) -> Array:
    return _shift(x, axes, 1)


@implements(np.fft.ifftshift)
def ifftshift(x: Array, axes=None) -> Array:
    return _shift(x, axes, -1)
