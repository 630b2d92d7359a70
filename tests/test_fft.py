"""numpy.fft on duals: linear, so the tangent of a transform is the transform of the tangent."""

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import testing

F = np.fft
NORMS = (None, "backward", "ortho", "forward")


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order():
    draw.rng = np.random.default_rng(3)


def draw(kind, *shape):
    x = draw.rng.normal(size=shape)
    return x + 1j * draw.rng.normal(size=shape) if kind == "complex" else x


ONE_AXIS = [(name, kind) for name in "fft ifft irfft hfft".split() for kind in ("real", "complex")]
ONE_AXIS += [("rfft", "real"), ("ihfft", "real")]


@pytest.mark.parametrize(("name", "kind"), ONE_AXIS)
def test_transforms_of_one_axis_in_both_directions(name, kind):
    transform = getattr(F, name)
    for i, n in enumerate((None, 3, 4, 7, 8, 1)):
        for axis, norm in ((0, NORMS[i % 4]), (-1, NORMS[(i + 1) % 4])):
            f = lambda x, n=n, a=axis, o=norm: transform(x, n, a, o)  # noqa: E731
            x, v = draw(kind, 5, 6), draw(kind, 5, 6)
            y, ty = dg.jvp(f, (x,), (v,))
            np.testing.assert_array_equal(y, f(x))
            np.testing.assert_allclose(ty, f(v), atol=1e-14)
            testing.check_transpose(f, (x,))


SEVERAL = [(name, kind) for name in "fft2 ifft2 irfft2 fftn ifftn irfftn".split()
           for kind in ("real", "complex")] + [("rfft2", "real"), ("rfftn", "real")]  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), SEVERAL)
def test_transforms_of_several_axes_in_both_directions(name, kind):
    transform = getattr(F, name)
    options = [{}, {"s": (5, 2), "axes": (0, 1)}, {"axes": (2, 0), "norm": "ortho"},
               {"s": (-1, 3), "axes": (0, 2), "norm": "forward"}, {"axes": (1,)},
               {"axes": (0, 0)}]  # fmt: skip
    for keywords in options:
        f = lambda x, o=keywords: transform(x, **o)  # noqa: E731
        x, v = draw(kind, 3, 4, 5), draw(kind, 3, 4, 5)
        y, ty = dg.jvp(f, (x,), (v,))
        np.testing.assert_array_equal(y, f(x))
        np.testing.assert_allclose(ty, f(v), atol=1e-14)
        testing.check_transpose(f, (x,))


def test_parseval():
    # sum |x|^2 is the energy of the spectrum, so both have the gradient 2 x and the Hessian 2.
    x = draw("real", 7)
    energy = lambda x: np.sum(np.abs(F.fft(x, norm="ortho")) ** 2)  # noqa: E731
    for mode in ("forward", "reverse"):
        np.testing.assert_allclose(dg.gradient(energy, mode=mode)(x), 2 * x)
    np.testing.assert_allclose(dg.hessian(energy)(x), 2 * np.eye(7), atol=1e-13)


def test_convolution_by_transforms_is_bilinear():
    a, b, u, v = (draw("real", 8) for _ in range(4))
    f = lambda a, b: F.irfft(F.rfft(a) * F.rfft(b), 8)  # noqa: E731
    np.testing.assert_allclose(dg.jvp(f, (a, b), (u, v))[1], f(a, v) + f(u, b), atol=1e-13)
    testing.check_function(f, a, b, order=2)


def test_shifts_move_tangents_with_their_entries():
    x = draw("complex", 3, 4, 5)
    for axes in (None, 1, (0, 2), [-1]):
        for shift in (F.fftshift, F.ifftshift):
            f = lambda x, s=shift, a=axes: s(x, a)  # noqa: E731
            np.testing.assert_array_equal(dg.jvp(f, (x,), (2 * x,))[1], 2 * f(x))
            testing.check_transpose(f, (x,))


def test_frequencies_of_a_spacing_that_moves():
    for frequencies in (F.fftfreq, F.rfftfreq):
        y, ty = dg.jvp(lambda d, f=frequencies: f(6, d), (0.5,), (1.0,))
        np.testing.assert_allclose(y, frequencies(6, 0.5))
        np.testing.assert_allclose(ty, -y / 0.5)


def test_results_go_into_a_dual_and_never_into_a_plain_array():
    x = dg.dual(draw("complex", 4), draw("complex", 4))
    for transform in (F.fft, F.ifft, F.fftn):
        out = np.zeros_like(x)
        assert transform(x, out=out) is out
        np.testing.assert_array_equal(out.tangents, transform(x).tangents)
        with pytest.raises(dg.WriteError, match="out="):
            transform(x, out=np.zeros(4, complex))


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_single_precision_stays(dtype):
    x = draw("complex", 5).astype(dtype) if dtype == np.complex64 else draw("real", 5).astype(dtype)
    for transform in (F.fft, F.ifft, F.irfft, F.hfft, *([F.rfft] if dtype == np.float32 else [])):
        y, ty = dg.jvp(transform, (x,), (x,))
        assert y.dtype == ty.dtype == transform(x).dtype
        assert dg.vjp(transform, x)[1](ty)[0].dtype == dtype


def test_what_numpy_refuses_is_refused():
    x = draw("real", 4)
    for f in (lambda x: F.fft(x, 0), lambda x: F.irfft(x, 0), lambda x: F.irfft(x[:1]),
              lambda x: F.fft(x, norm="unit"), lambda x: F.fftn(x, (2, 2), (0,)),
              lambda x: F.fft(x, axis=1), lambda x: F.rfft(x + 0j)):  # fmt: skip
        with pytest.raises((ValueError, TypeError, IndexError)):
            f(x)
        with pytest.raises((ValueError, TypeError)):
            dg.jvp(f, (x,), (x,))
