"""What AWS Batch refuses although the model's shapes allow it: the limits in its reference and user guide.

https://docs.aws.amazon.com/batch/latest/APIReference/API_SubmitJob.html, API_EksContainerResourceRequirements.html,
API_EksMetadata.html, https://docs.aws.amazon.com/batch/latest/userguide/service_limits.html
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Bytes.
SUBMIT_SIZE: Final = 30 * 1024
DEFINITION_SIZE: Final = 24 * 1024

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_SHARE: Final = re.compile(r"[A-Za-z0-9]{1,255}\*?")
_DNS_POLICIES: Final = {"Default", "ClusterFirst", "ClusterFirstWithHostNet"}
_PULL_POLICIES: Final = {"Always", "IfNotPresent", "Never"}
_RESOURCES: Final = {"cpu", "memory", "nvidia.com/gpu"}

#: Members of SubmitJob that are for jobs on ECS.
_NOT_FOR_EKS: Final = ("containerOverrides", "nodeOverrides", "ecsPropertiesOverride")


def of_submit(request: Mapping[str, Any], size: int) -> Iterator[str]:
    """What is wrong with a SubmitJob of so many bytes."""
    if size > SUBMIT_SIZE:
        yield f"the request has {size} bytes, at most {SUBMIT_SIZE}"
    if not _NAME.fullmatch(request["jobName"]):
        yield f"jobName {request['jobName']!r} does not begin with a letter or digit, or is too long"
    if "arrayProperties" in request and not 2 <= request["arrayProperties"].get("size", 0) <= 10_000:
        yield "arrayProperties.size is not between 2 and 10000"
    if len(request.get("dependsOn", [])) > 20:
        yield "dependsOn has more than 20 jobs"
    if not 0 <= request.get("schedulingPriorityOverride", 0) <= 9999:
        yield "schedulingPriorityOverride is not between 0 and 9999"
    if "shareIdentifier" in request and not _SHARE.fullmatch(request["shareIdentifier"]):
        yield "shareIdentifier is not alphanumeric"
    yield from (f"{name} is not for jobs on EKS" for name in _NOT_FOR_EKS if name in request)
    yield from _of_strategy(request)
    override = request.get("eksPropertiesOverride", {}).get("podProperties", {})
    yield from _of_metadata(override.get("metadata", {}))
    yield from _of_containers(override, "overridden")


def of_definition(request: Mapping[str, Any], size: int) -> Iterator[str]:
    """What is wrong with a RegisterJobDefinition of so many bytes."""
    if size > DEFINITION_SIZE:
        yield f"the request has {size} bytes, at most {DEFINITION_SIZE}"
    if not _NAME.fullmatch(request["jobDefinitionName"]):
        yield "jobDefinitionName does not begin with a letter or digit, or is too long"
    if not 0 <= request.get("schedulingPriority", 0) <= 9999:
        yield "schedulingPriority is not between 0 and 9999"
    yield from _of_strategy(request)
    pod = request.get("eksProperties", {}).get("podProperties")
    if request["type"] != "container" or pod is None:
        yield "only definitions of the type container with eksProperties.podProperties are played here"
        return
    if not pod.get("containers"):
        yield "podProperties has no containers"
    if pod.get("dnsPolicy", "Default") not in _DNS_POLICIES:
        yield f"dnsPolicy is none of {sorted(_DNS_POLICIES)}"
    yield from _of_metadata(pod.get("metadata", {}))
    yield from of_pod(pod)


def of_pod(pod: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with pod properties, those of a definition or with the overrides of a submit."""
    yield from _of_containers(pod, "a")
    both = [*pod.get("containers", []), *pod.get("initContainers", [])]
    names = [one.get("name", "Default") for one in both]
    if len(set(names)) < len(names):
        yield f"names of containers are not unique: {names}"
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in both:
        if container.get("imagePullPolicy", "Always") not in _PULL_POLICIES:
            yield f"imagePullPolicy is none of {sorted(_PULL_POLICIES)}"
        for mount in container.get("volumeMounts", []):
            if mount.get("name") not in volumes:
                yield f"volumeMounts name the volume {mount.get('name')!r}, which is not there"


