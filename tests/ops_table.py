"""The cases behind the rules: for each differentiable function, how to call it and on what.

A rule without a row here, or in ops_table_shapes.py, fails test_ops.py.
"""

import math

import numpy as np
import ops_table_functions  # noqa: F401  (adds its cases)
import ops_table_linalg  # noqa: F401  (adds its cases)
import ops_table_shapes  # noqa: F401  (adds its cases)
import ops_table_ufuncs  # noqa: F401  (adds its cases)
from ops_case import CASES, Argument, apart, case, near, within

from dualgrad.ops import neural as nn

__all__ = ["CASES"]

# --- entry by entry

ANALYTIC = {  # functions of one argument that take complex numbers, by where they are smooth
    (-1.2, 1.2): "negative positive square exp exp2 expm1 sin cos tan sinh cosh tanh conjugate",
    (0.3, 2.0): "reciprocal sqrt log log2 log10 log1p absolute angle",
    (-0.9, 0.9): "arcsin arccos arctan arcsinh arctanh",
    (1.3, 3.0): "arccosh",
}
REAL = {
    (-2.0, 2.0): "deg2rad radians rad2deg degrees nan_to_num",
    (0.3, 2.0): "cbrt fabs",
    (-2.0, -0.3): "cbrt fabs absolute",
}
for (_low, _high), _names in ANALYTIC.items():
    for _name in _names.split():
        case(getattr(np, _name), within(_low, _high), complex=True)
for (_low, _high), _names in REAL.items():
    for _name in _names.split():
        _where = "" if _low < 0 < _high else "below 0" if _high < 0 else "above 0"
        case(getattr(np, _name), within(_low, _high), what=_where)

for _shapes in (("i j", "i j"), ("i j", "j"), ("i 1", "1 j"), ("", "i"), ("i", "3 i")):
    for _name in ("add", "subtract", "multiply"):
        case(getattr(np, _name), *_shapes, complex=True)
    _first, _second = _shapes
    for _name in ("divide", "power", "float_power"):
        case(getattr(np, _name), within(0.3, 2, _first), within(0.3, 2, _second), complex=True,
             widens=_name == "float_power")  # fmt: skip
    for _name in ("arctan2", "hypot", "logaddexp", "logaddexp2"):
        case(getattr(np, _name), within(0.3, 2, _first), within(-2, 2, _second))
    for _name in ("remainder", "fmod", "divmod"):  # quotients between 2.1 and 2.9
        _call = getattr(np, _name) if _name != "divmod" else lambda a, b: np.divmod(a, b)[1]
        case(getattr(np, _name), within(2.3, 2.9, _first), within(1, 1.09, _second), call=_call)
    case(np.copysign, within(0.3, 2, _first), within(-2, -0.3, _second))

case(np.fmod, within(-2.9, -2.3), within(1, 1.09), what="of a negative")
case(np.remainder, within(-2.9, -2.3), within(1, 1.09), what="of a negative")
for _exponent in (0, 1, 2, 3, -1, -2, 0.5, 2.0):
    case(
        np.power,
        within(0.3, 2),
        call=lambda x, p=_exponent: x**p,
        what=f"x ** {_exponent}",
        complex=True,
    )
for _exponent in (2, 3):
    case(np.power, within(-2, -0.3), call=lambda x, p=_exponent: x**p, what=f"(-x) ** {_exponent}")
case(np.power, "i j", call=lambda x: 2**x, what="2 ** x")
for _name in ("maximum", "minimum", "fmax", "fmin"):  # no two entries of an `apart` array tie
    _call = getattr(np, _name)
    case(_call, apart("2 i j"), call=lambda x, f=_call: f(x[0], x[1]))
    case(_call, within(0.1, 2), within(-2, -0.1, "j"))
