"""Numbers that a loss reads beside its arguments: a plan sees them change, or there is no plan."""

import collections
import dataclasses
import functools
import itertools
import operator
import os
import sys
import types

import numpy as np
import pytest
from plan_case import KEY, batches, explained, fused, loss, need_plans, run, two_layers

import dualgrad as dg

need_plans()

P = two_layers()
GIVEN = batches(6)
STATE = {"scale": 1.0}
GLOBAL = 1.0


class Holder:
    s = 1.0

    def scale(self):
        return self.s


class Slotted:
    __slots__ = ("s",)


class Indexed:
    """Subscripts that read an attribute which only this class names."""

    def __init__(self):
        self.hidden_number = 1.0

    def __getitem__(self, name):
        return self.hidden_number


class Computed:
    entries = [1.0]

    @property
    def s(self):
        return self.entries[0]


def read_global():
    return GLOBAL


def set_global(value):
    global GLOBAL
    GLOBAL = value


PARTIALS = (functools.partial(read_global),)


def scaled(read):
    return lambda p, x, y: loss(p, x * read(), y)


def cases():
    """Return {name: (function that gives the number, function that sets it)}."""
    made = {}
    nested = {"loss": {"inner": [1.0]}}
    made["nested containers"] = (
        lambda: nested["loss"]["inner"][0],
        lambda v: nested["loss"]["inner"].__setitem__(0, v),
    )
    replaced = {"loss": {"s": 1.0}}
    made["a nested dict that is replaced"] = (
        lambda: replaced["loss"]["s"],
        lambda v: replaced.update(loss={"s": v}),
    )
    holder = Holder()

    def by_alias():
        local = holder
        other = local
        return other.s

    made["a local alias"] = by_alias, lambda v: setattr(holder, "s", v)
    held = [Holder()]
    made["an object in a list"] = lambda: held[0].s, lambda v: setattr(held[0], "s", v)
    inner = types.SimpleNamespace(deep=types.SimpleNamespace(s=1.0))
    made["objects in objects"] = (
        lambda: [inner][0].deep.s,
        lambda v: setattr(inner.deep, "s", v),
    )
    made["getattr"] = lambda: getattr(holder, "s"), lambda v: setattr(holder, "s", v)  # noqa: B009
    bare = types.SimpleNamespace()
    made["getattr with a default"] = (
        lambda: getattr(bare, "late", 1.0),
        lambda v: setattr(bare, "late", v),
    )
    made["a method of an alias"] = (
        lambda: [h.scale() for h in held][0],
        lambda v: setattr(held[0], "s", v),
    )
    functions, named = [read_global], {"scale": read_global}
    made["a function in a list"] = lambda: functions[0](), set_global
    made["a function in a dict"] = lambda: named["scale"](), set_global
    made["a function that is replaced"] = (
        lambda: functions[0](),
        lambda v: functions.__setitem__(0, lambda: v),
    )
    made["a partial in a tuple"] = (
        lambda chosen=PARTIALS: chosen[0](),
        set_global,
    )
    slotted = Slotted()
    slotted.s = 1.0
    slots = (slotted,)
    made["slots"] = lambda: slots[0].s, lambda v: setattr(slotted, "s", v)
    made["a class attribute"] = lambda: [Holder][0].s, lambda v: setattr(Holder, "s", v)
    made["an instance made in the loss"] = (
        lambda: Holder().scale(),
        lambda v: setattr(Holder, "s", v),
    )
    indexed = Indexed()
    made["a special method"] = lambda: indexed["s"], lambda v: setattr(indexed, "hidden_number", v)
    computed = [Computed()]
    made["a property"] = lambda: computed[0].s, lambda v: Computed.entries.__setitem__(0, v)
    os.environ["DUALGRAD_TEST_SCALE"] = "1.0"
    made["os.environ"] = (
        lambda: float(os.environ["DUALGRAD_TEST_SCALE"]),
        lambda v: os.environ.update(DUALGRAD_TEST_SCALE=str(v)),
    )
    made["os.getenv"] = (
        lambda: float(os.getenv("DUALGRAD_TEST_SCALE")),
        lambda v: os.environ.update(DUALGRAD_TEST_SCALE=str(v)),
    )
    module = sys.modules.setdefault("dualgrad_test_settings", types.ModuleType("settings"))
    module.S = 1.0

    def imported():
        import dualgrad_test_settings

        return dualgrad_test_settings.S

    def imported_from():
        from dualgrad_test_settings import S

        return S

    made["an import inside"] = imported, lambda v: setattr(module, "S", v)
    made["a name imported inside"] = imported_from, lambda v: setattr(module, "S", v)
    default = {"loss": {"s": 1.0}}
    made["a nested default"] = (
        lambda config=default: config["loss"]["s"],
        lambda v: default["loss"].update(s=v),
    )
    array = {"table": np.ones(30)}
    made["an entry of an array in a dict"] = (
        lambda: float(array["table"][3]),
        lambda v: array["table"].__setitem__(3, v),
    )
    queue = collections.deque([1.0], maxlen=1)
    made["a deque"] = lambda: queue[0], queue.append
    long = [1.0] * 200
    made["entry 65 of a list"] = lambda: long[64], lambda v: long.__setitem__(64, v)
    ordered = collections.OrderedDict(s=1.0)
    made["an ordered dict"] = lambda: ordered["s"], lambda v: ordered.update(s=v)
    user = collections.UserDict(s=1.0)
    made["a UserDict"] = lambda: user["s"], lambda v: user.update(s=v)
    made["a default that is replaced"] = _default_replaced()
    return made


