"""Write the trained CNNAE as an ONNX model that restores test images as Chainer does."""

import argparse
from pathlib import Path

from srmnist.system import cli


def main() -> None:
    args = parse_args()
    from srmnist.onnx_export import export

    out = args.out or args.model.with_suffix(".onnx")
    difference = export(args.model, out)
    print(f"onnxruntime and Chainer differ by {difference:.1e} at most on 256 test images")
    print("written:", out)


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(description=__doc__)
    parser.add_model_flag()
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="file to write (default: MODEL with .onnx for .npz)"
    )
    return parser.parse()


if __name__ == "__main__":
    cli.run(main)
