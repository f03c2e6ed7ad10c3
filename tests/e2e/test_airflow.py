"""A DAG's task is a pod at the other end: its lines, its value, its failure and its kill, through a real Airflow."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from e2e.waiting import wait_for
from podbroker import ExecutionState, FailureClass

if TYPE_CHECKING:
    from e2e.airflow import Airflow, Run
    from e2e.installation import Installation

pytestmark = pytest.mark.timeout(400)


def test_a_task_succeeds_with_its_lines_in_the_log_and_its_value_in_xcom(airflow: Airflow) -> None:
    run = airflow.trigger("succeed")

    assert run.finish() == "success", run.log("pod")
    run.assert_lines(["one", "two", "three"])
    assert run.value("pod") == {"rows": 3, "run": run.run}


def test_a_task_fails_with_the_last_lines_and_the_exit_code(airflow: Airflow) -> None:
    run = airflow.trigger("fail")

    assert run.finish() == "failed"
    run.assert_lines(["reading", "cannot read: no such table"])
    end = "\n".join(run.log("pod")[-10:])
    assert "3" in end
    assert "exit code" in end.lower() or "exit_code" in end.lower()


def test_a_failed_task_is_tried_again_with_a_pod_of_its_own(airflow: Airflow) -> None:
    run = airflow.trigger("retried")

    assert run.finish() == "success", run.log("pod", 2)
    assert any(line.endswith("try 1") for line in run.log("pod", 1))
    assert any(line.endswith("try 2") for line in run.log("pod", 2))


def test_a_task_goes_on_when_the_broker_is_killed_and_every_line_is_there_once(
    installation: Installation,
) -> None:
    broker = installation.broker
    run = installation.airflow.trigger("slow")
    wait_for("lines in the task's log", lambda: run.count("line 80") == 1, within=120)

    broker.kill()
    broker.start()

    assert run.finish() == "success", run.log("pod")
    run.assert_lines([f"line {i}" for i in range(1, 401)])


def test_a_task_whose_worker_goes_away_goes_on_with_its_pod_and_uses_no_retry(installation: Installation) -> None:
    run = installation.airflow.trigger("slow")
    wait_for("lines in the task's log", lambda: run.count("line 80") == 1, within=120)

    os.kill(run.task("pod")["pid"], signal.SIGTERM)

    assert run.finish() == "success", run.log("pod")
    assert run.task("pod")["try_number"] == 1
    assert len(installation.executions(run)) == 1
    run.assert_lines([f"line {i}" for i in range(1, 401)])


def test_a_task_whose_process_dies_is_tried_again_with_the_pod_that_runs(installation: Installation) -> None:
    run = installation.airflow.trigger("slow-retried")
    wait_for("lines in the task's log", lambda: run.count("line 80") == 1, within=120)

    os.kill(run.task("pod")["pid"], signal.SIGKILL)

    assert run.finish() == "success", run.log("pod", 2)
    assert run.task("pod")["try_number"] == 2
    (execution,) = installation.executions(run)
    assert execution.state is ExecutionState.SUCCEEDED
    run.assert_lines([f"line {i}" for i in range(1, 401)], attempt=2)


def test_a_task_that_takes_too_long_fails_and_its_pod_is_cancelled(installation: Installation) -> None:
    run = installation.airflow.trigger("late")

    assert run.finish() == "failed"
    _assert_cancelled(installation, run)


def test_a_task_that_is_marked_failed_ends_its_pod(installation: Installation) -> None:
    run = installation.airflow.trigger("endless")
    wait_for("the pod to be ready", lambda: run.count("ready") == 1, within=120)

    run.set_state("pod", "failed")

    _assert_cancelled(installation, run)
    assert run.finish() == "failed"


def test_a_function_runs_in_a_pod_and_its_value_goes_into_the_command_of_the_next(airflow: Airflow) -> None:
    run = airflow.trigger("decorated")

    assert run.finish() == "success", [*run.log("count"), *run.log("report")]
    assert any(line.endswith("käse on Linux") for line in run.log("count"))
    assert run.value("count") == {"one": 3, "three": 5}
    assert any(line.endswith("one=3 three=5") for line in run.log("report"))
    assert run.value("report") == f"report of {run.run}"


def _assert_cancelled(installation: Installation, run: Run) -> None:
    installation.assert_pod_ended(run)
    (execution,) = installation.executions(run)
    assert execution.outcome is not None
    assert execution.outcome.failure_class is FailureClass.CANCELLED_BY_CALLER
