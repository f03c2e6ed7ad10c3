"""Rows about ends of jobs: somebody ends them, in each state, or takes their pods away."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from e2e.following import has_line
from e2e.manifests import UNTIL_TOLD, numbered
from e2e.waiting import wait_for
from faults.batch.jobs import Jobs
from faults.row import Length, Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.reader import Reader
    from faults.stage import Stage
    from podbroker import Client

#: In which a job can be ended; the double holds it in all but the last.
STATES: Final = ("RUNNABLE", "PENDING", "SUBMITTED", "STARTING", "RUNNING")
#: Jobs of a second.
MANY: Final = 50
AT_A_TIME: Final = 5


def deleted(after: float) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        jobs = Jobs.of(stage)
        jobs.batch.behave({"delete_after": after})
        stage.start(jobs.broker().client(), jobs.define(numbered(400, pause="0.01"))).to_end()

    return play


def many_of_a_second(stage: Stage) -> None:
    jobs = Jobs.of(stage)
    jobs.batch.environment["max_pods"] = AT_A_TIME
    jobs.aws.apply()
    jobs.batch.behave({"delete_after": 0})
    client, work = jobs.broker().client(), jobs.define(numbered(20, pause="0.05"))
    names = [stage.submit(client, work, execution_id=f"job-{number}") for number in range(MANY)]
    stories = [reader.to_end() for reader in [stage.read(client, name) for name in names]]
    received = sum(len(story.text()) for story in stories)
    marked = sum(bool(story.gaps) for story in stories)
    stage.remarks.append(f"{received / stage.written():.1%} of the lines received, {marked} jobs with a marker")


def ended_in_each_state(end: Callable[[Client, Jobs, str, dict[str, Any]], object]) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        jobs = Jobs.of(stage)
        jobs.batch.behave(*({"tags": {"state": one}, "hold": {"state": one}} for one in STATES[:-1]))
        client = jobs.broker().client()
        readers: list[Reader] = []
        standing: list[dict[str, Any]] = []
        for state in STATES:
            # Only what waits for another job is PENDING: for the one before, which is held and is ended after it.
            others = [standing[-1]["id"]] if state == "PENDING" else []
            work = jobs.define(UNTIL_TOLD, tags={"state": state}, depends_on_job_ids=others)
            readers.append(stage.start(client, work, execution_id=state.lower()))
            standing += wait_for(f"a job in {state}", partial(_standing, jobs, state), within=120)
        readers[-1].until(has_line("ready"))
        for reader, job in reversed(list(zip(readers, standing, strict=True))):
            end(client, jobs, reader.name, job)
        for reader in readers:
            reader.to_end()

    return play


def _standing(jobs: Jobs, state: str) -> list[dict[str, Any]]:
    return [one for one in jobs.batch.jobs() if one["tags"]["state"] == one["status"] == state]


def by_caller(client: Client, _jobs: Jobs, name: str, _job: dict[str, Any]) -> None:
    client.cancel(name, reason="not needed")


def by_somebody(_client: Client, jobs: Jobs, _name: str, job: dict[str, Any]) -> None:
    jobs.batch.terminate(job["id"], "Terminated in the console")


ROWS: Final = (
    Row(fault="Batch: pod deleted at once when it has ended", play=deleted(0), may_be_unsure=True, length=Length.CORE),
    Row(fault="Batch: pod deleted 5 s after its end", play=deleted(5)),
    Row(fault="Batch: 50 jobs of 1 s, pods deleted at once", play=many_of_a_second, made=MANY, may_be_unsure=True),
    Row(
        fault="Batch: cancelled in each state",
        play=ended_in_each_state(by_caller),
        ends="CANCELLED CANCELLED_BY_CALLER",
        made=len(STATES),
        may_be_unsure=True,
        length=Length.CORE,
    ),
    Row(
        fault="Batch: terminated by somebody else in each state",
        play=ended_in_each_state(by_somebody),
        ends="FAILED POD_DELETED",
        made=len(STATES),
        may_be_unsure=True,
    ),
)
