"""Rows that break something while a job is queued or runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import podbroker
from e2e.following import has_line
from e2e.manifests import numbered
from e2e.waiting import wait_for
from faults.batch.jobs import Jobs, for_seconds
from faults.row import Row
from faults.stage import again_and_again

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.stage import Stage

#: Of the records and of the pods.
WATCHES: Final = r"/(pods|configmaps)\?.*watch="
#: About 12 seconds of lines.
SLOW: Final = numbered(400, pause="0.03")


def broker_killed(stage: Stage) -> None:
    jobs = Jobs.of(stage)
    broker = jobs.broker()
    reader = stage.start(broker.client(), jobs.define(SLOW), until="line 60")
    for line in ("line 120", "line 200"):
        broker.kill()
        broker.start()
        reader.until(has_line(line))
    reader.to_end()


def ended_unseen(*, pod_stays: float) -> Callable[[Stage], None]:
    """The pod is deleted so many seconds after its end, which no broker sees."""

    def play(stage: Stage) -> None:
        jobs = Jobs.of(stage)
        jobs.batch.behave({"delete_after": pod_stays})
        broker = jobs.broker()
        reader = stage.start(broker.client(), jobs.define(SLOW), until="line 60")
        broker.kill()
        jobs.await_jobs("the job to end unseen", "SUCCEEDED")
        if not pod_stays:
            wait_for("the pod to go", lambda: not stage.namespace.pods, within=60)
        broker.start()
        reader.to_end()

    return play


def watch_cut(stage: Stage) -> None:
    jobs, proxy = Jobs.of(stage), stage.proxy()
    client = jobs.broker(api_server=proxy).client()
    with again_and_again(lambda: proxy.cut(WATCHES), every=2):
        stage.start(client, jobs.define(SLOW)).to_end()


def batch_down(stage: Stage) -> None:
    jobs = Jobs.of(stage)
    client, work = jobs.broker().client(), jobs.define(SLOW)
    readers = [stage.start(client, work, until="line 50")]
    with jobs.failing("unavailable"):
        # Nothing can be submitted, and how the first one ends is not told; its lines come all the same.
        readers.append(stage.start(client, work, execution_id="meanwhile"))
        readers[0].until(has_line("line 400"))
        for_seconds(45)
        assert jobs.made() == 1
    for reader in readers:
        reader.to_end()


def spot_lost(stage: Stage) -> None:
    jobs = Jobs.of(stage)
    jobs.batch.behave({"spot_loss": {"attempts": [1], "after": 3}})
    reader = stage.start(jobs.broker().client(), jobs.define(SLOW, attempts=2))
    story = reader.to_end()
    ends = {
        event.attempt.number: event.outcome and event.outcome.failure_class
        for event in story.events
        if isinstance(event, podbroker.AttemptEnded)
    }
    assert ends == {1: podbroker.FailureClass.SPOT_INTERRUPTED, 2: None}, ends
    stage.remarks.append("attempt 1 is SPOT_INTERRUPTED")


def stuck(stage: Stage) -> None:
    jobs = Jobs.of(stage, queue_deadline="15s")
    reason = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is higher"
    jobs.batch.behave({"hold": {"state": "RUNNABLE", "reason": reason}})
    story = stage.start(jobs.broker().client(), jobs.define("echo never")).to_end()
    assert "MISCONFIGURATION" in story.outcome.message, story.outcome


ROWS: Final = (
    Row(fault="Batch: kill -9 of the broker while the job runs, twice", play=broker_killed),
    Row(fault="Batch: the job ends while no broker runs", play=ended_unseen(pod_stays=60)),
    Row(fault="Batch: job and pod go while no broker runs", play=ended_unseen(pod_stays=0)),
    Row(fault="Batch: watches cut every 2 s", play=watch_cut),
    Row(fault="Batch: API down for 60 s", play=batch_down, made=2),
    Row(fault="Batch: spot loss, and a second attempt", play=spot_lost, may_be_unsure=True),
    Row(fault="Batch: stuck in RUNNABLE, with a queue deadline", play=stuck, ends="FAILED START_DEADLINE"),
)
