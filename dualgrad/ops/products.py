"""Products: matmul and its relatives, einsum, and convolution."""

import math

import numpy as np

from ..beside import beside
from ..dual import Array
from ..errors import OptionError, ShapeError
from ..kernels import conv
from ..operations import implements
from ..options import pair
from ..primitive import Primitive, align, bilinear, unbroadcast
from .results import array, deliver

# --- matmul of operands with at least two axes; the direction axis k folds into rows where it can


def _mT(x):
    return np.swapaxes(x, -1, -2)


def _left(ta, b):
    """k tangents of a in a @ b: (k, ..., m, n) @ (..., n, p)."""
    if b.ndim == 2:  # one product for all k, and all batch axes
        rows = np.reshape(ta, (math.prod(ta.shape[:-1]), ta.shape[-1]))
        return np.reshape(rows @ b, (*ta.shape[:-1], b.shape[-1]))
    return np.matmul(align(ta, b.ndim), b)


def _right(a, tb):
    """k tangents of b in a @ b: (..., m, n) @ (k, ..., n, p)."""
    if tb.ndim == 3 and a.ndim == 2 and tb.shape[-1] == 1:  # k vectors are one matrix
        return np.matmul(np.reshape(tb, tb.shape[:2]), _mT(a))[..., None]
    if tb.ndim == 3 and a.ndim > 2:  # batch axes of a fold into its rows
        rows = np.reshape(a, (math.prod(a.shape[:-1]), a.shape[-1]))
        return np.reshape(np.matmul(rows, tb), (len(tb), *a.shape[:-1], tb.shape[-1]))
    return np.matmul(a, align(tb, a.ndim))


def _right_t(a, ct, shape):
    if len(shape) == 2 and a.ndim > 2:  # sum over the batch inside the product
        rows = np.reshape(a, (math.prod(a.shape[:-1]), a.shape[-1]))
        return np.matmul(_mT(rows), np.reshape(ct, (len(ct), rows.shape[0], ct.shape[-1])))
    return unbroadcast(np.matmul(_mT(a), align(ct, a.ndim)), shape)


matmul_core = bilinear(
    lambda a, b: np.matmul(a, b),
    _left,
    _right,
    left_t=lambda ct, b, shape: unbroadcast(_left(ct, _mT(b)), shape),
    right_t=_right_t,
    name="matmul",
)


@implements(np.matmul, np.linalg.matmul)
def matmul(x1, x2):
    a, b = array(x1), array(x2)
    if a.ndim >= 2 and b.ndim >= 2:
        return matmul_core(a, b)
    if not a.ndim or not b.ndim:
        raise ShapeError(
            f"matmul: operands of shape {a.shape} and {b.shape}; a 0-d operand takes *."
        )
    y = matmul_core(a if a.ndim > 1 else a[None, :], b if b.ndim > 1 else b[:, None])
    y = y if b.ndim > 1 else y[..., 0]
    return y if a.ndim > 1 else y[0] if b.ndim == 1 else y[..., 0, :]


@implements(np.dot)
def dot(a, b, out=None):
    a, b = array(a), array(b)
    if not a.ndim or not b.ndim:
        return deliver(a * b, out)
    if a.ndim <= 2 and b.ndim <= 2:
        return deliver(np.matmul(a, b), out)
    return deliver(np.tensordot(a, b, (-1, -1 if b.ndim == 1 else -2)), out)


@implements(np.inner)
def inner(a, b):
    a, b = array(a), array(b)
    return a * b if not a.ndim or not b.ndim else np.tensordot(a, b, (-1, -1))


@implements(np.vdot)
def vdot(a, b):
    return np.matmul(np.conj(np.ravel(array(a))), np.ravel(array(b)))


