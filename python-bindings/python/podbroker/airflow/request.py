"""What a session asks a broker for: the request as it is sent, and what it needs of a client."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Protocol

from podbroker import BatchWorkload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podbroker import Execution, ExecutionPage, Group, Policies, ServerInfo, Submission, TargetPlace
    from podbroker.airflow.pump import WatchProtocol

__all__ = ["IN_GROUP", "ClientProtocol", "JobManifest", "Request", "in_group", "new_request"]

SUBMIT_WINDOW = timedelta(minutes=10)
"""Nothing is created after so long; as the broker's own default."""

IN_GROUP = "in_group"
"""The label of executions that were submitted to a group."""


class ClientProtocol(Protocol):
    """What the session needs of ``podbroker.Client``."""

    def submit(
        self,
        *,
        target: str | TargetPlace,
        execution_id: str,
        pod: Mapping[str, Any] | None = None,
        batch: BatchWorkload | None = None,
        job: Mapping[str, Any] | None = None,
        submit_before: datetime | None = None,
        labels: Mapping[str, str] | None = None,
        policies: Policies | None = None,
        group: Group | None = None,
        required_features: tuple[str, ...] = (),
        must_exist: bool = False,
    ) -> Submission:
        """Start an execution, or find it."""

    def get(self, name: str, *, full: bool = False) -> Execution:
        """Read an execution."""

    def list(
        self, target: str | TargetPlace, *, labels: Mapping[str, str] | None = None, page_size: int, page_token: str
    ) -> ExecutionPage:
        """List executions."""

    def cancel(self, name: str, *, claim: str = "", reason: str = "") -> Execution:
        """Ask for an execution's end."""

    def release(self, name: str, *, claim: str = "") -> Execution:
        """Say that its outcome was taken over."""

    def watch(
        self,
        name: str,
        *,
        cursor: bytes = b"",
        logs: bool = True,
        containers: tuple[str, ...] = (),
        tail_lines: int = 0,
        since: datetime | None = None,
        follow: bool = True,
    ) -> WatchProtocol:
        """Follow an execution."""

    def server_info(self) -> ServerInfo:
        """Say what the broker can do."""


@dataclass(frozen=True, slots=True)
class JobManifest:
    """A Kubernetes Job, to be told apart from a pod."""

    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is submitted; repeated unchanged."""

    target: str | TargetPlace
    execution_id: str
    workload: Mapping[str, Any] | BatchWorkload | JobManifest
    """A pod's manifest, or a job."""
    labels: Mapping[str, str]
    policies: Policies
    submit_before: datetime
    group: Group | None = None
    required_features: tuple[str, ...] = ()

    @property
    def pod(self) -> Mapping[str, Any] | None:
        """The pod's manifest; None of a job."""
        return None if isinstance(self.workload, BatchWorkload | JobManifest) else self.workload

    @property
    def batch(self) -> BatchWorkload | None:
        """The job of AWS Batch; None of anything else."""
        return self.workload if isinstance(self.workload, BatchWorkload) else None

    @property
    def job(self) -> Mapping[str, Any] | None:
        """The Kubernetes Job's manifest; None of anything else."""
        return self.workload.manifest if isinstance(self.workload, JobManifest) else None


def new_request(
    *,
    target: str | TargetPlace,
    execution_id: str,
    workload: Mapping[str, Any] | BatchWorkload | JobManifest,
    labels: Mapping[str, str],
    policies: Policies,
    required_features: tuple[str, ...] = (),
) -> Request:
    """Fix a request at this moment: its submit window begins now."""
    return Request(
        target=target,
        execution_id=execution_id,
        workload=workload,
        labels=labels,
        policies=policies,
        required_features=required_features,
        submit_before=datetime.now(tz=timezone.utc) + SUBMIT_WINDOW,
    )


def in_group(request: Request, group: Group) -> Request:
    """Submit the request to a group."""
    return replace(request, group=group, labels={**request.labels, IN_GROUP: "true"})
