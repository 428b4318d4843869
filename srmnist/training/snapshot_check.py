"""The check of a snapshot: its counters and its log must follow from the batches that its run has made."""

import json
import math
from collections.abc import Iterable, Mapping

import numpy as np

from srmnist.training.reports import LOSS, VALIDATION_LOSS

# (images in a batch, batches of that size, one after the other)
Batches = list[tuple[int, int]]


def parse_batches(text: str) -> Batches:
    """Parse the batches of a snapshot from an unknown source.

    Raises
    ------
    ValueError
        If they are not a list of pairs of whole numbers from 1 to 2**63 - 1.
    """
    try:
        batches = json.loads(text)
        good = type(batches) is list and len(batches) > 0
        good = good and all(type(pair) is list and len(pair) == 2 for pair in batches)
        good = good and all(type(n) is int and 0 < n < 2**63 for pair in batches for n in pair)
    except (ValueError, RecursionError):
        good = False
    if not good:
        raise ValueError("its batches are not a list of sizes and numbers")
    return [(size, number) for size, number in batches]


def parse_log(text: str) -> list[dict[str, float]]:
    """Parse the log of a snapshot from an unknown source.

    Raises
    ------
    ValueError
        If it is not a list with an entry for each epoch, if an entry has other names or JSON types than
        those that LogReport writes, or if a loss is not from 0 to 1 (a mean squared error of intensities).
    """
    try:
        log = json.loads(text)
        good = type(log) is list and all(_is_entry(entry, number) for number, entry in enumerate(log, 1))
    except (ValueError, RecursionError):
        good = False
    if not good:
        raise ValueError("its log is not a list of epochs and their losses")
    return log


_TYPES = {LOSS: float, VALIDATION_LOSS: float, "epoch": int, "iteration": int, "elapsed_time": float}


def _is_entry(entry: object, epoch: int) -> bool:
    return (
        type(entry) is dict
        and entry.keys() == _TYPES.keys()
        and all(type(entry[name]) is kind for name, kind in _TYPES.items())
        and entry["epoch"] == epoch
        and all(0 <= entry[name] <= 1 for name in (LOSS, VALIDATION_LOSS))
        and 0 <= entry["elapsed_time"] < math.inf
    )


def check_progress(arrays: Mapping[str, np.ndarray], images: int, batches: Batches) -> None:
    """Refuse a snapshot whose counters or log do not follow from its batches.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The snapshot.
    images : int
        The number of training images.
    batches : list of (int, int)
        The batches that the run has made.

    Raises
    ------
    ValueError
        The message names the counter.
    """
    iteration = sum(number for _, number in batches)
    log = parse_log(arrays["extensions/LogReport/_log"].item())
    epoch, position = divmod(_images_seen(batches, iteration), images)
    epoch_before, position_before = divmod(_images_seen(batches, iteration - 1), images)
    ends = _epoch_ends(batches, images, len(log))
    if (
        arrays["updater/iteration"] != iteration
        or len(log) != epoch
        or ends != [entry["iteration"] for entry in log]
    ):
        raise ValueError(f"its log does not fit its {iteration} iterations")
    expected = {
        "t": iteration,
        "iteration": iteration,
        "previous_iteration": iteration,
        "epoch": epoch,
        "current_position": position,
        "is_new_epoch": epoch > epoch_before,
        "previous_epoch_detail": epoch + position / images,
        "_names": json.dumps([LOSS]),
        "_n": iteration - (ends[-1] if ends else 0),
        # These are the values of the step before: the loop asks before each step whether it must stop.
        "stop_trigger/previous_iteration": iteration - 1,
        "stop_trigger/previous_epoch_detail": epoch_before + position_before / images,
        "updater/iterator:main/previous_epoch_detail": epoch_before + position_before / images,
    }
    for name, array in arrays.items():
        right = expected.get(name, expected.get(name.rpartition("/")[2]))
        if right is not None and array != right:
            raise ValueError(f"{name} is {array}, not {right}")
    if arrays["_snapshot_elapsed_time"] < 0:
        raise ValueError("its elapsed time is negative")


def _images_seen(batches: Iterable[tuple[int, int]], iterations: int) -> int:
    """Images in the first `iterations` batches."""
    images = 0
    for size, number in batches:
        images += size * min(number, iterations)
        iterations -= min(number, iterations)
    return images


def _epoch_ends(batches: Iterable[tuple[int, int]], images: int, most: int) -> list[int]:
    """The iterations that ended an epoch of so many images; the first `most` of them."""
    ends: list[int] = []
    seen = iteration = 0
    for size, number in batches:
        while len(ends) < most and (len(ends) + 1) * images <= seen + size * number:
            ends.append(iteration - (seen - (len(ends) + 1) * images) // size)
        seen += size * number
        iteration += number
    return ends