def _default_replaced():
    def function(s=1.0):
        return s

    return function, lambda v: setattr(function, "__defaults__", (v,))


REFUSED = {
    "globals": (lambda: globals()["GLOBAL"], set_global, "calls globals()"),
    "vars": (lambda: vars(HOLDER)["own"], lambda v: setattr(HOLDER, "own", v), "calls vars()"),
    "eval": (lambda: eval("GLOBAL"), set_global, "calls eval()"),
    "a computed name": (
        lambda: getattr(HOLDER, "o" + STATE.get("rest", "wn")),
        lambda v: setattr(HOLDER, "own", v),
        "calls getattr with a name that is computed",
    ),
    "another name of getattr": (
        lambda: [getattr][0](HOLDER, "own"),
        lambda v: setattr(HOLDER, "own", v),
        "calls getattr with a name that is computed",
    ),
    "attrgetter": (
        lambda: operator.attrgetter("own")(HOLDER),
        lambda v: setattr(HOLDER, "own", v),
        "attrgetter",
    ),
    "an attrgetter": (lambda: GETTER(HOLDER), lambda v: setattr(HOLDER, "own", v), "attrgetter"),
    "asdict": (
        lambda: dataclasses.asdict(CONFIG)["number"],
        lambda v: setattr(CONFIG, "number", v),
        "asdict",
    ),
    "a long list": (
        lambda: LONG[300],
        lambda v: LONG.__setitem__(300, v),
        "a list of 301 entries",
    ),
    "deep containers": (
        lambda: DEEP[0][0][0][0][0][0][0],
        lambda v: DEEP[0][0][0][0][0][0].__setitem__(0, v),
        "more than 5 deep",
    ),
    "a large array": (
        lambda: float(LARGE["a"][3]),
        lambda v: LARGE["a"].__setitem__(3, v),
        "an array of shape (10000,)",
    ),
}


@dataclasses.dataclass
class Config:
    number: float = 1.0


HOLDER = Holder()
HOLDER.own = 1.0
CONFIG = Config()
GETTER = operator.attrgetter("own")
LONG = [1.0] * 301
DEEP = [[[[[[[1.0]]]]]]]
LARGE = {"a": np.ones(10_000)}


def trained(function, change, plan):
    """Return the values of six steps, the number 1 at first and another from the third on."""

    def given(i):
        change(1.0 if i < 2 else 2.0 + i // 4)
        return GIVEN[i]

    change(1.0)
    values, *_, step, state = run(
        function, P, [functools.partial(given, i) for i in range(6)], plan=plan
    )
    stages = fused(step, state, GIVEN[0]) if plan else None
    change(1.0)
    return values, stages


@pytest.mark.parametrize("name", cases())
def test_a_number_that_changes_is_seen(name):
    read, change = cases()[name]
    eager, _ = trained(scaled(read), change, False)
    values, stages = trained(scaled(read), change, True)
    np.testing.assert_allclose(values, eager, rtol=1e-10)
    assert stages == 3


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused(name):
    read, change, reason = REFUSED[name]
    eager, _ = trained(scaled(read), change, False)
    values, stages = trained(scaled(read), change, True)
    np.testing.assert_allclose(values, eager, rtol=1e-10)
    assert stages == 0
    step = dg.training_step(scaled(read), dg.optim.sgd(0.1))
    text = explained(step, step.init(P, KEY), *GIVEN[0])
    assert reason in text and text.startswith("eager, as it ")


@dataclasses.dataclass(frozen=True)
class Network:
    w: np.ndarray
    activation: object = dataclasses.field(metadata={"static": True})

    def __call__(self, x):
        return self.activation(x) @ self.w * self.gain()

    def gain(self):
        return GLOBAL


def by_global(x):
    return x * GLOBAL


@pytest.mark.parametrize("activation", [np.tanh, by_global])
def test_the_methods_and_functions_of_the_parameters_are_watched(activation):
    results = []
    for plan in (True, False):

        def given(i):
            set_global(1.0 + i // 2)
            return GIVEN[i]

        values, *_, step, state = run(
            lambda model, x, y: dg.nn.cross_entropy(model(x), y),
            Network(P["w1"][:, :3].copy(), activation),
            [functools.partial(given, i) for i in range(6)],
            plan=plan,
        )
        results.append(values)
    set_global(1.0)
    np.testing.assert_allclose(results[0], results[1], rtol=1e-10)


def test_what_the_loss_does_not_read_may_change():
    """A trainer whose counters and history change with every step is recorded once."""

    class Trainer:
        def __init__(self):
            self.count, self.history, self.data = 0, [], np.ones((100, 1000))
            self.scale = 1.0

        def loss(self, p, x, y):
            next(calls)
            return loss(p, x * self.scale, y)

    calls = itertools.count()  # an object whose state is not compared
    trainer = Trainer()
    step = dg.training_step(trainer.loss, dg.optim.sgd(0.1))
    state = step.init(P, KEY)
    for x, y in GIVEN:
        trainer.count += 1
        state, value = step(state, x, y)
        trainer.history.append(value)
    assert next(calls) == 2  # both of the recording


def test_a_loss_that_counts_its_calls_runs_eagerly():
    counts = {"calls": 0}

    def counting(p, x, y):
        counts["calls"] += 1
        return loss(p, x, y) * counts["calls"]

    step = dg.training_step(counting, dg.optim.sgd(0.1))
    assert "it changes what it reads" in explained(step, step.init(P, KEY), *GIVEN[0])
