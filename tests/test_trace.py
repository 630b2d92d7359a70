"""trace: what is recorded, that a replay on other arguments is right, and what is refused where."""

import threading
import time

import numpy as np
import ops_table  # noqa: F401  (fills CASES)
import ops_table_shapes  # noqa: F401
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_case import CASES

import dualgrad as dg
from dualgrad.dual import TRACES
from dualgrad.trace import Ref, Untraceable, fill, refs, trace


def replay(graph, arguments):
    """Return the outputs of a graph for other arguments."""
    values = list(dg.tree.leaves(arguments))
    assert len(values) == graph.inputs
    for call in graph.calls:
        values.append(call.function(*fill(call.args, values), **fill(call.kwargs, values)))
    return dg.tree.unflatten(graph.structure, [fill(x, values) for x in graph.outputs])


def assert_replays(function, first, second):
    """Check that a record made of the first arguments does to the second what the function does."""
    graph, outputs = trace(function, first)
    for given_arguments, found in (
        (first, dg.tree.unflatten(graph.structure, outputs)),
        (first, replay(graph, first)),
        (second, replay(graph, second)),
    ):
        expected = function(*given_arguments)
        assert dg.tree.flatten(found)[1] == dg.tree.flatten(expected)[1]
        for a, b in zip(dg.tree.leaves(found), dg.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b, strict=hasattr(b, "dtype"))
    return graph


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


X, OTHER = normal(0, 6, 4), normal(1, 6, 4)


def names(graph):
    return [repr(call).partition("(")[0] for call in graph.calls]


# --- what is recorded


def test_a_record_is_the_calls_in_order_with_the_numbers_of_their_arguments():
    graph, outputs = trace(lambda w, x: dg.nn.relu(np.matmul(x, w) + 1.5), (X.T.copy(), X))
    assert graph.inputs == 2
    assert list(map(repr, graph.calls)) == [
        "np.matmul(%1, %0)",
        "np.add(%2, 1.5)",
        "dg.nn.relu(%3)",
    ]
    assert graph.outputs == [Ref(4)] and graph.values[4].shape == (6, 6)
    np.testing.assert_array_equal(outputs[0], np.maximum(X @ X.T + 1.5, 0))


@pytest.mark.parametrize(
    "function, recorded",
    [
        (lambda x: x + 1, ["np.add"]),
        (lambda x: 2 - x, ["np.subtract"]),
        (lambda x: x.T @ x, ["np.transpose", "np.matmul"]),
        (lambda x: x[1:, 0], ["x[index]"]),
        (lambda x: x.reshape(4, 6), ["np.reshape"]),
        (lambda x: x.astype(np.float32), ["np.astype"]),
        (lambda x: np.where(x > 0, x, 0.0), ["np.greater", "np.where"]),
        (lambda x: dg.primal(x), ["dg.nn.primal"]),
        (lambda x: dg.stop_gradient(x), ["dg.nn.primal"]),
        (lambda x: x * len(x) + x.shape[1] + np.ndim(x), ["np.multiply", "np.add", "np.add"]),
        (lambda x: np.split(x, 2)[1], ["np.split", "x[index]", "x[index]"]),
        (lambda x: dg.nn.max_pool2d(x[None, ..., None], 2), ["x[index]", "dg.nn.max_pool2d"]),
        (lambda x: x, []),
    ],
)
def test_each_function_is_one_call(function, recorded):
    graph = assert_replays(function, (X,), (OTHER,))
    assert names(graph) == recorded


@pytest.mark.parametrize("number", range(len(CASES)), ids=[str(c) for c in CASES])
@settings(max_examples=1)
@given(data=st.data())
def test_what_is_recorded_of_any_operation_is_right_for_other_arguments(number, data):
    case = CASES[number]
    first = data.draw(case.draw())
    second = tuple(
        np.random.default_rng(7 + i).permutation(x.reshape(-1)).reshape(x.shape)
        for i, x in enumerate(first)
    )
    try:
        assert_replays(case.call, first, second)
    except Untraceable as refused:
        assert "neither the parameters" in str(refused) or "decides" in str(refused)


