"""Rows that break the submit of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from e2e.manifests import numbered
from e2e.waiting import wait_for
from faults.batch.jobs import Jobs, for_seconds
from faults.row import Length, Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.stage import Stage

#: Seconds; longer than any row.
STALE: Final = 3600
#: About 4 seconds of lines.
SHORT: Final = numbered(200, pause="0.02")


def answer_lost(stage: Stage) -> None:
    jobs = Jobs.of(stage)
    client, work = jobs.broker().client(), jobs.define(SHORT)
    with jobs.failing("lost_answer", "SubmitJob", times=1):
        stage.start(client, work).to_end()
    assert jobs.calls("SubmitJob", "lost_answer") == 1


def request_reset(stage: Stage) -> None:
    jobs = Jobs.of(stage)
    client, work = jobs.broker().client(), jobs.define(SHORT)
    with jobs.failing("reset", "SubmitJob", times=2):
        stage.start(client, work).to_end()
    assert jobs.calls("SubmitJob", "reset") == 2


def throttled(stage: Stage) -> None:
    jobs = Jobs.of(stage)
    client, work = jobs.broker().client(), jobs.define(SHORT)
    with jobs.failing("throttle"):
        reader = stage.start(client, work)
        for_seconds(20)
    reader.until(lambda story: story.text())
    with jobs.failing("throttle"):
        jobs.await_jobs("the job to end unseen", "SUCCEEDED")
        for_seconds(10)
    reader.to_end()
    refused = {action: jobs.calls(action, "Throttling") for action in ("SubmitJob", "DescribeJobs")}
    assert all(refused.values()), refused
    stage.remarks.append(f"{sum(refused.values())} calls refused")


def unknown_at_first(stage: Stage) -> None:
    jobs = Jobs.of(stage)
    jobs.batch.behave({"invisible": 20})
    # It is over, and its pod gone, before it is described for the first time.
    stage.start(jobs.broker().client(), jobs.define("echo one; echo two")).to_end()


def list_stale(*, lost: int) -> Callable[[Stage], None]:
    """Answers are lost so often, and a list of jobs lags behind until there is a second one."""

    def play(stage: Stage) -> None:
        jobs = Jobs.of(stage)
        client, work = jobs.broker().client(), jobs.define(SHORT)
        # Without pods, so that nothing but the list can tell.
        held = {"hold": {"state": "RUNNABLE"}}
        jobs.batch.behave({**held, "list_delay": STALE})
        with jobs.failing("lost_answer", "SubmitJob", times=lost):
            reader = stage.start(client, work)
            jobs.await_jobs("a second job", "RUNNABLE", number=2)
        jobs.batch.behave(held)
        jobs.await_duplicates(1)
        first, second = jobs.batch.jobs()
        kept, ended = (second, first) if first["is_terminated"] else (first, second)
        assert ended["is_terminated"], (first, second)
        # With an answer the job of that is known, and with none the oldest is taken.
        assert kept is (second if lost == 1 else first)
        stage.remarks.append(f"the {'second' if kept is second else 'oldest'} is kept")
        jobs.batch.behave()
        reader.to_end()

    return play


def killed_before_submit(stage: Stage) -> None:
    jobs = Jobs.of(stage)
    broker, work = jobs.broker(), jobs.define(SHORT)
    # It has no credentials yet, so it comes as far as the record.
    jobs.aws.faults({"service": "sts", "kind": "hang"})
    reader = stage.start(broker.client(), work)
    wait_for("the broker to ask for credentials", jobs.aws.held, within=60)
    assert jobs.left() == 1, "there is a record"
    broker.kill()
    jobs.aws.faults()
    broker.start()
    reader.to_end()
    assert jobs.calls("SubmitJob") == 1


def killed_while_submitting(stage: Stage) -> None:
    jobs = Jobs.of(stage)
    broker, work = jobs.broker(), jobs.define(SHORT)
    jobs.aws.faults({"service": "batch", "action": "SubmitJob", "kind": "hang"})
    reader = stage.start(broker.client(), work)
    wait_for("the submit to be under way", jobs.aws.held, within=60)
    broker.kill()
    # It arrives when nobody is there who asked for it.
    jobs.aws.faults()
    broker.start()
    reader.to_end()


def cancelled_before_submit(stage: Stage) -> None:
    jobs = Jobs.of(stage)
    client, work = jobs.broker().client(), jobs.define(SHORT)
    with jobs.failing("throttle"):
        reader = stage.start(client, work)
        wait_for("a submit that is refused", lambda: jobs.calls("SubmitJob", "Throttling"), within=60)
        client.cancel(reader.name)
        reader.to_end()


ROWS: Final = (
    Row(fault="Batch: SubmitJob answer lost", play=answer_lost, length=Length.CORE),
    Row(fault="Batch: SubmitJob request reset, twice", play=request_reset),
    Row(fault="Batch: 429 on everything at submit and at the end", play=throttled),
    Row(fault="Batch: DescribeJobs empty for 20 s after submit", play=unknown_at_first),
    Row(
        fault="Batch: ListJobs stale while an answer is lost",
        play=list_stale(lost=1),
        made=2,
        duplicates=1,
        length=Length.CORE,
    ),
    Row(fault="Batch: ListJobs stale while two answers are lost", play=list_stale(lost=2), made=2, duplicates=1),
    Row(
        fault="Batch: kill -9 of the broker between record and SubmitJob",
        play=killed_before_submit,
        length=Length.CORE,
    ),
    Row(fault="Batch: kill -9 of the broker while SubmitJob is under way", play=killed_while_submitting),
    Row(
        fault="Batch: cancel while no job can be made",
        play=cancelled_before_submit,
        ends="CANCELLED CANCELLED_BY_CALLER",
        made=0,
    ),
)
