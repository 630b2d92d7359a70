"""Sparse Jacobians and Hessians: the pattern by propagating sets, colours, compressed products.

Two ways of finding the pattern were tried. Walking the record of linearize afterwards needs no word
in the primitives, but the record cannot follow writes (out = np.zeros_like(u); out[1:-1] = ...,
which is how stencils are written), keeps every array alive, and knows of an argument often no more
than its shape. A carrier of a dual, as numbers of sets that stand where the tangents would, moves
by the calls that move the entries, so that views, writing and nested transforms (for Hessians) work
as they do for tangents; new sets are made only where entries meet. So it is the carrier.
"""

from .coloring import Coloring
from .transforms import sparse_hessian, sparse_jacobian, sparsity

__all__ = ["Coloring", "sparse_hessian", "sparse_jacobian", "sparsity"]
