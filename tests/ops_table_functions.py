"""The cases of array functions: samples, polynomials, order, choices, and every keyword.

Variants of one function share a case: its call returns them all.
"""

import os
import warnings

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from ops_case import apart, case, near, within

import dualgrad as dg

positive = within(0.3, 2, "3 4")
MASK = np.arange(12).reshape(3, 4) % 3 != 1
WIDE = {"widens": True, "narrow": False}  # float64 out, float16 not taken


def variants(function, *options):
    """A call of the function with each of the options, keywords for the first argument."""
    return lambda x: tuple(function(x, **near(x, o)) for o in options)


def like(x):
    """The keyword that lets NumPy's makers see a dual, which plain arrays need not have."""
    return {"like": x} if isinstance(x, dg.DualTensor) else {}


# --- reductions: where=, initial=, dtype= and what leaves NaN out

_WHERE = [{"where": MASK, "axis": 0}, {"where": MASK[1], "initial": 3.0, "keepdims": True}]
for _operation in (np.sum, np.prod):
    case(_operation, "3 4", call=variants(_operation, *_WHERE, {"axis": (1, 0), "initial": -2.0}),
         what="where and initial", complex=True)  # fmt: skip
for _operation in (np.max, np.min):
    _start = {"initial": 0.0}
    case(_operation, apart("3 4"), what="where and initial",
         call=variants(_operation, *({**o, **_start} for o in _WHERE)))  # fmt: skip
for _operation in (np.mean, np.var, np.std):
    case(_operation, "3 4", what="where", complex=True,
         call=variants(_operation, _WHERE[0], {"where": MASK, "keepdims": True}))  # fmt: skip
for _operation in (np.var, np.std):
    case(_operation, "3 4", call=lambda x, f=_operation: f(x, 1, mean=np.mean(x, 1)[:, None]),
         what="mean given")  # fmt: skip
case(np.average, "3 4", "3 4", what="returned",
     call=lambda a, w: np.average(a, 0, 2.5 + w, True, keepdims=True))  # fmt: skip
case(
    np.average,
    "2 3 4",
    what="axes",
    narrow=False,
    call=lambda a: np.average(a, (2, 0), near(a, np.arange(8.0).reshape(4, 2).astype(a.dtype))),
)


def _with_nans(function, *options):
    def call(x):
        return tuple(function(np.where(near(x, MASK), x, np.nan), **o) for o in options)

    return call


for _name in "sum prod max min mean var std median".split():
    _operation = getattr(np, "nan" + _name)
    case(
        _operation,
        apart("3 4"),
        what="",
        call=_with_nans(_operation, {}, {"axis": 1}, {"axis": (0, 1), "keepdims": True}),
    )
for _name in ("nancumsum", "nancumprod"):
    case(getattr(np, _name), "3 4", call=_with_nans(getattr(np, _name), {}, {"axis": 1}))
METHODS = """
    inverted_cdf averaged_inverted_cdf closest_observation interpolated_inverted_cdf hazen weibull
    linear median_unbiased normal_unbiased lower higher midpoint nearest
""".split()
_Q = [[0.1, 0.3], [0.9, 1]]
for _methods in (METHODS[:5], METHODS[5:]):
    case(
        np.quantile,
        apart("3 4"),
        what=", ".join(_methods),
        narrow=False,
        call=lambda x, ms=_methods: [
            np.quantile(x, near(x, np.array(_Q, x.dtype)), 1, method=m) for m in ms
        ],
    )
for _operation, _scale in ((np.percentile, 100), (np.nanpercentile, 100), (np.nanquantile, 1)):
    case(_operation, apart("3 4"), within(0.68, 0.72, ""), what="both move", narrow=False,
         call=lambda x, q, f=_operation, s=_scale: f(x, q * s, (0, 1), keepdims=True))  # fmt: skip
case(np.quantile, apart("3 4"), what="weights", call=lambda x: np.quantile(
    x, [0.1, 0.6], 1, method="inverted_cdf", weights=near(x, np.arange(1, 5))))  # fmt: skip
case(np.nanquantile, apart("3 4"), call=_with_nans(
    np.nanquantile, {"q": 0.37, "axis": 0}, {"q": 0.1, "method": "weibull"}),
    what="of some", narrow=False)  # fmt: skip