def test_structures_and_literals_pass_through():
    def function(tree, flag, nothing):
        scale = 2.0 if flag == "double" else 1.0
        return {"twice": tree["a"][0] * scale, "same": (flag, nothing, 3)}

    graph = assert_replays(function, ({"a": [X]}, "double", None), ({"a": [OTHER]}, "double", None))
    assert graph.outputs[1:] == ["double", None, 3] or graph.outputs[:3] == ["double", None, 3]


def test_keys_are_recorded_with_what_is_drawn_from_them():
    def function(x, key):
        one, other = key.split()
        noise = dg.random.normal(one, x.shape) + dg.random.uniform(other.fold_in("a").fold_in(3))
        rows = dg.random.permutation(key, len(x))
        return (x + noise)[rows] * dg.random.bernoulli(key, x.shape, 0.5)

    first = trace(function, (X, dg.Key(1)))[0]
    assert "Key" not in repr(first.calls)  # no key of this run is left in it
    assert_replays(function, (X, dg.Key(1)), (OTHER, dg.Key(2)))


def test_views_of_one_record_read_the_values_of_another_run():
    graph, _ = trace(lambda x: (np.max(x), x[0]), (X,))
    largest, row = replay(graph, (OTHER,))
    assert largest == np.max(OTHER)
    np.testing.assert_array_equal(row, OTHER[0])


def test_a_custom_derivative_is_one_call_whatever_it_does_inside():
    @dg.custom_jvp
    def branching(z):
        return z * 2 if np.sum(z) > 0 else z * 3

    graph = assert_replays(lambda x: branching(x), (np.ones(3),), (-np.ones(3),))
    assert len(graph.calls) == 1 and graph.calls[0].function is branching


def test_refs_and_fill_reach_into_containers_and_slices():
    template = ((Ref(0), [Ref(1)]), {"n": slice(None, Ref(2), 3)}, "text")
    assert refs(template) == [0, 1, 2]
    assert fill(template, ["a", "b", 5]) == (("a", ["b"]), {"n": slice(None, 5, 3)}, "text")


# --- what is refused


CLOSED = np.arange(4.0)


def test_an_array_from_elsewhere_is_refused_with_its_line():
    def function(x):
        y = x * 2
        return y + CLOSED

    line = function.__code__.co_firstlineno + 2
    with pytest.raises(Untraceable) as caught:
        trace(function, (X,))
    assert "an array of shape (4,) and dtype float64" in str(caught.value)
    assert str(caught.value).endswith(f"at {__file__}:{line}")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if np.sum(x) > 0 else -x,
        lambda x: x * (2 if (x > 0).any() else 1),
        lambda x: np.sum(x) and x,
        lambda x: max(x[0, 0], x[0, 1]) * x,
        lambda x: x[0, 0] in x,
    ],
)
def test_a_branch_on_a_value_is_refused_with_its_line(function):
    line = function.__code__.co_firstlineno
    with pytest.raises(Untraceable, match=rf"decides by a value, at .*test_trace.py:{line}$"):
        trace(function, (X,))


