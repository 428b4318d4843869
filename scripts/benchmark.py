"""Time the engine against plain Chainer and, where PyTorch is installed, against PyTorch."""

from pathlib import Path

from srmnist.system import cli


def main() -> None:
    args = parse_args()
    from srmnist.benchmark import output
    from srmnist.system import files

    for path in (args.json, args.plot):
        output.require_writable(path)
    if args.mpi:
        from srmnist.benchmark import ranks

        result = ranks.run(args.batchsize, args.rounds)
        print(ranks.table(result))
    elif args.kernels:
        from srmnist.benchmark import kernels

        result = kernels.run(args.gpu, args.batchsize)
        print(kernels.table(result))
    else:
        from srmnist.benchmark import comparison

        result = comparison.run(args.batchsize, args.rounds, args.gpu, args.plot is not None)
        print(comparison.table(result))
    if args.json:
        output.write_json(args.json, result)
    if args.plot:
        figure = comparison.figure(result)
        files.write_whole(args.plot, lambda file: figure.savefig(file, format="png", dpi=120))


def parse_args():
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "-b", "--batchsize", type=cli.positive, default=64, help="images a step (default: 64)"
    )
    parser.add_gpu_flag()
    parser.add_argument("--rounds", type=cli.positive, default=10, help="turns of each variant (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    plot = "draw them there, and measure also how the cost grows with batch and threads"
    parser.add_argument("--plot", type=Path, metavar="FILE", help=plot)
    parser.add_argument(
        "--kernels", action="store_true", help="time instead each kernel of a step on the GPU"
    )
    mpi = "time instead 1 and 2 processes of mpiexec, with one thread each"
    parser.add_argument("--mpi", action="store_true", help=mpi)
    args = parser.parse_args()
    if args.batchsize > 60_000:
        parser.error(f"argument -b/--batchsize: {args.batchsize}: MNIST has 60,000 training images")
    if args.mpi and args.gpu >= 0:
        parser.error("argument --mpi: times processes on the CPU only")
    if args.plot and (args.mpi or args.gpu >= 0):
        parser.error("argument --plot: draws the figures of the CPU's threads only")
    if args.kernels and args.gpu < 0:
        parser.error("argument --kernels: times a GPU's; add --gpu 0")
    return args


if __name__ == "__main__":
    cli.run(main)
