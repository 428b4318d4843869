"""A process for each variant, which waits for its turn.

So the libraries do not disturb one another's threads. On a GPU, torch.compile has CUDA graphs of its own, and
a graph captured by hand breaks beside them (cudaErrorIllegalAddress). The benchmark's process writes a line
of JSON for each request, and the worker answers with one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from srmnist.benchmark import measure
from srmnist.benchmark.variants import Variant, check, digit_pairs, left_out, make_variant
from srmnist.system.device import device_errors, select_device
from srmnist.system.errors import UserError, first_line
from srmnist.system.terminal import tell_who_waits

# Environment of all workers: TensorFlow's C++ part reports on stderr what only its developers can use.
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "2"}


class Worker:
    """One variant in a process of its own.

    Parameters
    ----------
    name : str
        One of those that `srmnist.benchmark.variants.available` gives.
    environment : mapping, optional
        Variables that differ from this process's.

    Raises
    ------
    UserError
        By `ask`: what the worker could not do.
    """

    def __init__(self, name: str, environment: Mapping[str, str] = {}) -> None:
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 – `close` closes it
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, name],
            env={**os.environ, **_ENVIRONMENT, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )

    def ask(self, request: str, **arguments: Any) -> Any:
        """Let the worker call its method of that name."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps([request, arguments]) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise UserError(self._end())
        result, problem = json.loads(answer)
        if problem:
            raise UserError(problem)
        return result

    def _end(self) -> str:
        """What a worker said last that ended without an answer."""
        status = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"its process ended with status {status}"

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        with self._process:  # closes the pipes, and waits
            self._said.close()


class Team:
    """Workers by name; one that fails leaves, and stderr says why.

    Parameters
    ----------
    workers : mapping
    needed : str, optional
        The one without which there is nothing to compare.

    Raises
    ------
    UserError
        By its methods: why the needed one failed.
    """

    def __init__(self, workers: Mapping[str, Worker], needed: str | None = None) -> None:
        self.workers = dict(workers)
        self._needed = needed

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Ask all workers, one after another."""
        answers = {name: self.ask_one(name, request, **arguments) for name in list(self.workers)}
        return {name: answer for name, answer in answers.items() if name in self.workers}

    def ask_one(self, name: str, request: str, **arguments: Any) -> Any:
        """Ask one worker; None if it fails."""
        try:
            return self.workers[name].ask(request, **arguments)
        except UserError as error:
            if name == self._needed:
                raise UserError(f"{name}: {error}") from error
            left_out(name, str(error))
            self.workers.pop(name).close()
            return None

    def times(
        self, kinds: Sequence[str], batch: int, rounds: int, warmup: int = 1
    ) -> dict[measure.Task, list[float]]:
        """Milliseconds of what each worker can do of `kinds`; they take turns."""
        able = self.ask("kinds")
        tasks = [(name, kind) for name in able for kind in kinds if kind in able[name]]

        def take(task: measure.Task, number: int) -> list[float]:
            name, kind = task
            if name not in self.workers:
                return []
            return self.ask_one(name, "time", kind=kind, batch=batch, number=number) or []

        times = measure.alternate(take, tasks, rounds, warmup)
        return {task: values for task, values in times.items() if values and task[0] in self.workers}


@contextmanager
def team(
    names: Sequence[str],
    environment: Mapping[str, str] = {},
    cores: int | None = None,
    needed: str | None = None,
) -> Iterator[Team]:
    """Start a worker for each name, on so many cores where the system can bind processes to cores."""
    with ExitStack() as stack:
        workers = {}
        tell_who_waits(f"starting {len(names)} variants, each in a process of its own")
        with _bound(cores):
            for name in names:
                workers[name] = Worker(name, environment)
        made = Team(workers, needed)
        stack.callback(lambda: [worker.close() for worker in made.workers.values()])
        yield made


@contextmanager
def _bound(cores: int | None) -> Iterator[None]:
    """Bind this process to so many of its cores for a while: the processes that it starts stay bound."""
    if cores is None:
        yield
        return
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(mine)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


class _Served:
    """What a worker does: each public method answers a request."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._variant: Variant | None = None
        self._gpu = -1
        self._before = 0

    def digits(self, images: int, batch: int, gpu: int = -1) -> None:
        """Make the variant for MNIST's test images, repeated if there are too few; by default on the CPU."""
        select_device(gpu)  # the current device is PyTorch's, too
        self._gpu = gpu
        self._pairs = [np.resize(part, (images, 1, 28, 28)) for part in digit_pairs(min(images, 10_000))]
        with device_errors(gpu):
            self._variant = make_variant(self._name, *self._pairs, gpu, batch)

    def check(self, batch: int) -> None:
        """Compare the variant with plain Chainer, whose memory does not count; then make it anew."""
        check(self._name, self._variant, *self._pairs, batch)
        self._variant = make_variant(self._name, *self._pairs, batch=batch)
        if measure.can_forget_peak():
            measure.forget_peak()

    def large(self, side: int, images: int) -> None:
        """Make the variant for images of another size, which digits fill. They serve as targets, too."""
        across = -(-side // 28)
        digits = np.resize(digit_pairs(100)[1], (images, across, across, 28, 28))
        sheets = digits.swapaxes(2, 3).reshape(images, 1, across * 28, across * 28)
        self._pairs = [np.ascontiguousarray(sheets[..., :side, :side])] * 2
        del digits, sheets
        self._variant = make_variant(self._name, *self._pairs, batch=images)

    def kinds(self) -> list[str]:
        """What the variant can do."""
        return [kind for kind in measure.KINDS if getattr(self._variant, kind) is not None]

    def time(self, kind: str, batch: int, number: int) -> list[float]:
        """Take a turn."""
        run, count = getattr(self._variant, kind), len(self._pairs[0])
        chosen = measure.chosen_images(count, batch, number)
        if self._gpu < 0:
            return measure.turn(run, chosen)
        indices = np.arange(count)[chosen]  # the engine and a CUDA graph take no slice
        with device_errors(self._gpu):
            return measure.turn(run, indices, measure.GPU_RUNS, measure.synchroniser(self._gpu))

    def peak(self) -> float:
        """GFLOP/s of a matrix product by NumPy."""
        return measure.matrix_product_peak()

    def memory(self) -> float:
        """Peak resident megabytes of this process."""
        return measure.peak_resident_bytes() / 2**20

    def remember_memory(self) -> None:
        """Remember how much memory the process has before it computes large images."""
        self._before = measure.resident_bytes()

    def forget_peak(self) -> None:
        """From now on `more_memory` finds the peak of what follows."""
        measure.forget_peak()

    def more_memory(self) -> float:
        """Megabytes of the peak above what was remembered, without the images themselves."""
        return (measure.peak_resident_bytes() - self._before - self._pairs[0].nbytes) / 2**20


def main(name: str) -> None:
    """Answer requests until standard input ends."""
    with suppress(OSError):  # if memory runs out, Linux ends this process and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    served = _Served(name)
    for line in sys.stdin:
        answers.write(_answer(served, line) + "\n")
        answers.flush()


def _answer(served: _Served, line: str) -> str:
    """What a worker writes for a request: the result and null, or null and what went wrong."""
    request, arguments = json.loads(line)
    try:
        return json.dumps([getattr(served, request)(**arguments), None])
    except UserError as error:
        return json.dumps([None, str(error)])
    except Exception as error:  # libraries refuse in many ways
        return json.dumps([None, f"{type(error).__name__}: {first_line(error)}"])


if __name__ == "__main__":
    main(sys.argv[1])
