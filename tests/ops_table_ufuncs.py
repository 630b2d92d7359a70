"""The cases of ufuncs beside the arithmetic ones, and of ufuncs called with keywords."""

import numpy as np
from ops_case import apart, case, near, within

_EXPONENTS = np.array([3, -2, 0])
for _shape in ("3", "2 3", "2 1", ""):
    case(np.ldexp, _shape, call=lambda x: np.ldexp(x, near(x, _EXPONENTS)))
case(np.frexp, within(1.1, 1.9), call=lambda x: np.frexp(x)[0], what="mantissa")
case(np.frexp, within(-3.9, -2.1), call=lambda x: np.frexp(x)[0], what="mantissa of negatives")
case(np.nextafter, "i j", "j")
case(np.modf, within(-3.9, -3.1), call=lambda x: np.modf(x)[0], what="of negatives")

clip = np._core.umath.clip  # what ndarray.clip calls
for _what, _x in (("inside", within(0, 1)), ("below", within(-3, -2)), ("above", within(3, 4))):
    case(clip, _x, within(-1, -0.3, "j"), within(1.3, 2, "i 1"), what=f"as a ufunc, {_what}")

if hasattr(np, "matvec"):  # NumPy 2.2 and later
    for _left, _right in (("m n", "n"), ("3 m n", "n"), ("m n", "3 n"), ("b m n", "a b n")):
        case(np.matvec, _left, _right, complex=True)
    for _left, _right in (("n", "n p"), ("3 n", "n p"), ("n", "3 n p"), ("b n", "a b n p")):
        case(np.vecmat, _left, _right, complex=True)
    case(np.matvec, "n 2 m", "2 n", what="axes",
         call=lambda a, b: np.matvec(a, b, axes=[(2, 0), -1, 0]))  # fmt: skip

KEYWORDS = {
    "matmul axes": (np.matmul, ("2 m n", "p n"), {"axes": [(1, 2), (1, 0), (0, -1)]}),
    "matmul axes of vectors": (np.matmul, ("n", "n p"), {"axes": [(0,), (0, 1), (0,)]}),
    "vecdot axis": (np.vecdot, ("n m", "n m"), {"axis": 0}),
    "vecdot axes": (np.vecdot, ("n m", "m n"), {"axes": [0, 1, ()]}),
    "vecdot keepdims": (np.vecdot, ("m n", "n"), {"keepdims": True}),
}
for _what, (_operation, _shapes, _options) in KEYWORDS.items():
    case(_operation, *_shapes, what=_what, complex=True,
         call=lambda *xs, f=_operation, o=_options: f(*xs, **o))  # fmt: skip
_MASK = np.array([[True, False, True], [False, False, True]])


def _at_mask(function):  # elsewhere NumPy leaves what was in the memory
    def call(*xs):
        mask = near(xs[0], _MASK)
        return np.where(mask, function(*xs, where=mask, out=None), 0)

    return call


for _operation in (np.multiply, np.hypot, np.logaddexp):
    _arguments = within(0.3, 2, "2 1"), within(0.3, 2, "3")
    case(_operation, *_arguments, call=_at_mask(_operation), what="where")
case(np.sin, "2 3", call=_at_mask(np.sin), what="where", complex=True)
for _operation in (np.maximum, np.fmin):
    case(_operation, apart("5 2"), call=lambda x, f=_operation: f.accumulate(x), what="accumulate")
