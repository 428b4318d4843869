"""Train CNNAE: the article, in one command."""

import sys
from pathlib import Path

from srmnist.system import cli


def main() -> None:
    args = parse_args()
    from srmnist.evaluation.metrics import psnr
    from srmnist.training.interruption import Interrupted
    from srmnist.training.settings import Settings
    from srmnist.training.train import train

    settings = Settings(
        args.epoch, args.batchsize, args.seed, args.size, args.data, args.gpu, args.plain, args.recipe,
        args.communicator, args.sync_bn,
    )  # fmt: skip
    resume = args.out if args.resume is NEWEST else args.resume
    try:
        result = train(settings, args.out, resume, snapshot_every=args.snapshot_every)
    except Interrupted as stop:
        print(f"{stop}; to go on:\n{cli.resume_command()}")
        sys.exit(stop.status)
    if result is None:  # rank 0 has it
        return
    print(
        f"validation MSE {result.mse:.6f}, PSNR {psnr(result.mse):.3f} dB "
        f"(degraded input: {result.degraded_mse:.6f}, {psnr(result.degraded_mse):.3f} dB); "
        f"{result.images_per_second:,.0f} images/s, {result.seconds:.0f} s"
    )
    print("written:", *result.files)


NEWEST = Path()  # not a name that anybody gives


def parse_args():
    parser = cli.Parser(description=__doc__)
    parser.add_gpu_flag()
    parser.add_argument("-e", "--epoch", type=cli.positive, default=10, help="epochs (default: 10)")
    parser.add_argument(
        "-b", "--batchsize", type=cli.positive, default=64, help="images a step (default: 64)"
    )
    parser.add_out_flag()
    parser.add_argument(
        "-r", "--resume", type=Path, nargs="?", const=NEWEST, metavar="SNAPSHOT",
        help="go on from a snapshot; without a value, from the newest in --out",
    )  # fmt: skip
    parser.add_argument("--seed", type=cli.seed, default=0, help="of weights and shuffle (default: 0)")
    parser.add_argument("--data", metavar="DIR", help="IDX files to train on (default: the embedded MNIST)")
    parser.add_argument("--size", type=cli.positive, default=10, help="shrink to SIZE×SIZE (default: 10)")
    parser.add_argument(
        "--recipe", choices=["article", "tuned"], default="article",
        help="how to train: as the article does (default), or better at the same cost",
    )  # fmt: skip
    parser.add_argument(
        "--snapshot-every", type=cli.positive, metavar="N",
        help="a snapshot every N iterations too (default: at the end of each epoch)",
    )  # fmt: skip
    parser.add_argument(
        "--plain",
        action="store_true",
        help="compute with the article's Chainer functions, without the engine",
    )
    parser.add_argument(
        "--communicator", choices=["naive", "flat", "pure_nccl"],
        help="ChainerMN's, to train with all processes of mpiexec: each takes --batchsize images a step, and "
        "with --gpu a GPU of its own",
    )  # fmt: skip
    parser.add_argument(
        "--sync-bn",
        action="store_true",
        help="batch normalisation over the batches of all processes (default: each over its own)",
    )
    return parser.parse()


if __name__ == "__main__":
    cli.run(main)
