"""The pods of a namespace, watched beside the broker, with what is asked about those of one DAG run."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from kubernetes import client as kubernetes
from kubernetes import watch as kubernetes_watch
from urllib3.exceptions import HTTPError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from e2e.site import Namespace

#: Seconds after which the watch begins anew; also how long leaving takes.
_ROUND = 5


@dataclass(kw_only=True)
class PodWitness:
    """Remembers every pod that there ever was, as it was last seen; a context manager."""

    namespace: Namespace
    _pods: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        """Begins to watch."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pod-witness")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops."""
        self._stop.set()
        self._thread.join()

    def of(self, run: str) -> list[dict[str, Any]]:
        """The pods of a DAG run, oldest first."""
        with self._lock:
            found = [pod for pod in self._pods.values() if pod["metadata"].get("labels", {}).get("run_id") == run]
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def _run(self) -> None:
        # Each round goes on where the last one ended, so that no pod comes and goes unseen between them.
        version: str | None = None
        while not self._stop.is_set():
            more = {} if version is None else {"resource_version": version}
            stream = kubernetes_watch.Watch().stream(
                self.namespace.site.core.list_namespaced_pod, self.namespace.name, timeout_seconds=_ROUND, **more
            )
            # An API server that is busy ends a watch now and then.
            try:
                for event in stream:
                    self._see(event["raw_object"])
                    version = event["raw_object"]["metadata"]["resourceVersion"]
            except kubernetes.ApiException as error:
                if error.status == HTTPStatus.GONE:
                    version = None
            except HTTPError:
                continue

    def _see(self, pod: dict[str, Any]) -> None:
        with self._lock:
            known = self._pods.get(pod["metadata"]["uid"])
            # A watch that begins anew may first tell what was so a moment before.
            if known is None or _version(known) <= _version(pod):
                self._pods[pod["metadata"]["uid"]] = pod


def _version(pod: dict[str, Any]) -> int:
    return int(pod["metadata"]["resourceVersion"])


def times(pod: dict[str, Any]) -> tuple[str, str]:
    """When its first container started and its last one ended; empty for what did not happen or is not over."""
    started, ended = [], []
    for status in pod.get("status", {}).get("containerStatuses", []):
        state = status["state"].get("terminated") or status["state"].get("running") or {}
        if state.get("startedAt"):
            started.append(str(state["startedAt"]))
            ended.append(str(state.get("finishedAt") or ""))
    # Times of one form, in whole seconds, so the order of the texts is theirs.
    return min(started, default=""), max(ended, default="") if all(ended) else ""


def runs(pod: dict[str, Any]) -> bool:
    """Whether any of its containers does."""
    return any("running" in status["state"] for status in pod.get("status", {}).get("containerStatuses", []))
