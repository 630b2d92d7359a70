"""benchmarks/gpu.py: all of it but the speed, on tiny networks and without a GPU."""

import argparse
import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.kernels import cuda

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
KINDS = ("logreg-64", "mlp-64", "cnn-64", "resnet18-128")


@pytest.fixture
def script(monkeypatch):
    """A function that imports a script of benchmarks/."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def rehearsal(script, path, jobs, **options):
    """Return the events of jobs done in this process on the CPU."""
    given = {"seconds": 60.0, "device": "cpu", "peer_device": "cpu", "precision": "float32",
             "peers": [], "tiny": True, "lines": str(path)}  # fmt: skip
    script("gpu_child").run(jobs, given | options)
    return script("gpu").lines(path)


def test_products_are_those_of_the_layers(script):
    cases = script("gpu_cases")
    mlp = cases.chain([784, 16, 10], 8)
    assert mlp.products == [8 * 784 * 16, 8 * 16 * 10] and mlp.parameters == 784 * 16 + 16 + 170
    whole, first = 2 * sum(mlp.products), 2 * mlp.products[0]
    assert cases.flops(mlp, "forward") == whole
    assert cases.flops(mlp, "backprop") == 3 * whole - first == cases.flops(mlp, "dense")
    assert cases.flops(mlp, "rank-1") == 2 * whole - first
    assert cases.flops(mlp, "dense k=16") == 33 * whole - 16 * first
    resnet = cases.residual(1 / 16, 2)
    trunk = dg.nn.Sequential(resnet.model.blocks[0].block, resnet.model.blocks[0].aux)
    assert sum(resnet.products) == 2 * dg.nn.flops(trunk, (32, 32, 3))
    assert len(cases.convolutional(4, 2).products) == 6


def test_what_is_measured_becomes_rows_ratios_and_a_page(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script("gpu_contestants"), "BLOCK", 1e-4)
    events = rehearsal(script, tmp_path / "lines", ["kernels", "ceilings", "logreg-64"])
    report = script("gpu_report")
    whole = report.content({"events": events}) | {"date": "2026-01-01"}
    rows = {row["name"]: row for row in whole["rows"]}
    own = script("gpu_contestants").OWN
    assert list(rows) == [f"dualgrad {what}" for what in own]
    for row in rows.values():
        assert 0 < row["minimum"] <= row["median"] and row["rounds"] >= 3
        assert row["loss"] == pytest.approx(rows["dualgrad forward"]["loss"], rel=1e-5)
    rank_1, forward = rows["dualgrad rank-1"], rows["dualgrad forward"]
    (found,) = whole["ratios"]
    assert found["rank-1 / own forward"] == rank_1["minimum"] / forward["minimum"]
    assert found["rank-1 / best backprop"] is None  # there was no peer
    (case,) = whole["cases"]
    rate = case["flops"]["rank-1"] / rank_1["minimum"]
    assert rank_1["flops_per_second"] == pytest.approx(rate)
    assert {row["name"] for row in whole["ceilings"]} == {"float32", "float16", "float64", "copy"}
    page = report.page(whole)
    assert "## logreg-64, float32, 7,850 parameters" in page and not report.wrong(whole)
    json.dumps(whole)


def test_what_does_not_fit_into_the_time_is_said(script, tmp_path):
    events = rehearsal(script, tmp_path / "lines", ["logreg-64"], seconds=0.0)
    rows = [event for event in events if event["event"] == "row"]
    assert len(rows) == 6 and {row["failed"] for row in rows} == {"skipped: out of time"}
    page = script("gpu_report").page(
        script("gpu_report").content({"events": events}) | {"date": "2026-01-01"}
    )
    assert page.count("skipped: out of time") == 6


def test_a_step_that_fails_is_out_and_the_others_go_on(script, monkeypatch):
    contestants = script("gpu_contestants")
    monkeypatch.setattr(contestants, "BLOCK", 1e-4)

    def out_of_memory():
        raise MemoryError("out of memory: 3 GB\nmore lines")

    made = [
        contestants.Contestant(name, call, lambda value: None, lambda run: None)
        for name, call in (("good", lambda: 1), ("bad", out_of_memory))
    ]
    for contestant in made:
        contestant.calibrate()
    assert list(contestants.timed(made, 1.0)) == ["good"]
    assert made[1].failed == "MemoryError: out of memory: 3 GB"


CHILD = """
import json, sys
jobs, options = map(json.loads, sys.argv[1:3])
with open(options["lines"], "a", buffering=1) as file:
    def say(event, job):
        file.write(json.dumps({"event": event, "job": job, "seconds": 0}) + "\\n")
    for job in jobs:
        say("begin", job)
        if job == "cnn-64":
            sys.exit("RuntimeError: an illegal memory access")
        say("end", job)
