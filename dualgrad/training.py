"""training_step: a loss and an optimiser in, one function that does a whole step out.

The step owns the parameters between calls: it writes them in place and hands out copies. So it may
keep them packed, defer updates, and run as a plan of fused stages (plan/). The definition is
the eager step: forward_gradient (or the backward baseline) followed by optimiser.update.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from . import tree
from .beside import has_memory, is_array
from .debugging import watching
from .errors import DtypeError, LevelError, OptionError, ShapeError, StructureError
from .estimators import forward_gradient, wants_key
from .optim import Optimiser
from .options import choice, cuda_graphs, largest_derivative, num_threads
from .plan.packed import Owner
from .random import Key, check_key
from .sections import objective
from .transforms import value_and_gradient

if TYPE_CHECKING:
    from .plan.planner import Planner

Tree = tree.Tree
METHODS = ("forward", "backprop")
PRECISIONS = ("fast", "exact")


class TrainingState:
    """What a training step needs to go on: parameters, optimiser state, key and number of steps.

    Attributes:
        params, model_state: copies, made when read. step: how many steps were taken. key: the
            run's.

    A state is used once: `step(state, ...)` writes into its arrays and returns the next.
    """

    def __init__(self, params: Tree, optimiser_state: Tree, key: Key, step: int, model_state: Tree):
        self._parts = {
            "params": params,
            "optimiser": optimiser_state,
            "key": key,
            "step": step,
            "model_state": model_state,
        }
        self._used = False

    def _check_unused(self, what: str) -> None:
        params = self._parts["params"]
        past = isinstance(params, Owner) and params.is_past(self._parts["step"])
        if self._used or past:
            raise LevelError(
                f"{what}: this state went into a later step, which wrote over its arrays. "
                f"Use the state that the step returned: state, value = step(state, *batch). (Where "
                f"an interrupt kept it from being assigned, it is lost: go on from a saved one.)"
            )

    def _get(self, name: str) -> Any:
        self._check_unused(f"state.{name}")
        return self._parts[name]

    def _params(self) -> Any:
        """Return the parameters as they are held, an Owner where the last step was planned."""
        params = self._get("params")
        if isinstance(params, Owner):
            params.restore(self._parts["step"])
        return params

    @property
    def params(self) -> Tree:
        return tree.map(_copied, self._natural())

    @property
    def model_state(self) -> Tree:
        return tree.map(_copied, self._get("model_state"))

    @property
    def step(self) -> int:
        return int(self._get("step"))

    @property
    def key(self) -> Key:
        return self._get("key")

    def _natural(self) -> Tree:
        """Return the parameters as arrays of their own shapes."""
        params = self._params()
        return params.tree() if isinstance(params, Owner) else params

    def state_tree(self) -> Tree:
        """Return everything as one tree, for dg.save."""
        return {name: self._get(name) for name in self._parts} | {"params": self._natural()}

    def with_state_tree(self, parts: Tree) -> "TrainingState":
        """Return the state that a tree like state_tree() describes, for dg.load."""
        return TrainingState(
            parts["params"],
            parts["optimiser"],
            parts["key"],
            int(parts["step"]),
            parts["model_state"],
        )

    def __reduce__(self) -> Any:  # for copy and pickle: a plan's memory is this state's alone
        state = {"_used": self._used}
        parts = dict.fromkeys(self._parts) if self._used else self.state_tree()
        order = ("params", "optimiser", "key", "step", "model_state")
        return TrainingState, tuple(parts[name] for name in order), state

    def __repr__(self) -> str:
        return f"TrainingState({'used' if self._used else f'step={self.step}'})"


def _copied(x: Any) -> Any:
    return x.copy() if hasattr(x, "copy") and hasattr(x, "dtype") else x


def _apart(results: Tree, params: Tree) -> Tree:
    """Return what the loss gave, copying what lies in params: the update writes into them."""
    arrays = [w for w in tree.leaves(params) if has_memory(w)]

    def apart(x: Any) -> Any:
        inside = has_memory(x) and any(np.may_share_memory(x, w) for w in arrays)
        return x.copy() if inside else x

    return tree.map(apart, results)


def _check_batch(where: str, batch: tuple) -> None:
    """Raise for a batch without an example, or with a mask that the loss would not see."""
    if batch and has_memory(batch[0]) and batch[0].ndim and not len(batch[0]):
        raise ShapeError(
            f"{where}: argument 1 of the batch has shape {batch[0].shape}: a loss over no example "
            f"has no mean, and would make every parameter NaN. Leave such a batch out."
        )
    for number, given in enumerate(batch, 1):
        if not is_array(given):
            for x in tree.leaves(given):
                if isinstance(x, np.ma.MaskedArray):
                    raise OptionError(
                        f"{where}: argument {number} of the batch is a masked array, and its mask "
                        f"would be ignored. Give x.filled(0), and the mask as an argument."
                    )


@contextmanager
def _noting(batch: tuple) -> Iterator[None]:
    """Note, where a loss fails as it does on what is no array, which arguments are none."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        for number, given in enumerate(batch, 1):
            if given is None or isinstance(given, (list, tuple)):
                what = "None" if given is None else f"a {type(given).__name__}"
                error.add_note(
                    f"Argument {number} of the batch is {what}, and a loss is called with what the "
                    f"step is given. Where it takes an array, give np.asarray(x, dtype)."
                )
        raise