def test_a_refusal_that_the_function_catches_is_one():
    def function(x):
        try:
            return x if np.sum(x) > 0 else -x
        except RuntimeError:
            return 5 * x

    with pytest.raises(Untraceable, match="decides by a value"):
        trace(function, (X,))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * int(x[0, 0]),
        lambda x: x * float(x[0, 0]),
        lambda x: x * x[0, 0].item(),
        lambda x: np.asarray(x),
        lambda x: np.eye(9)[np.argmax(x)],
        lambda x: CLOSED.__setitem__(slice(None), x[0]) or x,
        lambda x: x.tolist(),
        lambda x: [x for _ in range(np.argmax(x))],
    ],
)
def test_values_do_not_become_plain_numbers(function):
    with pytest.raises((Untraceable, dg.DualgradError, TypeError)):
        trace(function, (X,))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.add(x, 1, out=np.zeros((6, 4))),
        lambda x: np.copyto(np.zeros((6, 4)), x),
        lambda x: x.__setitem__(0, 1.0),
        lambda x: x.__iadd__(1),
        lambda x: x + np.random.default_rng(0).normal(size=4),
        lambda x: x + dg.random.normal(dg.Key(0), (4,)),
        lambda x: x * dg.random.normal(dg.Key(0)),
        lambda x: {1, 2}.union(np.stack([x, CLOSED + np.zeros((6, 4))])),
    ],
)
def test_writing_and_foreign_draws_are_refused(function):
    with pytest.raises(dg.DualgradError):
        trace(function, (X,))


def test_a_key_does_not_give_away_its_words():
    with pytest.raises(Untraceable, match="key.words is read"):
        trace(lambda x, key: x * int(key.words[0]), (X, dg.Key(3)))


def test_the_error_of_the_function_itself_passes():
    with pytest.raises(ZeroDivisionError):
        trace(lambda x: x * (1 // 0), (X,))


# --- nothing is left behind


@pytest.mark.parametrize(
    "function, error",
    [
        (lambda x: x * 2, None),
        (lambda x: x + CLOSED, Untraceable),
        (lambda x: x[10], IndexError),
        (lambda x: (_ for _ in ()).throw(KeyboardInterrupt), KeyboardInterrupt),
    ],
)
def test_no_record_stays_open(function, error):
    kept = []

    def keeping(x):
        kept.append(x)
        return function(x)

    if error is None:
        trace(keeping, (X,))
    else:
        with pytest.raises(error):
            trace(keeping, (X,))
    assert TRACES == []
    assert not kept[0].level.open
    with pytest.raises(dg.LevelError, match="a plan"):
        kept[0].level.check("x")


def test_a_trace_may_run_inside_a_transform():
    def tracing(x):
        trace(lambda y: y * 2, (X,))
        return np.sum(x**2)

    np.testing.assert_allclose(dg.gradient(tracing)(X), 2 * X)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: dg.jvp(lambda v: np.sum(v) if np.sum(v) > 0 else v[0, 0], (x,), (x,))[0],
        lambda x: dg.jvp(lambda v: v[0, np.argmax(v[0])], (x,), (x,))[1],
        lambda x: dg.jvp(lambda v: np.sign(np.sum(v)) * v, (x,), (x,))[1],
        lambda x: dg.gradient(lambda v: np.sum(v**2))(x),
    ],
)
def test_a_transform_of_recorded_values_is_right_or_refused(function):
    try:
        assert_replays(function, (X,), (-OTHER,))
    except Untraceable as refused:
        assert "at " in str(refused)


def test_threads_trace_at_once_and_record_their_own_calls_alone():
    def function(n):
        def run(x):
            for _ in range(n):
                x = x * 1.5
                time.sleep(0.001)
            return x

        return run

    found = {}

    def work(n):
        found[n] = [len(trace(function(n), (X,))[0].calls) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(n,)) for n in (3, 7, 11)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == {n: [n] * 3 for n in (3, 7, 11)}
    assert TRACES == []


def test_other_code_runs_as_ever_while_another_thread_traces():
    started, go_on = threading.Event(), threading.Event()

    def slow(x):
        started.set()
        go_on.wait(10)
        return x * 2

    other = threading.Thread(target=trace, args=(slow, (X,)))
    other.start()
    started.wait(10)
    try:
        np.testing.assert_allclose(dg.gradient(lambda x: np.sum(x**3))(X), 3 * X**2)
        assert bool(dg.dual(2.0, 1.0) > 1)
        np.testing.assert_array_equal(dg.primal(dg.dual(X, X)), X)
    finally:
        go_on.set()
        other.join()
