"""What a plan is built of: the builders of rows, and the `Program` that runs them."""

from .conv import SOURCE, conv_stage, pad_stage
from .draws import DENSE, NONE, RANK1, draw_stage, leaf_draw
from .filters import filters_stage
from .head import LABELS, cross_entropy_stage, finish_stage
from .linear import X as LINEAR_X
from .linear import dot_stage, linear_stage, sums_size, update_stage
from .program import (
    CONV,
    CROSS_ENTROPY,
    DOT,
    DRAW,
    FILTERS,
    FINISH,
    LINEAR,
    MARK,
    PAD,
    UPDATE,
    WINOGRAD,
    Program,
    aligned,
    mark_stage,
)
from .transforms import POINTS, filters_size
from .winograd import padded_size, winograd_stage

__all__ = [
    "CONV",
    "CROSS_ENTROPY",
    "DENSE",
    "DOT",
    "DRAW",
    "FILTERS",
    "FINISH",
    "LABELS",
    "LINEAR",
    "LINEAR_X",
    "MARK",
    "NONE",
    "PAD",
    "POINTS",
    "Program",
    "RANK1",
    "SOURCE",
    "UPDATE",
    "WINOGRAD",
    "aligned",
    "conv_stage",
    "cross_entropy_stage",
    "dot_stage",
    "draw_stage",
    "filters_size",
    "filters_stage",
    "finish_stage",
    "leaf_draw",
    "linear_stage",
    "mark_stage",
    "pad_stage",
    "padded_size",
    "sums_size",
    "update_stage",
    "winograd_stage",
]
