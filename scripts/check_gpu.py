"""Check a GPU: run the tests that need one, then time the engine on it; about ten minutes."""

from pathlib import Path

from srmnist.system import cli


def main() -> None:
    args = parse_args()
    from srmnist.benchmark import check_gpu, output

    output.require_writable(args.json)
    result = check_gpu.run(args.gpu, Path(__file__).parents[1] / "tests")
    print(check_gpu.table(result))
    output.write_json(args.json, result)


def parse_args():
    parser = cli.Parser(description=__doc__)
    device = "CUDA device (default: 0)"
    parser.add_argument("-g", "--gpu", type=int, nargs="?", const=0, default=0, metavar="NUMBER", help=device)
    written = "write the figures there (default: results/gpu.json)"
    parser.add_argument("--json", type=Path, metavar="FILE", default=Path("results/gpu.json"), help=written)
    args = parser.parse_args()
    if args.gpu < 0:
        parser.error(f"argument --gpu: {args.gpu} is no GPU; they are numbered from 0")
    return args


if __name__ == "__main__":
    cli.run(main)
