"""The files of a data set are found in a directory, under all names that MNIST's relatives have.

MNIST has ``train-images-idx3-ubyte`` and ``t10k-images-idx3-ubyte``; some programs unpack them as
``train-images.idx3-ubyte``. EMNIST has ``emnist-letters-train-images-idx3-ubyte`` and
``emnist-letters-test-…``; QMNIST ``qmnist-train-images-idx3-ubyte`` and the labels
``qmnist-train-labels-idx2-int``. torchvision keeps the files in ``MNIST/raw``; Kaggle puts a file into a
directory of the same name.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from srmnist.data.foreign import describe_file
from srmnist.system.errors import UserError

_NAME = re.compile(
    r"(?:(?P<set>[^.].*)[-_.])?(?P<half>train|t10k|test)[-_.](?P<content>images|labels)"
    r"[-_.]idx\d[-_.](?:ubyte|int)(?:\.gz)?",
    re.IGNORECASE,
)
# Directories of data sets have these in them, which say nothing about the set.
_INNER = ("raw", "gzip")
_SHOWN = 6  # names in a message

TRAIN, TEST = "train", "test"
IMAGES, LABELS = "images", "labels"


@dataclass(frozen=True)
class Files:
    """The files of one data set.

    Attributes
    ----------
    folder : Path
    prefix : str
        What the names begin with: ``emnist-letters``; empty for MNIST's own names.
    paths : dict of (str, str) to Path
        By half, `TRAIN` or `TEST`, and content, `IMAGES` or `LABELS`: those that there are.
    """

    folder: Path
    prefix: str
    paths: dict[tuple[str, str], Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The data set's name: the names' beginning, or else the directory's name."""
        if self.prefix:
            return self.prefix
        folder = self.folder.resolve()
        return next((part for part in reversed(folder.parts) if part not in _INNER), folder.name)

    @property
    def whole(self) -> bool:
        """Whether there are images to train and to test with."""
        return {(TRAIN, IMAGES), (TEST, IMAGES)} <= self.paths.keys()

    def images_name(self, half: str) -> str:
        """The name under which a file of images is published."""
        if self.prefix:
            return f"{self.prefix}-{half}-images-idx3-ubyte"
        return f"{'t10k' if half == TEST else half}-images-idx3-ubyte"


def find_files(data: Path) -> Files:
    """Find the data set that a user has named.

    Parameters
    ----------
    data : Path
        A directory that holds one data set, itself or one level down; of a directory that holds several, the
        directory and a set's name, as in ``EMNIST/emnist-letters``; or one file of the set.

    Raises
    ------
    UserError
        If there is no data set, or more than one; it says what there is.
    """
    if os.path.isdir(data):  # pathlib's would raise OSError for some names
        return _only(data, _sets_below(data))
    folder, prefix = data.parent, data.name
    if os.path.exists(data):
        named = _NAME.fullmatch(data.name)
        if named is None:
            raise UserError(f"--data {data}: {describe_file(data)}; give a directory of IDX files")
        return _only(data, [files for files in _sets_in(folder) if files.prefix == (named["set"] or "")])
    beside = os.path.isdir(folder)
    found = [files for files in _sets_below(folder) if files.prefix == prefix] if beside else []
    if not found:
        there = f"; {folder} holds {_listing(folder)}" if beside else ""
        raise UserError(f"--data {data}: there is no such directory, file or data set{there}")
    return _only(data, found)


def _only(data: Path, sets: list[Files]) -> Files:
    whole = [files for files in sets if files.whole]
    if len(whole) > 1:
        choices = _choices(whole)
        raise UserError(f"--data {data}: holds {len(whole)} data sets; choose one: --data {choices}")
    if whole:
        return whole[0]
    files = sets[0] if sets else Files(data, "")
    missing = files.images_name(next(half for half in (TRAIN, TEST) if (half, IMAGES) not in files.paths))
    there = f"{files.folder} holds {_listing(files.folder)}"
    raise UserError(f"--data {data}: has no {missing} (or .gz); {there}")


def _choices(sets: list[Files]) -> str:
    """What to give to ``--data`` to choose each of the data sets."""
    alone = [[other.folder for other in sets].count(files.folder) == 1 for files in sets]
    return ", ".join(
        str(files.folder if single else files.folder / (files.prefix or files.images_name(TRAIN)))
        for files, single in zip(sets, alone, strict=True)
    )


def _sets_below(folder: Path) -> list[Files]:
    """The data sets in a directory; if no whole one is there, those one level down as well."""
    sets = _sets_in(folder)
    if any(files.whole for files in sets):
        return sets
    for name in sorted(_names(folder)):
        for inner in (folder / name, *(folder / name / each for each in _INNER)):
            if os.path.isdir(inner):
                with suppress(UserError):  # not a directory that the user has named
                    sets += _sets_in(inner)
    return sets


def _sets_in(folder: Path) -> list[Files]:
    """The data sets whose files lie in a directory, by name. Files that are not packed go first."""
    sets: dict[str, Files] = {}
    for name in sorted(_names(folder), key=_preference):
        named = _NAME.fullmatch(name)
        path = folder / name
        if named is None:
            continue
        if path.is_dir():
            path /= name
            if not path.exists():
                continue
        prefix, half = named["set"] or "", TRAIN if named["half"].lower() == TRAIN else TEST
        files = sets.setdefault(prefix, Files(folder, prefix))
        files.paths.setdefault((half, named["content"].lower()), path)
    return [sets[prefix] for prefix in sorted(sets)]


def _preference(name: str) -> tuple[bool, bool, str]:
    return name.endswith(".gz"), "t10k" not in name, name


def _names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        raise UserError(f"--data: {folder}: cannot be read: {error.strerror}") from error


def _listing(folder: Path) -> str:
    """The names in a directory, the first ones of many; and of one that must be unpacked, what it is."""
    names = sorted(_names(folder))
    if not names:
        return "nothing"
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
    for name in names[:_SHOWN]:
        what = describe_file(folder / name) if (folder / name).is_file() else ""
        if what.endswith(": unpack it"):
            return f"{shown}; {name} is {what}"
    return shown
