"""Data sets are found under the names and in the directories in which people have them."""

import gzip
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import srmnist  # first: it makes Chainer import  # isort: skip
from srmnist import UserError
from srmnist.data import load

from conftest import write_idx

IMAGES = {"train": srmnist.load_dataset().train.images[:6], "test": srmnist.load_dataset().test.images[:4]}
LABELS = {"train": srmnist.load_dataset().train.labels[:6], "test": srmnist.load_dataset().test.labels[:4]}


@pytest.fixture(autouse=True)
def say_anew():
    """What is said once in a process is said once in each test."""
    load._say.cache_clear()


def make(
    images: str = "{}-images-idx3-ubyte",
    labels: str = "{}-labels-idx1-ubyte",
    test: str = "t10k",
    array: Callable[[np.ndarray], np.ndarray] = lambda images: images,
) -> Callable[[Path], None]:
    """Function that writes a data set into a directory, its files under such names."""

    def write(directory: Path) -> None:
        for half, word in (("train", "train"), ("test", test)):
            for name, content in ((images, array(IMAGES[half])), (labels, LABELS[half])):
                path = directory / name.format(word)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_idx(path, content)
                if path.suffix == ".gz":
                    path.write_bytes(gzip.compress(path.read_bytes()))

    return write


def emnist(split: str, folder: str = "", suffix: str = "") -> Callable[[Path], None]:
    name = f"{folder}emnist-{split}-{{}}"
    return make(
        f"{name}-images-idx3-ubyte{suffix}",
        f"{name}-labels-idx1-ubyte{suffix}",
        "test",
        lambda images: images.swapaxes(1, 2),
    )


def qmnist(directory: Path) -> None:
    """Labels are eight 32-bit integers for each image; the first is the class."""
    make("qmnist-{}-images-idx3-ubyte", "unused", "test")(directory)
    (directory / "unused").unlink()
    for half, labels in LABELS.items():
        table = np.zeros((len(labels), 8), ">i4")
        table[:, 0], table[:, 1:] = labels, np.arange(70_000, 70_007)
        header = struct.pack(">3I", 0xC02, *table.shape)
        (directory / f"qmnist-{half}-labels-idx2-int").write_bytes(header + table.tobytes())


LAYOUTS = {
    "MNIST": (make(), "", "set"),
    "MNIST, gzip": (make("{}-images-idx3-ubyte.gz", "{}-labels-idx1-ubyte.gz"), "", "set"),
    "unpacked with a point": (make("{}-images.idx3-ubyte", "{}-labels.idx1-ubyte"), "", "set"),
    "test for t10k": (make(test="test"), "", "set"),
    "torchvision's root": (
        make("MNIST/raw/{}-images-idx3-ubyte", "MNIST/raw/{}-labels-idx1-ubyte"),
        "",
        "MNIST",
    ),
    "torchvision's folder": (make("raw/{}-images-idx3-ubyte", "raw/{}-labels-idx1-ubyte"), "", "set"),
    "torchvision's files": (make("raw/{}-images-idx3-ubyte", "raw/{}-labels-idx1-ubyte"), "raw", "set"),
    "one level down": (make("MNIST/{}-images-idx3-ubyte", "MNIST/{}-labels-idx1-ubyte"), "", "MNIST"),
    "Kaggle": (
        make("{0}-images-idx3-ubyte/{0}-images-idx3-ubyte", "{0}-labels-idx1-ubyte/{0}-labels-idx1-ubyte"),
        "",
        "set",
    ),
    "EMNIST": (emnist("letters"), "", "emnist-letters"),
    "EMNIST's archive": (emnist("mnist", "gzip/", ".gz"), "", "emnist-mnist"),
    "torchvision's EMNIST": (emnist("digits", "EMNIST/raw/"), "EMNIST", "emnist-digits"),
    "QMNIST": (qmnist, "", "qmnist"),
    "a file of images": (make(), "train-images-idx3-ubyte", "set"),
    "a file of labels": (
        emnist("letters", "", ".gz"),
        "emnist-letters-test-labels-idx1-ubyte.gz",
        "emnist-letters",
    ),
}


def assert_mnist(dataset) -> None:
    for split, half in zip(dataset, ("train", "test"), strict=True):
        np.testing.assert_array_equal(split.images, IMAGES[half], strict=True)
        np.testing.assert_array_equal(split.labels, LABELS[half])
        assert split.no_labels == ""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_data_set_is_found_where_people_have_it(layout, tmp_path):
    write, given, name = LAYOUTS[layout]
    write(tmp_path / "set")
    dataset = srmnist.load_dataset(tmp_path / "set" / given)
    assert_mnist(dataset)
    assert dataset.name == name


def test_first_bytes_decide_what_is_packed(tmp_path):
    make("{}-images-idx3-ubyte.gz", "{}-labels-idx1-ubyte")(tmp_path)
    for path in tmp_path.iterdir():  # a browser has unpacked the images; somebody packed the labels
        content = path.read_bytes()
        path.write_bytes(gzip.decompress(content) if path.suffix else gzip.compress(content))
    assert_mnist(srmnist.load_dataset(tmp_path))


