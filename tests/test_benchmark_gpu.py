"""The benchmark for a GPU, tried out without one."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
WORKER = """
import json, os, sys, time
step, facts = sys.argv[1:3]
with open(facts, "a") as file:
    file.write(json.dumps({"step": step, "what": "begun", "value": "a | b", "failed": False}) + "\\n")
    file.write('{"step": "incomplete')
if step == "tests":
    os.abort()
if step == "timings":
    time.sleep(60)
if step == "profile":
    sys.exit("no memory")
"""
# Collects the tests for a GPU as if the libraries for files, networks and configurations were not installed.
COLLECT = """
import sys
import pytest

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(name, name=name)

MISSING = {"monai", "jsonargparse", "nibabel", "SimpleITK", "pytorch_lightning", "torchmetrics", "wandb"}
sys.meta_path.insert(0, Missing())
options = ["-q", "--collect-only", "-m", "gpu", "-p", "no:cacheprovider", "-o", "addopts=--strict-markers"]
sys.exit(pytest.main([*options, "tests/confidence/cuda"]))
"""
LAUNCHES = """==PROF== Connected to process 12
0.31 s
"ID","Process ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value","Rule Description"
"0","12","update(const int *, float *)","GPU Speed Of Light Throughput","Duration","nsecond","3,000,000",""
"0","12","update(const int *, float *)","GPU Speed Of Light Throughput","DRAM Throughput","%","60.00",""
"0","12","update(const int *, float *)","GPU Speed Of Light Throughput","Compute (SM) Throughput","%","20.00",""
"0","12","update(const int *, float *)","Launch Statistics","Registers Per Thread","register/thread","64",""
"0","12","update(const int *, float *)","Occupancy","","","","This kernel has a ""theoretical"" occupancy
of 50 %"
"0","12","update(const int *, float *)","Occupancy","Achieved Occupancy","%","48.00",""
"1","12","update(const int *, float *)","GPU Speed Of Light Throughput","Duration","nsecond","1000000",""
"1","12","update(const int *, float *)","GPU Speed Of Light Throughput","DRAM Throughput","%","20.00",""
==PROF== Disconnected
"""


@pytest.fixture
def module(monkeypatch):
    """Return a function that imports a module of the benchmark."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def test_emulated_run_writes_a_table(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to run the kernels on the host")
    steps = ["versions", "timings", "checks", "sanitizer"]
    command = [sys.executable, str(FOLDER / "gpu.py"), "--emulated", "--output", str(tmp_path), "--steps", *steps]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    table = (tmp_path / "gpu.md").read_text()
    assert run.stdout.endswith(table + "\n")
    content = json.loads((tmp_path / "gpu.json").read_text())
    facts = {(fact["step"], fact["what"]): fact["value"] for fact in content["facts"]}
    assert [step for step in steps if any(step == key[0] for key in facts)] == steps
    for (step, what), value in facts.items():
        assert f"| {step}: {what} | {value} |" in table
    assert "Failures: none." in table
    assert facts["sanitizer", "not measured"] == "needs a GPU"
    assert facts["timings", "3 x (17 x 15), NumPy, moving band"].count("ms") == 1
    assert facts["checks", "17 x 15, alpha 0.5, beta 100.0: error (estimate, bound)"].endswith("1 steps, 0 direct")


def test_needs_a_gpu(module, monkeypatch, capsys):
    gpu = module("gpu")
    monkeypatch.setattr(gpu, "gpu_is_present", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="needs CuPy and a GPU"):
        gpu.main()