class TrainingStep:
    """The function that training_step returns; see there."""

    def __init__(self, loss: Callable, gradient: Callable, optimiser: Optimiser, stateful: bool,
                 has_aux: bool, planner: "Planner | None", description: str) -> None:  # fmt: skip
        self._loss = loss
        self._keyed = wants_key(loss)
        self._planner = planner
        self._gradient = gradient
        self._optimiser = optimiser
        self._stateful = stateful
        self._has_aux = has_aux
        self._description = description

    def init(self, params: Tree, key: Key, model_state: Tree = None) -> TrainingState:
        """Return the state before the first step; params and model_state are copied."""
        check_key(key, "step.init")
        if (model_state is not None) != self._stateful:
            raise OptionError(
                f"step.init: model_state {'given' if model_state is not None else 'missing'}, and "
                f"the step was made with has_state={self._stateful}. Let the two agree."
            )
        params = tree.map(_copied, params)
        return TrainingState(
            params, self._optimiser.init(params), key, 0, tree.map(_copied, model_state)
        )

    def __call__(self, state: TrainingState, *batch: Any) -> tuple[TrainingState, Any]:
        if not isinstance(state, TrainingState):
            raise OptionError(
                f"step: the first argument is a {type(state).__name__}; give the state that "
                f"step.init(params, key), or the step before, returned."
            )
        state._check_unused("step(state, ...)")
        _check_batch("step", batch)
        planned = self._planned(state, batch)
        if planned is not None:
            return planned
        params, number, model_state = state._natural(), state.step, state._get("model_state")
        state_arguments = (model_state,) if self._stateful else ()
        with _noting(batch):
            (value, (model_state, aux)), gradient = self._gradient(
                params, *state_arguments, *batch, key=state.key.fold_in(number)
            )
        value, model_state, aux = _apart((value, model_state, aux), params)
        key, memory = state.key, state._get("optimiser")
        state._used = True  # an interrupt from here on leaves arrays half updated
        try:
            params, memory = self._optimiser.update(params, gradient, memory)
        except Exception:
            state._used = False
            raise
        following = TrainingState(params, memory, key, number + 1, model_state)
        return following, ((value, aux) if self._has_aux else value)

    def _planned(self, state: TrainingState, batch: tuple) -> tuple | None:
        """Return what a call returns, done by a plan, or None where the step runs eagerly."""
        if self._planner is None or watching():  # compiled stages do not tell where a NaN is made
            return None
        key, number, memory = state.key, state.step, state._get("optimiser")
        updates = int(memory["step"])
        done = self._planner.step(
            state._params(), key, number, updates, state._get("model_state"), batch
        )
        if done is None:
            return None
        store, value, model_state, aux = done
        memory = {"step": np.array(updates + 1, np.int64)}
        following = TrainingState(store, memory, key, number + 1, model_state)
        state._used = True
        store.settle()
        return following, ((value, aux) if self._has_aux else value)

    def value(self, state: TrainingState, *batch: Any) -> Any:
        """Return the mean loss on a batch at the state's parameters; nothing is trained.

        A loss that names `key` gets the one that the next step will have.
        """
        number, model_state = state.step, state._get("model_state")
        _check_batch("step.value", batch)
        if self._planner is not None:
            done = self._planner.value(state._params(), state.key, number, model_state, batch)
            if done is not None:
                state._parts["params"], value = done
                return value
        more = {"key": state.key.fold_in(number).fold_in("loss")} if self._keyed else {}
        given = (state._natural(), *((model_state,) if self._stateful else ()), *batch)
        with _noting(batch):
            return objective(self._loss(*given, **more)[0])

    def explain(self, state: TrainingState, *batch: Any) -> None:
        """Print how the step runs on such a batch: what is fused, what is eager, and why."""
        from .plan.replay import describe

        _check_batch("step.explain", batch)
        if self._planner is None:
            print(self._description)
            return
        found = self._planner.look(
            state._params(), state.key, state.step, state._get("model_state"), batch
        )
        if found.graph is None:
            print(f"eager, as {found.reason}")
            print(f"  {self._description}")
            return
        print(f"a plan of: {self._description}")
        if found.started:
            print(f"  launches: {found.started}")
        for step in found.steps:
            print(f"  {describe(step, found.graph)}  ({step.line})")


