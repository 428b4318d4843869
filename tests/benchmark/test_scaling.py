"""The expected scaling is the textbook's, and the benchmark of ranks measures what it says."""

import json
import math

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from conftest import ROOT
from helpers.jobs import ENVIRONMENT, needs_mpi
from srmnist.benchmark import scaling
from srmnist.benchmark.scaling import GRADIENT, Cluster

CLUSTER = Cluster(step=1e-3, latency=5e-6, bandwidth=1e9)


def simulated_ring(values: list[np.ndarray], cluster: Cluster) -> tuple[list[np.ndarray], float]:
    """The ring all-reduce itself, message by message: what every rank ends with, and the time it took."""
    ranks = len(values)
    pieces = [np.split(value, ranks) for value in values]
    seconds = 0.0
    for round_ in range(2 * (ranks - 1)):
        sent = [pieces[rank][(rank - round_) % ranks].copy() for rank in range(ranks)]
        for rank in range(ranks):
            at, received = (rank - 1 - round_) % ranks, sent[rank - 1]
            gathering = round_ >= ranks - 1
            pieces[rank][at] = received if gathering else pieces[rank][at] + received
        seconds += cluster.latency + sent[0].nbytes / cluster.bandwidth
    return [np.concatenate(piece) for piece in pieces], seconds


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_all_reduce_costs_what_the_ring_takes_message_by_message(ranks):
    values = list(np.random.default_rng(0).random((ranks, 48)))
    sums, seconds = simulated_ring(values, CLUSTER)
    for found in sums:
        np.testing.assert_allclose(found, np.sum(values, axis=0))
    assert scaling.ring_all_reduce(CLUSTER, ranks, 48 * 8) == pytest.approx(seconds)


def test_gradient_has_the_size_of_the_model():
    assert sum(parameter.array.nbytes for parameter in srmnist.CNNAE().params()) == GRADIENT


def test_one_rank_gains_and_loses_nothing():
    assert scaling.weak_speedup(CLUSTER, 1) == scaling.strong_speedup(CLUSTER, 1) == 1


def test_without_a_network_s_cost_the_speed_up_is_the_number_of_ranks():
    ideal = Cluster(step=1e-3, latency=0, bandwidth=math.inf)
    assert scaling.weak_speedup(ideal, 64) == scaling.strong_speedup(ideal, 64) == pytest.approx(64)


def test_weak_speed_up_comes_near_its_limit_and_stays_below():
    limit = scaling.weak_limit(CLUSTER)
    speedups = [scaling.weak_speedup(CLUSTER, 10**power) for power in range(7)]
    assert speedups == sorted(speedups)
    assert 0.99 * limit < speedups[-1] < limit


@pytest.mark.parametrize("step", [1e-6, 1e-4, 1e-3, 17e-3])
def test_no_other_number_of_ranks_is_faster_than_the_best(step):
    cluster = CLUSTER._replace(step=step)
    speedups = [scaling.strong_speedup(cluster, ranks) for ranks in range(1, 200)]
    assert speedups[scaling.best_ranks(cluster) - 1] == max(speedups)


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_table_of_the_readme_is_the_function_s(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert scaling.table(scaling.EXAMPLES) in text
    for cluster in scaling.EXAMPLES.values():
        assert f"× {scaling.weak_limit(cluster):.0f}" in text
        assert str(scaling.best_ranks(cluster)) in text


@needs_mpi
def test_benchmark_of_ranks_measures_one_and_two(script, tmp_path, monkeypatch):
    pytest.importorskip("numba", reason="Numba is not installed: there is no engine to time")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    written = tmp_path / "ranks.json"
    done = script("benchmark.py", "--mpi", "--rounds", 1, "-b", 4, "--json", written, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(written.read_text())["ranks"]
    for count, row in rows.items():
        assert row["weak_efficiency"] == pytest.approx(rows["1"]["weak"] / row["weak"])
        assert row["strong_efficiency"] == pytest.approx(rows["1"]["strong"] / row["strong"] / int(count))
        assert 0 < row["exchange"] < row["weak"]
    assert max(map(len, done.stdout.splitlines())) <= 79
    assert [line.split()[0] for line in done.stdout.splitlines()[-2:]] == ["1", "2"]
    assert list(tmp_path.iterdir()) == [written]


def test_benchmark_without_mpiexec_says_what_to_install(monkeypatch):
    pytest.importorskip("numba", reason="Numba is not installed: there is no engine to time")
    from srmnist.benchmark import ranks

    monkeypatch.setattr(ranks.shutil, "which", lambda *args, **kwds: None)
    with pytest.raises(srmnist.UserError, match="--mpi: there is no mpiexec"):
        ranks.run(64, 1)
