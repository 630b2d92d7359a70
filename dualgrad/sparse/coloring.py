"""Colourings: columns (or unknowns) that one direction can probe together."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import MissingRuleError, ShapeError

Sparse = Any  # a scipy.sparse array


def scipy_sparse() -> Any:
    """Return scipy.sparse, or say how to get it."""
    try:
        from scipy import sparse
    except ImportError:
        raise MissingRuleError(
            "dg.sparse_jacobian and its like need SciPy, which is not installed. Install it "
            "(pip install scipy), or use dg.jacobian, which gives a dense array."
        ) from None
    return sparse


def canonical(pattern: Any, where: str) -> Sparse:
    """Return a pattern as a Boolean CSR array, all its stored entries true and in order.

    Args:
        pattern: scipy.sparse matrix or array (what it stores counts, zeros too), or a dense one.
    """
    sparse = scipy_sparse()
    if not sparse.issparse(pattern):
        pattern = np.asarray(pattern)
        if pattern.ndim != 2 or pattern.dtype.kind not in "bifcu":
            raise ShapeError(
                f"{where}: a pattern of shape {pattern.shape} and dtype {pattern.dtype}. Give a "
                f"matrix, one row for each entry of the result and one column for each of the "
                f"argument: scipy.sparse, or a dense Boolean array."
            )
    elif pattern.ndim != 2:
        raise ShapeError(f"{where}: a pattern of shape {pattern.shape}. Give a matrix.")
    pattern = sparse.coo_array(pattern)
    ones = np.ones(len(pattern.data), bool)
    found = sparse.csr_array((ones, pattern.coords), shape=pattern.shape)
    found.sum_duplicates()
    return found


class Coloring:
    """A sparsity pattern and colours of its columns, found once and used again at other points.

    Columns of one colour are probed by one direction. Plain: they have no row in common, so that
    each product gives the entry of one column (distance-2 colouring of the bipartite graph).
    symmetric=True, for Hessians: no path of four unknowns has two colours (star colouring), so that
    each entry can be read in its row or in its mirror's. That takes fewer colours, at times far
    fewer: two for an arrow, whose dense row makes the plain colouring need one for each column.

    Args:
        pattern: scipy.sparse matrix or dense array, (results, inputs). Every stored entry counts;
            it may hold more than the true entries, and never fewer.
        symmetric: the pattern is that of a symmetric matrix; what is missing of it is mirrored.

    Attributes:
        pattern: Boolean scipy.sparse CSR array. shape: its shape.
        colors: (inputs,), the colour of each column, 0 to count - 1.
        count: the number of colours: directions that a Jacobian takes.
        symmetric: as given.

    The greedy colouring goes through the columns in their order, by falling number of entries, and
    keeps the better; restricted star colouring by falling number alone.

    Raises:
        ShapeError: pattern is no matrix, or not square where it must be symmetric.
        MissingRuleError: SciPy is not installed.

    Source: Gebremedhin, Manne, Pothen 2005, SIAM Review 47, algorithms 3.1, 4.1 and section 4.3.
    """

    def __init__(self, pattern: Any, *, symmetric: bool = False) -> None:
        found = canonical(pattern, "dg.Coloring")
        if symmetric:
            if found.shape[0] != found.shape[1]:
                raise ShapeError(
                    f"dg.Coloring: symmetric=True with a pattern of shape {found.shape}. The "
                    f"pattern of a Hessian is square; leave symmetric out for a Jacobian."
                )
            found = canonical(found + found.T, "dg.Coloring")
        self.pattern = found
        self.shape: tuple[int, int] = found.shape
        self.symmetric = bool(symmetric)
        self.colors = _star_colors(found) if symmetric else _column_colors(found)
        self.count = int(self.colors.max(initial=-1)) + 1
        self._places = self._readings()

    def __repr__(self) -> str:
        return (
            f"<Coloring: {self.count} colours, pattern {self.shape} with {self.pattern.nnz} entries"
            f"{', symmetric' if self.symmetric else ''}>"
        )

    def _readings(self) -> np.ndarray:
        """Return where in the products, (count, results), each stored entry is read."""
        columns, m = self.pattern.indices.astype(np.intp), self.shape[0]
        rows = np.repeat(np.arange(m), np.diff(self.pattern.indptr))
        own = self.colors[columns] * m + rows
        if not self.symmetric:
            return own
        # Where a colour occurs twice in the row, the mirror entry is alone in its own.
        _, inverse, times = np.unique(own, return_inverse=True, return_counts=True)
        return np.where(times[inverse] > 1, self.colors[rows] * m + columns, own)

    def matrix(self, products: Iterable[np.ndarray], dtype: Any) -> Sparse:
        """Return the matrix, in CSR, whose products with the colours are given in their order.

        Product i, of shape (results,), is the matrix times a vector with ones at the columns of
        colour i and zeros elsewhere.
        """
        rows = np.empty((self.count, self.shape[0]), dtype)
        for i, product in enumerate(products):
            rows[i] = product
        data, pattern = np.take(rows, self._places), self.pattern
        return scipy_sparse().csr_array(
            (data, pattern.indices.copy(), pattern.indptr.copy()), shape=self.shape
        )


def _column_colors(pattern: Sparse) -> np.ndarray:
    """Return greedy colours of columns that share no row, the better of two orders."""
    by_column = pattern.tocsc()
    sizes = np.diff(by_column.indptr)
    orders = [np.arange(len(sizes)), np.argsort(-sizes, kind="stable")]
    if np.array_equal(orders[0], orders[1]):
        orders = orders[:1]
    lists = by_column.indices.tolist(), by_column.indptr.tolist()
    found = [_greedy(*lists, pattern.shape[0], order.tolist()) for order in orders]
    return min(found, key=lambda colors: colors.max(initial=-1))


def _greedy(rows: list[int], starts: list[int], m: int, order: list[int]) -> np.ndarray:
    # The colours that a row has seen are the bits of a Python integer: its first zero bit is the
    # first free colour, and a row with very many entries costs no more than others.
    seen, colors = [0] * m, np.zeros(len(starts) - 1, np.intp)
    for column in order:
        mine = rows[starts[column] : starts[column + 1]]
        used = 0
        for row in mine:
            used |= seen[row]
        bit = ~used & (used + 1)
        for row in mine:
            seen[row] |= bit
        colors[column] = bit.bit_length() - 1
    return colors


def _star_colors(pattern: Sparse) -> np.ndarray:
    """Return colours such that in each path a, b, c with a and c alike, b has a smaller colour.

    Such a colouring is a star colouring: in a path a, b, c, d of two colours b and c would each
    have the smaller one. Unknowns with many neighbours come first and get the small colours.
    """
    starts, neighbours = pattern.indptr.tolist(), pattern.indices.tolist()
    order = np.argsort(-np.diff(pattern.indptr), kind="stable").tolist()
    around, bits = [0] * len(order), [0] * len(order)  # colours next to each, and its own
    for v in order:
        near = [w for w in neighbours[starts[v] : starts[v + 1]] if w != v]
        used = 0
        for w in near:
            own = bits[w]
            used |= own | (around[w] & (own - 1)) if own else around[w]
        bits[v] = bit = ~used & (used + 1)
        for w in near:
            around[w] |= bit
    return np.array([bit.bit_length() - 1 for bit in bits], np.intp)
