"""Restore your own images of digits, of any size, with the trained CNNAE."""

import argparse
from pathlib import Path

from srmnist.system import cli


def main() -> None:
    args = parse_args()
    from srmnist.own_digits.restore import restore_files

    files = restore_files(
        args.images, args.model, args.out, args.size, not args.degrade, args.invert, args.gpu
    )
    print("written:", *files)


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="any file that OpenCV reads")
    parser.add_model_flag()
    parser.add_out_flag()
    parser.add_gpu_flag()
    parser.add_argument(
        "--size", type=cli.positive, default=10,
        help="shrink what is larger to SIZE×SIZE; restore the rest as it is (default: 10)",
    )  # fmt: skip
    parser.add_argument(
        "--no-degrade",
        dest="degrade",
        action="store_false",
        help="restore the image as given, in its own size",
    )
    parser.add_argument(
        "--invert", action=argparse.BooleanOptionalAction,
        help="the digit is darker than its background, or lighter (default: as its border suggests)",
    )  # fmt: skip
    return parser.parse()


if __name__ == "__main__":
    cli.run(main)
