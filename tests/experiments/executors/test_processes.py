"""Real runs in processes of their own: one that is killed in the middle loses nothing and trains nothing twice."""

import importlib
import ipaddress
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

from enerf.core.errors import InputError
from enerf.datasets.scenes import synthetic
from enerf.engine import checkpoint, writer_lock
from enerf.experiments import variants
from enerf.experiments.executors import process
from enerf.experiments.executors.registry import Job, executor
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
    for _ in range(10_000):
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


@pytest.mark.slow
def test_a_killed_worker_of_ray(scene, tmp_path, uninterrupted, monkeypatch):
    cluster = importlib.import_module("enerf.experiments.executors.ray_cluster")
    for name, value in cluster.STARTED_HERE.items():
        monkeypatch.setenv(name, value)  # before Ray is imported, and not for longer than this test
    pytest.importorskip("ray", reason="ray is not installed (extra scale)")
    planned, queue = prepared(scene, tmp_path, "ray")
    ports = listening(os.getpid())
    assert len(ports) > 3
    assert set(ports) <= {"127.0.0.1", "::1"}  # who reaches a port of Ray can run any program
    kill_in_the_middle(planned, queue, "parent", uninterrupted)


def listening(pid):
    """Addresses at which the descendants of a process listen."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    family = {pid}
    while more := {each for each, parent in parents.items() if parent in family} - family:
        family |= more
    sockets = set()
    for each in family - {pid}:
        with suppress(OSError):
            sockets |= {os.readlink(path) for path in Path(f"/proc/{each}/fd").iterdir()}
    found = []
    for line in [*Path("/proc/net/tcp").read_text().splitlines(), *Path("/proc/net/tcp6").read_text().splitlines()]:
        words = line.split()
        if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
            raw = bytes.fromhex(words[1].partition(":")[0])
            raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
            address = ipaddress.ip_address(raw)
            found.append(str(getattr(address, "ipv4_mapped", None) or address))
    return found


@pytest.mark.slow
def test_a_killed_job_of_submitit(scene, tmp_path, uninterrupted):
    pytest.importorskip("submitit", reason="submitit is not installed (extra scale)")
    slurm = importlib.import_module("enerf.experiments.executors.slurm")
    options = ExecutorOptions(threads_per_run=1, gpus_per_run=0)
    planned, _ = prepared(scene, tmp_path, "serial")
    made = slurm.SlurmExecutor(options, planned, tmp_path, cluster="local")
    kill_in_the_middle(*prepared(scene, tmp_path, "slurm", made), "parent", uninterrupted)


def test_an_interrupted_pool_saves_the_state_of_its_runs(scene, tmp_path):
    base = config(scene, tmp_path, N_iters=100_000, i_weights=0, i_eval=0, i_spectrum=0)
    planned = variants.plan({"": base}, CompareOptions(methods="plain,equilibrate"))
    made = executor("local", ExecutorOptions(threads_per_run=1, workers=2), planned, tmp_path)
    for variant in planned:
        assert made.submit(Job(variant, None))
    journals = [variant.config.folder / "train.jsonl" for variant in planned]
    wait_for(lambda: all(path.is_file() and len(path.read_text()) > 500 for path in journals))
    made.stop()
    assert all(checkpoint.checkpoints(variant.config.folder) for variant in planned)
    assert all(writer_lock.holder(variant.config.folder) is None for variant in planned)


def test_a_job_at_its_time_limit_saves_the_state_and_continues(scene, tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed (extra scale)")
    slurm = importlib.import_module("enerf.experiments.executors.slurm")
    base = config(scene, tmp_path, N_iters=100_000, i_weights=0, i_eval=0, i_spectrum=0)
    (variant,) = variants.plan({"": base}, CompareOptions(methods="plain"))
    job = Job(variant, None)
    job.write()
    work = slurm.Remote(str(job.path), str(job.output), 1)
    saved = []

    def at_its_limit(*_):  # in the main thread, as submitit calls it within the run
        saved.append(work.checkpoint())
        raise SystemExit

    def warn():
        journal = variant.config.folder / "train.jsonl"
        wait_for(lambda: journal.is_file() and len(journal.read_text()) > 500)
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, at_its_limit)
    thread = threading.Thread(target=warn)
    thread.start()
    try:
        with pytest.raises(SystemExit):
            work()
    finally:
        signal.signal(signal.SIGUSR2, before)
        thread.join()
    assert checkpoint.checkpoints(variant.config.folder)
    assert (saved[0].function.path, saved[0].function.threads) == (work.path, work.threads)


@pytest.fixture
def cluster(scene, tmp_path, monkeypatch):
    """An executor whose SLURM refuses jobs, and the runs; ``answers`` are errors or jobs that it returns."""
    pytest.importorskip("submitit", reason="submitit is not installed (extra scale)")
    slurm = importlib.import_module("enerf.experiments.executors.slurm")
    planned, _ = prepared(scene, tmp_path, "serial")
    made = slurm.SlurmExecutor(ExecutorOptions(gpus_per_run=0), planned, tmp_path, cluster="local")
    monkeypatch.setattr(slurm, "PAUSES", (0.0, 0.0))
    return made, planned


class Answers:
    """submitit's executor, with prepared answers."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def submit(self, work):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Ended:
    """A job that has ended."""

    job_id = "7"

    def __init__(self, code):
        self.code = code

    def done(self):
        return True

    def result(self):
        return self.code, "interrupted"


