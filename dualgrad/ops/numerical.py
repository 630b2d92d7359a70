"""Numerical analysis on samples: cumulative products, differences, integrals, interpolation."""

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from ..beside import beside
from ..dual import primal_of
from ..operations import implements
from ..primitive import custom, elementwise
from .results import array, array_beside, deliver, is_dual, together
from .structural import cumulative

# --- products of all entries up to each


def _after_first(x, axis, first):
    """The entries of x moved one place along an axis, the number `first` in front."""
    n = x.shape[axis]
    kept = x[(slice(None),) * (axis % x.ndim) + (slice(n - 1),)]
    shape = tuple(1 if i == axis % x.ndim else m for i, m in enumerate(x.shape))
    return np.concatenate([beside(x).full(shape, first, x.dtype), kept], axis)


def _recurrence(a, b, axis):
    """y with y[i] = a[i] y[i-1] + b[i] along an axis, by doubling; a broadcasts against b."""
    n = b.shape[axis]
    a, b = np.moveaxis(np.broadcast_to(a, b.shape), axis, 0), np.moveaxis(b, axis, 0)
    step = 1
    while step < n:
        b = np.concatenate([b[:step], a[step:] * b[:-step] + b[step:]])
        a = np.concatenate([a[:step], a[step:] * a[:-step]])
        step *= 2
    return np.moveaxis(b, 0, axis)


def _cumprod_residuals(primals, active, y, axis):
    (x,) = primals
    return x, _after_first(y, axis, 1) if x.shape[axis] else y


def _cumprod_push(residuals, tangents, axis):
    x, before = residuals
    return _recurrence(x, before * tangents[0], axis)


def _cumprod_pull(residuals, ct, axis):
    x, before = residuals
    if not x.shape[axis]:
        return [ct]
    reached = _recurrence(_after_first(np.flip(np.conj(x), axis), axis, 0), np.flip(ct, axis), axis)
    return [np.flip(reached, axis) * np.conj(before)]


# dy[i] = x[i] dy[i-1] + y[i-1] dx[i], which needs no division: entries may be 0.
_cumprod = custom(
    lambda x, axis: np.cumprod(x, axis=axis),
    _cumprod_residuals,
    _cumprod_push,
    _cumprod_pull,
    name="cumprod",
)


implements(np.cumprod, family="numerical")(cumulative(_cumprod))


def _cumulative(function, first):
    def rule(x, *, axis=None, dtype=None, out=None, include_initial=False):
        x = np.atleast_1d(array(x))
        if x.ndim > 1 and axis is None:
            raise ValueError("For arrays which have more than one dimension ``axis`` is required.")
        axis = normalize_axis_index(0 if axis is None else axis, x.ndim)
        y = function(x, axis, dtype)
        if include_initial:
            edge = tuple(1 if i == axis else n for i, n in enumerate(y.shape))
            y = np.concatenate([beside(y).full(edge, first, y.dtype), y], axis)
        return deliver(y, out)

    return rule


implements(np.cumulative_sum, family="numerical")(_cumulative(np.cumsum, 0))
implements(np.cumulative_prod, family="numerical")(_cumulative(np.cumprod, 1))


# --- differences and integrals


@implements(np.ediff1d)
def ediff1d(ary, to_end=None, to_begin=None):
    flat = np.ravel(array(ary))
    parts = [None if x is None else np.ravel(array_beside(x, flat)) for x in (to_begin, to_end)]
    parts = [x if x is None else np.astype(x, flat.dtype, copy=False) for x in parts]
    return np.concatenate([x for x in (parts[0], flat[1:] - flat[:-1], parts[1]) if x is not None])


@implements(np.trapezoid)
def trapezoid(y, x=None, dx=1.0, axis=-1):
    y = array(y)
    axis = normalize_axis_index(axis, y.ndim)
    if x is not None:
        x = array(x)
        dx = np.diff(x) if x.ndim == 1 else np.diff(x, axis=axis)
        if x.ndim == 1:
            dx = np.reshape(dx, (-1, *(1,) * (y.ndim - 1 - axis)))
    before = (slice(None),) * axis
    return np.sum(dx * (y[(*before, slice(1, None))] + y[(*before, slice(None, -1))]) / 2.0, axis)


