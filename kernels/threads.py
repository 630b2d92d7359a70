"""The threads that run compiled programs: how many, and the helpers that join in.

A program (fused/program.py) hands out its chunks by an atomic counter, so it is finished by
whichever threads come: the caller alone if no helper is awake in time. Helpers are ordinary Python
threads that wait in a queue and run without the GIL; no other pool is involved, so nothing depends
on the variables of OpenMP, BLAS or numba, and calls from several Python threads share the helpers.
Results do not depend on how many threads there are.
"""

import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

VARIABLE = "DUALGRAD_NUM_THREADS"

MOST = 256  # threads: more than any machine these stages were made for can use

_lock = threading.Lock()
_tasks: Any = queue.SimpleQueue()
_helpers = 0  # threads that wait for tasks in this process
_number: int | None = None  # None: not decided yet
_forked = False
forks = 0  # of this process since it was started: what threads were doing at one is lost


def _available() -> int:
    """Return how many CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _whole(value: Any, where: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1 or number != value and str(value).strip() != str(number):
        raise ValueError(f"{where}={value!r}; give the number of threads, an integer >= 1.")
    return number


def num_threads() -> int:
    """Return how many threads the compiled kernels use.

    Set by `set_num_threads`; else DUALGRAD_NUM_THREADS, read at the first use; else, also where it
    is empty, one a CPU that the process may run on; MOST at most. A forked child has no helpers and
    runs on one.

    Raises:
        ValueError: DUALGRAD_NUM_THREADS is no positive integer.
    """
    global _number
    if _forked:
        _say(
            "this process was forked, and threads do not survive a fork: its kernels run on one "
            "thread. Start processes by spawn to use more."
        )
        return 1
    if _number is None:
        given = os.environ.get(VARIABLE, "").strip()
        _number = _capped(_whole(given, VARIABLE) if given else _available())
    return _number


def set_num_threads(n: int) -> None:
    """Let the compiled kernels use n threads from now on, MOST at most.

    Raises:
        ValueError: n is no integer >= 1.
    """
    global _number
    _number = _capped(_whole(n, "set_num_threads: n"))


def _capped(number: int) -> int:
    if number > MOST:
        _say(f"{number} threads are more than kernels use: {MOST} are taken.")
    return min(number, MOST)


def help_with(work: Callable, *args: Any) -> None:
    """Let the other threads call work(*args) too, as soon as they can; do not wait for them.

    work must do nothing when it comes too late.
    """
    others = num_threads() - 1
    if others > _helpers:
        _hire(others)
    for _ in range(min(others, _helpers)):
        _tasks.put((work, args))


def _hire(wanted: int) -> None:
    """Start helpers until there are so many, or until the system starts no more."""
    global _helpers, _number
    with _lock:
        while _helpers < wanted:
            helper = threading.Thread(target=_serve, args=(_tasks,), name="dualgrad", daemon=True)
            try:
                helper.start()
            except RuntimeError as error:
                _number = _helpers + 1
                _say(f"{error}: kernels run on {_number} threads, and not on {wanted + 1}.")
                return
            _helpers += 1


def _serve(tasks: Any) -> None:
    while True:
        work, args = tasks.get()
        work(*args)
        del work, args  # an idle helper keeps nothing alive


_said: set[str] = set()


def _say(message: str) -> None:
    """Print a line to stderr, once in this process."""
    if message not in _said:
        _said.add(message)
        print(f"dualgrad: {message}", file=sys.stderr)


def _after_fork() -> None:
    global _lock, _tasks, _helpers, _forked, forks
    forks += 1
    _lock, _tasks = threading.Lock(), queue.SimpleQueue()
    _forked = _forked or _helpers > 0
    _helpers = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
