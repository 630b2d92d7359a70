"""dg.fuse: always the results of the function, in one launch where it can be, and in place."""

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import optim
from dualgrad.kernels import cuda
from dualgrad.trace import trace

X = np.array([[0.5, -1.0, 2.0], [0.0, 3.0, -0.25]])
T = np.array([[1.0, 0.5, -2.0], [3.0, 0.0, 1.0]])


def silu(x):
    return x / (1 + np.exp(-x))


def host(device, tree):
    """The tree with arrays for those on the device, duals as pairs of arrays."""

    def of(x):
        if type(x) is dg.DualTensor:
            return of(x.primal), of(x.carrier)
        return device.asnumpy(x) if type(x).__module__ == "cupy" else x

    return dg.tree.map(of, tree)


def assert_equal(found, expected, tolerance=1e-13):
    for got, want in zip(dg.tree.leaves(found), dg.tree.leaves(expected), strict=True):
        assert np.shape(got) == np.shape(want)
        if want is None or isinstance(want, str):
            assert got == want
        else:
            assert np.asarray(got).dtype == np.asarray(want).dtype
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def check(device, f, *args, launches=1, tolerance=1e-13):
    """f fused and f give the same of equal arguments, whatever is written into these."""
    outcomes = []
    for function in (dg.fuse(f), f):
        given = dg.tree.map(lambda x: x.copy() if hasattr(x, "copy") else x, args)
        count = cuda.launches
        result = function(*given)
        outcomes.append((host(device, result), host(device, given)))
        if function is not f and launches is not None:
            assert cuda.launches - count == launches, dg.fuse(f).explain(*given)
    assert_equal(*outcomes, tolerance)


def test_on_the_host_it_is_the_function():
    calls = []

    def f(x, *, n):
        calls.append(x)
        return np.sum(x) * n

    assert dg.fuse(f)(X, n=2) == 2 * np.sum(X)
    assert calls == [X] and dg.fuse(f).__name__ == "f"
    assert dg.hessian(dg.fuse(silu))(0.3) == dg.hessian(silu)(0.3)
    assert dg.fuse(silu).explain(X).startswith("f itself: no argument is a floating array")


def test_one_kernel_gives_values_and_tangents_of_trees(device):
    def f(p, x, *, scale, name):
        assert name == "a name"
        y = silu(x * p["w"] + p["b"][0]) * scale
        return {"y": y, "mean": [0.5 * (y + x), x > 0], "same": y, "x": x, "name": name, "n": 3}

    p, x = dg.to_device(({"w": X, "b": [X[0], X[0]]}, X), "gpu")
    fused = dg.fuse(f)
    count = cuda.launches
    found = fused(p, x, scale=2, name="a name")
    assert cuda.launches - count == 1
    assert found["same"] is found["y"] and found["x"] is x
    expected = f(p, x, scale=2, name="a name")
    assert_equal(host(device, found), host(device, expected))
    dual = dg.dual(x, device.asarray(T))
    count = cuda.launches
    found = fused(p, dual, scale=2.5, name="a name")
    assert cuda.launches - count == 1 and type(found["mean"][1]) is device.ndarray
    assert found["same"] is found["y"] and found["x"] is dual and found["y"].level is dual.level
    assert_equal(host(device, found), host(device, f(p, dual, scale=2.5, name="a name")))
    assert fused.explain(p, dual, scale=1, name="a name") == "one kernel: 10 operations, 3 results"


def test_closures_that_change_are_seen(device):
    x = device.asarray(X)
    kept = {"rate": 2.0, "array": device.asarray(X), "negative": False}

    @dg.fuse
    def f(x):
        y = np.tanh(kept["rate"] * x) + kept["array"]
        return -y if kept["negative"] else y

    for change in ({}, {"rate": 3}, {"array": device.asarray(T)}, {"negative": True}):
        kept |= change
        count = cuda.launches
        y, ty = dg.jvp(f, (x,), (x,))
        assert cuda.launches - count == 1
        sign = -1 if kept["negative"] else 1
        array, rate = device.asnumpy(kept["array"]), kept["rate"]
        np.testing.assert_allclose(device.asnumpy(y), sign * (np.tanh(rate * X) + array))
        slope = sign * rate * (1 - np.tanh(rate * X) ** 2) * X
        np.testing.assert_allclose(device.asnumpy(ty), slope, atol=1e-13)


