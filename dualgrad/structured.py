"""Tangents and gradients kept in factors, and the primitives that take them as they are.

Every primitive that is not entered here receives the dense array: correct, only slower.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .beside import on_device
from .dual import Array, Structured
from .errors import ShapeError
from .kernels import product
from .ops.products import conv2d_core, matmul_core
from .ops.structural import transpose_core

BLOCK_BYTES = 1 << 18  # of dense rows made at a time


class Outer(Structured):
    """k rank-one tangents of one array: tangent i is left[i] (outer) right[i], never materialised.

    Attributes:
        left: (k, *shape[:-1]). right: (k, shape[-1]). shape: of the array.
    """

    __slots__ = ("left", "right", "shape", "dtype")

    def __init__(self, left: Array, right: Array) -> None:
        self.left = left
        self.right = right
        self.shape = (*left.shape[1:], right.shape[1])
        self.dtype = left.dtype

    def __len__(self) -> int:
        return len(self.left)

    def __repr__(self) -> str:
        return f"Outer(k={len(self)}, shape={self.shape})"

    def dense(self) -> Array:
        """Return the (k, *shape) array."""
        right = np.reshape(self.right, (len(self), *(1,) * (self.left.ndim - 1), -1))
        return self.left[..., None] * right

    def with_factors(self, left: Array, right: Array) -> "Outer":
        """Return the like of this with other factors."""
        return Outer(left, right)

    def rows(self) -> Array:
        """Return left as a matrix, (k, rows)."""
        return np.reshape(self.left, (len(self), -1))

    def combine(self, coefficients: np.ndarray) -> "LowRank":
        """Return sum_i coefficients[i] left[i] (outer) right[i]."""
        weights = coefficients.astype(self.dtype)[:, None]
        return LowRank(self.rows() * weights, self.right, self.shape)

    def gram(self) -> np.ndarray:
        """Return the inner products of the k tangents, (k, k)."""
        rows = self.rows()
        return (rows @ rows.T) * (self.right @ self.right.T)


class LowRank:
    """A gradient of rank r, sum_i left[i] (outer) right[i]; a leaf of gradient trees.

    It behaves as the array it stands for under *, +, -, @ and np.asarray, and optimisers apply it
    without making that array.

    Attributes:
        left: (r, rows), where rows is the product of all axes of shape but the last.
        right: (r, shape[-1]).
        shape: of the array it stands for.
    """

    __slots__ = ("left", "right", "shape")

    def __init__(self, left: Array, right: Array, shape: tuple[int, ...] | None = None) -> None:
        shape = (left.shape[1], right.shape[1]) if shape is None else tuple(shape)
        rows = math.prod(shape[:-1])
        if left.shape != (len(right), rows) or right.shape[1:] != shape[-1:]:
            raise ShapeError(
                f"LowRank: left {left.shape} and right {right.shape} are no factors of {shape}. "
                f"Give left (r, {rows}) and right (r, {shape[-1] if shape else '?'})."
            )
        self.left = left
        self.right = right
        self.shape = shape

    def __repr__(self) -> str:
        return f"LowRank(rank={len(self.left)}, shape={self.shape}, dtype={self.dtype})"

    @property
    def dtype(self) -> np.dtype:
        return self.left.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def with_factors(self, left: Array, right: Array) -> "LowRank":
        """Return the like of this with other factors."""
        return LowRank(left, right, self.shape)

    def dense(self) -> Array:
        """Return the array, of `shape`."""
        return np.reshape(self.left.T @ self.right, self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.dense().astype(dtype or self.dtype, copy=False)

    def norm(self) -> float:
        """Return the Frobenius norm, a float."""
        return math.sqrt(float(self.square()))

    def square(self) -> Array:
        """Return the sum of squares, from the r x r Gram matrices of the factors or block by block.

        Whichever takes fewer products; no temporary is larger than the array it stands for.
        """
        rank, rows = self.left.shape
        columns = self.right.shape[1]
        if rank * (rows + columns) <= rows * columns:
            square = np.sum((self.left @ self.left.T) * (self.right @ self.right.T))
        else:
            parts = (np.vdot(block, block).astype(np.float64) for _, block in self.row_blocks())
            square = sum(parts, start=np.float64(0))
        return np.maximum(square, 0.0)

    def add_to(self, w: np.ndarray, scale: float) -> None:
        """Do w += scale * self in place, without an array of w's size."""
        product.outer_add(self._matrix(w), self.left, self.right, scale)

    def accumulate(self, buffer: np.ndarray, decay: float) -> None:
        """Do buffer = decay * buffer + self in place, without an array of its size."""
        product.outer_accumulate(self._matrix(buffer), self.left, self.right, decay)

    def row_blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (rows, dense block) over the matrix view (rows, shape[-1]), block by block."""
        height = max(1, BLOCK_BYTES // max(1, self.right.shape[1] * self.dtype.itemsize))
        if on_device(self.left):  # no cache to stay in, and each block would be a launch
            height = max(1, self.left.shape[1])
        for start in range(0, self.left.shape[1], height):
            rows = slice(start, min(start + height, self.left.shape[1]))
            yield rows, product.outer_rows(self.left, self.right, rows.start, rows.stop)

    def _matrix(self, w: np.ndarray) -> np.ndarray:
        if w.shape != self.shape:
            raise ShapeError(
                f"LowRank of shape {self.shape} cannot be added to an array of {w.shape}."
            )
        return np.reshape(w, (-1, self.shape[-1]), copy=False)  # a copy would lose what is written

    def __mul__(self, scale: Any) -> Any:
        if np.ndim(scale):
            return self.dense() * scale
        factor = scale.astype(self.dtype) if on_device(scale) else float(scale)  # keeps the dtype
        return LowRank(self.left * factor, self.right, self.shape)

    __rmul__ = __mul__

    def __truediv__(self, scale: Any) -> Any:
        return self.dense() / scale if np.ndim(scale) else self * (1 / scale)

    def __pow__(self, exponent: Any) -> Any:
        return self.dense() ** exponent

    def __eq__(self, other: Any) -> Any:
        return self.dense() == (other.dense() if isinstance(other, LowRank) else other)

    __hash__ = None  # type: ignore[assignment]

    def __neg__(self) -> "LowRank":
        return self * -1

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, LowRank):
            return self.dense() + other
        if other.shape != self.shape:
            raise ShapeError(f"LowRank: shapes {self.shape} and {other.shape} differ.")
        left = np.concatenate([self.left, other.left])
        return LowRank(left, np.concatenate([self.right, other.right]), self.shape)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self + -other

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __matmul__(self, other: Any) -> Any:
        return self.left.T @ (self.right @ other) if self.ndim == 2 else self.dense() @ other


# --- what stays in factors: rule(primals, tangent, **params) gives the tangent of the result


def _matmul_right(primals, t):
    """a @ (l r'): the k columns a @ l, each times its r; m (n + p) products instead of m n p."""
    a, b = primals
    if b.ndim != 2:
        return np.matmul(a, t.dense() if a.ndim <= b.ndim else _aligned(t, a.ndim))
    columns = np.moveaxis(np.matmul(a, t.left.T), -1, 0)[..., None]  # (k, ..., m, 1)
    return columns * np.reshape(t.right, (len(t), *(1,) * (columns.ndim - 2), -1))


def _matmul_left(primals, t):
    """(l r') @ b: each l times the row r @ b."""
    a, b = primals
    if a.ndim != 2 or b.ndim != 2:
        return np.matmul(_aligned(t, b.ndim), b)
    return t.left[..., None] * (t.right @ b)[:, None, :]


def _aligned(t, ndim):
    dense = t.dense()
    missing = ndim + 1 - dense.ndim
    return np.reshape(dense, (len(t), *(1,) * max(missing, 0), *dense.shape[1:]))


def _transpose(primals, t, axes):
    return (
        Outer(t.right, t.left)
        if axes == (1, 0)
        else np.transpose(t.dense(), (0, *(a + 1 for a in axes)))
    )


def _conv2d_filter(primals, t, groups, **window):
    """x * (l r'): a convolution with k filters of one output channel each, then times r."""
    x, w = primals
    if groups != 1:
        return conv2d_core.push(
            (x, None, [False, True]), [None, t.dense()], groups=groups, **window
        )
    single = conv2d_core(x, np.moveaxis(t.left, 0, -1), groups=1, **window)  # (n, h, w, k)
    return np.moveaxis(single, -1, 0)[..., None] * np.reshape(t.right, (len(t), 1, 1, 1, -1))


matmul_core.structured[1, Outer] = _matmul_right
matmul_core.structured[0, Outer] = _matmul_left
transpose_core.structured[0, Outer] = _transpose
conv2d_core.structured[1, Outer] = _conv2d_filter
