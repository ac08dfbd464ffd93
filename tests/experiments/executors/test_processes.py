"""Real runs in processes of their own: one that is killed in the middle loses nothing and trains nothing twice."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from enerf.datasets.scenes import synthetic
from enerf.engine import checkpoint, writer_lock
from enerf.experiments import variants
from enerf.experiments.executors.registry import executor, process
from enerf.experiments.options import CompareOptions, ExecutorOptions
from enerf.experiments.run_queue import Queue
from tests.experiments.sweeps import config

STEPS = 60


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "toy"
    return synthetic.write_scene(folder, views=5, width=16, height=12, supersample=1, progress=False)


@pytest.fixture(scope="module")
def uninterrupted(scene, tmp_path_factory):
    """Final weights of the runs, trained one after another by this process."""
    planned, queue = prepared(scene, tmp_path_factory.mktemp("serial"), "serial")
    queue.run(planned)
    return [weights(variant) for variant in planned]


def prepared(scene, folder, name, made=None):
    base = config(scene, folder, N_iters=STEPS, i_weights=5, i_eval=0, i_spectrum=0)
    planned = variants.plan({"": base}, CompareOptions(methods="plain,equilibrate"))
    made = made or executor(name, ExecutorOptions(threads_per_run=1, gpus_per_run=0), planned, folder)
    return planned, Queue(made, folder, None, lambda results: None)


def weights(variant):
    return checkpoint.read(checkpoint.checkpoints(variant.config.folder)[-1])["model"]


def kill_once(folder, whom, killed):
    """Kill the process that trains in a folder, or its parent, once it has saved a checkpoint of a middle step."""
    for _ in range(3000):
        time.sleep(0.02)
        with suppress(FileNotFoundError):
            steps = [int(path.stem) for path in checkpoint.checkpoints(folder)]
            if any(5 < step < STEPS - 15 for step in steps) and (found := writer_lock.holder(folder)):
                pid = found["pid"]
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                os.kill(pid if whom == "run" else parent, signal.SIGKILL)
                killed.append(max(steps))
                return


def kill_in_the_middle(planned, queue, whom, uninterrupted):
    killed = []
    thread = threading.Thread(target=kill_once, args=(planned[1].config.folder, whom, killed))
    thread.start()
    results = queue.run(planned)
    thread.join()
    assert killed, "the run was over before it could be killed"
    assert not results.missing(), results.failed
    assert [results.attempts[variant] for variant in planned] == [1, 2]
    for variant, expected in zip(planned, uninterrupted, strict=True):
        lines = (variant.config.folder / "train.jsonl").read_text().splitlines()
        losses = [record["step"] for record in map(json.loads, lines) if "loss" in record]
        assert losses == list(range(1, STEPS + 1))
        assert results.metrics[variant]["steps"] == STEPS
        found = weights(variant)
        assert all(torch.equal(value, found[key]) for key, value in expected.items())


def test_a_killed_process_of_the_pool(scene, tmp_path, uninterrupted):
    kill_in_the_middle(*prepared(scene, tmp_path, "local"), "run", uninterrupted)


def test_a_killed_worker_of_ray(scene, tmp_path, uninterrupted, monkeypatch):
    cluster = importlib.import_module("enerf.experiments.executors.ray_cluster")
    for name, value in cluster.STARTED_HERE.items():
        monkeypatch.setenv(name, value)  # before Ray is imported, and not for longer than this test
    pytest.importorskip("ray", reason="ray is not installed (extra scale)")
    kill_in_the_middle(*prepared(scene, tmp_path, "ray"), "parent", uninterrupted)


def test_a_killed_job_of_submitit(scene, tmp_path, uninterrupted):
    pytest.importorskip("submitit", reason="submitit is not installed (extra scale)")
    slurm = importlib.import_module("enerf.experiments.executors.slurm")
    options = ExecutorOptions(threads_per_run=1, gpus_per_run=0)
    planned, _ = prepared(scene, tmp_path, "serial")
    made = slurm.SlurmExecutor(options, planned, tmp_path, cluster="local")
    kill_in_the_middle(*prepared(scene, tmp_path, "slurm", made), "parent", uninterrupted)


def test_a_run_whose_queue_is_killed_saves_its_state_and_ends(scene, tmp_path):
    base = config(scene, tmp_path, N_iters=100_000, i_weights=0, i_eval=0, i_spectrum=0, i_print=1)
    code = (
        "import sys; from pathlib import Path; from enerf.experiments import sweep\n"
        "from enerf.experiments.options import ExecutorOptions, SweepOptions; from tests.experiments import sweeps\n"
        "base = sweeps.config(sys.argv[1], sys.argv[2], N_iters=100_000, i_weights=0, i_eval=0, i_spectrum=0)\n"
        "sweep.sweep(base, SweepOptions(methods='plain'), ExecutorOptions(executor='local'))\n"
    )
    root = str(Path(__file__).parents[3])
    queue = subprocess.Popen([sys.executable, "-c", code, str(scene), str(tmp_path)], cwd=root)
    folder = variants.variant_config(base, "plain", None, 0).folder
    try:
        wait_for(lambda: (folder / "train.jsonl").is_file() and len((folder / "train.jsonl").read_text()) > 500)
    finally:
        queue.kill()
        queue.wait()
    wait_for(lambda: writer_lock.holder(folder) is None)
    assert checkpoint.checkpoints(folder), "no state was saved"


def wait_for(condition, seconds=120.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.1)


def test_the_reason_of_a_failure_is_the_last_words_of_the_run(tmp_path):
    output = tmp_path / "output.log"
    output.write_text("step 1\n\x1b[0m bar 10%\r bar 20%\nerror: no such scene\n\n")
    assert process.reason(2, output) == "no such scene"
    assert process.reason(1, tmp_path / "none") == "exit code 1"
