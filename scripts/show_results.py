"""Restore ten test digits with the trained CNNAE and draw the article's figures."""

import argparse
from pathlib import Path

from srmnist import cli
from srmnist.results import write_figures


def main() -> None:
    args = parse_args()
    files = write_figures(args.model, args.out, args.data, args.size, args.seed, args.hardest, args.gpu)
    print("written:", *files)


def parse_args() -> argparse.Namespace:
    results = Path("results")
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--model", type=Path, default=results / "model.npz", help="weights (default: results/model.npz)"
    )
    parser.add_argument("-o", "--out", type=Path, default=results, help="directory (default: results)")
    parser.add_argument("-g", "--gpu", type=int, default=-1, help="CUDA device; negative: the CPU (default)")
    parser.add_argument("--data", metavar="DIR", help="IDX files to test on (default: the embedded MNIST)")
    parser.add_argument("--size", type=cli.positive, default=10, help="shrink to SIZE×SIZE (default: 10)")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the choice of digits (default: 0)")
    parser.add_argument("--hardest", action="store_true", help="take the digits it restores worst")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