@implements(np.gradient)
def gradient(f, *varargs, axis=None, edge_order=1):
    """Central differences along each axis, one-sided at the ends; spacings may move too."""
    f = array(f)
    f = f if f.dtype.kind in "fc" else np.astype(f, np.float64)
    axes = tuple(range(f.ndim)) if axis is None else normalize_axis_tuple(axis, f.ndim)
    if edge_order not in (1, 2):
        raise ValueError("'edge_order' greater than 2 not supported")
    given = together((*varargs, f))[:-1] or [beside(f).asarray(1.0)]
    if len(given) == 1 and given[0].ndim == 0:
        given *= len(axes)
    if len(given) != len(axes):
        raise TypeError("invalid number of arguments")
    results = []
    for i, spacing in zip(axes, given, strict=True):
        rows = np.moveaxis(f, i, 0)
        if len(rows) < edge_order + 1:
            raise ValueError(
                "Shape of array too small to calculate a numerical gradient, at least "
                "(edge_order + 1) elements are required."
            )
        slopes = _slopes(rows, _spacing(spacing, rows), edge_order)
        results.append(np.moveaxis(np.astype(slopes, f.dtype, copy=False), 0, i))
    return results[0] if len(results) == 1 else tuple(results)


def _spacing(spacing, rows):
    """One number, or the distances of neighbours as a column; equal ones become one number."""
    if spacing.ndim == 0:
        return np.astype(spacing, rows.dtype, copy=False)
    if spacing.ndim != 1 or spacing.size != len(rows):
        raise ValueError("when 1d, distances must match the length of the corresponding dimension")
    steps = np.diff(spacing * 1.0)
    plain = primal_of(steps)
    if not is_dual(steps) and np.all(plain == plain[0]):
        return steps[0]
    return np.reshape(steps, (-1, *(1,) * (rows.ndim - 1)))


def _slopes(f, h, edge_order):
    uniform = h.ndim == 0
    left, right = (h, h) if uniform else (h[:-1], h[1:])
    if uniform:
        inner = (f[2:] - f[:-2]) / (2.0 * h)
        first, last, second, before = h, h, h, h
    else:
        inner = (
            -right / (left * (left + right)) * f[:-2]
            + (right - left) / (left * right) * f[1:-1]
            + left / (right * (left + right)) * f[2:]
        )
        first, last = h[0], h[-1]
        second, before = (h[1], h[-2]) if len(h) > 1 else (h[0], h[0])
    if edge_order == 1:
        start, end = (f[1] - f[0]) / first, (f[-1] - f[-2]) / last
    else:
        start = _one_sided(f[0], f[1], f[2], first, second)
        end = -_one_sided(f[-1], f[-2], f[-3], last, before)
    return np.concatenate([start[None], inner, end[None]])


def _one_sided(f0, f1, f2, h1, h2):
    """The slope at f0 of the parabola through three values at distances h1 and h2."""
    total = h1 + h2
    return -(2.0 * h1 + h2) / (h1 * total) * f0 + total / (h1 * h2) * f1 - h1 / (h2 * total) * f2


@implements(np.unwrap)
def unwrap(p, discont=None, axis=-1, *, period=2 * math.pi):
    """p with multiples of the period added where it jumps; they do not move."""
    p = array(p)
    axis = normalize_axis_index(axis, p.ndim)
    steps = np.diff(primal_of(p), axis=axis)
    half = period / 2
    limit = half if discont is None else discont
    wrapped = np.mod(steps + half, period) - half
    wrapped = np.where((wrapped == -half) & (steps > 0), half, wrapped)
    jumps = np.where(np.abs(steps) < limit, 0, wrapped - steps)
    shape = tuple(1 if i == axis else n for i, n in enumerate(p.shape))
    start = beside(jumps).zeros(shape, jumps.dtype)
    return p + np.concatenate([start, np.cumsum(jumps, axis=axis)], axis).astype(p.dtype)


@implements(np.interp)
def interp(x, xp, fp, left=None, right=None, period=None):
    """Linear interpolation, in float64 as NumPy's; at a knot the slope is that to its right."""
    x, xp = (np.astype(array(v), np.float64, copy=False) for v in (x, xp))
    fp = array(fp)
    fp = np.astype(fp, np.complex128 if fp.dtype.kind == "c" else np.float64, copy=False)
    if xp.ndim != 1 or fp.ndim != 1:
        raise ValueError("Data points must be 1-D sequences")
    if xp.size != fp.size:
        raise ValueError("fp and xp are not of the same length.")
    if xp.size == 0:
        raise ValueError("array of sample points is empty")
    if period is not None:
        x, xp, fp = _periodic(x, xp, fp, period)
        left = right = None
    plain, knots = primal_of(x), primal_of(xp)
    n = knots.size
    if n > 1:
        place = np.clip(np.searchsorted(knots, plain, "right") - 1, 0, n - 2)
        x0, x1, y0, y1 = xp[place], xp[place + 1], fp[place], fp[place + 1]
        jump = knots[place] == knots[place + 1]
        slope = np.where(jump, 0, (y1 - y0) / np.where(jump, 1, x1 - x0))
        y = np.where(plain == knots[-1], y1 + slope * (x - x1), y0 + slope * (x - x0))
    else:
        y = np.where(np.isnan(plain), x, fp[0])
    y = np.where(plain < knots[0], fp[0] if left is None else left, y)
    return np.where(plain > knots[-1], fp[-1] if right is None else right, y)


