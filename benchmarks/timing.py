"""Time contestants in turn on one machine, and show the figures: what the scripts here share.

A round calls every contestant once, so that a slow moment of a shared machine meets them all. Every
contestant is treated the same: the process sleeps for 5 ms, until the threads that the contestant
before left spinning for work have gone to sleep (libgomp's spin for up to 2 ms and would steal a
core); then one call that is not timed brings its own weights into the caches and wakes its own
threads; then the timed call, or for calls of microseconds several, until a millisecond is over.

A view is one way to run: all cores, or one thread pinned to one core, in a process of its own whose
thread pools are told so before they start.
"""

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

CORE = "DUALGRAD_BENCHMARK_CORE"  # set in the process of the pinned view
POOLS = ("OMP", "MKL", "OPENBLAS", "NUMBA", "DUALGRAD")
XLA = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
ONE_THREAD = {f"{pool}_NUM_THREADS": "1" for pool in POOLS} | {"NPROC": "1", "XLA_FLAGS": XLA}
SETTLE = 5e-3  # seconds; a product by OpenBLAS right after one by torch is slowed for up to 2e-3
BLOCK = 1e-3  # seconds that one timing takes at least
INSTALL = "python -m pip install"  # of a package by its own name, in a clone and elsewhere
PEERS = ("torch", "compile", "jax")
VIEWS = {"all_cores": "all cores", "one_thread": "one thread, one core"}

PINNED = CORE in os.environ
if PINNED and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {int(os.environ[CORE])})

Calls = dict[str, Callable[[], Any]]
Times = dict[str, list[float]]


# --- time


def interleaved(calls: Calls, rounds: int, seconds: float | None = None) -> Times:
    """Return the seconds that a call of each contestant takes, one entry a round.

    Args:
        calls: contestants by name; each waits until what it started is finished.
        rounds: how often each is timed; at least 3 times.
        seconds: no further round begins after so long.
    """
    repeats = {}
    for name, call in calls.items():
        call()  # compiles, fills buffers
        repeats[name] = max(1, min(200, int(BLOCK / seconds_of(call, 1))))
    times: Times = {name: [] for name in calls}
    began = time.perf_counter()
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for number in range(max(3, rounds)):
            if seconds and number >= 3 and time.perf_counter() - began > seconds:
                break
            for name, call in calls.items():
                time.sleep(SETTLE)
                call()
                times[name].append(seconds_of(call, repeats[name]))
    finally:
        if collecting:
            gc.enable()
    return times


def seconds_of(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def summary(times: Times) -> dict[str, dict[str, float]]:
    """Return for each contestant minimum and median in seconds, and spread.

    The spread is the distance between the quartiles over the median: 0.05 is a quiet machine.
    """
    found = {}
    for name, taken in times.items():
        low, middle, high = statistics.quantiles(taken, n=4)
        figures = {"minimum": min(taken), "median": middle, "spread": (high - low) / middle}
        found[name] = figures | {"rounds": len(taken)}
    return found


# --- views


def views(options: argparse.Namespace, measure: Callable[[], Any]) -> dict[str, Any]:
    """Return what measure() gives here, by the view's name, and with --pinned in the other too."""
    found = {"one_thread" if PINNED else "all_cores": measure()}
    return found | pinned()["views"] if options.pinned and not PINNED else found


def pinned() -> dict[str, Any]:
    """Return what this script, run again with one thread on one core, writes as JSON."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
    print(f"{VIEWS['one_thread']} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pinned.json"
        subprocess.run(
            [sys.executable, *sys.argv, "--json", str(path)],
            env={**os.environ, **ONE_THREAD, CORE: str(max(cores))},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return json.loads(path.read_text())


# --- what the scripts say


def machine() -> dict[str, Any]:
    """Return the processor, its vector units, the cores to run on, and versions."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(
        (part.strip() for part in line.split(":", 1)) for line in text.splitlines() if ":" in line
    )
    flags = fields.get("flags", "").split()
    names = ("numpy", "numba", "torch", "jax")
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": fields.get("model name", platform.processor() or platform.machine()),
        "family_model": f"{fields.get('cpu family', '?')}/{fields.get('model', '?')}",
        "avx2": "avx2" in flags,
        "avx512f": "avx512f" in flags,
        "cores": cores,
        "python": platform.python_version(),
        "versions": {name: installed[name] for name in names if name in installed},
        "load": os.getloadavg()[0],
    }


