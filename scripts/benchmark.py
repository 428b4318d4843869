"""Time the engine against plain Chainer and against the other libraries that are installed."""

from pathlib import Path

from srmnist.system import cli

GROWTH = ("batch", "cores", "side", "training", "images")


def main() -> None:
    args = parse_args()
    from srmnist.benchmark import output
    from srmnist.system import files

    for path in (args.json, args.plot):
        output.require_writable(path)
    result, table = measured(args)
    print(table(result))
    if args.gpu < 0 and not args.mpi:
        result = output.joined(args.json, result)
    if args.json:
        output.write_json(args.json, result)
    if args.plot:
        from srmnist.benchmark.figure import figure

        drawn = figure(result)
        files.write_whole(args.plot, lambda file: drawn.savefig(file, format="png", dpi=120))


def measured(args):
    """What the flags ask for, and the function that makes a table of it."""
    if args.mpi:
        from srmnist.benchmark import ranks

        return ranks.run(args.batchsize, args.rounds), ranks.table
    if args.kernels:
        from srmnist.benchmark import kernels

        return kernels.run(args.gpu, args.batchsize), kernels.table
    from srmnist.benchmark import comparison

    if args.gpu >= 0:
        return comparison.run_gpu(args.batchsize, args.rounds, args.gpu), comparison.table
    if args.growth is not None:
        from srmnist.benchmark import growth

        return growth.run(args.growth or list(GROWTH), args.rounds), growth.table
    return comparison.run(args.batchsize, args.rounds, args.avx2), comparison.table


def parse_args():
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "-b", "--batchsize", type=cli.positive, default=64, help="images a step (default: 64)"
    )
    parser.add_gpu_flag()
    parser.add_argument("--rounds", type=cli.positive, default=10, help="turns of each variant (default: 10)")
    json = "write the figures there; those that the file has of other flags stay"
    parser.add_argument("--json", type=Path, metavar="FILE", help=json)
    plot = "draw the figures there, those of --json's file among them"
    parser.add_argument("--plot", type=Path, metavar="FILE", help=plot)
    growth = f"time instead how the cost grows, which takes minutes: {', '.join(GROWTH)} (without: all)"
    parser.add_argument("--growth", nargs="*", choices=GROWTH, metavar="PART", help=growth)
    parser.add_argument(
        "--avx2", action="store_true", help="hold every library to AVX2, the vectors of most laptops"
    )
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
        parser.error("argument --plot: draws the CPU's figures only")
    if args.kernels and args.gpu < 0:
        parser.error("argument --kernels: times a GPU's; add --gpu 0")
    for flag, given in (("--growth", args.growth is not None), ("--avx2", args.avx2)):
        if given and (args.mpi or args.gpu >= 0):
            parser.error(f"argument {flag}: times one process on the CPU only")
    if args.growth is not None and args.avx2:
        parser.error("argument --avx2: is of the comparison; it does not go with --growth")
    return args


if __name__ == "__main__":
    cli.run(main)