def test_arrays_of_its_own_may_be_written_again(device):
    """Their entries are those of the moment at which they were used."""
    x, table = device.asarray(X), device.asarray(np.arange(9.0).reshape(3, 3))
    buffer = device.zeros(3)

    def f(x):
        y = 0 * x
        for row in range(3):
            buffer[...] = table[row]
            y = y + x**row * buffer
        return y

    check(device, f, x)
    assert (
        dg.fuse(f).explain(x).endswith("1 result, arrays copied because they are no arguments: 3")
    )


def test_duals_of_the_closure_move(device):
    x = device.asarray(X)
    f = dg.jvp(lambda w: dg.fuse(lambda x: np.sin(x) * w)(x), (x,), (device.asarray(T),))[1]
    np.testing.assert_allclose(device.asnumpy(f), np.sin(X) * T, rtol=1e-13)
    both = dg.jvp(lambda w: dg.fuse(lambda x: np.sin(x) * w)(w), (x,), (device.asarray(T),))[1]
    np.testing.assert_allclose(device.asnumpy(both), (np.cos(X) * X + np.sin(X)) * T, rtol=1e-13)


# --- functions whose meaning a trace could lose: what each gives is not what its text computes


@dg.custom_jvp
def doubled(x):
    return 2 * x


@doubled.defjvp
def _(primals, tangents):
    return 2 * primals[0], 5 * tangents[0]


LOST = {
    "a custom rule": lambda x: doubled(x) + 1,
    "a stopped gradient": lambda x: dg.stop_gradient(x) * x,
    "relu at 0": lambda x: dg.nn.relu(x) + dg.nn.relu(0 * x),
    "a reduction": lambda x: x - np.mean(x),
    "an index": lambda x: x[0] * x,
    "a reshape": lambda x: x.T * 2,
    "a product": lambda x: x @ x.T,
    "a branch": lambda x: x * 2 if np.sum(x) > 0 else x,
    "a branch on an entry": lambda x: x * 2 if x[0, 0] > 0 else x,
    "a shape": lambda x: x * x.shape[0] + np.ndim(x) + len(x) + x.size,
    "a copy that is written": lambda x: _written(x.copy()) + x,
    "a transform inside": lambda x: dg.jvp(np.sin, (x,), (x,))[1],
    "a fused function inside": lambda x: dg.fuse(silu)(x) + 1,
    "zeros": lambda x: np.where(x > 0, x, np.zeros_like(x)),
    "two shapes": lambda x: (x * 2, np.ones_like(x)[0] * 3),
    "an integer": lambda x: x * np.ones_like(x, dtype=int),
    "a cast": lambda x: x.astype(np.float32) * 2,
    "a number that is wider": lambda x: x.astype(np.float32) * np.float64(0.1),
    "an output": lambda x: np.add(x, 1.0) if type(x) is float else np.multiply(x, x, where=True),
    "nothing": lambda x: None,
    "the argument": lambda x: x,
    "a copy": lambda x: x.copy(),
    "too long": lambda x: sum((x * i for i in range(70)), x),
    "integers of a mask": lambda x: np.where(x > 0, 1, 0),
    "a sum of masks": lambda x: (x > 0) + (x > 1),
    "real": lambda x: x.real * 2,
}


PLAIN = {"a copy that is written", "a product", "the argument", "nothing", "too long"}


def _written(y):
    y += 1.5
    return y


