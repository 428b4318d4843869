"""Restore ten test digits with the trained CNNAE and draw the article's figures."""

import argparse

from srmnist.results import write_figures
from srmnist.system import cli


def main() -> None:
    args = parse_args()
    files = write_figures(args.model, args.out, args.data, args.size, args.seed, args.hardest, args.gpu)
    print("written:", *files)


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(description=__doc__)
    parser.add_model_flags()
    parser.add_test_flags()
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the choice of digits (default: 0)")
    parser.add_argument("--hardest", action="store_true", help="take the digits it restores worst")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
