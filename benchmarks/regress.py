"""A short watch on speed: kernels and steps as ratios to NumPy on the same machine, under a minute.

    python benchmarks/regress.py [--json PATH] [--against OLDER.json]

Products and steps are divided by NumPy's float32 product (64 x 1024) @ (1024 x 1024), the rest by
np.exp of 100,000 float32 numbers, all timed in turn: a ratio moves less than a time does when the
machine changes. --against prints the change since an older file. Nothing fails on a time.
"""

import json
from functools import partial
from typing import Any

import models
import numpy as np
import timing

import dualgrad as dg
from dualgrad.kernels import conv, dispatch, pool, product, softmax

PRODUCT, EXP = "np.matmul 64x1024x1024", "np.exp 100,000"


def wave(x: Any) -> Any:
    return np.sum(np.tanh(x) * x + np.exp(-x))


def calls(batch: int, width: int) -> dict[str, tuple[str, Any]]:
    """Return by name what each is divided by, and its call."""

    def normal(*shape: int) -> np.ndarray:
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

    x, w, line = normal(64, 1024), normal(1024, 1024), normal(100_000)
    images, filters = normal(16, 14, 14, 64), normal(3, 3, 64, 64)
    update = partial(product.outer_add, normal(1024, 1024), normal(1, 1024), normal(1, 1024), 1e-6)
    convolve = partial(conv.conv2d, images, filters, (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    key, size = dg.Key(0), (1000, 100)
    found: dict[str, tuple[str, Any]] = {
        PRODUCT: (PRODUCT, partial(np.matmul, x, w)),
        EXP: (EXP, partial(np.exp, line)),
        "conv2d 16x14x14, 64 to 64": (PRODUCT, convolve),
        "max_pool2d 16x14x14x64": (EXP, partial(pool.max_pool2d, images, (2, 2))),
        "outer_add 1024x1024": (PRODUCT, update),
        "softmax 64x1024": (EXP, partial(softmax.softmax, x)),
        "100,000 signs": (EXP, partial(dg.random.rademacher, key, size, np.float32)),
        "100,000 normals": (EXP, partial(dg.random.normal, key, size, np.float32)),
        "jvp of sum(tanh(x) x + exp(-x))": (EXP, partial(dg.jvp, wave, (line,), (line,))),
    }
    for name in ("logreg", "mlp"):
        model, data = models.build(name, width), models.batch(name, batch)
        found[f"{name} forward"] = PRODUCT, models.own_forward(model, data)
        for method, given in (models.PLANNED | models.EAGER).items():
            found[f"{name} {method} step"] = PRODUCT, models.own_step(model, data, **given)
    model, data = models.build("cnn", channels=16), models.batch("cnn", min(batch, 16))
    found["cnn forward, 16 channels"] = PRODUCT, models.own_forward(model, data)
    step = models.own_step(model, data, structure="rank1")
    found["cnn rank-1 step, 16 channels"] = PRODUCT, step
    return found


def main() -> None:
    parser = timing.parser(__doc__, rounds=20, plot=False, peers=False, pinned=False)
    parser.set_defaults(seconds=30.0)
    parser.add_argument(
        "--against", type=timing.existing, metavar="PATH", help="an older --json file"
    )
    parser.add_argument("--batch", type=timing.whole, default=64)
    parser.add_argument(
        "--width", type=timing.whole, default=1024, help="of the MLP (default: 1024)"
    )
    options = parser.parse_args()
    older = json.loads(options.against.read_text())["rows"] if options.against else {}
    dispatch.numba_available()  # loaded now, so that every round runs the same kernels
    wanted = calls(options.batch, options.width)
    contestants = {name: call for name, (_, call) in wanted.items()}
    found = timing.summary(timing.interleaved(contestants, options.rounds, options.seconds))
    rows, body = {}, []
    for name, (base, _) in wanted.items():
        ratio = found[name]["minimum"] / found[base]["minimum"]
        rows[name] = found[name] | {"over": base, "ratio": ratio}
        before = older.get(name, {}).get("ratio")
        change = ratio / before if before else None
        body.append([name, 1e3 * found[name]["minimum"], found[name]["spread"], ratio, change])
    print(timing.machine_line())
    print(timing.table(["", "ms, least", "spread", "over NumPy", "over older"], body))
    timing.write(options, {"rows": rows})


if __name__ == "__main__":
    main()
