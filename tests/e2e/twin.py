"""A SubmitJob with every field that an EKS job may have, as boto3 takes it, and who asks for it by an operator."""

from __future__ import annotations

from typing import Any, Final

REQUEST: Final[dict[str, Any]] = {
    "jobName": "everything",
    "jobQueue": "shared",
    "jobDefinition": "jobs",
    "shareIdentifier": "team",
    "schedulingPriorityOverride": 7,
    "parameters": {"word": "hello"},
    "retryStrategy": {
        "attempts": 2,
        "evaluateOnExit": [
            {"onStatusReason": "Host EC2*", "action": "RETRY"},
            {"onExitCode": "*", "action": "EXIT"},
        ],
    },
    "timeout": {"attemptDurationSeconds": 600},
    "tags": {"team": "reports"},
    "eksPropertiesOverride": {
        "podProperties": {
            "containers": [
                {
                    "name": "main",
                    "command": ["sh", "-c"],
                    "args": ["echo Ref::word of $TEAM"],
                    "env": [{"name": "TEAM", "value": "reports"}],
                    "resources": {"limits": {"memory": "64Mi"}, "requests": {"memory": "64Mi"}},
                }
            ],
            "metadata": {"labels": {"team": "reports"}, "annotations": {"why": "to see that nothing is lost"}},
        }
    },
}

#: The arguments of the Amazon provider's operator (9.39.0), by the fields that it makes of them.
ARGUMENTS: Final = {
    "jobName": "job_name",
    "jobQueue": "job_queue",
    "jobDefinition": "job_definition",
    "shareIdentifier": "share_identifier",
    "schedulingPriorityOverride": "scheduling_priority_override",
    "parameters": "parameters",
    "retryStrategy": "retry_strategy",
    "tags": "tags",
    "eksPropertiesOverride": "eks_properties_override",
}


def arguments() -> dict[str, Any]:
    """What a DAG gives to the operator so that it asks for this."""
    given = {ARGUMENTS[field]: value for field, value in REQUEST.items() if field != "timeout"}
    return {**given, "submit_job_timeout": REQUEST["timeout"]["attemptDurationSeconds"]}
