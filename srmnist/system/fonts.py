"""Captions in figures, with the names of files if this computer has fonts for them."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

_OWN = "DejaVu Sans"  # comes with matplotlib


def caption(name: str, details: str) -> str:
    """The line "name, details", without the name if no installed font has its characters.

    Control characters, and bytes of a file name that are not text, become U+FFFD.
    """
    text = "".join(character if character.isprintable() else "\ufffd" for character in name)
    return details if families(text) is None else f"{text}, {details}"


@cache
def families(text: str) -> list[str] | None:
    """matplotlib's own font, and one more if a text needs it.

    Returns
    -------
    list of str or None
        For the property ``fontfamily`` of matplotlib's texts; None if this computer has no font for the text.
    """
    missing = set(map(ord, text)) - _characters(font_manager.findfont(_OWN))
    if not missing:
        return [_OWN]
    for path in _installed():
        if missing <= _characters(path):
            font_manager.fontManager.addfont(path)  # matplotlib lists the fonts at its first start only
            return [_OWN, FT2Font(path).family_name]
    return None


def _installed() -> Iterator[str]:
    """Files of installed fonts, regular ones without serifs first."""
    files = font_manager.findSystemFonts()
    yield from sorted(files, key=lambda file: ("Regular" not in file, "Serif" in file, Path(file).name))


def _characters(path: str) -> set[int]:
    """Code points that a font can draw."""
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # a font that FreeType cannot read
        return set()
    return set(font.get_charmap()) if font.scalable else set()