@pytest.mark.parametrize("name", LOST)
def test_the_results_are_those_of_the_function(device, name):
    f = LOST[name]
    x, t = device.asarray(X), device.asarray(np.stack([T, 1 + T]))
    if name in PLAIN:
        check(device, f, x, launches=None)
    check(device, f, dg.dual(x, t[0]), launches=None)
    if name in ("nothing", "two shapes", "integers of a mask", "a sum of masks"):
        return
    pairs = [dg.pushforward(g, (x,), (t,)) for g in (dg.fuse(f), f)]
    assert_equal(*(host(device, pair) for pair in pairs), 1e-6)


CAUGHT = {
    "a reduction": lambda x: np.max(x),
    "a number": lambda x: float(x[0, 0] if x.ndim else x),
    "a branch": lambda x: 1.0 if np.all(x > 0) else 2.0,
    "an item": lambda x: x.item(0),
    "a list": lambda x: x.tolist()[0][1],
    "a host array": lambda x: x.get()[0, 0],
    "an attribute": lambda x: x.nbytes,
    "entries": lambda x: sum(1.0 for row in x),
    "an output": lambda x: np.add(x, 1.0, out=x),
    "a transform": lambda x: dg.jvp(np.sin, (x,), (x,))[1],
    "a write": lambda x: (x.__setitem__(0, 1.0), 3.0)[1],
}


@pytest.mark.parametrize("name", CAUGHT)
def test_a_refusal_that_the_function_catches_is_one(device, name):
    def f(x):
        try:
            y = CAUGHT[name](x)
        except Exception:
            y = 7.0
        return x - y

    check(device, f, device.asarray(X), launches=None)
    assert dg.fuse(f).explain(device.asarray(X)).startswith("f itself: ")


def test_a_record_takes_the_operations_one_by_one(device):
    """What dg.fuse refuses is not refused in the record that it is called in."""
    x = device.asarray(X)
    graph, outputs = trace(lambda x: dg.fuse(silu)(x) * 2, (x,))
    assert len(graph.calls) == 5
    np.testing.assert_allclose(device.asnumpy(outputs[0]), 2 * silu(X), rtol=1e-13)


def test_nothing_to_compute_is_no_kernel(device):
    x = device.asarray(X)
    assert dg.fuse(lambda x: x).explain(x) == "no kernel: nothing is computed"


def test_nested_levels_and_reverse_mode_take_the_function(device):
    x, fused = device.asarray(X), dg.fuse(silu)
    second = [dg.jvp(lambda x, f=f: dg.jvp(f, (x,), (x,))[1], (x,), (x,)) for f in (fused, silu)]
    assert_equal(*(host(device, y) for y in second))
    mixed = [
        dg.jvp(lambda x, f=f: dg.jvp(lambda y: f(x, y), (3 * x,), (x,))[1], (x,), (x,))
        for f in (dg.fuse(np.arctan2), np.arctan2)
    ]
    assert_equal(*(host(device, y) for y in mixed))
    t = device.asarray(T)
    product = dg.fuse(np.multiply)  # of duals of two levels that are not nested in each other
    twice = dg.jvp(lambda x: dg.jvp(lambda y: product(x, y), (t,), (t,))[1], (x,), (x,))
    assert_equal(host(device, twice), (X * T, X * T))
    for f in (fused, silu):
        y, pull = dg.vjp(f, x)
        np.testing.assert_allclose(device.asnumpy(y), silu(X), rtol=1e-13)
        slope = dg.jvp(silu, (X,), (np.ones_like(X),))[1]
        np.testing.assert_allclose(device.asnumpy(pull(y)[0]), silu(X) * slope, rtol=1e-12)
    y, series = dg.jet(fused, (x,), ((x, x),))
    want = dg.jet(silu, (X,), ((X, X),))
    assert_equal(host(device, (y, series)), want, 1e-12)
    with dg.debug_nans():
        assert fused.explain(x) == "f itself: dg.debug_nans is open"
        with pytest.raises(dg.NonFiniteError, match="np.log"):
            dg.jvp(dg.fuse(lambda x: np.log(0 * x)), (x,), (x,))