"""


def test_a_process_that_dies_loses_one_job(script, tmp_path, monkeypatch):
    gpu = script("gpu")
    (tmp_path / "gpu_child.py").write_text(CHILD)
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    options = argparse.Namespace(device="cpu", peer_device="cpu", peers="none", tiny=True)
    events = gpu.measure("float32", ["logreg-64", "cnn-64", "depth-100"], 30.0, options)
    assert [e["job"] for e in events if e["event"] == "end"] == ["logreg-64", "depth-100"]
    (lost,) = [e for e in events if e["event"] == "lost"]
    assert lost["job"] == "cnn-64" and "illegal memory access" in lost["reason"]
    (row,) = script("gpu_report").content({"events": events})["rows"]
    assert row["failed"] == lost["reason"]


def test_processes_share_the_tests(script, tmp_path, monkeypatch):
    gpu, folder = script("gpu"), tmp_path / "tests"
    folder.mkdir()
    for i in range(3):
        text = f"def test_gpu():\n    assert {i} != 1\n\n\ndef test_other():\n    assert False\n"
        (folder / f"test_{i}.py").write_text(text)
    (folder / "test_none.py").write_text("def test_other():\n    assert False\n")
    monkeypatch.setattr(gpu, "HERE", tmp_path / "benchmarks")
    monkeypatch.setattr(gpu.os, "cpu_count", lambda: 8)
    found = gpu.tests(60.0, "gpu")
    assert found["counts"] == {"passed": 2, "failed": 1} and not found["out_of_time"]
    assert found["exit_code"] == 1 and found["failed"] == ["tests/test_1.py::test_gpu"]
    assert "1 failed" in found["end"][-1]


def test_time_that_a_part_leaves_goes_to_the_rest(script):
    gpu = script("gpu")
    options = argparse.Namespace(budget=100.0, only="tests,mlp-64", quick=True, tf32=True)
    plan = gpu.Plan(options)
    assert plan.jobs == {"float32": ["kernels", "mlp-64"]} and list(plan.shares) == [
        "tests",
        "float32",
    ]
    assert plan.seconds("tests") == pytest.approx(100 * 20 / (20 + 6 + 9), rel=0.05)
    assert plan.seconds("float32") == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_dualgrads_kernels_multiply_in_the_precision_of_the_row(script, monkeypatch, precision):
    monkeypatch.setenv("CUPY_TF32", "0" if precision == "tf32" else "1")
    given = {"precision": precision, "peer_device": "cpu"}
    monkeypatch.setenv("CUPY_TF32", script("gpu_child").environment(given)["CUPY_TF32"])
    assert cuda.product_of(np.float32) == precision and cuda.cublas_serves(np.float32)


def test_trainers_on_two_devices_are_compared(script):
    gpu, report = script("gpu"), script("gpu_report")
    cpu = {"losses": [2.0, 1.0], "seconds": 1.0}
    same = gpu.compared("mnist", cpu, {"losses": [2.0, 1.0001], "seconds": 1.0})
    assert same["difference"] == pytest.approx(1e-4) and report.verdict(same) == "agrees"
    other = gpu.compared("mnist", cpu, {"losses": [2.0, 1.1], "seconds": 1.0})
    assert report.verdict(other) == "differs" and report.wrong({"trainers": [other]})
    lost = gpu.compared("mnist", cpu, {"failed": "no kernel"})
    assert report.verdict(lost) == "GPU: no kernel"


def test_trainers_give_a_loss_after_each_step(script, tmp_path, monkeypatch):
    trainers = script("gpu_trainers")
    monkeypatch.syspath_prepend(str(trainers.EXAMPLES))
    pytest.importorskip("tqdm")
    trainers.run("cpu", 3, tmp_path / "lines", ["mnist logreg", "mnist mlp, weights"])
    for row in script("gpu").lines(tmp_path / "lines"):
        assert len(row["losses"]) == 3 and all(map(math.isfinite, row["losses"]))


def test_without_a_device_one_line_says_so(script, monkeypatch, capsys):
    gpu = script("gpu")
    monkeypatch.setattr(gpu.cuda, "missing", lambda: "no NVIDIA driver was found.")
    monkeypatch.setattr(gpu.sys, "argv", ["gpu.py", "--quick"])
    assert gpu.main() == 2
    assert capsys.readouterr() == ("", "error: no NVIDIA driver was found.\n")


@pytest.mark.parametrize("kind", ["mlp-64"])
@pytest.mark.parametrize("what", ["forward", "rank-1", "backprop"])
def test_steps_run_on_the_device(device, script, kind, what):
    contestants, problem = script("gpu_contestants"), script("gpu_cases").CASES[kind].tiny()
    gpu, cpu = (contestants.own(problem, what, contestants.Device(d)) for d in ("gpu", "cpu"))
    assert gpu.figures["loss"] == pytest.approx(cpu.figures["loss"], rel=1e-5)
    assert gpu.figures["launches"] > 0
    gpu.block()
    gpu.by_events()
    assert not gpu.failed and gpu.figures["device_seconds"] > 0


@pytest.mark.filterwarnings("default")  # theirs about their own parts are not ours to mend
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("peer", ["torch", "jax"])
def test_peers_compute_what_dualgrad_computes(script, kind, peer):
    pytest.importorskip(peer)
    contestants = script("gpu_contestants")
    problem, cpu = script("gpu_cases").CASES[kind].tiny(), contestants.Device("cpu")
    reference = contestants.Reference(
        contestants.own(problem, "forward", cpu).figures["loss"],
        contestants.exact(problem, cpu), 1e-3,
    )  # fmt: skip
    options = {"peer_device": "cpu", "precision": "float32"}
    make = script("gpu_child").Peers(problem, options).make
    more = {"channels_last": True} if peer == "torch" and kind == "cnn-64" else {}
    for what in contestants.THEIRS:
        found = contestants.theirs(peer, what, lambda: make(peer, more), reference)
        assert found.note == "" and not found.failed


class Stand:
    """A peer whose gradient is scaled."""

    layout = staticmethod(list)
    own_layout = staticmethod(lambda weights, like: weights)

    def __init__(self, scale):
        self.kept, self.scale = [np.ones(3)], scale

    def load(self, weights):
        self.kept = weights

    def weights(self):
        return [w.copy() for w in self.kept]

    def backprop(self, lr):
        self.kept = [w - self.scale * lr * np.arange(3.0) for w in self.kept]
        return 1.0


def test_a_wrong_peer_is_noticed(script):
    contestants = script("gpu_contestants")
    reference = contestants.Reference(1.0, [np.arange(3.0)], 1e-3)
    assert contestants.difference(Stand(1.0), "backprop", 1.0, reference) == ""
    assert "1.0e-01 off" in contestants.difference(Stand(1.1), "backprop", 1.0, reference)
    assert "its loss is 2" in contestants.difference(Stand(1.0), "backprop", 2.0, reference)
