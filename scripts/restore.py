"""Restore your own digits, photographed, scanned or drawn, with the trained CNNAE."""

import argparse
import sys
from pathlib import Path

from srmnist.system import cli


def main() -> None:
    args = parse_args()
    from srmnist.own_digits.restore import restore_files

    failed = False
    outcomes = restore_files(
        args.images, args.model, args.out, args.size, args.gpu, shrink=args.shrink, invert=args.invert
    )
    for outcome in outcomes:
        progress = f"[{outcome.number}/{outcome.total}] " if outcome.total > 1 else ""
        if outcome.error is not None:
            failed = True
            cli.complain(f"{progress}{outcome.error}")
        else:
            digits = f" ({outcome.digits} digits)" if outcome.digits > 1 else ""
            print(f"{progress}written:", *outcome.files, end=f"{digits}\n", flush=True)
    if failed:
        sys.exit(2)


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="a picture, a directory of them, or '*.jpg'"
    )
    parser.add_model_flag()
    parser.add_out_flag()
    parser.add_gpu_flag()
    parser.add_argument(
        "--size",
        type=cli.positive,
        default=10,
        help="shrink digits to SIZE×SIZE; restore smaller pictures as they are (default: 10)",
    )
    parser.add_argument(
        "--no-degrade",
        dest="shrink",
        action="store_false",
        help="restore the image as given, in its own size",
    )
    parser.add_argument(
        "--invert",
        action=argparse.BooleanOptionalAction,
        help="the digits are darker than the paper, or lighter (default: as the picture shows)",
    )
    return parser.parse()


if __name__ == "__main__":
    cli.run(main)
