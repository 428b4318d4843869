"""In words: the machine that figures are of, and what else it did."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from chainer.backends import cuda

_VECTORS = {"avx512f": "AVX-512 (512 bits)", "avx2": "AVX2 (256 bits)", "avx": "AVX (256 bits)"}


def processor(information: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, and how many of its cores this process may use."""
    from srmnist.engine.cpu import threads

    name = _cpuinfo(information).get("model name") or platform.processor() or platform.machine()
    count = cores()
    return f"{name}, {count} core{'s' if count != 1 else ''}, {threads.thread_count()} threads"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def card(gpu: int) -> str:
    """The GPU's name, and its driver's CUDA."""
    runtime = cuda.cupy.cuda.runtime
    name = runtime.getDeviceProperties(gpu)["name"].decode()
    major, minor = divmod(runtime.driverGetVersion(), 1000)
    return f"{name}, CUDA {major}.{minor // 10}"


def description(
    proc: Path = Path("/proc"), devices: Path = Path("/sys/devices/system/cpu")
) -> dict[str, str]:
    """The machine's card; what the system does not tell is missing.

    Returns
    -------
    dict of str to str
        "processor", "vectors", "caches" (of the first core), "memory", "system", and "load": the mean number
        of processes that ran or waited for a core in the minute before.
    """
    found = {"processor": processor(proc / "cpuinfo")}
    fields = _cpuinfo(proc / "cpuinfo")
    flags = fields.get("flags", "").split()
    if "cpu family" in fields:
        found["processor"] += f" (family {fields['cpu family']}, model {fields.get('model')})"
    if "hypervisor" in flags:
        found["processor"] += ", in a virtual machine"
    vectors = [words for flag, words in _VECTORS.items() if flag in flags]
    if vectors:
        found["vectors"] = vectors[0]
    if caches := _caches(devices / "cpu0" / "cache"):
        found["caches"] = caches
    with suppress(OSError, StopIteration):
        lines = (proc / "meminfo").read_text().splitlines()
        total = next(line for line in lines if line.startswith("MemTotal"))
        found["memory"] = f"{int(total.split()[1]) / 2**20:.0f} GiB"
    found["system"] = f"{_distribution()}{platform.system()} {platform.release()}"
    if hasattr(os, "getloadavg"):
        found["load"] = f"{os.getloadavg()[0]:.1f} before the start"
    return found


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Python's version, and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _cpuinfo(information: Path) -> dict[str, str]:
    """What Linux tells of the first core."""
    if not information.exists():
        return {}
    first = information.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _caches(folder: Path) -> str:
    """As "L1 32K, L2 1024K, L3 32768K", without the cache of instructions."""
    found = []
    with suppress(OSError):
        for cache in sorted(folder.glob("index*")):
            kind, level, size = ((cache / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction":
                found.append(f"L{level} {size}")
    return ", ".join(found)


def _distribution() -> str:
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, "
    except (OSError, KeyError):
        return ""