case(np.modf, within(0.1, 0.9), call=lambda x: np.modf(x + 2)[0], what="fraction")
case(np.sign, within(0.3, 2), call=lambda x: np.real(np.sign(x + 1j)), what="of complex")
case(
    np.heaviside,
    "3",
    call=lambda h: np.heaviside(near(h, np.array([-1, 0, 2], h.dtype)), h),
    what="at 0",
)
case(np.angle, within(0.3, 2), call=lambda x: np.angle(x, deg=True), what="degrees", complex=True)
case(np.absolute, within(-2, -0.3), what="left of the imaginary axis", complex=True)
case(
    np.where,
    "i j",
    "j",
    call=lambda a, b: np.where(near(b, np.arange(b.size) % 2 == 0), a, b),
    complex=True,
)
case(np.where, "i", call=lambda a: np.where([[True], [False]], a, 0.5), what="beside a number")
_RANGE = (within(-1, -0.3, "j"), within(1.3, 2, "i 1"))
for _what, _x in (("inside", within(0, 1)), ("below", within(-3, -2)), ("above", within(3, 4))):
    case(np.clip, _x, *_RANGE, what=_what)
    case(np.clip, _x, call=lambda x: x.clip(-0.5, 1.5), what=f"{_what} fixed limits")
case(np.clip, within(0, 1), call=lambda x: np.clip(x, None, 1.5), what="one limit")

# --- products

for _left in ("n", "m n", "b m n", "a b m n", "1 b m n"):
    for _right in ("n", "n p", "b n p", "a b n p", "a 1 n p"):
        case(np.matmul, _left, _right, complex=True)
case(np.matmul, "3 n", "n 3", what="k as axis lengths")
case(np.matmul, "3 m n", "3 n p", what="k as batch size")
case(np.matmul, "m n", call=lambda x: x @ x.T, what="x @ x.T", complex=True)
for _shapes in (("", "i"), ("i j", ""), ("n", "n"), ("m n", "n"), ("m n", "n p"), ("a m n", "n"),
                ("m n", "b n p"), ("a m n", "b n p")):  # fmt: skip
    case(np.dot, *_shapes, complex=True)
for _shapes in (("", "i"), ("n", "n"), ("m n", "p n"), ("a m n", "n")):
    case(np.inner, *_shapes, complex=True)
case(np.vdot, "m n", "m n", complex=True)
for _operation in (np.vecdot, np.linalg.vecdot):
    case(_operation, "m n", "n", complex=True)
    case(_operation, "n m", "n m", call=lambda a, b, f=_operation: f(a, b, axis=0), what="axis 0")
case(np.outer, "m n", "p", complex=True)
case(np.linalg.outer, "m", "p", complex=True)
case(np.cross, "i 3", "3", complex=True)
for _shapes in (("i j", "m n"), ("i", "m n"), ("i j", "n"), ("", "n")):
    case(np.kron, *_shapes, complex=True)
for _operation in (np.tensordot, np.linalg.tensordot):
    case(_operation, "a m n", "m n p", complex=True)
    for _axes, _second in ((0, "p"), (1, "n p"), (([0, -1], [1, 0]), "n a p"), ((1, 0), "m p")):
        _call = lambda a, b, f=_operation, axes=_axes: f(a, b, axes=axes)  # noqa: E731
        case(_operation, "a m n", _second, call=_call, what=f"axes {_axes}")
case(
    np.linalg.multi_dot, "m n", "n p", "p q", call=lambda *xs: np.linalg.multi_dot(xs), complex=True
)
case(np.linalg.multi_dot, "n", "n p", "p", call=lambda *xs: np.linalg.multi_dot(xs))

EINSUMS = {
    "ij,jk->ik": ("m n", "n p"), "ij,jk": ("m n", "n p"), "ij->": ("m n",), "ij->j": ("m n",),
    "ji": ("m n",), "ii": ("n n",), "ii->i": ("n n",), "iij->j": ("n n p",), "iii->i": ("n n n",),
    "ij,j,ik->k": ("m n", "n", "m p"), "i,j->ij": ("m", "n"), "i,i": ("n", "n"),
    "...ij,...jk->...ik": ("a m n", "b a n p"), "...i,i": ("a m n", "n"), "i...->...": ("m a b",),
    "...,...": ("a b", "b"), "...i,...i->...": ("1 n", "b n"), "...i->i...": ("1 n",),
    "ij,kl->k": ("m n", "p q"), "ij,ij->ij": ("1 n", "m n"), "bij,bjk->bik": ("3 m n", "3 n p"),
    "ij,ij->j": ("3 n", "1 n"), "ij,ij->i": ("m n", "m 1"),
}  # fmt: skip
for _spec, _shapes in EINSUMS.items():
    case(np.einsum, *_shapes, call=lambda *xs, s=_spec: np.einsum(s, *xs), what=_spec, complex=True)
