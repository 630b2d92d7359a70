"""The cases of functions that move entries: indexing, shapes, joining, casts."""

import operator

import numpy as np
from ops_case import case, near

# --- indexing and shapes

_MASK = np.arange(60).reshape(3, 4, 5) % 3 == 0
INDICES = {
    "int": 1, "negative int": -1, "ints": (1, -2, 3), "numpy int": np.int64(2),
    "slices": np.s_[1:, ::2],
    "negative steps": np.s_[::-1, 3:0:-2], "None": np.s_[:, None, 1], "Ellipsis": np.s_[..., 1:3],
    "inner Ellipsis": np.s_[0, ..., None, 1], "empty slice": np.s_[2:1], "all": (), "dots": ...,
    "mask": _MASK, "mask of one axis": _MASK[:, 0, 0], "mask of two axes": (0, _MASK[0]),
    "mask in the middle": np.s_[:, _MASK[0, :, 0]], "mask after": np.s_[1:, _MASK[0]],
    "empty mask": np.zeros((3, 4), bool), "True": True, "False": np.False_,
    "True within": np.s_[:, True, 1],
    "list": [2, 0, 2], "tuple": ((1, 1),), "range": range(2), "array": np.array([[0, 1], [2, 2]]),
    "array and slice": (np.array([0, 2]), slice(1, 3)), "slice and array": np.s_[:, [3, 3, 0]],
    "adjacent arrays": np.s_[:, [1, 2, 1], [0, 4, 0]],
    "arrays that broadcast": np.ix_([0, 2], [1, 1, 3]),
    "int and array": np.s_[1, [0, 3, 3]], "separated arrays": np.s_[[0, 2], :, [1, 1]],
    "separated by None": np.s_[[0, 2], None, [1, 1]], "int, slice, array": np.s_[1, :, [4, 0, 4]],
    "array, Ellipsis, int": np.s_[[[2], [0]], ..., 3],
    "array, None, slice, array": np.s_[[1, 1], None, 1:, [0, 2]],
    "mask, slice, array": np.s_[[True, False, True], ::2, [1, 4]],
    "empty list": [], "0-d array": np.array(2),
    "empty array": np.zeros((2, 0), int), "slice, empty array": np.s_[:, np.zeros(0, int)],
    "k coincides": np.s_[[0, 1, 2], [0, 1, 2]],
}  # fmt: skip
getitem = operator.getitem
for _what, _index in INDICES.items():
    case(
        getitem,
        "3 4 5",
        call=lambda x, i=_index: x[i],
        what=_what,
        complex=_what == "separated arrays",
    )
case(getitem, "", call=lambda x: x[...] + x[()] + np.sum(x[None]), what="of a number")
case(getitem, "i", call=lambda x: sum(v * v for v in x), what="by iteration")

FIXED = [  # calls on one array of shape (3, 4, 5)
    (np.take, [("int", (1, 1)), ("flat", ([3, -1, 3],)), ("axis", ([[0, 2], [2, 1]], -1))]),
    (np.reshape, [("flat", (-1,)), ("int", (60,)), ("guess", ((2, -1, 3),)),
                  ("Fortran", ((4, 15), "F"))]),
    (np.ravel, [("C", ()), ("Fortran", ("F",))]),
    (np.transpose, [("all", ()), ("axes", ((1, -1, 0),))]),
    (np.matrix_transpose, [("", ())]), (np.linalg.matrix_transpose, [("", ())]),
    (np.swapaxes, [("0, -1", (0, -1))]),
    (np.moveaxis, [("one", (0, -1)), ("two", ((0, 2), (1, 0)))]),
    (np.expand_dims, [("one", (1,)), ("two", ((0, -1),))]),
    (np.broadcast_to, [("wider", ((2, 3, 4, 5),)), ("the same", ((3, 4, 5),))]),
    (np.flip, [("all", ()), ("one", (1,)), ("two", ((0, -1),))]),
    (np.roll, [("flat", (7,)), ("one", (-2, 1)), ("two", ((1, 3), (0, 2)))]),
    (np.repeat, [("flat", (2,)), ("axis", (3, -1)), ("counts", ([2, 0, 1], 0))]),
    (np.tile, [("int", (2,)), ("fewer", ((2, 1),)), ("more", ((2, 1, 2, 1),))]),
    (np.array_split, [("sections", (2, 1)), ("points", ([1, 3, 9], 2)),
                      ("backwards", ([3, 1], 2))]),
    (np.split, [("sections", (2, 1)), ("points", ([1, 4], -1))]),
    (np.diagonal, [("first", ()), ("offset", (1, 2, 1)), ("below", (-2, 0, -1)), ("none", (9,))]),
    (np.linalg.diagonal, [("", ())]),
    (np.trace, [("", ()), ("offset", (-1, 1, 2))]), (np.tril, [("", ()), ("k", (-1,))]),
    (np.triu, [("", ()), ("k", (2,))]),
    (np.cumsum, [("flat", ()), ("axis", (1,)), ("last", (-1,))]),
    (np.diff, [("once", ()), ("twice", (2, 0)), ("not", (0,))]),
]  # fmt: skip
for _operation, _calls in FIXED:
    for _what, _options in _calls:
        case(
            _operation,
            "3 4 5",
            call=lambda x, f=_operation, o=_options: f(x, *o),
            what=_what or "plain",
        )
