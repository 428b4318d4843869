"""Measure a trained CNNAE on the whole test set: MSE, PSNR, SSIM and whether the digits can be read."""

import argparse

from srmnist.system import cli


def main() -> None:
    args = parse_args()
    from srmnist.evaluation.evaluate import evaluate

    files = evaluate(args.model, args.out, data=args.data, size=args.size, gpu=args.gpu)
    print("written:", *files)


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(
        description=__doc__,
        epilog="PSNR is in dB: the mean over the images, and beside it the PSNR of the mean MSE. 1-NN is the "
        "share of images whose nearest neighbour among 20,000 training images is of the same class.",
    )
    parser.add_model_flag()
    parser.add_out_flag()
    parser.add_gpu_flag()
    parser.add_test_flags()
    return parser.parse()


if __name__ == "__main__":
    cli.run(main)