@pytest.mark.parametrize("options", [{"structure": "rank1"}, {"perturb": "activations"}, {}])
def test_in_a_forward_gradient(device, options):
    def gradient_by(f, *given):
        def loss(w, x):
            return np.sum(f(dg.nn.linear(x, f(w) if not options else w)), axis=-1)

        return dg.forward_gradient(loss, directions=2, **options)(*given, key=dg.Key(0))

    w, x = X.T.copy(), np.concatenate([X, T])[:, :2] + np.zeros((4, 2))
    given = dg.to_device((w[:2], x), "gpu")
    for got, want in zip(
        gradient_by(dg.fuse(silu), *given), gradient_by(silu, w[:2], x), strict=True
    ):
        got, want = (y.dense() if hasattr(y, "dense") else y for y in (got, want))
        np.testing.assert_allclose(device.asnumpy(got), want, rtol=1e-12)


def test_a_level_that_has_returned_is_refused_as_ever(device):
    x = device.asarray(X)
    kept = []
    dg.jvp(lambda x: kept.append(x) or x, (x,), (x,))
    with pytest.raises(dg.LevelError, match="negative"):
        dg.fuse(silu)(kept[0])
    dg.fuse(lambda x: kept.append(x * 2) or x * 3)(x)
    with pytest.raises(dg.LevelError, match="dg.fuse"):
        np.exp(kept[-1])


def test_host_and_device_do_not_meet(device):
    x = device.asarray(X)
    with pytest.raises(dg.DeviceError):
        dg.jvp(dg.fuse(lambda x: np.sin(x) * X), (x,), (x,))
    with pytest.raises(TypeError):
        dg.fuse(np.add)(x, X)
    with pytest.raises(ValueError, match="shape mismatch"):
        dg.fuse(np.add)(dg.dual(x, x), device.asarray(np.ones(7)))


def test_arguments_of_other_dtypes(device):
    x = device.asarray(X)
    for other in (np.arange(3), np.arange(3) > 1, np.ones(3, np.float32), np.ones(3) * 1j):
        check(device, lambda x, y: np.tanh(x) * y, x, device.asarray(other), launches=None)
    for number in (2, 0.5, True, np.float64(0.1), np.float32(0.1), np.int64(3)):
        check(device, lambda x, y: np.tanh(x) * y, x, number, launches=None)
        narrow = x.astype(np.float32)
        check(device, lambda x, y: np.tanh(x) * y, narrow, number, launches=None, tolerance=1e-6)


def test_why_a_function_is_called_as_it_is(device):
    x = device.asarray(X)
    explain = dg.fuse(lambda x: np.sum(x)).explain(x)
    assert explain.startswith("f itself: np.sum is no operation entry by entry")
    assert f"{__file__}:" in explain
    narrow = x.astype(np.float32)
    explain = dg.fuse(np.add).explain(x, narrow)
    assert explain.startswith("f itself: an array of float32 meets one of float64")


# --- in place


def test_arguments_are_written_in_the_same_launch(device):
    def step(w, g, m, rate):
        m *= 0.9
        m += g
        w -= rate * m
        return w, m + 1

    w, g, m = (device.asarray(x) for x in (X, T, X * T))
    check(device, step, w, g, m, 0.1)
    found = dg.fuse(step)(w, g, m, 0.1)
    assert found[0] is w
    check(device, step, w, 0.5, m, 0.1)  # a number in the place of an array

    outcomes = []
    for function in (dg.fuse(step), step):  # arrays of other strides than their entries' order
        base = [device.asarray(np.stack([x, 2 * x])) for x in (X, T, X * T)]
        count = cuda.launches
        result = function(*(x[1].T for x in base), 0.1)
        assert cuda.launches - count == (function is not step)
        outcomes.append(host(device, (result, base)))
    assert_equal(*outcomes)


