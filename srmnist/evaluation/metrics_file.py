"""``metrics.json``: the measures of an evaluation, for other programs and for `draw_sizes`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from srmnist.evaluation.scores import DEGRADED, ORIGINAL, RESTORED, Scores, Summary
from srmnist.system.files import FileError, read_regular

_LARGEST = 1 << 20
_NAMES = (DEGRADED, RESTORED, ORIGINAL)


def metrics_file(
    data: str, size: int, neighbours: int, scores: Mapping[str, Scores], classes: Mapping[str, np.ndarray]
) -> bytes:
    """The content of ``metrics.json``.

    Parameters
    ----------
    data : str
        Name of the data set.
    size : int
        Height and width that the images were shrunk to.
    neighbours : int
        Training images that each image was compared with.
    scores : mapping of str to Scores
        For each row of the table.
    classes : mapping of str to ndarray of bool, shape (N,)
        For each class, which images belong to it.
    """
    metrics = {
        "data": data,
        "size": size,
        "images": len(scores[ORIGINAL].squared_error),
        "neighbours": neighbours,
        "rows": {name: _jsonable(row.summary()) for name, row in scores.items()},
        "classes": {
            label: {name: _jsonable(scores[name].summary(chosen)) for name in _NAMES}
            for label, chosen in classes.items()
        },
    }
    return (json.dumps(metrics, indent=2) + "\n").encode()


def load_metrics(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read several ``metrics.json``.

    Raises
    ------
    FileError
        If a file cannot be read, or is no ``metrics.json``.
    """
    return [_load(path) for path in files]


def _load(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(read_regular(path, _LARGEST))
        rows = [metrics["rows"][name] for name in _NAMES]
        measured = [row[measure] for row in rows for measure in ("psnr_mean", "readability")]
        numbers = [metrics["size"], *(value for value in measured if value is not None)]
        if not all(isinstance(number, int | float) for number in numbers):
            raise TypeError
        return {**metrics, "data": str(metrics["data"])}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(f"{path}: not a metrics.json that scripts/evaluate.py has written") from error


def _jsonable(summary: Summary) -> dict[str, float | None]:
    """A summary as JSON: JSON has no infinity (the PSNR of an image without error), so it becomes null."""
    return {
        name: None if value is None or math.isinf(value) else value for name, value in asdict(summary).items()
    }
