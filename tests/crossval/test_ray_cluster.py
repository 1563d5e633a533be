"""Folds as tasks of Ray, and what is said if that is not possible."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest

from cm_lightning.crossval import node
from cm_lightning.crossval import ray_cluster as module
from cm_lightning.crossval.jobs import Job
from cm_lightning.crossval.resources import FoldResources
from cm_lightning.errors import InputError
from cm_lightning.main import main
from cm_lightning.runs import ExperimentFolder
from tests.test_main import metrics

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture
def job(tmp_path):
    return Job([], ExperimentFolder(tmp_path / "leg").fold(0), steps=[["fit"], ["test"]])


def run_code(tmp_path, code, token="token", gpus=0):
    """Run Python code as a fold of a node."""
    (tmp_path / "token").touch()
    command = [sys.executable, "-c", code]
    return node.run_fold(command, str(tmp_path), str(tmp_path / "leg" / "fold0"), str(tmp_path / token), gpus, 3)


def test_a_fold_of_a_node_reports_its_end(tmp_path, monkeypatch):
    name = os.uname().nodename
    assert run_code(tmp_path, "import os; assert os.environ['OMP_NUM_THREADS'] == '3'") == (name, 0, "")
    assert run_code(tmp_path, "print('a reason'); raise SystemExit(2)") == (name, 2, "a reason")
    _, code, reason = run_code(tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert code == -signal.SIGKILL
    assert "as the operating system or the scheduler does if memory is short" in reason
    assert "does not see" in run_code(tmp_path, "", token="elsewhere")[2]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert run_code(tmp_path, "import sys; sys.exit(sys.argv[1:] != ['--devices', '2,3'])", gpus=2)[1] == 0


def test_a_fold_waits_for_the_end_of_its_killed_process(tmp_path):
    folder = tmp_path / "leg" / "fold0"
    hold = "from cm_lightning.runs.lock import RunLock; lock = RunLock(__import__('pathlib').Path(sys.argv[1])); "
    code = f"import sys, time; {hold} print(flush=True); time.sleep(2); lock.release()"
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        start = time.monotonic()
        node.wait_for_lock(folder)
        assert time.monotonic() - start > 1


def test_missing_ray_and_resources_are_one_sentence(job, monkeypatch):
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0}}, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]
    module._check_nodes(nodes, FoldResources(gpus=0, cpus=8))
    for resources in (FoldResources(gpus=1), FoldResources(gpus=0, cpus=9)):
        with pytest.raises(InputError, match=r"No node of the Ray cluster has .* found 0 GPUs and 8 cores"):
            module._check_nodes(nodes, resources)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="--engine ray needs Ray, which is not installed"):
        module.run_on_ray([job], FoldResources())


@needs_ray
def test_an_address_that_does_not_answer_is_one_sentence(job):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://localhost:{port}", "no such address"):
        with pytest.raises(InputError, match=r"\(--ray_address\) does not answer"):
            module.run_on_ray([job], FoldResources(), address)


@needs_ray
@pytest.mark.slow
def test_a_fold_whose_node_is_killed_continues_on_another(muscle_arguments, tmp_path):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    options = ["--data.split=kfold", "--data.n_folds=2", "--trainer.max_epochs=30", "--wandb.mode=disabled"]
    options += ["--pictures.cases=0", "--uncertainty.cases=0"]
    experiment = tmp_path / "outputs" / "muscle_2ch"

    def kill_a_node():
        last = experiment / "fold0" / "checkpoints" / "last.ckpt"
        while not last.is_file():
            time.sleep(0.5)
        cluster.remove_node(nodes[0], allow_graceful=False)

    killer = threading.Thread(target=kill_a_node, daemon=True)
    killer.start()
    arguments = ["--engine", "ray", "--ray_address", cluster.address, "--gpus_per_fold", "0", "--cpus_per_fold", "1"]
    try:
        main(["crossval", *muscle_arguments, *options, *arguments])
    finally:
        killer.join(timeout=60)
        cluster.shutdown()
    assert not killer.is_alive()
    for fold in ("fold0", "fold1"):
        assert [int(row["epoch"]) for row in metrics(experiment / fold) if row["train/loss"]] == list(range(30))
    assert set(pd.read_csv(experiment / "cv_metrics.csv")["fold"]) == {0, 1}
