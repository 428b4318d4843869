"""Short training runs that tests compare: three epochs of eight steps on MNIST's first images."""

import io
from pathlib import Path
from subprocess import CompletedProcess

from srmnist.soak.small_runs import BATCHSIZE, resumed, train_command
from srmnist.training.settings import Settings
from srmnist.training.train import Result, train

from helpers.forks import run_forked
from helpers.users import TRAIN, complaints

EPOCHS, STEPS = 3, 8


def settings(data: Path, /, **others) -> Settings:
    return Settings(**{"epoch": EPOCHS, "batchsize": BATCHSIZE, "data": str(data), **others})


def run_here(data: Path, out: Path | None, resume: Path | None = None, /, **others) -> Result:
    """Train in this process."""
    result = train(settings(data, **others), out, resume, terminal=io.StringIO())
    assert result is not None
    return result


def command(data: Path, out: Path, *flags: object) -> list[str]:
    """The command of such a run."""
    return train_command(TRAIN, data, "--epoch", EPOCHS, "--out", out, *flags)


def finish(data: Path, out: Path, *flags: object) -> CompletedProcess:
    """Train to the end in a child, from the last snapshot if there is one, and without a complaint."""
    done = run_forked(resumed(train_command(TRAIN, data, "--epoch", EPOCHS, *flags), out))
    assert (done.returncode, complaints(done.stderr)) == (0, ""), done
    return done
