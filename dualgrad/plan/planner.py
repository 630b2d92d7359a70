"""Decide how a training step runs: as a plan, or eagerly and why.

A plan is made at the first call with a signature: shapes, dtypes, structures, literals. The loss is
recorded twice, and both records must agree; what they cannot show, a number that changes between
steps, is watched where the loss takes it from (watch.py).
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .. import tree
from ..beside import has_memory, is_array, on_device
from ..kernels.fused import missing
from ..random import Key
from ..trace import Graph, Untraceable, trace
from .device import DevicePlan, DeviceStore, graph_use, why_eager
from .fusion import Plain, Step, nearest, steps_of
from .layout import Settings
from .packed import Owner, Store, kind_of
from .replay import Changed, Plan
from .watch import LITERALS, Watch

MOST = 16  # signatures a step keeps plans for, and steps that one must serve on average


class Made(NamedTuple):
    """What was found out about one signature: a graph and its steps, or why there is none.

    lasting: False where this batch is at fault, and another may do. started: how the launches of a
    step on a device are started, "" on the host.
    """

    graph: Graph | None
    steps: list[Step]
    reason: str
    lasting: bool = True
    started: str = ""


class Planner:
    """Plans of one training step.

    Args:
        loss: (params, [model_state,] *batch[, key=]) -> (value, (model_state, aux)).
        written: the loss as the user wrote it.
        schedule: of the rate, by the number of updates.
    """

    def __init__(self, loss: Callable, written: Callable, schedule: Callable[[int], float],
                 settings: Settings, stateful: bool, keyed: bool) -> None:  # fmt: skip
        self.loss = loss
        self.schedule = schedule
        self.settings = settings
        self.stateful = stateful
        self.keyed = keyed
        self.made: dict[Any, Made] = {}
        self.watch = Watch(written)
        self.records = self.steps = 0

    def step(self, params: Any, key: Key, number: int, updates: int, model_state: tree.Tree,
             batch: tuple) -> tuple | None:  # fmt: skip
        """Return (store, value, model_state, aux) of a planned step, or None: do it eagerly."""
        return self._run(params, key, number, updates, model_state, batch, self.settings)

    def value(self, params: Any, key: Key, number: int, model_state: tree.Tree,
              batch: tuple) -> tuple | None:  # fmt: skip
        """Return (store, loss) by a plan without tangents, or None: compute it eagerly."""
        done = self._run(params, key, number, 0, model_state, batch, self.settings._replace(k=0))
        return None if done is None else done[:2]

    def _run(self, params, key, number, updates, model_state, batch, settings):
        params = self._own(params)
        kind = self._signature(model_state, batch)
        if kind is None:
            return None
        store = params if isinstance(params, Owner) else None
        if store is None:
            self.watch.include(params)
        signature = (settings.k > 0, kind, self.watch.state())
        plan = store.plans.get(signature) if store is not None else None
        if plan is None:
            plan = self._plan(params, key, number, model_state, batch, settings, signature)
            if plan is None:
                return None
            store = plan.store
        self.steps += 1
        inputs = self._inputs(store.leaves, key, number, model_state, batch)
        if not settings.k:
            store.flush()
        try:
            value, others = plan.run(inputs, key, number, updates)
        except Changed as changed:  # no parameter has moved
            self.made[store.kind, signature] = Made(None, [], str(changed))
            del store.plans[signature]
            return None
        if plan.constants == [None, None]:
            return store, value, None, None
        _, (model_state, aux) = tree.unflatten(plan.graph.structure, [None, *others])
        return store, value, model_state, aux

    def _own(self, params: Any) -> Any:
        """Return parameters as they are, or as arrays where the plans of another step hold them."""
        if isinstance(params, Owner) and params.maker is not self:
            return params.tree()
        return params

    def _signature(self, model_state: tree.Tree, batch: tuple) -> Any:
        if model_state is None and all(map(is_array, batch)):
            return tuple([(type(x), x.shape, x.dtype) for x in batch])
        leaves, structure = tree.flatten((model_state, batch))
        if not all(has_memory(x) or isinstance(x, (Key, *LITERALS)) for x in leaves):
            return None
        if any(isinstance(x, (int, float)) for x in tree.leaves(model_state)):
            return None  # a count that changes with every step
        return structure, tuple(_kind(x) for x in leaves)

    def _inputs(self, leaves: list, key: Key, number: int, model_state: tree.Tree,
                batch: tuple) -> list:  # fmt: skip
        """Return the leaves of the arguments, as the record numbers them."""
        plain = model_state is None and all(map(is_array, batch))
        rest = [None, *batch] if plain else tree.leaves((model_state, batch))
        return [*leaves, *rest, key.fold_in(number).fold_in("loss") if self.keyed else None]

    def _arguments(self, params: tree.Tree, key: Key, number: int, model_state: tree.Tree,
                   batch: tuple) -> tuple:  # fmt: skip
        key_of_loss = key.fold_in(number).fold_in("loss") if self.keyed else None
        return params, model_state, batch, key_of_loss

    def _apply(self, params: tree.Tree, model_state: tree.Tree, batch: tuple, key: Any) -> Any:
        more = {"key": key} if self.keyed else {}
        return self.loss(params, *((model_state,) if self.stateful else ()), *batch, **more)

    def look(self, params: Any, key: Key, number: int, model_state: tree.Tree,
             batch: tuple) -> Made:  # fmt: skip
        """Return what a step on these arguments would do: as decided before, or examined now."""
        kind = self._signature(model_state, batch)
        if kind is None:
            why = "an argument is neither array nor key nor number, or model_state holds a number"
            return Made(None, [], why)
        params = self._own(params)
        store = params if isinstance(params, Owner) else None
        if store is None:
            self.watch.include(params)
        signature = (self.settings.k > 0, kind, self.watch.state())
        found = self.made.get((kind_of(params) if store is None else store.kind, signature))
        plan = store.plans.get(signature) if store is not None else None
        if found is not None:
            return found._replace(started=plan.how) if isinstance(plan, DevicePlan) else found
        if not self._has_room():
            return Made(None, [], _too_many(batch))
        natural = params if store is None else store.tree()
        return self.examine(natural, key, number, model_state, batch)

    def examine(self, params: tree.Tree, key: Key, number: int, model_state: tree.Tree,
                batch: tuple) -> Made:  # fmt: skip
        """Record the loss on these arguments and find what can be fused."""
        leaves = tree.leaves(params)
        floating = [i for i, x in enumerate(leaves) if tree.is_floating(x)]
        if not all(is_array(leaves[i]) and leaves[i].size for i in floating):
            return Made(None, [], "a floating leaf of params is not an array of entries")
        there = sum(on_device(leaves[i]) for i in floating)
        if there not in (0, len(floating)):
            return Made(None, [], "some parameters lie on a device and some in host memory")
        if not there and missing():
            return Made(None, [], missing())
        if not any(leaves[i].ndim > 1 for i in floating):
            return Made(None, [], "params has no matrix, so no layer that is fused")
        self.watch.state()
        if self.watch.reason:
            return Made(None, [], self.watch.reason)
        with _random_state_kept():
            found = self._record(params, key, number, model_state, batch)
        if isinstance(found, Made):
            return found
        steps = steps_of(found, set(floating))
        if all(isinstance(step, Plain) for step in steps):
            return Made(None, [], f"no layer of it is one that is fused: {nearest(steps)}")
        if not there:
            return Made(found, steps, "")
        if why := why_eager(found, steps, params, self.settings):
            return Made(None, [], why)
        return Made(found, steps, "", started=graph_use(found, steps, self.settings)[0])

    def _record(self, *state: Any) -> Graph | Made:
        """Return the record of the loss, or why it cannot be replayed."""
        try:
            graph, recorded = trace(self._apply, self._arguments(*state))
        except Untraceable as refused:
            return Made(None, [], str(refused))
        except Exception as error:  # the loss's own, or of what it does to recorded values
            reason = f"recording it raised {type(error).__name__}: {error}"
            return Made(None, [], reason, lasting=self._runs(*state))
        before = self.watch.state()
        plain = self._apply(*self._arguments(*state))
        if self.watch.state() != before:
            return Made(None, [], self.watch.reason or "it changes what it reads when it is called")
        value = plain[0]
        if not (has_memory(value) or isinstance(value, np.generic)) or (
            value.dtype.kind != "f" or value.ndim > 1
        ):
            return Made(None, [], "its value is no floating array of shape () or (N,)")
        if not _agree(recorded, tree.leaves(plain)):
            return Made(None, [], "it gave other numbers when it was recorded than when called")
        return graph

    def _runs(self, *state: Any) -> bool:
        """Whether the loss can be called on such arguments."""
        try:
            self._apply(*self._arguments(*state))
        except Exception:  # whatever it is, the eager step meets it next
            return False
        return True

    def _has_room(self) -> bool:
        """Whether one more signature can be recorded; not where they change too often to pay."""
        return len(self.made) < MOST or self.steps >= MOST * self.records

    def _room(self, store: Owner | None) -> bool:
        """Make room for one more signature; False where there is none."""
        if len(self.made) < MOST or not self._has_room():
            return self._has_room()
        _, signature = oldest = next(iter(self.made))
        del self.made[oldest]
        if store is not None:
            store.plans.pop(signature, None)
        return True

    def _plan(
        self, params, key, number, model_state, batch, settings, signature
    ) -> Plan | DevicePlan | None:
        store = params if isinstance(params, Owner) else None
        of = (kind_of(params) if store is None else store.kind, signature)
        found = self.made.get(of)
        if found is None and not self._room(store):
            return None
        if found is None:
            natural = params if store is None else store.tree()
            found = self.examine(natural, key, number, model_state, batch)
            if found.lasting:
                self.made[of] = found
                self.records += 1
        if found.graph is None:
            return None
        if store is None and any(map(on_device, tree.leaves(params))):
            store = DeviceStore(params, number)
        elif store is None:
            store = Store(params, key, self.settings.k, settings.clip)
        store.maker = self
        floating = [
            i for i, x in enumerate(store.leaves) if i in store.packed or tree.is_floating(x)
        ]
        schedule = self.schedule if settings.k else None
        plan: Plan | DevicePlan
        if isinstance(store, DeviceStore):
            plan = DevicePlan(found.graph, found.steps, store, floating, settings, schedule)
        else:
            assert isinstance(store, Store)
            plan = Plan(found.graph, found.steps, store, floating, settings, schedule)
        store.plans[signature] = plan
        return plan


def _kind(x: Any) -> Any:
    """Return what of a leaf of the batch a plan depends on: all of it, unless it is an input."""
    if has_memory(x) or isinstance(x, np.generic):
        return type(x), x.shape, x.dtype
    return type(x) if isinstance(x, Key) else (type(x), repr(x))


def _too_many(batch: tuple) -> str:
    """Return why a signature is not recorded any more, and what to do about it."""
    given = [
        f"argument {i} of the batch is a Python {type(x).__name__}"
        for i, x in enumerate(batch, 1)
        if isinstance(x, (int, float, complex, str)) and not isinstance(x, np.generic)
    ]
    why = "the shapes of the batch or numbers that the loss reads change from step to step"
    advice = "pass what changes as an array, and batches of one shape"
    if given:
        why, advice = given[0], "if it changes from step to step, pass np.asarray(x, dtype)"
    return f"{MOST} signatures were recorded and too few steps used each of them: {why}; {advice}"


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Put the global generators back: a loss that draws from them runs as if called once."""
    numbers, arrays = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(numbers)
        np.random.set_state(arrays)


def _agree(recorded: list, called: list) -> bool:
    """Tell whether two runs gave the same leaves, arrays to rounding."""
    return len(recorded) == len(called) and all(map(_same, recorded, called))


def _same(a: Any, b: Any) -> bool:
    if not hasattr(a, "dtype") or not hasattr(b, "dtype"):
        return type(a) is type(b) and bool(a == b)
    if a.shape != b.shape or a.dtype != b.dtype or on_device(a) != on_device(b):
        return False
    a, b = (x.get() if on_device(x) else x for x in (a, b))
    if a.dtype.kind not in "fc":
        return bool(np.array_equal(a, b))
    return bool(np.allclose(a, b, rtol=16 * np.finfo(a.dtype).eps, atol=0, equal_nan=True))
