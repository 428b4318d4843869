"""The page is one file that asks for nothing from outside, and holds the weights that it was given."""

import base64
import hashlib
import re
import runpy
import sys

import chainer
import numpy as np
import pytest

import srmnist
from conftest import ROOT
from helpers.page import COMMITTED, data_of, prototypes_of
from helpers.users import SCRIPTS
from srmnist.data import embedded_mnist
from srmnist.page import export, reader


@pytest.fixture(scope="module")
def page():
    """The page that is committed."""
    return COMMITTED.read_text("utf-8")


@pytest.fixture
def export_html(tmp_path, monkeypatch, capsys):
    """Run scripts/export_html.py in this process; returns its status, its stdout and its stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["export_html.py", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPTS / "export_html.py"), run_name="__main__")
        return (end.value.code, *capsys.readouterr())

    return run


def test_committed_page_is_what_the_script_writes_from_the_committed_weights(export_html, tmp_path):
    status, out, err = export_html("--model", ROOT / "results" / "model.npz", "--out", "try.html")
    assert (status, err) == (0, "")
    assert (tmp_path / "try.html").read_bytes() == COMMITTED.read_bytes(), (
        "results/try.html is old; scripts/export_html.py writes it again"
    )
    assert out == f"written: try.html ({COMMITTED.stat().st_size:,} bytes; open it in a browser)\n"


def test_page_is_well_under_500_kb():
    assert COMMITTED.stat().st_size < 300_000


def test_page_names_no_other_file_but_in_a_link_to_follow(page):
    addresses = re.findall(r'(?:src|href|action|poster|data)\s*=\s*"([^"]*)"', page)
    outside = [address for address in addresses if not address.startswith("data:")]
    assert outside == ["https://qiita.com/kzkadc/items/321f2196bfd4fe0f4132"]
    assert not re.search(r"url\(|@import|\bimport\b|\bfetch\b|XMLHttpRequest|WebSocket|sendBeacon", page)


def test_policy_forbids_every_connection_and_every_other_script(page):
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    directives = {name: values for name, *values in map(str.split, policy.split(";"))}
    assert directives.pop("default-src") == directives.pop("base-uri") == directives.pop("form-action")
    assert directives.pop("img-src") == ["data:"]
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        contents = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        hashes = (base64.b64encode(hashlib.sha256(content.encode()).digest()) for content in contents)
        assert directives.pop(directive) == [f"'sha256-{digest.decode()}'" for digest in hashes]
    assert not directives
    assert "default-src 'none';" in policy


def test_page_holds_the_weights_that_it_was_given(export_html, weights, tmp_path):
    assert export_html("--model", weights, "-o", "other.html")[0] == 0
    data = data_of((tmp_path / "other.html").read_text("utf-8"))
    numbers = np.frombuffer(base64.b64decode(data["weights"]), "<f4")
    model = srmnist.load_weights(weights, srmnist.CNNAE())
    assert data["parameters"] == 23_985
    assert len(numbers) == 23_761 - 1 + 16 + 32 + 64 + 1
    np.testing.assert_array_equal(numbers[-577:-1], model.conv4.W.array.ravel())
    # Before any training batch normalisation only divides by sqrt(1 + epsilon).
    np.testing.assert_allclose(
        numbers[:144], model.conv1.W.array.ravel() / np.sqrt(1 + model.bn1.eps), rtol=1e-6
    )


def test_slider_begins_where_size_says(export_html, weights, tmp_path):
    assert export_html("--model", weights, "--out", "page.html", "--size", 7)[0] == 0
    assert data_of((tmp_path / "page.html").read_text("utf-8"))["size"] == 7


def test_ten_test_digits_are_the_first_of_each_kind(page):
    digits = np.frombuffer(base64.b64decode(data_of(page)["digits"]), np.uint8).reshape(10, 28, 28)
    test = embedded_mnist().test
    for digit, image in enumerate(digits):
        assert (image == test.images[np.flatnonzero(test.labels == digit)[0]]).all()


def test_accuracy_in_the_page_is_the_reader_s_on_the_test_images(page):
    data = data_of(page)
    known = prototypes_of(data)
    test = embedded_mnist().test
    # Compared pixel by pixel, another way than the reader's.
    small = reader.shrink_for_reader(test.images[:500])
    nearest = ((small[:, None] - known[None].astype(np.float32)) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(reader.read(test.images[:500], known), nearest // (len(known) // 10))
    assert data["accuracy"] == (reader.read(test.images, known) == test.labels).mean()
    assert data["accuracy"] > 0.94


@pytest.fixture
def negative_variance(weights, tmp_path):
    """Weights that are finite, but that batch normalisation cannot divide by."""
    with np.load(weights) as npz:
        arrays = {**npz, "bn2/avg_var": np.full(32, -1, np.float32)}
    np.savez(tmp_path / "negative.npz", **arrays)


@pytest.mark.parametrize(
    ("command", "blamed"),
    [
        ("--model absent.npz", "absent.npz"),
        ("--model noise.npz", "noise.npz"),
        ("--model negative.npz", "negative.npz"),
        ("--model model.npz --size 3", "--size 3"),
        ("--model model.npz --size 29", "--size 29"),
        ("--model model.npz --size ten", "--size"),
        ("--model model.npz --out noise.npz/try.html", "noise.npz"),
        ("--model model.npz --out model.npz", "is an input"),
        ("", "results/model.npz"),
    ],
)
@pytest.mark.usefixtures("negative_variance")
def test_bad_input_gets_one_line_and_writes_nothing(export_html, tmp_path, command, blamed):
    (tmp_path / "noise.npz").write_bytes(b"no archive")
    before = sorted(tmp_path.rglob("*"))
    status, out, err = export_html(*command.split())
    (line,) = err.splitlines()
    assert (status, out) == (2, "")
    assert blamed in line
    assert sorted(tmp_path.rglob("*")) == before


def test_help_names_every_flag(export_html):
    status, out, _ = export_html("--help")
    assert status == 0
    assert {"--model", "--out", "-o", "--size"} <= set(re.findall(r"(?<!\w)--?[\w-]+", out))


def test_folding_keeps_what_the_layers_compute():
    """Statistics and factors of every size, negative ones included, on one convolution after the other."""
    generator = np.random.default_rng(0)
    model = srmnist.CNNAE()
    for bn in (model.bn1, model.bn2, model.bn3):
        shape = bn.avg_mean.shape
        bn.gamma.array[:] = generator.normal(size=shape)
        bn.beta.array[:] = generator.normal(size=shape)
        bn.avg_mean[:] = generator.normal(size=shape)
        bn.avg_var[:] = generator.exponential(size=shape)
    folded = export.fold(model)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        for (weights, biases), conv, bn in zip(
            folded, (model.conv1, model.conv2, model.conv3), (model.bn1, model.bn2, model.bn3), strict=False
        ):
            x = generator.random((1, conv.W.shape[1], 6, 6), np.float32)
            single = chainer.functions.convolution_2d(
                x, weights.astype(np.float32), biases.astype(np.float32), pad=1
            )
            np.testing.assert_allclose(single.array, bn(conv(x)).array, atol=1e-4, rtol=1e-4)
