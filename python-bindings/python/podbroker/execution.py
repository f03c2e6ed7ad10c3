"""What was asked to run, how it goes and how it ended.

Plain data, filled by the native module. Every time is a ``datetime`` in UTC, every duration a ``timedelta``. An enum
has the member ``UNKNOWN`` where the broker may be newer than this client and say something that it does not know yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

__all__ = [
    "Attempt",
    "CancelIntent",
    "ContainerOutcome",
    "ContainerRole",
    "Execution",
    "ExecutionPage",
    "ExecutionState",
    "FailureClass",
    "FinishAction",
    "Group",
    "GroupAction",
    "InfraRetry",
    "Outcome",
    "Policies",
    "ResultSource",
    "Submission",
]


class _Word(str, Enum):
    """An enum whose members are their own names, also in ``str`` and ``format`` of every Python version."""

    def __str__(self) -> str:
        return str.__str__(self)


class ExecutionState(_Word):
    """Where an execution or an attempt stands. Order is not promised, except that a final state is the last one."""

    UNKNOWN = "UNKNOWN"
    QUEUED = "QUEUED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    ENDING = "ENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether the state never changes again."""
        return self in {ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.CANCELLED}


class FailureClass(_Word):
    """Why an execution did not succeed."""

    UNKNOWN = "UNKNOWN"
    APPLICATION = "APPLICATION"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DEADLINE = "DEADLINE"
    START_DEADLINE = "START_DEADLINE"
    EVICTED = "EVICTED"
    PREEMPTED = "PREEMPTED"
    SPOT_INTERRUPTED = "SPOT_INTERRUPTED"
    NODE_LOST = "NODE_LOST"
    IMAGE_PULL = "IMAGE_PULL"
    UNSCHEDULABLE = "UNSCHEDULABLE"
    INVALID_SPEC = "INVALID_SPEC"
    ADMISSION_DENIED = "ADMISSION_DENIED"
    QUOTA = "QUOTA"
    POD_DELETED = "POD_DELETED"
    CANCELLED_BY_CALLER = "CANCELLED_BY_CALLER"
    ORPHANED = "ORPHANED"
    BROKER = "BROKER"


class ContainerRole(_Word):
    """What a container of the pod is for."""

    UNKNOWN = "UNKNOWN"
    INIT = "INIT"
    SIDECAR = "SIDECAR"
    DECIDING = "DECIDING"
    OTHER = "OTHER"


class FinishAction(_Word):
    """What happens to the pod once the execution was released, or its time to live has passed."""

    DELETE = "DELETE"
    DELETE_SUCCEEDED = "DELETE_SUCCEEDED"
    KEEP = "KEEP"


class ResultSource(_Word):
    """Where the value that an execution hands back comes from."""

    UNKNOWN = "UNKNOWN"
    NONE = "NONE"
    SIDECAR = "SIDECAR"
    TERMINATION_MESSAGE = "TERMINATION_MESSAGE"


