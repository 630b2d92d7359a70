"""The rules, one file a family; importing this package fills the operation table."""

from . import elementwise, linalg, neural, products, reductions, structural

__all__ = ["elementwise", "linalg", "neural", "products", "reductions", "structural"]
