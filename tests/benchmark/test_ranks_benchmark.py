"""The benchmark of ranks measures what it says."""

import json

import pytest

import srmnist
from helpers.jobs import ENVIRONMENT, needs_mpi


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


def test_table_of_ranks_is_narrow_on_a_processor_of_a_long_name():
    from srmnist.benchmark import ranks

    row = {"weak": 1.0, "strong": 1.0, "exchange": 1.0, "weak_efficiency": 1.0, "strong_efficiency": 1.0}
    name = "Intel(R) Xeon(R) Processor @ 2.10GHz of a provider that tells more, 2 cores, 2 threads"
    lines = ranks.table({"machine": name, "batch": 4, "ranks": {1: row, 2: row}}).splitlines()
    assert " ".join(lines[:2]).startswith(name.removesuffix(", 2 threads"))
    assert max(map(len, lines)) <= 79


def test_benchmark_without_mpiexec_says_what_to_install(monkeypatch):
    pytest.importorskip("numba", reason="Numba is not installed: there is no engine to time")
    from srmnist.benchmark import ranks

    monkeypatch.setattr(ranks.shutil, "which", lambda *args, **kwds: None)
    with pytest.raises(srmnist.UserError, match="--mpi: there is no mpiexec"):
        ranks.run(64, 1)
    with pytest.raises(srmnist.UserError, match="--batchsize 1: 2 processes divide a batch"):
        ranks.run(1, 1)
