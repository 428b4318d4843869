"""Export to one HTML file: the trained network on a page that needs no server."""

import base64
import hashlib
import json
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from srmnist.data import embedded_mnist
from srmnist.model import CNNAE
from srmnist.page import reader
from srmnist.restoration import load_model
from srmnist.system.errors import UserError
from srmnist.system.files import write_all

SMALLEST, LARGEST = 4, 28  # the ends of the page's slider

_SOURCES = resources.files("srmnist.page")
_STYLE = re.compile(r'<link rel="stylesheet" href="(\w+\.css)">')
_SCRIPT = re.compile(r'<script src="(\w+\.js)"></script>')
_DATA = '<script type="application/json" id="data"></script>'


def export(model_file: Path, html_file: Path, size: int = 10) -> int:
    """Write the page, with trained weights inside it.

    Parameters
    ----------
    model_file : Path
        Weights of `CNNAE`, Chainer's npz.
    html_file : Path
        The file to write; its directory is made if it does not exist. The same weights and size make the
        same file.
    size : int, default 10
        Height and width that the page shrinks to at first, until the user moves the slider.

    Returns
    -------
    int
        Bytes written.

    Raises
    ------
    UserError
        If `size` is not on the slider, or a file is not usable; nothing has then been written.
    """
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"--size {size}: the page shrinks to {SMALLEST} up to {LARGEST} pixels")
    model = load_model(model_file)
    if not all(np.isfinite(array).all() for layer in fold(model) for array in layer):
        raise UserError(f"{model_file}: its batch normalisation gives numbers that are not finite")
    content = build(model, size).encode()
    write_all(html_file.parent, {html_file.name: content}, inputs=[model_file])
    return len(content)


def build(model: CNNAE, size: int = 10) -> str:
    """The page as text: `page.html` with style, scripts and data in their places."""
    data = json.dumps(page_data(model, size), separators=(",", ":"))
    page = _source("page.html")
    page = page.replace(_DATA, _DATA.replace("><", f">{data}<"))
    page, styles = _put_inside(page, _STYLE, "style")
    page, scripts = _put_inside(page, _SCRIPT, "script")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(scripts)}",
            f"style-src {' '.join(styles)}",
            "img-src data:",  # the icon
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    charset = '<meta charset="utf-8">\n'
    return page.replace(
        charset, f'{charset}<meta http-equiv="Content-Security-Policy" content="{policy}">\n', 1
    )


def page_data(model: CNNAE, size: int) -> dict[str, Any]:
    """What the page's scripts compute with.

    Returns
    -------
    dict
        ``weights`` are float32, see `fold`; ``channels`` are the numbers of planes between the convolutions;
        ``parameters`` says how many numbers were trained; ``digits`` are the first test image of each digit,
        uint8; ``prototypes`` come from `reader.pack`; ``accuracy`` is the fraction of MNIST's test images
        that the reader reads correctly; the slider stands at ``size`` and begins at ``smallest``. Arrays are
        in base64.
    """
    test = embedded_mnist().test
    known, accuracy = _prototypes()
    weights = [array for layer in fold(model) for array in layer]
    first = [np.flatnonzero(test.labels == digit)[0] for digit in range(10)]
    return {
        "size": size,
        "smallest": SMALLEST,
        "channels": [weights[0].shape[1], *(len(biases) for biases in weights[1::2])],
        "parameters": sum(parameter.size for parameter in model.params()),
        "accuracy": accuracy,
        "weights": _base64(b"".join(array.astype("<f4").tobytes() for array in weights)),
        "prototypes": _base64(reader.pack(known)),
        "digits": _base64(test.images[first].tobytes()),
    }


def fold(model: CNNAE) -> list[tuple[np.ndarray, np.ndarray]]:
    """The four convolutions with batch normalisation folded into them, computed in float64.

    In evaluation mode batch normalisation multiplies each plane by gamma / sqrt(variance + epsilon) and adds
    a number, so a convolution with other weights and with biases does the same.

    Returns
    -------
    list of (ndarray, ndarray), float64
        Weights (outputs, inputs, 3, 3) and biases (outputs,) of each convolution; not finite where a variance
        is negative.
    """
    layers = []
    with np.errstate(invalid="ignore", divide="ignore"):  # a negative variance; `export` refuses it
        for convolution, normalisation in (
            (model.conv1, model.bn1),
            (model.conv2, model.bn2),
            (model.conv3, model.bn3),
        ):
            variance = normalisation.avg_var.astype(np.float64) + normalisation.eps
            scale = normalisation.gamma.array / np.sqrt(variance)
            weights = convolution.W.array * scale[:, None, None, None]
            layers.append((weights, normalisation.beta.array - normalisation.avg_mean * scale))
    last = model.conv4
    return [*layers, (last.W.array.astype(np.float64), last.b.array.astype(np.float64))]


@cache
def _prototypes() -> tuple[np.ndarray, float]:
    """The reader's prototypes, and the fraction of MNIST's test images that it reads correctly."""
    train, test = embedded_mnist()
    known = reader.prototypes(train)
    return known, float((reader.read(test.images, known) == test.labels).mean())


def _put_inside(page: str, tag: re.Pattern[str], name: str) -> tuple[str, list[str]]:
    """Put the files that tags name into the page; also returns their hashes, for the page's policy."""
    hashes = []

    def inside(match: re.Match[str]) -> str:
        source = "\n" + _source(match[1])
        hashes.append(f"'sha256-{_base64(hashlib.sha256(source.encode()).digest())}'")
        return f"<{name}>{source}</{name}>"

    return tag.sub(inside, page), hashes


def _source(name: str) -> str:
    return (_SOURCES / name).read_text("utf-8")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
