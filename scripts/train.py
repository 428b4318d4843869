"""Train CNNAE: the article, in one command."""

import argparse
import sys
from pathlib import Path

from srmnist.system import cli


def main() -> None:
    args = parse_args()
    from srmnist.evaluation.metrics import psnr
    from srmnist.system.mpiexec import resume_command
    from srmnist.training.interruption import Interrupted
    from srmnist.training.settings import Settings
    from srmnist.training.train import train

    settings = Settings(
        epoch=args.epoch,
        batchsize=args.batchsize,
        seed=args.seed,
        size=args.size,
        data=args.data,
        gpu=args.gpu,
        plain=args.plain,
        recipe=args.recipe,
        communicator=args.communicator,
        sync_bn=args.sync_bn,
    )
    resume = args.out if args.resume is NEWEST else args.resume
    try:
        result = train(settings, args.out, resume, snapshot_every=args.snapshot_every)
    except Interrupted as stop:
        print(f"{stop}; to go on:\n{resume_command()}")
        sys.exit(stop.status)
    if result is None:  # only rank 0 has it
        return
    print(
        f"validation MSE {result.mse:.6f}, PSNR {psnr(result.mse):.3f} dB "
        f"(degraded input: {result.degraded_mse:.6f}, {psnr(result.degraded_mse):.3f} dB); "
        f"{result.images_per_second:,.0f} images/s, {result.seconds:.0f} s"
    )
    print("written:", *result.files)


NEWEST = Path()  # the value of --resume without a value; no user can give this object


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(description=__doc__)
    parser.add_gpu_flag()
    parser.add_out_flag()
    add = parser.add_argument
    add("-e", "--epoch", type=cli.positive, default=10, help="epochs (default: 10)")
    batchsize_help = "images a step (default: 64, or 32 with --recipe tuned)"
    add("-b", "--batchsize", type=cli.positive, help=batchsize_help)
    add(
        "-r",
        "--resume",
        type=Path,
        nargs="?",
        const=NEWEST,
        metavar="SNAPSHOT",
        help="go on from a snapshot; without a value, from the newest in --out",
    )
    add("--seed", type=cli.seed, default=0, help="of weights and shuffle (default: 0)")
    parser.add_data_flag()
    add("--size", type=cli.positive, default=10, help="shrink to SIZE×SIZE (default: 10)")
    recipe_help = (
        "how to train: as the article does (default), or better: '--recipe tuned --epoch 1' gives a "
    )
    recipe_help += "lower error than ten epochs of the article, in about half a minute on two cores"
    add("--recipe", choices=["article", "tuned"], default="article", help=recipe_help)
    add(
        "--snapshot-every",
        type=cli.positive,
        metavar="N",
        help="a snapshot every N iterations too (default: at the end of each epoch)",
    )
    plain_help = "compute with the article's Chainer functions, without the engine"
    add("--plain", action="store_true", help=plain_help)
    add(
        "--communicator",
        choices=["naive", "flat", "pure_nccl"],
        help="ChainerMN's, to train with all processes of mpiexec: each takes --batchsize images a step, and "
        "with --gpu a GPU of its own",
    )
    sync_bn_help = "batch normalisation over the batches of all processes (default: each over its own)"
    add("--sync-bn", action="store_true", help=sync_bn_help)
    return parser.parse()


if __name__ == "__main__":
    cli.run(main)
