"""Activity perturbation: noise on what layers give, and which parameters it reaches.

A parameter enters the loss with a `Pending` tangent. A site (dg.nn.linear, dg.nn.conv2d) that meets
it adds noise to its result and remembers input and noise; any other operation asks it for an
ordinary direction. So one pass finds out which parameter is which.

Credit: a site's noise is multiplied with the derivative of the loss of its own example; or, where
the loss has an entry for each place and group of channels (local losses), and the call stood in
`with credit(spread)`, with the derivative of the entry that its place and group alone can reach.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from . import drawing
from .arguments import dense
from .dual import Array, DualTensor, Level, Structured, primal_of, split
from .errors import ShapeError, StructureError
from .ops.products import conv2d_filter
from .random import Key
from .sections import Losses, Run
from .structured import LowRank

Credit = Callable[[Array, tuple[int, ...]], Array]


class Pending(Structured):
    """The tangent of a parameter until it is known whether a site or an operation takes it."""

    __slots__ = ("run", "path", "shape", "dtype")

    def __init__(self, run: "ActivityRun", path: str, x: Array) -> None:
        self.run = run
        self.path = path
        self.shape = x.shape
        self.dtype = x.dtype

    def __len__(self) -> int:
        return self.run.numbers[1] - self.run.numbers[0]

    def dense(self) -> Array:
        """Return an ordinary direction, (k, *shape): no site took the parameter here."""
        return self.run.ordinary_direction(self)


class Site(NamedTuple):
    """One call of linear or conv2d: its parameters, input, and noise (k, *shape of the result)."""

    weight: str | None
    bias: str | None
    x: Array
    noise: np.ndarray
    weight_gradient: Callable  # (x, noise combined over directions) -> gradient of the weight
    credit: Credit | None
    crosses: Callable[[int, int], bool]  # whether spread noise is mixed here: see `at_site`


_credit: ContextVar[Credit | None] = ContextVar("credit", default=None)


@contextmanager
def credit(rule: Credit | None) -> Iterator[None]:
    """Let the sites called inside be credited by `rule` with losses of more axes than (N,).

    rule(d, shape) is given the derivatives of a loss, (k, N, ...), and the shape of the site's
    noise, (k, N, ...), and returns what multiplies the noise: an array that broadcasts against it.
    """
    before = _credit.set(rule)
    try:
        yield
    finally:
        _credit.reset(before)


def spread(d: Array, shape: tuple[int, ...]) -> Array:
    """Return d, (k, N, *places, groups), spread over noise of shape (k, N, *places, channels).

    Each axis of d must divide the noise's: a place of the loss stands for a block of places (what
    pooling made one), a group for channels // groups neighbours.

    Raises:
        ShapeError: the axes do not fit.
    """
    if d.ndim != len(shape) or any(n % m for n, m in zip(shape, d.shape, strict=True)):
        raise ShapeError(
            f"a local loss has shape {d.shape[1:]} and the layer it credits gave {shape[1:]}: "
            f"every axis of the loss must divide the layer's. Give (N, groups), or (N, height, "
            f"width, groups) for images."
        )
    for axis, (n, m) in enumerate(zip(shape, d.shape, strict=True)):
        if n != m and m > 1:
            d = np.repeat(d, n // m, axis)
    return d


class ActivityRun(Run):
    """The pass of one chunk of directions with noise on activations."""

    def __init__(
        self, key: Key, numbers: tuple[int, int], distribution: str, level: Level, name: str = ""
    ) -> None:
        super().__init__(level)
        self.key = key
        self.numbers = numbers
        self.distribution = distribution
        self.name = name
        self.sites: list[Site] = []
        self.ordinary: dict[str, Array] = {}

    def section(self, level: Level) -> "ActivityRun":
        name = f"{self.name}section/{len(self.sections)}/"
        return ActivityRun(self.key, self.numbers, self.distribution, level, name)

    def enter(self, x: DualTensor, run: Run) -> DualTensor:
        if not is_pending(x, self):  # something was computed from it, with an ordinary direction
            return x
        assert isinstance(run, ActivityRun)
        return DualTensor(x.primal, Pending(run, x.carrier.path, x.carrier), run.level)

    def ordinary_direction(self, t: Pending) -> Array:
        if t.path not in self.ordinary:
            self.ordinary[t.path] = drawing.draw_leaf(
                self.key, t.path, t, self.numbers, self.distribution, "dense"
            )
        return self.ordinary[t.path]

    def perturb(
        self, z: Array, x: Array, w: Any, b: Any, rectified: bool, weight_gradient: Callable,
        mixes: Callable[[int, int], bool],
    ) -> Array:  # fmt: skip
        """Return z with noise on its tangents; remember the site."""
        plain = primal_of(z)
        name = f"{self.name}site/{len(self.sites)}"
        noise = drawing.draw_noise(self.key, name, plain, self.numbers, self.distribution)
        if rectified:
            noise *= plain > 0  # a unit that is off has derivative 0: noise there is only variance
        weight, bias = (p.carrier.path if is_pending(p, self) else None for p in (w, b))
        crosses = mixes if self.has_spread(x) else _keeps
        x = self.root.plain(x)
        self.sites.append(Site(weight, bias, x, noise, weight_gradient, _credit.get(), crosses))
        return add_noise(z, noise, self.level)

    def has_spread(self, x: Any) -> bool:
        """Tell whether x may carry noise of this run that is credited by place and group."""
        while type(x) is DualTensor and x.level is not self.level:
            x = x.primal
        return type(x) is DualTensor and any(site.credit is spread for site in self.sites)


def _keeps(groups: int, places: int) -> bool:
    return False


def add_noise(z: Array, noise: np.ndarray, level: Level) -> DualTensor:
    """Return z with noise on its tangents of a level; those of inner ones, of sections, stay."""
    if type(z) is DualTensor and z.level > level:
        return DualTensor(add_noise(z.primal, noise, level), z.carrier, z.level)
    primal, carrier = split(z, level)
    return DualTensor(primal, noise if carrier is None else dense(carrier) + noise, level)


def is_pending(w: Any, run: ActivityRun | None = None) -> TypeGuard[DualTensor]:
    """Tell whether w is a parameter that a site may take; of this run, if one is given."""
    pending = type(w) is DualTensor and type(w.carrier) is Pending
    return pending and (run is None or w.carrier.run is run)


def at_site(affine: Callable, weight_gradient: Callable, x: Array, w: Array, b: Array | None,
            activation: str | None, mixes: Callable[[int, int], bool]) -> Array:  # fmt: skip
    """Return affine(x, w, b), perturbed where w or b is a parameter under activity perturbation.

    weight_gradient(x, s) is the transpose of affine in w: the gradient that a cotangent s gives.
    mixes(groups, places) tells whether affine mixes that many groups of channels, or places.
    """
    pending = next((p for p in (w, b) if is_pending(p)), None)
    if pending is None:
        return affine(x, w, b)
    pending.level.check("a layer")
    run = pending.carrier.run
    if any(_moves_inside(p, run) for p in (x, w, b)):
        return affine(x, w, b)  # the noise would miss how w enters the inner transform's tangents
    plain_w, plain_b = (p.primal if is_pending(p, run) else p for p in (w, b))
    z = affine(x, plain_w, plain_b)
    return run.perturb(z, x, w, b, activation == "relu", weight_gradient, mixes)


def _moves_inside(x: Any, run: ActivityRun) -> bool:
    """Tell whether x has tangents of a transform that runs inside the pass: no level of its own."""
    while type(x) is DualTensor and x.level > run.level:
        if x.level.owner is None or x.level.owner.root is not run.root:
            return True
        x = x.primal
    return False


def linear_weight_gradient(x: Array, s: np.ndarray, shape: tuple[int, ...]) -> Any:
    """Return x' s, kept in factors: rank N, the number of examples.

    Of a layer called on many places of each, whose rank is N times as many, it is the array where
    that rank is no lower than a full one.
    """
    left, right = x.reshape(-1, shape[0]), s.reshape(-1, shape[1])
    if x.ndim > 2 and len(left) >= min(shape):
        return np.matmul(left.T, right)
    return LowRank(left, right, shape)


def conv2d_weight_gradient(x: Array, s: np.ndarray, shape: tuple[int, ...], **window: Any) -> Array:
    """Return the transpose of the convolution in its filters, at s."""
    return conv2d_filter(x, s, w_shape=shape, **window)


def credited(
    site: Site, losses: list[Array], by_example: Array, clip: Callable, share: float
) -> np.ndarray:
    """Return sum over directions of share * d * noise: the cotangent that a site's noise estimates.

    d is the derivative of the site's example, (k, N), or by the site's rule of its own part of the
    losses' derivatives, (k, N, ...) each.
    """
    noise = site.noise
    if site.credit is None or all(rows.ndim == 2 for rows in losses):
        return np.einsum("kn,kn...->n...", (by_example * share).astype(noise.dtype), noise)
    total = 0
    for rows in losses:
        d = (clip(rows) * share).astype(noise.dtype)
        whole = (*d.shape, *(1,) * (noise.ndim - 2))
        total = total + noise * (d.reshape(whole) if d.ndim == 2 else site.credit(d, noise.shape))
    return np.sum(total, axis=0)


def check_examples(losses: Losses, run: Run) -> None:
    """Raise unless there are sites, and one loss an example that the sites' results share."""
    runs = [each for each in run.everything() if isinstance(each, ActivityRun)]
    sites = [site for each in runs for site in each.sites]
    if not sites:
        raise StructureError(
            'perturb="activations": the loss reached no site. Call dg.nn.linear or dg.nn.conv2d ('
            "layers, which do) on the parameters, and not inside dg.jvp or the like, or use "
            'perturb="weights".'
        )
    if losses.examples is None:
        raise ShapeError(
            'perturb="activations": the loss has shape (); noise is drawn for each '
            "example, so it must give one number an example, shape (N,). Leave out the mean: "
            'dg.nn.cross_entropy(logits, labels, reduction="none").'
        )
    for place, site in enumerate(sites):
        if site.noise.ndim < 3 or site.noise.shape[1] != losses.examples:
            raise ShapeError(
                f'perturb="activations": the loss has {losses.examples} examples, and site {place} '
                f"gave shape {site.noise.shape[1:]}. The first axis of every layer's result must "
                f"be the examples."
            )


