"""Convolution and its transposes against the definition, window by window."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgrad.kernels import conv
from dualgrad.kernels.conv import cpu


def definition(x, w, stride, padding, dilation, groups):
    """Return the convolution by a loop over output pixels and groups, in float64."""
    x = np.pad(x.astype(np.float64), ((0, 0), *padding, (0, 0)))
    kh, kw, c, o = w.shape
    n, height, width, _ = x.shape
    rows = (height - (kh - 1) * dilation[0] - 1) // stride[0] + 1
    columns = (width - (kw - 1) * dilation[1] - 1) // stride[1] + 1
    y = np.zeros((n, rows, columns, o))
    for p in range(rows):
        for q in range(columns):
            i = p * stride[0] + dilation[0] * np.arange(kh)
            j = q * stride[1] + dilation[1] * np.arange(kw)
            window = x[:, i[:, None], j[None, :]]
            for g in range(groups):
                inputs = window[..., g * c : (g + 1) * c]
                outputs = slice(g * (o // groups), (g + 1) * (o // groups))
                y[:, p, q, outputs] = np.einsum("nijc,ijco->no", inputs, w[..., outputs])
    return y


@st.composite
def problems(draw):
    """Draw (x, w, stride, padding, dilation, groups) with at least one output pixel."""
    small, side = st.integers(1, 3), st.integers(0, 4)
    pair = st.tuples(small, small)
    kernel, stride, dilation, groups = draw(pair), draw(pair), draw(pair), draw(small)
    padding = draw(st.tuples(st.tuples(side, side), st.tuples(side, side)))
    sides = []
    for axis in range(2):
        least = dilation[axis] * (kernel[axis] - 1) + 1 - sum(padding[axis])
        sides.append(max(1, least) + draw(st.integers(0, 4)))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    c, o = groups * draw(small), groups * draw(small)
    x = generator.normal(size=(draw(small), *sides, c))
    w = generator.normal(size=(*kernel, c // groups, o))
    return x, w, stride, padding, dilation, groups


@given(problem=problems(), block=st.sampled_from([1, 400, 1 << 20]))
@settings(deadline=None, max_examples=150)
def test_convolution_is_its_definition_and_the_transposes_are_its_own(problem, block):
    x, w, *rest = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "PATCH_BYTES", block)  # one row, a few rows, everything in a block
        y = conv.conv2d(x, w, *rest)
        ct = np.random.default_rng(1).normal(size=y.shape)
        dx = conv.conv2d_input(ct, w, x.shape, *rest)
        dw = conv.conv2d_filter(x, ct, w.shape, *rest)
    np.testing.assert_allclose(y, definition(x, w, *rest), rtol=1e-12, atol=1e-12)
    assert dx.shape == x.shape and dw.shape == w.shape
    # <ct, conv(x, w)> is linear in x and in w, so testing against x and w alone could miss an
    # error; fresh tangents of both
    tx, tw = (np.random.default_rng(2).normal(size=a.shape) for a in (x, w))
    np.testing.assert_allclose(
        np.vdot(dx, tx), np.vdot(ct, definition(tx, w, *rest)), rtol=1e-10, atol=1e-10
    )
    np.testing.assert_allclose(
        np.vdot(dw, tw), np.vdot(ct, definition(x, tw, *rest)), rtol=1e-10, atol=1e-10
    )


SAME = ((1, 1), (1, 1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_dtype_is_kept_and_any_strides_are_taken(dtype, stride):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3, 6, 5, 2)).astype(dtype).transpose(3, 2, 1, 0)[:, ::-1]
    w = generator.normal(size=(4, 3, 3, 3)).astype(dtype).transpose(1, 2, 3, 0)
    rest = (stride, SAME, (1, 1), 1)
    y = conv.conv2d(x, w, *rest)
    ct = np.asfortranarray(y)
    dx, dw = conv.conv2d_input(ct, w, x.shape, *rest), conv.conv2d_filter(x, ct, w.shape, *rest)
    assert y.dtype == dx.dtype == dw.dtype == dtype
    tolerance = 30 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(y, definition(x, w, *rest), rtol=tolerance, atol=tolerance)
    copies = [np.ascontiguousarray(a) for a in (x, w, ct)]
    np.testing.assert_array_equal(dx, conv.conv2d_input(copies[2], copies[1], x.shape, *rest))
    np.testing.assert_array_equal(dw, conv.conv2d_filter(copies[0], copies[2], w.shape, *rest))


def test_an_empty_batch_and_a_kernel_larger_than_the_image():
    rest = ((1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    w = np.ones((3, 3, 2, 4), np.float32)
    for shape, out in (((0, 5, 5, 2), (0, 3, 3, 4)), ((2, 2, 5, 2), (2, 0, 3, 4))):
        y = conv.conv2d(np.ones(shape, np.float32), w, *rest)
        assert y.shape == out
        assert not conv.conv2d_filter(np.ones(shape, np.float32), y, w.shape, *rest).any()


def test_the_arguments_are_not_written():
    x, w = np.ones((1, 4, 4, 2)), np.ones((3, 3, 2, 2))
    x.flags.writeable = w.flags.writeable = False
    for padding in (((0, 0), (0, 0)), SAME):
        y = conv.conv2d(x, w, (1, 1), padding, (1, 1), 1)
        y.flags.writeable = False
        for stride in ((1, 1), (2, 2)):
            part = y[:, :: stride[0], :: stride[1]]
            conv.conv2d_input(part, w, x.shape, stride, padding, (1, 1), 1)
            conv.conv2d_filter(x, part, w.shape, stride, padding, (1, 1), 1)


def test_the_patch_matrix_is_never_whole():
    x, w = np.ones((64, 28, 28, 16), np.float32), np.ones((3, 3, 16, 16), np.float32)
    tracemalloc.start()
    y = conv.conv2d(x, w, (1, 1), SAME, (1, 1), 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = 9 * x.nbytes
    assert peak < y.nbytes + 1.5 * cpu.PATCH_BYTES < whole  # nor are all images padded at once


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("wrong", [(2, 7, 4, 3), (2, 4, 9, 3), (3, 4, 4, 3), (2, 4, 4, 2)])
def test_a_cotangent_of_another_shape_is_refused(stride, wrong):
    x, w = np.ones((2, 4 * stride[0], 4 * stride[1], 2)), np.ones((3, 3, 2, 3))
    rest = (stride, SAME, (1, 1), 1)
    assert conv.conv2d(x, w, *rest).shape == (2, 4, 4, 3)
    ct = np.ones(wrong)
    with pytest.raises(ValueError, match="conv2d_input: ct has shape"):
        conv.conv2d_input(ct, w, x.shape, *rest)
    with pytest.raises(ValueError, match="conv2d_filter: ct has shape"):
        conv.conv2d_filter(x, ct, w.shape, *rest)
