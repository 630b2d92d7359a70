"""Forward gradients: unbiased gradient estimates from directional derivatives, one pass each.

A pass gives the loss and its derivatives d_1 .. d_k along k directions v_1 .. v_k; the estimate is
sum_i c_i v_i, with c_i = d_i / k or the projection's coefficients. Two spaces of directions:

- weights: v perturbs every parameter. The parameters enter the loss as duals whose tangents are the
  directions; rank-one directions stay in factors (structured.py).
- activations: noise u perturbs what linear and conv2d give, independently for each example
  (activity.py).
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import drawing, tree
from .activity import ActivityRun, Pending, check_apart, check_examples, credited
from .arguments import argument_numbers, closed, explain, without_aux
from .beside import beside, beside_all
from .directions import Directions, Guess, Random, Target, check
from .dual import DualTensor, Level
from .errors import ConversionError, OptionError, ShapeError
from .options import choice, is_whole, largest_derivative
from .perturbed import Parameters
from .random import Key, check_key
from .sections import WHERE, Losses, Run, running
from .structured import LowRank, Outer

Tree = tree.Tree
COMBINE = ("mean", "projection")
PERTURB = ("weights", "activations")
SCOPES = ("global", "module", "example")


class Info(NamedTuple):
    """What made an estimate.

    Attributes:
        derivatives: (k,), or of local losses (k, sections), each part's own; (k, modules) or (k, N)
            with scope="module" or "example" and of activations, of all losses together.
        directions: a tree; None for activations, whose noise is not kept.
    """

    derivatives: np.ndarray
    directions: Tree


def wants_key(function: Callable) -> bool:
    """Tell whether a loss names a parameter `key`."""
    try:
        return "key" in inspect.signature(function).parameters
    except ValueError:
        return False


class _Options(NamedTuple):
    directions: int
    distribution: Any
    structure: str
    perturb: str
    combine: str
    guess: Any
    scope: str
    chunk_size: int | None
    clip: float | None
    has_aux: bool
    with_info: bool

    def check(self) -> None:
        check(self.distribution, self.directions, self.structure)
        choice("perturb", self.perturb, PERTURB)
        choice("combine", self.combine, COMBINE)
        choice("scope", self.scope, SCOPES)
        for name, size in (("directions", self.directions), ("chunk_size", self.chunk_size)):
            if size is None and name == "chunk_size":
                continue
            if not is_whole(size) or size < 1:
                raise OptionError(f"{name}={size!r}; give an int >= 1.")
        if self.perturb == "activations":
            where = 'perturb="activations", where noise is drawn for each example'
            if getattr(self.distribution, "name", self.distribution) not in drawing.DISTRIBUTIONS:
                raise OptionError(
                    f"distribution={self.distribution!r} has no meaning with {where}. Give "
                    f'"rademacher" or "normal".'
                )
            self._refuse(where, structure="dense", combine="mean", guess=None)
            if self.scope == "module":
                raise OptionError(f'scope="module" has no meaning with {where}. Leave scope out.')
        if self.guess is not None:
            where = "guess=, which gives the directions itself"
            self._refuse(where, structure="dense", distribution="rademacher", directions=1)

    def noise(self) -> "_Options":
        """Return the options with the name of the distribution, where a value was given."""
        if not isinstance(self.distribution, Random):
            return self
        k = self.distribution.number or self.directions
        return self._replace(distribution=self.distribution.name, directions=k)

    def _refuse(self, where: str, **plain: Any) -> None:
        for name, value in plain.items():
            given = getattr(self, name)
            if type(given) is not type(value) or given != value:
                shown = repr(given) if isinstance(given, (str, int)) else ""
                raise OptionError(f"{name}={shown} has no meaning with {where}. Leave {name} out.")

    def chunks(self, k: int) -> list[tuple[int, int]]:
        size = self.chunk_size or k
        return [(start, min(start + size, k)) for start in range(0, k, size)]

    def clipped(self, derivatives: Any) -> Any:
        return derivatives if self.clip is None else np.clip(derivatives, -self.clip, self.clip)


def forward_gradient(
    loss: Callable, argnums: int | Sequence[int] = 0, *, directions: int = 1,
    distribution: str | Directions = "rademacher", structure: str = "dense",
    perturb: str = "weights", combine: str = "mean", guess: Any = None, scope: str = "global",
    chunk_size: int | None = None, clip: float | None = None, has_aux: bool = False,
    with_info: bool = False,
) -> Callable:  # fmt: skip
    """Return fg, where fg(params, *args, key=key) gives (value, gradient estimate) from one pass.

    The estimate is g = (1/k) sum_i d_i v_i, d_i the derivative of the loss along direction v_i: no
    backward pass, E[g] = gradient. Its second moment E|g|^2 / |gradient|^2 for d perturbed numbers
    and k = 1 is d (Rademacher, dense or rank-1), d + 2 (normal), or (m + 2)(n + 2) for a rank-1
    normal direction of an m x n matrix; with k directions the excess over 1 divides by k.

    Args:
        loss: function of params (a tree) and any further arguments, giving one number of shape ();
            or one number an example, shape (N,), of which value and gradient are the mean; or a
            list of such losses, which add up, and may have further axes, which are summed: local
            losses (dg.nn.LocalBlock). If it names a parameter `key`, it gets a key of a stream of
            its own.
        argnums: which arguments are params; a tuple gives a tuple of gradients.
        directions: k. One pass holds k tangents beside each activation.
        distribution: "rademacher" (entries +-1), "normal", or a value that composes others:
            dg.directions.orthogonal, .basis, .guess(...), 3 * .normal (three directions, none of
            them longer), a + b (see there).
        structure: "dense", v stored, k arrays of the parameters' size; or "rank1", v = a b' for
            each leaf of two or more axes, never materialised: products cost a vector each and the
            gradient leaf is a `LowRank` of rank k. Both unbiased; Rademacher rank-1 has the same
            second moment.
        perturb: "weights", or "activations": noise, drawn for each example and direction, on the
            results of dg.nn.linear and dg.nn.conv2d (so of the layers). Unbiased if examples do not
            interact (batch statistics do); far less variance, as there are fewer units than
            weights, and units that activation="relu" switches off are left alone. The loss must
            have shape (N,).
            Memory: at each site its input and k noises of its result's size. A linear weight's
            gradient is a `LowRank` of rank N (of a layer on many places of each example an array,
            where the rank would be full); a convolution's is one product of input and noise.
            A parameter that reaches no site gets an ordinary dense direction in the same pass.
        combine: "mean"; or "projection" (FROG) onto the span of the k directions: g = B (B'B)^-1 d.
            Biased towards 0 by about k/d, its length fixed.
        guess: directions to use instead of random ones: a tree like params, a list of k of them, or
            fn(params, *args, key=) giving either. g = (1/k) sum_i d_i v_i as for random ones
            (biased); with combine="projection", the gradient projected on their span.
        scope: how many derivatives a direction has. "global": one for all parameters together.
            "module": one for each top-level child of params (below a single child, for its
            children), g_m = d_m v_m (or its projection): one tangent a module in the same pass, so
            k times modules tangents, stored with their zeros unless rank-1; second moment that of
            the largest module instead of the whole.
            "example": one for each example, so that clip acts on each; the loss has shape (N,).
            Activations always have one an example.
        chunk_size: directions a pass; by default all k in one. Less memory, the same numbers: so
            many directions and the estimate are held at a time (all k with "projection").
        clip: bound on the absolute value of each derivative; biased where it acts.
        has_aux: loss returns (value, aux); fg returns ((value, aux), gradient).
        with_info: fg returns a third item, `Info(derivatives, directions)`.

    Returns:
        fg. Static leaves of params (ints, names, callables) get None in the gradient, and what the
        loss does not depend on gets zeros.

    Raises:
        OptionError: an option that does not exist or does not fit the others. ShapeError: the loss
        gives neither () nor (N,), or no example, or a guess has other shapes than params.
        DtypeError: a complex leaf. StructureError: no floating leaf; for activations no site, or
        one that mixes what a local loss keeps apart.

    Source: Baydin, Pearlmutter, Syme, Wood and Torr 2022, arXiv 2202.08587, definition 1; activity
    perturbation: Ren, Kornblith, Liao and Hinton 2023, arXiv 2210.03310, section 3; projection:
    Fluegel et al. 2024, arXiv 2410.17764; guesses and modules: Fournier et al. 2023, arXiv
    2306.06968.

    >>> fg = forward_gradient(lambda w: np.sum(w**2), directions=4)
    >>> value, g = fg(np.array([1.0, 2.0]), key=Key(0))
    """
    options = _Options(directions, distribution, structure, perturb, combine, guess, scope,
                       chunk_size, largest_derivative(clip), has_aux, with_info)  # fmt: skip
    options.check()
    keyed = wants_key(loss)
    estimate = _perturb_weights if perturb == "weights" else _perturb_activations

    def fg(*args: Any, key: Key, **kwargs: Any) -> tuple:
        check_key(key, "dg.forward_gradient")
        numbers = argument_numbers(argnums, args, "dg.forward_gradient")
        chosen = tuple(args[n] for n in numbers)
        params = chosen[0] if isinstance(argnums, int) else chosen
        if keyed:
            kwargs["key"] = key.fold_in("loss")

        rest = closed(loss, args, numbers, kwargs)

        def run(replaced: Tree) -> Any:
            return rest(*((replaced,) if isinstance(argnums, int) else replaced))

        try:
            value, gradient, aux, info = estimate(
                run, params, options, key.fold_in("directions"), args
            )
        except (ConversionError, ValueError) as error:
            explain(error, chosen)
            raise
        gradient = tree.map(_without_dual_factors, gradient)
        value = (value, aux) if has_aux else value
        return (value, gradient, info) if with_info else (value, gradient)

    return fg


def _without_dual_factors(g: Any) -> Any:
    """Return a leaf as an array if its factors are duals, whose outer transform reads arrays."""
    factored = isinstance(g, LowRank) and DualTensor in (type(g.left), type(g.right))
    return g.dense() if factored else g


# --- weights


class WeightRun(Run):
    """The pass of one chunk of directions, or a section: its perturbed leaves and their tangents.

    With scope="module" a direction has a tangent for each module, zero outside it.
    """

    def __init__(self, level: Level, carriers: dict[int, Any]) -> None:
        super().__init__(level)
        self.carriers = carriers
        self.numbers = {id(t): i for i, t in carriers.items()}

    def section(self, level: Level) -> "WeightRun":
        return WeightRun(level, {})

    def enter(self, x: DualTensor, run: Run) -> DualTensor:
        number = self.numbers.get(id(x.carrier))
        if number is None:  # something was computed from it
            return x
        assert isinstance(run, WeightRun)
        run.carriers[number] = x.carrier
        run.numbers[id(x.carrier)] = number
        return DualTensor(x.primal, x.carrier, run.level)


class _Measured(NamedTuple):
    """What a run, the whole pass or a section of it, told: d of shape (k, modules) or (k, N)."""

    members: frozenset[int]  # the numbers of the leaves that were perturbed on its level
    derivatives: list[np.ndarray]  # one a chunk; empty where no loss depended on its level


def _perturb_weights(run, params, options, key, args):
    parameters = Parameters(params)
    k, drawn = _drawn(parameters, options, key, params, args)
    modules = parameters.modules() if options.scope == "module" else [parameters.floating]
    measured: list[_Measured] = []
    chunks = options.chunks(k)
    kept = drawn(chunks[0]) if len(chunks) == 1 else {}
    again = (lambda numbers: kept) if kept else drawn  # the same bits, not stored
    for numbers in chunks:
        value, aux = _measure(run, parameters, options, modules, again(numbers), measured)

    coefficients = _coefficients(measured, modules, k, options, again, parameters)
    total: dict[int, Any] = {}
    for start, stop in chunks:
        part = again((start, stop))
        for i in parameters.floating:  # each is let go before the next chunk is drawn
            g = drawing.combine(part.pop(i), coefficients[i][start:stop])
            total[i] = g if i not in total else total[i] + g
    info = None
    if options.with_info:
        none = beside_all(*parameters.leaves).zeros((k, len(modules)))
        shown = [_joined(each) for each in measured if each.derivatives] or [none]
        d = np.concatenate(shown, axis=1) if options.scope == "global" else sum(shown[1:], shown[0])
        d = d[:, 0] if options.scope == "global" and len(shown) == 1 else d
        info = Info(d, parameters.gradient(drawn((0, k))))
    return value, parameters.gradient(total), aux, info


def _measure(run, parameters, options, modules, directions, measured) -> tuple[Any, Any]:
    """Return (value, aux) of a pass with these directions, and add what its runs told."""
    module_of = {i: m for m, members in enumerate(modules) for i in members}
    carriers = {i: _placed(v, module_of[i], len(modules)) for i, v in directions.items()}
    with running(functools.partial(WeightRun, carriers=carriers)) as pass_:
        result = run(parameters.duals(carriers, pass_.level))
        result, aux = without_aux(result, options.has_aux, pass_.level, WHERE)
        aux = tree.map(pass_.plain, aux)
        losses = Losses(result, pass_)
    for place, each in enumerate(pass_.everything()):
        if place == len(measured):
            measured.append(_Measured(frozenset(each.carriers), []))
        found = _derivatives(losses, each, options, len(modules))
        measured[place].derivatives.extend([] if found is None else [found])
    return losses.value, aux


def _drawn(parameters, options, key, params, args) -> tuple[int, Callable]:
    """Return (k, drawn): drawn((start, stop)) gives these of the k directions, by leaf."""
    value = options.distribution if options.guess is None else Guess(options.guess)
    leaves = [(parameters.paths[i], parameters.leaves[i]) for i in parameters.floating]
    target = Target(key, leaves, options.structure, params, args)
    chosen = check(value, options.directions, options.structure)
    k, draw = chosen.prepare(target, options.directions)
    return k, lambda numbers: dict(zip(parameters.floating, draw(numbers), strict=True))


def _placed(v: Any, module: int, modules: int) -> Any:
    """Return the tangents that k directions of a leaf are: one a module, zero for other modules."""
    if modules == 1:
        return v
    if isinstance(v, Outer):
        return Outer(_placed(v.left, module, modules), _placed(v.right, module, modules))
    placed = beside(v).zeros((len(v), modules, *v.shape[1:]), v.dtype)
    placed[:, module] = v
    return placed.reshape(-1, *v.shape[1:])


def _derivatives(losses: Losses, run: Run, options: _Options, modules: int) -> Any:
    """Return the clipped derivatives on a run's level, (k, modules) or (k, N), or None."""
    if options.scope == "example":
        if losses.examples is None:
            raise ShapeError(
                f'{WHERE}: scope="example", and the loss has shape (). Give one number an example, '
                f"shape (N,)."
            )
        d = losses.by_example(run)
    else:
        d = losses.totals(run)
        d = d if d is None else np.reshape(d, (-1, modules))
    return d if d is None else options.clipped(d)


def _joined(measured: _Measured) -> np.ndarray:
    chunks = measured.derivatives
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def _coefficients(measured, modules, k, options, again, parameters) -> dict[int, Any]:
    """Return for each leaf the coefficients (k,) of its directions in the estimate."""
    everything = again((0, k)) if options.combine == "projection" else {}
    found: dict[int, Any] = {}
    mean = options.combine == "mean"
    for run in (each for each in measured if each.derivatives):
        d = _joined(run)
        d = np.mean(d, axis=1)[:, None] if options.scope == "example" else d
        for m, members in enumerate(modules):
            inside = [i for i in members if i in run.members]
            if not inside:
                continue
            c = d[:, m] / k if mean else _projection(d[:, m], everything, inside, parameters.paths)
            found |= {i: found[i] + c if i in found else c for i in inside}
    unused = [i for members in modules for i in members if i not in found]
    return found | {i: beside(parameters.leaves[i]).zeros(k) for i in unused}


def _projection(d: np.ndarray, directions: dict[int, Any], members: list[int], paths: list[str]):
    """Return (B'B)^-1 d, coefficients of the gradient's projection on the directions' span."""
    grams = {i: drawing.gram(directions[i]).astype(np.float64) for i in members}
    gram = sum(grams.values())
    if beside(gram) is np and not np.all(np.isfinite(gram)):  # a device is not waited for
        i = next((i for i, g in grams.items() if not np.all(np.isfinite(g))), members[0])
        raise OptionError(
            f"{WHERE}: the guess for parameter {paths[i]!r} is not finite, or its square is not, "
            f"so nothing can be projected on it. Look at the guess before it is given."
        )
    return np.linalg.lstsq(gram, d.astype(np.float64), rcond=None)[0].astype(d.dtype)


# --- activations


def _perturb_activations(run, params, options, key, args):
    parameters, options = Parameters(params), options.noise()
    total: dict[str, Any] = {}
    derivatives = []
    for numbers in options.chunks(options.directions):
        value, aux, d = _add_noisy_pass(run, parameters, options, key, numbers, total)
        derivatives.append(d)
    gradient = {}
    for i in parameters.floating:
        x, path = parameters.leaves[i], parameters.paths[i]
        unused = path not in total
        gradient[i] = beside(x).zeros(x.shape, x.dtype) if unused else total[path]
    d = derivatives[0] if len(derivatives) == 1 else np.concatenate(derivatives)
    return value, parameters.gradient(gradient), aux, Info(d, None)


def _add_noisy_pass(run, parameters, options, key, numbers, total) -> tuple[Any, Any, np.ndarray]:
    """Return (value, aux, derivatives (k, N)) of a pass; add to the gradients, by path."""
    with running(functools.partial(ActivityRun, key, numbers, options.distribution)) as pass_:
        carriers = {
            i: Pending(pass_, parameters.paths[i], parameters.leaves[i])
            for i in parameters.floating
        }
        result = run(parameters.duals(carriers, pass_.level))
        result, aux = without_aux(result, options.has_aux, pass_.level, WHERE)
        aux = tree.map(pass_.plain, aux)
        losses = Losses(result, pass_)
        check_examples(losses, pass_)
        check_apart(losses, pass_)
    moving = [each for each in pass_.everything() if losses.rows[each]]
    d = [options.clipped(losses.by_example(each)) for each in moving]
    share = 1 / (options.directions * losses.examples)
    found: dict[str, Any] = {}
    for each, rows in zip(moving, d, strict=True):
        own, parts = options.clipped(losses.by_example(each, True)), losses.each(each, True)
        for site in each.sites:
            s = credited(site, parts, own, options.clipped, share)
            if site.weight is not None:
                _add(found, site.weight, site.weight_gradient(site.x, s))
            if site.bias is not None:
                _add(found, site.bias, np.sum(s, axis=tuple(range(s.ndim - 1))))
        for path, v in each.ordinary.items():
            _add(found, path, drawing.combine(v, np.sum(rows, axis=1) * share))
    for path, g in found.items():
        _add(total, path, g)
    empty = numbers[1] - numbers[0], losses.examples
    return losses.value, aux, sum(d[1:], d[0]) if d else beside(losses.value).zeros(empty)


def _add(total: dict[str, Any], path: str, g: Any) -> None:
    """Add a gradient; where the left factors, the layer's inputs, are the same, the rank stays."""
    before = total.get(path)
    if before is None:
        total[path] = g
        return
    factors = type(before) is type(g) is LowRank
    lefts = (before.left, g.left) if factors else ()
    if lefts and all(type(x) is np.ndarray for x in lefts) and np.array_equal(*lefts):
        total[path] = LowRank(before.left, before.right + g.right, g.shape)
        return
    g = before + g if type(before) is LowRank else g + before  # an array knows no factors
    full = factors and len(g.left) > min(g.left.shape[1], g.right.shape[1])
    total[path] = g.dense() if full else g
