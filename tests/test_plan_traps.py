"""Where a record could bake in what changes: a plan is the eager step, or the step runs eagerly."""

import functools
import random
import types

import numpy as np
import pytest
from plan_case import (
    assert_plan_is_eager,
    batches,
    cross_entropy,
    loss,
    need_plans,
    network,
    normal,
    relu,
    run,
    two_layers,
)

import dualgrad as dg

need_plans()

P = two_layers()
GIVEN = batches(8)


# --- values of the arguments

CLOSED = np.array([1.0, 2.0, 3.0, 4.0])


@dg.custom_jvp
def branching(z):
    return z * 2 if np.sum(z) > 0 else z * 3


@branching.defjvp
def _(primals, tangents):
    (z,), (t,) = primals, tangents
    return branching(z), t * 2 if np.sum(z) > 0 else t * 3


def scaled(factor):
    """Return the loss times what factor(params, batch) gives."""
    return lambda p, x, y: loss(p, x, y) * factor(p, x)


def on_batch(change):
    return lambda p, x, y: loss(p, change(x), y)


def attempted(x):
    try:
        return x * float(x[0, 0])
    except TypeError:
        return x * 5


def written(x):
    buffer = np.zeros((6, 4))
    buffer[...] = x
    return buffer


VALUES = {
    "branch on the batch": on_batch(lambda x: x if x.sum() > 0 else -x),
    "branch on a parameter": scaled(lambda p, x: 2 if np.sum(p["w1"]) > 0.8 else 1),
    "a loop of that length": scaled(lambda p, x: sum(1 for _ in range(int(np.argmax(x))))),
    "int of the batch": scaled(lambda p, x: int(dg.primal(x[0, 0] * 10))),
    "float of a parameter": scaled(lambda p, x: float(dg.primal(p["w1"][0, 0]))),
    "item": scaled(lambda p, x: x[0, 0].item()),
    "np.asarray": on_batch(np.asarray),
    "isinstance ndarray": on_batch(lambda x: x / 4 if isinstance(x, np.ndarray) else x),
    "isinstance DualTensor": on_batch(lambda x: x / 4 if isinstance(x, dg.DualTensor) else x),
    "hasattr": on_batch(lambda x: x / (x.itemsize if hasattr(x, "itemsize") else 3)),
    "a conversion that is attempted": on_batch(attempted),
    "written into an array": on_batch(written),
    "np.add with out": on_batch(lambda x: np.add(x, 1, out=np.zeros((6, 4)))),
    "a closed-over array": on_batch(lambda x: x + CLOSED),
    "one-hot labels": lambda p, x, y: -np.mean(
        np.sum((y[:, None] == np.arange(3)) * dg.nn.log_softmax(network(p, x)), 1)),
    "rows chosen by labels": lambda p, x, y: -np.mean(
        dg.nn.log_softmax(network(p, x))[np.arange(6), y]),
    "np.where": on_batch(lambda x: np.where(x > 0, x, 0.1 * x)),
    "argmax as index": on_batch(lambda x: x + x[np.argmax(x[:, 0])]),
    "mask of the batch": lambda p, x, y: np.mean(network(p, x[x[:, 0] > 0]) ** 2),
    "mask of a layer": lambda p, x, y: (
        lambda h: np.mean((h[h[:, 0] > 0] @ p["w2"]) ** 2))(x @ p["w1"]),
    "length of a mask": scaled(lambda p, x: len(x[x > 0])),
    "nonzero": lambda p, x, y: np.mean(network(p, x[np.nonzero(x[:, 0] > 0)[0]]) ** 2),
    "number of uniques": lambda p, x, y: loss(p, x, y) * np.unique(y).size,
    "a draw from a closed-over key": on_batch(
        lambda x: x + dg.random.normal(dg.Key(3), x.shape)),
    "jvp that branches": scaled(lambda p, x: dg.jvp(
        lambda v: np.sum(v) * 2 if np.sum(v) > 0 else np.sum(v), (x,), (x,))[0]),
    "jvp that indexes": scaled(lambda p, x: dg.jvp(
        lambda v: v[0, np.argmax(v[0])], (x,), (x,))[1]),
    "jvp that rounds": scaled(lambda p, x: dg.jvp(
        lambda v: np.sum(v) * np.floor(3 * np.sum(v)), (x,), (x,))[1]),
    "inner gradient": scaled(lambda p, x: np.mean(
        dg.gradient(lambda v: np.sum(np.tanh(v) ** 2))(x) ** 2)),
    "inner forward_gradient": scaled(lambda p, x: np.sum(
        dg.forward_gradient(lambda v: np.sum(v**3))(x, key=dg.Key(1))[1])),
    "custom_jvp on the batch": on_batch(branching),
    "custom_jvp on a layer": lambda p, x, y: cross_entropy(branching(x @ p["w1"]) @ p["w2"], y),
}  # fmt: skip