def training_step(
    loss: Callable, optimiser: Optimiser, *, method: Any = "forward", plan: bool = True,
    precision: str = "fast", has_aux: bool = False, has_state: bool = False, **options: Any,
) -> TrainingStep:  # fmt: skip
    """Return step: state, value = step(state, *batch) trains once, from step.init(params, key).

    Args:
        loss: loss(params, [model_state,] *batch[, key=]) giving value, (value, aux), (value,
            new_model_state) or (value, new_model_state, aux). Value has shape () or, one an
            example, (N,), of which the mean is minimised. A loss that names `key` gets one of its
            own a step.
        optimiser: from dg.optim.
        method: "forward" estimates the gradient by forward_gradient; "backprop" computes it by vjp,
            as the baseline; or a function, as dg.guided_gradient() gives one: method(params,
            [model_state,] *batch, key=key) -> (what loss returns, its value averaged; gradient).
        plan: whether the step may run as a plan of fused stages, recorded from the loss; where it
            cannot it runs eagerly, and `step.explain(state, *batch)` says why. False: always eager.
        precision: of a plan. "exact": the numbers of the eager step to rounding. "fast" allows
            Winograd's convolutions, whose error is about 1e-5 of the largest output.
        has_aux, has_state: what loss takes and returns, as above.
        options: of forward_gradient: directions, structure, perturb, ...

    Raises:
        OptionError: an unknown method, precision or option.
    """
    if not callable(loss) or not isinstance(optimiser, Optimiser):
        raise OptionError(
            f"training_step: loss={loss!r}, optimiser={optimiser!r}; give a function, and an "
            f"optimiser as dg.optim.sgd(0.1)."
        )
    if not callable(method):
        choice("method", method, METHODS)
    choice("plan", plan, (True, False))
    choice("precision", precision, PRECISIONS)
    known = set(inspect.signature(forward_gradient).parameters) - {
        "loss",
        "argnums",
        "has_aux",
        "with_info",
    }
    unknown = sorted(set(options) - known)
    if unknown or (options and method != "forward"):
        named = method if isinstance(method, str) else "a function"
        why = f"unknown: {unknown}; known: {sorted(known)}" if unknown else f"{named} takes none"
        raise OptionError(
            f"training_step: options {sorted(options)} with method={method!r}; {why}."
        )
    uniform = _uniform(loss, has_state, has_aux)
    if method == "forward":
        gradient = forward_gradient(uniform, has_aux=True, **options)
        settings = ", ".join(f"{name}={value!r}" for name, value in options.items()) or "defaults"
        description = f"forward_gradient ({settings}), then optimiser.update"
    elif callable(method):
        gradient = _given(method, has_state, has_aux)
        description = f"gradient by {getattr(method, '__name__', method)}, then optimiser.update"
    else:
        gradient = _backprop(uniform)
        description = "gradient by vjp, then optimiser.update"
    reason = _why_eager(method, plan, optimiser, options)
    planner = None if reason else _planner(uniform, loss, optimiser, precision, has_state, options)
    how = f"eager ({reason}): {description}" if reason else description
    return TrainingStep(uniform, gradient, optimiser, has_state, has_aux, planner, how)


