"""Ctrl-C at any moment of a planned step: its state is as before, or says that it is used."""

import gc
import signal
import sys
import threading

import numpy as np
import pytest
from plan_case import (
    KEY,
    assert_close,
    batches,
    cross_entropy,
    loss,
    need_plans,
    normal,
    two_layers,
)

import dualgrad as dg
from dualgrad.kernels import threads
from dualgrad.plan import replay

need_plans()

P = {**two_layers(), "v1": normal(9, 4, 5), "c": normal(10, 5), "v2": normal(11, 5, 2)}
GIVEN = batches(12)
RANK1 = {"structure": "rank1", "directions": 2}


def mixed(p, x, y):
    """A loss with plain calls between its stages, and a leaf that no stage keeps."""
    other = np.tanh(x @ p["v1"] + p["c"]) @ p["v2"]
    return loss(p, x, y) + 0.1 * np.mean(other**2) + 0.01 * np.sum(p["c"] ** 2)


def ends_in_a_stage(p, x, y):
    """The same, with the value computed by a stage."""
    h = np.tanh(x @ p["w1"] + p["b1"]) * p["s"]
    return cross_entropy(h @ p["w2"] + p["b2"], y)


LOSSES = {
    "fused": (loss, two_layers()),
    "mixed": (mixed, P),
    "ends in a stage": (ends_in_a_stage, {**two_layers(), "s": normal(7, 8)}),
}


class Reference:
    """The parameters after each step of the eager run, computed as far as they are asked for."""

    def __init__(self, function, params, options):
        self.step = dg.training_step(function, dg.optim.sgd(0.05), plan=False, **options)
        self.state = self.step.init(params, KEY)
        self.params = [self.state.params]

    def __getitem__(self, number):
        while len(self.params) <= number:
            given = GIVEN[self.state.step % len(GIVEN)]
            self.state, _ = self.step(self.state, *given)
            self.params.append(self.state.params)
        return self.params[number]


def is_used(state):
    try:
        return state.step < 0
    except dg.LevelError as error:
        assert "went into a later step" in str(error)
        return True


def make(function, options):
    return dg.training_step(function, dg.optim.sgd(0.05), precision="exact", **options)


class Interrupts:
    """Real signals that raise KeyboardInterrupt while armed."""

    def __init__(self):
        self.armed = False

    def handle(self, number, frame):
        if self.armed:
            raise KeyboardInterrupt

    def during(self, seconds, function):
        """Call function, interrupted after some seconds; return (result or None, whether)."""
        result = None
        try:
            try:
                self.armed = True
                signal.setitimer(signal.ITIMER_REAL, seconds)
                result = function()
            finally:
                self.armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            self.armed = False
            return result, True
        return result, False


@pytest.fixture
def interrupts():
    if (
        not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
    ):
        pytest.skip("needs signal.setitimer and the main thread")
    made = Interrupts()
    before = signal.signal(signal.SIGALRM, made.handle)
    gc.disable()  # hypothesis is called back by the collector: what is raised there goes nowhere
    yield made
    gc.enable()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=[1, 3])
def helped(request, monkeypatch):
    """Run on one thread, or let the helpers join in even the smallest step."""
    number = threads.num_threads()
    threads.set_num_threads(request.param)
    if request.param > 1:
        monkeypatch.setattr(replay, "PARALLEL", 0)
    yield
    threads.set_num_threads(number)


# Python cannot raise in callbacks and finalisers: it warns there, and the step goes on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("options", [{}, RANK1], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_signals_at_random_moments(name, options, helped, interrupts):
    function, params = LOSSES[name]
    reference = Reference(function, params, options)
    step, draw = make(function, options), np.random.default_rng(0)
    state = step.init(params, KEY)
    for i in range(3):
        state, _ = step(state, *GIVEN[i])
    caught, tried, longest = 0, 0, 400e-6
    while caught < 150 and tried < 3000:
        given = GIVEN[state.step % len(GIVEN)]
        result, interrupted = interrupts.during(
            draw.uniform(1e-6, longest), lambda s=state, g=given: step(s, *g)
        )
        caught, tried = caught + interrupted, tried + 1
        # Machines differ in speed: the moments gather where about half of them are in a step.
        longest = longest * 1.02 if interrupted else max(longest / 1.02, 4e-6)
        if result is not None:
            state = result[0]
        elif is_used(state):
            state = step.init(reference[12], KEY).with_state_tree(
                {"params": reference[12], "optimiser": {"step": np.array(12)}, "key": KEY,
                 "step": 12, "model_state": None})  # fmt: skip
        if interrupted or tried % 50 == 0:
            assert_close(state.params, reference[state.step], 1e-9)
    assert caught >= 20


FILES = ("plan/", "training.py", "fused/program.py", "threads.py")


class AtOpcode:
    """Raise KeyboardInterrupt before opcode number `at` of the library's Python code."""

    def __init__(self, at):
        self.at, self.count = at, 0

    def enter(self, frame, event, argument):
        if not any(part in frame.f_code.co_filename for part in FILES):
            return None
        frame.f_trace_opcodes = True
        return self.visit

    def visit(self, frame, event, argument):
        if event == "opcode":
            self.count += 1
            if self.count == self.at:
                raise KeyboardInterrupt
        return self.visit

    def run(self, function):
        """Return (the result or None, whether it was interrupted)."""
        before = sys.gettrace()
        sys.settrace(self.enter)
        try:
            return function(), False
        except KeyboardInterrupt:
            return None, True
        finally:
            sys.settrace(before)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("action", ["first step", "step", "read", "value", "other batch"])
def test_an_interrupt_before_each_opcode(name, action):
    """Also of the calls that make a plan, or pack parameters; a sample of the opcodes."""
    function, params = LOSSES[name]
    reference = Reference(function, params, RANK1)
    step, smaller = make(function, RANK1), (GIVEN[3][0][:4], GIVEN[3][1][:4])

    def start():
        state = step.init(params, KEY)
        for i in range(0 if action == "first step" else 3):
            state, _ = step(state, *GIVEN[i])
        return state

    actions = {
        "read": lambda state: state.params,
        "value": lambda state: step.value(state, *GIVEN[3]),
        "other batch": lambda state: step.value(state, *smaller),
    }
    at, used = 1, 0
    while True:
        state = start()
        act = actions.get(action, lambda s: step(s, *GIVEN[s.step]))
        result, interrupted = AtOpcode(at).run(lambda s=state, a=act: a(s))
        if not interrupted:
            break
        if is_used(state):
            used += 1
        else:
            if at % 2:
                assert_close(state.params, reference[state.step], 1e-9)
            for number in range(state.step, 5):
                state, _ = step(state, *GIVEN[number])
            assert_close(state.params, reference[5], 1e-9)
        at += 1 + at // 60
    assert at > 20 and used <= 4
    assert result is not None
