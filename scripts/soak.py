"""Kill training runs and read damaged files, many times, and count how each of them ends."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from srmnist.soak import Kills, kill_runs, mutate_files
from srmnist.system import cli

TRAIN = Path(__file__).with_name("train.py")


def main() -> None:
    args = parse_args()
    kills, (counts, failures) = Kills(), (Counter(), [])
    if args.kills:
        kills = kill_runs(TRAIN, args.kills, args.seed, progress("kills", args.kills))
    if args.mutations:
        counts, failures = mutate_files(
            TRAIN, args.mutations, args.seed, progress("mutations", args.mutations)
        )
    print(
        f"kills: {kills.tried} ({kills.while_writing} while a file was being written), "
        f"survived with the same bits: {kills.survived}"
    )
    print(
        f"mutations: {args.mutations} ({counts['through the script']} of them through scripts/train.py too), "
        f"refused: {counts['refused']}, loaded with equal arrays: {counts['equal']}, "
        f"crashes: {counts['crashed']}"
    )
    for failure in kills.failures + failures:
        print(failure)
    sys.exit(1 if kills.failures or failures else 0)


def progress(what: str, number: int) -> Callable[[int], None]:
    def show(count: int) -> None:
        if count % max(1, number // 20) == 0:
            print(f"{what}: {count} of {number}", file=sys.stderr)

    return show


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--kills", type=cli.seed, default=100, help="runs killed (default: 100)")
    parser.add_argument("--mutations", type=cli.seed, default=5000, help="files mutated (default: 5000)")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of moments and mutations (default: 0)")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