@pytest.mark.parametrize("function", VALUES.values(), ids=VALUES)
def test_what_depends_on_values(function):
    assert_plan_is_eager(function, P, GIVEN)


@pytest.mark.parametrize("number", [lambda i: np.array(2 + i % 3), lambda i: 2 + i % 3])
@pytest.mark.parametrize(
    "change",
    [lambda x, n: x[:n], lambda x, n: np.repeat(x, n, 0), lambda x, n: np.roll(x, n, 0)],
)
def test_sizes_from_the_batch(change, number):
    def resized(p, x, n):
        return np.mean(network(p, change(x, n)) ** 2)

    assert_plan_is_eager(resized, P, [(x, number(i)) for i, (x, _) in enumerate(GIVEN)])


class Box:
    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return "Box"


def test_objects_and_functions_in_the_batch():
    def boxed(p, x, y, box):
        return loss(p, x * box.value, y)

    assert_plan_is_eager(boxed, P, [(*b, Box(1 + i // 4)) for i, b in enumerate(GIVEN)])
    box = Box(0)

    def changed(i):
        box.value = 1 + i // 4
        return (*GIVEN[i], box)

    assert_plan_is_eager(boxed, P, [functools.partial(changed, i) for i in range(8)])
    functions = [np.tanh, lambda x: x * 2]
    assert_plan_is_eager(
        lambda p, x, y, f: loss(p, f(x), y), P,
        [(*b, functions[i % 2]) for i, b in enumerate(GIVEN)],
    )  # fmt: skip


# --- numbers that the loss finds elsewhere: (loss, set a new number)

SCALE = 1.0
MODULE = types.ModuleType("settings")


def set_global(value):
    global SCALE
    SCALE = value


def by_global(x):
    return x * SCALE


def numbers():
    """Return {name: (loss, function that sets the number the loss reads)}."""
    closed, made = 1.0, {}

    def in_closure(p, x, y):
        return loss(p, x * closed, y)

    def set_closed(value):
        nonlocal closed
        closed = value

    made["closure"] = in_closure, set_closed
    made["nested function"] = lambda p, x, y: loss(p, (lambda v: v * closed)(x), y), set_closed
    made["global"] = lambda p, x, y: loss(p, x * SCALE, y), set_global
    made["global of a nested function"] = (
        lambda p, x, y: loss(p, (lambda v: v * SCALE)(x), y), set_global,
    )  # fmt: skip
    made["global of a helper"] = lambda p, x, y: loss(p, by_global(x), y), set_global
    made["partial of a closure"] = functools.partial(in_closure), set_closed

    @functools.wraps(in_closure)
    def decorated(*args):
        return in_closure(*args)

    made["decorated"] = decorated, set_closed
    space, entries, items = types.SimpleNamespace(s=1.0), {"s": 1.0}, [1.0]
    made["attribute"] = lambda p, x, y: loss(p, x * space.s, y), lambda v: setattr(space, "s", v)
    made["entry"] = (
        lambda p, x, y: loss(p, x * entries["s"], y), lambda v: entries.update(s=v),
    )  # fmt: skip
    made["item"] = (
        lambda p, x, y: loss(p, x * items[0], y), lambda v: items.__setitem__(0, v),
    )  # fmt: skip
    made["module"] = (
        lambda p, x, y: loss(p, x * MODULE.S, y), lambda v: setattr(MODULE, "S", v),
    )  # fmt: skip

    class Trainer:
        s = 1.0

        def method(self, p, x, y):
            return loss(p, x * self.s, y)

        def scale(self):
            return self.s

        def through(self, p, x, y):
            return loss(p, x * self.scale(), y)

        __call__ = method

    trainer = Trainer()
    for name, function in (
        ("bound method", trainer.method),
        ("method of self", trainer.through),
        ("callable object", trainer),
    ):
        made[name] = function, lambda v: setattr(trainer, "s", v)
    array = np.array([1.0, 0.0])
    made["entry of an array"] = (
        lambda p, x, y: loss(p, x * array[0], y), lambda v: array.__setitem__(0, v),
    )  # fmt: skip
    made["mean of an array"] = (
        lambda p, x, y: loss(p, x * array.mean(), y), lambda v: array.__setitem__(0, v),
    )  # fmt: skip

    def default(p, x, y, s=[1.0]):  # noqa: B006
        return loss(p, x * s[0], y)

    made["default"] = default, lambda v: default.__defaults__[0].__setitem__(0, v)

    def listed(factors, p, x, y):
        return loss(p, x * factors[0], y)

    factors = [1.0]
    made["argument of a partial"] = (
        functools.partial(listed, factors), lambda v: factors.__setitem__(0, v),
    )  # fmt: skip
    return made


@pytest.mark.parametrize("name", numbers())
@pytest.mark.parametrize("when", [1, 2, 5])
def test_a_number_that_changes_between_calls(name, when):
    results = []
    for plan in (True, False):
        MODULE.S = 1.0
        set_global(1.0)
        function, change = numbers()[name]

        def given(i, change=change):
            change(2.0 if i >= when else 1.0)
            return GIVEN[i]

        results.append(
            run(function, P, [functools.partial(given, i) for i in range(8)], plan=plan)[0]
        )
    set_global(1.0)
    np.testing.assert_allclose(results[0], results[1], rtol=1e-10)


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: x + np.random.normal(size=x.shape),
        lambda x: x * np.random.uniform(),
        lambda x: x * random.random(),
    ],
)
def test_a_loss_that_draws_from_a_global_generator_draws_as_eagerly(draw):
    results = []
    for plan in (True, False):
        np.random.seed(0)
        random.seed(0)
        results.append(run(on_batch(draw), P, GIVEN, plan=plan)[0])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-10)


# --- what the loss gives, and its errors

RESULTS = {
    "(N, 1)": lambda p, x, y: np.sum(network(p, x) ** 2, 1, keepdims=True),
    "(N, 3)": lambda p, x, y: network(p, x) ** 2,
    "(1, 1)": lambda p, x, y: np.reshape(loss(p, x, y), (1, 1)),
    "a tuple": lambda p, x, y: (loss(p, x, y), x),
    "a list": lambda p, x, y: [loss(p, x, y)],
    "an integer": lambda p, x, y: np.argmax(network(p, x)),
    "a boolean": lambda p, x, y: loss(p, x, y) > 0,
    "complex": lambda p, x, y: loss(p, x, y) + 0j,
    "half": lambda p, x, y: loss(p, x, y).astype(np.float32),
    "of the batch alone": lambda p, x, y: (network(p, x), np.mean(x))[1],
    "a literal": lambda p, x, y: (network(p, x), 1.0)[1],
    "None": lambda p, x, y: (network(p, x), None)[1],
    "text": lambda p, x, y: (network(p, x), "loss")[1],
    "stopped": lambda p, x, y: dg.stop_gradient(loss(p, x, y)),
}


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("function", RESULTS.values(), ids=RESULTS)
def test_losses_of_other_shapes_and_types(function, k):
    rtol = 1e-6 if function is RESULTS["half"] else None
    assert_plan_is_eager(function, P, GIVEN[:4], directions=k, rtol=rtol)


def wrong(i, x, y):
    """Return a batch that fails at some steps."""
    return [
        (x, y), (x, np.where(np.arange(6) == 2, 7, y)), (x, np.where(np.arange(6) == 4, -1, y)),
        (x[:, :3], y), (x,), (x, y[:3]), (x, y * 1.0), (None, y),
    ][i]  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"structure": "rank1", "directions": 3}], ids=str)
