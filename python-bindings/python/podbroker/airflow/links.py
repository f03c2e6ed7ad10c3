"""The links of ``BatchOperator`` to the console of AWS: the same names, keys and addresses as the Amazon provider's.

What a link is made of is an XCom, as there, so that tasks of both can be looked at side by side. Web servers import
this for every provider: it imports no operator.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote_plus

from podbroker.airflow._compat_links import BaseOperatorLink, read_xcom

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import BaseOperator

__all__ = [
    "BatchJobDefinitionLink",
    "BatchJobDetailsLink",
    "BatchJobQueueLink",
    "CloudWatchEventsLink",
    "console_domain",
]

_log = logging.getLogger(__name__)

_DOMAINS = {"aws": "aws.amazon.com", "aws-cn": "amazonaws.cn", "aws-us-gov": "amazonaws-us-gov.com"}


def console_domain(partition: str) -> str | None:
    """Give the domain of a partition's console; None for one that is not known."""
    return _DOMAINS.get(partition)


class _ConsoleLink(BaseOperatorLink):
    """A link to the console, from what the task has pushed."""

    name: ClassVar[str]
    key: ClassVar[str]
    """Of the XCom."""
    place: ClassVar[str]
    """What follows the console's domain."""

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ANN401, ARG002 -- as the version has it
        """Give the address; empty when the task has pushed nothing, or nobody answers."""
        try:
            kept = read_xcom(ti_key, self.key)
            return self.address(kept) if kept else ""
        except Exception as error:  # noqa: BLE001 -- of Airflow's API or its database: a link fails no task and no page
            _log.info("The link %s is not known: %r", self.name, error)
            return ""

    @classmethod
    def address(cls, kept: Mapping[str, Any]) -> str:
        """Make the address of what was pushed; empty when a part is missing."""
        try:
            return ("https://console.{aws_domain}" + cls.place).format(**kept)
        except KeyError:
            return ""


class BatchJobDetailsLink(_ConsoleLink):
    """Leads to the job."""

    name = "Batch Job Details"
    key = "batch_job_details"
    place = "/batch/home?region={region_name}#jobs/detail/{job_id}"


class BatchJobDefinitionLink(_ConsoleLink):
    """Leads to the revision of the job definition."""

    name = "Batch Job Definition"
    key = "batch_job_definition"
    place = "/batch/home?region={region_name}#job-definition/detail/{job_definition_arn}"


class BatchJobQueueLink(_ConsoleLink):
    """Leads to the job queue."""

    name = "Batch Job Queue"
    key = "batch_job_queue"
    place = "/batch/home?region={region_name}#queues/detail/{job_queue_arn}"


class CloudWatchEventsLink(_ConsoleLink):
    """Leads to the job's log stream in CloudWatch Logs."""

    name = "CloudWatch Events"
    key = "cloudwatch_events"
    place = (
        "/cloudwatch/home?region={awslogs_region}#logsV2:log-groups/log-group/{awslogs_group}"
        "/log-events/{awslogs_stream_name}"
    )

    @classmethod
    def address(cls, kept: Mapping[str, Any]) -> str:
        """Make the address; names of groups and streams have slashes."""
        names = ("awslogs_group", "awslogs_stream_name")
        return super().address({**kept, **{name: quote_plus(kept[name]) for name in names if name in kept}})