def test_emnist_is_turned_without_a_copy_and_that_is_said_once(tmp_path, capsys):
    emnist("letters")(tmp_path)
    for _ in range(2):
        assert_mnist(dataset := srmnist.load_dataset(tmp_path))
    assert dataset.train.images.base is not None
    assert capsys.readouterr().err == (
        "emnist-letters: EMNIST's files hold each image transposed; the images are turned upright\n"
    )


def test_of_several_data_sets_the_user_chooses(tmp_path):
    for split in ("balanced", "letters"):
        emnist(split, "EMNIST/raw/")(tmp_path)
    make("MNIST/raw/{}-images-idx3-ubyte", "MNIST/raw/{}-labels-idx1-ubyte")(tmp_path)
    with pytest.raises(UserError, match="3 data sets") as caught:
        srmnist.load_dataset(tmp_path)
    choices = str(caught.value).partition("choose one: --data ")[2].split(", ")
    assert choices == [
        f"{tmp_path}/EMNIST/raw/emnist-balanced",
        f"{tmp_path}/EMNIST/raw/emnist-letters",
        f"{tmp_path}/MNIST/raw",
    ]
    for choice in choices:
        assert_mnist(srmnist.load_dataset(choice))
    assert srmnist.load_dataset(tmp_path / "EMNIST" / "emnist-letters").name == "emnist-letters"


def test_names_of_files_choose_between_sets_of_one_directory(tmp_path):
    make()(tmp_path)
    qmnist(tmp_path)
    with pytest.raises(UserError, match="2 data sets") as caught:
        srmnist.load_dataset(tmp_path)
    choices = str(caught.value).partition("choose one: --data ")[2].split(", ")
    assert [srmnist.load_dataset(choice).name for choice in choices] == [tmp_path.name, "qmnist"]


def refusal(data: Path) -> str:
    with pytest.raises(UserError, match=re.escape(f"--data {data}: ")) as caught:
        srmnist.load_dataset(data)
    (line,) = str(caught.value).splitlines()
    return line


def test_what_is_not_found_is_answered_with_what_is_there(tmp_path):
    assert refusal(tmp_path).endswith(f"has no train-images-idx3-ubyte (or .gz); {tmp_path} holds nothing")
    for number in range(9):
        (tmp_path / f"emnist_{number}.csv").touch()
    assert "emnist_0.csv, emnist_1.csv" in refusal(tmp_path)
    assert refusal(tmp_path).endswith("emnist_5.csv and 3 more")
    assert "emnist_5.csv and 3 more" in refusal(tmp_path / "emnist-letters")
    assert "no such directory" in refusal(tmp_path / "absent" / "data")


def test_half_a_data_set_is_answered_with_what_it_lacks(tmp_path):
    emnist("letters")(tmp_path)
    (tmp_path / "emnist-letters-test-images-idx3-ubyte").unlink()
    for data in (tmp_path, tmp_path / "emnist-letters", tmp_path / "emnist-letters-train-images-idx3-ubyte"):
        line = refusal(data)
        assert "has no emnist-letters-test-images-idx3-ubyte" in line
        assert "holds emnist-letters-test-labels-idx1-ubyte, emnist-letters-train-images-idx3-ubyte" in line


def test_archive_in_the_directory_is_to_be_unpacked(tmp_path):
    (tmp_path / "gzip.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    assert refusal(tmp_path).endswith("holds gzip.zip; gzip.zip is a ZIP archive: unpack it")
    assert "a ZIP archive: unpack it" in refusal(tmp_path / "gzip.zip")


def test_files_that_programs_hide_are_not_taken_for_data(tmp_path):
    make()(tmp_path)
    make("._{}-images-idx3-ubyte", "._{}-labels-idx1-ubyte")(tmp_path)
    make("__MACOSX/._{}-images-idx3-ubyte", "__MACOSX/._{}-labels-idx1-ubyte")(tmp_path)
    assert_mnist(srmnist.load_dataset(tmp_path))


LABELS_FILE = "train-labels-idx1-ubyte"
UNUSABLE = {
    "absent": (lambda path: path.unlink(), "no labels beside train-images-idx3-ubyte"),
    "too few": (lambda path: write_idx(path, LABELS["test"]), f"{LABELS_FILE}: 4 labels for 6 images"),
    "images": (lambda path: write_idx(path, IMAGES["train"]), f"{LABELS_FILE}: an IDX file of 3 dimensions"),
    "text": (lambda path: path.write_text("0\n1\n2\n"), f"{LABELS_FILE}: text"),
    "a directory": (lambda path: (path.unlink(), path.mkdir()), "no labels beside train-images-idx3-ubyte"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_labels_that_cannot_be_used_are_left_out_for_a_reason(case, tmp_path):
    make()(tmp_path)
    spoil, reason = UNUSABLE[case]
    spoil(tmp_path / LABELS_FILE)
    train, test = srmnist.load_dataset(tmp_path)
    assert train.labels is None
    assert reason in train.no_labels
    np.testing.assert_array_equal(train.images, IMAGES["train"])
    np.testing.assert_array_equal(test.labels, LABELS["test"])
