"""Time the engine against plain Chainer and, where PyTorch is installed, against PyTorch."""

import json
from pathlib import Path

from srmnist.system import cli


def main() -> None:
    args = parse_args()
    from srmnist.system import files
    from srmnist.system.errors import UserError

    try:
        from srmnist.benchmark import gpu, ranks, report
    except ImportError as error:
        raise UserError(f"there is no engine to time: {error}; pip install numba") from error
    if args.mpi:
        result = ranks.run(args.batchsize, args.rounds)
        print(ranks.table(result))
    elif args.gpu >= 0:
        result = gpu.run(args.gpu, args.batchsize, args.rounds)
        print(gpu.table(result))
    else:
        result = report.run(args.batchsize, args.rounds, args.plot is not None)
        print(report.table(result))
    if args.json:
        text = json.dumps(result, indent=2) + "\n"
        files.write_whole(args.json, lambda file: file.write(text.encode()))
    if args.plot:
        figure = report.figure(result)
        files.write_whole(args.plot, lambda file: figure.savefig(file, format="png", dpi=120))


def parse_args():
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "-b", "--batchsize", type=cli.positive, default=64, help="images a step (default: 64)"
    )
    parser.add_gpu_flag()
    parser.add_argument("--rounds", type=cli.positive, default=10, help="turns of each variant (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE",
        help="draw them there, and measure also how the cost grows with batch and threads",
    )  # fmt: skip
    parser.add_argument(
        "--mpi",
        action="store_true",
        help="time instead 1 and 2 processes of mpiexec, with one thread each",
    )
    args = parser.parse()
    if args.mpi and args.gpu >= 0:
        parser.error("argument --mpi: times processes on the CPU only")
    if args.plot and (args.mpi or args.gpu >= 0):
        parser.error("argument --plot: draws the figures of the CPU's threads only")
    return args


if __name__ == "__main__":
    cli.run(main)