def check_apart(losses: Losses, run: Run) -> None:
    """Raise if a site mixes noise that a local loss credits by place and group."""
    for each in (run for run in run.everything() if isinstance(run, ActivityRun)):
        for shape in (rows.shape[2:] for rows in losses.rows[each] if rows.ndim > 2):
            groups, places = shape[-1], math.prod(shape[:-1])
            if any(site.crosses(groups, places) for site in each.sites):
                raise StructureError(
                    f'perturb="activations": a local loss has copies for {groups} groups of '
                    f"channels and {places} places, and a layer of its block mixes what another "
                    f"one before it gave: the copies would miss what crosses. Put each layer into "
                    f"a LocalBlock of its own, give the head one group and patches=False, or call "
                    f"the layer before inside `with dg.nn.credit(rule)`."
                )


def check_batch_statistics(x: Any, name: str) -> None:
    """Raise if x carries noise that is credited by place and group, which `name` would mix."""
    inner = x
    while type(inner) is DualTensor:
        run = inner.level.owner
        if isinstance(run, ActivityRun) and run.has_spread(x):
            raise StructureError(
                f'perturb="activations": {name} takes the statistics of the batch between a layer '
                f"and a ReplicatedHead, whose copies by place and group would miss what crosses. "
                f"Use LayerNorm or GroupNorm within the groups, put {name} before the layer, or "
                f"give a plain head."
            )
        inner = inner.primal