def _of_strategy(request: Mapping[str, Any]) -> Iterator[str]:
    strategy = request.get("retryStrategy", {})
    if not 1 <= strategy.get("attempts", 1) <= 10:
        yield "retryStrategy.attempts is not between 1 and 10"
    rules = strategy.get("evaluateOnExit", [])
    if len(rules) > 5:
        yield "evaluateOnExit has more than 5 rules"
    if rules and "attempts" not in strategy:
        yield "evaluateOnExit is given without attempts"
    for rule in rules:
        for condition in ("onStatusReason", "onReason", "onExitCode"):
            pattern = rule.get(condition, "")
            if len(pattern) > 512 or "*" in pattern[:-1]:
                yield f"{condition} has more than 512 characters, or an asterisk that is not its last"
    if "timeout" in request and request["timeout"].get("attemptDurationSeconds", 0) < 60:
        yield "timeout.attemptDurationSeconds is less than 60"
    if any(key.lower().startswith("aws:") for key in request.get("tags", {})):
        yield "tags begin with aws:"


def _of_metadata(metadata: Mapping[str, Any]) -> Iterator[str]:
    for key, value in metadata.get("labels", {}).items():
        if not _KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            yield f"the label {key}={value} is none"
    for key, value in metadata.get("annotations", {}).items():
        if not _KEY.fullmatch(key) or len(value) > 255:
            yield f"the annotation {key} has a wrong key, or more than 255 characters"
    name = metadata.get("namespace")
    if name is not None and (not _NAMESPACE.fullmatch(name) or name == "default" or name.startswith("kube")):
        yield f"the namespace {name!r} is not allowed"


def _of_containers(pod: Mapping[str, Any], what: str) -> Iterator[str]:
    for kind in ("containers", "initContainers"):
        containers = pod.get(kind, [])
        if len(containers) > 10:
            yield f"there are more than 10 {kind}"
        for container in containers:
            where = f"{what} container {container.get('name', 'Default')!r}"
            names = [one["name"] for one in container.get("env", [])]
            if any(name.startswith("AWS_BATCH") for name in names):
                yield f"{where}: names of variables that begin with AWS_BATCH are reserved"
            if len(set(names)) < len(names):
                yield f"{where}: a variable is given twice"
            yield from (f"{where}: {problem}" for problem in _of_resources(container.get("resources", {})))


def _of_resources(resources: Mapping[str, Any]) -> Iterator[str]:
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for name, value in [*limits.items(), *requests.items()]:
        if name not in _RESOURCES:
            yield f"there is no resource {name}"
        elif name == "memory" and not (re.fullmatch(r"\d+Mi", value) and int(value[:-2]) >= 4):
            yield f"memory {value} is not a whole number of Mi, at least 4Mi"
        elif name == "cpu" and not _is_cpu(value):
            yield f"cpu {value} is not a multiple of 0.25"
        elif name == "nvidia.com/gpu" and not value.isdecimal():
            yield f"nvidia.com/gpu {value} is not a whole number"
    for name in limits.keys() & requests.keys() & {"memory", "nvidia.com/gpu"}:
        if limits[name] != requests[name]:
            yield f"the limit of {name} does not equal what is requested"
    limit, requested = limits.get("cpu", ""), requests.get("cpu", "")
    if _is_cpu(limit) and _is_cpu(requested) and Decimal(limit) < Decimal(requested):
        yield "the limit of cpu is less than what is requested"


def _is_cpu(value: str) -> bool:
    try:
        number = Decimal(value)
    except InvalidOperation:
        return False
    return number.is_finite() and number > 0 and number % Decimal("0.25") == 0
