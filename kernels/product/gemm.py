"""A matrix product of our own on the device, for what cuBLAS does not do through CuPy.

It accumulates into an array that is there, runs while a graph is captured, adds in one fixed
order, and multiplies float32 in what `cuda.products` says. Where none of that matters, `a @ b` is
cuBLAS and faster.
"""

import dataclasses
from typing import Any

import numpy as np

from .. import cuda

THREADS = 256
STRIP = 16  # slices of a sum are multiples of it
ENOUGH_TILES = 128  # from which on tiles occupy a device; below, smaller ones do it better
LEAST_SLICE = 128  # positions along the sum below which a slice does not pay
MOST = (1 << 31) - 1  # rows, columns and positions along the sum, which kernels count in 32 bits

PARTS = "product/tensor.cuh", "product/gemm.cuh"  # of a source that multiplies by tiles
source = cuda.Source("product/gemm", parts=PARTS, tensor=True)


@dataclasses.dataclass(frozen=True)
class Tile:
    """The size of a block's part of a product, as in gemm.cuh: "large", "tall" or "small"."""

    name: str
    rows: int
    columns: int

    def count(self, rows: int, columns: int) -> int:
        """Return how many tiles cover a matrix."""
        return -(-rows // self.rows) * -(-columns // self.columns)


SMALL, TALL = Tile("small", 64, 64), Tile("tall", 128, 64)


def large(dtype: Any) -> Tile:
    """Return the large tile of a dtype."""
    return Tile("large", 128, 64 if np.dtype(dtype) == np.float64 else 128)


def tile_for(rows: int, columns: int, batch: int, dtype: Any) -> Tile:
    """Return the tile for products of a size: the largest of which there are enough."""
    for tile in (large(dtype), TALL):
        fits = rows > tile.rows // 2 and columns > tile.columns // 2
        if fits and tile.count(rows, columns) * batch >= ENOUGH_TILES:
            return tile
    return SMALL


def matmul(a: Any, b: Any, out: Any = None) -> Any:
    """Return a @ b for matrices of one dtype, in what `cuda.products` says: by cuBLAS if it can."""
    if not cuda.cublas_serves(a.dtype):
        return gemm(a, b, out=out)
    return a.dot(b, out)  # np.matmul does the same through CuPy and takes longer to begin


def slices_for(shape: tuple[int, ...], inner: int, dtype: Any) -> Any:
    """Return an array for the slices of a product with few tiles, or None where one slice is best.

    At batch 64 a layer of 1024 outputs is 16 tiles, which leave most of a device idle; with eight
    slices they are 128. The array may serve any number of such products, one after the other.

    Args:
        shape: of the result, (m, p) or (N, m, p).
        inner: positions along the sum.
        dtype: of the operands.
    """
    tiles = SMALL.count(*shape[-2:]) * (shape[0] if len(shape) > 2 else 1)
    slices = min(-(-ENOUGH_TILES // max(1, tiles)), inner // LEAST_SLICE)
    if slices < 2:
        return None
    return cuda.empty((slices, *shape), np.result_type(dtype, np.float32))


def gemm(
    a: Any,
    b: Any,
    *,
    left_transposed: bool = False,
    right_transposed: bool = False,
    out: Any = None,
    alpha: float = 1.0,
    beta: float | None = None,
    tile: Tile | None = None,
    sums: Any = None,
) -> Any:
    """Return alpha a @ b, or with `beta` alpha a @ b + beta out, of the dtype of a.

    Args:
        a: (m, n), or (n, m) if left_transposed; or a batch of them, (N, m, n).
        b: (n, p), or (p, n) if right_transposed; the same batch.
        out: C-contiguous (m, p) or (N, m, p), where the result goes; a new array without it.
        alpha, beta: numbers; without beta what was in out is not read.
        tile: instead of the one that tile_for picks.
        sums: what `slices_for` gives, for products of few tiles: a second launch adds the slices.

    Raises:
        ValueError: shapes or dtypes do not fit, a size is too large, or beta comes without out.
    """
    a, b = cuda.contiguous(a), cuda.contiguous(b)
    rows, inner = a.shape[-2:][:: -1 if left_transposed else 1]
    right_inner, columns = b.shape[-2:][:: -1 if right_transposed else 1]
    batch = a.shape[:-2]
    shape = (*batch, rows, columns)
    out = cuda.empty(shape, a.dtype) if out is None and beta is None else out
    if (
        inner != right_inner
        or b.shape[:-2] != batch
        or a.dtype != b.dtype
        or out is None
        or (out.shape, out.dtype) != (shape, a.dtype)
        or max(rows, columns, inner) > MOST
        or (sums is not None and sums.shape[1:] != shape)
    ):
        raise ValueError(
            f"gemm: a {a.shape} {a.dtype}, b {b.shape} {b.dtype} and out "
            f"{None if out is None else (out.shape, out.dtype)} do not fit, left_transposed "
            f"{left_transposed}, right_transposed {right_transposed}, beta {beta}, sums "
            f"{None if sums is None else sums.shape}. Give matrices of one dtype, one batch and "
            f"one inner size below 2**31, an out for beta, and sums from slices_for."
        )
    items = batch[0] if batch else 1
    tile = tile or tile_for(rows, columns, items, a.dtype)
    letters = "nt"[left_transposed] + "nt"[right_transposed]
    slices = 1 if sums is None else len(sums)
    slice_ = max(STRIP, -(-inner // slices // STRIP) * STRIP)
    grid = tile.count(rows, columns), items, slices
    ending = float(alpha), float(beta or 0.0), int(beta is not None)
    source.launch(f"gemm_{tile.name}_{letters}", a.dtype, grid, THREADS, a, b, out, rows, columns,
                  inner, *ending, sums, slice_)  # fmt: skip
    if sums is not None:
        source.launch("gemm_slices", a.dtype, cuda.blocks(out.size, THREADS), THREADS, sums, out,
                      slices, out.size, *ending)  # fmt: skip
    return out
