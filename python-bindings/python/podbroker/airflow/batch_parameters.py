"""What becomes of each argument of the Amazon provider's ``BatchOperator``. For the same readers as ``parameters``."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Final

from podbroker.airflow.parameters import Parameter, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podbroker.airflow.batch import BatchOperator

__all__ = ["BATCH_PARAMETERS", "BATCH_REFUSED", "BATCH_TEMPLATE_FIELDS", "without_effect"]

_SAME = Parameter(Verdict.SAME)
_RATE = Parameter(Verdict.NO_EFFECT, "nothing is polled; accepted, and the task log says so")

BATCH_REFUSED: Mapping[str, str] = {
    "container_overrides": "it is of jobs on ECS; jobs on EKS have eks_properties_override",
    "ecs_properties_override": "it is of jobs on ECS; jobs on EKS have eks_properties_override",
    "node_overrides": "jobs on EKS have no nodes of their own; eks_properties_override changes their pod",
    "waiters": "nothing is polled: the broker says when the job has ended",
    "verify": "the broker speaks to AWS, not the worker",
    "botocore_config": "the broker speaks to AWS, not the worker",
    "region": "the argument is called region_name; the Amazon provider takes this one and does nothing with it",
}
"""Arguments that fail where the task is defined, with the reason."""

BATCH_PARAMETERS: Mapping[str, Parameter] = {
    "job_name": Parameter(
        Verdict.DIFFERS,
        "a label of the execution, and what messages call the job until it has an id; the name in AWS is the broker's,"
        " so that one request never makes two jobs",
    ),
    "job_definition": _SAME,
    "job_queue": Parameter(Verdict.SAME, "an empty one is the target's"),
    "container_overrides": Parameter(Verdict.REFUSED, BATCH_REFUSED["container_overrides"]),
    "array_properties": Parameter(
        Verdict.BETTER, "the lines of all children, the container `main` of child 7 as `[7/main]`"
    ),
    "ecs_properties_override": Parameter(Verdict.REFUSED, BATCH_REFUSED["ecs_properties_override"]),
    "eks_properties_override": _SAME,
    "node_overrides": Parameter(Verdict.REFUSED, BATCH_REFUSED["node_overrides"]),
    "share_identifier": _SAME,
    "scheduling_priority_override": Parameter(Verdict.DIFFERS, "1 to 9,999; 0 is refused"),
    "parameters": _SAME,
    "retry_strategy": Parameter(
        Verdict.SAME,
        "`attempts` over 1 excludes `infra_retry`; `evaluateOnExit` needs a broker with the feature"
        " `batch-evaluate-on-exit`, and is refused by others",
    ),
    "job_id": Parameter(Verdict.SAME, "the job's id takes its place after the submit"),
    "waiters": Parameter(Verdict.REFUSED, BATCH_REFUSED["waiters"]),
    "max_retries": _RATE,
    "status_retries": _RATE,
    "tags": Parameter(Verdict.SAME, "beside the broker's own"),
    "wait_for_completion": Parameter(
        Verdict.SAME, "`False` waits until the job has its id; a task that defers waits for the end in any case"
    ),
    "deferrable": Parameter(
        Verdict.BETTER, "lines as they are written, in the triggerer's log of the task; a kill ends the job"
    ),
    "poll_interval": _RATE,
    "awslogs_enabled": Parameter(
        Verdict.DIFFERS,
        "lines come in any case, as they are written, from the broker's own stream and not from CloudWatch Logs;"
        " `get_logs=False` leaves them out",
    ),
    "awslogs_fetch_interval": _RATE,
    "submit_job_timeout": Parameter(Verdict.SAME, "in seconds, at least 60, for each attempt"),
    "aws_conn_id": Parameter(
        Verdict.DIFFERS, "without `target` its role and its region pick the target; its keys are not looked at"
    ),
    "region_name": Parameter(
        Verdict.DIFFERS, "without `target` it picks the target; else the connection's region does"
    ),
    "verify": Parameter(Verdict.REFUSED, BATCH_REFUSED["verify"]),
    "botocore_config": Parameter(Verdict.REFUSED, BATCH_REFUSED["botocore_config"]),
    "region": Parameter(Verdict.REFUSED, BATCH_REFUSED["region"]),
}
"""In the order of the Amazon provider, those of its base class last."""


BATCH_TEMPLATE_FIELDS: Final = (
    "array_properties",
    "aws_conn_id",
    "awslogs_enabled",
    "awslogs_fetch_interval",
    "container_overrides",
    "ecs_properties_override",
    "eks_properties_override",
    "job_definition",
    "job_id",
    "job_name",
    "job_queue",
    "node_overrides",
    "parameters",
    "region_name",
    "retry_strategy",
    "tags",
    "verify",
    "wait_for_completion",
    "waiters",
)
"""What the Amazon provider's operator renders, in its order."""


def without_effect(operator: BatchOperator, kind: type[BatchOperator]) -> list[str]:
    """Name the arguments that the author gave and that do nothing here; ``kind`` has the constructor."""
    ours = inspect.signature(inspect.unwrap(kind.__init__)).parameters
    ignored = (name for name, parameter in BATCH_PARAMETERS.items() if parameter.verdict is Verdict.NO_EFFECT)
    return [name for name in ignored if name in ours and getattr(operator, name) != ours[name].default]
