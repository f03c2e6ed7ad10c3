"""Deferred tasks in a real Airflow with real triggerers: lines, values, failures, and every way in which one is ended.

What each row looks at: the state of the task, the pod, and the lines of the task's log, of which none may be missing
and none doubled.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from e2e.waiting import wait_for
from podbroker import ExecutionState

if TYPE_CHECKING:
    from e2e.airflow import Airflow, Run
    from e2e.installation import Installation

TRIGGERERS = 1
pytestmark = pytest.mark.timeout(400)


def _deferred(run: Run) -> None:
    wait_for("the task to be deferred", lambda: run.task("pod")["state"] == "deferred", within=120)


def _ready(run: Run, *, attempt: int = 1) -> None:
    """The pod runs, and its first line has come through the triggerer."""
    wait_for("the pod's line in the task's log", lambda: run.count("ready", attempt=attempt) == 1, within=120)
    assert run.task("pod")["state"] == "deferred"


def test_synchronous_deferred_and_mapped_tasks_run_together(airflow: Airflow) -> None:
    run = airflow.trigger("together")

    assert run.finish() == "success", run.states()
    assert (run.value("synchronous"), run.value("deferred")) == (1, 2)
    for index in range(4):
        lines = run.log("mapped", map_index=index)
        assert sum(line.endswith(f"] line of {index}") for line in lines) == 1, lines


def test_a_deferred_task_has_its_lines_live_and_its_value_once_it_is_back(airflow: Airflow) -> None:
    run = airflow.trigger("deferred")

    assert run.finish() == "success", run.log("pod")
    run.assert_lines(["migrating", "migrated", "one", "two", "three"])
    assert run.value("pod") == {"rows": 3, "run": run.run}
    folder = next(airflow.folder.glob(f"logs/dag_id=deferred/run_id={run.run}/task_id=pod"))
    (triggerers,) = folder.glob("attempt=1.log.trigger.*.log")
    assert "[base] two" in triggerers.read_text(), "the lines came while the task was deferred"
    assert "[setup] migrated" in triggerers.read_text()


def test_a_formatter_that_fails_repeats_no_line(airflow: Airflow) -> None:
    run = airflow.trigger("deferred-stumble")

    assert run.finish() == "failed"
    lines = run.log("pod")
    # Lines are printed 50 at a time, and the 61st is the one that cannot be.
    assert [line for line in lines if line.startswith("formatted ")] == [f"formatted line {at}" for at in range(1, 61)]
    assert sum(line.startswith("The task's own code failed here") for line in lines) == 1


def test_a_deferred_task_fails_with_the_last_lines_and_the_exit_code(airflow: Airflow) -> None:
    run = airflow.trigger("deferred-fail")

    assert run.finish() == "failed"
    run.assert_lines(["reading", "cannot read: no such table"])
    assert "RemotePodFailed" in run.printed("pod")
    assert "exit code 3" in run.printed("pod")


def test_a_deferred_task_is_skipped_by_its_exit_code(airflow: Airflow) -> None:
    run = airflow.trigger("deferred-skip")

    run.finish()
    assert run.task("pod")["state"] == "skipped"


def test_a_deferred_task_that_failed_is_tried_again(airflow: Airflow) -> None:
    run = airflow.trigger("deferred-retried")

    assert run.finish() == "success", run.log("pod", 2)
    run.assert_lines(["try 1"])
    run.assert_lines(["try 2"], attempt=2)


def test_the_row_of_a_trigger_and_the_event_hold_no_result(airflow: Airflow) -> None:
    run = airflow.trigger("deferred")

    assert run.finish() == "success", run.log("pod")
    (fired,) = (line for line in run.printed("pod").splitlines() if "Trigger fired event" in line)
    assert "rows" not in fired


def test_a_broker_that_is_killed_costs_no_line(installation: Installation) -> None:
    run = installation.airflow.trigger("deferred-slow")
    wait_for("lines in the task's log", lambda: run.count("line 80") == 1, within=120)

    installation.broker.kill()
    installation.broker.start()

    assert run.finish() == "success", run.log("pod")
    run.assert_lines([f"line {i}" for i in range(1, 401)])


def test_a_triggerer_that_is_stopped_hands_on_without_a_doubled_or_lost_line(airflow: Airflow) -> None:
    run = airflow.trigger("deferred-slow")
    wait_for("lines in the task's log", lambda: run.count("line 80") == 1, within=120)

    (old,) = airflow.triggerer_names
    airflow.add_triggerer()
    airflow.end(old)

    assert run.finish() == "success", run.log("pod")
    run.assert_lines([f"line {i}" for i in range(1, 401)])
    assert "may come again" not in run.printed("pod")


def test_a_triggerer_that_is_killed_loses_no_line_and_those_that_come_again_are_announced(airflow: Airflow) -> None:
    run = airflow.trigger("deferred-slow")
    wait_for("lines in the task's log", lambda: run.count("line 80") == 1, within=120)

    (old,) = airflow.triggerer_names
    airflow.end(old, signal.SIGKILL)
    airflow.add_triggerer()

    assert run.finish() == "success", run.log("pod")
    printed = [line.rpartition("] ")[2] for line in run.log("pod")]
    (marker,) = (at for at, line in enumerate(printed) if "may come again" in line)
    before = [line for line in printed[:marker] if line.startswith("line ")]
    after = [line for line in printed[marker:] if line.startswith("line ")]
    assert len(set(before)) == len(before)
    assert len(set(after)) == len(after)
    assert {*before, *after} == {f"line {i}" for i in range(1, 401)}


@pytest.mark.parametrize("state", ["failed", "success"])
def test_marking_a_deferred_task_ends_its_running_pod(installation: Installation, state: str) -> None:
    run = installation.airflow.trigger("deferred-endless")
    _ready(run)

    run.set_state("pod", state)

    installation.assert_pod_ended(run)
    assert run.finish() == state
    assert run.task("pod")["state"] == state
    wait_for("the pod's last line", lambda: run.count("bye") == 1)
    run.assert_lines(["ready", "bye"])


@pytest.mark.parametrize("state", ["failed", "success"])
def test_marking_a_deferred_task_ends_its_pending_pod(installation: Installation, state: str) -> None:
    run = installation.airflow.trigger("deferred-pending")
    _deferred(run)
    wait_for("the pod to be pending", lambda: "Waiting for pod" in run.printed("pod"))

    run.set_state("pod", state)

    installation.assert_pod_ended(run)
    assert run.finish() == state


def test_clearing_a_deferred_task_ends_its_pod_and_starts_another(installation: Installation) -> None:
    run = installation.airflow.trigger("deferred-endless")
    _ready(run)

    run.clear("pod")

    wait_for("the task's second try", lambda: run.task("pod")["try_number"] == 2, within=120)
    _ready(run, attempt=2)
    states = sorted(str(one.state) for one in installation.executions(run))
    assert states == ["CANCELLED", "RUNNING"]
    run.assert_lines(["ready", "bye"])

    run.set_state("pod", "failed")
    installation.assert_pod_ended(run)


@pytest.mark.parametrize("dag", ["deferred-late", "deferred-pending-late"])
def test_a_deferred_task_that_takes_too_long_fails_and_its_pod_is_cancelled(
    installation: Installation, dag: str
) -> None:
    run = installation.airflow.trigger(dag)

    assert run.finish() == "failed"
    installation.assert_pod_ended(run)
    assert "AirflowTaskTimeout" in run.printed("pod")
    if dag == "deferred-late":
        run.assert_lines(["ready", "bye"])


def test_a_pending_pod_outlives_its_triggerer(installation: Installation) -> None:
    run = installation.airflow.trigger("deferred-pending")
    _deferred(run)
    wait_for("the pod to be pending", lambda: "Waiting for pod" in run.printed("pod"))

    (old,) = installation.airflow.triggerer_names
    installation.airflow.end(old)
    new = installation.airflow.add_triggerer()

    wait_for("the new triggerer to follow", lambda: run.printed("pod").count("Waiting for pod") == 2, within=120)
    assert new in installation.airflow.triggerer_names
    (execution,) = installation.executions(run)
    assert execution.state is ExecutionState.PENDING

    run.set_state("pod", "failed")
    installation.assert_pod_ended(run)
