"""Ends of jobs by events: known at once where no pod tells of them, and believed in nothing.

The double puts into a queue of SQS what EventBridge would. That an end was known by an event and not by a description
that was due is told by the requests: their order, and how far apart descriptions are without one.
"""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pytest

import podbroker
from cluster.identity import REGION
from e2e.batch import ACCOUNT, QUEUE, STATEMENTS
from e2e.broker import TARGET
from e2e.following import Story, collect, ended, follow, has_line
from e2e.test_batch_running import prepared, submit
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from e2e.aws import Aws
    from e2e.batch import Batch
    from e2e.broker import Broker, Brokers
    from e2e.site import Namespace

NAME: Final = "jobs-events"
KEY: Final = f"{REGION}/{NAME}"
URL: Final = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{NAME}"
#: What the shipped policy allows.
MAY_TAKE: Final = {
    "Effect": "Allow",
    "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage"],
    "Resource": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{NAME}",
}
#: Seconds. A job without a pod is described 2, 6, 14 and 30 after its submit, so eight pass between the second time and
#: the third; what an event leads to takes less than one, on a machine that is not busy.
DUE: Final = 7.0
SOON: Final = 4.0


class Events:
    """The queue of events as a test sees it."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        rule = {"job_queues": [QUEUE], "statuses": ["SUCCEEDED", "FAILED"]}
        aws.config["sqs"] = {"queues": {KEY: {"account": ACCOUNT, "events": rule}}}
        aws.role["policy"] = {"Statement": [*aws.role["policy"]["Statement"], MAY_TAKE]}
        aws.apply()

    def send(self, body: object) -> None:
        """Somebody puts a message into the queue; what is no text goes as JSON."""
        text = body if isinstance(body, str) else json.dumps(body)
        self.aws.call("POST", "/sqs/send", {"queue": KEY, "body": text})

    def left(self) -> list[str]:
        """The messages that are not deleted."""
        found: list[str] = self.aws.call("GET", f"/sqs/messages?queue={quote(KEY)}")
        return found

    def taken(self) -> list[dict[str, Any]]:
        """The requests that brought messages."""
        return [one for one in self.aws.calls("ReceiveMessage") if one.get("messages")]


def event(job: str, status: str = "FAILED", **more: Any) -> dict[str, Any]:  # noqa: ANN401  fields of an event
    """An event as EventBridge sends it."""
    arn = f"arn:aws:batch:{REGION}:{ACCOUNT}:job/{job}"
    detail = {"jobArn": arn, "jobId": job, "status": status, "jobQueue": QUEUE}
    kind = {"source": "aws.batch", "detail-type": "Batch Job State Change"}
    return {**kind, "version": "0", "region": REGION, "account": ACCOUNT, "detail": detail, **more}


def metrics(broker: Broker) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.admin_port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def counted(broker: Broker) -> dict[str, int]:
    """Messages by what they were."""
    found = re.findall(r'podbroker_batch_events_total\{kind="(\w+)"\} (\d+)', metrics(broker))
    return {kind: int(count) for kind, count in found}


def receives(broker: Broker) -> bool:
    return f'podbroker_batch_events_receiving{{queue="{NAME}"}} 1' in metrics(broker)


@pytest.fixture
def events(aws: Aws, batch: Batch) -> Events:
    assert batch
    return Events(aws)


@pytest.fixture
def broker(aws: Aws, events: Events, brokers: Brokers, namespace: Namespace) -> Broker:
    assert events
    return prepared(aws, brokers, namespace, events_queue_url=URL).start()


def described(aws: Aws) -> list[float]:
    """When jobs were described."""
    return [one["time"] for one in aws.calls("DescribeJobs", outcome="OK")]


def told_by_event(aws: Aws, batch: Batch) -> bool:
    """Whether an event was received first, and one description right after the end told the rest."""
    calls = aws.call("GET", "/calls")
    (at,) = [number for number, one in enumerate(calls) if one.get("messages")]
    (job,) = batch.jobs()
    is_one = [one["action"] for one in calls[at:]].count("DescribeJobs") == 1
    return is_one and described(aws)[-1] - job["stopped"] < SOON


def in_the_queue(aws: Aws, batch: Batch, broker: Broker) -> tuple[str, str]:
    """A job that waits in Batch's queue and was described for the second time: its execution's name, and its id."""
    batch.behave({"hold": {"state": "RUNNABLE", "reason": "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"}})
    batch.register()
    name = submit(broker.client(), "queued")
    wait_for("the job to be described twice", lambda: len(described(aws)) >= 2)
    (job,) = batch.jobs()
    assert job["status"] == "RUNNABLE"
    assert not [one for one in aws.calls("ReceiveMessage") if one.get("messages")]
    return name, job["id"]


def test_the_end_of_a_job_in_the_queue_is_known_at_once(aws: Aws, batch: Batch, events: Events, broker: Broker) -> None:
    name, job = in_the_queue(aws, batch, broker)
    batch.terminate(job, "not today")
    story = follow(broker.client(), name)
    assert story.end.state is podbroker.ExecutionState.FAILED
    assert story.outcome.failure_class is podbroker.FailureClass.POD_DELETED
    assert "not today" in story.outcome.message
    assert told_by_event(aws, batch)
    wait_for("the message to be deleted", lambda: not events.left())
    assert counted(broker) == {"End": 1}


def test_without_events_it_is_known_when_the_job_is_due(
    aws: Aws, batch: Batch, brokers: Brokers, namespace: Namespace
) -> None:
    broker = prepared(aws, brokers, namespace).start()
    name, job = in_the_queue(aws, batch, broker)
    batch.terminate(job, "not today")
    assert follow(broker.client(), name).end.state is podbroker.ExecutionState.FAILED
    before, last = described(aws)[-2:]
    assert last - before > DUE
    assert not aws.calls("ReceiveMessage")


def test_a_job_that_the_cluster_refuses_is_known_to_have_failed_at_once(
    aws: Aws, batch: Batch, broker: Broker, namespace: Namespace
) -> None:
    namespace.create("resource_quota", {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    core = namespace.site.core
    wait_for("the quota to count", lambda: core.read_namespaced_resource_quota("none", namespace.name).status.hard)
    name, job = in_the_queue(aws, batch, broker)
    batch.behave()
    story = follow(broker.client(), name)
    assert story.end.state is podbroker.ExecutionState.FAILED
    assert namespace.pods == []
    assert told_by_event(aws, batch)
    assert batch.jobs()[0]["id"] == job
    assert counted(broker)["End"] == 1


def test_what_is_said_is_not_believed_and_every_message_is_taken_out(
    aws: Aws, batch: Batch, events: Events, broker: Broker
) -> None:
    batch.register("echo ready; sleep 3; echo still here")
    client = broker.client()
    with client.watch(submit(client, "slandered")) as watch:
        story = collect(watch, Story(), has_line("ready"), within=120)
        (job,) = batch.jobs()
        count = len(described(aws))
        events.send(event(job["id"]))
        events.send(event(job["id"], "STARTING"))
        events.send(event("00000000-0000-0000-0000-000000000000", "SUCCEEDED"))
        events.send(event(job["id"], region="eu-west-1"))
        events.send({**event(job["id"]), "source": "my.app"})
        events.send("{")
        events.send(event("another") | {"detail": {"jobId": 7}})
        wait_for("all messages to be taken out", lambda: not events.left())
        wait_for("the job to be described", lambda: len(described(aws)) > count)
        collect(watch, story, ended, within=120)
    assert story.text() == ["ready", "still here"]
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED
    # The true end was told of as well, perhaps when it was known by the pod.
    wait_for("the event of the true end", lambda: sum(counted(broker).values()) == 8)
    kinds = counted(broker)
    assert kinds.pop("End") + kinds.pop("Unfollowed") == 3
    assert kinds == {"NoEnd": 1, "Foreign": 2, "Malformed": 2}


def test_a_queue_that_does_not_answer_does_no_harm(aws: Aws, batch: Batch, events: Events, broker: Broker) -> None:
    aws.faults({"service": "sqs", "kind": "unavailable"})
    # The request that is under way ends with it.
    events.send("wake up")
    wait_for("requests to fail", lambda: "events of jobs cannot be received" in broker.log)
    batch.register("echo all the same")
    client = broker.client()
    story = follow(client, submit(client, "harmless"))
    assert story.text() == ["all the same"]
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED
    assert not receives(broker)
    (check,) = [one for one in client.check(TARGET) if one.link == "batch-events"]
    assert (check.status, check.subject) == (podbroker.CheckStatus.WARNING, NAME)
    assert "SQS does not answer" in check.detail
    assert "VPC endpoint for SQS" in check.fix
    aws.faults()
    wait_for("events to be received again", lambda: receives(broker))
    assert "events of jobs are received again" in broker.log
    (check,) = [one for one in client.check(TARGET) if one.link == "batch-events"]
    assert check.status is podbroker.CheckStatus.PASSED


def test_a_role_that_may_not_take_events_is_told_so_and_runs_jobs(
    aws: Aws, batch: Batch, events: Events, brokers: Brokers, namespace: Namespace
) -> None:
    assert events
    aws.role["policy"] = {"Statement": [*STATEMENTS]}
    aws.apply()
    broker = prepared(aws, brokers, namespace, events_queue_url=URL).start()
    wait_for("the refusal", lambda: aws.calls("ReceiveMessage", outcome="AccessDenied"))
    batch.register("echo all the same")
    client = broker.client()
    assert follow(client, submit(client, "allowed")).text() == ["all the same"]
    (check,) = [one for one in client.check(TARGET) if one.link == "batch-events"]
    assert check.status is podbroker.CheckStatus.WARNING
    assert "allow sqs:ReceiveMessage and sqs:DeleteMessage" in check.fix


def test_a_broker_waits_for_events_as_long_as_sqs_does_and_ends_when_it_is_told_to(aws: Aws, broker: Broker) -> None:
    wait_for("SQS to say that there is nothing", lambda: aws.calls("ReceiveMessage", outcome="OK"))
    wait_for("that to be heard", lambda: receives(broker))
    assert "events of jobs cannot be received" not in broker.log
    broker.signal(signal.SIGTERM)
    assert broker.wait(within=20) == 0
    assert "some tasks did not stop in time" not in broker.log
