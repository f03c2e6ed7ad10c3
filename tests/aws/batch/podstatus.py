"""What a pod's status says about an attempt. Pure."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .job import Container

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class PodStatus:
    """The part of a pod that Batch looks at."""

    phase: str
    node: str
    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...]
    #: When the first of its containers, not counting init containers, has started; seconds since the epoch.
    started: float | None
    reason: str

    @property
    def has_ended(self) -> bool:
        """Whether no container runs or will."""
        return self.phase in ("Succeeded", "Failed")


def read(pod: Mapping[str, Any]) -> PodStatus:
    """Reads a pod as the watch shows it."""
    status = pod.get("status", {})
    mains = status.get("containerStatuses", [])
    return PodStatus(
        phase=status.get("phase", "Pending"),
        node=pod["spec"].get("nodeName", ""),
        containers=tuple(map(_container, mains)),
        init_containers=tuple(map(_container, status.get("initContainerStatuses", []))),
        started=min((at for one in mains if (at := _started(one)) is not None), default=None),
        reason=status.get("reason", ""),
    )


def _container(status: Mapping[str, Any]) -> Container:
    state = status.get("state", {})
    ended = state.get("terminated")
    said = ended or state.get("waiting") or {}
    # Of a container that waits, the message says more than the reason: which image, and what the registry answered.
    words = [said.get("reason", ""), said.get("message", "")]
    return Container(
        name=status["name"],
        id=status.get("containerID", ""),
        exit_code=None if ended is None else ended["exitCode"],
        reason=": ".join(word for word in words if word) if ended is None else said.get("reason", ""),
    )


def _started(status: Mapping[str, Any]) -> float | None:
    state = status.get("state", {})
    found = (state.get("running") or state.get("terminated") or {}).get("startedAt")
    if found is None:
        return None
    return datetime.datetime.fromisoformat(found.replace("Z", "+00:00")).timestamp()