def test_an_array_is_set_as_a_whole(device):
    def fill(x, y):
        x[...] = 0.25
        y[:] = x * y + x

    check(device, fill, device.asarray(X), device.asarray(T))
    check(device, lambda x, y: y.__setitem__(..., y[0]), *map(device.asarray, (X, T)), launches=0)


def part_written(x, y):
    x[0] += 1.0
    return y


IN_PLACE = {
    "an argument given twice": lambda x, y: (_written(x), y + x),
    "a part": part_written,
    "of the result's shape": lambda x, y: _added(y, x),
    "a container": lambda x, y: _kept({"x": x}, y),
    "ufunc out=": lambda x, y: np.add(x, y, out=x),
}


def _added(y, x):
    y[0] += x[0]
    y += 2 * x
    return y


def _kept(state, y):
    state["x"] = state["x"] * y
    return state


@pytest.mark.parametrize("name", IN_PLACE)
def test_writes_are_those_of_the_function(device, name):
    f = IN_PLACE[name]
    x, y = device.asarray(X), device.asarray(T)
    check(device, f, x, y, launches=None)
    outcomes = []
    for g in (dg.fuse(f), f):
        same = device.asarray(X)
        outcomes.append((host(device, g(same, same)), host(device, same)))
    assert_equal(*outcomes)


def test_arrays_that_share_memory_are_left_to_the_function(device):
    outcomes = []
    for g in (dg.fuse(_added_to), _added_to):
        base = device.asarray(np.arange(7.0))
        g(base[1:], base[:-1])
        outcomes.append(host(device, base))
    assert outcomes[0].tolist() == outcomes[1].tolist()
    state = {"m": device.asarray(X)}

    def changes(state, g):
        state["m"] = 0.5 * state["m"] + g

    dg.fuse(changes)(state, device.asarray(T))
    np.testing.assert_allclose(device.asnumpy(state["m"]), 0.5 * X + T)


def _added_to(x, y):
    x += 2 * y


def test_what_moves_is_not_written_into_what_does_not(device):
    x = device.asarray(X)
    with pytest.raises(dg.DualgradError):
        dg.jvp(lambda w: dg.fuse(_added_to)(x, w), (device.asarray(T),), (device.asarray(T),))
    np.testing.assert_array_equal(device.asnumpy(x), X)


RULES = {
    "sgd": (optim.sgd(0.1), 1),
    "momentum": (optim.sgd(0.1, 0.9), 2),
    "nesterov": (optim.sgd(0.1, 0.9, nesterov=True), 3),
    "adam": (optim.adam(0.1), 1),
    "adamw": (optim.adamw(0.1), 1),
    "rmsprop": (optim.rmsprop(0.1), 1),
}


@pytest.mark.parametrize("name", RULES)
def test_optimisers_step_in_few_launches_a_parameter(device, name):
    rule, launches = RULES[name]
    generator = np.random.default_rng(0)
    params = {"w": generator.normal(size=(3, 5)), "b": generator.normal(size=5)}
    given = dg.to_device(dg.tree.map(np.copy, params), "gpu")
    kept = dict(given)
    states = [rule.init(params), rule.init(given)]
    for _ in range(3):
        g = {key: generator.normal(size=x.shape) for key, x in params.items()}
        params, states[0] = rule.update(params, g, states[0])
        count = cuda.launches
        given, states[1] = rule.update(given, dg.to_device(g, "gpu"), states[1])
        assert cuda.launches - count == launches * len(params)
    assert all(given[key] is kept[key] for key in params)  # written in place
    assert_equal(host(device, (given, states[1])), (params, states[0]), 1e-12)


def test_half_parameters_with_memories_of_float32_are_updated_all_the_same(device):
    rule = optim.adam(0.1)
    params, g = [X.astype(np.float16)], [T.astype(np.float16)]
    given, there = dg.to_device(([params[0].copy()], g), "gpu")
    params, _ = rule.update(params, g, rule.init(params))
    given, _ = rule.update(given, there, rule.init(given))
    np.testing.assert_allclose(device.asnumpy(given[0]), params[0], rtol=2e-3)
