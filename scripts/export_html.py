"""Write one HTML file on which anybody draws a digit and sees the trained CNNAE restore it."""

import argparse
from pathlib import Path

from srmnist.system import cli


def main() -> None:
    args = parse_args()
    from srmnist.page.export import export

    size = export(args.model, args.out, args.size)
    print(f"written: {args.out} ({size:,} bytes; open it in a browser)")


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(description=__doc__)
    parser.add_model_flag()
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        default=Path("results/try.html"),
        help="file to write (default: results/try.html)",
    )
    parser.add_argument(
        "--size", type=cli.positive, default=10, help="the page first shrinks to SIZE×SIZE (default: 10)"
    )
    return parser.parse()


if __name__ == "__main__":
    cli.run(main)