def test_a_job_that_sbatch_refuses_is_submitted_again(cluster, caplog):
    made, planned = cluster
    made._executor = Answers(OSError("no sbatch"), made._errors[2]("timed out"), Ended(0), made._errors[2]("limit"))
    assert made.submit(Job(planned[0], None))
    assert not made.submit(Job(planned[1], None))  # while another one runs the queue asks again
    assert [outcome.code for outcome in made.wait()] == [0]
    assert made.slots == 2
    assert "timed out" in caplog.text
    made._executor = Answers(*[made._errors[2]("down")] * 3)
    with pytest.raises(InputError, match="sbatch refuses the job of equilibrate, seed 0: down"):
        made.submit(Job(planned[1], None))


def test_a_preempted_job_does_not_count(cluster):
    made, planned = cluster
    made._executor = Answers(Ended(130), Ended(2))
    for counts in (False, True):
        made.submit(Job(planned[0], None))
        assert [outcome.counts for outcome in made.wait()] == [counts]


def test_the_end_of_processes_survives_several_signals():
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(20)"
    )
    child = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
    assert child.stdout.readline()
    is_ending = True

    def ctrl_c(*_):
        if is_ending:
            raise KeyboardInterrupt

    def interrupt():
        time.sleep(0.3)  # not while the thread starts
        while child.poll() is None:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.3)

    before, thread = signal.signal(signal.SIGUSR1, ctrl_c), threading.Thread(target=interrupt)
    try:
        thread.start()
        process.end([child])
    finally:
        is_ending = False
        thread.join()
        signal.signal(signal.SIGUSR1, before)
        child.stdout.close()
    assert child.returncode == -signal.SIGKILL


def test_options_of_slurm_are_names_with_values():
    slurm = importlib.import_module("enerf.experiments.executors.slurm")
    options = ExecutorOptions(slurm_partition="gpu", slurm_options="mem=16G exclude=n1,n2")
    assert slurm.read_options(options) == {"partition": "gpu", "mem": "16G", "exclude": "n1,n2"}
    assert slurm.read_options(ExecutorOptions(slurm_options="mem-per-cpu=2G")) == {"mem_per_cpu": "2G"}
    for options, told in (
        ({"slurm_options": "mem"}, "option --slurm_options: found 'mem', expected name=value"),
        ({"slurm_options": "cpus-per-task=8"}, "found 'cpus-per-task=8', expected it as --threads_per_run"),
        ({"slurm_partition": "gpu\ntouch x #"}, "option --slurm_partition: found "),
    ):
        with pytest.raises(InputError, match=told):
            slurm.read_options(ExecutorOptions(**options))


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