class GroupAction(_Word):
    """What a submit does when its group already has an execution."""

    ATTACH = "ATTACH"
    """Attach to one that is active, or to the newest if it succeeded and was not released; else start."""
    CANCEL_FIRST = "CANCEL_FIRST"
    """Cancel an active one first."""
    START = "START"
    """Start beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOutcome:
    """How one container ended, or where it stands."""

    container: str
    role: ContainerRole
    exit_code: int | None
    """0 to 255; None while it has not ended or when the cluster lost the answer."""
    signal: int | None
    """The signal that ended it, if the runtime said so."""
    reason: str
    """The runtime's or the kubelet's word, such as ``OOMKilled`` or ``ImagePullBackOff``."""
    message: str
    """The termination message, or the kubelet's message on why it waits. At most 4 KiB."""
    restart_count: int
    start_time: datetime | None
    end_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an execution ended. A failed execution is data: no call raises because of it."""

    state: ExecutionState
    """SUCCEEDED, FAILED or CANCELLED."""
    failure_class: FailureClass | None
    """Why it did not succeed; None when it did."""
    reason: str
    """The cluster's own short word for it; may be empty."""
    message: str
    """One or two sentences for a person. Never empty when it did not succeed."""
    containers: tuple[ContainerOutcome, ...]
    """The containers that the cluster reported, init containers first."""
    exit_code: int | None
    """The exit code of the deciding container; None when no deciding container ended by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One pod, one Batch job or one Kubernetes Job made for an execution."""

    number: int
    """1 for the first."""
    state: ExecutionState
    pod_name: str
    """Of a job empty until the pod is made, and when there are several."""
    pod_namespace: str
    pod_uid: str
    node_name: str
    """Empty while the pod is not placed."""
    batch_job_id: str
    """Empty on targets without AWS Batch."""
    job_name: str = ""
    """The Kubernetes Job, in ``pod_namespace``; empty on targets that run none, and until it is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelIntent:
    """Who asked for an execution's end, and why."""

    requested_by: str
    """The subject of the caller, or ``podbroker`` when a policy asked."""
    reason: str
    failure_class: FailureClass | None
    request_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One request to run something at a target, as the broker sees it now."""

    name: str
    """The opaque address that every other call takes."""
    execution_id: str
    """The id that the caller chose."""
    target: str
    """The name of the target it runs at."""
    tenant: str
    labels: Mapping[str, str]
    """The caller's own labels."""
    state: ExecutionState
    state_reason: str
    """One sentence on why it stands there; may be empty."""
    outcome: Outcome | None
    """How it ended; set from ENDING on, and never changed afterwards."""
    attempts: tuple[Attempt, ...]
    """Oldest first."""
    create_time: datetime | None
    start_time: datetime | None
    """When the first deciding container started."""
    end_time: datetime | None
    """When the last deciding container ended."""
    spec_digest: str
    """Lower-case hex SHA-256 of the canonical form of the request."""
    cancel: CancelIntent | None
    """Set when somebody asked for its end."""
    release_time: datetime | None
    """When its holder released it."""
    pod_json: bytes | None
    """The Kubernetes Pod of the latest attempt as JSON; only where a full view was asked for."""
    job_json: bytes | None = None
    """The Kubernetes Job of the latest attempt as JSON, likewise; None when it is gone, and where none is run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPage:
    """Some executions of a list, in the order of their names."""

    executions: tuple[Execution, ...]
    next_page_token: str
    """Empty on the last page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The answer to a submit."""

    execution: Execution
    claim: str
    """Proves that this submit owns the execution; for cancel and release."""
    created: bool
    """This call created it. A lost answer makes this false on the next try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InfraRetry:
    """When another attempt is made after an end that is no fault of the application. None: the broker's default."""

    failure_classes: tuple[FailureClass, ...] = ()
    """Which classes start another attempt. Empty: ``EVICTED``, ``PREEMPTED``, ``SPOT_INTERRUPTED``, ``NODE_LOST``."""
    max_attempts: int | None = None
    """How many attempts may be made in all once one has started a container, 1 to 20; 1 unless given."""
    max_free_attempts: int | None = None
    """How many attempts may be made in all while none has started a container, 1 to 20; 5 unless given."""
    backoff: timedelta | None = None
    """The pause before the next attempt, counted from the end of the last. Up to 1 hour; 10 s unless given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """How an execution is run. None means the target's default."""

    start_deadline: timedelta | None = None
    """From creation until a deciding container has started. At least 1 s."""
    run_deadline: timedelta | None = None
    """From the moment the kubelet accepts the pod, in whole seconds, rounded up. At least 1 s."""
    finish: FinishAction | None = None
    """What happens to the pod after its end."""
    ttl: timedelta | None = None
    """How long an execution that nobody releases is kept. 1 minute to 30 days."""
    result: ResultSource | None = None
    """Where the value that it hands back comes from."""
    result_max_bytes: int | None = None
    """The largest value accepted, up to 1 MiB."""
    deciding_containers: tuple[str, ...] = ()
    """The containers whose end decides the outcome. Empty: every container of ``spec.containers``."""
    drain_deadline: timedelta | None = None
    """How long the remaining lines and the result are waited for once the outcome is known, without anything of them
    coming, and how long containers that run on are followed. 1 s to 10 minutes."""
    infra_retry: InfraRetry | None = None
    """When another attempt is made; None for never. A broker needs the feature ``infra-retry``."""
    orphan_after: timedelta | None = None
    """Cancel it when nobody has followed it for so long, 5 minutes to 7 days; None for never. A broker needs the
    feature ``orphan``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The group of an execution: those that take each other's place, such as the tries of one task."""

    group_id: str
    """In the form of an execution id."""
    action: GroupAction = GroupAction.ATTACH
    not_before: datetime | None = None
    """With a time zone. What was created before is never attached to, and cancelled first if it is active."""
