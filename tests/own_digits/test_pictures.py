"""Files, directories and patterns mean the pictures that a user expects; results overwrite none of them."""

from pathlib import Path

import pytest

from srmnist.own_digits.pictures import list_pictures, result_files


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    for name in ("b.JPG", "a.png", "c.heic", "notes.txt", ".hidden.png", "old.png"):
        (tmp_path / name).touch()
    for name in ("old_restored.png", "old_compared.png"):  # of an earlier call
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments: str) -> list[str]:
    pictures, errors = list_pictures([Path(argument) for argument in arguments])
    assert errors == []
    return [str(path) for path in pictures]


def test_directory_means_the_pictures_in_it_without_earlier_results(folder):
    assert names(".") == ["a.png", "b.JPG", "c.heic", "old.png"]


def test_pattern_that_no_shell_has_expanded_is_expanded(folder):
    assert names("[ab].*") == ["a.png", "b.JPG"]
    (folder / "[ab].png").touch()  # the name of a file is no pattern
    assert names("[ab].png") == ["[ab].png"]


def test_each_picture_is_done_once(folder):
    assert names("a.png", ".", "./a.*") == ["a.png", "b.JPG", "c.heic", "old.png"]


def test_name_that_means_no_picture_is_an_error_beside_the_others(folder):
    pictures, errors = list_pictures([Path("empty"), Path("a.png"), Path("x*.png")])
    assert pictures == [Path("a.png")]
    assert [str(error).split(":")[0] for error in errors] == ["empty", "x*.png"]


def results(*pictures: str, out: str = "out") -> list[str]:
    files = result_files([Path(picture) for picture in pictures], Path(out))
    return [restored.name.removesuffix("_restored.png") for restored, _ in files]


def test_pictures_of_one_name_are_kept_apart(folder):
    assert results("a.png", "b.png") == ["a", "b"]
    assert results("a.png", "a.jpg", "b.png") == ["a_png", "a_jpg", "b"]
    assert results("a.png", "A.PNG", "x/a.png", "a_png.bmp") == ["a_png", "A_PNG_2", "a_png_3", "a_png_4"]


def test_results_overwrite_no_picture_that_is_given(folder):
    (folder / "a_restored.png").touch()
    assert results("a.png", "a_restored.png", out=".") == ["a_2", "a_restored"]
    assert results("a.png", out=".") == ["a"]
