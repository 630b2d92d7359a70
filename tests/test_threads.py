"""The threads of compiled programs: their number changes no bit, and they stand in no one's way."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from plan_case import assert_same_bits, explained, need_plans, normal

import dualgrad as dg
from dualgrad.kernels import threads

need_plans()

RANK1 = {"structure": "rank1", "directions": 8}
IMAGES = np.random.default_rng(0).normal(size=(8, 16, 16, 16)).astype(np.float32)


@pytest.fixture(autouse=True)
def as_before():
    number = threads.num_threads()
    yield
    threads.set_num_threads(number)


def of_rows(model, x, y):
    return dg.nn.cross_entropy(model(x), y)


def of_images(p, x, y):
    h = dg.nn.relu(dg.nn.conv2d(x, p["c"], padding=1) + p["b"])
    h = dg.nn.max_pool2d(dg.nn.relu(dg.nn.conv2d(h, p["c2"], padding=1)), 2)
    return dg.nn.cross_entropy(h.reshape(len(x), -1) @ p["w"], y)


def large(kind):
    """Return (loss, params, batch) of a step that is shared among threads."""
    if kind == "rows":
        model = dg.nn.MLP([128, 300, 200, 10], key=dg.Key(1))
        return of_rows, model, (normal(1, 70, 128, dtype=np.float32), np.arange(70) % 10)
    params = {"c": normal(1, 3, 3, 16, 32, dtype=np.float32) / 9, "b": np.zeros(32, np.float32),
              "c2": normal(2, 3, 3, 32, 32, dtype=np.float32) / 9,
              "w": normal(3, 2048, 10, dtype=np.float32) / 99}  # fmt: skip
    return of_images, params, (IMAGES, np.arange(8))


def train(kind, options, key=5, count=4):
    loss, params, given = large(kind)
    step = dg.training_step(loss, dg.optim.sgd(0.001), **options)
    state, values = step.init(params, dg.Key(key)), []
    for _ in range(count):
        values.append(step.value(state, *given))
        state, value = step(state, *given)
        values.append(value)
    return values, state.params


@pytest.mark.parametrize("kind", ["rows", "images"])
@pytest.mark.parametrize("precision", ["fast", "exact"])
@pytest.mark.parametrize("options", [{"directions": 2}, RANK1], ids=str)
def test_the_number_of_threads_changes_no_bit(kind, options, precision, monkeypatch):
    helped = []
    monkeypatch.setattr(threads, "help_with", lambda *given, f=threads.help_with: (
        helped.append(threads.num_threads()), f(*given)))  # fmt: skip
    threads.set_num_threads(1)
    values, params = train(kind, {"precision": precision, **options})
    assert helped == []
    for number in (2, 3, 7):
        threads.set_num_threads(number)
        others, found = train(kind, {"precision": precision, **options})
        assert set(helped) == {number}  # so the step was shared
        helped.clear()
        assert others == values
        assert_same_bits(found, params)


@pytest.mark.parametrize("kind", ["rows", "images"])
def test_these_steps_are_plans(kind):
    loss, params, given = large(kind)
    step = dg.training_step(loss, dg.optim.sgd(0.001))
    assert explained(step, step.init(params, dg.Key(5)), *given).count("fused ") >= 3


def test_python_threads_share_the_helpers():
    threads.set_num_threads(3)
    alone = [train(kind, RANK1, key) for key, kind in enumerate(["rows", "images"] * 2)]
    found = {}

    def work(key, kind):
        found[key] = train(kind, RANK1, key)

    workers = [
        threading.Thread(target=work, args=given) for given in enumerate(["rows", "images"] * 2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for key, (values, params) in enumerate(alone):
        assert found[key][0] == values
        assert_same_bits(found[key][1], params)


def test_the_number_may_change_between_steps():
    values, params = train("rows", RANK1)
    loss, start, given = large("rows")
    step = dg.training_step(loss, dg.optim.sgd(0.001), **RANK1)
    state = step.init(start, dg.Key(5))
    for number in (1, 4, 2, 3):
        threads.set_num_threads(number)
        state, value = step(state, *given)
    assert value == values[-1]
    assert_same_bits(state.params, params)


@pytest.mark.parametrize("n", [0, -1, 2.5, "many", None, float("nan"), "1.0"])
def test_a_number_of_threads_that_is_none(n):
    with pytest.raises(ValueError, match="give the number of threads, an integer >= 1"):
        threads.set_num_threads(n)


@pytest.mark.parametrize("n", [1, 3, "2", np.int64(2)])
def test_a_number_of_threads(n):
    threads.set_num_threads(n)
    assert threads.num_threads() == int(n)


# --- processes

TRAIN = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np
import test_threads
from dualgrad.kernels import threads

def report():
    values, params = test_threads.train("rows", test_threads.RANK1)
    import dualgrad as dg
    total = [float(np.sum(w.astype(np.float64))) for w in dg.tree.leaves(params)
             if isinstance(w, np.ndarray)]
    print([float(v).hex() for v in values], [t.hex() for t in total], flush=True)
"""