def machine_line() -> str:
    found = machine()
    vectors = "AVX-512" if found["avx512f"] else "AVX2" if found["avx2"] else "no AVX2"
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (
        f"{found['processor']} (family/model {found['family_model']}, {vectors}), "
        f"{found['cores']} cores, load {found['load']:.1f}; Python {found['python']}, {versions}"
    )


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, without the list of all options."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help lists the options)\n")


def whole(text: str) -> int:
    """Return text as an integer of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def wholes(text: str) -> list[int]:
    """Return text such as "1,4,16" as integers of at least 1, for argparse."""
    return [whole(part) for part in text.split(",")]


def positive(text: str) -> float:
    """Return text as a finite number above zero, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above zero")
    return number


def peer_names(text: str) -> str:
    """Return text, names of PEERS with commas or none, for argparse."""
    if unknown := sorted(set(text.split(",")) - {*PEERS, "none", ""}):
        known = ", ".join(PEERS)
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {known}, none")
    return text


def output(text: str) -> Path:
    """Return text as the path of a file that can be written, for argparse."""
    path = Path(text).resolve()
    new = not path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: {error.strerror}") from error
    if new:
        path.unlink()
    return path


def existing(text: str) -> Path:
    """Return text as the path of a file that is there, for argparse."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return Path(text)


def picture(text: str) -> Path:
    """Return text as the path of a PNG that can be written and drawn, for argparse."""
    if not text.endswith(".png"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in '.png'")
    if importlib.util.find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError(f"matplotlib is not installed: {INSTALL} matplotlib")
    return output(text)


def parser(doc: str | None, *, rounds: int | None = None, plot: bool = True, pinned: bool = True,
           peers: bool = True) -> argparse.ArgumentParser:  # fmt: skip
    """Return a parser with the options that many scripts have; rounds None: without --rounds."""
    made = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds is not None:
        made.add_argument("--rounds", type=whole, default=rounds,
                          help="times of each contestant, at least 3 (default: %(default)s)"
                          )  # fmt: skip
        made.add_argument("--seconds", type=positive, default=120.0, metavar="S",
                          help="begin no round after so long (default: %(default)s)")  # fmt: skip
    if peers:
        made.add_argument("--peers", type=peer_names, default=",".join(PEERS), metavar="NAMES",
                          help="of torch, compile (torch.compile) and jax, or none; what is not "
                          "installed is left out (default: %(default)s)")  # fmt: skip
    if pinned:
        made.add_argument("--pinned", action="store_true",
                          help="run again on one thread and core, and show both views")  # fmt: skip
    made.add_argument("--json", type=output, metavar="PATH", help="write all figures there")
    if plot:
        made.add_argument("--plot", type=picture, metavar="PATH", help="draw a PNG (matplotlib)")
    return made


def table(head: list[str], rows: list[list[Any]], widths: int = 11) -> str:
    """Return an aligned table: the first column to the left, numbers with three digits or more."""
    text = [[cell(x) for x in row] for row in [head, *rows]]
    first = max(len(row[0]) for row in text)
    return "\n".join(
        row[0].ljust(first) + "".join(f" {x:>{widths}}" for x in row[1:]) for row in text
    )


def cell(x: Any) -> str:
    """Return what a table shows of x; whole numbers between 1,000 and 10,000,000, not 1e+03."""
    if x is None:
        return "-"
    if not isinstance(x, float):
        return str(x)
    return f"{x:,.0f}" if 999.5 <= abs(x) < 1e7 else f"{x:.3g}"


def write(options: argparse.Namespace, content: dict[str, Any]) -> None:
    """Write content, options and machine as JSON, if --json asks for it."""
    if options.json:
        chosen = {name: x for name, x in vars(options).items() if not isinstance(x, Path)}
        whole = {"machine": machine(), "options": chosen, **content}
        options.json.write_text(json.dumps(whole, indent=1) + "\n")


def run(main: Callable[[], None]) -> None:
    """Call the main function of a script that keeps cells; Ctrl-C ends it in one line, code 130."""
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; finished cells are in the file of --cells", file=sys.stderr)
        sys.exit(130)


def figure(path: Path | None, draw: Callable[[Any], None], size: tuple[float, float]) -> None:
    """Write the PNG that draw(figure) makes, if a path is given and this is not a pinned child."""
    if path is None or PINNED:
        return
    from matplotlib.figure import Figure

    made = Figure(figsize=size, dpi=130, layout="constrained")
    draw(made)
    made.savefig(path, format="png")
    print(f"picture: {path}")