def test_steps_that_fail_are_noted(module, monkeypatch, tmp_path, capsys):
    gpu = module("gpu")
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    monkeypatch.setattr(gpu, "WORKER", worker)
    monkeypatch.setitem(gpu.STEPS, "timings", 1.0)
    monkeypatch.setattr(gpu, "SHORTEST_STEP", 0.0)
    steps = ["versions", "tests", "timings", "profile", "ncu"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--emulated", "--output", str(tmp_path), "--steps", *steps])
    with pytest.raises(SystemExit) as status:
        gpu.main()
    assert status.value.code == 1
    table = (tmp_path / "gpu.md").read_text()
    assert table.count("begun | a \\| b |") == 4
    assert "Failures: 3." in table
    assert "ended with exit status -6" in table
    assert "ended after the time limit of 1 s" in table
    assert "no memory" in table
    assert "| ncu: not measured | needs a GPU |" in table


def test_no_step_starts_too_late(module, monkeypatch, tmp_path):
    gpu = module("gpu")
    runner = gpu.Runner(tmp_path, True, 0.0)
    (fact,) = runner.run("versions")
    assert fact.failed
    assert "no time" in fact.value


@pytest.mark.slow
def test_gpu_tests_need_only_the_libraries_of_the_solver():
    run = subprocess.run([sys.executable, "-c", COLLECT], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "test_gpu_equals_the_cpu" in run.stdout


def test_failures_of_tests_are_read(module, tmp_path):
    (tmp_path / "test_some.py").write_text(
        """
import pytest

@pytest.mark.parametrize("number", [1, 2, "a b"])
def test_number(number):
    assert number == 1, "not one"

@pytest.mark.skip
def test_skipped():
    pass

@pytest.fixture
def broken():
    raise ValueError("broken")

def test_error(broken):
    pass
"""
    )
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    output = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path).stdout
    counts, failures = module("gpu_tools").read_tests(output)
    assert counts == {"PASSED": 1, "FAILED": 2, "ERROR": 1, "SKIPPED": 1}
    assert list(failures) == ["test_number[2]", "test_number[a b]", "test_error"]
    assert "AssertionError: not one" in failures["test_number[a b]"]
    assert "ValueError: broken" in failures["test_error"]


def test_trace_is_summarised(module):
    tools = module("gpu_tools")
    events = [
        {"cat": "kernel", "name": "update", "ts": 0.0, "dur": 4000.0},
        {"cat": "kernel", "name": "update", "ts": 3000.0, "dur": 2000.0},
        {"cat": "kernel", "name": "update_direction", "ts": 6000.0, "dur": 1000.0},
        {"cat": "kernel", "name": "substitute_fronts", "ts": 8000.0, "dur": 1000.0},
        {"cat": "kernel", "name": "cupy_multiply__float64", "ts": 9000.0, "dur": 500.0},
        {"cat": "kernel", "name": "void at::native::fill<float>(float*)", "ts": 9500.0, "dur": 500.0},
        {"cat": "gpu_memcpy", "name": "Memcpy DtoH", "ts": 11000.0, "dur": 1000.0},
        {"cat": "cuda_runtime", "name": "cudaStreamSynchronize", "ts": 0.0, "dur": 1.0},
        {"cat": "cpu_op", "name": "aten::add", "ts": 0.0, "dur": 1.0},
        {"name": "process_name"},
    ]
    profile = tools.read_trace({"traceEvents": events}, 2)
    assert profile.launches == 3.0
    assert profile.copies == 0.5
    assert profile.waits == 0.5
    assert profile.busy_milliseconds == 4.5
    assert profile.kernels[0] == tools.KernelTime("update", 1.0, 3.0)
    assert profile.parts() == {"set-up and rest": 1.0, "factor": 3.0, "substitutions": 0.5, "iterations": 0.5}


def test_metrics_of_kernels_are_read(module):
    (kernel,) = module("gpu_tools").read_metrics(LAUNCHES)
    assert kernel.name == "update"
    assert kernel.summary() == "2 launches, 4.00 ms; DRAM 50 %, SM 15 %, occupancy 36 %, 64 registers"
    assert module("gpu_tools").read_metrics("==ERROR== ERR_NVGPUCTRPERM") == []


def test_problems_of_the_sanitizer_are_read(module):
    text = "========= COMPUTE-SANITIZER\n========= Invalid __global__ read of size 4 bytes\n=========     at update\n"
    summary, problems = module("gpu_tools").read_sanitizer(text + "========= ERROR SUMMARY: 1 error\n")
    assert summary == "ERROR SUMMARY: 1 error"
    assert problems == ["Invalid __global__ read of size 4 bytes"]


@pytest.mark.parametrize("kind", ["band", "fan"])
def test_moving_masks_differ(module, kind):
    frames = module("gpu_frames")
    assert frames.masks_for("no mask", 2, 40, 30) == {}
    still = frames.masks_for(kind, 5, 40, 30)
    moving = frames.masks_for(f"moving {kind}", 5, 40, 30)
    assert all((mask == mask[:1]).all() for mask in still.values())
    assert not (moving["domain"] == moving["domain"][:1]).all()
    for masks in (still, moving):
        assert all(mask.shape == (5, 40, 30) and mask.any(axis=(1, 2)).all() for mask in masks.values())
        assert not (masks["source"] & masks["sink"]).any()


def test_frames_are_whole_numbers_and_differ(module):
    frames = module("gpu_frames").speckle(20, 40, 30)
    np.testing.assert_array_equal(frames, module("gpu_frames").speckle(20, 40, 30))
    np.testing.assert_array_equal(frames, frames.astype(np.uint8))
    assert len(np.unique(frames.reshape(20, -1), axis=0)) == 20
    assert frames.std(axis=(1, 2)).min() > 10


def test_wheels_have_supported_versions(module):
    found = module("gpu_wheels").requirements(["monai", "jsonargparse", "typeshed-client"])
    assert found[0].startswith("monai>=")
    assert found[1].startswith("jsonargparse>=")
    assert found[2] == "typeshed-client"
