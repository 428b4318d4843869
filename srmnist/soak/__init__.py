"""The long test of what must not be lost and must not get in: runs killed, files damaged and forged."""

from srmnist.soak.kills import Kills, kill_runs
from srmnist.soak.mutations import mutate_files

__all__ = ["Kills", "kill_runs", "mutate_files"]
