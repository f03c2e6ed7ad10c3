"""The little of a Kubernetes client that callbacks and subclasses may still use.

Upstream hands its callbacks a ``CoreV1Api``. A worker of ours has no credential for one, so they get this instead: it
reads and lists the execution's own pod through the broker, reads its log, and deletes it by cancelling. Everything else
is refused in words that say why; labels, because the broker's contract fixes them at submit.
"""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

from podbroker import LogChunk, LogGap
from podbroker.airflow._compat import AirflowException, PodNotFoundException

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubernetes.client import models as k8s

    from podbroker import Event, Execution
    from podbroker.airflow.pump import WatchProtocol

__all__ = ["OpenLog", "PodClient", "manifest_of", "named_pod", "pod_of"]

LOG_SECONDS = 30.0
"""How long the lines so far of one container may take to arrive, in a callback that keeps the task waiting."""


def manifest_of(pod: k8s.V1Pod) -> dict[str, Any]:
    """Turn a pod into the JSON that the API server takes; asks no cluster."""
    manifest: dict[str, Any] = PodGenerator.serialize_pod(pod)
    return manifest


def pod_of(execution: Execution | None) -> k8s.V1Pod | None:
    """Read the pod of an execution's full view; None when it has none."""
    if execution is None or not execution.pod_json:
        return None
    return PodGenerator.deserialize_model_dict(json.loads(execution.pod_json))


def named_pod(name: str, namespace: str) -> k8s.V1Pod:
    """Stand in for a pod that cannot be read any more."""
    return PodGenerator.deserialize_model_dict({"metadata": {"name": name, "namespace": namespace or None}})


class OpenLog(Protocol):
    """Opens a watch that ends with the lines so far."""

    def __call__(self, *, containers: tuple[str, ...], tail_lines: int, since: datetime | None) -> WatchProtocol | None:
        """Open it; None while there is no execution."""


class PodClient:
    """Reads the pod of one execution, in the words of ``CoreV1Api``."""

    def __init__(
        self,
        *,
        read: Callable[[], k8s.V1Pod | None],
        cancel: Callable[[str], object],
        open_log: OpenLog,
        base_container: str,
    ) -> None:
        """``read`` asks the broker for the pod, ``cancel`` for its end with a reason."""
        self._read = read
        self._cancel = cancel
        self._open_log = open_log
        self._base_container = base_container

    def read(self) -> k8s.V1Pod | None:
        """Read the execution's pod; None while there is none."""
        return self._read()

    def read_namespaced_pod(self, name: str, namespace: str, **_: object) -> k8s.V1Pod:
        """Read the execution's pod."""
        pod = self._read()
        if pod is None or pod.metadata.name != name or pod.metadata.namespace not in {namespace, None}:
            message = f"The broker shows no pod {namespace}/{name} for this execution"
            raise PodNotFoundException(message)
        return pod

    def list_namespaced_pod(self, namespace: str, **_: object) -> SimpleNamespace:
        """List the execution's pod, whatever the selector."""
        pod = self._read()
        return SimpleNamespace(items=[pod] if pod is not None and pod.metadata.namespace in {namespace, None} else [])

    def delete_namespaced_pod(self, name: str, namespace: str, **_: object) -> None:
        """Cancel the execution."""
        self._cancel(f"delete of pod {namespace}/{name} through the operator's client")

    def read_namespaced_pod_log(
        self,
        name: str,
        namespace: str,
        *,
        container: str | None = None,
        tail_lines: int | None = None,
        since_seconds: int | None = None,
        limit_bytes: int | None = None,
        timestamps: bool | None = None,
        **others: object,
    ) -> str:
        """Read the lines so far of one container of the execution's pod; missing ones are announced in their place.

        Args:
            name: The pod.
            namespace: Its namespace.
            container: Whose lines. None: the base container's.
            tail_lines: Only the last so many.
            since_seconds: Only those of the last so many seconds.
            limit_bytes: Only the first so many bytes.
            timestamps: Whether each line begins with its time.
            others: ``follow``, ``previous`` and ``_preload_content=False`` are refused; the rest has no effect.

        Raises:
            PodNotFoundException: The execution has no such pod.
            AirflowException: Something is asked for that cannot be had, or the lines do not arrive.

        """
        refused = [word for word in ("follow", "previous") if others.get(word)]
        refused += ["_preload_content"] if others.get("_preload_content") is False else []
        if refused:
            message = f"read_namespaced_pod_log takes no {', '.join(refused)} here: it gives the lines so far as a text"
            raise AirflowException(message)
        self.read_namespaced_pod(name, namespace)
        wanted = container or self._base_container
        since = None
        if since_seconds is not None:
            since = datetime.now(tz=timezone.utc) - timedelta(seconds=since_seconds)
        watch = self._open_log(containers=(wanted,), tail_lines=tail_lines or 0, since=since)
        if watch is None:
            return ""
        try:
            text = _text_of(watch, wanted, timestamps=bool(timestamps))
        finally:
            watch.close()
        return text if limit_bytes is None else text.encode()[:limit_bytes].decode(errors="ignore")

    def patch_namespaced_pod(self, name: str, namespace: str, body: object, **_: object) -> NoReturn:  # noqa: ARG002
        """Refuse: what is sent to the broker is fixed at submit."""
        message = (
            f"patch_namespaced_pod is not available: labels and annotations of pod {namespace}/{name} are fixed when it"
            " is submitted; give them as arguments, or change the manifest in on_pod_manifest_created"
        )
        raise AirflowException(message)

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse what would need a credential of the cluster."""
        if name.startswith("_"):
            raise AttributeError(name)
        message = (
            f"{name} is not available: the broker holds the credentials of the cluster, and its client reads, lists and"
            " deletes the pod of this execution, and reads its log, only"
        )
        raise AirflowException(message)


def _text_of(watch: WatchProtocol, container: str, *, timestamps: bool) -> str:
    """Put together the lines of the container's latest instance."""
    latest: tuple[int, int] = (0, 0)
    lines: list[str] = []
    until = time.monotonic() + LOG_SECONDS
    while not watch.ended:
        left = until - time.monotonic()
        if left <= 0:
            message = f"The lines of container {container} did not arrive within {LOG_SECONDS:.0f} s"
            raise AirflowException(message)
        event = watch.poll(timeout=left)
        if isinstance(event, LogChunk | LogGap) and event.instance.container == container:
            instance = (event.instance.attempt, event.instance.restart)
            if instance > latest:
                latest, lines = instance, []
            if instance == latest:
                lines += _lines_of(event, timestamps=timestamps)
    return "".join(lines)


def _lines_of(event: Event, *, timestamps: bool) -> list[str]:
    if isinstance(event, LogGap):
        return [f"[podbroker: lines are missing here: {event.message or event.reason.value}]\n"]
    if not isinstance(event, LogChunk):
        return []
    made = []
    for line in event.lines:
        time_of = datetime.fromtimestamp(line.time_ns / 1e9, tz=timezone.utc).isoformat() + " " if timestamps else ""
        text = line.content.decode(errors="backslashreplace")
        made.append(f"{'' if line.continues else time_of}{text}{'' if line.partial else chr(10)}")
    return made
