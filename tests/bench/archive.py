"""What the archive costs the broker: many pods that write at once, without an archive, into a folder, into a bucket.

Nobody watches the pods, so that without an archive the broker reads no line; what is added is the archive's.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import podbroker
from bench.generators import paced
from bench.processes import Meter, memory
from bench.stage import Stage, say
from bench.tables import bullets, table
from cluster.network import free_port
from e2e.manifests import shell
from e2e.proxy import Proxy
from e2e.stores import Bucket, Folder
from e2e.waiting import wait_for

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from e2e.broker import Broker
    from e2e.stores import Store

TARGET: Final = "bench"
#: Seconds until all pods run, or all that they wrote is archived, on a machine that is busy with them.
LIMIT: Final = 600.0
#: More often than by default, so that a short measurement has all of the work in it.
FLUSH: Final = "5s"
PLACES: Final = {"none": "no archive", "folder": "a folder", "bucket": "a bucket (moto's server)"}


def add_options(group: argparse._ArgumentGroup) -> None:
    """How many of everything."""
    group.add_argument("--archive-pods", type=int, default=50, help="pods that write at the same time (default 50)")
    group.add_argument("--archive-rate", type=int, default=200, help="lines/s of each of them (default 200)")
    group.add_argument("--archive-seconds", type=int, default=20, help="how long they are looked at (default 20)")


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much is written."""

    pods: int
    rate: int
    seconds: int


def measure(stage: Stage, options: argparse.Namespace) -> str:
    """The same load with each kind of archive, one after the other."""
    load = Load(pods=options.archive_pods, rate=options.archive_rate, seconds=options.archive_seconds)
    rows = []
    for place, name in PLACES.items():
        folder = stage.folder / place
        folder.mkdir()
        own = Stage(site=stage.site, folder=folder)
        with _store(own, place) as store:
            rows.append([name, *_measured(own, place, store, load)])
    head = [
        "",
        "CPU of one",
        "µs/line",
        "memory, MB",
        "waiting, KB",
        "writes/s",
        "requests/execution",
        "segments/execution",
    ]
    return "\n\n".join(
        [
            "## The archive: the broker",
            table(head, rows),
            bullets(
                ("pods", f"{load.pods} with {load.rate} lines/s each, in bundles, 4 a second; {load.seconds} s of it"),
                ("waiting", "bytes of lines in memory that are not in the archive yet, the most of them"),
                ("writes", "while the pods ran; a segment each " + FLUSH + " and execution, with its index"),
                (
                    "requests/execution",
                    "over its whole life: 5, and 2 for each segment; the signs of life of the replica are in it",
                ),
            ),
        ]
    )


@contextlib.contextmanager
def _store(stage: Stage, place: str) -> Iterator[Store | None]:
    if place == "none":
        yield None
    elif place == "folder":
        yield Folder(path=stage.folder / "archive")
    else:
        port = free_port()
        command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
        with subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as server:
            try:
                with Proxy(upstream=("127.0.0.1", port)) as proxy:
                    wait_for("moto's server", lambda: _answers(port), within=LIMIT)
                    bucket = Bucket(server=("127.0.0.1", port), prefix="bench", proxy=proxy)
                    bucket.make()
                    yield bucket
            finally:
                server.kill()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=2):
            return True
    except OSError:
        return False


def _measured(stage: Stage, place: str, store: Store | None, load: Load) -> list[str]:
    sections: dict[str, Any] = {} if store is None else store.sections(flush=FLUSH)
    with stage.namespace() as namespace, stage.brokers() as brokers:
        broker = brokers.prepare(namespace=namespace, instance=f"bench-archive-{place}", target=TARGET, **sections)
        broker.environment = {} if store is None else store.environment
        client = broker.start().client()
        # More than will be read: they write until they are taken away.
        script = paced(1_000_000_000, rate=load.rate, pause=0.25)
        names = [
            client.submit(target=TARGET, execution_id=f"pod-{number}", pod=shell(script)).execution.name
            for number in range(load.pods)
        ]
        for name in names:
            wait_for(name, lambda name=name: _runs(client, name), within=LIMIT)  # type: ignore[misc]
        say(f"{PLACES[place]}: all run")
        before, waiting = _metrics(broker), 0.0
        with Meter(pid=broker.pid) as meter:
            end = time.monotonic() + load.seconds
            while time.monotonic() < end:
                time.sleep(0.25)
                waiting = max(waiting, _metrics(broker).get("memory_bytes", 0))
        after, used = _metrics(broker), memory(broker.pid)
        for name in names:
            client.cancel(name, reason="the measurement is over")
        cells = [
            f"{meter.share * 100:.0f} %",
            f"{meter.processors / (load.pods * load.rate * meter.seconds) * 1e6:.1f}",
            f"{used['resident'] / 1e6:.0f}",
        ]
        if store is None:
            return [*cells, "", "", "", ""]
        written = after["requests_total write"] - before["requests_total write"]
        wait_for("the archive", lambda: _metrics(broker)["executions_total"] == load.pods, within=LIMIT)
        last = _metrics(broker)
        segments = last["segments_total"] / load.pods
        requests = sum(value for key, value in last.items() if key.startswith("requests_total")) / load.pods
        return [*cells, f"{waiting / 1e3:.0f}", f"{written / meter.seconds:.1f}", f"{requests:.1f}", f"{segments:.1f}"]


def _runs(client: podbroker.Client, name: str) -> bool:
    return client.get(name).state is podbroker.ExecutionState.RUNNING


def _metrics(broker: Broker) -> dict[str, float]:
    """The archive's, without their common prefix; requests by their operation."""
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.admin_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.finditer(r'^podbroker_archive_(\w+)(?:\{operation="(\w+)"\})? (\S+)$', text, re.MULTILINE)
    return {" ".join(filter(None, (one[1], one[2]))): float(one[3]) for one in found}
