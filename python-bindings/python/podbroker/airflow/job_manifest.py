"""The Kubernetes Job that a task submits and reads back, in the words of the Kubernetes client. Asks nobody."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from kubernetes.client import Configuration
from kubernetes.client import models as k8s
from kubernetes.client.api_client import ApiClient

if TYPE_CHECKING:
    from podbroker import Execution

__all__ = ["Lifetime", "containers_of", "job_of", "lifetime_of", "manifest_of_job", "masked"]

SHORTEST_TTL: Final = timedelta(minutes=1)
LONGEST_TTL: Final = timedelta(days=30)
"""What the broker takes."""

MASK: Final = "***"


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a Job is kept after its end."""

    ttl: timedelta | None
    """By the broker, when nobody acknowledges its end; None: the target's default."""
    seconds: int | None
    """By the cluster; None: it never deletes the Job."""


def lifetime_of(seconds: int | None, ttl: timedelta | None) -> Lifetime:
    """Fit both together: the cluster must not delete a Job before the broker may.

    Args:
        seconds: ``ttlSecondsAfterFinished`` as it was asked for.
        ttl: What the broker was told.

    """
    if seconds is None:
        return Lifetime(ttl, None)
    kept = ttl if ttl is not None else min(max(timedelta(seconds=seconds), SHORTEST_TTL), LONGEST_TTL)
    return Lifetime(kept, max(seconds, int(kept.total_seconds())))


def manifest_of_job(job: k8s.V1Job) -> dict[str, Any]:
    """Turn a Job into the JSON that the API server takes."""
    manifest: dict[str, Any] = ApiClient(configuration=Configuration()).sanitize_for_serialization(job)
    return manifest


def job_of(execution: Execution | None) -> k8s.V1Job | None:
    """Read the Job of an execution's full view; None when it has none."""
    if execution is None or not execution.job_json:
        return None
    client = ApiClient(configuration=Configuration())
    job: k8s.V1Job = client._ApiClient__deserialize_model(json.loads(execution.job_json), k8s.V1Job)  # noqa: SLF001
    return job


def containers_of(job: k8s.V1Job) -> list[str]:
    """Name the main containers of a Job's pods."""
    pod = job.spec.template.spec if job.spec is not None and job.spec.template is not None else None
    return [container.name for container in (pod.containers or ())] if pod is not None else []


def masked(job: k8s.V1Job) -> dict[str, Any]:
    """Give a Job as a dictionary in the Kubernetes client's words, without what its environment may keep secret."""
    shown: dict[str, Any] = job.to_dict()
    pod = ((shown.get("spec") or {}).get("template") or {}).get("spec") or {}
    for container in [*(pod.get("containers") or ()), *(pod.get("init_containers") or ())]:
        for variable in container.get("env") or ():
            if variable.get("value") is not None:
                variable["value"] = MASK
    return shown
