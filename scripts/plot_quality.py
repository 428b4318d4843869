"""Draw the validation MSE of each recipe against the seconds of a run, from the logs of many runs."""

import argparse
from pathlib import Path

from srmnist.system import cli


def main() -> None:
    args = parse_args()
    from srmnist.figures import draw_quality, png
    from srmnist.system.files import write_all
    from srmnist.training.quality import load_pytorch_ratio, load_quality

    curves = load_quality(args.runs)
    ratio = load_pytorch_ratio(args.benchmark)
    curves["article, torch.compile"] = [(ratio * seconds, *point) for seconds, *point in curves["article"]]
    figure = png(draw_quality(curves))
    print("written:", *write_all(args.out.parent, {args.out.name: figure}, inputs=[args.benchmark]))


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(description=__doc__)
    add = parser.add_argument
    runs_help = "where RECIPE-SEED*/log of all runs are, and quiet/RECIPE/log of runs on an idle machine, "
    runs_help += "which tell the seconds of an epoch (default: results/recipes)"
    add("runs", type=Path, nargs="?", default=Path("results/recipes"), metavar="RUNS", help=runs_help)
    benchmark_help = "JSON of scripts/benchmark.py (default: results/benchmark.json)"
    default = Path("results/benchmark.json")
    add("--benchmark", type=Path, default=default, metavar="FILE", help=benchmark_help)
    out_help = "file to write (default: results/quality.png)"
    add("-o", "--out", type=Path, default=Path("results/quality.png"), metavar="FILE", help=out_help)
    return parser.parse()


if __name__ == "__main__":
    cli.run(main)