# --- cumulative, differences, integrals

case(np.cumprod, "3 4", call=variants(np.cumprod, {}, {"axis": 0}, {"axis": -1}), complex=True)
case(
    np.cumprod,
    "4",
    call=lambda x: np.cumprod(x * near(x, np.array([1, 0, 1, 0], x.dtype))),
    what="zeros",
)
for _operation in (np.cumulative_sum, np.cumulative_prod):
    case(_operation, "3 4", call=lambda x, f=_operation: f(x, axis=1, include_initial=True))
case(np.diff, "3 4", "3", what="ends",
     call=lambda x, e: np.diff(x, 2, 1, prepend=e[:, None], append=x.dtype.type(1)))  # fmt: skip
case(np.ediff1d, "4", "2", call=lambda x, e: np.ediff1d(x, to_begin=e, to_end=1.0))
case(np.trapezoid, "3 4", within(0.3, 1, "4"), complex=True, call=lambda y, h: (
    np.trapezoid(y, np.cumsum(h)), np.trapezoid(y, dx=0.5, axis=0)))  # fmt: skip
for _order in (1, 2):
    case(np.gradient, "4 3", within(0.5, 1, "3"), what=f"edges of order {_order}",
         call=lambda f, h, o=_order: (np.gradient(f, h[0], np.cumsum(h), edge_order=o),
                                      np.gradient(f, axis=0, edge_order=o)))  # fmt: skip
case(
    np.unwrap,
    within(0, 0.5, "5"),
    call=lambda p: np.unwrap(p + near(p, np.array([0, 4, 8, 1, 9], p.dtype))),
)
_KNOTS = within(-0.1, 0.1, "4")
case(
    np.interp,
    within(-0.4, 0.4, "2 4"),
    _KNOTS,
    "4",
    what="inside and outside",
    **WIDE,
    call=lambda x, xp, fp: np.interp(
        x + near(x, np.arange(0.5, 4)), xp + near(x, np.arange(4)), fp, right=7.0
    ),
)
case(
    np.interp,
    within(-0.4, 0.4, "4"),
    _KNOTS,
    "4",
    what="periodic",
    **WIDE,
    call=lambda x, xp, fp: np.interp(
        x + near(x, np.array([-2.5, 0.5, 4.5, 9])), xp + near(x, np.arange(4)), fp + 1j, period=4
    ),
)
case(np.sinc, within(-3, 3, "4"), complex=True)
case(np.sinc, within(-0.01, 0.01, "2"), what="near 0")
case(np.i0, within(-3, 3, "4"), narrow=False)
case(np.i0, within(21, 22, "2"), what="far out", narrow=False)
case(np.cov, "2 4", within(0.5, 1, "4"), **WIDE, complex=True, call=lambda x, w: (
    np.cov(x, x[:1] * x, bias=True), np.cov(x.T, rowvar=False, ddof=2), np.cov(x[0])))  # fmt: skip
case(np.cov, "2 4", within(0.5, 1, "4"), what="weights", **WIDE,
     call=lambda x, w: np.cov(x, aweights=w, fweights=[1, 3, 2, 1]))  # fmt: skip
case(np.corrcoef, apart("2 5"), **WIDE, call=lambda x: np.corrcoef(x, x[:1] * x))
for _operation in (np.linspace, np.logspace):
    case(_operation, "2", "", call=lambda a, b, f=_operation: (
        f(a, b, 4), f(b, a, 3, endpoint=False, axis=1), f(a, 1.0, 1)), complex=True)  # fmt: skip
case(np.linspace, "2", call=lambda a: np.linspace(a, 3.0, 4, retstep=True), what="step")
case(
    np.logspace,
    "2",
    within(1.5, 3, "2"),
    what="base",
    call=lambda a, b: np.logspace(a, b, 3, base=b),
)
case(
    np.geomspace,
    within(0.3, 2, "2"),
    within(2, 4, ""),
    complex=True,
    **WIDE,
    call=lambda a, b: (np.geomspace(a, b, 4), np.geomspace(-b, -a, 3, endpoint=False, axis=1)),
)

# --- sequences and polynomials

