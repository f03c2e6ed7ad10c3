"""What a row has in its hands: a namespace, brokers, readers, and ways to break things."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from e2e.following import has_line
from e2e.waiting import wait_for
from faults.reader import LIMIT, Reader
from podbroker import BatchWorkload, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.broker import Broker, Brokers
    from e2e.manifests import Manifest
    from e2e.proxy import Proxy
    from e2e.site import Namespace, Site
    from faults.batch.jobs import Jobs
    from faults.witness import Witness

#: All rows are one installation, so that one broker in the end can tidy up after all of them.
INSTANCE: Final = "faults"
#: Nothing is deleted before this and a minute have passed; a row that lasts longer has waited already.
WINDOW: Final = datetime.timedelta(seconds=90)

#: A volume for `tell`, and the script that waits for it.
SIGNALS: Final = {"name": "signals", "emptyDir": {}}
SIGNALS_MOUNT: Final = {"name": "signals", "mountPath": "/signals"}


def until_told(word: str) -> str:
    """A script that waits for `Stage.tell`."""
    return f"while [ ! -e /signals/{word} ]; do sleep 0.1; done"


@dataclass(kw_only=True)
class Stage:
    """One row being played."""

    site: Site
    namespace: Namespace
    brokers: Brokers
    witness: Witness
    target: str
    """The name of the row's target, unlike that of any other row of the run."""
    closing: contextlib.ExitStack
    """What it opens is closed with the row."""
    lasting: contextlib.ExitStack
    """What it opens is closed when everybody has tidied up."""
    jobs: Jobs | None = None
    """The row's AWS Batch, if it has one."""
    readers: list[Reader] = field(default_factory=list)
    names: list[tuple[Client, str]] = field(default_factory=list)
    """What was submitted, and by whom it is released."""
    remarks: list[str] = field(default_factory=list)
    """What the caller saw besides outcome and markers."""

    def broker(self, **settings: Any) -> Broker:  # noqa: ANN401  those of Brokers.prepare
        """A broker that runs."""
        return self.prepare(**settings).start()

    def prepare(self, **settings: Any) -> Broker:  # noqa: ANN401  those of Brokers.prepare
        """A broker that is not started yet."""
        return self.brokers.prepare(namespace=self.namespace, instance=INSTANCE, target=self.target, **settings)

    def proxy(self) -> Proxy:
        """A proxy in front of the API server, for `broker(api_server=...)`."""
        return self.closing.enter_context(self.brokers.api_server_proxy())

    def client_at(self, port: int, **settings: Any) -> Client:  # noqa: ANN401  those of Client
        """A client of whatever listens there."""
        return self.closing.enter_context(Client(f"http://127.0.0.1:{port}", **settings))

    def submit(self, client: Client, work: Manifest | BatchWorkload, **more: Any) -> str:  # noqa: ANN401  of submit
        """Starts an execution and returns its name; it is released when the row was judged."""
        before = datetime.datetime.now(datetime.UTC) + WINDOW
        kind = "batch" if isinstance(work, BatchWorkload) else "pod"
        settings = {kind: work, "execution_id": "row", "submit_before": before, **more}
        name = client.submit(target=self.target, **settings).execution.name
        if name not in [one for _, one in self.names]:
            self.names.append((client, name))
        return name

    def read(self, client: Client, name: str, *, cursor: bytes = b"") -> Reader:
        """A reader, which is judged in the end."""
        reader = Reader(client, name, cursor=cursor)
        self.readers.append(reader)
        return reader

    def start(
        self,
        client: Client,
        work: Manifest | BatchWorkload,
        *,
        until: str = "",
        **more: Any,  # noqa: ANN401  of submit
    ) -> Reader:
        """Submits and reads, up to a line if one is named."""
        reader = self.read(client, self.submit(client, work, **more))
        if until:
            reader.until(has_line(until))
        return reader

    # --- the pod, beside the broker ----------------------------------------------------------------------------------

    @property
    def pod(self) -> dict[str, Any]:
        """The only pod, as the API server tells it."""
        return self.namespace.only_pod

    @property
    def container_id(self) -> str:
        """The runtime's name of the main container."""
        found: str = self.pod["status"]["containerStatuses"][0]["containerID"]
        return found.removeprefix("containerd://")

    def tell(self, word: str) -> None:
        """Lets a script go on that waits in `until_told`."""
        folder = Path(self.site.cluster.facts["folder"]) / "kubelet/pods" / self.pod["metadata"]["uid"]
        (folder / "volumes/kubernetes.io~empty-dir/signals" / word).touch()

    def written(self) -> int:
        """How many lines the row's containers have written so far."""
        return sum(len(lines) for lines in self.witness.lines(self.namespace.name).values())

    def await_written(self, lines: int, *, within: float = LIMIT) -> None:
        """Waits until so many lines are on the disk."""
        wait_for(f"{lines} lines", lambda: self.written() >= lines, within=within, every=0.2)

    def await_phase(self, *phases: str, within: float = LIMIT) -> None:
        """Waits until the pod is in one of these phases."""
        wait_for(f"{phases}", lambda: self.pod["status"]["phase"] in phases, within=within, every=0.2)

    def write_behind(self, lines: list[tuple[int, str]], *, container: str = "main") -> None:
        """Appends lines to the container's log file, as the runtime would, with these times."""
        (folder,) = Path(self.site.cluster.facts["pod_logs"]).glob(f"{self.namespace.name}_*")
        text = "".join(f"{stamp(time)} stdout F {line}\n" for time, line in lines)
        with (folder / container / "0.log").open("ab", buffering=0) as file:
            file.write(text.encode())

    def made(self) -> int:
        """How many pods were made, or jobs where AWS Batch makes the pods."""
        return self.pods_made() if self.jobs is None else self.jobs.made()

    def left(self) -> int:
        """How many pods there are, and jobs that have not ended, and records of jobs."""
        return len(self.namespace.pods) + (0 if self.jobs is None else self.jobs.left())

    def pods_made(self) -> int:
        """How many pods were created in the namespace, as the API server's audit log tells."""
        made = set()
        mark = f'"namespace":"{self.namespace.name}"'
        with Path(self.site.cluster.facts["audit_log"]).open() as log:
            for line in log:
                if mark in line and '"verb":"create"' in line and line.endswith("\n"):
                    event = json.loads(line)
                    place = event["objectRef"]
                    is_pod = place["resource"] == "pods" and "subresource" not in place
                    if is_pod and event.get("responseStatus", {}).get("code") == 201:
                        made.add(event["auditID"])
        return len(made)

    # --- the cluster -------------------------------------------------------------------------------------------------

    def component(self, name: str, action: str) -> None:
        """Stops, starts, pauses a part of the cluster."""
        self.site.cluster.component(name, action)

    def node(self) -> dict[str, Any]:
        """The node, as the API server tells it."""
        answer = self.site.core.read_node(self.site.cluster.facts["node"], _preload_content=False)
        found: dict[str, Any] = json.loads(answer.data)
        return found

    def node_condition(self) -> str:
        """Whether the node is ready: True, False or Unknown."""
        conditions = {one["type"]: one["status"] for one in self.node()["status"]["conditions"]}
        found: str = conditions["Ready"]
        return found

    @contextlib.contextmanager
    def taint(self) -> Iterator[None]:
        """The node is tainted NoExecute."""
        name = self.site.cluster.facts["node"]
        before = self.node()["spec"].get("taints", [])
        taint = {"key": "podbroker.test/fault", "effect": "NoExecute"}
        self.site.core.patch_node(name, {"spec": {"taints": [*before, taint]}})
        try:
            yield
        finally:
            left = [one for one in self.node()["spec"].get("taints", []) if one["key"] != taint["key"]]
            self.site.core.patch_node(name, {"spec": {"taints": left or None}})


def stamp(time: int) -> str:
    """Nanoseconds as the runtime writes them."""
    seconds, rest = divmod(time, 1_000_000_000)
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


@contextlib.contextmanager
def again_and_again(action: Callable[[], object], *, every: float) -> Iterator[None]:
    """Does something every so many seconds until the block is left."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(every):
            action()

    thread = threading.Thread(target=run, name="again-and-again")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def shifted_clock(folder: Path, seconds: int) -> dict[str, str]:
    """Environment of a process whose wall clock is wrong by so much; its timers are right."""
    source, library = folder / "clock.c", folder / f"clock{seconds}.so"
    source.write_text(_CLOCK)
    compiler = os.environ.get("CC", "cc")
    command: list[str | Path] = [compiler, "-shared", "-fPIC", "-O1", f"-DSHIFT=({seconds})", "-o", library, source]
    subprocess.run(command, check=True, capture_output=True)
    return {"LD_PRELOAD": str(library)}


_CLOCK: Final = """\
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    long done = syscall(SYS_clock_gettime, clock, now);
    if (done == 0 && clock == CLOCK_REALTIME) now->tv_sec += SHIFT;
    return (int)done;
}
"""
