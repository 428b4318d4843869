"""Files of figures: that they can be written is found before anything is measured."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from srmnist.system import files
from srmnist.system.errors import UserError


def require_writable(path: Path | None) -> None:
    """Refuse a file that cannot be written; None is no file.

    Raises
    ------
    UserError
        If it is a directory, or nothing can be written beside it.
    """
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{path}: is a directory; give the name of a file")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write figures as JSON."""
    text = json.dumps(result, indent=2) + "\n"
    files.write_whole(path, lambda file: file.write(text.encode()))


def joined(path: Path | None, result: dict[str, Any]) -> dict[str, Any]:
    """A result with the figures that a file holds of the same machine's other measurements.

    Raises
    ------
    UserError
        If the file holds something else.
    """
    if path is None or not path.exists():
        return result
    try:
        kept = json.loads(path.read_text())
        same = kept["machine"]["processor"] == result["machine"]["processor"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a file of this benchmark's figures; give another name") from error
    if not same:
        raise UserError(f"{path}: holds figures of another machine; give another name, or delete it")
    return kept | result | {"growth": kept.get("growth", {}) | result.get("growth", {})}
