"""A script starts, speaks and ends as a command should, whatever it is started from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import srmnist  # noqa: F401  – first: it makes Chainer import  # isort: skip
from srmnist.system import cli

from helpers.terminals import Terminal
from helpers.users import SCRIPTS

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell that closes streams, or a terminal")

# What a cell of a Jupyter or Colab notebook hands down to the commands that it starts.
NOTEBOOK = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, **variables}


@posix
def test_scripts_without_standard_streams_write_all_their_files(small_mnist, weights, tmp_path):
    """Also if a cell of a notebook starts them, and if the user's figures are set with LaTeX."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    commands = [
        f"train.py --epoch 1 --data {small_mnist} >&-",
        f"evaluate.py --data {small_mnist} --model {weights} <&- >&- 2>&-",
        f"show_results.py --data {small_mnist} --model {weights} >&- 2>&-",
    ]
    for command in commands:
        line = f'"{sys.executable}" "{SCRIPTS}"/{command}'
        done = subprocess.run(
            line, shell=True, cwd=tmp_path, env=environment(**NOTEBOOK), capture_output=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), done
    written = {path.name for path in (tmp_path / "results").iterdir()}
    assert {"model.npz", "log", "loss.png", "metrics.json", "metrics.png", "hardest.png"} <= written
    assert {"corrupt.png", "model.png", "output.png", "input_09.png", "output_09.png"} <= written


def test_what_a_stream_cannot_show_is_replaced_and_the_files_are_written(small_mnist, weights, tmp_path):
    out = tmp_path / "結果"
    command = [sys.executable, SCRIPTS / "evaluate.py", "--data", small_mnist, "--model", weights, "-o", out]
    done = subprocess.run(command, cwd=tmp_path, env=environment(**ASCII), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert " ? " in done.stdout.decode("ascii")  # an arrow in the table of classes
    assert done.stdout.decode("ascii").endswith("/??/hardest.png\n")
    assert {path.name for path in out.iterdir()} == {"metrics.json", "metrics.png", "hardest.png"}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932", "latin-1"])
def test_every_help_is_shown_in_any_encoding(encoding, tmp_path):
    scripts = sorted(SCRIPTS.glob("*.py")) if encoding == "ascii" else [SCRIPTS / "train.py"]
    for script in scripts:
        variables = environment(PYTHONIOENCODING=encoding, PYTHONUTF8="0")
        done = subprocess.run([sys.executable, script, "--help"], env=variables, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        assert "--help" in done.stdout.decode(encoding)


@posix
@pytest.mark.parametrize("name", ["train", "show_results", "evaluate", "restore a.png", "export_onnx"])
def test_terminal_shows_a_line_before_chainer_is_loaded(name, tmp_path):
    """Without Chainer, that line is all that can be shown."""
    script, *args = name.split()
    program = (
        "import runpy, sys\n"
        "sys.modules['chainer'] = None\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    terminal = Terminal(80)
    command = [sys.executable, "-c", program, SCRIPTS / f"{script}.py", *args]
    with terminal:
        done = subprocess.run(command, cwd=tmp_path, stderr=terminal.stream)
    first, *others = terminal.screen()
    assert first == "loading Chainer"
    assert any("chainer" in line for line in others)
    assert done.returncode == 1


def test_output_that_cannot_be_written_ends_in_one_line(small_mnist, weights, tmp_path):
    """The files are there all the same."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    command = [sys.executable, SCRIPTS / "evaluate.py", "--data", small_mnist, "--model", weights]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "standard output: No space left on device\n"
    assert (tmp_path / "results" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("", -1),
        ("-g", 0),
        ("--gpu", 0),
        ("-g 3", 3),
        ("--gpu=3", 3),
        ("-g3", 3),
        ("-g -1", -1),
        ("-g seven.png", 0),
        ("--gpu --size 7", 0),
    ],
)
def test_gpu_without_a_number_is_the_first(given, meant, monkeypatch):
    parser = cli.Parser()
    parser.add_argument("images", nargs="*")
    parser.add_argument("--size")
    parser.add_gpu_flag()
    monkeypatch.setattr("sys.argv", ["script", *given.split()])
    assert parser.parse().gpu == meant
