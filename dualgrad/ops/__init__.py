"""The rules, one file a family; importing this package fills the operation table."""

from . import elementwise, indexing, linalg, neural, products, reductions, structural

__all__ = ["elementwise", "indexing", "linalg", "neural", "products", "reductions", "structural"]
