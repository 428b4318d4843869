"""Which picture files somebody means, and what their results are called."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from PIL import Image

from srmnist.system.files import FileError

RESULTS = "restored", "compared"
_HEIC_SUFFIXES = {".heic", ".heif"}  # known to Pillow only where pillow-heif is installed


def list_pictures(named: Sequence[Path]) -> tuple[list[Path], list[FileError]]:
    """List the files that are meant by files, directories and patterns.

    Parameters
    ----------
    named : sequence of Path
        A file; a directory, which means the pictures in it; or a pattern such as ``*.png``.

    Returns
    -------
    (list of Path, list of FileError)
        Each file once, in the order in which it is named, and an error for each name that means none.
    """
    pictures: dict[str, Path] = {}
    errors = []
    for name in named:
        try:
            for path in _meant_by(name):
                pictures.setdefault(os.path.realpath(path), path)
        except FileError as error:
            errors.append(error)
    return list(pictures.values()), errors


def result_files(pictures: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """What each picture's results are called: ``NAME_restored.png`` and ``NAME_compared.png``.

    NAME is the picture's name without its suffix. Where several pictures have that name, NAME has the suffix
    too (``seven_jpg``). A number is added (``seven_2``) where the results would still have the names of
    another's, or would overwrite one of `pictures`.
    """
    given = {_identity(path) for path in pictures if path.exists()}
    stems = Counter(path.stem.casefold() for path in pictures)
    taken = set()
    files = []
    for path in pictures:
        name = path.stem
        if stems[name.casefold()] > 1:
            name = "_".join(filter(None, (path.stem, path.suffix[1:])))
        for number in count(1):
            numbered = name if number == 1 else f"{name}_{number}"
            restored, compared = (out / f"{numbered}_{result}.png" for result in RESULTS)
            in_the_way = any(file.exists() and _identity(file) in given for file in (restored, compared))
            if numbered.casefold() not in taken and not in_the_way:
                break
        taken.add(numbered.casefold())
        files.append((restored, compared))
    return files


def _meant_by(name: Path) -> list[Path]:
    if name.is_dir():
        pictures = _in_directory(name)
        if not pictures:
            raise FileError(f"{name}: there is no picture in this directory")
        return pictures
    if not os.path.lexists(name) and glob.has_magic(str(name)):
        matches = sorted(map(Path, glob.glob(str(name), recursive=True)))
        lists = (_in_directory(match) if match.is_dir() else [match] for match in matches)
        pictures = [path for paths in lists for path in paths]
        if not pictures:
            raise FileError(f"{name}: no file is called so")
        return pictures
    return [name]


def _in_directory(directory: Path) -> list[Path]:
    """The files that are called like pictures, without the results of an earlier call."""
    suffixes = Image.registered_extensions().keys() | _HEIC_SUFFIXES
    try:
        files = sorted(path for path in directory.iterdir() if path.is_file())
    except OSError as error:
        raise FileError(f"{directory}: cannot be read: {error.strerror}") from error
    pictures = [path for path in files if path.suffix.lower() in suffixes and path.name[0] != "."]
    names = {path.name for path in pictures}
    return [path for path in pictures if not _is_result(path.name, names)]


def _is_result(name: str, beside: set[str]) -> bool:
    """Whether a file, together with those beside it, is the pair of results of another file there."""
    for result in RESULTS:
        stem = name.removesuffix(f"_{result}.png")
        if stem != name:
            return {f"{stem}_{other}.png" for other in RESULTS} <= beside
    return False


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