@implements(np.vecdot, np.linalg.vecdot)
def vecdot(x1, x2, axis=-1):
    x1, x2 = array(x1), array(x2)
    if x1.shape[axis] != x2.shape[axis]:
        raise ShapeError(
            f"vecdot: axis {axis} has length {x1.shape[axis]} in x1 {x1.shape} and "
            f"{x2.shape[axis]} in x2 {x2.shape}; they must agree."
        )
    return np.sum(np.conj(x1) * x2, axis=axis)


if hasattr(np, "matvec"):  # NumPy 2.2 and later

    @implements(np.matvec)
    def matvec(x1, x2):
        return np.matmul(x1, array(x2)[..., None])[..., 0]

    @implements(np.vecmat)
    def vecmat(x1, x2):
        return np.matmul(np.conj(array(x1))[..., None, :], x2)[..., 0, :]


@implements(np.outer, np.linalg.outer)
def outer(a, b, out=None):
    return deliver(np.ravel(array(a))[:, None] * np.ravel(array(b)), out)


@implements(np.kron)
def kron(a, b):
    ndim = max(np.ndim(a), np.ndim(b))
    a = np.reshape(a, (1,) * (ndim - np.ndim(a)) + np.shape(a))
    b = np.reshape(b, (1,) * (ndim - np.ndim(b)) + np.shape(b))
    wide = tuple(n for size in a.shape for n in (size, 1))
    high = tuple(n for size in b.shape for n in (1, size))
    shape = tuple(m * n for m, n in zip(a.shape, b.shape, strict=True))
    return np.reshape(np.reshape(a, wide) * np.reshape(b, high), shape)


@implements(np.tensordot, np.linalg.tensordot)
def tensordot(a, b, axes=2):
    a, b = array(a), array(b)
    if np.ndim(axes) == 0:
        axes_a, axes_b = list(range(a.ndim - axes, a.ndim)), list(range(axes))
    else:
        axes_a, axes_b = ([x] if np.ndim(x) == 0 else list(x) for x in axes)
    axes_a, axes_b = [i % a.ndim for i in axes_a], [i % b.ndim for i in axes_b]
    if [a.shape[i] for i in axes_a] != [b.shape[i] for i in axes_b]:
        raise ShapeError(
            f"tensordot: axes {axes_a} of {a.shape} do not match axes {axes_b} of {b.shape}."
        )
    free_a = [i for i in range(a.ndim) if i not in axes_a]
    free_b = [i for i in range(b.ndim) if i not in axes_b]
    n = math.prod(a.shape[i] for i in axes_a)
    rows, columns = [a.shape[i] for i in free_a], [b.shape[i] for i in free_b]
    left = np.reshape(np.transpose(a, [*free_a, *axes_a]), (math.prod(rows), n))
    right = np.reshape(np.transpose(b, [*axes_b, *free_b]), (n, math.prod(columns)))
    return np.reshape(np.matmul(left, right), (*rows, *columns))


def _promoted(arrays):
    """The arrays in the precision of their product: of small integers alone, one overflows."""
    kind = np.result_type(*(x.dtype for x in arrays))
    real = np.zeros((), kind).real.dtype
    kinds = [kind if x.dtype.kind == "c" else real for x in arrays]
    return [x if x.dtype == t else np.astype(x, t) for x, t in zip(arrays, kinds, strict=True)]


@implements(np.linalg.multi_dot)
def multi_dot(arrays, *, out=None):
    product, *others = _promoted([array(x) for x in arrays])
    for factor in others:
        product = np.matmul(product, factor)
    return deliver(product, out)


# --- einsum: linear in each operand, so its tangent is a sum of einsums


def _einsum_value(*operands, inputs, output):
    return np.einsum(f"{','.join(inputs)}->{output}", *operands, optimize=len(operands) > 2)


def _einsum_residuals(primals, active, y, inputs, output):
    return primals, active


def _einsum_push(residuals, tangents, inputs, output):
    primals, _ = residuals
    k = _fresh(inputs)
    terms = []
    for i, t in enumerate(tangents):
        if t is not None:
            lifted = [*inputs[:i], k + inputs[i], *inputs[i + 1 :]]
            operands = [*primals[:i], t, *primals[i + 1 :]]
            terms.append(einsum_core(*operands, inputs=tuple(lifted), output=k + output))
    return sum(terms[1:], terms[0])


