"""Jobs and lines that AWS Batch takes away before the broker has seen them: marked and ended, never silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import podbroker
from e2e.following import follow, follow_until, has_line
from e2e.test_batch_running import prepared, records, submit
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from e2e.aws import Aws
    from e2e.batch import Batch
    from e2e.broker import Broker, Brokers
    from e2e.following import Story
    from e2e.site import Namespace


@pytest.fixture
def broker(aws: Aws, batch: Batch, brokers: Brokers, namespace: Namespace) -> Broker:
    assert batch
    return prepared(aws, brokers, namespace).start()


def marked(story: Story) -> list[tuple[str, int]]:
    """Whose lines are told to be missing: container and restart."""
    assert all(gap.reason is podbroker.GapReason.POD_DELETED for gap in story.gaps), story.gaps
    return sorted((gap.instance.container, gap.instance.restart) for gap in story.gaps)


def pods(namespace: Namespace) -> list[str]:
    """The names of the pods that are left."""
    return [one.metadata.name for one in namespace.site.core.list_namespaced_pod(namespace.name).items]


def test_a_job_whose_pod_came_and_went_while_no_broker_ran_has_a_gap(
    batch: Batch, broker: Broker, namespace: Namespace
) -> None:
    batch.behave({"delete_after": 0, "pace": {"RUNNABLE": 2}})
    batch.register("echo unheard")
    name = submit(broker.client(), "unheard")
    (job,) = wait_for("the job to be made", batch.jobs)
    broker.kill()
    assert batch.ends(job["id"])["status"] == "SUCCEEDED"
    wait_for("its pod to go", lambda: not pods(namespace))
    story = follow(broker.start().client(), name)
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED
    assert (story.text(), marked(story)) == ([], [("main", 0)])
    assert "exit code 0" in story.gaps[0].message
    # Another process that has nothing but what was written says the same.
    broker.kill()
    again = follow(broker.start().client(), name)
    assert marked(again) == [("main", 0)]


def test_a_pod_that_is_first_seen_after_its_end_is_read(batch: Batch, broker: Broker) -> None:
    batch.behave({"delete_after": 120, "pace": {"RUNNABLE": 2}})
    batch.register("echo heard; echo late")
    name = submit(broker.client(), "late")
    (job,) = wait_for("the job to be made", batch.jobs)
    broker.kill()
    batch.ends(job["id"])
    story = follow(broker.start().client(), name)
    assert (story.text(), story.gaps) == (["heard", "late"], [])


def test_children_whose_pods_nobody_saw_have_a_gap_each(batch: Batch, broker: Broker, namespace: Namespace) -> None:
    batch.behave({"delete_after": 0, "pace": {"RUNNABLE": 2}})
    batch.register("echo unheard")
    name = submit(broker.client(), "array", array_size=3)
    parent = wait_for("the job to be made", batch.jobs)[0]
    broker.kill()
    assert batch.ends(parent["id"])["status"] == "SUCCEEDED"
    wait_for("the pods to go", lambda: not pods(namespace))
    story = follow(broker.start().client(), name)
    assert marked(story) == [(f"{child}/unknown", 0) for child in range(3)]
    broker.kill()
    assert marked(follow(broker.start().client(), name)) == marked(story)


def test_short_jobs_whose_pods_go_at_once_lose_no_line_in_silence(batch: Batch, broker: Broker) -> None:
    batch.behave({"delete_after": 0})
    batch.register("echo first; sleep 1; echo last $AWS_BATCH_JOB_ARRAY_INDEX")
    size = 12
    story = follow(broker.client(), submit(broker.client(), "short", array_size=size))
    whole = [child for child in range(size) if story.text(f"{child}/main") == ["first", f"last {child}"]]
    print(f"lines of {len(whole)} of {size} jobs of 1 s whose pods are deleted at once came; {len(story.gaps)} gaps")
    assert {child for child in range(size) if child not in whole} == {
        int(container.split("/")[0]) for container, _ in marked(story)
    }
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED


def test_a_child_that_batch_tries_again_tells_the_lines_of_both_pods(batch: Batch, broker: Broker) -> None:
    script = (
        "echo child $AWS_BATCH_JOB_ARRAY_INDEX attempt $AWS_BATCH_JOB_ATTEMPT;"
        " [ $AWS_BATCH_JOB_ARRAY_INDEX$AWS_BATCH_JOB_ATTEMPT != 11 ]"
    )
    batch.register(script)
    story = follow(broker.client(), submit(broker.client(), "again", array_size=2, attempts=2))
    assert story.text("0/main") == ["child 0 attempt 1"]
    assert story.text("1/main") == ["child 1 attempt 1", "child 1 attempt 2"]
    assert not story.gaps
    ends = [event for event in story.events if isinstance(event, podbroker.LogStreamEnd)]
    runs = {(end.instance.container, end.instance.restart) for end in ends}
    assert runs == {("0/main", 0), ("1/main", 0), ("1/main", 1)}
    assert story.end.state is podbroker.ExecutionState.SUCCEEDED


def test_the_job_of_a_record_that_was_torn_out_is_ended_though_batch_refuses_for_a_while(
    aws: Aws, batch: Batch, broker: Broker, namespace: Namespace
) -> None:
    batch.register("echo ready; sleep 600")
    client = broker.client()
    follow_until(client, submit(client, "torn"), has_line("ready"))
    aws.faults({"service": "batch", "action": "TerminateJob", "kind": "throttle", "times": 8})
    (record,) = records(namespace)
    core = namespace.site.core
    core.patch_namespaced_config_map(record, namespace.name, {"metadata": {"finalizers": None}})
    core.delete_namespaced_config_map(record, namespace.name)
    (job,) = batch.jobs()
    told = batch.ends(job["id"])
    assert (told["status"], told["isTerminated"]) == ("FAILED", True)
    assert "record of this job was deleted" in told["statusReason"]
