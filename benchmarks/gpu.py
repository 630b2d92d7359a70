"""Prove correctness and speed on this machine's NVIDIA GPU: one command, under eight minutes.

    python benchmarks/gpu.py [--quick] [--only WORDS] [--budget SECONDS]

It runs the tests of the GPU backend, takes the first 20 steps of every trainer on CPU and GPU,
measures what the device's own libraries reach in products and copies, and times the forward pass,
forward-gradient steps (rank-1 and dense directions, one and 16) and backprop steps of eight
networks beside PyTorch (eager, captured as a CUDA graph, compiled) and JAX, where those are
installed with CUDA. Nothing is downloaded. What does not fit into the budget, runs out of memory or
fails in any other way is a row with its reason. One precision a row, the same on both sides.

The tables are printed, and written beside all figures to benchmarks/results/. gpu_contestants.py
says how contestants are timed. To see that all of it runs, without a GPU and in a minute:

    python benchmarks/gpu.py --device cpu --tiny
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import gpu_cases
import gpu_child
import gpu_report
import gpu_trainers
import timing

from dualgrad.kernels import cuda

HERE = Path(__file__).resolve().parent
BUDGET, QUICK = 450.0, 150.0  # seconds
GRACE = 15.0  # seconds that a job may outlast its time by
CEILINGS = gpu_child.CEILINGS
TESTS = "(cuda or cupy or gpu or device) and not compile and not benchmark and not cuda_host"
MOST_WORKERS = 8  # processes that run the tests
NOTHING_CHOSEN = 5  # pytest's exit code where the pattern fits no test of its files
SHARES = {"tests": 20.0, "trainers": 12.0}
# Cases timed in that precision too: there products take the time.
TF32 = tuple(name for name, case in gpu_cases.CASES.items() if case.compute_bound)
QUICKLY = ("logreg-64", "mlp-64", "wide-4096", "cnn-64")
STEPS = 20


class Plan:
    """What there is to do, and how the time is shared: what a part leaves goes to the rest."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.end = time.monotonic() + options.budget
        words = options.only.split(",")
        cases = QUICKLY if options.quick else tuple(gpu_cases.CASES)

        def wanted(name: str) -> bool:
            return any(word.strip() in name for word in words)

        def chosen(names: Any) -> list[str]:
            return [name for name in names if wanted(name)]

        self.jobs = {"float32": chosen((CEILINGS, *cases))}
        if options.tf32 and not options.quick:
            self.jobs["tf32"] = chosen((CEILINGS, *TF32))
        if self.jobs["float32"]:
            self.jobs["float32"].insert(0, gpu_child.KERNELS)
        self.shares = {name: SHARES[name] for name in chosen(SHARES)}
        self.shares |= {
            precision: sum(map(gpu_child.share, jobs))
            for precision, jobs in self.jobs.items()
            if jobs
        }

    def seconds(self, part: str) -> float:
        """Return the time of a part, which begins now; the parts after it have the rest."""
        names = list(self.shares)
        ahead = sum(self.shares[name] for name in names[names.index(part) :])
        return max(0.0, self.end - time.monotonic()) * self.shares[part] / ahead


# --- tests and trainers