def _einsum_pull(residuals, ct, inputs, output):
    primals, active = residuals
    k = _fresh(inputs)
    sizes: dict[str, int] = {}
    for letters, x in zip(inputs, primals, strict=True):
        for c, n in zip(letters, x.shape, strict=True):
            sizes[c] = n if sizes.get(c, 1) == 1 else sizes[c]  # axes of length 1 broadcast
    cts = []
    for i, letters in enumerate(inputs):
        if not active[i]:
            cts.append(None)
            continue
        others = [np.conj(x) if x.dtype.kind == "c" else x for j, x in enumerate(primals) if j != i]
        known = [inputs[j] for j in range(len(inputs)) if j != i]
        # Letters of this operand alone are summed forward, so their cotangent is constant along
        # them.
        kept = "".join(c for c in letters if c in output or any(c in other for other in known))
        part = einsum_core(ct, *others, inputs=(k + output, *known), output=k + kept)
        found = dict(zip(kept, part.shape[1:], strict=True))  # 1 where the others have length 1
        shape = tuple(found.get(c, 1) for c in letters)
        full = (len(ct), *(sizes[c] for c in letters))
        wide = np.broadcast_to(np.reshape(part, (len(ct), *shape)), full)
        cts.append(unbroadcast(wide, primals[i].shape))
    return cts


