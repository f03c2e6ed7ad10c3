"""A job of AWS Batch arrives at the broker as it was asked for."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from running import broker_at

from podbroker import BatchWorkload, Client

if TYPE_CHECKING:
    from podbroker import Execution

OVERRIDE = {"podProperties": {"containers": [{"name": "main", "args": ["x"], "resources": {"limits": {"cpu": "1"}}}]}}
CONDITIONS = [{"onReason": "Host EC2*", "action": "RETRY"}, {"onExitCode": "*", "action": "EXIT"}]


def job_of(execution: Execution) -> Any:
    """Gives the job in the request, which the scripted broker puts in the place of the pod."""
    assert execution.pod_json is not None
    workload = json.loads(execution.pod_json)["workload"]
    assert [*workload] == ["batch"]
    return workload["batch"]


def test_a_job_says_all_that_it_was_given(client: Client) -> None:
    workload = BatchWorkload(
        job_definition="reports:3",
        job_queue="nightly",
        parameters={"day": "2026-11-21"},
        eks_properties_override=OVERRIDE,
        array_size=20,
        depends_on_job_ids=["a", "b"],
        share_identifier="team",
        scheduling_priority=7,
        attempts=3,
        evaluate_on_exit=CONDITIONS,
        attempt_timeout=timedelta(minutes=2),
        tags={"k": "v"},
    )
    job = job_of(client.submit(target="t", execution_id="e", batch=workload).execution)
    assert json.loads(base64.b64decode(job.pop("eksPropertiesOverrideJson"))) == OVERRIDE
    assert json.loads(base64.b64decode(job.pop("evaluateOnExitJson"))) == CONDITIONS
    assert job == {
        "jobDefinition": "reports:3",
        "jobQueue": "nightly",
        "parameters": {"day": "2026-11-21"},
        "arraySize": 20,
        "dependsOnJobIds": ["a", "b"],
        "shareIdentifier": "team",
        "schedulingPriority": 7,
        "attempts": 3,
        "attemptTimeout": "120s",
        "tags": {"k": "v"},
    }


def test_what_is_left_out_is_not_sent(client: Client) -> None:
    workload = BatchWorkload(job_definition="reports")
    assert job_of(client.submit(target="t", execution_id="e", batch=workload).execution) == {"jobDefinition": "reports"}


def test_asyncio_submits_a_job_as_well() -> None:
    async def main(address: str) -> Execution:
        async with Client(address) as client:
            workload = BatchWorkload(job_definition="reports", array_size=2)
            return (await client.submit_async(target="t", execution_id="e", batch=workload)).execution

    with broker_at("127.0.0.1:0") as address:
        assert job_of(asyncio.run(main(address))) == {"jobDefinition": "reports", "arraySize": 2}


def test_a_job_keeps_what_it_was_made_of() -> None:
    parameters, jobs = {"a": "b"}, ["x"]
    workload = BatchWorkload(job_definition="reports", parameters=parameters, depends_on_job_ids=jobs)
    parameters["a"] = "c"
    jobs.append("y")
    assert workload.parameters == {"a": "b"}
    assert workload.depends_on_job_ids == ("x",)
    assert copy.deepcopy(workload) == workload


@pytest.mark.parametrize("name", ["array_size", "scheduling_priority", "attempts"])
def test_a_number_that_would_not_be_sent_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0, which stands for none"):
        BatchWorkload(job_definition="reports", **{name: 0})


def test_exactly_one_thing_is_run(client: Client) -> None:
    with pytest.raises(ValueError, match="exactly one of pod, batch and job"):
        client.submit(target="t", execution_id="e")
    with pytest.raises(ValueError, match="exactly one of pod, batch and job"):
        client.submit(target="t", execution_id="e", pod={}, batch=BatchWorkload(job_definition="reports"))


def test_what_is_no_text_is_no_parameter(client: Client) -> None:
    with pytest.raises(TypeError):
        client.submit(
            target="t",
            execution_id="e",
            batch=BatchWorkload(job_definition="reports", parameters={"n": 3}),  # type: ignore[dict-item]
        )


def test_an_attempt_says_which_job_it_is(client: Client) -> None:
    assert client.get("ok").attempts[0].batch_job_id == "job-1"
