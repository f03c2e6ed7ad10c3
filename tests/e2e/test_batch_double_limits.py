"""What the double of AWS Batch refuses: what the model does not say, and what its limits do not allow."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from aws.batch import limits, model
from aws.batch.conditions import is_retried
from aws.batch.job import Attempt, Container
from aws.refusals import Refused, batch_error, json_answer
from aws.signatures import Request

SUBMIT: Final[dict[str, Any]] = {"jobName": "n", "jobQueue": "q", "jobDefinition": "d"}
CONTAINER: Final[dict[str, Any]] = {"name": "main", "image": "busybox"}


def override(**metadata: Any) -> dict[str, Any]:  # noqa: ANN401  EksMetadata
    return {"eksPropertiesOverride": {"podProperties": {"metadata": metadata}}}


def overridden(**container: Any) -> dict[str, Any]:  # noqa: ANN401  EksContainerOverride
    return {"eksPropertiesOverride": {"podProperties": {"containers": [container]}}}


def defined(**pod: Any) -> dict[str, Any]:  # noqa: ANN401  EksPodProperties
    properties = {"containers": [CONTAINER], **pod}
    return {"jobDefinitionName": "d", "type": "container", "eksProperties": {"podProperties": properties}}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"jobName": "-n"}, "jobName"),
        ({"jobName": "a" * 129}, "jobName"),
        ({"arrayProperties": {"size": 1}}, "between 2 and 10000"),
        ({"arrayProperties": {"size": 10_001}}, "between 2 and 10000"),
        ({"dependsOn": [{"jobId": "j"}] * 21}, "more than 20"),
        ({"retryStrategy": {"attempts": 11}}, "between 1 and 10"),
        ({"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"action": "RETRY"}] * 6}}, "more than 5 rules"),
        ({"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"action": "EXIT", "onReason": "*x"}]}}, "asterisk"),
        ({"timeout": {"attemptDurationSeconds": 59}}, "less than 60"),
        ({"containerOverrides": {}}, "not for jobs on EKS"),
        ({"tags": {"aws:x": ""}}, "aws:"),
        (override(annotations={"a": "x" * 256}), "more than 255"),
        (override(labels={"a": "b:c"}), "label"),
        (override(namespace="default"), "not allowed"),
        (override(namespace="kube-system"), "not allowed"),
        (overridden(env=[{"name": "AWS_BATCH_X", "value": ""}]), "reserved"),
        (overridden(resources={"limits": {"memory": "64Mi"}, "requests": {"memory": "32Mi"}}), "does not equal"),
        (overridden(resources={"limits": {"memory": "1Gi"}}), "whole number of Mi"),
        (overridden(resources={"limits": {"cpu": "0.3"}}), "multiple of 0.25"),
        (overridden(resources={"limits": {"cpu": "0.25"}, "requests": {"cpu": "1"}}), "less than"),
        (overridden(resources={"limits": {"disk": "1"}}), "no resource"),
    ],
)
def test_a_submit_beyond_a_limit_is_found(more: dict[str, Any], words: str) -> None:
    found = list(limits.of_submit({**SUBMIT, **more}, 100))
    assert len(found) == 1
    assert words in found[0]


def test_a_submit_within_its_limits_is_left_alone() -> None:
    amounts = {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "0.25", "memory": "64Mi"}}
    more = {"arrayProperties": {"size": 2}, "timeout": {"attemptDurationSeconds": 60}, **overridden(resources=amounts)}
    assert not list(limits.of_submit({**SUBMIT, **more}, limits.SUBMIT_SIZE))
    assert list(limits.of_submit({**SUBMIT, **more}, limits.SUBMIT_SIZE + 1))


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        ({"containers": []}, "no containers"),
        ({"containers": [{**CONTAINER, "name": str(number)} for number in range(11)]}, "more than 10"),
        ({"initContainers": [CONTAINER]}, "not unique"),
        ({"dnsPolicy": "None"}, "dnsPolicy"),
        ({"containers": [{**CONTAINER, "volumeMounts": [{"name": "x", "mountPath": "/x"}]}]}, "'x'"),
    ],
)
def test_a_definition_beyond_a_limit_is_found(pod: dict[str, Any], words: str) -> None:
    found = list(limits.of_definition(defined(**pod), 100))
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"jobName": "n", "jobQueue": "q"}, "jobDefinition is missing"),
        ({**SUBMIT, "jobname": "n"}, "there is no jobname"),
        ({**SUBMIT, "arrayProperties": {"size": "2"}}, "integer expected"),
        ({**SUBMIT, "propagateTags": 1}, "boolean expected"),
        ({**SUBMIT, "dependsOn": [{"jobId": "j", "type": "ALL"}]}, "is none of"),
        ({**SUBMIT, "tags": {"x": "y" * 257}}, "not between"),
        ({**SUBMIT, "tags": {str(number): "" for number in range(51)}}, "at most 50"),
        ({**SUBMIT, "timeout": None}, "structure expected"),
    ],
)
def test_a_request_that_the_model_does_not_know_is_found(request_: dict[str, Any], words: str) -> None:
    found = model.request_violations("SubmitJob", request_)
    assert len(found) == 1
    assert words in found[0]


def test_an_answer_that_the_model_does_not_know_is_found() -> None:
    good: dict[str, Any] = {"jobName": "n", "jobId": "i"}
    assert not model.answer_violations("SubmitJob", good, json_answer(good))
    for bad in ({"jobName": "n"}, {**good, "jobArn": 1}, {**good, "more": "x"}):
        assert model.answer_violations("SubmitJob", bad, json_answer(bad))


def test_an_error_that_no_client_knows_is_found() -> None:
    throttled = batch_error(Refused("Throttling", "Rate exceeded", status=400))
    assert throttled.status == 429
    assert throttled.headers["x-amzn-ErrorType"] == "TooManyRequestsException"
    assert not model.error_violations("SubmitJob", throttled)
    assert model.error_violations("SubmitJob", batch_error(Refused("OddException", "")))


def test_a_path_means_an_operation_and_its_parameters() -> None:
    arn = "arn:aws:batch:us-east-1:111122223333:job/x"
    target = f"/v1/tags/{arn.replace(':', '%3A').replace('/', '%2F')}"
    request = Request(method="POST", target=target, headers={}, body=json.dumps({"tags": {"a": "b"}}).encode())
    assert model.operation(request) == "TagResource"
    assert model.parameters(request, "TagResource") == {"resourceArn": arn, "tags": {"a": "b"}}
    untag = Request(method="DELETE", target=f"{target}?tagKeys=a&tagKeys=b", headers={}, body=b"")
    assert model.parameters(untag, model.operation(untag)) == {"resourceArn": arn, "tagKeys": ["a", "b"]}
    assert not model.operation(Request(method="POST", target="/v1/nothing", headers={}, body=b""))


@pytest.mark.parametrize(
    ("rules", "code", "is_again"),
    [
        ([], 1, True),
        ([{"onExitCode": "1", "action": "EXIT"}], 1, False),
        ([{"onExitCode": "1", "action": "EXIT"}], 2, True),
        ([{"onExitCode": "1*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}], 137, True),
        ([{"onExitCode": "1*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}], 2, False),
        ([{"onStatusReason": "host ec2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}], 2, True),
        ([{"onReason": "Error", "onExitCode": "3", "action": "EXIT"}], 2, True),
    ],
)
def test_the_first_rule_that_matches_decides_about_another_attempt(
    rules: list[dict[str, Any]], code: int, *, is_again: bool
) -> None:
    reason = "Host EC2 (instance i-1) terminated." if "onStatusReason" in (rules or [{}])[0] else ""
    containers = (Container(name="main", exit_code=code, reason="Error"),)
    first = Attempt(number=1, pod_name="p", namespace="n", containers=containers, reason=reason)
    assert is_retried({"attempts": 2, "evaluateOnExit": rules}, first) is is_again
    assert not is_retried({"attempts": 1, "evaluateOnExit": rules}, first)
