"""Cases of numpy.linalg and numpy.fft: see ops_case.py.

Matrices are a fixed well conditioned one, with distinct eigenvalues and singular values, plus a
fifth of what is drawn, so that finite differences meet neither a jump of LAPACK's signs nor a tie.
"""

import numpy as np
from ops_case import case, near


def _orthogonal(n, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


def away(a):
    """A general matrix near a: singular values 3, 6, 9, ... where a is 0."""
    m, n = a.shape[-2:]
    k = min(m, n)
    s = 3.0 * np.arange(1, k + 1)
    fixed = (_orthogonal(m, 2 * m)[:, :k] * s) @ _orthogonal(n, 2 * n + 1)[:k]
    return 0.2 * a + near(a, fixed.astype(a.dtype))


def definite(a):
    """A matrix near a with eigenvalues 3, 6, 9, ..., symmetric where a is 0."""
    n = a.shape[-1]
    q = _orthogonal(n, n)
    return 0.2 * a + near(a, ((q * (3.0 * np.arange(1, n + 1))) @ q.T).astype(a.dtype))


def at(place, function, **options):
    """Call function on the matrix made by `place`."""
    return lambda a: function(place(a), **options)


def pair(function, **options):
    """Call a function that returns a named tuple on a matrix, for a plain tuple."""
    return lambda a: tuple(function(away(a), **options))


_linalg = np.linalg
for _name in "det svdvals eigvals cond matrix_norm".split():
    case(getattr(_linalg, _name), "2 3 3", call=at(away, getattr(_linalg, _name)),
         complex=True, narrow=False)  # fmt: skip
for _shape in ("4 3", "3 4"):
    case(_linalg.svd, _shape, call=pair(_linalg.svd, full_matrices=False), complex=True,
         narrow=False)  # fmt: skip
    case(_linalg.qr, _shape, call=pair(_linalg.qr), complex=True, narrow=False)
case(_linalg.pinv, "2 4 3", call=at(away, _linalg.pinv), complex=True, narrow=False)
case(_linalg.qr, "5 3", call=pair(_linalg.qr, mode="complete"), complex=True, narrow=False)
case(_linalg.qr, "2 4 3", call=pair(_linalg.qr, mode="raw"), complex=True, narrow=False)
case(_linalg.eig, "3 3", call=pair(_linalg.eig), complex=True, narrow=False)
case(_linalg.slogdet, "2 3 3", call=lambda a: _linalg.slogdet(away(a))[1], narrow=False)
for _triangle in "LU":
    case(_linalg.eigh, "3 3", call=lambda a, t=_triangle: tuple(_linalg.eigh(definite(a), t)),
         complex=True, narrow=False, what=_triangle)  # fmt: skip
case(_linalg.eigvalsh, "2 3 3", call=at(definite, _linalg.eigvalsh), complex=True, narrow=False)
case(_linalg.cholesky, "2 3 3", call=at(definite, _linalg.cholesky), complex=True, narrow=False)
for _order in (2, "nuc"):
    case(_linalg.norm, "2 4 3", call=lambda a, o=_order: _linalg.norm(away(a), o, axis=(1, 2)),
         narrow=False, what=f"of singular values, {_order}")  # fmt: skip
case(_linalg.lstsq, "4 3", "4 2", call=lambda a, b: _linalg.lstsq(away(a), b)[:2], complex=True,
     narrow=False)  # fmt: skip
case(_linalg.matrix_power, "3 3", call=at(away, _linalg.matrix_power, n=-3), narrow=False)


def _inverse(a):
    return _linalg.tensorinv(np.reshape(away(np.reshape(a, (4, 4))), (4, 2, 2)), 1)


def _solution(a, b):
    return _linalg.tensorsolve(np.reshape(away(a), (2, 2, 2, 2)), b, (1,))


case(_linalg.tensorinv, "4 2 2", call=_inverse, narrow=False)
case(_linalg.tensorsolve, "4 4", "2 2", call=_solution, narrow=False)
case(_linalg.matmul, "2 n m", "m p", complex=True)
case(_linalg.trace, "2 3 n", complex=True)
case(_linalg.cross, "i 3", "3", complex=True)
case(np.cross, "3 i", "i 3", call=lambda a, b: np.cross(a, b, 0, 1, 0), what="axes")


def fixed(function, *options):
    """Call function on what is drawn, with more arguments."""
    return lambda x: function(x, *options)


_fft = np.fft
for _name in "fft ifft irfft hfft rfft ihfft".split():
    _complex = _name not in ("rfft", "ihfft")
    case(getattr(_fft, _name), "4 2", complex=_complex, narrow=False, what="n, axis, norm",
         call=fixed(getattr(_fft, _name), 5, 0, "ortho"))  # fmt: skip
for _name in "fft2 ifft2 irfft2 rfft2 fftn ifftn irfftn rfftn".split():
    case(getattr(_fft, _name), "3 2 4", narrow=False, what="s, axes, norm",
         call=fixed(getattr(_fft, _name), (4, 3), (0, 2), "ortho"))  # fmt: skip
case(_fft.fftshift, "3 4")
case(_fft.ifftshift, "3 4", call=fixed(_fft.ifftshift, 0))
