"""What many processes may be expected to gain: a model, not a measurement.

All have steps of the same length, and after each they sum their gradients by a ring all-reduce. That sends
the least that any all-reduce can, in the most messages:

P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", Journal of
Parallel and Distributed Computing 69 (2009), 117–124.
"""

import math
from typing import NamedTuple

# 23,985 parameters of four bytes.
GRADIENT = 95_940


class Cluster(NamedTuple):
    """A step's length, and the network between the processes.

    Attributes
    ----------
    step : float
        Seconds of one process's step with a full batch.
    latency : float
        Seconds from the sending of a message to its arrival, were it empty.
    bandwidth : float
        Bytes that a process sends, and receives, in a second.
    """

    step: float
    latency: float
    bandwidth: float


# The README's. The first step is measured (two cores, results/benchmark.json), the second, a GPU's, assumed.
# Assumed are both networks, too, in round figures: Ethernet through TCP, and InfiniBand.
EXAMPLES = {
    "17.1 ms a step; 10 Gbit/s, 25 µs": Cluster(17.1e-3, 25e-6, 1.25e9),
    "0.5 ms a step; 200 Gbit/s, 5 µs": Cluster(0.5e-3, 5e-6, 25e9),
}


def ring_all_reduce(cluster: Cluster, ranks: int, size: int = GRADIENT) -> float:
    """Seconds of an all-reduce of `size` bytes.

    The array is cut into as many pieces as there are ranks. In each of ``2 (ranks - 1)`` rounds each rank
    sends one piece to the next: until every rank has the sum of one piece, and again until all have all.
    Adding is not counted.
    """
    return 2 * (ranks - 1) * (cluster.latency + size / ranks / cluster.bandwidth)


def weak_speedup(cluster: Cluster, ranks: int) -> float:
    """How many times as many images a second as one process, where each has a full batch."""
    return ranks * cluster.step / (cluster.step + ring_all_reduce(cluster, ranks))


def strong_speedup(cluster: Cluster, ranks: int) -> float:
    """How many times as many steps a second, where all share one batch; at best: the step divides evenly."""
    return cluster.step / (cluster.step / ranks + ring_all_reduce(cluster, ranks))


def weak_limit(cluster: Cluster) -> float:
    """What `weak_speedup` comes near with ever more ranks: messages then take all the time."""
    return cluster.step / (2 * cluster.latency)


def best_ranks(cluster: Cluster) -> int:
    """The number of ranks at which `strong_speedup` is greatest: more make the same run slower.

    Of ``step / n + 2 (n - 1) (latency + size / n / bandwidth)`` the derivative by n is zero there.
    """
    length = cluster.step - 2 * GRADIENT / cluster.bandwidth
    turning = math.sqrt(max(length, 0) / (2 * cluster.latency))
    around = (max(1, math.floor(turning)), math.ceil(turning) or 1)
    return max(around, key=lambda ranks: strong_speedup(cluster, ranks))


def table(clusters: dict[str, Cluster], ranks: tuple[int, ...] = (8, 64, 512)) -> str:
    """The expectation in Markdown: for each cluster and number of ranks the all-reduce and both speed-ups."""
    lines = ["| | ranks | all-reduce | weak | strong |", "|---|---|---|---|---|"]
    for name, cluster in clusters.items():
        for number in ranks:
            weak, strong = weak_speedup(cluster, number), strong_speedup(cluster, number)
            lines.append(
                f"| {name} | {number} | {ring_all_reduce(cluster, number) * 1e3:.2f} ms "
                f"| × {weak:.1f} ({weak / number:.0%}) | × {strong:.1f} |"
            )
    return "\n".join(lines)
