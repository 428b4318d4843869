"""Measure a trained CNNAE on the whole test set: MSE, PSNR, SSIM and whether the digits can be read."""

import argparse
from pathlib import Path

from srmnist import cli
from srmnist.evaluation import evaluate


def main() -> None:
    args = parse_args()
    files = evaluate(args.model, args.out, args.data, args.size, args.gpu)
    print("written:", *files)


def parse_args() -> argparse.Namespace:
    results = Path("results")
    parser = cli.Parser(
        description=__doc__,
        epilog="PSNR in dB is the mean over the images, and beside it that of the mean MSE; 1-NN is the "
        "share of images whose nearest neighbour among 20,000 training images is of the same class.",
    )
    parser.add_argument(
        "--model", type=Path, default=results / "model.npz", help="weights (default: results/model.npz)"
    )
    parser.add_argument("-o", "--out", type=Path, default=results, help="directory (default: results)")
    parser.add_argument("-g", "--gpu", type=int, default=-1, help="CUDA device; negative: the CPU (default)")
    parser.add_argument("--data", metavar="DIR", help="IDX files to test on (default: the embedded MNIST)")
    parser.add_argument("--size", type=cli.positive, default=10, help="shrink to SIZE×SIZE (default: 10)")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