for _operation in (np.convolve, np.correlate):
    case(
        _operation,
        "5",
        "2",
        complex=True,
        call=lambda a, v, f=_operation: tuple(
            f(x, y, mode) for mode in ("full", "same", "valid") for x, y in ((a, v), (v, a))
        ),
    )
case(np.polyval, "3", "i j", complex=True)
for _operation in (np.polyadd, np.polysub, np.polymul):
    case(_operation, "4", "2", complex=True)
case(np.polyder, "4", call=lambda p: (np.polyder(p), np.polyder(p, 2), np.polyder(p, 5)), **WIDE)
case(np.polyint, "3", "2", call=lambda p, k: (np.polyint(p), np.polyint(p, 2, k)), **WIDE)
case(np.polydiv, within(0.5, 2, "4"), within(1, 2, "2"),
     call=lambda u, v: (np.polydiv(u, v), np.polydiv(v, u)), narrow=False)  # fmt: skip
case(np.vander, "3", call=lambda x: (np.vander(x), np.vander(x, 2, increasing=True)), **WIDE)
case(np.roots, within(-0.2, 0.2, "4"), narrow=False, complex=True,
     call=lambda p: np.roots(p + near(p, np.array([1, 0, -7, 0], p.dtype))))  # fmt: skip
case(np.roots, within(-0.2, 0.2, "3"), what="a pair", narrow=False,
     call=lambda p: np.roots(p + near(p, np.array([1, 1, 2], p.dtype))))  # fmt: skip
case(np.poly, "3", narrow=False, complex=True)
case(np.poly, "3 3", what="of a matrix", **WIDE)
case(np.polyfit, within(-0.2, 0.2, "5"), "5", within(0.5, 1, "5"), **WIDE, call=lambda x, y, w: (
    np.polyfit(x + near(x, np.arange(5)), y, 2, w=w, cov=True),
    np.polyfit(x + near(x, np.arange(5)), np.stack([y, w], 1), 1, full=True)[:2]))  # fmt: skip

# --- order and sets

case(
    np.partition,
    apart("3 4"),
    call=lambda x: (np.partition(x, 1, 0)[1], np.partition(x, 3, None)[3]),
)
case(np.sort_complex, apart("4"), call=np.sort_complex, widens=True, complex=True)
case(
    np.unique,
    apart("3 2"),
    what="",
    call=lambda x: (
        np.unique(np.stack([x, x])),
        np.unique(np.concatenate([x, x]), axis=0),
        np.unique(x),
    ),
)
for _operation in (np.unique_all, np.unique_counts, np.unique_inverse, np.unique_values):
    case(_operation, apart("5"), what="",
         call=lambda x, f=_operation: getattr(f(x), "values", f(x)))  # fmt: skip
case(np.union1d, apart("5"), call=lambda x: np.union1d(x[:3], x[2:]))
case(np.intersect1d, apart("5"), call=lambda x: np.intersect1d(x[:3], x[2:]))
case(np.setdiff1d, apart("5"), call=lambda x: np.setdiff1d(x[:3], x[2:]))
case(np.setxor1d, apart("5"), call=lambda x: np.setxor1d(x[:3], x[2:]))
_IN_BINS = np.array([2.6, 0.1, 1.4, 0.6])
case(np.histogram, within(-0.2, 0.2, "4"), within(0.5, 1, "4"), **WIDE, call=lambda x, w: (
    np.histogram(x * 0.5 + near(x, _IN_BINS.astype(x.dtype)), 3, density=True, weights=w),
    np.histogram(x, [-1, 0.5, 3], weights=w)[0]))  # fmt: skip
case(np.histogram_bin_edges, apart("4"), call=lambda x: np.histogram_bin_edges(x, 3), narrow=False)
case(np.histogram2d, within(-0.2, 0.2, "4"), within(0.5, 1, "4"), **WIDE,
     call=lambda x, w: np.histogram2d(
         x + near(x, _IN_BINS), x - near(x, _IN_BINS), [3, 2], weights=w))  # fmt: skip
case(np.histogramdd, within(-0.1, 0.1, "4 2"), within(0.5, 1, "4"), **WIDE, call=lambda x, w: (
    np.histogramdd(
        x + near(x, _IN_BINS[:, None]), (3, [0.0, 1, 3]), density=True, weights=w)))  # fmt: skip