def _why_eager(method: Any, plan: bool, optimiser: Optimiser, options: dict[str, Any]) -> str:
    """Return why no plan can do such a step, whatever the loss, or ""."""
    given = {name: value for name, value in options.items() if value is not None}
    dense = given.get("structure", "dense") == "dense"
    reasons = {
        "plan=False": not plan,
        "backprop keeps what a plan does not": method == "backprop",
        "the gradient is a function's": callable(method),
        "the optimiser does more than w - rate * g": optimiser.plain is None,
        "perturb='activations'": given.get("perturb", "weights") != "weights",
        "combine='projection'": given.get("combine", "mean") != "mean",
        "a guess": "guess" in given,
        "scope is not 'global'": given.get("scope", "global") != "global",
        "chunk_size is set": "chunk_size" in given,
        "argnums is not 0": given.get("argnums", 0) != 0,
        "directions are a value": not isinstance(given.get("distribution", ""), str),
        "dense normal directions": dense and given.get("distribution") == "normal",
    }
    found = next((reason for reason, holds in reasons.items() if holds), "")
    if not found:
        num_threads()  # so that wrong variables are met here
        cuda_graphs()
    return found


def _planner(uniform: Callable, loss: Callable, optimiser: Optimiser, precision: str,
             has_state: bool, options: dict[str, Any]) -> "Planner":  # fmt: skip
    from .plan.layout import Settings
    from .plan.planner import Planner

    settings = Settings(
        k=options.get("directions", 1),
        distribution=options.get("distribution", "rademacher"),
        structure=options.get("structure", "dense"),
        clip=largest_derivative(options.get("clip")),
        precision=precision,
    )
    assert optimiser.plain is not None
    return Planner(uniform, loss, optimiser.plain, settings, has_state, wants_key(uniform))


def _parts(result: Any, has_state: bool, has_aux: bool) -> tuple:
    """Return what a loss gave as (value, (new model state or None, aux or None))."""
    parts = 1 + has_state + has_aux
    value, rest = result, []
    if parts > 1:
        if not isinstance(result, tuple) or len(result) != parts:
            names = ["value"] + ["new_model_state"] * has_state + ["aux"] * has_aux
            raise StructureError(f"training_step: the loss must return ({', '.join(names)}).")
        value, *rest = result
    if getattr(value, "shape", None) == (0,):
        raise ShapeError("training_step: the loss has shape (0,): it is of no example.")
    if getattr(getattr(value, "dtype", None), "kind", "") == "c":
        raise DtypeError(
            f"training_step: the loss is {value.dtype} of shape {value.shape}; it must be real. "
            f"Take its real part or its absolute value, or give a real batch."
        )
    return value, (rest[0] if has_state else None, rest[-1] if has_aux else None)


def _uniform(loss: Callable, has_state: bool, has_aux: bool) -> Callable:
    """Return the loss as a function that gives (value, (new model state or None, aux or None))."""

    def run(*args, **kwargs):
        return _parts(loss(*args, **kwargs), has_state, has_aux)

    if wants_key(loss):
        return lambda *args, key, **kwargs: run(*args, key=key, **kwargs)
    return run


def _given(method: Callable, has_state: bool, has_aux: bool) -> Callable:
    def gradient(*args, key):
        result, g = method(*args, key=key)
        return _parts(result, has_state, has_aux), g

    return gradient


def _backprop(uniform: Callable) -> Callable:
    keyed = wants_key(uniform)

    def mean(*args, **kwargs):
        value, aux = uniform(*args, **kwargs)
        return objective(value), aux

    exact = value_and_gradient(mean, mode="reverse", has_aux=True)

    def gradient(params, *args, key):
        more = {"key": key.fold_in("loss")} if keyed else {}
        return exact(params, *args, **more)

    return gradient
