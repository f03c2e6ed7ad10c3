"""Where executions run, and what the broker says about itself."""

from __future__ import annotations

from dataclasses import dataclass

from podbroker.execution import _Word

__all__ = ["Check", "CheckStatus", "ServerInfo", "Target", "TargetHealth", "TargetKind", "TargetPlace"]


class TargetKind(_Word):
    """How a target's credentials are made."""

    UNKNOWN = "UNKNOWN"
    KUBECONFIG = "KUBECONFIG"
    IN_CLUSTER = "IN_CLUSTER"
    EKS = "EKS"


class TargetHealth(_Word):
    """Whether a target's watch is in step with its cluster."""

    UNKNOWN = "UNKNOWN"
    STARTING = "STARTING"
    SERVING = "SERVING"
    UNREACHABLE = "UNREACHABLE"


class CheckStatus(_Word):
    """How a check went."""

    UNKNOWN = "UNKNOWN"
    PASSED = "PASSED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    WARNING = "WARNING"
    """It does not hold, and pods run all the same: the archive, the verbs on events and leases, AWS Batch's events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPlace:
    """A target by its parts. It must match exactly one configured target; empty parts match anything."""

    cluster: str = ""
    """The EKS cluster's name."""
    region: str = ""
    """The AWS region."""
    role_arn: str = ""
    """The ARN of the role that the broker assumes for it."""
    namespace: str = ""
    """The Kubernetes namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A named place: cluster, namespace and role."""

    name: str
    kind: TargetKind
    place: TargetPlace
    """The parts it was configured with."""
    health: TargetHealth
    health_reason: str
    """One sentence on why it is not healthy; empty otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One link of the chain from the caller to a running pod."""

    link: str
    """Stable: ``caller``, ``target``, on EKS ``workload-identity``, ``role`` and ``cluster``, then ``connect``,
    ``identity`` (on EKS ``token``), ``permission``, ``create``; with AWS Batch ``batch-identity``, ``batch-queue``,
    ``batch-compute-environment``, ``batch-service-role``, ``batch-definition``, ``batch-jobs``, ``batch-submit``,
    ``batch-events``; where Jobs run, ``job``; last ``archive``. Of these, ``batch-events`` and ``archive`` are there
    where they are configured, and pods run all the same without them."""
    subject: str
    """Of a permission verb and resource, such as ``create pods``; in AWS Batch, what has a name there; else empty."""
    status: CheckStatus
    detail: str
    """Who we are at this link, or what was found."""
    fix: str
    """What to do about a failure or a warning; empty when it passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a broker is and can do."""

    version: str
    instance: str
    """The configured id of this installation."""
    features: tuple[str, ...]
    """The optional features that it has."""
    max_request_bytes: int
    max_manifest_bytes: int
    caller_subject: str
    """Who the caller is to this broker."""
    caller_tenant: str
