"""The double of SQS: what EventBridge would put into a queue comes out of it, until it is deleted."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from botocore.exceptions import ClientError
from k8s.shipped import load

from cluster.identity import REGION
from e2e.batch import ACCOUNT, QUEUE
from e2e.test_batch_events import KEY, MAY_TAKE, NAME, URL, Events, event

if TYPE_CHECKING:
    from e2e.aws import Aws
    from e2e.batch import Batch

#: Seconds; the longest poll.
WAIT: Final = 20


@pytest.fixture
def events(aws: Aws, batch: Batch) -> Events:
    assert batch
    return Events(aws)


@pytest.fixture
def client(aws: Aws, events: Events) -> Any:  # noqa: ANN401  boto's
    assert events
    return aws.client("sqs", aws.role_session())


def receive(client: Any, **more: Any) -> list[dict[str, Any]]:  # noqa: ANN401  boto's, of the request
    found: list[dict[str, Any]] = client.receive_message(QueueUrl=URL, **more).get("Messages", [])
    return found


def test_the_ends_of_jobs_of_the_queue_come_as_events(batch: Batch, events: Events, client: Any) -> None:  # noqa: ANN401
    batch.behave({"hold": {"state": "RUNNABLE"}})
    batch.register()
    job = batch.submit("etl", tags={"a": "b"})
    assert events.left() == [], "neither RUNNABLE nor what comes before is in the rule"
    batch.terminate(job, "why")
    (message,) = receive(client, WaitTimeSeconds=WAIT)
    told = json.loads(message["Body"])
    assert (told["source"], told["detail-type"]) == ("aws.batch", "Batch Job State Change")
    assert (told["region"], told["account"]) == (REGION, ACCOUNT)
    assert told["resources"] == [told["detail"]["jobArn"]]
    # It is what DescribeJobs says.
    detail = batch.describe(job)
    same = ("jobId", "jobArn", "jobName", "status", "statusReason", "jobQueue", "createdAt", "tags", "isTerminated")
    assert {key: told["detail"][key] for key in same} == {key: detail[key] for key in same}
    assert set(event(job)) <= set(told)
    # A queue of another name is in no rule.
    batch.aws.config["sqs"]["queues"][KEY]["events"]["job_queues"] = ["another"]
    batch.aws.apply()
    batch.terminate(batch.submit("other"), "why")
    client.delete_message(QueueUrl=URL, ReceiptHandle=message["ReceiptHandle"])
    assert events.left() == []
    assert QUEUE not in batch.aws.config["sqs"]["queues"][KEY]["events"]["job_queues"]


def test_who_waits_gets_a_message_when_it_comes(events: Events, client: Any) -> None:  # noqa: ANN401  boto's
    begin = time.monotonic()
    assert receive(client, WaitTimeSeconds=1) == []
    assert time.monotonic() - begin >= 1
    found: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: found.extend(receive(client, WaitTimeSeconds=WAIT)))
    begin = time.monotonic()
    waiting.start()
    events.send("now")
    waiting.join()
    assert [one["Body"] for one in found] == ["now"]
    assert time.monotonic() - begin < WAIT


def test_a_message_comes_again_until_it_is_deleted(events: Events, client: Any) -> None:  # noqa: ANN401  boto's
    for number in range(12):
        events.send(f"message {number}")
    first = receive(client, MaxNumberOfMessages=10, VisibilityTimeout=1)
    rest = receive(client, MaxNumberOfMessages=10)
    assert (len(first), len(rest)) == (10, 2)
    entries = [{"Id": str(at), "ReceiptHandle": one["ReceiptHandle"]} for at, one in enumerate(first[1:])]
    done = client.delete_message_batch(QueueUrl=URL, Entries=entries)
    assert (len(done["Successful"]), done["Failed"]) == (9, [])
    (again,) = receive(client, WaitTimeSeconds=WAIT)
    assert again["Body"] == first[0]["Body"]
    assert again["ReceiptHandle"] != first[0]["ReceiptHandle"]
    assert len(events.left()) == 3


def test_only_who_may_takes_messages_and_only_of_this_queue(aws: Aws, events: Events, client: Any) -> None:  # noqa: ANN401
    events.send("x")
    with pytest.raises(ClientError) as error:
        aws.client("sqs", aws.workload_session()).receive_message(QueueUrl=URL)
    assert error.value.response["Error"]["Code"] == "AccessDeniedException"
    with pytest.raises(ClientError) as error:
        client.receive_message(QueueUrl=f"{URL}-2")
    assert error.value.response["Error"]["Code"] == "AccessDeniedException"
    aws.role["policy"]["Statement"].append({**MAY_TAKE, "Resource": "*"})
    aws.apply()
    with pytest.raises(ClientError) as error:
        client.receive_message(QueueUrl=f"{URL}-2")
    assert error.value.response["Error"]["Code"] == "QueueDoesNotExist"
    aws.faults({"service": "sqs", "kind": "throttle", "times": 1})
    with pytest.raises(ClientError) as error:
        receive(client)
    assert error.value.response["Error"]["Code"] == "RequestThrottled"
    # What is allowed here is what the shipped policy allows.
    (shipped,) = load("aws/batch-events-policy.json")["Statement"]
    assert shipped["Action"] == MAY_TAKE["Action"]
    assert shipped["Resource"].rpartition(":")[0] == f"arn:aws:sqs:{REGION}:{ACCOUNT}"
    assert NAME in MAY_TAKE["Resource"]


def test_what_is_against_the_model_is_noticed(batch: Batch, client: Any) -> None:  # noqa: ANN401  boto's
    with pytest.raises(ClientError):
        receive(client, WaitTimeSeconds=WAIT + 1)
    assert batch.violations() == ["ReceiveMessage: WaitTimeSeconds: 21 is not between 0 and 20"]
