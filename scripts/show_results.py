"""Restore ten test digits with the trained CNNAE and draw the article's figures."""

import argparse

from srmnist.system import cli


def main() -> None:
    args = parse_args()
    from srmnist.results import write_figures

    files = write_figures(
        args.model,
        args.out,
        data=args.data,
        size=args.size,
        seed=args.seed,
        hardest=args.hardest,
        gpu=args.gpu,
    )
    print("written:", *files)


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(description=__doc__)
    parser.add_model_flag()
    parser.add_out_flag()
    parser.add_gpu_flag()
    parser.add_test_flags()
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the choice of digits (default: 0)")
    parser.add_argument("--hardest", action="store_true", help="show the digits that are restored worst")
    return parser.parse()


if __name__ == "__main__":
    cli.run(main)
