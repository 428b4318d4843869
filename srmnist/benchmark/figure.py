"""The benchmark's figure: the variants side by side, and how the cost grows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from srmnist.benchmark import measure
from srmnist.benchmark.growth import a_megapixel
from srmnist.benchmark.variants import ENGINE, PLAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]


def figure(result: Mapping[str, Any]) -> Figure:
    """Draw what was measured; a panel without figures stays away.

    Parameters
    ----------
    result : dict
        As ``--json`` writes it.
    """
    from matplotlib.figure import Figure

    growth = result.get("growth", {})
    panels: list[Callable[[Axes, Mapping[str, str]], None]] = []
    if "variants" in result:
        panels += [
            lambda axes, colours, kind=kind: _bars(axes, colours, result, kind) for kind in measure.KINDS
        ]
    for part, kind, column, label in (
        ("batch", "step", "batch", "training step [ms an image]"),
        ("batch", "evaluate", "batch", "evaluation [ms an image]"),
        ("side", "evaluate", "side", "one image restored [ms a megapixel]"),
        ("training", "step", "side", "training step [ms a megapixel]"),
    ):
        if rows := growth.get(part):
            panels.append(
                lambda axes, colours, rows=rows, kind=kind, column=column, label=label: _curves(
                    axes, colours, rows, kind, column, label
                )
            )
    colours = _colours(result)
    high = max(1, -(-len(panels) // 2))
    drawn = Figure(figsize=(10, 3.2 * high + 0.6), layout="constrained")
    cells = drawn.subplots(high, 2, squeeze=False).ravel()
    for axes, draw in zip(cells, panels, strict=False):
        draw(axes, colours)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in cells[len(panels) :]:
        axes.remove()
    handles = {line.get_label(): line for axes in drawn.axes for line in axes.get_lines()}
    if handles:
        drawn.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False)
    return drawn


def _colours(result: Mapping[str, Any]) -> dict[str, str]:
    """A colour for each variant, the same in all panels; the engine's is black."""
    rows: Iterable[Row] = (row for part in result.get("growth", {}).values() for row in part)
    names = dict.fromkeys([*result.get("variants", ()), *(row.get("variant") for row in rows)])
    others = [name for name in names if name not in (ENGINE, PLAIN, None)]
    return {ENGINE: "black", PLAIN: "grey"} | {name: f"C{i % 10}" for i, name in enumerate(others)}


def _bars(axes: Axes, colours: Mapping[str, str], result: Mapping[str, Any], kind: str) -> None:
    """Milliseconds of each variant; plain Chainer's, many times as long, are in the title."""
    shown = {name: row for name, row in result["variants"].items() if name != PLAIN and f"{kind}_ms" in row}
    times = [row[f"{kind}_ms"] for row in shown.values()]
    ends = [row[f"{kind}_quartiles_ms"] for row in shown.values()]
    spread = [
        [max(0, time - low) for time, (low, _) in zip(times, ends, strict=True)],
        [max(0, high - time) for time, (_, high) in zip(times, ends, strict=True)],
    ]
    bars = axes.barh(list(shown), times, xerr=spread, color=[colours[name] for name in shown], ecolor="grey")
    axes.bar_label(bars, fmt="%.1f ms", padding=3, fontsize="small")
    axes.tick_params(axis="y", labelsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.2)
    what = {"step": "training step", "evaluate": "evaluation"}[kind]
    axes.set_xlabel(f"{what}, batch {result['batch']} [ms]")
    plain = result["variants"].get(PLAIN)
    if plain:
        axes.set_title(f"plain Chainer: {plain[f'{kind}_ms']:.0f} ms", fontsize="medium")


def _curves(
    axes: Axes, colours: Mapping[str, str], rows: Iterable[Row], kind: str, column: str, label: str
) -> None:
    """A line for each variant."""
    from matplotlib.ticker import LogLocator

    lines: dict[str, list[tuple[int, float]]] = {}
    sizes: set[int] = set()
    for row in rows:
        if (time := row.get(f"{kind}_ms")) is not None:
            cost = a_megapixel(row, time) if column == "side" else time / row["batch"]
            lines.setdefault(row["variant"], []).append((row[column], cost))
            sizes.add(row[column])
    for name, points in lines.items():
        width = 2.5 if name == ENGINE else 1.2
        axes.plot(*zip(*points, strict=True), marker=".", color=colours[name], linewidth=width, label=name)
    axes.set(
        xscale="log", yscale="log", ylabel=label, xlabel="images a batch" if column == "batch" else "side"
    )
    axes.set_xticks(sorted(sizes), [str(size) for size in sorted(sizes)])
    axes.xaxis.set_minor_formatter("")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