case(
    np.einsum,
    "m n",
    "n p",
    call=lambda a, b: np.einsum(a, [0, 1], b, [1, 2], [2, 0]),
    what="sublists",
)
case(
    np.einsum,
    "m n",
    "n p",
    call=lambda a, b: np.einsum(a, [0, 1], b, [1, 2]),
    what="sublists, implicit",
)
case(
    np.einsum,
    "b m n",
    call=lambda a: np.einsum(a, [..., 1, 0], [..., 0]),
    what="sublist with ellipsis",
)
case(np.einsum, "m n", call=lambda a: np.einsum("ij,kj->ik", a, a), what="one array twice")

_image, _filter = "2 5 6 2", "3 2 2 3"
CONVOLUTIONS = {
    "plain": {}, "stride": {"stride": (2, 1)}, "padding": {"padding": 1},
    "SAME": {"padding": "SAME"},
    "SAME and stride": {"padding": "SAME", "stride": 2}, "dilation": {"dilation": (1, 2)},
    "uneven padding": {"padding": ((0, 2), (1, 0))},
    "all": {"stride": 2, "padding": ((2, 1), (0, 3)), "dilation": 2},
}  # fmt: skip
for _what, _options in CONVOLUTIONS.items():
    case(nn.conv2d, _image, _filter, call=lambda x, w, o=_options: nn.conv2d(x, w, **o), what=_what)
for _groups, _shape in ((2, "2 2 1 4"), (4, "2 2 1 4")):
    case(nn.conv2d, f"3 3 4 {max(2, _groups)}", _shape, what=f"{_groups} groups",
         call=lambda x, w, g=_groups: nn.conv2d(x, w, groups=g, stride=(1, 2)))  # fmt: skip

# --- linear systems; the diagonal keeps them well conditioned


def _dominant(a):
    return a + near(a, 6 * np.eye(a.shape[-1], dtype=a.dtype))


for _a, _b in (
    ("n n", "n"),
    ("n n", "n m"),
    ("3 n n", "n m"),
    ("n n", "3 n m"),
    ("a b n n", "b n m"),
):
    case(np.linalg.solve, _a, _b, call=lambda a, b: np.linalg.solve(_dominant(a), b),
         complex=True, narrow=False)  # fmt: skip
case(np.linalg.inv, "n n", call=lambda a: np.linalg.inv(_dominant(a)), complex=True, narrow=False)
case(np.linalg.inv, "3 n n", call=lambda a: np.linalg.inv(_dominant(a)), narrow=False)

# --- reductions: every axis, negative and several, kept or not

AXES = [
    (None, False),
    (0, False),
    (-1, True),
    ((0, 2), False),
    ((-1, 1), True),
    ((), False),
    ((0, 1, 2), True),
]
SMOOTH_REDUCTIONS = (np.sum, np.prod, np.mean, np.var, np.std, np.linalg.vector_norm, nn.logsumexp)
for _operation in (*SMOOTH_REDUCTIONS, np.max, np.amax, np.min, np.amin, np.ptp, np.median):
    for _axis, _keepdims in AXES:
        if _axis == () and _operation in (
            np.var,
            np.std,
            np.median,
            np.linalg.vector_norm,
            nn.logsumexp,
        ):
            continue  # of single numbers: constant, or not smooth
        case(_operation, apart("3 2 4"), what=f"axis {_axis}{' kept' if _keepdims else ''}",
             call=lambda x, f=_operation, o={"axis": _axis, "keepdims": _keepdims}: f(x, **o),
             complex=_operation in SMOOTH_REDUCTIONS[:-1])  # fmt: skip
for _operation in (np.sum, np.prod, np.max, np.min):
    case(_operation, "", what="of a number")
