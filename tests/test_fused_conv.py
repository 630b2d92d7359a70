"""Fused convolution stages against the eager library in float64, through one driver for all."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn

numba = pytest.importorskip("numba")

from dualgrad.kernels.fused import conv, filters, linear, winograd  # noqa: E402
from dualgrad.kernels.fused.transforms import filters_size  # noqa: E402
from dualgrad.kernels.jit import jit  # noqa: E402
from dualgrad.kernels.random import MATRIX, sign_matrix  # noqa: E402

PAD, UPDATE, FILTERS, CONV, WINOGRAD = range(5)
KEYS = np.array([[11, 12], [13, 14]])  # of the directions now drawn, and of the previous ones
GUARD = 7.5  # what lies around an output, and must stay


@jit
def run(like, table, scratch):
    """Do every chunk of every row, the last chunk first: their order must not matter."""
    for row in table:
        for chunk in range(row[1] - 1, -1, -1):
            if row[0] == PAD:
                conv.pad_chunk(like, row, chunk, scratch)
            elif row[0] == UPDATE:
                linear.update_chunk(like, row, chunk, scratch)
            elif row[0] == FILTERS:
                filters.filters_chunk(like, row, chunk, scratch)
            elif row[0] == CONV:
                conv.conv_chunk(like, row, chunk, scratch)
            elif row[0] == WINOGRAD:
                winograd.winograd_chunk(like, row, chunk, scratch)


@dataclass(frozen=True)
class Case:
    """A convolution: n images of a size, its filters, its directions and what follows it."""

    size: tuple[int, int] = (6, 5)
    channels: int = 3
    out: int = 16
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    k: int = 1
    rank1: bool = True
    still: bool = False  # whether the filters have no directions
    moving: bool = True  # whether the images have tangents
    bias: bool = True
    relu: bool = True
    pool: bool = False
    n: int = 2
    chunks: int = 1

    def structure(self):
        return conv.NONE if self.still else conv.RANK1 if self.rank1 else conv.DENSE

    def shape(self):
        """Return the convolution's height and width."""
        sizes = zip(self.size, self.padding, self.kernel, self.stride, strict=True)
        return tuple((size + 2 * pad - taps) // step + 1 for size, pad, taps, step in sizes)


def aligned(shape, dtype, value=0):
    """Return an array that begins at a multiple of 64 bytes."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(count + 64, np.uint8)
    first = -memory.ctypes.data % 64
    array = memory[first : first + count].view(dtype).reshape(shape)
    array[...] = value
    return array


def packed(w, dtype):
    """Return filters (..., kh, kw, c, out) as panels (..., P, kh * kw * c, 16)."""
    taps = int(np.prod(w.shape[-4:-1]))
    matrix = w.reshape(*w.shape[:-4], taps, w.shape[-1] // 16, 16)
    panels = aligned(np.swapaxes(matrix, -3, -2).shape, dtype)
    panels[...] = np.swapaxes(matrix, -3, -2)
    return panels


def draw(case, seed=0, whole=False):
    """Return (x, tx, w, tw, b, tb, left, right) in float64; whole: small integers, b halves."""
    generator = np.random.default_rng(seed)

    def numbers(*shape):
        return generator.integers(-3, 4, shape) * 1.0 if whole else generator.normal(size=shape)

    filters = (*case.kernel, case.channels, case.out)
    x, w, b = numbers(case.n, *case.size, case.channels), numbers(*filters), numbers(case.out) + 0.5
    tx = numbers(case.k, *x.shape) * case.moving
    left = np.sign(generator.normal(size=(case.k, w.size // case.out)))
    right = np.sign(generator.normal(size=(case.k, case.out)))
    if case.still:
        tw = np.zeros((case.k, *filters))
    elif case.rank1:
        tw = (left[:, :, None] * right[:, None]).reshape(case.k, *filters)
    else:
        tw = signs(KEYS[0], w, case.k)
    tb = np.sign(generator.normal(size=(case.k, case.out)))
    return x, tx, w, tw, b * case.bias, tb * case.bias, left, right


def signs(key, w, k):
    """Return the k dense directions of filters under a key."""
    matrices = sign_matrix(key, w.size // w.shape[-1], w.shape[-1], range(k), MATRIX, np.float64)
    return matrices.reshape(k, *w.shape)


def eager(case, numbers):
    """Return (1 + k, n, height, width, out): the value and its derivatives."""
    x, tx, w, tw, b, tb, *_ = numbers

    def f(x, w, b):
        z = nn.conv2d(x, w, b=b, stride=case.stride, padding=tuple((p, p) for p in case.padding))
        z = nn.relu(z) if case.relu else z
        return nn.max_pool2d(z, 2) if case.pool else z

    if case.k == 0:
        return f(x, w, b)[None]
    y, ty = dg.pushforward(f, (x, w, b), (tx, tw, tb))
    return np.concatenate([y[None], ty])


class Layer:
    """The stages of a case and their memory; fast: by Winograd.

    The directions of the step before are those of `before`, another result of `draw`.
    """

    def __init__(self, case, numbers, dtype, fast=False, before=None):
        self.case, self.fast, self.dtype = case, fast, np.dtype(dtype)
        self.kept = []
        x, tx, w, _, b, tb, left, right = numbers
        tb, left, right = (
            np.stack([now, now if before is None else old])
            for now, old in zip((tb, left, right), (before or numbers)[5:], strict=True)
        )
        images = np.concatenate([x[None], tx]) if case.moving else x[None]
        height, width = (size + 2 * pad for size, pad in zip(case.size, case.padding, strict=True))
        if fast:
            height, width = winograd.padded_size(*case.shape())
        self.inputs = aligned((len(images), case.n, height, width, case.channels), dtype)
        lines, columns = (size // (1 + case.pool) for size in case.shape())
        self.outputs = aligned((1 + case.k, case.n, lines + 2, columns + 2, case.out), dtype, GUARD)
        self.filters = packed(w, dtype)
        self.bias = aligned(b.shape, dtype, b)
        self.words = np.array([0, 0, 1, before is not None, 0, 0, 0, 0])
        self.numbers = np.zeros(8 + 3 * case.k)
        self.numbers[8 + case.k : 8 + 2 * case.k] = 1 / np.arange(2.0, 2 + case.k)
        v = 0 if case.structure() != conv.DENSE else self.keep(np.full((case.k, *w.shape), np.nan))
        self.update = linear.update_stage(
            UPDATE,
            w=self.filters.ctypes.data,
            bias=self.bias.ctypes.data if case.bias else 0,
            inputs=w.size // case.out,
            outputs=case.out,
            k=case.k,
            structure=case.structure(),
            lefts=self.keep(left),
            rights=self.keep(right),
            vectors=self.keep(tb) if case.bias else 0,
            keys=KEYS.ctypes.data,
            words=self.words.ctypes.data,
            numbers=self.numbers.ctypes.data,
            v=v,
        )
        self.pad = self.padding(images)
        self.prepare, self.convolve = self.two_stages()

    def keep(self, array):
        """Return the address of an aligned copy in the layer's dtype."""
        self.kept.append(aligned(array.shape, self.dtype, array))
        return self.kept[-1].ctypes.data

    def padding(self, images):
        case = self.case
        return conv.pad_stage(
            PAD,
            images=len(images) * case.n,
            height=case.size[0],
            width=case.size[1],
            channels=case.channels,
            source=self.keep(images),
            target=self.inputs[:, :, case.padding[0] :, case.padding[1] :].ctypes.data,
            target_image=self.inputs[0, 0].size,
            target_row=self.inputs[0, 0, 0].size,
            target_pixel=case.channels,
        )

    def two_stages(self):
        """Return the stages that prepare the filters and that use them."""
        case, update = self.case, self.update
        made = {"w": update[linear.W], "v": update[linear.V], "left": update[linear.LEFTS]}
        if self.fast:
            size = filters_size(case.channels, case.out // 16)
            made = {
                "w": self.keep(np.full(size, np.nan)),
                "v": self.keep(np.full((case.k, size), np.nan)),
                "left": self.keep(np.full((case.k, 36, case.channels), np.nan)),
            }
        builder = winograd.winograd_stage if self.fast else conv.conv_stage
        convolve = builder(
            WINOGRAD if self.fast else CONV,
            **made,
            x=self.inputs.ctypes.data,
            x_image=self.inputs[0, 0].size,
            x_row=self.inputs[0, 0, 0].size,
            x_block=self.inputs[0].size,
            channels=case.channels,
            kernel=case.kernel,
            stride=case.stride,
            images=case.n,
            height=case.shape()[0],
            width=case.shape()[1],
            panels=case.out // 16,
            k=case.k,
            input_tangents=case.moving,
            directions=update[linear.STRUCTURE],
            right=update[linear.RIGHTS],
            bias=update[linear.BIAS],
            vector=update[linear.VECTORS],
            relu=case.relu,
            pool=case.pool,
            y=self.outputs[:, :, 1:, 1:].ctypes.data,
            y_image=self.outputs[0, 0].size,
            y_row=self.outputs[0, 0, 0].size,
            y_pixel=case.out,
            y_block=self.outputs[0].size,
            chunks=case.chunks,
        )
        transforms = dict(zip(("u", "u_v", "u_left"), made.values(), strict=True))
        prepare = filters.filters_stage(FILTERS, update, **transforms if self.fast else {})
        return prepare, convolve

    def run(self, *stages):
        """Run stages; nothing may be written behind the scratch that they ask for."""
        scratch = {
            PAD: lambda row, size: 0,
            UPDATE: linear.linear_scratch,
            FILTERS: filters.filters_scratch,
            CONV: conv.conv_scratch,
            WINOGRAD: winograd.winograd_scratch,
        }
        for stage in stages:
            needed = scratch[stage[0]](stage, self.dtype.itemsize)
            memory = aligned((needed + 64,), np.uint8, 0xFF)
            run(self.dtype.type(0), stage[None], memory.ctypes.data)
            assert (memory[needed:] == 0xFF).all()


def fused(case, numbers, dtype, fast=False):
    """Return what the stages give, (1 + k, n, height, width, out); nothing around it may change."""
    layer = Layer(case, numbers, dtype, fast)
    layer.run(layer.pad, layer.prepare, layer.convolve)
    outside = np.ones(layer.outputs.shape, bool)
    outside[:, :, 1:-1, 1:-1] = False
    assert (layer.outputs[outside] == GUARD).all()
    return layer.outputs[:, :, 1:-1, 1:-1]


def spread(given, wanted):
    """Return the largest error over the largest value, block by block."""
    axes = (1, 2, 3, 4)
    return np.max(np.abs(given - wanted).max(axes) / np.abs(wanted).max(axes, initial=1e-300))


FORMS = [
    Case(),
    Case(k=0),
    Case(k=3, rank1=False),
    Case(k=5, moving=False, relu=False),
    Case(k=5, channels=1, moving=False, pool=True),
    Case(k=17, channels=1, kernel=(2, 3), moving=False, size=(5, 5)),
    Case(k=3, channels=16, out=32, size=(7, 7), pool=True),
    Case(k=18, channels=16, out=16, size=(5, 5)),
    Case(k=2, channels=3, rank1=False, moving=False, bias=False, pool=True),
    Case(k=1, channels=64, out=32, size=(14, 14), pool=True, chunks=16),
    Case(k=3, channels=16, kernel=(5, 5), padding=(2, 2), size=(9, 8), relu=False, pool=True),
    Case(k=1, channels=16, kernel=(1, 1), padding=(0, 0), stride=(2, 2), size=(7, 9)),
    Case(k=1, channels=5, kernel=(3, 5), padding=(0, 2), stride=(2, 1), bias=False),
    Case(k=3, channels=1, stride=(2, 2), size=(28, 28), chunks=9),
    Case(k=1, size=(1, 1), relu=False),
    Case(k=2, still=True, pool=True),
    Case(k=2, still=True, moving=False, channels=16),
    Case(k=0, still=True, channels=16, pool=True),
]


@pytest.mark.parametrize("case", FORMS, ids=str)
@pytest.mark.parametrize("whole", [False, True])
def test_a_stage_is_the_eager_layer(case, whole):
    numbers = draw(case, whole=whole)
    assert spread(fused(case, numbers, np.float64), eager(case, numbers)) < 1e-13


@pytest.mark.parametrize("case", FORMS, ids=str)
def test_float32_is_exact_on_small_integers(case):
    numbers = draw(case, whole=True)
    np.testing.assert_array_equal(fused(case, numbers, np.float32), eager(case, numbers))


@pytest.mark.parametrize("case", FORMS, ids=str)
def test_float32_rounds_little(case):
    case = replace(case, relu=False, pool=False)  # they may choose otherwise where values are close
    numbers = draw(case)
    assert spread(fused(case, numbers, np.float32), eager(case, numbers)) < 1e-5


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("rank1", [False, True])
def test_nan_and_infinity_pass_as_in_the_eager_layer(pool, rank1):
    case = Case(k=2, channels=16, size=(6, 6), rank1=rank1, pool=pool)
    numbers = draw(case, whole=True)
    numbers[0][0, 2, 2, 3] = np.nan
    numbers[0][1, 4, 1, 0] = np.inf
    with np.errstate(invalid="ignore"):
        wanted = eager(case, numbers)
    assert np.isnan(wanted[0]).any() and np.isinf(wanted[0]).any()
    np.testing.assert_array_equal(fused(case, numbers, np.float32), wanted)


@pytest.mark.parametrize("case", [FORMS[0], FORMS[6]], ids=str)
def test_the_number_of_chunks_changes_no_bit(case):
    numbers = draw(case)
    one = fused(case, numbers, np.float32)
    np.testing.assert_array_equal(fused(replace(case, chunks=99), numbers, np.float32), one)


def test_a_size_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"height 0.*must be positive"):
        fused(Case(size=(1, 4), padding=(0, 1), kernel=(2, 3)), draw(Case()), np.float32)


FAST = [
    Case(channels=16, size=(8, 8)),
    Case(channels=16, size=(4, 4), k=0, n=1),
    Case(channels=64, out=32, size=(28, 28), pool=True),
    Case(channels=64, out=32, size=(14, 14), k=3, pool=True),
    Case(channels=16, size=(7, 7), k=3, rank1=False, pool=True),
    Case(channels=32, size=(30, 5), k=5, bias=False),
    Case(channels=16, size=(7, 6), k=5, moving=False),
    Case(channels=16, size=(9, 10), k=2, moving=False, rank1=False, relu=False, pool=True),
    Case(channels=16, size=(7, 9), padding=(0, 0), k=1),
    Case(channels=16, size=(5, 5), k=33),
    Case(channels=16, size=(6, 6), k=2, still=True, pool=True),
    Case(channels=16, size=(6, 6), k=2, still=True, moving=False),
    Case(channels=16, size=(6, 6), k=0, still=True),
    Case(channels=16, size=(5, 5), k=17, rank1=False),
]


@pytest.mark.parametrize("case", FAST, ids=str)
def test_the_fast_stage_is_the_eager_layer(case):
    numbers = draw(case)
    assert spread(fused(case, numbers, np.float64, True), eager(case, numbers)) < 1e-12


@pytest.mark.parametrize("case", FAST, ids=str)
def test_the_fast_stage_rounds_as_it_says(case):
    case = replace(case, relu=False, pool=False)  # they may choose otherwise where values are close
    numbers = draw(case)
    assert spread(fused(case, numbers, np.float32, True), eager(case, numbers)) < 1e-5


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("rank1", [False, True])
def test_a_pending_update_is_applied_once_as_by_a_flush(fast, rank1):
    case = Case(channels=16, out=32, k=3, rank1=rank1)
    numbers, before = draw(case), draw(case, seed=1)
    late, flushed = (Layer(case, numbers, np.float32, fast, before) for _ in range(2))
    late.run(late.pad, late.prepare, late.convolve)
    flushed.run(flushed.update)
    flushed.words[3] = 0
    flushed.run(flushed.pad, flushed.prepare, flushed.convolve)
    np.testing.assert_array_equal(late.filters, flushed.filters)
    np.testing.assert_array_equal(late.bias, flushed.bias)
    np.testing.assert_array_equal(late.outputs, flushed.outputs)

    c = 1 / np.arange(2.0, 5.0)
    old = before[3] if rank1 else signs(KEYS[1], numbers[2], case.k)
    w = numbers[2] - np.tensordot(c, old, 1)
    b = numbers[4] - c @ before[5]
    np.testing.assert_allclose(late.filters, packed(w, np.float64), rtol=0, atol=1e-6)
    np.testing.assert_allclose(late.bias, b, rtol=0, atol=1e-6)
    wanted = eager(replace(case, relu=False), (*numbers[:2], w, numbers[3], b, *numbers[5:]))
    inside = late.outputs[0, :, 1:-1, 1:-1]
    error = np.abs(inside - np.maximum(wanted[0], 0)).max()
    assert error < 1e-5 * np.abs(wanted[0]).max()


@pytest.mark.parametrize("case", FAST, ids=str)
def test_the_fast_stage_chooses_as_the_eager_layer_where_values_are_apart(case):
    numbers = draw(case)
    given, wanted = fused(case, numbers, np.float32, True), eager(case, numbers)
    z = eager(replace(case, k=0, relu=False, pool=False), numbers)[0]
    apart = np.abs(z) > 1e-3
    if case.pool:
        n, height, width, out = wanted[0].shape
        windows = z[:, : 2 * height, : 2 * width].reshape(n, height, 2, width, 2, out)
        windows = np.sort(windows.transpose(0, 1, 3, 5, 2, 4).reshape(n, height, width, out, 4))
        apart = (windows[..., 3] - windows[..., 2] > 1e-3) & (np.abs(windows[..., 3]) > 1e-3)
    assert apart.mean() > 0.95
    assert spread(np.where(apart, given, wanted), wanted) < 1e-5


def test_the_fast_stage_passes_nan_and_infinity_within_its_tiles():
    case = Case(channels=16, size=(8, 8), k=1)
    numbers = draw(case)
    numbers[0][0, 6, 6, 3] = np.nan
    numbers[0][1, 0, 0, 0] = np.inf
    given = fused(case, numbers, np.float32, True)[0]
    with np.errstate(invalid="ignore"):
        wanted = eager(case, numbers)[0]
    assert np.isnan(given[0, 4:, 4:]).all() and np.isfinite(given[0, :4, :4]).all()
    assert not np.isfinite(given[1, :2, :2]).any() and np.isfinite(given[1, 4:]).all()
    assert not np.isfinite(given[~np.isfinite(wanted) & (wanted != 0)]).any()


def test_errors_grow_slowly_with_the_channels():
    case = Case(channels=256, size=(12, 12), relu=False)
    numbers = draw(case)
    wanted = eager(case, numbers)
    assert spread(fused(case, numbers, np.float32, True), wanted) < 2e-5
    assert spread(fused(case, numbers, np.float32), wanted) < 3e-6


def test_other_filters_have_no_transforms():
    for case in (Case(kernel=(5, 3)), Case(stride=(1, 2)), Case(channels=3)):
        with pytest.raises(ValueError, match="Use conv_stage|use conv_stage"):
            fused(case, draw(case), np.float32, True)
