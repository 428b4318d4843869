"""How the cost grows: with the batch, the cores, the size of the images and their number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from srmnist.benchmark import images, machine, measure
from srmnist.benchmark.comparison import machine_lines, require_numba, start
from srmnist.benchmark.variants import PLAIN, TUNED_ENGINE, available
from srmnist.benchmark.workers import team

_BATCHES = (1, 4, 16, 64, 256, 1024)
_SIDES = (28, 64, 128, 256, 512, 1024, 2048, 4096)
_ALONE = 2048
_TRAINED_SIDES = (28, 64, 128, 256)
_TRAINED_PIXELS = 2**18  # of a batch, whatever its images' size
_BATCH = 64

Row = dict[str, Any]


def run(parts: list[str], rounds: int) -> dict[str, Any]:
    """Measure how the cost grows.

    Plain Chainer is left out: it needs minutes and tens of gigabytes for the largest images.

    Parameters
    ----------
    parts : list of str
        Of `PARTS`.
    rounds : int
        Turns that each variant takes in each measurement.

    Returns
    -------
    dict
        The machine's card, the versions, and under "growth" the rows of each part.

    Raises
    ------
    UserError
        If Numba is missing.
    """
    require_numba()
    found = start()
    names = [name for name in available() if name not in (PLAIN, TUNED_ENGINE)]
    return found | {"growth": {part: PARTS[part](names, rounds) for part in parts}}


def by_batch(names: list[str], rounds: int) -> list[Row]:
    """Milliseconds of a step and of an evaluation, by the number of digits in a batch."""
    rows = []
    with team(names) as members:
        members.ask("digits", images=max(_BATCHES), batch=_BATCH)
        for batch in _BATCHES:
            rows += _rows(members.times(measure.KINDS, batch, rounds), {"batch": batch})
    return rows


def by_cores(names: list[str], rounds: int) -> list[Row]:
    """The same for a batch of 64, by the number of cores that the process may use."""
    rows = []
    most = machine.cores()
    counts = sorted({most, *(2**power for power in range(most.bit_length()))})
    for count in (count for count in counts if count <= most):
        with team(names, cores=count) as members:
            members.ask("digits", images=10_000, batch=_BATCH)
            rows += _rows(members.times(measure.KINDS, _BATCH, rounds), {"cores": count})
    return rows


def by_side(names: list[str], rounds: int) -> list[Row]:
    """Milliseconds to restore one square image, and megabytes beyond the image's, by its side.

    The memory that libraries keep does not suffice for all of them at once, so the largest images have a new
    process for each variant, and no turns: a run takes seconds there.
    """
    rows = _restored(names, [side for side in _SIDES if side < _ALONE], rounds)
    for side in (side for side in _SIDES if side >= _ALONE):
        for name in names:
            rows += _restored([name], [side], 1)
    return rows


def _restored(names: list[str], sides: list[int], rounds: int) -> list[Row]:
    rows = []
    with team(names) as members:
        members.ask("large", side=min(_SIDES), images=1)
        members.times(("evaluate",), 1, 1)
        tells = measure.can_forget_peak()
        if tells:
            members.ask("remember_memory")
        for side in sides:
            members.ask("large", side=side, images=1)
            if tells:
                members.ask("forget_peak")
            found = _rows(members.times(("evaluate",), 1, rounds, warmup=0), {"side": side})
            more = members.ask("more_memory") if tells else {}
            rows += [
                row | ({"more_memory_mb": round(more[row["variant"]], 1)} if more else {}) for row in found
            ]
    return rows


def by_trained_side(names: list[str], rounds: int) -> list[Row]:
    """Milliseconds of a training step of 2¹⁸ pixels, by the side of its images."""
    rows = []
    with team(names) as members:
        for side in _TRAINED_SIDES:
            batch = _TRAINED_PIXELS // side**2
            members.ask("large", side=side, images=batch)
            rows += _rows(members.times(("step",), batch, rounds), {"side": side, "batch": batch})
    return rows


def by_images(names: list[str], rounds: int) -> list[Row]:
    """Seconds from the command to the end of the first step, and peak megabytes, by training images."""
    return [images.measured(count) for count in images.COUNTS]


def _rows(times: dict[measure.Task, list[float]], of: Row) -> list[Row]:
    rows: dict[str, Row] = {}
    for (name, kind), values in times.items():
        rows.setdefault(name, {"variant": name, **of}).update(measure.summary(kind, values))
    return list(rows.values())


PARTS: dict[str, Callable[[list[str], int], list[Row]]] = {
    "batch": by_batch,
    "cores": by_cores,
    "side": by_side,
    "training": by_trained_side,
    "images": by_images,
}


def table(result: dict[str, Any]) -> str:
    """The result for a terminal, no wider than 79 columns."""
    growth = result["growth"]
    blocks = ["\n".join(machine_lines(result))]
    if rows := growth.get("batch"):
        for kind in measure.KINDS:
            blocks.append(_grid(f"{kind}: ms an image, by batch", rows, "batch", kind, _an_image))
    if rows := growth.get("cores"):
        for kind in measure.KINDS:
            blocks.append(_grid(f"{kind}: ms, batch 64, by cores", rows, "cores", kind, lambda row, ms: ms))
    if rows := growth.get("side"):
        blocks.append(_grid("one image: ms a megapixel, by side", rows, "side", "evaluate", a_megapixel))
        blocks.append(_grid("one image: MB beyond it, by side", rows, "side", "evaluate", _more_memory))
    if rows := growth.get("training"):
        blocks.append(_grid("step of 2¹⁸ pixels: ms a megapixel, by side", rows, "side", "step", a_megapixel))
    if rows := growth.get("images"):
        lines = [f"{'training images':>16}{'first step':>12}{'peak memory':>14}"]
        lines += [
            f"{row['images']:16,}{row['first_step_s']:10.1f} s{row['peak_memory_mb']:11,} MB" for row in rows
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def a_megapixel(row: Row, milliseconds: float) -> float:
    """Milliseconds for 10⁶ pixels."""
    return milliseconds / (row.get("batch", 1) * row["side"] ** 2) * 1e6


def _an_image(row: Row, milliseconds: float) -> float:
    return milliseconds / row["batch"]


def _more_memory(row: Row, milliseconds: float) -> float:
    return row.get("more_memory_mb", float("nan"))


def _grid(title: str, rows: list[Row], column: str, kind: str, value: Callable[[Row, float], float]) -> str:
    """A line for each variant, a column for each size."""
    columns = list(dict.fromkeys(row[column] for row in rows))
    width = 57 // max(len(columns), 5)
    cells: dict[str, dict[int, str]] = {}
    for row in rows:
        if f"{kind}_ms" in row:
            number = value(row, row[f"{kind}_ms"])
            shown = f"{number:.3f}" if number < 1 else f"{number:.2f}" if number < 10 else f"{number:.0f}"
            cells.setdefault(row["variant"], {})[row[column]] = shown
    lines = [title, " " * 22 + "".join(f"{size:>{width}}" for size in columns)]
    for name, of_name in cells.items():
        lines.append(f"{name:22}" + "".join(f"{of_name.get(size, ''):>{width}}" for size in columns))
    return "\n".join(lines)
