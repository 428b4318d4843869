"""What a run reports is what it has computed."""

import json

import numpy as np

import srmnist  # noqa: F401 – first: it makes Chainer import  # isort: skip
from srmnist.figures import draw_losses, png


def test_loss_curve_shows_both_losses_of_each_epoch():
    log = [
        {"epoch": 1, "main/loss": 0.3, "validation/main/loss": 0.25},
        {"epoch": 2, "main/loss": 0.2, "validation/main/loss": 0.22},
        {"epoch": 3, "main/loss": 0.1, "validation/main/loss": 0.21},
    ]
    (ax,) = draw_losses(log).axes
    drawn = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in ax.lines}
    assert drawn == {
        name: [[entry["epoch"], entry[name]] for entry in log]
        for name in ("main/loss", "validation/main/loss")
    }
    assert {text.get_text() for text in ax.get_legend().get_texts()} == drawn.keys()
    assert all(tick == int(tick) for tick in ax.get_xticks())


def test_run_draws_its_log(home):
    log = json.loads((home / "untouched" / "log").read_text())
    assert (home / "untouched" / "loss.png").read_bytes() == png(draw_losses(log))
