"""Lines of Batch jobs whose pods were gone before they were read: from where Fluent Bit has shipped them, or a gap."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pytest

import podbroker
from cluster.identity import CLUSTER, REGION
from e2e.batch import ACCOUNT
from e2e.broker import TARGET
from e2e.following import Story, collect, ended, follow, has_line
from e2e.test_batch_lost import marked, pods
from e2e.test_batch_running import prepared, submit
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from e2e.aws import Aws
    from e2e.batch import Batch
    from e2e.broker import Broker, Brokers
    from e2e.site import Namespace

GROUP: Final = f"/aws/containerinsights/{CLUSTER}/application"
KEY: Final = f"{REGION}/{GROUP}"
#: What the shipped policy allows.
MAY_READ: Final = {
    "Effect": "Allow",
    "Action": ["logs:DescribeLogStreams", "logs:GetLogEvents"],
    "Resource": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{GROUP}:*",
}
NOTICE: Final = "LINES_FROM_LOG_GROUP"
#: Seconds that lines are under way.
DELAY: Final = 2.0


class Shipping:
    """The log group as a test sees it, and what is shipped to it."""

    def __init__(self, aws: Aws, namespace: Namespace) -> None:
        facts = aws.site.cluster.facts
        self.aws = aws
        self.ship: dict[str, Any] = {
            "folder": facts["pod_logs"],
            "namespace": namespace.name,
            "node": facts["node"],
            "delay": DELAY,
            "shape": "record",
        }
        aws.config["logs"] = {"groups": {KEY: {"account": ACCOUNT, "ship": self.ship}}}
        aws.role["policy"] = {"Statement": [*aws.role["policy"]["Statement"], MAY_READ]}
        aws.apply()

    def set(self, **more: Any) -> None:  # noqa: ANN401  of `ship`
        """Ships otherwise."""
        self.ship |= more
        self.aws.apply()

    def stop(self) -> None:
        """Nothing is shipped."""
        self.aws.config["logs"]["groups"][KEY].pop("ship")
        self.aws.apply()

    def messages(self) -> list[str]:
        """What has arrived."""
        found: dict[str, list[str]] = self.aws.call("GET", f"/logs/streams?group={quote(KEY)}")
        return [message for messages in found.values() for message in messages]


@pytest.fixture
def shipping(aws: Aws, batch: Batch, namespace: Namespace) -> Shipping:
    assert batch
    return Shipping(aws, namespace)


@pytest.fixture
def broker(aws: Aws, shipping: Shipping, brokers: Brokers, namespace: Namespace) -> Broker:
    assert shipping
    return prepared(aws, brokers, namespace, log_group=GROUP).start()


def unseen(batch: Batch, broker: Broker, namespace: Namespace, script: str, **more: Any) -> str:  # noqa: ANN401
    """A job whose pod came and went while no broker ran; the name of its execution."""
    batch.behave({"delete_after": 0, "pace": {"RUNNABLE": 2}})
    batch.register(script)
    name = submit(broker.client(), "unseen", **more)
    (job,) = wait_for("the job to be made", batch.jobs)
    broker.kill()
    assert batch.ends(job["id"])["status"] == "SUCCEEDED"
    wait_for("its pod to go", lambda: not pods(namespace))
    return name


@pytest.mark.parametrize("shape", ["record", "bare"])
def test_lines_of_a_pod_that_nobody_saw_come_from_the_log_group(
    shape: str, shipping: Shipping, batch: Batch, broker: Broker, namespace: Namespace
) -> None:
    shipping.set(shape=shape)
    name = unseen(batch, broker, namespace, "for i in $(seq 20); do echo line $i; done")
    story = follow(broker.start().client(), name)
    assert (story.text(), story.gaps) == ([f"line {number}" for number in range(1, 21)], [])
    assert story.notices.count(NOTICE) == 1
    (end,) = [event for event in story.events if isinstance(event, podbroker.LogStreamEnd)]
    assert not end.complete
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED


@pytest.mark.parametrize("shape", ["record", "bare"])
def test_a_read_that_was_cut_goes_on_from_the_log_group_without_a_line_lost_or_doubled(
    shape: str, shipping: Shipping, batch: Batch, broker: Broker, namespace: Namespace
) -> None:
    shipping.set(shape=shape)
    batch.behave({"delete_after": 0})
    batch.register("for i in $(seq 300); do echo line $i; [ $((i % 10)) -gt 0 ] || sleep 0.2; done")
    client = broker.client()
    name = submit(client, "cut")
    with client.watch(name) as watch:
        story = collect(watch, Story(), has_line("line 50"), within=120)
        cursor = watch.cursor
    (job,) = batch.jobs()
    broker.kill()
    assert batch.ends(job["id"])["status"] == "SUCCEEDED"
    wait_for("its pod to go", lambda: not pods(namespace))
    with broker.start().client().watch(name, cursor=cursor) as watch:
        story = collect(watch, story, ended, within=120)
    assert (story.text(), story.gaps) == ([f"line {number}" for number in range(1, 301)], [])
    assert story.notices.count(NOTICE) == 1


def test_a_group_that_has_nothing_is_named_in_the_gap(
    shipping: Shipping, batch: Batch, broker: Broker, namespace: Namespace
) -> None:
    shipping.stop()
    name = unseen(batch, broker, namespace, "echo unheard")
    story = follow(broker.start().client(), name)
    assert (story.text(), marked(story)) == ([], [("main", 0)])
    assert f"the log group {GROUP} has no stream of it" in story.gaps[0].message
    assert "exit code 0" in story.gaps[0].message
    assert NOTICE not in story.notices


def test_a_role_that_may_not_read_the_group_is_told_so_in_the_gap_and_by_a_check(
    aws: Aws, shipping: Shipping, batch: Batch, broker: Broker, namespace: Namespace
) -> None:
    assert shipping
    aws.role["policy"]["Statement"].remove(MAY_READ)
    aws.apply()
    name = unseen(batch, broker, namespace, "echo unheard")
    story = follow(broker.start().client(), name)
    assert (story.text(), marked(story)) == ([], [("main", 0)])
    assert re.search(r"cannot be read: .*AccessDenied.*allow logs:DescribeLogStreams", story.gaps[0].message)
    (check,) = [one for one in broker.client().check(TARGET) if one.link == "batch-logs"]
    assert (check.status, check.subject) == (podbroker.CheckStatus.WARNING, GROUP)
    assert "allow logs:DescribeLogStreams and logs:GetLogEvents" in check.fix


def test_a_check_reads_nothing_and_says_that_it_could(shipping: Shipping, aws: Aws, broker: Broker) -> None:
    assert shipping
    (check,) = [one for one in broker.client().check(TARGET) if one.link == "batch-logs"]
    assert (check.status, check.subject) == (podbroker.CheckStatus.PASSED, GROUP)
    assert not aws.calls("GetLogEvents", outcome="OK")


def test_a_log_group_that_is_away_for_a_while_is_asked_again(
    aws: Aws, shipping: Shipping, batch: Batch, broker: Broker, namespace: Namespace
) -> None:
    name = unseen(batch, broker, namespace, "echo heard")
    wait_for("the line to be shipped", shipping.messages)
    aws.faults({"service": "logs", "kind": "unavailable", "times": 4})
    story = follow(broker.start().client(), name)
    assert (story.text(), story.gaps) == (["heard"], [])


def test_a_line_that_the_shipper_left_out_where_the_reading_was_cut_is_a_gap(
    shipping: Shipping, batch: Batch, broker: Broker, namespace: Namespace
) -> None:
    shipping.set(skip=60)
    batch.behave({"delete_after": 0})
    batch.register("for i in $(seq 100); do echo line $i; [ $i -ne 50 ] || sleep 3; done")
    client = broker.client()
    name = submit(client, "left-out")
    with client.watch(name) as watch:
        story = collect(watch, Story(), has_line("line 50"), within=120)
        cursor = watch.cursor
    broker.kill()
    batch.ends(batch.jobs()[0]["id"])
    wait_for("its pod to go", lambda: not pods(namespace))
    with broker.start().client().watch(name, cursor=cursor) as watch:
        story = collect(watch, story, ended, within=120)
    expected = [f"line {number}" for number in [*range(1, 51), *range(61, 101)]]
    assert story.text() == expected
    assert [gap.reason for gap in story.gaps] == [podbroker.GapReason.RESUME_AMBIGUOUS]


def test_children_that_nobody_saw_keep_their_gaps(
    shipping: Shipping, batch: Batch, broker: Broker, namespace: Namespace
) -> None:
    assert shipping
    name = unseen(batch, broker, namespace, "echo unheard", array_size=2)
    story = follow(broker.start().client(), name)
    assert marked(story) == [("0/unknown", 0), ("1/unknown", 0)]


def test_without_a_log_group_nobody_asks_for_one(
    aws: Aws, shipping: Shipping, batch: Batch, brokers: Brokers, namespace: Namespace
) -> None:
    assert shipping
    broker = prepared(aws, brokers, namespace).start()
    name = unseen(batch, broker, namespace, "echo unheard")
    story = follow(broker.start().client(), name)
    assert (story.text(), marked(story)) == ([], [("main", 0)])
    assert "log group" not in story.gaps[0].message
    assert not aws.calls("DescribeLogStreams")
