"""The long test of runs and files: runs are killed and resumed, files are damaged and forged and read."""

from srmnist.soak.kills import Kills, kill_runs
from srmnist.soak.mutations import mutate_files

__all__ = ["Kills", "kill_runs", "mutate_files"]
