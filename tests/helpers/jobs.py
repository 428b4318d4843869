"""Jobs of several processes under mpiexec; they also run as root, in a container, and on fewer cores."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.users import complaints

# The mpiexec beside this Python is the one that mpi4py belongs to.
_MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or _MPIEXEC is None,
    reason='the extra "mpi" is not installed, and there are no wheels of it for this computer',
)
ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_mpi_yield_when_idle": "1",  # a rank that waits leaves its core to the others
}
# Open MPI's own message about a failed job is between two rules. Sometimes it also reports that it could not
# reach a process that it has just ended.
_BANNER = re.compile(r"^-{60,}\n.*?^-{60,}\n|^\[[^]\n]+:\d+\] PMIX ERROR: [^\n]*\n", re.DOTALL | re.MULTILINE)


def job(ranks: int, command: list[str]) -> list[str]:
    """The command line that runs a command in `ranks` processes."""
    return [str(_MPIEXEC), "-n", str(ranks), *command]


def run_job(ranks: int, command: list[str], **kwds) -> subprocess.CompletedProcess:
    """Run a command in `ranks` processes to its end; stderr then holds only the processes' own lines."""
    streams = {"capture_output": True, "text": True, "timeout": 300, "env": ENVIRONMENT}
    done = subprocess.run(job(ranks, command), **{**streams, **kwds})
    done.stderr = said_by_ranks(done.stderr)
    return done


def said_by_ranks(stderr: str) -> str:
    """The lines that the processes of a job wrote on stderr, without mpiexec's banners."""
    return "".join(line for line in complaints(_BANNER.sub("", stderr)).splitlines(True) if line.strip())
