"""What policies must allow for an operation: actions, on which resources, and what conditions may ask of each.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsbatch.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aws.signatures import Caller

    from .service import Batch

#: Operations that a policy can allow for everything or not at all.
_ANYTHING: Final = {
    *("DescribeJobs", "ListJobs", "DescribeJobDefinitions", "DescribeJobQueues", "DescribeComputeEnvironments"),
}
_ENDING: Final = {"TerminateJob", "TerminateJobs", "CancelJob", "CancelJobs"}
#: What operations make that may have tags from the beginning.
_MADE: Final = {"SubmitJob": "job", "RegisterJobDefinition": "job-definition"}


def needed(
    name: str, asked: Mapping[str, Any], caller: Caller, batch: Batch
) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Actions, resources and the context of each; all must be allowed."""
    prefix, action = f"arn:aws:batch:{caller.region}:{caller.account}", f"batch:{name}"
    tags = {f"aws:RequestTag/{key}": value for key, value in asked.get("tags", {}).items()}

    def arn(kind: str, reference: str) -> str:
        return reference if reference.startswith("arn:") else f"{prefix}:{kind}/{reference}"

    if name in _ANYTHING:
        yield action, "*", {}
    elif name == "SubmitJob":
        context = {**tags, **_of_pod(asked.get("eksPropertiesOverride", {}))}
        # Without a revision, the resource has none either.
        yield action, arn("job-definition", asked["jobDefinition"]), context
        yield action, arn("job-queue", asked["jobQueue"]), context
    elif name in _ENDING:
        # The plural has the permission of the singular.
        for one in asked.get("jobs") or [asked["jobId"]]:
            yield action.removesuffix("s"), arn("job", one), _of_job(batch, one)
    elif name == "RegisterJobDefinition":
        resource = arn("job-definition", asked["jobDefinitionName"])
        yield action, resource, {**tags, **_of_pod(asked.get("eksProperties", {}))}
    elif name == "DeregisterJobDefinition":
        yield action, arn("job-definition", asked["jobDefinition"]), {}
    else:
        resource = asked.get("resourceArn", "*")
        yield action, resource, {**tags, **_of_job(batch, resource.rpartition("/")[2])}
    if tags and name in _MADE:
        yield "batch:TagResource", arn(_MADE[name], asked.get("jobDefinitionName", "*")), tags


def _of_job(batch: Batch, job: str) -> dict[str, str]:
    """The tags of a job; children have their parent's."""
    with batch.lock:
        found = batch.jobs.by_id.get(job)
        return {f"aws:ResourceTag/{key}": value for key, value in (found.tags if found else {}).items()}


def _of_pod(properties: Mapping[str, Any]) -> dict[str, str]:
    """What a request says of its pods; where containers differ, the first counts."""
    pod = properties.get("podProperties", {})
    containers = [*pod.get("containers", []), *pod.get("initContainers", [])]
    security = [one["securityContext"] for one in containers if "securityContext" in one]
    privileged = [one["privileged"] for one in security if "privileged" in one]
    facts = {
        "batch:EKSNamespace": pod.get("metadata", {}).get("namespace"),
        "batch:EKSServiceAccountName": pod.get("serviceAccountName"),
        "batch:EKSImage": next((one["image"] for one in containers if "image" in one), None),
        "batch:EKSPrivileged": str(any(privileged)).lower() if privileged else None,
    }
    return {key: value for key, value in facts.items() if value is not None}
