"""Training steps and evaluations, launch by launch: a short program for NVIDIA's compute-sanitizer.

    for tool in memcheck racecheck synccheck initcheck; do
        compute-sanitizer --tool $tool --error-exitcode 1 python tests/engine/gpu/sanitize_gpu.py
    done

Every buffer has an allocation of its own, so a kernel that leaves its buffer leaves the allocation, too.
"""

import numpy as np

import srmnist  # first: it makes Chainer import
import chainer
from chainer.backends import cuda
from srmnist.engine.gpu import plan
from srmnist.engine.gpu.device import Device
from srmnist.engine.gpu.resident import Resident
from srmnist.engine.gpu.step import Batches, training_step
from srmnist.engine.gpu.vectors import Vectors
from srmnist.system.device import select_device
from srmnist.training.pairs import Pairs
from srmnist.training.recipes import RECIPES, make_optimizer

SHAPES = [(4, 28, 28), (3, 29, 13)]


def exercise(device: Device, shape: tuple[int, int, int]) -> list[float]:
    """For each recipe, the losses of a step, of one with fixed statistics, and of an evaluation.

    They are of a batch of that shape; no launch is captured.
    """
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data, losses = Resident(device, Pairs(images, 10)), []
    for recipe in RECIPES:
        model = srmnist.CNNAE()
        if device.xp is not np:
            model.to_device("@cupy:0")
        vectors = Vectors(device, make_optimizer(recipe, model))
        step = training_step(vectors, data, captured=False)
        evaluate = Batches(vectors, data, plan.evaluation, captured=False)
        for train, run in ((True, step), (False, step), (False, evaluate)):
            with chainer.using_config("train", train):
                losses.append(float(run(range(len(images)))))
    return losses


def main() -> None:
    select_device(0)
    cupy = cuda.cupy

    def allocate(size: int) -> object:
        return cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0)

    cupy.cuda.set_allocator(allocate)
    for shape in SHAPES:
        print(shape, *exercise(Device(0), shape))


if __name__ == "__main__":
    main()
