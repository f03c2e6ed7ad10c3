"""The words to write a script of a Batch job."""

from __future__ import annotations

from typing import Any

import scripted as s

from podbroker import Attempt, ContainerRole, Target, TargetHealth, TargetKind, TargetPlace

JOB = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
ROLE = "arn:aws:iam::111122223333:role/AstroRemoteKPO"
NAMES = {"job_name": "report", "job_definition": "reports:3", "job_queue": "nightly"}
BATCH = "arn:aws:batch:us-east-1:111122223333"
COMMON = {"region_name": "us-east-1", "aws_domain": "aws.amazon.com"}
LINKS = {
    "batch_job_details": {**COMMON, "job_id": JOB},
    "batch_job_definition": {**COMMON, "job_definition_arn": f"{BATCH}:job-definition/reports:3"},
    "batch_job_queue": {**COMMON, "job_queue_arn": f"{BATCH}:job-queue/nightly"},
}
"""The XComs of a job with these names."""


def job_target(**kwargs: Any) -> Target:
    """A target in AWS."""
    place = TargetPlace(**{"cluster": "c", "region": "us-east-1", "role_arn": ROLE, "namespace": "jobs"} | kwargs)
    return Target(name="somewhere", kind=TargetKind.EKS, place=place, health=TargetHealth.SERVING, health_reason="")


def job_attempt(job: str = JOB, *, pod: str = "", **kwargs: Any) -> Attempt:
    """An attempt whose pod is made later."""
    there = {"pod_name": pod, "pod_namespace": "jobs" if pod else "", "pod_uid": "", "batch_job_id": job}
    return s.attempt(**there | kwargs)


def job_state(now: s.S, *attempts: Attempt, **kwargs: Any) -> Any:
    """A state of the job."""
    return s.state(now, attempts=attempts or (job_attempt(),), **kwargs)


def job_end(outcome: Any = None, *attempts: Attempt) -> Any:
    """The end of the job."""
    return s.end(outcome, attempts=attempts or (job_attempt(),))


def failing(*containers: tuple[str, int], **kwargs: Any) -> Any:
    """An outcome with these containers and their exit codes."""
    made = tuple(s.container(name, exit_code=code, role=ContainerRole.DECIDING) for name, code in containers)
    return s.failed(**{"containers": made, "exit_code": next((code for _, code in containers if code), None)} | kwargs)