def tests(seconds: float, pattern: str) -> dict[str, Any]:
    """Run the tests whose name fits a pattern, and return how many passed, failed and so on.

    Several processes share their files: at a first run most of the time goes into compiling
    kernels, CuPy's own too, which one process does one by one.
    """
    files = sorted(f"tests/{path.name}" for path in (HERE.parent / "tests").glob("test_*.py"))
    workers = max(1, min(MOST_WORKERS, (os.cpu_count() or 1) // 2, len(files)))
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider",
               "-k", pattern]  # fmt: skip
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for worker in range(workers):
            path = Path(folder) / str(worker)
            with path.open("w") as file:
                process = subprocess.Popen([*command, *files[worker::workers]], cwd=HERE.parent,
                                           stdout=file, stderr=subprocess.STDOUT)  # fmt: skip
            running.append((process, path))
        ends = [ended(process, start + seconds - time.monotonic()) for process, _ in running]
        texts = [path.read_text() for _, path in running]
    results = re.findall(r"^(tests/\S+).* (PASSED|FAILED|ERROR|SKIPPED)", "\n".join(texts),
                         re.MULTILINE)  # fmt: skip
    codes = [0 if code == NOTHING_CHOSEN else code for code, _ in ends]
    return {
        "counts": dict(collections.Counter(result.lower() for _, result in results)),
        "seconds": time.monotonic() - start,
        "out_of_time": any(late for _, late in ends),
        "exit_code": None if None in codes else max(codes, key=abs),
        "failed": [name for name, result in results if result in ("FAILED", "ERROR")],
        "end": [line for code, text in zip(codes, texts, strict=True) if code
                for line in text.splitlines()[-15:]],
    }  # fmt: skip


def ended(process: subprocess.Popen, seconds: float) -> tuple[int | None, bool]:
    """Wait for a process, or end it after so long; return its exit code and whether it was ended.

    A second process, of the first one's group, may be in the middle of a compilation: it ends when
    its work is done.
    """
    try:
        return process.wait(max(0.1, seconds)), False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None, True


def trainers(seconds: float, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return for each trainer how far its losses on the device are from those on the CPU."""
    names = list(gpu_trainers.TRAINERS)
    if options.tiny:
        names = names[:2]
    devices = {"cpu": "cpu", "other": options.device}
    script = str(HERE / "gpu_trainers.py")
    with tempfile.TemporaryDirectory() as folder:
        paths = {role: Path(folder) / role for role in devices}
        running = [
            subprocess.Popen(
                [sys.executable, script, device, str(STEPS), str(paths[role]), *names],
                stderr=subprocess.DEVNULL,
            )
            for role, device in devices.items()
        ]
        end = time.monotonic() + seconds
        for process in running:
            ended(process, end - time.monotonic())
        found = {role: by_name(path) for role, path in paths.items()}
    return [
        compared(name, found["cpu"].get(name, {}), found["other"].get(name, {})) for name in names
    ]


def by_name(path: Path) -> dict[str, dict[str, Any]]:
    return {row["trainer"]: row for row in lines(path)}


def compared(name: str, cpu: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the row of one trainer: the largest relative difference of two losses of a step."""
    for row, where in ((cpu, "CPU"), (other, "GPU")):
        if "losses" not in row:
            return {"trainer": name, "failed": f"{where}: {row.get('failed', gpu_child.LATE)}"}
    pairs = list(zip(cpu["losses"], other["losses"], strict=True))
    worst = max((abs(a - b) / max(abs(a), 1e-30) for a, b in pairs), default=0.0)
    return {
        "trainer": name,
        "steps": len(pairs),
        "difference": worst,
        "first": cpu["losses"][:1],
        "last": [cpu["losses"][-1], other["losses"][-1]] if pairs else [],
        "seconds": {"cpu": cpu["seconds"], "device": other["seconds"]},
    }


# --- steps, in a process of their own


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file that a process may be writing to."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(True) if line.endswith("\n")]


def measure(precision: str, jobs: list[str], seconds: float,
            options: argparse.Namespace) -> list[dict[str, Any]]:  # fmt: skip
    """Return the events of all jobs; a process that fails or hangs loses the job it is at."""
    end = time.monotonic() + seconds
    events: list[dict[str, Any]] = []
    while jobs and (left := end - time.monotonic()) > 0:
        with tempfile.TemporaryDirectory() as folder:
            path, said = Path(folder) / "lines", Path(folder) / "stderr"
            given = {
                "seconds": left, "device": options.device, "peer_device": options.peer_device,
                "precision": precision, "peers": options.peers.split(","), "tiny": options.tiny,
                "lines": str(path),
            }  # fmt: skip
            command = [sys.executable, str(HERE / "gpu_child.py"), json.dumps(jobs)]
            with said.open("w") as file:
                process = subprocess.Popen([*command, json.dumps(given)], stderr=file,
                                           env=gpu_child.environment(given))  # fmt: skip
                late = watch(process, path)
            new = lines(path)
            reason = "ended: out of time" if late else last_line(said.read_text())
        events += new
        done = [event["job"] for event in new if event["event"] == "end"]
        begun = [event["job"] for event in new if event["event"] == "begin"]
        jobs = [job for job in jobs if job not in done]
        if process.returncode == 0:
            break
        lost = begun[-1] if len(begun) > len(done) else jobs[0]
        events.append({"event": "lost", "job": lost, "precision": precision, "reason": reason})
        jobs = [job for job in jobs if job != lost]
    reason = gpu_child.LATE
    return events + [{"event": "lost", "job": job, "precision": precision, "reason": reason}
                     for job in jobs]  # fmt: skip


def last_line(text: str) -> str:
    found = [line.strip() for line in text.splitlines() if line.strip()]
    return found[-1][:200] if found else "ended without a word"


def watch(process: subprocess.Popen, path: Path) -> bool:
    """Wait for a process while its jobs keep to their times; end it else, and return True."""
    job, until = "", time.monotonic() + 60.0  # to import what it needs
    while process.poll() is None:
        time.sleep(0.2)
        begun = [event for event in lines(path) if event["event"] == "begin"]
        if begun and begun[-1]["job"] != job:
            job = begun[-1]["job"]
            until = time.monotonic() + begun[-1]["seconds"] + GRACE
            print(f"  {job} ...", file=sys.stderr, flush=True)
        if time.monotonic() > until:
            process.kill()
            process.wait()
            return True
    return False


# --- the whole


def found_by(plan: Plan, options: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    found: dict[str, Any] = {"events": []}
    for part in plan.shares:
        print(f"{part} ...", file=sys.stderr, flush=True)
        seconds = plan.seconds(part)
        if part == "tests":
            found["tests"] = tests(seconds, options.tests)
        elif part == "trainers":
            found["trainers"] = trainers(seconds, options)
        else:
            found["events"] += measure(part, plan.jobs[part], seconds, options)
    return found


def parse() -> argparse.Namespace:
    parser = timing.parser(__doc__, plot=False, pinned=False)
    parser.add_argument("--budget", type=timing.positive, metavar="SECONDS",
                        help=f"for everything (default: {BUDGET:g}, with --quick {QUICK:g})"
                        )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="four networks, and no tf32")
    parser.add_argument("--only", default="", metavar="WORDS",
                        help="parts whose name holds one of these, with commas: tests, trainers, "
                        f"ceilings, {', '.join(gpu_cases.CASES)}")  # fmt: skip
    parser.add_argument("--no-tf32", dest="tf32", action="store_false",
                        help="leave out what is timed in tf32")  # fmt: skip
    parser.add_argument("--tests", default=TESTS, metavar="EXPRESSION",
                        help="pytest's -k (default: %(default)r)")  # fmt: skip
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu",
                        help="cpu: rehearse the script without a GPU")  # fmt: skip
    parser.add_argument("--peer-device", choices=("cuda", "cpu"), metavar="NAME",
                        help="cuda or cpu, where torch and jax run (default: where dualgrad does)"
                        )  # fmt: skip
    parser.add_argument("--tiny", action="store_true", help="tiny networks, for a rehearsal")
    options = parser.parse_args()
    options.budget = options.budget or (QUICK if options.quick else BUDGET)
    options.peer_device = options.peer_device or {"gpu": "cuda", "cpu": "cpu"}[options.device]
    return options


def main() -> int:
    options = parse()
    if options.device == "gpu" and (reason := cuda.missing()):
        print(f"error: {reason}", file=sys.stderr)
        return 2
    plan = Plan(options)
    if not plan.shares:
        known = ", ".join((*SHARES, CEILINGS, *gpu_cases.CASES))
        print(f"error: --only {options.only}: there are {known}", file=sys.stderr)
        return 2
    start = time.monotonic()
    content = gpu_report.content(found_by(plan, options))
    content |= {"date": date.today().isoformat(), "seconds": time.monotonic() - start}
    page = gpu_report.page(content)
    print(page)
    if options.json is None and options.device == "gpu":
        folder = HERE / "results"
        folder.mkdir(exist_ok=True)
        name = re.sub(r"[^a-z0-9]+", "-", content["device"].get("name", "gpu").lower()).strip("-")
        options.json = folder / f"gpu-{name}-{content['date']}.json"
    if options.json:
        timing.write(options, content)
        options.json.with_suffix(".md").write_text(page + "\n")
        print(f"written: {options.json} and the same as .md", file=sys.stderr)
    return 1 if gpu_report.wrong(content) else 0


if __name__ == "__main__":
    sys.exit(main())
