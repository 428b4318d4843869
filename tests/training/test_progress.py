"""A run shows its table and its progress on any terminal, and leaves only the table there."""

import re
import sys

import pytest

import srmnist  # noqa: F401  – first: it makes Chainer import  # isort: skip
from srmnist.training.settings import Settings
from srmnist.training.train import train

from helpers.terminals import Terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")

NUMBER = r"\d+(\.\d+)?(e-\d+)?"
HEADER = "epoch main/loss validation/main/loss elapsed_time"


def shown(terminal: Terminal, small_mnist, out) -> list[str]:
    """What a run of two epochs of 128 steps leaves on a terminal, with one space between words."""
    with terminal:
        train(Settings(epoch=2, batchsize=2, data=str(small_mnist)), out, terminal=terminal.stream)
    lines = [" ".join(line.split()) for line in terminal.screen()]
    assert lines.pop() == ""  # where the cursor is
    return lines


@pytest.mark.parametrize("columns", [100, 60, 0])
def test_only_the_table_is_left_on_a_terminal_of_any_width(columns, small_mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal(columns)
    terminal.columns = columns or 80  # what a terminal that does not know its width has
    header, *rows = shown(terminal, small_mnist, tmp_path)
    assert header == HEADER
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert all(re.fullmatch(rf"\d {NUMBER} {NUMBER} {NUMBER}", row) for row in rows)
    # The header and the bars are there before the first step, and the bars move.
    bars = re.findall(r"this epoch \[[#.]+\] +([\d.]+)%", terminal.output)
    assert bars == ["0.00", "78.12", "56.25"]
    assert "Estimated time to finish: 0:00:" in terminal.output
    assert terminal.output.index("main/loss") < terminal.output.index("this epoch")


def test_dumb_terminal_gets_plain_lines(small_mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal(80)
    lines = shown(terminal, small_mnist, tmp_path)
    assert lines[0] == HEADER
    assert len(lines) == 3
    assert "\033" not in terminal.output
