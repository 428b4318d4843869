"""The tables that an evaluation prints."""

from collections.abc import Mapping
from typing import TextIO

import numpy as np

from srmnist.evaluation.scores import DEGRADED, RESTORED, Scores, Summary


class Output:
    """Prints lines to a stream. If that fails, the evaluation goes on, and `check` raises the error later.

    Parameters
    ----------
    stream : text stream or None
        None prints nothing: under ``pythonw`` there is no standard output.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._error: OSError | UnicodeError | None = None

    def line(self, text: str) -> None:
        if self._error is None and self._stream is not None:
            try:
                print(text, file=self._stream, flush=True)
            except (OSError, UnicodeError) as error:
                self._error = error

    def check(self) -> None:
        if self._error is not None:
            raise self._error


HEADER = f"{'':10}{'MSE':>9}{'PSNR':>9}{'of mean MSE':>13}{'SSIM':>8}{'1-NN':>8}"


def row(name: str, summary: Summary) -> str:
    """A line of the first table: the measures of all images."""
    return (
        f"{name:10}{summary.mse:9.6f}{summary.psnr_mean:9.3f}{summary.psnr_of_mse:13.3f}"
        f"{_three_digits(summary.ssim):>8}{_three_digits(summary.readability):>8}"
    )


def class_table(classes: Mapping[str, np.ndarray], scores: Mapping[str, Scores]) -> str:
    """The second table: for each class the measures of the degraded and of the restored images."""
    lines = ["", f"{'class':>5}{'images':>8}{'PSNR':>17}{'SSIM':>16}{'1-NN':>16}"]
    for label, chosen in classes.items():
        before, after = (scores[name].summary(chosen) for name in (DEGRADED, RESTORED))
        pairs = (
            f"{before.psnr_mean:.3f} → {after.psnr_mean:.3f}",
            f"{_three_digits(before.ssim)} → {_three_digits(after.ssim)}",
            f"{_three_digits(before.readability)} → {_three_digits(after.readability)}",
        )
        lines.append(f"{label:>5}{chosen.sum():8,}{pairs[0]:>17}{pairs[1]:>16}{pairs[2]:>16}")
    return "\n".join(lines)


def _three_digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
