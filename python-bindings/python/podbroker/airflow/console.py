"""Where in AWS a job is, and what the links of a ``BatchOperator`` are made of. Pure: it asks nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podbroker.airflow import links

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podbroker import Attempt
    from podbroker.airflow.batch_lifecycle import BatchLifeCycle

__all__ = ["PlaceInAws", "links_of", "place_in_aws"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceInAws:
    """Where in AWS a job is; empty parts are not known."""

    partition: str
    region: str
    account: str = ""

    def queue_arn(self, queue: str) -> str:
        """Give the ARN of a queue that is given by its name or by its ARN; empty when it is not known."""
        return self._arn("job-queue", queue)

    def definition_arn(self, definition: str) -> str:
        """Give the ARN of a job definition's revision; empty where none is said, since AWS takes the latest then."""
        has_revision = definition.rpartition("/")[2].rpartition(":")[2].isdecimal() and ":" in definition
        return self._arn("job-definition", definition) if has_revision else ""

    def _arn(self, kind: str, name: str) -> str:
        if name.startswith("arn:"):
            return name
        return f"arn:{self.partition}:batch:{self.region}:{self.account}:{kind}/{name}" if name and self.account else ""


def place_in_aws(*, region: str, arns: Iterable[str]) -> PlaceInAws | None:
    """Find out where in AWS a job is, from the region, if it is known, and from ARNs; None when no region is known.

    The first ARN that says something counts; a role's has no region.
    """
    parts = [arn.split(":", 5) for arn in arns if arn.startswith("arn:")]
    whole = [each for each in parts if len(each) == 6]  # noqa: PLR2004 -- arn:partition:service:region:account:resource
    region = region or next((each[3] for each in whole if each[3]), "")
    if not region:
        return None
    by_region = "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
    return PlaceInAws(
        partition=next((each[1] for each in whole if each[1]), by_region),
        region=region,
        account=next((each[4] for each in whole if each[4]), ""),
    )


def links_of(operator: BatchLifeCycle, *, place: PlaceInAws, attempt: Attempt) -> dict[str, dict[str, str]]:
    """Give the XComs that the links are made of, by their keys, as far as their parts are known."""
    domain = links.console_domain(place.partition)
    if domain is None:
        return {}
    common = {"region_name": place.region, "aws_domain": domain}
    parts = {
        links.BatchJobDetailsLink.key: ("job_id", attempt.batch_job_id),
        links.BatchJobDefinitionLink.key: ("job_definition_arn", place.definition_arn(operator.job_definition)),
        links.BatchJobQueueLink.key: ("job_queue_arn", place.queue_arn(operator.job_queue or "")),
    }
    made = {key: {**common, part: value} for key, (part, value) in parts.items() if value}
    group, stream = operator.cloudwatch_log_group, _stream(operator.cloudwatch_log_stream, attempt)
    if group and stream:
        where = {"awslogs_region": place.region, "awslogs_group": group, "awslogs_stream_name": stream}
        made[links.CloudWatchEventsLink.key] = {**common, **where}
    return made


def _stream(pattern: str | None, attempt: Attempt) -> str:
    """Fill in the name of the stream; empty while the pod is not known, as always of an array, which has many.

    Empty as well of a pattern that cannot be filled in: a link fails no task.
    """
    known = {"job_id": attempt.batch_job_id}
    if attempt.pod_name:
        known |= {"pod_name": attempt.pod_name, "pod_namespace": attempt.pod_namespace}
    try:
        return (pattern or "").format(**known)
    except (AttributeError, IndexError, KeyError, ValueError):
        return ""
