"""Runs the tasks: each in a process of its own, against its own broker or with its own cluster user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench.task import Answer, Specification
from e2e.manifests import IMAGE, numbered
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from bench.observer import Observer, Seen
    from e2e.broker import Broker, Brokers
    from e2e.site import Namespace

#: The kinds that go through a broker.
OURS: Final = frozenset({"ours", "client"})
TARGET: Final = "bench"
#: Seconds beside the pod's own: imports on a busy machine, the pod's start, the peer's intervals.
SPARE: Final = 120.0
#: Seconds of the submit window of a run whose deletion is counted. The broker waits one minute more.
SHORT_WINDOW: Final = 30.0
#: A pod that was released is gone so long after its window, in seconds, with room for a busy machine.
GONE_WITHIN: Final = SHORT_WINDOW + 60 + 60

#: Asked once per target and not per execution.
SHARED: Final = frozenset({"list", "watch"})


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One task that was run."""

    answer: Answer
    seen: Seen

    @property
    def cluster(self) -> float:
        """Seconds from the container's end until the API server told it."""
        return (self.seen.end - self.seen.last_line) / 1e9

    @property
    def to_return(self) -> float:
        """Seconds from the container's end to the operator's return."""
        return (self.answer.returned - self.seen.last_line) / 1e9

    @property
    def told_to_return(self) -> float:
        """Seconds from the API server's word to the operator's return."""
        return (self.answer.returned - self.seen.end) / 1e9

    @property
    def told_to_end(self) -> float:
        """Seconds from the API server's word to the client's END."""
        return (self.answer.end - self.seen.end) / 1e9


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The requests of one execution, by what was asked."""

    own: Counter[str]
    shared: Counter[str]
    """Of the broker's watch, which feeds all executions of the target."""
    lifetime: float
    """Seconds from the broker's start to the count."""


@dataclass(kw_only=True)
class Lanes:
    """Runs tasks in one namespace."""

    namespace: Namespace
    brokers: Brokers
    folder: Path
    observer: Observer
    _count: int = 0
    _counted: set[str] = field(default_factory=set)
    _counted_from: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def broker(self, user: str) -> Broker:
        """A broker that asks the cluster in the name of a user of its own."""
        kubeconfig = self.namespace.site.user(user)
        return self.brokers.start(namespace=self.namespace, instance=user, target=TARGET, kubeconfig=kubeconfig)

    def run(self, kind: str, *, seconds: float, user: str, broker: Broker | None = None, window: float = 600) -> Sample:
        """Runs one task whose pod prints a line each second; fails if the task does."""
        with self._lock:
            self._count += 1
            name = f"{kind}-{self._count}"
        whole, rest = divmod(seconds, 1)
        out = self.folder / f"{name}.json"
        specification = Specification(
            kind=kind,
            name=name,
            script=f"{numbered(int(whole), pause='1')}; sleep {rest:.2f}; echo end",
            image=IMAGE,
            out=str(out),
            address=broker.address if broker is not None else "",
            target=TARGET,
            kubeconfig="" if kind in OURS else str(self.namespace.site.user(user)),
            namespace=self.namespace.name,
            window=window,
        )
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            done = subprocess.run(
                [sys.executable, "-m", "bench.task", json.dumps(asdict(specification))],
                env=self._environment(broker),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=seconds + SPARE,
                check=False,
            )
        if done.returncode != 0:
            raise AssertionError(f"{name} ended with {done.returncode}:\n{log.read_text(errors='replace')[-4000:]}")
        answer = Answer(**json.loads(out.read_text()))
        return Sample(answer=answer, seen=self.observer.seen(answer.pod))

    def run_counted(self, kinds: tuple[str, ...], *, lengths: tuple[int, ...]) -> None:
        """Runs a pod of each kind for each length, in seconds; pods of a length at the same time."""
        self._counted_from = time.monotonic()
        for seconds in lengths:
            users = {kind: _user(kind, seconds) for kind in kinds}
            brokers = {kind: self.broker(users[kind]) for kind in kinds if kind in OURS}
            with ThreadPoolExecutor(len(kinds)) as pool:
                runs = [
                    pool.submit(
                        self.run,
                        kind,
                        seconds=seconds,
                        user=users[kind],
                        broker=brokers.get(kind),
                        window=SHORT_WINDOW,
                    )
                    for kind in kinds
                ]
                self._counted.update(one.result().answer.pod for one in runs)

    def costs(self, kinds: tuple[str, ...], *, lengths: tuple[int, ...]) -> dict[tuple[str, int], Cost]:
        """The requests of what `run_counted` ran, once all of its pods are deleted, which ours are last."""
        gone = "the deletion of the counted pods"
        wait_for(gone, lambda: not self._counted.intersection(self.namespace.pod_names), within=GONE_WITHIN)
        return {(kind, seconds): self._cost(kind, seconds) for kind in kinds for seconds in lengths}

    def _cost(self, kind: str, seconds: int) -> Cost:
        own: Counter[str] = Counter()
        shared: Counter[str] = Counter()
        for event in self.namespace.site.cluster.requests(_user(kind, seconds)):
            # A cluster that stays up has those of earlier runs too.
            if event["objectRef"].get("namespace") != self.namespace.name:
                continue
            what = f"{event['verb']} {_resource(event)}"
            (shared if kind in OURS and event["verb"] in SHARED else own)[what] += 1
        return Cost(own=own, shared=shared, lifetime=time.monotonic() - self._counted_from)

    def _environment(self, broker: Broker | None) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "PYTHONPATH") if key in os.environ}
        home = self.folder / "airflow"
        home.mkdir(exist_ok=True)
        connections = {"KUBERNETES_DEFAULT": {"conn_type": "kubernetes"}}
        if broker is not None:
            place: dict[str, Any] = {"host": "127.0.0.1", "port": broker.port, "schema": "http"}
            connections["PODBROKER_DEFAULT"] = {"conn_type": "podbroker", **place}
        return {
            **kept,
            **{f"AIRFLOW_CONN_{name}": json.dumps(value) for name, value in connections.items()},
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "NO_PROXY": "127.0.0.1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def _user(kind: str, seconds: int) -> str:
    return f"bench-{kind}-{seconds}"


def _resource(event: dict[str, Any]) -> str:
    what = event["objectRef"]
    return "/".join(filter(None, (what["resource"], what.get("subresource"))))
