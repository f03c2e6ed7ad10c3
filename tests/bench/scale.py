"""Many executions at once on one broker: memory, requests to the API server, processor, delay of a change.

kwok plays the nodes and the pods, so that there is no kubelet and no container, and what is left of the machine is the
API server and the broker. All executions are followed, over a few connections with many on each, without lines. The
ends of some are written into their status at a fixed rate; a watch of the API server itself sees each of them too, and
the broker's delay is counted from there.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from bench.played import submit
from bench.processes import Driver, Meter, access, drive, memory
from bench.stage import Stage, say
from bench.tables import bullets, percentile, table
from cluster.kwok import PODS, Kwok

if TYPE_CHECKING:
    import argparse

TARGET: Final = "bench"
CONNECTIONS: Final = 4


def add_options(group: argparse._ArgumentGroup) -> None:
    """How many."""
    group.add_argument(
        "--executions", type=int, nargs="+", default=[100, 1000, 10_000], help="live (default 100 1000 10000)"
    )
    group.add_argument("--idle-seconds", type=int, default=60, help="without a change (default 60)")
    group.add_argument("--ends", type=int, default=1000, help="executions that end, at most (default 1000)")
    group.add_argument("--end-rate", type=int, default=50, help="of them in a second (default 50)")
    group.add_argument("--watchers", type=int, default=4, help="connections that follow each execution (default 4)")


def measure(stage: Stage, options: argparse.Namespace) -> str:
    """Each size with a broker and a namespace of its own."""
    nodes = -(-sum(options.executions) // PODS)
    with Kwok(cluster=stage.site.cluster, nodes=nodes, folder=stage.folder) as kwok:
        rows = [_measure(stage, kwok, executions, options) for executions in options.executions]
    head = [
        *("executions", "memory, MB", "added, MB", "KB each", "requests/min", "CPU idle", "CPU, ends"),
        *("ends", "delay p50 ms", "p99 ms", "max ms", "not told"),
    ]
    return "\n\n".join(
        [
            "## Many executions on one broker",
            table(head, rows),
            bullets(
                ("executions", "pods that kwok plays; all live at once, with a broker of their own for each size"),
                (
                    "followed",
                    f"over {CONNECTIONS} connections, without lines; each execution over {options.watchers} of them",
                ),
                ("memory", "resident; added since the broker was ready, of what is no file's"),
                ("requests", f"of the broker to the API server in {options.idle_seconds} s without a change"),
                ("CPU", "of one processor; ends: while they were written"),
                (
                    "delay",
                    f"of ends at {options.end_rate}/s: from a watch of the API server to the broker's first watcher",
                ),
            ),
        ]
    )


def _measure(stage: Stage, kwok: Kwok, executions: int, options: argparse.Namespace) -> list[str]:
    say(f"scale: {executions:,} executions")
    user = f"bench-scale-{executions}"
    ends = min(executions, options.ends)
    namespace = stage.namespace_that_stays()
    with stage.brokers() as brokers:
        limits = {"max_watches": max(20_000, 2 * executions * options.watchers)}
        broker = brokers.start(
            namespace=namespace, instance=user, target=TARGET, kubeconfig=stage.site.user(user), limits=limits
        )
        before = memory(broker.pid)
        names = submit(stage, kwok, broker, target=TARGET, namespace=namespace, count=executions, name=user)
        follow = [f"--address={broker.address}", f"--names={names}", f"--connections={CONNECTIONS}"]
        with (
            Driver("follow", *follow, f"--watchers={options.watchers}") as followers,
            Driver("observe", *access(stage, "bench-observer"), f"--namespace={namespace.name}") as observer,
        ):
            followers.wait_ready()
            observer.wait_ready()
            say("all are followed")
            begin = datetime.now(UTC)
            with Meter(pid=broker.pid) as idle:
                time.sleep(options.idle_seconds)
            requests = stage.requests(user, since=begin) / options.idle_seconds * 60
            used = memory(broker.pid)
            writer = [*access(stage, "bench-writer"), f"--namespace={namespace.name}", f"--names={names}"]
            with Meter(pid=broker.pid) as busy:
                ended = drive("end", *writer, f"--count={ends}", f"--rate={options.end_rate}")
                # What was told by then is all that can be compared.
                time.sleep(2)
            followers.end()
            observer.end()
            told, seen = followers.report(), observer.report()
        delays = [(told["ends"][pod] - moment) / 1e6 for pod, moment in seen["ends"].items() if pod in told["ends"]]
        say(f"{ended['count']} ends in {ended['seconds']:.1f} s; {len(delays)} compared; {told['errors'][:1]}")
    added = used["anonymous"] - before["anonymous"]
    return [
        f"{executions:,}",
        f"{used['resident'] / 1e6:.0f}",
        f"{added / 1e6:+.1f}",
        f"{added / 1e3 / executions:.1f}",
        f"{requests:.0f}",
        f"{idle.share * 100:.1f} %",
        f"{busy.share * 100:.1f} %",
        str(ended["count"]),
        *(f"{value:.0f}" for value in (percentile(delays, 0.5), percentile(delays, 0.99), max(delays))),
        str(ended["count"] * options.watchers - told["told"]),
    ]
