"""What OpenLineage is told of a task: which target, which pod, which execution, how it ended.

Imported only when OpenLineage's provider asks, so that nothing is spent where it is not installed. OpenLineage asks in
a fork of the task's process: everything said here is known already, and nobody is asked for it. Names, numbers and the
image are said; never what may hold a secret, such as a command, a variable, a line or a message.
"""

# ruff: noqa: N815 -- facets are written in camel case (https://openlineage.io/docs/spec/facets/custom-facets)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.facet_v2 import JobFacet, RunFacet, external_query_run

if TYPE_CHECKING:
    from podbroker import Execution
    from podbroker.airflow.operator import RemotePodOperator

__all__ = ["PodbrokerExecutionRunFacet", "PodbrokerPodJobFacet", "lineage_of"]

SOURCE = "podbroker"
"""Whose id an ``externalQuery`` facet gives."""


@attrs.define(kw_only=True)
class PodbrokerPodJobFacet(JobFacet):
    """Where and with what the task runs: the same for each of its runs."""

    target: str | None
    """The broker's target as the task names it; null where that is left to the connection."""
    image: str | None
    """The image of the base container."""
    baseContainer: str
    connection: str
    """The id of the Airflow connection to the broker."""


@attrs.define(kw_only=True)
class PodbrokerExecutionRunFacet(RunFacet):
    """The execution of one try."""

    execution: str
    """The broker's address of it."""
    target: str
    state: str
    podName: str | None
    podNamespace: str | None
    podUid: str | None
    node: str | None
    attempts: int
    failureClass: str | None
    """Why it did not succeed; null when it did, or has not ended."""
    exitCode: int | None


def lineage_of(operator: RemotePodOperator) -> OperatorLineage[Any, Any]:
    """Say what is known of a task now. Inputs and outputs stay those that the task declares."""
    job = PodbrokerPodJobFacet(
        target=operator.named_target,
        image=operator.known_image,
        baseContainer=operator.base_container_name,
        connection=operator.podbroker_conn_id,
    )
    execution = operator.known_execution
    run: dict[str, RunFacet] = {}
    if execution is not None:
        run["externalQuery"] = external_query_run.ExternalQueryRunFacet(externalQueryId=execution.name, source=SOURCE)
        run["podbroker_execution"] = _run_facet(execution)
    return OperatorLineage(run_facets=run, job_facets={"podbroker_pod": job})


def _run_facet(execution: Execution) -> PodbrokerExecutionRunFacet:
    outcome = execution.outcome
    attempt = execution.attempts[-1] if execution.attempts else None
    return PodbrokerExecutionRunFacet(
        execution=execution.name,
        target=execution.target,
        state=execution.state.value,
        podName=(attempt.pod_name or None) if attempt else None,
        podNamespace=(attempt.pod_namespace or None) if attempt else None,
        podUid=(attempt.pod_uid or None) if attempt else None,
        node=(attempt.node_name or None) if attempt else None,
        attempts=len(execution.attempts),
        failureClass=outcome.failure_class.value if outcome and outcome.failure_class else None,
        exitCode=outcome.exit_code if outcome else None,
    )
