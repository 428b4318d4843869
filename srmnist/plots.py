"""Plots of what evaluations measured: how PSNR is distributed, and how it depends on the size."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from srmnist.figures import Figure

_DPI = 150


def draw_psnr(psnr: Mapping[str, np.ndarray]) -> Figure:
    """How many images have which PSNR.

    Parameters
    ----------
    psnr : mapping of str to ndarray of float64, shape (N,)
        By the name of what was measured, in dB; infinite ones are left out.
    """
    figure = Figure(figsize=(7, 3.2), dpi=_DPI, layout="constrained")
    ax = figure.subplots()
    finite = {name: values[np.isfinite(values)] for name, values in psnr.items()}
    finite = {name: values for name, values in finite.items() if values.size}
    lowest = min((values.min() for values in finite.values()), default=0)
    highest = max((values.max() for values in finite.values()), default=1)
    bins = np.linspace(lowest, highest, 81).tolist()
    for number, (name, values) in enumerate(finite.items()):
        label = f"{name}, mean {values.mean():.2f} dB"
        ax.hist(values, bins, alpha=0.6, color=f"C{number}", label=label)
        ax.axvline(values.mean(), color=f"C{number}", linestyle="--", linewidth=1)
    ax.set(xlabel="PSNR of an image [dB]", ylabel="images")
    _finish(ax)
    return figure


def draw_sizes(reports: Sequence[Mapping[str, Any]]) -> Figure:
    """PSNR and readability against the size that images were shrunk to.

    Parameters
    ----------
    reports : sequence of mapping
        What ``metrics.json`` of each evaluation holds; of one data set or several.
    """
    figure = Figure(figsize=(11, 3.8), dpi=_DPI, layout="constrained")
    axes = figure.subplots(1, 2)
    styles = {"restored": "o-", "degraded": "v--", "original": "s:"}
    for number, data in enumerate(dict.fromkeys(report["data"] for report in reports)):
        chosen = sorted((report for report in reports if report["data"] == data), key=lambda r: r["size"])
        sizes = [report["size"] for report in chosen]
        for ax, measure in zip(axes, ("psnr_mean", "readability"), strict=True):
            for row, style in styles.items():
                values = [report["rows"][row][measure] for report in chosen]
                if any(value is not None for value in values):
                    points = [np.nan if value is None else value for value in values]
                    ax.plot(sizes, points, style, markersize=4, color=f"C{number}", label=f"{data}, {row}")
    axes[0].set(ylabel="PSNR, mean over images [dB]")
    axes[1].set(ylabel="share of images that 1-NN recognises")
    for ax in axes:
        ax.set(xlabel="size shrunk to [pixels]", xticks=sorted({report["size"] for report in reports}))
        _finish(ax)
    return figure


def _finish(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize="small")
