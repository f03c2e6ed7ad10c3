"""Jobs as DescribeJobs and ListJobs tell them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .job import STATES
from .manifest import container_name

if TYPE_CHECKING:
    from .job import Attempt, Container, Job, Standing


def detail(job: Job, standing: Standing) -> dict[str, Any]:
    """JobDetail."""
    request, definition = job.request, job.definition.request
    priority = request.get("schedulingPriorityOverride", definition.get("schedulingPriority"))
    found = {
        "jobArn": job.arn,
        "jobName": job.name,
        "jobId": job.id,
        "jobQueue": job.queue.arn,
        "status": standing.status,
        "shareIdentifier": request.get("shareIdentifier"),
        "schedulingPriority": priority,
        "statusReason": standing.reason,
        "createdAt": _milliseconds(job.created),
        "retryStrategy": {"attempts": 1, "evaluateOnExit": [], **job.strategy},
        "startedAt": _milliseconds(standing.started),
        "stoppedAt": _milliseconds(standing.stopped),
        "dependsOn": request.get("dependsOn", []),
        "jobDefinition": job.definition.arn,
        "parameters": {**definition.get("parameters", {}), **request.get("parameters", {})},
        "arrayProperties": _array(job, standing),
        "timeout": {"attemptDurationSeconds": job.timeout} if job.timeout else None,
        "tags": job.tags or None,
        "propagateTags": request.get("propagateTags", definition.get("propagateTags")),
        "platformCapabilities": [],
        "eksProperties": {"podProperties": _pod(job, standing)},
        "eksAttempts": [_attempt(job, one) for one in standing.attempts],
        "isCancelled": standing.is_cancelled,
        "isTerminated": standing.is_terminated,
    }
    return _without_empty(found)


def summary(job: Job, standing: Standing) -> dict[str, Any]:
    """JobSummary."""
    ended = standing.current if standing.status in ("SUCCEEDED", "FAILED") else None
    container = next(iter(ended.containers), None) if ended is not None else None
    found = {
        "jobArn": job.arn,
        "jobId": job.id,
        "jobName": job.name,
        "createdAt": _milliseconds(job.created),
        "shareIdentifier": job.request.get("shareIdentifier"),
        "status": standing.status,
        "statusReason": standing.reason,
        "startedAt": _milliseconds(standing.started),
        "stoppedAt": _milliseconds(standing.stopped),
        "container": {"exitCode": container.exit_code} if container and container.exit_code is not None else None,
        "arrayProperties": _array(job, standing, with_counts=False),
        "jobDefinition": job.definition.arn,
        "isCancelled": standing.is_cancelled,
        "isTerminated": standing.is_terminated,
    }
    return _without_empty(found)


def _array(job: Job, standing: Standing, *, with_counts: bool = True) -> dict[str, Any] | None:
    if job.parent is not None:
        return {"index": job.index}
    if not job.size:
        return None
    counts = dict(zip(STATES, standing.children, strict=True))
    return {"size": job.size, **({"statusSummary": counts} if with_counts else {})}


def _pod(job: Job, standing: Standing) -> dict[str, Any]:
    """EksPodPropertiesDetail: the properties, and of the current pod its name, its node and how its containers are."""
    current, properties = standing.current, dict(job.pod)
    known = {} if current is None else {one.name: one for one in (*current.containers, *current.init_containers)}
    for kind in ("containers", "initContainers"):
        if kind in properties:
            containers = [(one, known.get(container_name(one))) for one in properties[kind]]
            properties[kind] = [{**one, **_told(container)} for one, container in containers]
    names = {} if current is None else {"podName": current.pod_name, "nodeName": current.node}
    return {**properties, **{key: value for key, value in names.items() if value}}


def _attempt(job: Job, attempt: Attempt) -> dict[str, Any]:
    """EksAttemptDetail."""
    found = {
        "containers": [_container(one) for one in attempt.containers],
        "initContainers": [_container(one) for one in attempt.init_containers],
        "eksClusterArn": job.environment.cluster_arn,
        "podName": attempt.pod_name,
        "podNamespace": attempt.namespace,
        "nodeName": attempt.node,
        "startedAt": _milliseconds(attempt.started),
        "stoppedAt": _milliseconds(attempt.stopped),
        "statusReason": attempt.reason,
    }
    return _without_empty(found)


def _container(container: Container) -> dict[str, Any]:
    """EksAttemptContainerDetail."""
    return _without_empty({"name": container.name, "containerID": container.id, **_told(container)})


def _told(container: Container | None) -> dict[str, Any]:
    """How a container is; at most 255 characters of why."""
    if container is None:
        return {}
    return _without_empty({"exitCode": container.exit_code, "reason": container.reason[:255]})


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def _without_empty(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value is not None and value != ""}