for _mode in ("edge", "reflect", "symmetric", "wrap", "constant"):
    case(np.pad, "3 4", call=lambda x, m=_mode: np.pad(x, ((1, 2), (0, 3)), m), what=_mode)
case(np.pad, "i", call=lambda x: np.pad(x, 2, constant_values=(1, 5)), what="with values")
for _mode in ("wrap", "clip"):
    case(np.take, "4", call=lambda x, m=_mode: np.take(x, [9, -7, 1], mode=m), what=_mode)
_ORDER = np.argsort(np.sin(np.arange(60).reshape(3, 4, 5)), axis=1)
case(np.take_along_axis, "3 4 5", call=lambda x: np.take_along_axis(x, _ORDER, 1))
case(
    np.take_along_axis,
    "3 4 5",
    call=lambda x: np.take_along_axis(x, _ORDER[:1, :2], 1),
    what="short",
)
case(
    np.take_along_axis, "3 4", call=lambda x: np.take_along_axis(x, _ORDER[0, 0], None), what="flat"
)
case(
    np.reshape,
    "i j k",
    call=lambda x: x.transpose(2, 0, 1).reshape(-1, x.shape[1]),
    what="of a transpose",
)
case(np.squeeze, "i 1 j 1", call=np.squeeze)
case(np.squeeze, "i 1 j 1", call=lambda x: np.squeeze(x, -3), what="one axis")
case(np.broadcast_to, "i 1", call=lambda x: np.broadcast_to(x, (2, x.shape[0], 3)), what="a column")
case(np.broadcast_arrays, "i 1", "j", complex=True)
for _operation in (np.atleast_1d, np.atleast_2d):
    case(_operation, "")
    case(_operation, "", "i", "i j")
for _shapes in (("i j", "m j"), ("2 2 i", "3 2 i")):
    case(np.concatenate, *_shapes, call=lambda *xs: np.concatenate(xs), complex=True)
case(np.concatenate, "i j", "m", call=lambda *xs: np.concatenate(xs, axis=None), what="flat")
case(
    np.concatenate,
    "i j",
    call=lambda x: np.concatenate([x, np.ones_like(x), x * x], -1),
    what="mixed",
)
for _axis in (0, 1, -1):
    case(np.stack, "i j", "i j", call=lambda *xs, a=_axis: np.stack(xs, a), what=f"axis {_axis}")
case(
    np.stack,
    "3 i",
    call=lambda x: np.stack([x[0], 2 * x[1], near(x, np.zeros(x.shape[1], x.dtype))]),
    what="rows",
)
for _operation, _shapes in ((np.hstack, ("i j", "i m")), (np.vstack, ("i j", "j"))):
    case(_operation, *_shapes, call=lambda *xs, f=_operation: f(xs))
case(np.hstack, "", "i", call=lambda *xs: np.hstack(xs))
case(np.column_stack, "i", "i j", call=lambda *xs: np.column_stack(xs))
case(np.append, "i j", "m")
case(np.append, "i j", "m j", call=lambda a, b: np.append(a, b, 0), what="axis 0")
for _offset in (-1, 0, 2):
    case(np.diag, "i", call=lambda x, k=_offset: np.diag(x, k), what=f"of a vector, {_offset}")
    case(np.diag, "4 i", call=lambda x, k=_offset: np.diag(x, k), what=f"of a matrix, {_offset}")
case(np.tril, "i", what="of a vector")
for _operation in (np.copy, np.real, np.imag):
    case(_operation, "i j", complex=True)
case(np.astype, "i j", call=lambda x: np.astype(x, np.complex128) * (1 + 2j), what="to complex")
case(np.astype, "i j", call=lambda x: x.astype(x.dtype, copy=False) * x, what="to its own dtype")


for _operation in (np.zeros_like, np.empty_like, np.ones_like):
    case(
        _operation,
        "i j",
        call=lambda x, f=_operation: np.where(near(x, np.zeros(x.shape, bool)), f(x), x),
    )
case(np.full_like, "i j", call=lambda x: np.full_like(x, 3.0) * x)
case(np.full_like, "i j", "", call=np.full_like, what="with a dual")
