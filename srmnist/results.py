"""The article's figures, from trained weights to files."""

from pathlib import Path

from srmnist.data import load_dataset, pick, to_float
from srmnist.degradation import check_size, degrade
from srmnist.evaluation.metrics import squared_errors, worst
from srmnist.figures import draw_degradation, draw_model, grey_png, png, show_grid
from srmnist.restoration import load_model, restore
from srmnist.system.files import write_all
from srmnist.training import learning

_DIGITS = 10  # as in the author's script


def write_figures(
    model_file: Path,
    out: Path,
    data: str | Path | None = None,
    size: int = 10,
    seed: int = 0,
    hardest: bool = False,
    gpu: int = -1,
) -> list[Path]:
    """Restore ten test images with trained weights and write the article's figures.

    Parameters
    ----------
    model_file : Path
        Weights of `CNNAE`, Chainer's npz.
    out : Path
        Directory for the figures; made if it does not exist.
    data : path, optional
        Directory of IDX files; None is the embedded MNIST.
    size : int, default 10
        Height and width that the images are shrunk to.
    seed : int, default 0
        Decides which ten test images are drawn.
    hardest : bool, default False
        Take the ten images with the largest errors instead, the largest first.
    gpu : int, default -1
        CUDA device number; negative is the CPU.

    Returns
    -------
    list of Path
        The files: ``corrupt.png``, ``model.png``, ``output.png`` and each image's ``input_NN.png``
        and ``output_NN.png``; also ``learning.gif``, if a run has left ``learning.npz`` beside the weights.

    Raises
    ------
    UserError
        If a file or the device is not usable. Nothing has then been written.
    """
    model = load_model(model_file, gpu)
    test = load_dataset(data).test
    check_size(size, test.images)
    test.require_intact()
    originals = to_float(test.images if hardest else test.images[pick(len(test.images), seed)])
    degraded = degrade(originals, size)
    restored = restore(degraded, model)
    if hardest:
        chosen = worst(squared_errors(restored, originals), _DIGITS)
        originals, degraded, restored = originals[chosen], degraded[chosen], restored[chosen]

    pictures = {
        "corrupt.png": png(draw_degradation(originals[0], degraded[0], size)),
        "model.png": png(draw_model(model, degraded[0], restored[0])),
        "output.png": png(show_grid(degraded, restored, originals)),
    }
    for number, (before, after) in enumerate(zip(degraded, restored, strict=True)):
        pictures[f"input_{number:02d}.png"] = grey_png(before)
        pictures[f"output_{number:02d}.png"] = grey_png(after)
    inputs = [model_file]
    kept = model_file.with_name(learning.FILE)
    if kept.exists():
        pictures[learning.PICTURE] = learning.draw(learning.load(kept))
        inputs.append(kept)
    return write_all(out, pictures, inputs)
