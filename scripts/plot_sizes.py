"""Draw PSNR and readability against the size that digits were shrunk to, from several evaluations."""

import argparse
from pathlib import Path

from srmnist.system import cli


def main() -> None:
    args = parse_args()
    from srmnist.evaluation.metrics_file import load_metrics
    from srmnist.figures import draw_sizes, png
    from srmnist.system.files import write_all

    figure = png(draw_sizes(load_metrics(args.metrics)))
    print("written:", *write_all(args.out.parent, {args.out.name: figure}, inputs=args.metrics))


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "metrics",
        type=Path,
        nargs="+",
        metavar="METRICS",
        help="a metrics.json that scripts/evaluate.py wrote",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("results/sizes.png"),
        metavar="FILE",
        help="file to write (default: results/sizes.png)",
    )
    return parser.parse()


if __name__ == "__main__":
    cli.run(main)