case(
    np.sum,
    "i j",
    call=lambda x: np.sum(x, where=near(x, np.arange(x.shape[1]) % 2 == 0)),
    what="where",
)
case(
    np.prod,
    "3 3",
    call=lambda x: np.prod(x * near(x, np.array([1.0, 0.0, 1.0], x.dtype)), 1),
    what="one zero",
)
case(
    np.prod,
    "2 4",
    call=lambda x: np.prod(x - x[:, :1] * x[:, 1:2] / x[:, 1:2], 1),
    what="a computed zero",
)
case(
    np.prod,
    "2 3",
    call=lambda x: np.prod(x * near(x, np.array([0.0, 0.0, 1.0], x.dtype))),
    what="zeros",
)
case(np.max, apart("i j"), call=lambda x: np.max(x, initial=-5.0), what="initial")
case(np.min, apart("i j"), call=lambda x: np.min(x, axis=0, initial=-5.0), what="initial below")
case(np.mean, "0 3", call=lambda x: np.mean(x, axis=1), what="of no rows")
for _options in ({"ddof": 1}, {"correction": 1, "axis": 1}):
    case(np.var, "3 4", call=lambda x, o=_options: np.var(x, **o), what=f"{_options}")
    case(np.std, "3 4", call=lambda x, o=_options: np.std(x, **o), what=f"{_options}")
case(np.average, "i j")
case(
    np.average,
    "i j",
    within(0.5, 2, "j"),
    call=lambda a, w: np.average(a, 1, w),
    what="weights of an axis",
)
case(np.average, "i j", within(0.5, 2), call=lambda a, w: np.average(a, weights=w), what="weights")
for _order in (None, 1, 2, 3, 2.5, 0.5, -1, math.inf, -math.inf):
    case(np.linalg.norm, Argument("5", 0.3, 2, True), call=lambda x, o=_order: np.linalg.norm(x, o),
         what=f"vector, ord {_order}", complex=_order not in (1, 3, math.inf))  # fmt: skip
    case(np.linalg.norm, Argument("3 5", -2, -0.3, True), what=f"rows, ord {_order}",
         call=lambda x, o=_order: np.linalg.norm(x, o, axis=-1, keepdims=True))  # fmt: skip
    case(np.linalg.vector_norm, Argument("2 3", 0.3, 2, True), what=f"entries, ord {_order}",
         call=lambda x, o=_order or 2: np.linalg.vector_norm(x, ord=o))  # fmt: skip
for _order in (None, "fro", 1, -1, math.inf, -math.inf):
    case(np.linalg.norm, Argument("3 5", 0.3, 2, True), what=f"matrix, ord {_order}",
         call=lambda x, o=_order: np.linalg.norm(x, o))  # fmt: skip
    case(np.linalg.norm, Argument("4 2 3", 0.3, 2, True), what=f"matrices, ord {_order}",
         call=lambda x, o=_order: np.linalg.norm(x, o, axis=(2, 0)))  # fmt: skip
for _axis in (0, -1, None):
    case(np.sort, apart(), call=lambda x, a=_axis: np.sort(x, a), what=f"axis {_axis}")
case(np.median, apart("5"), what="odd")

# --- neural networks

for _operation in (nn.tanh, nn.sigmoid, nn.gelu):
    case(_operation, "i j")
case(nn.relu, within(0.1, 2), what="above 0")
case(nn.relu, within(-2, -0.1), what="below 0")
for _operation in (nn.softmax, nn.log_softmax):
    for _axis in (-1, 0, 1):
        case(
            _operation, "i j 3", call=lambda x, f=_operation, a=_axis: f(x, a), what=f"axis {_axis}"
        )
for _reduction in ("mean", "none"):
    case(nn.cross_entropy, "i 3", what=_reduction,
         call=lambda x, r=_reduction: nn.cross_entropy(
             x, near(x, np.arange(len(x)) % 3), r))  # fmt: skip
    case(nn.mse, "i j", "i j", call=lambda x, y, r=_reduction: nn.mse(x, y, r), what=_reduction)
for _operation in (nn.max_pool2d, nn.avg_pool2d):
    case(_operation, apart("2 5 4 3"), call=lambda x, f=_operation: f(x, 2), what="size 2")
    case(
        _operation, apart("1 5 6 2"), call=lambda x, f=_operation: f(x, (3, 2)), what="size (3, 2)"
    )