def _periodic(x, xp, fp, period):
    if primal_of(period) == 0:
        raise ValueError("period must be a non-zero value")
    period = np.abs(period)
    x, xp = x % period, xp % period
    order = np.argsort(primal_of(xp))
    xp, fp = xp[order], fp[order]
    xp = np.concatenate([xp[-1:] - period, xp, xp[:1] + period])
    return x, xp, np.concatenate([fp[-1:], fp, fp[:1]])


# --- two functions that NumPy writes with branches


@implements(np.sinc)
def sinc(x):
    """sin(pi x) / (pi x), by its power series near 0, where the quotient has no derivatives."""
    y = math.pi * array(x)
    near = np.abs(primal_of(y)) < 1.5
    z = np.where(near, y, 0)
    square, series = z * z, 0.0
    for m in range(12, -1, -1):
        series = series * square + (-1) ** m / math.factorial(2 * m + 1)
    far = np.where(near, 1, y)
    return np.where(near, series, np.sin(far) / far)


def _i1(x):
    """I_1, the slope of i0.

    Source: NIST DLMF, 10.25.2 (the power series, for |x| < 20) and 10.40.1 (the asymptotic one).
    """
    near = np.abs(primal_of(x)) < 20
    z = np.where(near, x, 0) / 2.0
    square, series = z * z, 0.0
    for m in range(45, -1, -1):
        series = series * square + 1 / (math.factorial(m) * math.factorial(m + 1))
    far = np.where(near, 20, np.abs(x))
    tail = 0.0
    for m in range(30, 0, -1):
        tail = (1.0 + tail) * -(4 - (2 * m - 1) ** 2) / (8.0 * m) / far
    large = np.exp(far) / np.sqrt(2 * math.pi * far) * (1.0 + tail)
    return np.where(near, z * series, np.sign(primal_of(x)) * large)


_i0 = elementwise(np.i0, lambda x, y: _i1(x), name="i0")


@implements(np.i0)
def i0(x):
    if x.dtype.kind == "c":
        raise TypeError("i0 not supported for complex values")
    return _i0(x)


# --- moments of several variables


@implements(np.cov)
def cov(m, y=None, rowvar=True, bias=False, ddof=None, fweights=None, aweights=None, *, dtype=None):
    """The covariance matrix of variables in rows (rowvar=False: columns)."""
    if ddof is not None and ddof != int(ddof):
        raise ValueError("ddof must be integer")
    m = array(m)
    x = _variables(m, rowvar)
    if y is not None:
        x = np.concatenate([x, _variables(array(y), rowvar)])
    x = np.astype(x, np.result_type(x.dtype, np.float64) if dtype is None else dtype, copy=False)
    if x.shape[0] == 0:
        return beside(x).zeros((0, 0), x.dtype)
    ddof = ddof if ddof is not None else 0 if bias else 1
    weights = None if fweights is None else _as_float64(fweights, m)
    if aweights is not None:
        aweights = _as_float64(aweights, m)
        weights = aweights if weights is None else weights * aweights
    total = x.shape[1] if weights is None else np.sum(weights)
    if weights is None or ddof == 0 or aweights is None:
        factor = total - ddof
    else:
        factor = total - ddof * np.sum(weights * aweights) / total
    if primal_of(factor) <= 0:  # as NumPy, which warns: infinite or NaN
        factor = 0.0
    centre = np.average(x, 1, weights)
    x = x - centre[:, None]
    weighted = x if weights is None else x * weights
    return np.squeeze(np.matmul(x, np.conj(weighted.T)) / factor)


def _as_float64(weights, like):
    return np.astype(array_beside(weights, like), np.float64, copy=False)


def _variables(x, rowvar):
    if x.ndim > 2:
        raise ValueError("m has more than 2 dimensions")
    return np.atleast_2d(x) if rowvar or x.ndim < 2 else x.T


@implements(np.corrcoef)
def corrcoef(x, y=None, rowvar=True, *, dtype=None):
    c = np.cov(x, y, rowvar, dtype=dtype)
    if c.ndim == 0:
        return c / c
    deviation = np.sqrt(np.real(np.diag(c)))
    return _within_one(c / deviation[:, None] / deviation)


def _within_one(c):
    """c with what rounding left outside [-1, 1] at the edge; its tangent stays."""
    if c.dtype.kind == "c":
        return np.clip(np.real(c), -1, 1) + 1j * np.clip(np.imag(c), -1, 1)
    plain = primal_of(c)
    return c + (np.clip(plain, -1, 1) - plain)