case(np.bincount, "4", call=lambda w: np.bincount([3, 0, 3, 1], w, 6), **WIDE)

# --- choices

_CONDITIONS = [MASK, np.arange(4) > 1]
case(
    np.select,
    "3 4",
    "4",
    call=lambda x, y: np.select(near(x, _CONDITIONS), [x, y], x * x),
    complex=True,
)
case(
    np.choose,
    "3 4",
    "4",
    call=lambda x, y: (
        np.choose(near(x, MASK.astype(int)), [x, y]),
        np.choose([[4], [-1]], [x[:1], y], mode="wrap"),
    ),
)
case(np.piecewise, "3 4", call=lambda x: (
    np.piecewise(
        x, near(x, [MASK, MASK & (np.arange(4) > 1)]), [lambda v: v * np.mean(v), np.sin, 2.0]),
    np.piecewise(x, near(x, [MASK]), [lambda v, a, b: a * v + b], 3, b=x[0, 0])))  # fmt: skip
case(np.compress, "3 4", call=lambda x: (np.compress([0, 1], x, 0), np.compress([1, 0, 1], x)))
case(np.extract, "3 4", call=lambda x: np.extract(near(x, MASK), x))
case(np.delete, "3 4", call=lambda x: (np.delete(x, 5), np.delete(x, [0, -1], 1),
                                       np.delete(x, slice(1, None), 0)))  # fmt: skip
case(np.insert, "3 4", "3", "", call=lambda x, v, s: (
    np.insert(x, 1, v, 1), np.insert(x, [0, 2], v[:, None], 1), np.insert(x, [1, 1, -1], v),
    np.insert(x, slice(None), s, 0)))  # fmt: skip

# --- shapes

case(np.atleast_3d, "", "i", "i j", "2 i j 1")
case(
    np.rollaxis,
    "2 3 4",
    call=lambda x: tuple(np.rollaxis(x, a, s) for a, s in ((2, 0), (0, 3), (-1, 1))),
)
case(np.rot90, "2 3 4", call=lambda x: tuple(np.rot90(x, k, (2, 0)) for k in range(-1, 3)))
case(np.fliplr, "i j")
case(np.flipud, "i")
case(np.resize, "2 3", call=lambda x: (np.resize(x, (3, 5)), np.resize(x, 4)))


def _between_zeros(x):
    ends = near(x, np.zeros(2, x.dtype)), near(x, np.zeros(1, x.dtype))
    return np.concatenate([ends[0], x, ends[1]])


case(np.trim_zeros, within(0.3, 2, "3"), call=lambda x: tuple(
    np.trim_zeros(_between_zeros(x), t)
    for t in ("fb", "f", "b")))  # fmt: skip
case(np.dstack, "i", "i", call=lambda *xs: np.dstack(xs))
case(np.block, "i j", "j", "", call=lambda x, y, z: np.block([[x, 2 * x], [y, y], [z * y, x[:1]]]))
for _operation, _shape in ((np.vsplit, "4 i"), (np.hsplit, "i 4"), (np.dsplit, "2 i 4")):
    case(_operation, _shape, call=lambda x, f=_operation: (f(x, 2), f(x, [1, 3])))
case(np.unstack, "2 3 i", call=lambda x: np.unstack(x, axis=1))
case(
    np.meshgrid,
    "i",
    "j",
    "2",
    call=lambda *xs: (
        np.meshgrid(*xs),
        np.meshgrid(*xs, indexing="ij", sparse=True),
        np.meshgrid(xs[0]),
    ),
)
case(np.ix_, "i", call=lambda x: np.ix_(x, near(x, np.ones(2, x.dtype))))
case(np.diagflat, "i 2", call=lambda x: (np.diagflat(x), np.diagflat(x, -1)))
case(
    sliding_window_view,
    "4 3",
    call=lambda x: (
        sliding_window_view(x, 2, 0),
        sliding_window_view(x, (2, 3)),
        sliding_window_view(x, (2, 2), (0, 0)),
    ),
)
case(np.apply_along_axis, "2 3 i", call=lambda x: (
    np.apply_along_axis(lambda r: r[::-1] * np.sum(r), 1, x),
    np.apply_along_axis(lambda r, a: r[0] * a, -1, x, a=2)))  # fmt: skip
