"""Time the kernels' NumPy and numba forms: the rows behind THRESHOLDS in kernels/dispatch.py.

    OPENBLAS_NUM_THREADS=1 python benchmarks/kernels.py [--json PATH]

Each row is the minimum over repeated runs, the two forms taking turns. Kernels without a numba
loop have one figure. One BLAS thread, because the loops have one too, and because on a busy
machine a product on several waits for the slowest. "GEMM" rows time the product of a convolution's
whole patch matrix, already made, with the filters.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import models
import numpy as np
import timing

import dualgrad as dg
from dualgrad.kernels import conv, dispatch, normalise, pool, product, softmax

Case = tuple[str, str, Callable[[], object], bool]  # kernel, size, call, has a numba loop
SAME = ((1, 1), (1, 1))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def conv_cases() -> Iterator[Case]:
    for n, side, c, o in ((64, 28, 1, 64), (64, 28, 64, 64), (64, 14, 64, 64), (8, 56, 64, 128)):
        x, w, ct = normal(n, side, side, c), normal(3, 3, c, o), normal(n, side, side, o)
        rest = ((1, 1), SAME, (1, 1), 1)
        size = f"{n}x{side}x{side}x{c} -> {o}"
        patches, filters = normal(n * side * side, 9 * c), normal(9 * c, o)
        y = np.empty((n * side * side, o), np.float32)
        yield "GEMM", size, partial(np.matmul, patches, filters, out=y), False
        yield "conv2d", size, partial(conv.conv2d, x, w, *rest), False
        yield (
            "conv2d_input",
            size,
            partial(conv.conv2d_input, ct, w, x.shape, *rest),
            False,
        )
        yield (
            "conv2d_filter",
            size,
            partial(conv.conv2d_filter, x, ct, w.shape, *rest),
            False,
        )


def pool_cases() -> Iterator[Case]:
    size = (2, 2)
    for n, side, c in ((1, 16, 8), (4, 16, 8), (4, 28, 16), (64, 28, 64)):
        x = normal(n, side, side, c)
        y, index = pool.max_pool2d(x, size)
        yield "max_pool2d", f"{x.size}", partial(pool.max_pool2d, x, size), True
        t = normal(4, *x.shape)
        yield (
            "max_pool2d_gather",
            f"{4 * y.size}",
            partial(pool.max_pool2d_gather, t, index, size),
            True,
        )
        yield (
            "max_pool2d_scatter",
            f"{y.size}",
            partial(pool.max_pool2d_scatter, y, index, size, x.shape),
            True,
        )


def product_cases() -> Iterator[Case]:
    for m, n in ((32, 32), (64, 64), (128, 128), (784, 256), (1024, 1024)):
        for rank in (1, 4, 16):
            w, left, right = normal(m, n), normal(rank, m), normal(rank, n)
            yield (
                "outer_add",
                f"{m * n} ({m}x{n}) rank {rank}",
                partial(product.outer_add, w, left, right, 1e-6),
                rank <= product.cpu.LOOP_RANK,
            )


def softmax_cases() -> Iterator[Case]:
    for n, c in ((64, 10), (512, 10), (64, 1000)):
        x, labels = normal(n, c), np.arange(n) % c
        for kernel in (softmax.softmax, softmax.log_softmax, softmax.logsumexp):
            yield kernel.__name__, f"{n}x{c}", partial(kernel, x), False
        yield (
            "cross_entropy",
            f"{n}x{c}",
            partial(softmax.cross_entropy, x, labels),
            False,
        )


def normalise_cases() -> Iterator[Case]:
    """Over rows of 32 and 512 entries, over columns, and over all axes but the last."""
    layouts = (((32,), (-1,)), ((512,), (-1,)), ((64, 64), (-2,)), ((8, 8, 16), (-4, -3, -2)))
    for rest, axes in layouts:
        for size in (1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20):
            x = normal(size // math.prod(rest), *rest)
            y, _, variance = normalise.normalise(x, axes, 1e-5)
            shape = f"{size} {'x'.join(map(str, x.shape))} {axes}"
            call = partial(normalise.normalise, x, axes, 1e-5)
            yield "normalise", shape, call, True
            call = partial(normalise.normalise_tangent, x[None], y, variance, axes, 1e-5)
            yield "normalise_tangent", shape, call, True


def elementwise_cases() -> Iterator[Case]:
    """Through duals with one tangent: where no loop runs, NumPy computes value and tangent."""
    for dtype in (np.float32, np.float64):
        for n in (1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20):
            x = dg.dual(1 + normal(n).astype(dtype) ** 2, normal(n))
            y = dg.dual(normal(n).astype(dtype), normal(n))
            size = f"{n} {np.dtype(dtype).name}"
            for function in (np.exp, np.tanh, np.log):
                yield function.__name__, size, partial(function, x), True
            yield "multiply", size, partial(np.multiply, x, y), True


def plan_cases() -> Iterator[Case]:
    """A training step: eager, and planned in the place of "numba"."""
    for sizes in ((4, 8, 3), (16, 64, 10), (784, 10), (784, 128, 10), (784, 1024, 1024, 10)):
        model = dg.nn.MLP(list(sizes))
        x, labels = normal(64, sizes[0]), np.arange(64) % sizes[-1]
        for structure in ("rank1", "dense"):
            runs = {
                plan: models.own_step(model, (x, labels), plan=plan, structure=structure)
                for plan in (False, True)
            }
            count = sum(w.size for w in dg.tree.parameters(model).values())
            yield "plan", f"{count} {structure}", partial(_either, runs), True


def _either(runs: dict[bool, Callable[[], object]]) -> object:
    return runs[dispatch.numba_use != "never"]()


def seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def minima(call: Callable[[], object], forms: list[str], budget: float = 0.25) -> dict[str, float]:
    """Return the least seconds of a call in each form ("never" or "always" numba)."""
    best = dict.fromkeys(forms, float("inf"))
    repeats = 1
    for round_number in range(10):
        for form in forms:
            dispatch.numba_use = form
            if round_number == 0:
                call()  # compile, touch memory
                repeats = max(repeats, int(1e-3 / max(seconds(call, 1), 1e-7)))
            best[form] = min(best[form], seconds(call, repeats))
        if round_number >= 3 and sum(best.values()) * repeats * round_number > budget:
            break
    dispatch.numba_use = "table"
    return best


def main() -> None:
    options = timing.parser(__doc__, plot=False, pinned=False, peers=False).parse_args()
    rows = []
    print(f"{'kernel':20s} {'size':28s} {'numpy us':>10s} {'numba us':>10s} {'ratio':>7s}")
    cases = (
        conv_cases,
        pool_cases,
        product_cases,
        softmax_cases,
        normalise_cases,
        elementwise_cases,
        plan_cases,
    )
    for family in cases:
        for kernel, size, call, has_loop in family():
            loop = has_loop and dispatch.numba_available()
            best = minima(call, ["never", "always"] if loop else ["never"])
            numpy_us = best["never"] * 1e6
            numba_us = best["always"] * 1e6 if loop else None
            rows.append(dict(kernel=kernel, size=size, numpy_us=numpy_us, numba_us=numba_us))
            tail = f" {numba_us:10.1f} {numpy_us / numba_us:7.2f}" if numba_us else ""
            print(f"{kernel:20s} {size:28s} {numpy_us:10.1f}{tail}", flush=True)
    timing.write(options, {"rows": rows})


if __name__ == "__main__":
    main()
