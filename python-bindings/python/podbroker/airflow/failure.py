"""Turns an outcome, or a refusal of the broker, into the exception that the task raises.

It asks nobody. The table from failure class to exception has one row for each class, and a test says so. The
message begins as the Kubernetes provider's does ("Pod x returned a failure."), then says why, then gives the
container's own last words, since that is what a reader of the task log looks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podbroker import (
    ContainerRole,
    CredentialsError,
    ExpiredError,
    FailureClass,
    InvalidRequestError,
    NotAllowedError,
    NotAuthenticatedError,
    NotFoundError,
    PodbrokerError,
    QuotaError,
    RefusedError,
    UnavailableError,
    UnsupportedError,
)
from podbroker.airflow import exceptions as ex

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podbroker import ContainerOutcome, Outcome

__all__ = [
    "BY_CLASS",
    "container_of",
    "exception_of_error",
    "exception_of_job",
    "exception_of_outcome",
    "failed_containers",
    "first_that_failed",
    "why",
]

SHOWN_CONTAINERS = 20
"""How many containers that failed are listed, of a job that may have 10,000."""

BY_CLASS: dict[FailureClass, type[ex.RemotePodError]] = {
    FailureClass.UNKNOWN: ex.RemotePodError,
    FailureClass.APPLICATION: ex.RemotePodFailed,
    FailureClass.OUT_OF_MEMORY: ex.RemotePodOutOfMemory,
    FailureClass.DEADLINE: ex.RemotePodDeadlineExceeded,
    FailureClass.START_DEADLINE: ex.RemotePodStartTimeout,
    FailureClass.EVICTED: ex.RemotePodEvicted,
    FailureClass.PREEMPTED: ex.RemotePodPreempted,
    FailureClass.SPOT_INTERRUPTED: ex.RemotePodSpotInterrupted,
    FailureClass.NODE_LOST: ex.RemotePodNodeLost,
    FailureClass.IMAGE_PULL: ex.RemotePodImagePullFailed,
    FailureClass.UNSCHEDULABLE: ex.RemotePodUnschedulable,
    FailureClass.INVALID_SPEC: ex.RemotePodInvalidSpec,
    FailureClass.ADMISSION_DENIED: ex.RemotePodAdmissionDenied,
    FailureClass.QUOTA: ex.RemotePodQuotaExceeded,
    FailureClass.POD_DELETED: ex.RemotePodDeleted,
    FailureClass.CANCELLED_BY_CALLER: ex.RemotePodCancelled,
    FailureClass.ORPHANED: ex.RemotePodOrphaned,
    FailureClass.BROKER: ex.RemotePodBrokerFault,
}

# The first row that fits wins, so a subclass stands before its base.
_BY_ERROR: tuple[tuple[type[PodbrokerError], type[ex.RemotePodError]], ...] = (
    (InvalidRequestError, ex.RemotePodInvalidSpec),
    (UnsupportedError, ex.RemotePodInvalidSpec),
    (NotAuthenticatedError, ex.RemotePodNotAllowed),
    (NotAllowedError, ex.RemotePodNotAllowed),
    (ExpiredError, ex.RemotePodLost),
    (CredentialsError, ex.RemotePodCredentialsRefused),
    (QuotaError, ex.RemotePodQuotaExceeded),
    (RefusedError, ex.RemotePodRefused),
    (UnavailableError, ex.RemotePodBrokerUnavailable),
)


def container_of(outcome: Outcome, name: str) -> ContainerOutcome | None:
    """Find how one container ended, by its name in the pod."""
    return next((container for container in outcome.containers if container.container == name), None)


def failed_containers(outcome: Outcome) -> list[ContainerOutcome]:
    """Give the containers that had to end with exit code 0 and ended with another one, in the broker's order."""
    had_to = (each for each in outcome.containers if each.role in {ContainerRole.INIT, ContainerRole.DECIDING})
    return [each for each in had_to if each.exit_code not in {0, None}]