def _fresh(inputs):
    used = set("".join(inputs))
    return next(c for c in "zyxwvutsrqponmlkjihgfedcbaZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in used)


einsum_core = Primitive(
    "einsum", _einsum_value, _einsum_residuals, _einsum_push, _einsum_pull, kind="multilinear"
)


@implements(np.einsum)
def einsum(*operands, out=None, optimize=False, dtype=None, order="K", casting="safe"):
    """np.einsum, with ellipses, repeated letters and the sublist form."""
    inputs, output, arrays = _parse_einsum(operands)
    arrays = list(arrays)
    for i, letters in enumerate(inputs):  # a repeated letter takes a diagonal first
        for c in dict.fromkeys(letters):
            while letters.count(c) > 1:
                first = letters.index(c)
                second = letters.index(c, first + 1)
                arrays[i] = np.diagonal(arrays[i], 0, first, second)
                letters = letters[:first] + letters[first + 1 : second] + letters[second + 1 :] + c
        inputs[i] = letters
    if dtype is not None:
        arrays = [np.astype(x, dtype, copy=False) for x in arrays]
    else:
        arrays = _promoted(arrays)
    return deliver(einsum_core(*arrays, inputs=tuple(inputs), output=output), out)


def _parse_einsum(operands):
    if not isinstance(operands[0], str):  # einsum(a, [0, 1], b, [1, 2], [0, 2])
        letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
        spell = lambda items: "".join("..." if c is Ellipsis else letters[c] for c in items)  # noqa: E731
        spec = ",".join(spell(items) for items in operands[1::2][: len(operands) // 2])
        if len(operands) % 2:
            spec += "->" + spell(operands[-1])
        operands = (spec, *operands[0 : len(operands) // 2 * 2 : 2])
    spec, arrays = operands[0].replace(" ", ""), [array(x) for x in operands[1:]]
    left, arrow, output = spec.partition("->")
    inputs = left.split(",")
    if len(inputs) != len(arrays):
        raise ShapeError(
            f"einsum: {spec!r} names {len(inputs)} operands, {len(arrays)} were given."
        )
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in spec]
    most = max((x.ndim - len(s.replace("...", "")) for s, x in zip(inputs, arrays, strict=True)
                if "..." in s), default=0)  # fmt: skip
    batch = "".join(spare[:most])
    for i, (s, x) in enumerate(zip(inputs, arrays, strict=True)):
        if "..." in s:
            n = x.ndim - len(s.replace("...", ""))
            inputs[i] = s.replace("...", batch[most - n :])
            shape = x.shape
            ones = [j for j, c in enumerate(inputs[i]) if c in batch and shape[j] == 1]
            arrays[i] = np.squeeze(x, tuple(ones)) if ones else x  # a batch axis of 1 broadcasts
            inputs[i] = "".join(c for j, c in enumerate(inputs[i]) if j not in ones)
    if not arrow:
        joined = "".join(inputs)
        output = batch + "".join(
            sorted(c for c in set(joined) - set(batch) if joined.count(c) == 1)
        )
    output = output.replace("...", batch)
    missing = [c for c in batch if c in output and not any(c in s for s in inputs)]
    if missing:  # every operand has length 1 there
        inputs.append("".join(missing))
        arrays.append(beside(arrays[0]).ones((1,) * len(missing), arrays[0].dtype))
    return inputs, output, arrays


# --- convolution and its two transposes, each bilinear in what is left


def _fold(t):
    """(k, n, ...) -> (k * n, ...): directions become examples."""
    return np.reshape(t, (t.shape[0] * t.shape[1], *t.shape[2:]))


def _unfold(y, k):
    return np.reshape(y, (k, y.shape[0] // k, *y.shape[1:]))


def _by_direction(function):
    """Apply function to each direction of t: for what cannot fold."""
    return lambda t: np.stack([function(t[i]) for i in range(len(t))])


def _conv_right(x, tw, groups, **window):
    k, *_, o = tw.shape
    if groups == 1:  # directions become output channels, so the windows of x are gathered once
        w = np.reshape(np.moveaxis(tw, 0, -2), (*tw.shape[1:-1], k * o))
        y = conv2d_core(x, w, groups=1, **window)
        return np.moveaxis(np.reshape(y, (*y.shape[:-1], k, o)), -2, 0)
    return _by_direction(lambda w: conv2d_core(x, w, groups=groups, **window))(tw)


conv2d_core: Primitive = bilinear(
    lambda x, w, **window: conv.conv2d(x, w, **window),
    left=lambda tx, w, **window: _unfold(conv2d_core(_fold(tx), w, **window), len(tx)),
    right=_conv_right,
    left_t=lambda ct, w, shape, **window: _input_of(ct, w, shape, window),
    right_t=lambda x, ct, shape, **window: _by_direction(
        lambda c: conv2d_filter(x, c, w_shape=shape, **window)
    )(ct),
    name="conv2d",
)


def _input_of(ct, w, shape, window):
    folded = (len(ct) * shape[0], *shape[1:])
    return _unfold(conv2d_input(_fold(ct), w, x_shape=folded, **window), len(ct))


# The transpose of conv2d in x: bilinear in (cotangent, w).
conv2d_input: Primitive = bilinear(
    lambda ct, w, x_shape, **window: conv.conv2d_input(ct, w, x_shape=x_shape, **window),
    left=lambda t, w, x_shape, **window: _input_of(t, w, x_shape, window),
    right=lambda ct, tw, x_shape, **window: _by_direction(
        lambda w: conv2d_input(ct, w, x_shape=x_shape, **window)
    )(tw),
    left_t=lambda u, w, shape, x_shape, **window: _unfold(
        conv2d_core(_fold(u), w, **window), len(u)
    ),
    right_t=lambda ct, u, shape, x_shape, **window: _by_direction(
        lambda x: conv2d_filter(x, ct, w_shape=shape, **window)
    )(u),
    name="conv2d_input",
)

# The transpose of conv2d in w: bilinear in (x, cotangent).
conv2d_filter: Primitive = bilinear(
    lambda x, ct, w_shape, **window: conv.conv2d_filter(x, ct, w_shape=w_shape, **window),
    left=lambda tx, ct, w_shape, **window: _by_direction(
        lambda x: conv2d_filter(x, ct, w_shape=w_shape, **window)
    )(tx),
    right=lambda x, t, w_shape, **window: _by_direction(
        lambda ct: conv2d_filter(x, ct, w_shape=w_shape, **window)
    )(t),
    left_t=lambda u, ct, shape, w_shape, **window: _by_direction(
        lambda w: conv2d_input(ct, w, x_shape=shape, **window)
    )(u),
    right_t=lambda x, u, shape, w_shape, **window: _by_direction(
        lambda w: conv2d_core(x, w, **window)
    )(u),
    name="conv2d_filter",
)


def conv2d(x: Array, w: Array, *, stride=1, padding=0, dilation=1, groups: int = 1) -> Array:
    """Return the convolution (cross-correlation) of images with filters, shape (N, H', W', C_out).

    Args:
        x: images (N, H, W, C_in).
        w: filters (height, width, C_in // groups, C_out).
        stride, dilation: int or (vertical, horizontal).
        padding: int, "VALID" (none), "SAME" (output ceil(size / stride), the odd row after), or
            ((top, bottom), (left, right)).
        groups: channels are cut into this many groups, each with filters of its own.

    Raises:
        ShapeError: ranks, channels, groups or sizes do not fit. OptionError: an unknown padding.
    """
    x, w = array(x), array(w)
    return conv2d_core(x, w, **canonical_window(x, w, stride, padding, dilation, groups))


def canonical_window(x, w, stride, padding, dilation, groups) -> dict:
    """Return the checked parameters of conv2d_core: pairs of ints, for padding pairs of pairs."""
    _check_conv(x, w, groups)
    stride, dilation = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
    pads = _padding(padding, x.shape[1:3], w.shape[:2], stride, dilation)
    for size, (before, after), window, gap in zip(
        x.shape[1:3], pads, w.shape, dilation, strict=False
    ):
        if size + before + after < (window - 1) * gap + 1:
            raise ShapeError(
                f"conv2d: the filter {w.shape[:2]} (dilation {dilation}) is larger than the padded "
                f"image, {x.shape[1:3]} with padding {pads}. Pad more, or use a smaller filter."
            )
    return {"stride": stride, "padding": pads, "dilation": dilation, "groups": groups}


def _check_conv(x, w, groups):
    if x.ndim != 4 or w.ndim != 4:
        raise ShapeError(
            f"conv2d: x {x.shape} and w {w.shape} must have four axes: images (N, height, width, "
            f"channels), filters (height, width, channels // groups, out)."
        )
    if groups < 1 or x.shape[-1] != w.shape[2] * groups or w.shape[3] % groups:
        raise ShapeError(
            f"conv2d: x has {x.shape[-1]} channels, w expects {w.shape[2]} a group and gives "
            f"{w.shape[3]}, with groups={groups} (x {x.shape}, w {w.shape}). Give x as (N, height, "
            "width, channels), w as (height, width, channels // groups, out), out a multiple of "
            "groups."
        )


def _padding(padding, sizes, windows, strides, dilations):
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            raise OptionError(f'padding={padding!r}: give "SAME", "VALID", an int, or two pairs.')
        pads = []
        for n, window, stride, gap in zip(sizes, windows, strides, dilations, strict=True):
            reach = (-(-n // stride) - 1) * stride + (window - 1) * gap + 1
            total = max(reach - n, 0) if padding.upper() == "SAME" else 0
            pads.append((total // 2, total - total // 2))
        return tuple(pads)
    if isinstance(padding, (int, np.integer)):
        padding = ((padding, padding), (padding, padding))
    pads = tuple((p, p) if isinstance(p, (int, np.integer)) else tuple(p) for p in padding)
    if len(pads) != 2 or any(len(p) != 2 or min(p) < 0 for p in pads):
        raise OptionError(
            f'padding={padding!r}: give "SAME", "VALID", an int >= 0, or two pairs of them.'
        )
    return tuple((int(a), int(b)) for a, b in pads)