@pytest.mark.parametrize("read", [False, True])
def test_a_batch_that_fails_fails_as_eagerly_and_training_goes_on(options, read):
    given = [wrong(i % 8 if i % 2 else 0, *GIVEN[i % 8]) for i in range(24)]
    assert_plan_is_eager(loss, P, given, read=read, **options)


class Armed:
    """A function in the loss that raises an error at some of the calls that are no recording."""

    def __init__(self):
        self.error = None

        @dg.custom_jvp
        def fuse(z):
            if self.error is not None:
                raise self.error
            return z * 1.0

        @fuse.defjvp
        def _(primals, tangents):
            return fuse(*primals), tangents[0] * 1.0

        self.fuse = fuse


FAILING = {
    "first": lambda p, x, y, fuse: loss(p, fuse(x), y),
    "between stages": lambda p, x, y, fuse: cross_entropy(
        fuse(relu(x @ p["w1"] + p["b1"])) @ p["w2"] + p["b2"], y),
    "last": lambda p, x, y, fuse: np.mean(fuse(network(p, x)) ** 2),
}  # fmt: skip


@pytest.mark.parametrize("error", [ArithmeticError("now"), KeyboardInterrupt("now")], ids=repr)
@pytest.mark.parametrize("where", FAILING)
@pytest.mark.parametrize("then", ["nothing", "read", "value"])
@pytest.mark.parametrize("options", [{}, {"structure": "rank1", "directions": 3}], ids=str)
def test_an_error_in_the_middle_of_a_step_leaves_the_state_whole(error, where, then, options):
    results = []
    for plan in (True, False):
        armed = Armed()
        step = dg.training_step(
            lambda p, x, y, fuse=armed.fuse: FAILING[where](p, x, y, fuse),
            dg.optim.sgd(0.05), plan=plan, precision="exact", **options,
        )  # fmt: skip
        state, values = step.init(P, dg.Key(5)), []
        for number, (x, y) in enumerate(GIVEN):
            if number in (3, 5, 6):
                armed.error = error
                with pytest.raises(type(error), match="now"):
                    step(state, x, y)
                armed.error = None
                assert state.step == number
                if then == "read":
                    values.append(sum(np.sum(w) for w in dg.tree.leaves(state.params)))
                if then == "value":
                    values.append(step.value(state, x, y))
            state, value = step(state, x, y)
            values.append(value)
        results.append([*values, *dg.tree.leaves(state.params)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_rate_that_raises_leaves_the_state_whole():
    for plan in (True, False):
        raised = []

        def rate(step, raised=raised):
            if step == 4 and not raised:
                raised.append(step)
                raise ArithmeticError("no rate")
            return 0.1

        values, params, *_ = run(loss, P, GIVEN, plan=plan, rate=rate)
        assert values[4] == "ArithmeticError: no rate"
        if plan:
            planned = params
    for a, b in zip(dg.tree.leaves(planned), dg.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_a_complex_or_unusual_parameter_is_as_eagerly():
    used = {**P, "c": np.ones(3, np.float16)}
    assert_plan_is_eager(
        lambda p, x, y: loss(p, x, y) + np.sum(p["c"] ** 2), used, GIVEN, rtol=2e-3
    )
    for plan in (True, False):
        with pytest.raises(dg.DtypeError, match="complex"):
            run(loss, {**P, "c": normal(0, 3) + 0j}, GIVEN, plan=plan)
