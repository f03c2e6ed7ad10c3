"""The pod that Batch makes from a job. Pure.

https://docs.aws.amazon.com/batch/latest/userguide/eks-jobs.html and job_env_vars.html. How real Batch chooses a node is
not published; here the pod is made for one node by affinity, and the cluster's scheduler waits for room on it.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .job import Job

JOB_LABEL: Final = "batch.amazonaws.com/job-id"
_ENVIRONMENT_LABEL: Final = "batch.amazonaws.com/compute-environment-uuid"
_NODE_LABEL: Final = "batch.amazonaws.com/node-uid"
_TAINT: Final = "batch.amazonaws.com/batch-node"

#: Keeps a pod from its node, for tests that want a job to stay in STARTING.
GATE: Final = "batch.amazonaws.com/held"

_UNNAMED: Final = "Default"
_PLACEHOLDER: Final = re.compile(r"Ref::([A-Za-z0-9_-]+)")


def properties(definition: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Pod properties with the overrides and parameters of a submit, and what of the overrides fits to nothing.

    Batch calls a container without a name Default.
    """
    pod: dict[str, Any] = copy.deepcopy(definition["eksProperties"]["podProperties"])
    override = request.get("eksPropertiesOverride", {}).get("podProperties", {})
    problems = []
    for kind in ("containers", "initContainers"):
        containers = pod.get(kind, [])
        for container in containers:
            container.setdefault("name", _UNNAMED)
        for given in override.get(kind, []):
            name = given.get("name", containers[0]["name"] if len(containers) == 1 else _UNNAMED)
            found = next((one for one in containers if one["name"] == name), None)
            if found is None:
                problems.append(f"the overridden container {name!r} is not among the definition's {kind}")
            else:
                _override(found, given)
        for container in containers:
            values = {**definition.get("parameters", {}), **request.get("parameters", {})}
            for field in ("command", "args"):
                if field in container:
                    container[field] = [_fill_in(text, values) for text in container[field]]
    given = override.get("metadata", {})
    if metadata := _merged_metadata(pod.get("metadata", {}), given):
        pod["metadata"] = metadata
    return pod, problems


def pod(job: Job, *, name: str, attempt: int, node: Mapping[str, str], is_held: bool) -> dict[str, Any]:
    """The Kubernetes object."""
    given = job.pod
    metadata = given.get("metadata", {})
    variables = _variables(job, attempt, node["uid"])
    host_network = given.get("hostNetwork", True)
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "hostNetwork": host_network,
        "dnsPolicy": given.get("dnsPolicy", "ClusterFirstWithHostNet" if host_network else "ClusterFirst"),
        "containers": [_container(one, variables) for one in given["containers"]],
        "initContainers": [_container(one, variables) for one in given.get("initContainers", [])],
        "tolerations": [{"key": _TAINT, "operator": "Exists"}],
        **_placed(job, node["name"]),
        **({"schedulingGates": [{"name": GATE}]} if is_held else {}),
    }
    for key in ("serviceAccountName", "imagePullSecrets", "volumes", "shareProcessNamespace", "securityContext"):
        if key in given:
            spec[key] = given[key]
    # The environment says what a label cannot hold: children are `parent:index`.
    labels = {
        **metadata.get("labels", {}),
        JOB_LABEL: job.id.replace(":", "."),
        _ENVIRONMENT_LABEL: job.environment.uuid,
        _NODE_LABEL: node["uid"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace(job),
            "labels": labels,
            "annotations": metadata.get("annotations", {}),
        },
        "spec": spec,
    }


def namespace(job: Job) -> str:
    """Where the job's pods are made."""
    return str(job.pod.get("metadata", {}).get("namespace", job.environment.namespace))


def container_name(given: Mapping[str, Any]) -> str:
    """What a container is called in the pod: none in Kubernetes can be called Default."""
    return str(given["name"]).lower() if given["name"] == _UNNAMED else str(given["name"])


def _override(container: dict[str, Any], given: Mapping[str, Any]) -> None:
    for field in ("image", "command", "args"):
        if field in given:
            container[field] = given[field]
    if "env" in given:
        values = {one["name"]: one for one in [*container.get("env", []), *given["env"]]}
        container["env"] = list(values.values())
    for kind, amounts in given.get("resources", {}).items():
        container.setdefault("resources", {}).setdefault(kind, {}).update(amounts)


def _merged_metadata(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {
        kind: {**base.get(kind, {}), **given.get(kind, {})}
        for kind in ("labels", "annotations")
        if kind in base or kind in given
    }
    if namespace := given.get("namespace", base.get("namespace")):
        merged["namespace"] = namespace
    return merged


def _fill_in(text: str, values: Mapping[str, str]) -> str:
    """What has no value stays as it is."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)


def _variables(job: Job, attempt: int, node_uid: str) -> list[dict[str, str]]:
    values = {
        "AWS_BATCH_JOB_ID": job.id,
        "AWS_BATCH_JOB_ATTEMPT": str(attempt),
        "AWS_BATCH_JQ_NAME": job.queue.name,
        "AWS_BATCH_CE_NAME": job.environment.name,
        "AWS_BATCH_JOB_KUBERNETES_NODE_UID": node_uid,
    }
    if job.index is not None:
        values["AWS_BATCH_JOB_ARRAY_INDEX"] = str(job.index)
    return [{"name": name, "value": value} for name, value in values.items()]


def _container(given: Mapping[str, Any], variables: list[dict[str, str]]) -> dict[str, Any]:
    return {**given, "name": container_name(given), "env": [*given.get("env", []), *variables]}


def _placed(job: Job, node: str) -> dict[str, Any]:
    # Played nodes take only what names them.
    if "nodes" in job.environment.facts:
        return {"nodeName": node}
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}
