"""Histograms: the counts move with the weights, the edges with the extremes of the samples."""

import math

import numpy as np

from ..beside import beside
from ..dual import DualTensor, primal_of
from ..operations import implements
from .results import array, is_dual
from .selecting import spread


def _edges(a, bins, limits, weights):
    """The bins' edges, which move with bins (an array of edges) or with the ends of the samples."""
    if not isinstance(bins, str) and np.ndim(bins) == 1:
        edges = array(bins)
        np.histogram_bin_edges(np.zeros(0), primal_of(edges))  # NumPy's own errors
        return edges
    plain = np.histogram_bin_edges(primal_of(a), bins, primal_of(limits), weights)
    moving = a if limits is None else limits
    if not is_dual(moving) or np.size(primal_of(moving)) == 0:
        return plain
    low, high = (np.min(a), np.max(a)) if limits is None else limits
    if primal_of(low) == primal_of(high):
        low, high = low - 0.5, high + 0.5
    return np.astype(np.linspace(low, high, len(plain)), plain.dtype, copy=False)


def _bins_of(samples, edges):
    """Which bin each sample is in, -1 for none; the last bin holds its upper edge too."""
    place = np.searchsorted(edges, samples, "right") - 1
    place = np.where(samples == edges[-1], edges.size - 2, place)
    return np.where((samples >= edges[0]) & (samples <= edges[-1]), place, -1)


@implements(np.histogram_bin_edges)
def histogram_bin_edges(a, bins=10, range=None, weights=None):
    return _edges(np.ravel(array(a)), bins, range, primal_of(weights))


@implements(np.histogram)
def histogram(a, bins=10, range=None, density=None, weights=None):
    """Counts, or sums of the weights, and edges; with density, divided by the bins' widths."""
    a = np.ravel(array(a))
    if weights is not None:
        weights = array(weights)
        if weights.size != a.size:
            raise ValueError("weights should have the same shape as a.")
        weights = np.ravel(weights)
    edges = _edges(a, bins, range, primal_of(weights))
    plain = primal_of(edges)
    if type(weights) is DualTensor:
        counts = spread(weights, _bins_of(primal_of(a), plain), plain.size - 1)
        counts = np.astype(counts, weights.dtype, copy=False)
    else:
        counts, _ = np.histogram(primal_of(a), plain if np.ndim(bins) else bins, primal_of(range),
                                 weights=weights)  # fmt: skip
    if density:
        widths = np.astype(np.diff(edges), np.float64, copy=False)
        return counts / widths / np.sum(counts), edges
    return counts, edges


@implements(np.histogramdd)
def histogramdd(sample, bins=10, range=None, density=None, weights=None):
    """The histogram of points, in rows or as one array for each coordinate, and its edges."""
    if isinstance(sample, (list, tuple)):
        columns = [np.ravel(array(x)) for x in sample]
    else:
        sample = array(sample)
        columns = [sample] if sample.ndim == 1 else list(sample.T)
    dimensions = len(columns)
    bins = list(bins) if hasattr(bins, "__len__") else [bins] * dimensions
    limits = [None] * dimensions if range is None else list(range)
    if len(bins) != dimensions:
        raise ValueError("The dimension of bins must be equal to the dimension of the sample x.")
    if len(limits) != dimensions:
        raise ValueError("range argument must have one entry per dimension")
    edges = [_edges(*of_one, None) for of_one in zip(columns, bins, limits, strict=True)]
    places = [_bins_of(primal_of(x), primal_of(e)) for x, e in zip(columns, edges, strict=True)]
    shape = tuple(len(e) - 1 for e in edges)
    inside = np.all([p >= 0 for p in places], axis=0)
    flat = beside(inside).zeros(len(inside), np.intp)
    for place, n in zip(places, shape, strict=True):
        flat = flat * n + place
    flat = np.where(inside, flat, -1)
    weights = beside(flat).ones(flat.size) if weights is None else np.ravel(array(weights))
    counts = np.reshape(spread(weights, flat, math.prod(shape)), shape)
    if density:
        total = np.sum(counts)
        for i, e in enumerate(edges):
            counts = counts / np.reshape(np.diff(e), (-1, *(1,) * (dimensions - 1 - i)))
        counts = counts / total
    return counts, edges


@implements(np.histogram2d)
def histogram2d(x, y, bins=10, range=None, density=None, weights=None):
    x, y = array(x), array(y)
    if x.shape != y.shape:
        raise ValueError("x and y must have the same length.")
    if hasattr(bins, "__len__") and len(bins) not in (1, 2):
        bins = [array(bins)] * 2  # the same edges for both
    counts, (first, second) = histogramdd([x, y], bins, range, density, weights)
    return counts, first, second
