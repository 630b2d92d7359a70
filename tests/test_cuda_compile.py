"""Every CUDA source compiles for the architectures that are named, and hot kernels do not spill.

The compiler is NVRTC, from the wheels of the extra cuda-check; no device is needed.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from dualgrad.kernels import cuda

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import cuda_report as report  # noqa: E402  a tool, which its own processes import by this name too

needs_nvrtc = pytest.mark.skipif(report.nvrtc() is None, reason=report.MISSING)
# Kernels that may use a thread's stack, by the start of their names; the others may not.
LOCAL = {
    "elementwise/smooth.sin_": "CUDA's reduction of large angles keeps seven words in an array",
    "elementwise/smooth.cos_": "as sin",
    "elementwise/smooth.tan_": "as sin",
}
REGISTERS = 1 << 16  # of a multiprocessor: a block must find room


@pytest.fixture(scope="module")
def instances():
    """All sources, compiled."""
    return report.instances(report.tasks())


def test_every_file_of_cuda_is_part_of_a_source():
    named = {"common.cuh"}
    for source in cuda.sources():
        family, _, file = source.name.partition("/")
        named |= {*source.parts, f"{family}/{file or family}.cu"}
    there = {str(path.relative_to(cuda.FOLDER)) for path in cuda.FOLDER.rglob("*.cu*")}
    assert there == named


@needs_nvrtc
def test_every_instance_of_every_source_compiles(instances):
    assert not [f"{made}\n{made.error}" for made in instances if made.error]
    found = {(made.source, made.dtype, made.architecture) for made in instances}
    assert found == {
        (source.name, dtype, architecture)
        for source in cuda.sources()
        for dtype in source.instances
        for architecture in ("sm_80", "sm_90")
    }
    tensor = {(source, dtype) for source, dtype, _ in found if dtype in cuda.TENSOR}
    assert tensor == {(name, x) for name in ("conv", "product/gemm") for x in ("tf32", "bfloat16")}


@needs_nvrtc
def test_every_declared_kernel_is_in_each_program(instances):
    declared = {source.name: set(report.declared(source.code())) for source in cuda.sources()}
    assert sum(map(len, declared.values())) > 20
    lacking = {str(made): declared[made.source] - set(made.kernels) for made in instances}
    assert not {made: names for made, names in lacking.items() if names}


def local_memory(instances):
    """Return the kernels that use a thread's stack or spill registers, with what they use."""
    return {
        f"{made.source}.{name}": f"{made}: {use}"
        for made in instances
        for name, use in made.kernels.items()
        if use.stack or use.spills
    }


@needs_nvrtc
def test_no_hot_kernel_uses_local_memory(instances):
    found = local_memory(instances)
    assert not {name: use for name, use in found.items() if not name.startswith(tuple(LOCAL))}
    for start in LOCAL:  # one that needs it no longer must go from the list
        assert any(name.startswith(start) for name in found), start


def launches(path):
    """Return (kernel, threads of a block) of a module's launches whose kernel is a plain text.

    Threads are None where they are not a number of the module.
    """
    body = ast.parse(path.read_text()).body
    numbers = {
        node.targets[0].id: node.value.value
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        and isinstance(node.targets[0], ast.Name)
    }  # fmt: skip
    found = []
    for node in ast.walk(ast.Module(body, [])):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "launch":
            kernel, _, _, threads = node.args[:4]
            if isinstance(kernel, ast.Constant):
                found.append((kernel.value, numbers.get(getattr(threads, "id", None))))
    return found


@needs_nvrtc
@pytest.mark.parametrize("family", sorted(path.parent.name for path in cuda.FOLDER.glob("*/*.cu")))
def test_what_is_launched_exists_and_finds_registers(family, instances):
    programs = [made for made in instances if made.source.partition("/")[0] == family]
    for kernel, threads in launches(cuda.FOLDER / family / "gpu.py"):
        uses = [made.kernels[kernel] for made in programs if kernel in made.kernels]
        assert uses, f"{family}/gpu.py launches {kernel}, which no source has"
        assert threads is None or max(use.registers for use in uses) * threads <= REGISTERS


WITH_LOCAL_MEMORY = """
extern "C" __global__ void indexed(float* x) {
  float kept[64] = {};
  for (int i = 0; i < 64; ++i) kept[(int)x[i]] += x[i];
  x[0] = kept[(int)x[64]];
}
extern "C" __global__ void __launch_bounds__(64) shared(float* x) {
  __shared__ float row[256];
  row[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = row[255 - threadIdx.x];
}
"""


@needs_nvrtc
def test_the_check_sees_local_memory_and_errors():
    made = report.instance(("trial", None, "sm_80", WITH_LOCAL_MEMORY, ("-std=c++17",)))
    assert report.declared(WITH_LOCAL_MEMORY) == ["indexed", "shared"] == sorted(made.kernels)
    indexed, shared = made.kernels["indexed"], made.kernels["shared"]
    assert indexed.stack >= 256 and indexed.shared == 0
    assert (shared.stack, shared.spills, shared.shared) == (0, 0, 1024) and shared.registers > 0
    assert local_memory([made]).keys() == {"trial.indexed"}
    refused = report.instance(("trial", None, "sm_80", "__global__ void f() { x; }", ()))
    assert not refused.kernels and 'identifier "x" is undefined' in refused.error
    assert report.rows([made])[0] == ["trial", "sm_80", 2, 2, *(indexed | shared).tuple()]


def test_spills_are_counted_with_what_a_kernel_calls():
    log = """ptxas info    : Compiling entry function 'f' for 'sm_90'
ptxas info    : Function properties for f
    0 bytes stack frame, 24 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 32 bytes cumulative stack size, 512 bytes smem
ptxas info    : Function properties for slow_path
    32 bytes stack frame, 4 bytes spill stores, 44 bytes spill loads
"""
    assert report.usages(log) == {"f": report.Usage(255, 512, 32, 48)}


@pytest.mark.skipif(report.nvrtc() is not None, reason="the compiler is installed")
def test_without_the_compiler_the_tool_says_how_to_get_it():
    command = [sys.executable, str(ROOT / "tools" / "cuda_report.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == f"error: {report.MISSING}\n"
