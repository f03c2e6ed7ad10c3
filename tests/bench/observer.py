"""The neutral eye: sees each container's last line and its end with a user name and connections of its own.

The last line's time is the container runtime's, so it is the same whoever reads it. The end is the moment at which the
API server's own event of it arrives here, which is about the earliest at which any client of the API server can know.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kubernetes import client as kubernetes
from kubernetes import config as kubernetes_config

from bench.task import CONTAINER

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

#: Seconds until both moments of a pod that has ended must be known.
LIMIT: Final = 30.0


@dataclass(kw_only=True)
class Seen:
    """Two moments of one container, nanoseconds since 1970; 0 until known."""

    last_line: int = 0
    end: int = 0


class Observer:
    """Watches the pods of one namespace."""

    def __init__(self, *, kubeconfig: Path, namespace: str) -> None:
        """Prepares; `with` starts it."""
        self._core = kubernetes.CoreV1Api(kubernetes_config.new_client_from_config(config_file=str(kubeconfig)))
        self._namespace = namespace
        self._seen: dict[str, Seen] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._answer: Any = None

    def __enter__(self) -> Self:
        """Begins to watch."""
        listed = self._core.list_namespaced_pod(self._namespace, _preload_content=False)
        version = json.loads(listed.data)["metadata"]["resourceVersion"]
        threading.Thread(target=self._watch, args=(version,), name="observer", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops."""
        self._stopped = True
        if self._answer is not None:
            self._answer.shutdown()

    def seen(self, pod: str) -> Seen:
        """Waits until both moments of a pod that has ended are known."""

        def whole() -> bool:
            seen = self._seen.get(pod)
            return seen is not None and seen.last_line > 0 and seen.end > 0

        with self._changed:
            if not self._changed.wait_for(whole, timeout=LIMIT):
                raise AssertionError(f"the end of {pod} was not seen: {self._seen.get(pod)}")
            return self._seen[pod]

    def _watch(self, version: str) -> None:
        while not self._stopped:
            with contextlib.suppress(Exception):
                self._answer = self._core.list_namespaced_pod(
                    self._namespace, watch=True, resource_version=version, _preload_content=False
                )
                for line in _lines(self._answer):
                    now = time.time_ns()
                    event = json.loads(line)
                    version = event["object"]["metadata"]["resourceVersion"]
                    self._take(event["object"], now)

    def _take(self, pod: dict[str, Any], now: int) -> None:
        name, statuses = pod["metadata"]["name"], pod["status"].get("containerStatuses", [])
        state: dict[str, Any] = next((one["state"] for one in statuses if one["name"] == CONTAINER), {})
        if "running" not in state and "terminated" not in state:
            return
        with self._changed:
            if name not in self._seen:
                self._seen[name] = Seen()
                threading.Thread(target=self._follow, args=(name,), name=f"observer-{name}", daemon=True).start()
            if "terminated" in state and not self._seen[name].end:
                self._seen[name].end = now
                self._changed.notify_all()

    def _follow(self, pod: str) -> None:
        answer = self._core.read_namespaced_pod_log(
            pod, self._namespace, container=CONTAINER, follow=True, timestamps=True, _preload_content=False
        )
        last = 0
        for line in _lines(answer):
            last = nanoseconds(line.partition(b" ")[0].decode())
        with self._changed:
            self._seen[pod].last_line = last
            self._changed.notify_all()


def _lines(answer: Any) -> Any:  # noqa: ANN401  urllib3's answer; an iterator of bytes
    """The lines of an answer, each as soon as it is there."""
    rest = b""
    for piece in answer.stream(amt=None, decode_content=False):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def nanoseconds(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time in UTC; Python's own parser stops at microseconds."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)