case(np.apply_over_axes, "2 3 i", call=lambda x: np.apply_over_axes(np.sum, x * x, [0, -1]))
case(np.real_if_close, "i", call=lambda x: (np.real_if_close(x + 0j), np.real_if_close(x + 1j)))
PADS = {
    "mean": {}, "maximum": {"stat_length": 2}, "median": {"stat_length": (1, 3)},
    "linear_ramp": {"end_values": (1, 5)}, "reflect": {"reflect_type": "odd"},
}  # fmt: skip
case(
    np.pad,
    apart("3 4"),
    what="modes of statistics",
    narrow=False,
    call=lambda x: [np.pad(x, ((1, 2), (0, 5)), mode, **options) for mode, options in PADS.items()],
)

# --- made with like=

for _operation in (np.array, np.asarray, np.asanyarray, np.ascontiguousarray, np.asfortranarray):
    case(
        _operation,
        "2",
        call=lambda x, f=_operation: f([[x[0], 3], x * x], dtype=x.dtype, **like(x)),
    )
case(np.require, "2", call=lambda x: np.require(x, x.dtype, ["C"], **like(x)))
case(np.full, "2", call=lambda x: np.full((3, 2), x, **like(x)))
case(np.arange, within(0.1, 0.3, ""), within(0.4, 0.45, ""), what="start and step", **WIDE,
     call=lambda a, h: np.arange(a, 2.0, h, **like(a)))  # fmt: skip

# --- np.emath: real or complex as the values ask

for _name in "sqrt log log2 log10 arccos arcsin arctanh".split():
    _operation = getattr(np.emath, _name)
    case(_operation, within(1.3, 2, "2"), call=lambda x, f=_operation: (f(-x), f(x), f(0.4 * x)),
         narrow=False)  # fmt: skip
case(np.emath.logn, within(1.3, 2, "2"), within(2, 3, ""), narrow=False,
     call=lambda x, n: (np.emath.logn(n, x), np.emath.logn(-n, -x)))  # fmt: skip
case(
    np.emath.power,
    within(1.3, 2, "2"),
    "2",
    **WIDE,
    call=lambda x, p: (np.emath.power(x, p), np.emath.power(-x, p), np.emath.power(x, [-2, 3])),
)

# --- what does not move: how each is called on an array of two axes


def _quietly(function, *args):  # NumPy says that the function will go
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return function(*args)


NOT_MOVING = {
    "argpartition": lambda x: np.argpartition(x, 1),
    "isin": lambda x: np.isin(x, x[0] + 0.25),
    "in1d": lambda x: _quietly(np.in1d, x, x[0] + 0.25),
    "diag_indices_from": lambda x: np.diag_indices_from(x[:2, :2]),
    "einsum_path": lambda x: np.einsum_path("ij,ij->j", x, x)[1],
    "may_share_memory": lambda x: np.may_share_memory(x, x[:1]),
    "shares_memory": lambda x: np.shares_memory(x, x[:1]),
    "empty": lambda x: np.empty((2, 0), like=x),
    "zeros": lambda x: np.zeros((2, 3), like=x),
    "ones": lambda x: np.ones(3, np.float32, like=x),
    "eye": lambda x: np.eye(2, 3, 1, like=x),
    "identity": lambda x: np.identity(3, like=x),
    "tri": lambda x: np.tri(3, k=-1, like=x),
    "frombuffer": lambda x: np.frombuffer(bytes(range(8)), np.uint8, like=x),
    "fromfile": lambda x: np.fromfile(os.devnull, like=x),
    "fromiter": lambda x: np.fromiter(iter([1, 2]), float, like=x),
    "fromstring": lambda x: np.fromstring("1 2", sep=" ", like=x),
    "fromfunction": lambda x: np.fromfunction(lambda i, j: i + j, (2, 2), like=x),
    "loadtxt": lambda x: np.loadtxt(["1 2"], like=x),
    "genfromtxt": lambda x: np.genfromtxt(["1 2"], like=x),
}
CALLS = {getattr(np, name): call for name, call in NOT_MOVING.items() if hasattr(np, name)}
