"""How many photographed digits are read after scripts/restore.py, by kind of photo.

    python tests/own_digits/measure_photos.py take /tmp/photos --count 200
    python tests/own_digits/measure_photos.py read /tmp/photos --restore scripts/restore.py
    python tests/own_digits/measure_photos.py draw /tmp/photos

``take`` renders photos of MNIST's test digits, and writes ``labels.json``: the digit and the kind of each.
``read`` restores a folder that has such a file, in one call of any version of the script, and reads each
``NAME_restored.png`` with a 1-nearest-neighbour classifier over MNIST's first 20,000 training images.
``draw`` writes ``restored.png``: the first twenty of the folder, step by step.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import srmnist
from srmnist.evaluation.metrics import nearest_labels
from srmnist.figures import draw_rows, png
from srmnist.own_digits.prepare import prepare

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.photos import KINDS, take_photo

_NEIGHBOURS = 20_000
_MODEL = Path(srmnist.__file__).parents[1] / "results" / "model.npz"


def take(folder: Path, count: int, seed: int) -> None:
    """Write photos of test digits that chance chooses, of each kind in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    test = srmnist.load_dataset().test
    labels = {}
    for number, index in enumerate(
        np.random.default_rng(seed).choice(len(test.images), count, replace=False)
    ):
        kind = KINDS[number % len(KINDS)]
        name = f"{number:03d}_{kind}.jpg"
        (folder / name).write_bytes(take_photo(test.images[index], kind, seed + number))
        labels[name] = {"digit": int(test.labels[index]), "kind": kind}
    (folder / "labels.json").write_text(json.dumps(labels, indent=1))


def read(folder: Path, script: Path) -> dict[str, dict[str, int]]:
    """How many of each kind are read; what is not restored to one digit is not read."""
    labels = json.loads((folder / "labels.json").read_text())
    with tempfile.TemporaryDirectory() as out:
        photos = [folder / name for name in labels]
        command = [sys.executable, script, *photos, "--model", _MODEL, "--out", out]
        package = {"PYTHONPATH": str(script.resolve().parents[1])}
        subprocess.run(command, env={**os.environ, **package}, stdout=sys.stderr)
        restored = [_restored(Path(out) / f"{Path(name).stem}_restored.png") for name in labels]
    train = srmnist.load_dataset().train
    neighbours = train.images[:_NEIGHBOURS, None] / np.float32(255)
    found = nearest_labels(np.stack(restored), neighbours, train.labels[:_NEIGHBOURS])
    of = Counter(label["kind"] for label in labels.values())
    right = Counter(
        label["kind"]
        for label, image, digit in zip(labels.values(), restored, found, strict=True)
        if image.any() and digit == label["digit"]
    )
    rows = {kind: {"read": right[kind], "of": of[kind]} for kind in of}
    return {**rows, "all": {"read": right.total(), "of": of.total()}}


def _restored(file: Path) -> np.ndarray:
    """A restored digit, white on black as most of its border is dark or light; black if there is none."""
    image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) if file.exists() else None
    if image is None or image.shape != (28, 28):
        return np.zeros((1, 28, 28), np.float32)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return (255 - image if np.median(border) > 127 else image)[None] / np.float32(255)


def draw(folder: Path) -> None:
    """Draw twenty photos of one digit each, and below them what becomes of them, in two blocks."""
    names = list(json.loads((folder / "labels.json").read_text()))[:20]
    model = srmnist.load_weights(_MODEL, srmnist.CNNAE())
    blocks = []
    for block in (names[:10], names[10:]):
        prepared = [prepare(folder / name) for name in block]
        digits = np.concatenate([each.digits for each in prepared])
        degraded = srmnist.degrade(digits)
        rows = {
            "photo": [each.given for each in prepared],
            "like MNIST's": digits,
            "degraded": degraded,
            "restored": srmnist.restore(degraded, model),
        }
        blocks.append(Image.open(io.BytesIO(png(draw_rows(rows)))).convert("RGB"))
    picture = Image.fromarray(np.vstack([np.asarray(block) for block in blocks])).reduce(2)
    picture.quantize(128).save(folder / "restored.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=("take", "read", "draw"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1_000_000)
    parser.add_argument("--restore", type=Path, default=Path("scripts/restore.py"))
    args = parser.parse_args()
    if args.task == "take":
        take(args.folder, args.count, args.seed)
    elif args.task == "draw":
        draw(args.folder)
    else:
        print(json.dumps(read(args.folder, args.restore)))


if __name__ == "__main__":
    main()