def first_that_failed(outcome: Outcome) -> tuple[str, ...]:
    """Name the first container that failed, whose last lines are told of a job; none if none did."""
    return tuple(each.container for each in failed_containers(outcome)[:1])


def why(outcome: Outcome) -> str:
    """Say in one line why an execution did not succeed."""
    failure_class = (outcome.failure_class or FailureClass.UNKNOWN).value
    words = [failure_class]
    if outcome.reason and outcome.reason.upper() != failure_class:
        words.append(f"({outcome.reason})")
    if outcome.exit_code is not None:
        words.append(f"with exit code {outcome.exit_code}")
    return f"{' '.join(words)}: {outcome.message}"


def exception_of_outcome(
    outcome: Outcome,
    *,
    name: str,
    noun: str = "pod",
    base_container: str,
    execution_name: str = "",
    last_lines: Sequence[str] = (),
    pod_spec: str = "",
) -> ex.RemotePodError:
    """Make the exception for an outcome that is not a success.

    ``noun`` and ``name`` say what failed; ``base_container`` is the one whose last words are told.
    ``last_lines`` are lines of the base container, oldest first; ``pod_spec`` is added as it is when it is not empty.
    """
    failure_class = outcome.failure_class or FailureClass.UNKNOWN
    base = container_of(outcome, base_container)
    parts = [f"{noun.capitalize()} {name} returned a failure.", why(outcome)]
    if base is not None and base.message:
        parts.append(f"Termination message of container {base_container}:\n{base.message}")
    if last_lines:
        parts.append(f"Last lines of container {base_container}:\n" + "\n".join(f"  {line}" for line in last_lines))
    if execution_name:
        parts.append(f"Execution: {execution_name}")
    if pod_spec:
        parts.append(f"remote_pod: {pod_spec}")
    error = BY_CLASS[failure_class]("\n".join(part for part in parts if part))
    error.execution_name = execution_name
    error.outcome = outcome
    if isinstance(error, ex.RemotePodFailed):
        error.exit_code = outcome.exit_code
    return error


def exception_of_job(
    outcome: Outcome,
    *,
    name: str,
    noun: str,
    execution_name: str,
    last_lines_of: Callable[[str], Sequence[str]],
    log: Any,  # noqa: ANN401 -- a logger
) -> ex.RemotePodError:
    """Log the containers of a job that failed, and make the exception with the last words of the first of them."""
    failed = failed_containers(outcome)
    for each in failed[:SHOWN_CONTAINERS]:
        log.info(
            "Container '%s': exit_code=%s, reason='%s', message='%s'",
            each.container,
            each.exit_code,
            each.reason,
            each.message,
        )
    if len(failed) > SHOWN_CONTAINERS:
        log.info("and %d containers more that failed", len(failed) - SHOWN_CONTAINERS)
    worst = "".join(first_that_failed(outcome))
    return exception_of_outcome(
        outcome,
        name=name,
        noun=noun,
        base_container=worst,
        execution_name=execution_name,
        last_lines=last_lines_of(worst),
    )


def exception_of_error(error: PodbrokerError, *, doing: str, execution_name: str = "") -> ex.RemotePodError:
    """Make the exception for a call that the broker could not or would not do; ``doing`` says which."""
    kind: type[ex.RemotePodError] = ex.RemotePodBrokerFault
    if isinstance(error, NotFoundError) and error.reason == "NO_SUCH_EXECUTION":
        kind = ex.RemotePodLost
    elif isinstance(error, NotFoundError) and not isinstance(error, ExpiredError):
        kind = ex.RemotePodRefused
    else:
        kind = next((made for raised, made in _BY_ERROR if isinstance(error, raised)), kind)
        if error.reason == "ADMISSION_DENIED":
            kind = ex.RemotePodAdmissionDenied
    words = [f"{doing}: {error}"]
    words += [f"  {violation.field}: {violation.description}" for violation in error.field_violations]
    if error.request_id:
        words.append(f"Request id, for the broker's log: {error.request_id}")
    made = kind("\n".join(words))
    made.execution_name = execution_name
    return made
