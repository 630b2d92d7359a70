"""What an optimiser is, how it walks over a tree of parameters, and chains of transforms."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import tree
from ..errors import DtypeError, OptionError, ShapeError, StructureError, WriteError
from ..tree import Tree
from .schedules import Rate, Schedule, as_schedule

State = dict[str, Any]
Transform = Callable[[Tree, Tree], Tree]  # (gradient, params) -> gradient


@dataclasses.dataclass(frozen=True)
class Optimiser:
    """Two functions that train parameters by their gradients.

    init(params) -> state: a dict of arrays: "step", the number of updates so far, shape (), int64,
        and for each memory of the rule a dict from the paths of the parameters to arrays of their
        shapes.
    update(params, gradient, state) -> (params, state): gradient has the structure of params; its
        leaves may be `LowRank`, and anything where params has a static leaf. Parameter arrays and
        the arrays of state are written in place and returned; Python and NumPy scalars are
        replaced. A parameter keeps its dtype.

    update raises StructureError where gradient or state do not belong to params, ShapeError where a
    gradient has another shape than its parameter, WriteError where a parameter is read-only and
    DtypeError for complex parameters.
    """

    init: Callable[[Tree], State]
    update: Callable[[Tree, Tree, State], tuple[Tree, State]]
    plain: Schedule | None = None  # where update is w <- w - rate g alone: what a plan fuses


def rule(
    name: str, lr: Rate, memories: tuple[str, ...], write: Callable[..., None], plain: bool = False
) -> Optimiser:
    """Return the optimiser that calls write(w, g, rate, step, *memories) for each parameter.

    w and the memories are arrays that write changes in place; g is an array or a LowRank of their
    shape; rate is the learning rate of this step as a float, and step counts from 0. plain: whether
    write is w -= rate * g.
    """
    schedule = as_schedule(name, lr)

    def init(params: Tree) -> State:
        floating = tree.parameters(params)
        if len(floating) != sum(map(tree.is_floating, tree.leaves(params))):
            raise StructureError(
                f"{name}: two parameters have the same path among {list(floating)}. "
                f"Use keys without '/' in the dicts of the parameters."
            )
        for path, leaf in floating.items():
            _check_real(name, path, leaf)
        state: State = {memory: _zeros(floating) for memory in memories}
        return {"step": np.array(0, dtype=np.int64), **state}

    def update(params: Tree, gradient: Tree, state: State) -> tuple[Tree, State]:
        leaves, structure = tree.flatten(params)
        gradients = tree.leaves_like(gradient, structure, f"{name}: params and gradient")
        rows = list(zip(tree.paths(params), leaves, gradients, strict=True))
        floating = [row for row in rows if tree.is_floating(row[1])]
        _check_state(name, state, memories, {path: leaf for path, leaf, _ in floating})
        for row in floating:
            _check(name, *row)  # every leaf before the first write: an error changes nothing
        step = int(state["step"])
        rate = schedule(step)
        updated = []
        for path, leaf, g in rows:
            if tree.is_floating(leaf):
                w = np.array(leaf) if _is_scalar(leaf) else leaf
                g = np.asarray(g) if _is_scalar(g) else g
                write(w, g, rate, step, *(state[memory][path] for memory in memories))
                leaf = type(leaf)(w[()]) if _is_scalar(leaf) else w
            updated.append(leaf)
        new_state = {**state, "step": np.array(step + 1, dtype=np.int64)}
        return tree.unflatten(structure, updated), new_state

    return Optimiser(init, update, schedule if plain else None)


def chain(*parts: Any) -> Optimiser:
    """Return the optimiser that sends the gradient through transforms, then hands it to a rule.

    chain(clip_by_norm(1.0), weight_decay(5e-4), sgd(0.1)) clips, adds the decay, and steps. A
    transform is any function (gradient, params) -> gradient, and keeps nothing between steps: the
    state of the chain is the state of its rule.

    Raises:
        OptionError: the last part is no optimiser, or one before it is no function.
    """
    if not parts or not isinstance(parts[-1], Optimiser):
        raise OptionError(
            f"chain: the last part is {parts[-1] if parts else 'missing'}, not an optimiser. "
            f"End the chain with one, as in chain(clip_by_norm(1.0), sgd(0.1))."
        )
    *transforms, last = parts
    for part in transforms:
        if isinstance(part, Optimiser) or not callable(part):
            raise OptionError(
                f"chain: {part} stands before the last part and is no gradient transform. "
                f"Give functions (gradient, params) -> gradient there."
            )

    def update(params: Tree, gradient: Tree, state: State) -> tuple[Tree, State]:
        for transform in transforms:
            gradient = transform(gradient, params)
        return last.update(params, gradient, state)

    return Optimiser(last.init, update)


def _is_scalar(leaf: Any) -> bool:
    return isinstance(leaf, (int, float, complex, np.generic))


def _zeros(floating: dict[str, Any]) -> dict[str, Any]:
    """Return zeros for each parameter, of its dtype; float32 for float16, whose squares vanish."""
    return {
        path: np.zeros_like(leaf, dtype=np.result_type(getattr(leaf, "dtype", float), np.float32))
        for path, leaf in floating.items()
    }


def _check_real(name: str, path: str, leaf: Any) -> None:
    if np.iscomplexobj(leaf):
        raise DtypeError(
            f"{name}: parameter {path!r} is complex. An optimiser steps along real numbers: "
            f"keep the real and the imaginary part as two parameters."
        )


def _check(name: str, path: str, leaf: Any, g: Any) -> None:
    """Raise unless g is a gradient for the parameter leaf and leaf can be written."""
    _check_real(name, path, leaf)
    if not tree.is_floating(g):
        raise StructureError(
            f"{name}: the gradient of parameter {path!r} is {g!r}, not a floating array. "
            f"Give every floating leaf of params a gradient; zeros for one that stays."
        )
    if np.shape(leaf) != getattr(g, "shape", ()):
        raise ShapeError(
            f"{name}: parameter {path!r} has shape {np.shape(leaf)} and its gradient "
            f"{getattr(g, 'shape', ())}. Give gradients of the parameters' shapes."
        )
    if isinstance(leaf, np.ndarray) and not leaf.flags.writeable:
        raise WriteError(
            f"{name}: parameter {path!r} is a read-only array, and parameters are written in "
            f"place. Start from a copy: w.copy()."
        )


def _check_state(name: str, state: State, memories: tuple[str, ...], floating: dict) -> None:
    """Raise StructureError unless state holds the memories of these parameters."""
    shapes = {path: np.shape(leaf) for path, leaf in floating.items()}
    for memory in memories:
        found = {path: np.shape(array) for path, array in state.get(memory, {}).items()}
        if found != shapes:
            raise StructureError(
                f"{name}: state[{memory!r}] has shapes {found} and the parameters {shapes}. "
                f"Use the state that init(params) of this optimiser gave for these parameters."
            )
    if "step" not in state:
        raise StructureError(
            f"{name}: state has the keys {sorted(state)} and no 'step'. "
            f"Use the state that init(params) of this optimiser gave."
        )