def python(code, **variables):
    """Run code in a new process; return (status, output, errors)."""
    tests = os.path.dirname(os.path.abspath(__file__))
    environment = {k: v for k, v in os.environ.items() if k != threads.VARIABLE} | variables
    paths = [os.path.dirname(tests), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    done = subprocess.run(
        [sys.executable, "-c", TRAIN.format(tests=tests) + textwrap.dedent(code)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def bits():
    """What a new process reports with two threads."""
    status, output, errors = python("report()", DUALGRAD_NUM_THREADS="2")
    assert status == 0, errors
    return output


def test_the_variables_of_other_libraries_change_nothing(bits):
    status, output, errors = python(
        "threads.set_num_threads(3)\nreport()", OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1"
    )
    assert (status, output) == (0, bits), errors


def test_the_variable_is_read_at_the_first_use(bits):
    code = """
    import os
    os.environ["DUALGRAD_NUM_THREADS"] = "3"
    report()
    os.environ["DUALGRAD_NUM_THREADS"] = "5"
    assert threads.num_threads() == 3 and threads._helpers == 2
    """
    status, output, errors = python(code)
    assert (status, output) == (0, bits), errors


@pytest.mark.parametrize("nonsense", ["many", "0", "-2", "1.5"])
def test_a_variable_that_is_no_number_is_an_error_that_says_so(nonsense):
    code = """
    try:
        report()
    except ValueError as error:
        print(error)
    """
    status, output, errors = python(code, DUALGRAD_NUM_THREADS=nonsense)
    assert status == 0, errors
    assert f"DUALGRAD_NUM_THREADS={nonsense!r}; give the number of threads" in output


def test_an_empty_variable_is_none(bits):
    code = "assert threads.num_threads() == threads._available()"
    status, _, errors = python(code, DUALGRAD_NUM_THREADS=" ")
    assert status == 0, errors


def test_more_threads_than_kernels_use_are_not_taken(capsys, monkeypatch):
    monkeypatch.setattr(threads, "_said", set())
    for _ in range(2):
        threads.set_num_threads(100_000)
    assert threads.num_threads() == threads.MOST
    assert capsys.readouterr().err.count("100000 threads are more than kernels use") == 1


def test_where_no_thread_can_be_started_those_there_are_do_the_work(bits):
    code = """
    import threading
    start = threading.Thread.start
    def limited(self, started=[]):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)
    threading.Thread.start = limited
    threads.set_num_threads(64)
    report()
    assert threads.num_threads() == 3 and threads._helpers == 2
    """
    status, output, errors = python(code)
    assert (status, output) == (0, bits), errors
    assert errors.count("kernels run on 3 threads, and not on 64") == 1


def test_the_command_line_says_what_is_wrong_in_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "dualgrad.kernels", "info"], capture_output=True, text=True,
        env={**os.environ, threads.VARIABLE: "many"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "DUALGRAD_NUM_THREADS='many'" in done.stderr


NOTICE = """
import sys
from dualgrad.kernels import jit
from dualgrad.kernels.fused import program
import numba.core.caching as caching
if sys.argv[1:] == ["nowhere"]:
    for locator in caching.CacheImpl._locator_classes:
        locator.from_function = classmethod(lambda cls, function, file: None)
import numpy as np

def fused(x):
    return x + 1
fused.__module__ = "dualgrad.kernels.fused.example"
jit.jit(fused, entry=True)(np.float64(1))
"""


@pytest.mark.parametrize("nowhere", [False, True])
def test_the_notice_says_where_kernels_are_kept(nowhere, tmp_path):
    script = tmp_path / "notice.py"
    script.write_text(NOTICE)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(
        [sys.executable, str(script), *["nowhere"] * nowhere], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": root, "NUMBA_CACHE_DIR": str(tmp_path / "kept")},
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "compiling kernels for this CPU" in done.stderr
    if nowhere:
        assert "as in every process" in done.stderr
        assert "Set the variable NUMBA_CACHE_DIR" in done.stderr
    else:
        assert f"kept in {tmp_path / 'kept'}" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_runs_on_one_thread_and_says_so_once(bits):
    code = """
    import os, warnings
    warnings.simplefilter("ignore")  # newer Pythons warn of forking beside threads
    threads.set_num_threads(2)
    report()
    child = os.fork()
    if child == 0:
        report()
        report()
        assert threads.num_threads() == 1
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0
    report()
    assert threads.num_threads() == 2
    """
    status, output, errors = python(code)
    assert (status, output) == (0, bits * 4), errors
    assert errors.count("this process was forked") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_state_goes_on_in_a_forked_child(bits):
    code = """
    import os, warnings
    warnings.simplefilter("ignore")
    import dualgrad as dg
    threads.set_num_threads(2)
    loss, start, given = test_threads.large("rows")
    step = dg.training_step(loss, dg.optim.sgd(0.001), **test_threads.RANK1)
    state = step.init(start, dg.Key(5))
    for _ in range(2):
        state, _ = step(state, *given)
    child = os.fork()
    for _ in range(2):
        state, value = step(state, *given)
    os.write(1, f"{float(value).hex()} ".encode())  # whole, beside the other process
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """
    status, output, errors = python(code)
    first, second = output.split()
    assert (status, first) == (0, second), errors
    assert repr(first) in bits


def test_helpers_do_not_keep_a_process_alive():
    for end in ("", "raise SystemExit(3)", "import os; os.kill(os.getpid(), 2)"):
        status, output, errors = python(f"threads.set_num_threads(4)\nreport()\n{end}")
        assert output and status in (0, 3, -2, 130, 1), errors
        assert "Fatal" not in errors
